//! The acceptor: it promises, accepts, and grants the master its lease.

use crate::{Batch, Mark, Message, Paxos, Role, Values, planted};
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::{Accepted, Ballot, Instant, Record, ReplicaId, Slot};

/// The consecutive slots that were accepted under the promised ballot.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Run {
    /// The slot before the first that the ballot's master proposes; up to here everything is chosen.
    pub(crate) base: Slot,
    /// All slots in `base+1 ..= through` are accepted under the ballot, or known to be chosen.
    pub(crate) through: Slot,
}

/// A master lease that this replica has granted (P§2.2): until it ends, nobody else is promised anything.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Grant {
    pub(crate) ballot: Ballot,
    pub(crate) until: Instant,
    /// Whether the master's connection has broken since: it may be dead.
    lost: bool,
}

impl Grant {
    pub(crate) fn new(ballot: Ballot, until: Instant) -> Grant {
        Grant { ballot, until, lost: false }
    }

    /// Whose lease it is, while it lasts.
    pub(crate) fn holder(&self, now: Instant) -> Option<ReplicaId> {
        (self.until > now).then_some(self.ballot.replica)
    }

    /// The same, if it may still be reached.
    pub(crate) fn master(&self, now: Instant) -> Option<ReplicaId> {
        self.holder(now).filter(|_| !self.lost)
    }
}

impl Paxos {
    /// Whether a lease stands in the way of a promise to `ballot`.
    fn lease_forbids(&self, ballot: Ballot, released: Ballot) -> bool {
        // Whoever decides alone has no need to ask for a lease.
        if matches!(self.role, Role::Leading(_)) && self.is_sole_voter() {
            return true;
        }
        let Some(grant) = &self.grant else { return false };
        // Who campaigns, or leads, under a higher ballot has let go of its own lower ones.
        let own = grant.ballot.replica == ballot.replica && grant.ballot <= ballot;
        let free = own || grant.ballot == released;
        grant.until > self.now && !free && !planted!(self, LeaseIgnored)
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.now < self.silent_until
    }

    /// Pre-vote: says what would be, and binds nobody.
    pub(crate) fn asked(&mut self, from: ReplicaId, round: u64, chosen: Slot, everyone: bool) {
        let own_lease = self.grant.as_ref().is_some_and(|grant| grant.ballot.replica == from);
        let free = own_lease || !self.lease_forbids(Ballot::ZERO, Ballot::ZERO);
        let granted = free
            && !self.is_silent()
            && (everyone || !self.is_restored())
            && round > self.promised.round
            && chosen.next() >= self.log.first()
            && !matches!(self.role, Role::Leading(_));
        let answer = Message::Answer { round, granted, promised: self.promised, chosen: self.chosen };
        self.send(from, answer);
        if chosen > self.chosen {
            self.catch_up_from(from);
        }
    }

    /// Phase 1.
    pub(crate) fn prepare(
        &mut self,
        from: ReplicaId,
        ballot: Ballot,
        above: Slot,
        released: Ballot,
        everyone: bool,
    ) {
        if ballot.replica != from || self.is_silent() || (self.is_restored() && !everyone) {
            return;
        }
        // Of each round only one ballot is promised: an epoch has one master.
        if ballot != self.promised && ballot.round <= self.promised.round {
            return self.send(from, Message::Refused { promised: self.promised });
        }
        if self.lease_forbids(ballot, released) {
            return;
        }
        if ballot > self.promised {
            self.step_down();
            self.promise(ballot);
        }
        if everyone {
            self.trust(ballot);
        }
        self.report(from, ballot, above);
    }

    pub(crate) fn promise(&mut self, ballot: Ballot) {
        self.promised = ballot;
        self.highest_round = self.highest_round.max(ballot.round);
        self.run = None;
        self.successor = None;
        self.promise_record = self.record(Record::Promise(ballot));
        // Whoever is being elected gets time for it.
        self.postpone_election();
    }

    /// Tells a candidate what was accepted above a slot, as much as fits one message.
    fn report(&mut self, to: ReplicaId, ballot: Ballot, above: Slot) {
        if above.next() < self.log.first() {
            let (promised, chosen) = (self.promised, self.chosen);
            return self.send(to, Message::Answer { round: ballot.round, granted: false, promised, chosen });
        }
        let (accepted, through) = self.batch(above, self.log.last());
        let complete = through >= self.log.last();
        let restored = self.is_restored();
        let promise = Message::Promise { ballot, above, accepted, through, complete, restored };
        if planted!(self, PromiseNotSynced) {
            self.send(to, promise);
        } else {
            self.send_when_durable(to, promise);
        }
    }

    /// The entries after `above`, through `last` at most, as many as fit one message; and how far they go.
    pub(crate) fn batch(&self, above: Slot, last: Slot) -> (Vec<Accepted>, Slot) {
        let mut accepted = Vec::new();
        let mut bytes = 0;
        for (slot, ballot, value) in self.log.range(above.next(), last) {
            bytes += value.weight();
            if !accepted.is_empty() && bytes > self.config.batch_bytes {
                return (accepted, Slot(slot.0 - 1));
            }
            accepted.push(Accepted { slot, ballot, value: value.clone() });
        }
        (accepted, last.max(above))
    }

    /// Follows the master of `ballot`, if it may, and takes what it says in every message: where it begins, and
    /// what is chosen. To follow it is to promise its ballot, so a lease stands in the way as it does with a
    /// Prepare: who is master by the members that it knows of may be none by the members of today.
    fn follow(&mut self, from: ReplicaId, ballot: Ballot, base: Slot, chosen: Slot) -> bool {
        if ballot.replica != from || from == self.config.replica || !self.may_serve(ballot) {
            return false;
        }
        if ballot < self.promised && !planted!(self, AcceptBelowPromise) {
            self.send(from, Message::Refused { promised: self.promised });
            return false;
        }
        if ballot > self.promised && self.lease_forbids(ballot, Ballot::ZERO) {
            return false;
        }
        self.step_down();
        if ballot > self.promised {
            self.promise(ballot);
        }
        if self.run.is_none() {
            self.run = Some(Run { base, through: base });
        }
        self.extend_run();
        self.chosen_by_master(chosen);
        true
    }

    /// Goes on along the log: what is accepted under the ballot already, or chosen.
    pub(crate) fn extend_run(&mut self) {
        let (promised, chosen) = (self.promised, self.chosen);
        if self.run.as_ref().is_some_and(|run| chosen > run.through) {
            // What is only known has to be known after a crash as well: it will be acknowledged.
            self.record_chosen();
        }
        let Some(run) = &mut self.run else { return };
        run.through = run.through.max(chosen);
        while let Some(batch) = self.log.batch_at(run.through.next()).filter(|batch| batch.ballot == promised)
        {
            run.through = batch.last();
        }
    }

    /// Phase 2.
    pub(crate) fn accept(
        &mut self,
        from: ReplicaId,
        ballot: Ballot,
        base: Slot,
        first: Slot,
        values: Values,
        chosen: Slot,
    ) {
        if !self.follow(from, ballot, base, chosen) {
            return;
        }
        let Some(run) = &self.run else { return };
        let (through, last) = (run.through, Slot(first.0.saturating_add(values.len() as u64) - 1));
        // A replica that is too far behind to bound what it would keep has to catch up first.
        if first <= base || last.0 > self.chosen.0 + 2 * self.config.window {
            return;
        }
        let batch = Batch { ballot, first, values };
        let mut next = first.max(through.next());
        while let Some((begin, end)) = self.log.lacks(ballot, next, last) {
            if end == last {
                batch.part(begin, end).into_iter().for_each(|new| self.keep(new));
                break;
            }
            batch.clone().part(begin, end).into_iter().for_each(|new| self.keep(new));
            next = end.next();
        }
        if planted!(self, GapIgnored)
            && let Some(run) = &mut self.run
        {
            run.through = run.through.max(last);
        }
        self.extend_run();
        self.chosen_by_master(chosen);
        self.acknowledge(from, ballot);
    }

    fn acknowledge(&mut self, to: ReplicaId, ballot: Ballot) {
        let Some(run) = &self.run else { return };
        let accepted = Message::Accepted { ballot, through: run.through };
        if planted!(self, AcceptNotSynced) {
            self.send(to, accepted);
        } else {
            self.send_when_durable(to, accepted);
        }
    }

    /// The master says that every slot up to `chosen` is chosen: so it is here, as far as this replica has
    /// accepted under the master's ballot.
    fn chosen_by_master(&mut self, chosen: Slot) {
        let Some(run) = &self.run else { return };
        let mine = if planted!(self, ChosenUnchecked) { self.log.last() } else { run.through };
        let through = chosen.min(mine);
        if through > self.chosen && (self.chosen >= run.base || planted!(self, ChosenUnchecked)) {
            self.hand_out_through(through);
        }
    }

    /// A master's heartbeat: grants it the lease.
    #[allow(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(crate) fn heartbeat(
        &mut self,
        from: ReplicaId,
        ballot: Ballot,
        base: Slot,
        sequence: u64,
        lease: Duration,
        chosen: Slot,
        kept_after: Slot,
        mark: Option<Mark>,
    ) {
        if !self.follow(from, ballot, base, chosen) {
            return;
        }
        self.vouched(mark, chosen);
        self.failed_campaigns = 0;
        self.record_lease_bound(lease);
        self.grant_lease(ballot, lease);
        self.postpone_election();
        let mark = self.freshness.mark(self.now);
        let received = self.run.as_ref().map_or(base, |run| run.through);
        let granted = Message::Granted { ballot, sequence, chosen: self.chosen_durable, mark, received };
        let is_durable = self.durable >= self.promise_record.max(self.lease_record);
        if is_durable || planted!(self, GrantNotSynced) {
            // Not behind any other record: a lease must not wait for a slow disk.
            self.send(from, granted);
        } else {
            self.send_when_durable(from, granted);
        }
        self.acknowledge(from, ballot);
        let Some(run) = &self.run else { return };
        let gone = run.through < kept_after;
        if self.chosen < chosen && (self.chosen < run.base || gone) {
            self.catch_up_from(from);
        }
        self.record_chosen();
        self.reinstate_if_caught_up();
    }

    /// A master is there: there is no need to look for one soon.
    pub(crate) fn postpone_election(&mut self) {
        let jitter = self.jitter(self.config.lease / 2);
        self.election_at = self.now + self.config.patience + jitter;
    }

    /// The connection of a replica is gone. That proves nothing, so a lease that it has holds on; but if it was
    /// the master, there is no reason to wait for longer than that.
    pub fn lost(&mut self, now: Instant, replica: ReplicaId) {
        self.advance_clock(now);
        let soon = self.jitter(self.config.heartbeat);
        let Some(grant) = self.grant.as_mut().filter(|grant| grant.ballot.replica == replica) else { return };
        if matches!(self.role, Role::Following) {
            grant.lost = true;
            self.election_at = self.election_at.min(grant.until.max(self.now) + soon);
        }
    }
}
