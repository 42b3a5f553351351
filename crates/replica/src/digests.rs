//! Whether all replicas have made the same of the log (SPEC I19).
//!
//! Now and then the master proposes to hash a part of the state. Every replica does so at that slot and tells
//! the master; what a quorum agrees on, the master's own not counting for more than any other, goes into the
//! log, and whoever finds there something else than its own has gone wrong and stops.

use crate::{PeerMessage, Replica};
use alloc::collections::{BTreeMap, VecDeque};
use core::time::Duration;
use wombat_proto::wire::log::{self, command::Op};
use wombat_proto::{Instance, Instant, ReplicaId, SessionId, Slot};

/// How often a part of the state is compared, if anything has changed.
const COMPARE_EVERY: Duration = Duration::from_secs(10);

/// How many digests of its own a replica remembers.
const REMEMBERED: usize = 8;

/// What a replica knows of digests.
#[derive(Default)]
pub(crate) struct Digests {
    /// Its own, by the slot that asked for them; the newest last.
    own: VecDeque<(Slot, u64)>,
    /// As master: what the replicas made of the newest, until a quorum agrees.
    told: BTreeMap<ReplicaId, u64>,
    /// As master: when to ask for the next, and after what it begins.
    next_at: Option<Instant>,
    next: (Instance, SessionId),
    /// The slot of the last one whose outcome is in the log.
    compared: Slot,
}

impl Replica {
    /// Asks for a digest when it is time.
    pub(crate) fn tend_digests(&mut self) {
        let now = self.moment.now;
        if self.master.is_none() || self.paxos.configurations().newest().voters.len() < 2 {
            self.digests.next_at = None;
            return;
        }
        let at = *self.digests.next_at.get_or_insert(now + COMPARE_EVERY);
        // What comes after a comparison is no change by itself.
        let changed = self.state.applied().0 > self.digests.compared.0 + 2;
        if now < at || !changed {
            return;
        }
        self.digests.next_at = Some(now + COMPARE_EVERY);
        let (after_node, after_session) = (self.digests.next.0.0, self.digests.next.1.0);
        let _again_later = self.propose_own(Op::TakeDigest(log::TakeDigest { after_node, after_session }));
    }

    /// This replica has made a digest: the master has to know.
    pub(crate) fn digest_taken(&mut self, slot: Slot, digest: u64, next: (Instance, SessionId)) {
        let digests = &mut self.digests;
        digests.own.push_back((slot, digest));
        if digests.own.len() > REMEMBERED {
            digests.own.pop_front();
        }
        digests.next = next;
        digests.told.clear();
        if self.master.is_some() {
            self.digest_told(self.config.replica, slot, digest);
        } else if let Some(master) = self.paxos.master() {
            self.effects.send.push((master, PeerMessage::Digest { slot, digest }));
        }
    }

    /// A replica tells its digest. What a quorum of the voters agrees on goes into the log.
    pub(crate) fn digest_told(&mut self, from: ReplicaId, slot: Slot, digest: u64) {
        let newest = self.digests.own.back().map(|(slot, _)| *slot);
        if self.master.is_none() || newest != Some(slot) || self.digests.compared >= slot {
            return;
        }
        if !self.paxos.configurations().newest().is_voter(from) {
            return;
        }
        self.digests.told.insert(from, digest);
        let told = &self.digests.told;
        let members = self.paxos.configurations().newest();
        let agreed = told.values().find(|made| members.is_quorum(|id| told.get(&id) == Some(made)));
        if let Some(digest) = agreed.copied() {
            let compare = log::CompareDigest { slot: slot.0, digest };
            if self.propose_own(Op::CompareDigest(compare)).is_ok() {
                self.digests.compared = slot;
            }
        }
    }

    /// The log says what the digest of a slot is.
    pub(crate) fn compare_digest(&mut self, compare: &log::CompareDigest) {
        let slot = Slot(compare.slot);
        self.digests.compared = self.digests.compared.max(slot);
        let own = self.digests.own.iter().find(|(taken, _)| *taken == slot);
        if own.is_some_and(|(_, digest)| *digest != compare.digest) {
            self.effects.diverged = Some(slot);
        }
    }
}
