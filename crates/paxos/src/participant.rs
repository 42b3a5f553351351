//! What a replica is in any role: its acceptor, its learner, its clock, and what it has to write and to send.
//!
//! The roles, `candidate.rs` and `leader.rs`, get it as an argument. `following.rs` and `learning.rs` join its parts
//! for the messages that need no role.

use crate::acceptor::Acceptor;
use crate::batch::Batch;
use crate::catch_up::CatchUp;
use crate::config::Config;
use crate::configurations::Configurations;
use crate::election::Election;
use crate::freshness::Freshness;
use crate::learner::Learner;
use crate::log::Log;
use crate::message::Message;
use crate::orphans::Orphans;
use crate::outbox::{Outbox, RecordNumber};
use crate::restored::{Reinstatements, Restored};
use crate::rules::Rules;
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::{Ballot, Instant, Members, Recovered, ReplicaId, Slot, SplitMix64};

/// For how many times the usual wait for an answer phase 1 lasts at most.
pub(crate) const PHASE_1_WAITS: u32 = 4;

/// A replica without its role.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Participant {
    pub(crate) config: Config,
    /// Distinguishes the ballots of this life from those of earlier ones.
    pub(crate) starts: u32,
    pub(crate) now: Instant,
    random: SplitMix64,
    /// What was accepted, and is kept in memory.
    pub(crate) log: Log,
    pub(crate) acceptor: Acceptor,
    pub(crate) learner: Learner,
    pub(crate) catch_up: Option<CatchUp>,
    pub(crate) freshness: Freshness,
    /// While its disk is a copy, and it may have forgotten what it has sent.
    pub(crate) restored: Option<Restored>,
    pub(crate) reinstatements: Reinstatements,
    pub(crate) election: Election,
    pub(crate) orphans: Orphans,
    pub(crate) outbox: Outbox,
}

impl Participant {
    /// Starts from what the disk knew.
    pub(crate) fn new(
        config: Config,
        configurations: Configurations,
        recovered: Recovered,
        now: Instant,
    ) -> Participant {
        let snapshot = recovered.snapshot_slot();
        let (replica, rules, starts) = (config.replica, config.rules(), recovered.starts);
        let mut log = Log::after(snapshot);
        for accepted in recovered.accepted {
            if accepted.slot > snapshot {
                log.put(Batch::of(accepted));
            }
        }
        // Also as a sole voter: it may have granted a lease to a master on its way out.
        let silent_until = now + rules.silence(recovered.lease_bound, config.rho);
        let highest_round = recovered.promised.round.max(configurations.round());
        let mut participant = Participant {
            starts,
            now,
            random: SplitMix64::new(config.seed ^ u64::from(replica.0) << 32 ^ u64::from(starts)),
            log,
            acceptor: Acceptor::new(recovered.promised, recovered.lease_bound, silent_until),
            learner: Learner::new(snapshot, recovered.chosen, configurations),
            catch_up: None,
            freshness: Freshness::new(starts, rules),
            restored: None,
            reinstatements: Reinstatements::default(),
            election: Election::new(highest_round, now),
            orphans: Orphans::default(),
            outbox: Outbox::new(rules),
            config,
        };
        participant.advance_chosen(recovered.chosen);
        participant.choose_as_sole_voter();
        if rules.loses_vote(recovered.is_copy) {
            participant.lose_vote();
        }
        participant.look_for_master_after_silence();
        participant
    }

    /// What a sole voter has accepted is chosen.
    fn choose_as_sole_voter(&mut self) {
        loop {
            let chosen = self.chosen();
            if !self.is_sole_voter_of(self.configurations().at(chosen.next())) || self.log.last() <= chosen {
                return;
            }
            self.advance_chosen(chosen.next());
            if self.chosen() == chosen {
                return;
            }
        }
    }

    // ---- Clock and chance ----

    pub(crate) fn advance_clock(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// A random part of `most`.
    pub(crate) fn jitter(&mut self, most: Duration) -> Duration {
        self.random.part(most)
    }

    /// There is a master or a candidate: no reason to look for a new master soon.
    pub(crate) fn postpone_election(&mut self) {
        let jitter = self.jitter(self.config.lease / 2);
        self.election.due_at = self.now + self.config.patience + jitter;
    }

    /// Nothing is known of any master: looks for a new one as soon as its silence is over.
    pub(crate) fn look_for_master_after_silence(&mut self) {
        self.election.due_at = self.acceptor.silent_until();
        if !self.is_sole_voter() {
            self.election.due_at = self.election.due_at + self.jitter(self.config.heartbeat);
        }
    }

    // ---- Members ----

    pub(crate) fn id(&self) -> ReplicaId {
        self.config.replica
    }

    pub(crate) fn rules(&self) -> Rules {
        self.config.rules()
    }

    pub(crate) fn configurations(&self) -> &Configurations {
        self.learner.configurations()
    }

    /// The configurations that vote on slots that are not chosen yet, as far as any master may propose.
    pub(crate) fn active_configurations(&self) -> impl Iterator<Item = &Members> {
        let chosen = self.chosen();
        self.configurations().governing(chosen.next(), Slot(chosen.0 + self.config.window))
    }

    /// Whether this replica alone decides, as far as any master may propose.
    pub(crate) fn is_sole_voter(&self) -> bool {
        self.active_configurations().all(|members| self.is_sole_voter_of(members))
    }

    fn is_sole_voter_of(&self, members: &Members) -> bool {
        members.voters.len() == 1 && members.is_voter(self.id())
    }

    /// Whether this replica votes on a slot that is not chosen yet.
    pub(crate) fn may_vote(&self) -> bool {
        self.active_configurations().any(|members| members.is_voter(self.id()))
    }

    /// Whether a replica votes on every slot that is not chosen yet.
    pub(crate) fn is_voter_of_all(&self, id: ReplicaId) -> bool {
        self.active_configurations().all(|members| members.is_voter(id))
    }

    /// The voters of all active configurations but this replica itself, each once, by id.
    pub(crate) fn other_voters(&self) -> Vec<ReplicaId> {
        let voters = self.active_configurations().flat_map(|members| &members.voters);
        let mut ids: Vec<ReplicaId> = voters.map(|member| member.id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.retain(|id| *id != self.id());
        ids
    }

    /// All members but this replica itself; a member of several configurations comes several times.
    pub(crate) fn other_members(&self) -> impl Iterator<Item = ReplicaId> {
        self.configurations().everyone().map(|member| member.id).filter(|id| *id != self.id())
    }

    /// Whether the cell has no other replica.
    fn is_alone_here(&self) -> bool {
        self.configurations().knows(self.id()) && self.other_members().next().is_none()
    }

    // ---- What is chosen ----

    /// The last slot that is known to be chosen.
    pub(crate) fn chosen(&self) -> Slot {
        self.learner.chosen()
    }

    /// The slots up to `slot` are chosen, with the values of the log: hands them out as far as the log reaches without
    /// a gap.
    pub(crate) fn advance_chosen(&mut self, slot: Slot) {
        while self.chosen() < slot {
            let next = self.chosen().next();
            let batch = self.log.batch_at(next).and_then(|batch| batch.clone().part(next, slot));
            let Some(batch) = batch else { break };
            self.learner.learn(&batch, self.config.window);
            if self.orphans.len() > 0 {
                for (at, value) in batch.iter() {
                    self.orphans.resolve(at, value, &mut self.outbox.effects.ended);
                }
            }
            self.election.note_progress(self.now);
            self.outbox.effects.chosen.push(batch);
        }
        self.learner.forget_former_members();
        if self.is_alone_here() {
            self.trim();
        }
    }

    /// The first `through` records ever handed out are durable.
    pub(crate) fn persisted(&mut self, through: u64) {
        self.outbox.persisted(RecordNumber(through));
        self.learner.persisted(RecordNumber(through));
    }

    pub(crate) fn record_chosen(&mut self) {
        self.learner.record_chosen(&mut self.outbox);
    }

    /// Drops from the log in memory what a snapshot holds, but for what others may still fetch; without others, all
    /// that is chosen.
    pub(crate) fn trim(&mut self) {
        if self.is_alone_here() {
            self.log.drop_through(self.chosen());
        }
        while self.log.first() <= self.learner.snapshot() && self.log.bytes() > self.config.log_bytes_kept {
            self.log.drop_first();
        }
    }

    // ---- While its disk is a copy ----

    /// From now on this replica only learns. It keeps silent until all candidacies are over that count on what it has
    /// forgotten.
    pub(crate) fn lose_vote(&mut self) {
        self.restored = Some(Restored::new(self.random.draw()));
        if !self.is_sole_voter() {
            let longest = PHASE_1_WAITS * self.config.resend.max(self.acceptor.longest_grant());
            self.acceptor.keep_silent_until(self.now + self.config.rho.lengthen(longest));
        }
    }

    /// Whether this replica has less than it has acknowledged to a master.
    pub(crate) fn has_lost(&self, acknowledged: Slot) -> bool {
        acknowledged > self.log.last()
    }

    /// Whether this replica has no vote until it is reinstated.
    pub(crate) fn is_restored(&self) -> bool {
        self.restored.is_some()
    }

    /// Whether a ballot may count on this replica.
    pub(crate) fn may_serve(&self, ballot: Ballot) -> bool {
        self.restored.as_ref().is_none_or(|restored| restored.trusts(ballot))
    }

    /// All voters are asked to promise this ballot, or it is this replica's own.
    pub(crate) fn trust(&mut self, ballot: Ballot) {
        if let Some(restored) = &mut self.restored {
            restored.trust(ballot);
        }
    }

    /// Gives this replica its vote back once it knows all that it may have forgotten: what was chosen before the
    /// trusted ballot's master was elected. `led_from` is the slot of its own first value if it is that master.
    pub(crate) fn reinstate_if_caught_up(&mut self, led_from: Option<Slot>) {
        let Some(restored) = &self.restored else { return };
        let barrier = led_from.or(restored.barrier());
        let is_caught_up = barrier.is_some_and(|barrier| self.learner.durable() > barrier);
        let is_trusted = restored.trusts(self.acceptor.promised());
        if is_trusted
            && self.acceptor.is_promise_durable(&self.outbox)
            && self.rules().may_vote_again(is_caught_up)
        {
            self.restored = None;
            self.outbox.effects.reinstated = true;
        }
    }

    // ---- Messages ----

    pub(crate) fn send(&mut self, to: ReplicaId, message: Message) {
        self.outbox.send(to, message);
    }

    /// Promises a ballot.
    pub(crate) fn promise(&mut self, ballot: Ballot) {
        self.acceptor.promise(ballot, &mut self.outbox);
        self.election.note_round(ballot.round);
        self.election.successor = None;
        // The candidate gets time for its election.
        self.postpone_election();
    }

    /// Grants the lease of a ballot from now on.
    pub(crate) fn grant_lease(&mut self, ballot: Ballot, lease: Duration) {
        self.acceptor.grant_lease(ballot, self.now + lease, self.config.rules());
    }
}
