//! The acceptor: what this replica has promised, accepted and granted.

use crate::batch::Batch;
use crate::log::Log;
use crate::outbox::{Outbox, RecordNumber};
use crate::rules::Rules;
use core::time::Duration;
use wombat_proto::{Ballot, Instant, Record, ReplicaId, Slot};

/// The consecutive slots that were accepted under the promised ballot.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Run {
    /// The slot before the first that the ballot's master proposes; up to here everything is chosen.
    base: Slot,
    /// All slots in `base+1 ..= through` are accepted under the ballot, or known to be chosen.
    through: Slot,
}

/// A master lease that this replica has granted (P§2.2): until it ends, no other ballot is promised.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Grant {
    ballot: Ballot,
    until: Instant,
    /// Whether the master's connection has broken since: the master may be dead.
    connection_lost: bool,
}

/// What an acceptor is bound by.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Acceptor {
    /// The highest ballot that it takes part in. Durable once `promise_record` is.
    promised: Ballot,
    promise_record: RecordNumber,
    /// The longest lease that it may grant. Durable once `lease_record` is.
    longest_grant: Duration,
    lease_record: RecordNumber,
    /// What it has accepted under `promised`; `None` until the ballot's master has sent its base.
    run: Option<Run>,
    grant: Option<Grant>,
    /// Until then it takes no part in elections: it may have granted a lease before it started.
    silent_until: Instant,
}

impl Acceptor {
    /// An acceptor as its disk knew it; its disk may be older than what it has granted.
    pub(crate) fn new(promised: Ballot, longest_grant: Duration, silent_until: Instant) -> Acceptor {
        Acceptor {
            promised,
            promise_record: RecordNumber::default(),
            longest_grant,
            lease_record: RecordNumber::default(),
            run: None,
            grant: None,
            silent_until,
        }
    }

    // ---- Promises ----

    /// The highest ballot that it has promised to take part in.
    pub(crate) fn promised(&self) -> Ballot {
        self.promised
    }

    pub(crate) fn is_promise_durable(&self, outbox: &Outbox) -> bool {
        outbox.is_durable(self.promise_record)
    }

    /// Promises a ballot.
    pub(crate) fn promise(&mut self, ballot: Ballot, outbox: &mut Outbox) {
        self.promised = ballot;
        self.run = None;
        self.promise_record = outbox.write(Record::Promise(ballot));
    }

    /// Until when it takes no part in elections.
    pub(crate) fn silent_until(&self) -> Instant {
        self.silent_until
    }

    pub(crate) fn is_silent(&self, now: Instant) -> bool {
        now < self.silent_until
    }

    pub(crate) fn keep_silent_until(&mut self, until: Instant) {
        self.silent_until = self.silent_until.max(until);
    }

    // ---- Acceptance ----

    /// The promised ballot's master proposes all slots after `base`.
    pub(crate) fn begin_run(&mut self, base: Slot) {
        self.run.get_or_insert(Run { base, through: base });
    }

    /// The slot before the first that the promised ballot's master proposes, once its master has sent it.
    pub(crate) fn base(&self) -> Option<Slot> {
        self.run.as_ref().map(|run| run.base)
    }

    /// The last slot that is accepted under the promised ballot without a gap, once its master has sent its base.
    pub(crate) fn accepted_through(&self) -> Option<Slot> {
        self.run.as_ref().map(|run| run.through)
    }

    /// Whether more is known to be chosen than was accepted under the promised ballot.
    pub(crate) fn lags_behind(&self, chosen: Slot) -> bool {
        self.run.as_ref().is_some_and(|run| chosen > run.through)
    }

    /// Continues the run along the log: over what is chosen, or accepted under the ballot already.
    pub(crate) fn extend_run(&mut self, log: &Log, chosen: Slot) {
        let Some(run) = &mut self.run else { return };
        run.through = run.through.max(chosen);
        while let Some(batch) = log.batch_at(run.through.next()).filter(|batch| batch.ballot == self.promised)
        {
            run.through = batch.last();
        }
    }

    /// Phase 2: accepts those values of a batch that it has not accepted under the batch's ballot before. The ballot
    /// is the promised one.
    pub(crate) fn accept(&mut self, batch: Batch, rules: Rules, log: &mut Log, outbox: &mut Outbox) {
        let Some(run) = &mut self.run else { return };
        let (ballot, last) = (batch.ballot, batch.last());
        let mut next = batch.first.max(run.through.next());
        while let Some((begin, end)) = log.lacks(ballot, next, last) {
            if let Some(new) = batch.clone().part(begin, end) {
                log.write(new, outbox);
            }
            next = end.next();
        }
        run.through = rules.acknowledged_through(run.through, last);
    }

    // ---- The master lease ----

    /// The longest lease that it may have granted.
    pub(crate) fn longest_grant(&self) -> Duration {
        self.longest_grant
    }

    /// Records for how long it may grant a lease, so that it keeps silent for as long after a restart.
    pub(crate) fn allow_grants_of(&mut self, lease: Duration, outbox: &mut Outbox) {
        if lease > self.longest_grant {
            self.longest_grant = lease;
            self.lease_record = outbox.write(Record::LeaseBound(lease));
        }
    }

    /// Whether everything that a grant rests on is durable.
    pub(crate) fn is_grant_durable(&self, outbox: &Outbox) -> bool {
        outbox.is_durable(self.promise_record.max(self.lease_record))
    }

    /// Grants the lease of a ballot until then, and never for less time than before: the master counts on the longest
    /// grant that it knows of.
    pub(crate) fn grant_lease(&mut self, ballot: Ballot, until: Instant, rules: Rules) {
        let granted = self.grant.as_ref().filter(|grant| grant.ballot == ballot).map(|grant| grant.until);
        let until = granted.map_or(until, |granted| rules.extend_grant(granted, until));
        self.grant = Some(Grant { ballot, until, connection_lost: false });
    }

    /// The lease is over: its master has released it.
    pub(crate) fn end_grant(&mut self) {
        self.grant = None;
    }

    /// When the granted lease ends, if any was granted.
    pub(crate) fn granted_until(&self) -> Option<Instant> {
        self.grant.as_ref().map(|grant| grant.until)
    }

    /// The replica that it has granted a lease to, ended or not.
    pub(crate) fn granted_to(&self) -> Option<ReplicaId> {
        self.grant.as_ref().map(|grant| grant.ballot.replica)
    }

    /// The master that holds the granted lease, while it lasts.
    pub(crate) fn lease_holder(&self, now: Instant) -> Option<ReplicaId> {
        self.grant.as_ref().filter(|grant| grant.until > now).map(|grant| grant.ballot.replica)
    }

    /// The same, if its connection has not broken since.
    pub(crate) fn reachable_master(&self, now: Instant) -> Option<ReplicaId> {
        self.lease_holder(now).filter(|_| self.grant.as_ref().is_some_and(|grant| !grant.connection_lost))
    }

    /// The connection of the lease's holder is gone.
    pub(crate) fn connection_lost(&mut self) {
        if let Some(grant) = &mut self.grant {
            grant.connection_lost = true;
        }
    }

    /// Whether the granted lease forbids a promise to `ballot`. A master has `released` that ballot's lease.
    pub(crate) fn lease_forbids(&self, ballot: Ballot, released: Ballot, now: Instant, rules: Rules) -> bool {
        let Some(grant) = &self.grant else { return false };
        // A replica that campaigns, or leads, under a higher ballot has let go of its own lower ones.
        let is_own = grant.ballot.replica == ballot.replica && grant.ballot <= ballot;
        !is_own && grant.ballot != released && rules.lease_binds(grant.until, now)
    }

    /// Checks what must hold between any two steps.
    pub(crate) fn check(&self) {
        if let Some(run) = &self.run {
            assert!(run.through >= run.base, "a run ends before it begins");
        }
    }
}
