//! The acceptor's part of the messages of candidates and masters: reports, acceptances, grants.

use crate::batch::Batch;
use crate::message::{Mark, Message};
use crate::participant::Participant;
use core::time::Duration;
use wombat_proto::{Ballot, ReplicaId, Slot};

impl Participant {
    /// Whether the lease that this replica has granted forbids a promise to `ballot`. A master has `released` that
    /// ballot's lease.
    pub(crate) fn lease_forbids(&self, ballot: Ballot, released: Ballot) -> bool {
        self.acceptor.lease_forbids(ballot, released, self.now, self.rules())
    }

    /// Answers a pre-vote: whether a Prepare of that round would be promised. It binds nobody.
    pub(crate) fn answer_pre_vote(
        &mut self,
        from: ReplicaId,
        round: u64,
        chosen: Slot,
        everyone: bool,
        is_leading: bool,
    ) {
        let has_lease = self.acceptor.granted_to() == Some(from);
        let granted = (has_lease || !self.lease_forbids(Ballot::ZERO, Ballot::ZERO))
            && !self.acceptor.is_silent(self.now)
            && (everyone || !self.is_restored())
            && round > self.acceptor.promised().round
            && chosen.next() >= self.log.first()
            && !is_leading;
        self.send_answer(from, round, granted);
    }

    /// Whether this replica may take part in phase 1 with a ballot at all. Sends a refusal if it has promised too much.
    pub(crate) fn may_prepare(&mut self, from: ReplicaId, ballot: Ballot, everyone: bool) -> bool {
        if ballot.replica != from || self.acceptor.is_silent(self.now) || (self.is_restored() && !everyone) {
            return false;
        }
        // Of each round only one ballot is promised: an epoch has one master.
        let promised = self.acceptor.promised();
        let may = ballot == promised || ballot.round > promised.round;
        if !may {
            self.send(from, Message::Refused { promised });
        }
        may
    }

    /// Reports to a candidate what was accepted above a slot, as much as fits one message.
    pub(crate) fn report(&mut self, to: ReplicaId, ballot: Ballot, above: Slot) {
        if above.next() < self.log.first() {
            return self.send_answer(to, ballot.round, false);
        }
        let (accepted, through) = self.log.part(above, self.log.last(), self.config.batch_bytes);
        let complete = through >= self.log.last();
        let restored = self.is_restored();
        let promise = Message::Promise { ballot, above, accepted, through, complete, restored };
        self.outbox.send_when_durable(to, promise);
    }

    pub(crate) fn send_answer(&mut self, to: ReplicaId, round: u64, granted: bool) {
        let (promised, chosen) = (self.acceptor.promised(), self.chosen());
        self.send(to, Message::Answer { round, granted, promised, chosen });
    }

    /// Whether this replica may follow the master of a ballot. To follow it is to promise its ballot, so a lease
    /// forbids it as it forbids a promise: a master by the members that it knows of may be none by the members of
    /// today. Sends a refusal if this replica has promised a higher ballot.
    pub(crate) fn may_follow(&mut self, from: ReplicaId, ballot: Ballot, leads_alone: bool) -> bool {
        if ballot.replica != from || from == self.id() || !self.may_serve(ballot) {
            return false;
        }
        let promised = self.acceptor.promised();
        if !self.rules().may_take_part(ballot, promised) {
            self.send(from, Message::Refused { promised });
            return false;
        }
        ballot <= promised || !(leads_alone || self.lease_forbids(ballot, Ballot::ZERO))
    }

    /// Follows the master of a ballot, and takes what it reports in every message: which slot it begins after, and
    /// what is chosen.
    pub(crate) fn follow(&mut self, ballot: Ballot, base: Slot, chosen: Slot) {
        if ballot > self.acceptor.promised() {
            self.promise(ballot);
        }
        self.acceptor.begin_run(base);
        self.extend_run();
        self.chosen_by_master(chosen);
    }

    /// Continues the run of accepted slots along the log.
    pub(crate) fn extend_run(&mut self) {
        if self.acceptor.lags_behind(self.chosen()) {
            // What is only known has to be known after a crash as well: it will be acknowledged.
            self.record_chosen();
        }
        self.acceptor.extend_run(&self.log, self.learner.chosen());
    }

    /// The master reports that every slot up to `chosen` is chosen. So it is here, as far as this replica has accepted
    /// under the master's ballot.
    fn chosen_by_master(&mut self, chosen: Slot) {
        let (Some(base), Some(accepted)) = (self.acceptor.base(), self.acceptor.accepted_through()) else {
            return;
        };
        let most = self.rules().may_be_chosen_through(self.chosen(), base, accepted, self.log.last());
        if chosen.min(most) > self.chosen() {
            self.advance_chosen(chosen.min(most));
        }
    }

    /// Phase 2: accepts values of the master that this replica follows.
    pub(crate) fn accept(&mut self, from: ReplicaId, batch: Batch, base: Slot, chosen: Slot) {
        // A replica that is too far behind to bound what it would keep has to catch up first.
        if batch.first <= base || batch.last().0 > self.chosen().0 + 2 * self.config.window {
            return;
        }
        let (ballot, rules) = (batch.ballot, self.rules());
        self.acceptor.accept(batch, rules, &mut self.log, &mut self.outbox);
        self.extend_run();
        self.chosen_by_master(chosen);
        self.acknowledge(from, ballot);
    }

    /// Reports to the master how far this replica has accepted its values, once that is durable.
    pub(crate) fn acknowledge(&mut self, to: ReplicaId, ballot: Ballot) {
        if let Some(through) = self.acceptor.accepted_through() {
            self.outbox.send_when_durable(to, Message::Accepted { ballot, through });
        }
    }

    /// Grants the lease that a master's heartbeat asks for.
    pub(crate) fn grant(
        &mut self,
        to: ReplicaId,
        ballot: Ballot,
        sequence: u64,
        lease: Duration,
        base: Slot,
    ) {
        self.election.end_back_off();
        self.acceptor.allow_grants_of(lease, &mut self.outbox);
        self.grant_lease(ballot, lease);
        self.postpone_election();
        let (mark, chosen) = (self.freshness.mark(self.now), self.learner.durable());
        let received = self.acceptor.accepted_through().unwrap_or(base);
        let granted = Message::Granted { ballot, sequence, chosen, mark, received };
        if self.acceptor.is_grant_durable(&self.outbox) {
            // Not behind any other record: a lease must not wait for a slow disk.
            self.send(to, granted);
        } else {
            self.outbox.send_when_durable(to, granted);
        }
    }

    /// A heartbeat of the master that this replica follows has returned a mark.
    pub(crate) fn mark_returned(&mut self, mark: Option<Mark>, chosen: Slot) {
        self.freshness.mark_returned(mark, chosen, self.learner.chosen(), self.now);
    }

    /// Catches up with the master that this replica follows, if the master will not send what is missing: because it
    /// was chosen before the master was elected, or because the master's log begins behind it.
    pub(crate) fn catch_up_with_master(&mut self, from: ReplicaId, chosen: Slot, kept_after: Slot) {
        let (Some(base), Some(accepted)) = (self.acceptor.base(), self.acceptor.accepted_through()) else {
            return;
        };
        if self.chosen() < chosen && (self.chosen() < base || accepted < kept_after) {
            self.catch_up_from(from);
        }
    }

    /// Whether this replica may follow the master of a heartbeat, as far as its disk is concerned: if that is a copy,
    /// the master has to have returned this replica's number.
    pub(crate) fn trusts_master(
        &mut self,
        ballot: Ballot,
        barrier: Option<Slot>,
        reinstates: Option<u64>,
    ) -> bool {
        let (rules, promised) = (self.rules(), self.acceptor.promised());
        let is_silent = self.acceptor.is_silent(self.now);
        let Some(restored) = &mut self.restored else { return true };
        if rules.may_trust(reinstates == Some(restored.number)) && !is_silent && ballot >= promised {
            restored.trust(ballot);
        }
        if !restored.trusts(ballot) {
            return false;
        }
        restored.note_barrier(barrier);
        true
    }

    /// Asks a master, whose heartbeat has returned the number `reinstates`, to take a ballot that rests on nothing that
    /// this replica may have forgotten.
    pub(crate) fn ask_for_reinstatement(&mut self, master: ReplicaId, reinstates: Option<u64>) {
        if let Some(restored) = &self.restored
            && !self.acceptor.is_silent(self.now)
        {
            let (number, promised) = (restored.number, self.acceptor.promised());
            let request = match self.rules().may_trust(reinstates == Some(number)) {
                // Only this replica's own ballot, which was higher, keeps it from trusting the master's.
                true => Message::Refused { promised },
                false => Message::Restored { number },
            };
            self.send(master, request);
        }
        self.postpone_election();
    }
}
