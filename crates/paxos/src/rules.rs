//! Those rules of the agreement that a planted bug can break, each in one small function.
//!
//! The simulator breaks them on purpose, one at a time, and must notice ([`crate::Plant`]). Without the feature
//! `plant` every rule holds, and the compiler removes the question.

use crate::message::Message;
#[cfg(feature = "plant")]
use crate::plant::Plant;
use core::time::Duration;
use wombat_proto::{Ballot, Instant, Members, Rho, Slot};

/// The rules that a replica keeps.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub(crate) struct Rules {
    #[cfg(feature = "plant")]
    broken: Option<Plant>,
}

/// Whether a planted bug breaks the rule.
macro_rules! broken {
    ($rules:expr, $bug:ident) => {{
        #[cfg(feature = "plant")]
        let is_broken = $rules.broken == Some(Plant::$bug);
        #[cfg(not(feature = "plant"))]
        let is_broken = {
            let Rules {} = $rules;
            false
        };
        is_broken
    }};
}

impl Rules {
    /// All but the one that `plant` breaks.
    #[cfg(feature = "plant")]
    pub(crate) fn breaking(plant: Option<Plant>) -> Rules {
        Rules { broken: plant }
    }

    // ---- What is sent, and counted, only when it is durable ----

    /// A promise, an acceptance and a grant wait for the disk.
    pub(crate) fn waits_for_disk(self, message: &Message) -> bool {
        match message {
            Message::Promise { .. } => !broken!(self, PromiseNotSynced),
            Message::Accepted { .. } => !broken!(self, AcceptNotSynced),
            Message::Granted { .. } => !broken!(self, GrantNotSynced),
            _ => true,
        }
    }

    /// A candidate counts its own promise when that is durable.
    pub(crate) fn counts_own_promise(self, is_durable: bool) -> bool {
        is_durable || broken!(self, OwnPromiseNotSynced)
    }

    // ---- The acceptor ----

    /// An acceptor takes part in no ballot below its promise.
    pub(crate) fn may_take_part(self, ballot: Ballot, promised: Ballot) -> bool {
        ballot >= promised || broken!(self, AcceptBelowPromise)
    }

    /// A granted lease forbids promises to others until it ends.
    pub(crate) fn lease_binds(self, until: Instant, now: Instant) -> bool {
        until > now && !broken!(self, LeaseIgnored)
    }

    /// A grant is never shortened: the master counts on the longest one that it knows of.
    pub(crate) fn extend_grant(self, granted: Instant, until: Instant) -> Instant {
        if broken!(self, ShorterGrantReplaces) { until } else { granted.max(until) }
    }

    /// For how long an acceptor keeps silent after a start: as long as a lease can last that it has granted before.
    pub(crate) fn silence(self, longest_grant: Duration, rho: Rho) -> Duration {
        if broken!(self, NoSilence) { Duration::ZERO } else { rho.lengthen(longest_grant) }
    }

    /// An acceptor acknowledges no slot behind a gap: `through` is the last slot before the first gap, `last` the
    /// last slot that has arrived.
    pub(crate) fn acknowledged_through(self, through: Slot, last: Slot) -> Slot {
        if broken!(self, GapIgnored) { through.max(last) } else { through }
    }

    /// A follower knows a slot to be chosen only if it has accepted it under the ballot of the master that reports
    /// it. Returns the last such slot: `accepted_through` if the follower knows everything up to `base`.
    pub(crate) fn may_be_chosen_through(
        self,
        chosen: Slot,
        base: Slot,
        accepted_through: Slot,
        log_last: Slot,
    ) -> Slot {
        match chosen >= base {
            _ if broken!(self, ChosenUnchecked) => log_last,
            true => accepted_through,
            false => chosen,
        }
    }

    // ---- Election ----

    /// A candidate needs a quorum of every active configuration, not only of the newest.
    pub(crate) fn must_promise(self, members: &Members, newest: &Members) -> bool {
        !broken!(self, OneConfigurationPrepared) || members == newest
    }

    /// A replica whose disk is a copy is elected only by all voters.
    pub(crate) fn needs_everyone(self, is_copy: bool) -> bool {
        is_copy && !broken!(self, CopyElected)
    }

    // ---- The leader ----

    /// A master proposes for a slot only if a quorum of its voters has promised.
    pub(crate) fn may_propose(self, is_promised: bool) -> bool {
        is_promised || broken!(self, NewVotersUnprepared)
    }

    /// A master serves only when its first own value is chosen: it knows all that was chosen before then.
    pub(crate) fn may_serve(self, is_barrier_chosen: bool) -> bool {
        is_barrier_chosen || broken!(self, BarrierIgnored)
    }

    /// A master proposes no-ops for the gaps that phase 1 finds.
    pub(crate) fn fills_gaps(self) -> bool {
        !broken!(self, GapSkipped)
    }

    /// An acknowledgement counts for its own ballot alone.
    pub(crate) fn counts_for(self, ballot: Ballot, promised: Ballot) -> bool {
        ballot == promised || broken!(self, OldAcceptCounted)
    }

    /// A value is chosen once a quorum has accepted it, not once the fastest acceptor has.
    pub(crate) fn is_chosen_through(self, by_quorum: u64, by_fastest: impl Fn() -> u64) -> u64 {
        if broken!(self, MinorityChooses) { by_fastest() } else { by_quorum }
    }

    /// The acceptances that count for a slot are those of its voters, `current`; the configuration `before` an
    /// unfinished change may be another. Each comes with the last slot that it votes on.
    pub(crate) fn voters<'a>(
        self,
        current: (&'a Members, Slot),
        before: (&'a Members, Slot),
    ) -> (&'a Members, Slot) {
        if broken!(self, OldQuorumCounted) { before } else { current }
    }

    /// A master of which no proposal is chosen makes way for another.
    pub(crate) fn makes_way(self) -> bool {
        !broken!(self, StallIgnored)
    }

    // ---- The master lease ----

    /// The lease counts from the sending of the heartbeat, not from the receipt of the grant.
    pub(crate) fn lease_start(self, sent: Instant, received: Instant) -> Instant {
        if broken!(self, LeaseFromReceipt) { received } else { sent }
    }

    /// A lease is shortened by what two clocks may differ.
    pub(crate) fn lease_end(self, start: Instant, lease: Duration, rho: Rho) -> Instant {
        if broken!(self, DriftIgnored) { start + lease } else { start + rho.shorten(lease) }
    }

    /// The lease needs grants of a quorum of every active configuration, not only of the newest.
    pub(crate) fn must_grant(self, members: &Members, newest: &Members) -> bool {
        !broken!(self, OneConfigurationLeased) || members == newest
    }

    /// A master whose lease has lapsed for long steps down.
    pub(crate) fn steps_down_when_lapsed(self) -> bool {
        !broken!(self, LapseIgnored)
    }

    // ---- The learner ----

    /// A chosen value replaces one that was accepted under a lower ballot, `known`.
    pub(crate) fn replaces(self, known: Option<Ballot>, chosen: Ballot) -> bool {
        known.is_none_or(|known| known < chosen && !broken!(self, LearnKeepsOld))
    }

    /// A snapshot is installed only over an older state.
    pub(crate) fn may_install(self, snapshot: Slot, chosen: Slot) -> bool {
        snapshot > chosen || broken!(self, SnapshotOverNewer)
    }

    // ---- Freshness ----

    /// A master returns a mark only while its lease holds.
    pub(crate) fn may_return_mark(self, lease_holds: bool) -> bool {
        lease_holds || broken!(self, VouchedUnleased)
    }

    /// A returned mark counts from its sending, not from its return.
    pub(crate) fn mark_counts_from(self, sent: Instant, returned: Instant) -> Instant {
        if broken!(self, VouchedFromReceipt) { returned } else { sent }
    }

    /// A mark counts once every slot is known that was chosen when it was returned.
    pub(crate) fn known_through(self, chosen: Slot) -> Slot {
        if broken!(self, VouchedUnreached) { Slot(u64::MAX) } else { chosen }
    }

    /// The marks of one start differ from those of all others.
    pub(crate) fn mark_life(self, starts: u32) -> u32 {
        if broken!(self, MarksRepeat) { 0 } else { starts }
    }

    // ---- A replica whose disk is a copy ----

    /// A replica whose disk is a copy has no vote.
    pub(crate) fn loses_vote(self, is_copy: bool) -> bool {
        is_copy && !broken!(self, CopyVotes)
    }

    /// Such a replica takes part in a ballot only if its master has returned the replica's number.
    pub(crate) fn may_trust(self, is_returned: bool) -> bool {
        is_returned || broken!(self, CopyTrusts)
    }

    /// A master takes a new ballot before it reinstates such a replica.
    pub(crate) fn reinstates_with_new_ballot(self) -> bool {
        !broken!(self, CopyTrusted)
    }

    /// Such a replica votes again once it knows all that it may have forgotten.
    pub(crate) fn may_vote_again(self, is_caught_up: bool) -> bool {
        is_caught_up || broken!(self, CopyReinstatedEarly)
    }
}
