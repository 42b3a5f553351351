//! The candidate: first it asks whether it would be elected (pre-vote), then it prepares (phase 1).
//!
//! To ask first is what keeps a replica that hears from few others from deposing a master that all others
//! hear: only who is connected to a quorum of replicas without a master goes on.

use crate::leader::Leadership;
use crate::{Message, Paxos, Role, planted};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use wombat_proto::{Accepted, Ballot, Instant, Members, ReplicaId, Slot, Value};

/// For how many times the usual wait for an answer a replica asks whether it would be elected, and then prepares,
/// before it gives up.
const PRE_VOTE: u32 = 8;
pub(crate) const PHASE_1: u32 = 4;

/// How often the wait after a phase 1 in vain is doubled at most.
const MOST_BACK_OFF: u32 = 4;

/// A pre-vote.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Asking {
    pub(crate) round: u64,
    granted: BTreeSet<ReplicaId>,
    /// When to ask again those who have not answered.
    pub(crate) again_at: Instant,
    /// When to give up.
    pub(crate) until: Instant,
}

/// Phase 1.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Candidacy {
    pub(crate) reports: Reports,
    pub(crate) resend_at: Instant,
    /// When to give up.
    pub(crate) until: Instant,
}

/// What acceptors have reported, and which of them have reported all.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Reports {
    from: BTreeMap<ReplicaId, Report>,
    /// Of all values reported for a slot, the one of the highest ballot: the only one that can be chosen.
    pub(crate) values: BTreeMap<Slot, (Ballot, Value)>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Report {
    /// What was accepted up to here is reported.
    above: Slot,
    complete: bool,
    /// Whether the replica's disk is a copy.
    restored: bool,
}

impl Reports {
    pub(crate) fn is_complete(&self, from: ReplicaId) -> bool {
        self.from.get(&from).is_some_and(|report| report.complete)
    }

    /// Whether a replica has reported all, from a disk that is no copy.
    fn is_original(&self, from: ReplicaId) -> bool {
        self.from.get(&from).is_some_and(|report| report.complete && !report.restored)
    }

    /// Takes a value that may have been chosen.
    pub(crate) fn take(&mut self, slot: Slot, ballot: Ballot, value: &Value) {
        let known = self.values.get(&slot).map(|(known, _)| *known);
        if known.is_none_or(|known| ballot > known) {
            self.values.insert(slot, (ballot, value.clone()));
        }
    }

    /// Those whose report is awaited, and from which slot on. What is `chosen` need not be reported.
    fn awaited(&mut self, chosen: Slot) -> Vec<(ReplicaId, Slot)> {
        let awaited = self.from.iter_mut().filter(|(_, report)| !report.complete);
        let ask = |(id, report): (&ReplicaId, &mut Report)| {
            report.above = report.above.max(chosen);
            (*id, report.above)
        };
        awaited.map(ask).collect()
    }
}

impl Paxos {
    /// Asks to be elected if there has been no master for long enough.
    pub(crate) fn look_for_master(&mut self) {
        let leased = self.grant.as_ref().is_some_and(|grant| grant.until > self.now);
        if self.now < self.election_at || self.is_silent() || leased {
            return;
        }
        if !self.may_vote() {
            return self.tell_what_is_chosen();
        }
        let round = self.next_round();
        let (again_at, until) = (self.now, self.now + PRE_VOTE * self.config.resend);
        self.role = Role::Asking(Asking { round, granted: [self.config.replica].into(), again_at, until });
        self.ask();
        self.count_grants();
    }

    /// Asks those who have not answered yet.
    fn ask(&mut self) {
        let (voters, everyone) = (self.other_voters(), self.is_restored());
        let Role::Asking(asking) = &mut self.role else { return };
        asking.again_at = self.now + 2 * self.config.resend;
        let (round, chosen) = (asking.round, self.chosen);
        let open = voters.into_iter().filter(|voter| !asking.granted.contains(voter));
        self.out.send.extend(open.map(|voter| (voter, Message::Ask { round, chosen, everyone })));
    }

    /// Who has no vote can only tell the others how much it knows: a new voter may not even know that it is
    /// one.
    fn tell_what_is_chosen(&mut self) {
        self.postpone_election();
        let (promised, chosen, own) = (self.promised, self.chosen, self.config.replica);
        let everyone = self.configurations.everyone().map(|member| member.id);
        let others: Vec<ReplicaId> = everyone.filter(|id| *id != own).collect();
        for id in others {
            self.send(id, Message::Answer { round: 0, granted: false, promised, chosen });
        }
    }

    /// Someone has answered to a question, or to a Prepare.
    pub(crate) fn answered(
        &mut self,
        from: ReplicaId,
        round: u64,
        granted: bool,
        promised: Ballot,
        chosen: Slot,
    ) {
        self.highest_round = self.highest_round.max(promised.round);
        if chosen > self.chosen {
            self.catch_up_from(from);
        }
        // It has promised, but what this replica asks for is not kept any more: it has to learn it first. A
        // refusal that comes late, of the question before, is none of the Prepare.
        let gone = !granted && promised == self.promised && promised.round == round && chosen > self.chosen;
        if let Role::Asking(asking) = &mut self.role
            && asking.round == round
            && granted
        {
            asking.granted.insert(from);
            return self.count_grants();
        }
        match self.role {
            Role::Preparing(_) if gone => self.give_up(),
            // A master by former members, who needs the report of others now.
            Role::Leading(_) if gone && self.lacks_reports() => {
                self.step_down();
                self.catch_up_from(from);
            }
            _ => {}
        }
    }

    fn count_grants(&mut self) {
        let Role::Asking(asking) = &self.role else { return };
        let granted = |id| asking.granted.contains(&id);
        let enough = self.governing().all(|members| self.is_enough(members, granted));
        let round = asking.round;
        match enough {
            true if self.round_is_taken(round) => self.give_up(),
            true => self.start_preparing(round),
            false => {}
        }
    }

    /// Whether something was chosen under that round or a later one: then its master may have served, even if
    /// those who promised it are not asked any more, because they are no members any more.
    fn round_is_taken(&self, round: u64) -> bool {
        self.configurations.round() >= round
    }

    /// The least round of which no ballot is known, and not below the wall clock: so the epochs of a cell that was
    /// restored from a backup are later than those that the backup does not know of.
    pub(crate) fn next_round(&self) -> u64 {
        (self.highest_round.max(self.promised.round) + 1).max(self.clock_round)
    }

    /// Begins phase 1 with a ballot of that round.
    pub(crate) fn start_preparing(&mut self, round: u64) {
        let replica = self.config.replica;
        let ballot = Ballot { round, replica, incarnation: self.starts };
        assert!(ballot > self.promised, "a candidate's ballot is higher than what it has promised");
        self.role = Role::Following;
        self.promise(ballot);
        self.trust(ballot);
        let until = self.now + PHASE_1 * self.config.resend;
        self.role = Role::Preparing(Candidacy {
            reports: Reports::default(),
            resend_at: self.now + self.config.resend,
            until,
        });
        self.ask_for_reports();
        self.own_promise_durable();
    }

    /// Asks the voters who were not asked yet.
    pub(crate) fn ask_for_reports(&mut self) {
        let (voters, above) = (self.other_voters(), self.chosen);
        let Some((reports, _)) = self.role.gathering() else { return };
        let new: Vec<ReplicaId> = voters.into_iter().filter(|id| !reports.from.contains_key(id)).collect();
        for id in &new {
            reports.from.insert(*id, Report { above, complete: false, restored: false });
        }
        for id in new {
            self.send_prepare(id, above);
        }
    }

    fn send_prepare(&mut self, to: ReplicaId, above: Slot) {
        let (ballot, released, everyone) = (self.promised, self.released, self.is_restored());
        self.send(to, Message::Prepare { ballot, above, released, everyone });
    }

    /// Says Prepare again to those who have not told all.
    pub(crate) fn resend_prepares(&mut self) {
        let Some((reports, _)) = self.role.gathering() else { return };
        for (id, above) in reports.awaited(self.chosen) {
            self.send_prepare(id, above);
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(crate) fn promise_arrived(
        &mut self,
        from: ReplicaId,
        ballot: Ballot,
        above: Slot,
        accepted: Vec<Accepted>,
        through: Slot,
        complete: bool,
        restored: bool,
    ) {
        if ballot != self.promised {
            return;
        }
        let Some((reports, proposed)) = self.role.gathering() else { return };
        let Some(report) = reports.from.get_mut(&from).filter(|report| report.above == above) else { return };
        if report.complete {
            return;
        }
        (report.above, report.complete, report.restored) = (through, complete, restored);
        for one in accepted.iter().filter(|one| one.slot > proposed) {
            reports.take(one.slot, one.ballot, &one.value);
        }
        if complete {
            self.count_reports();
        } else {
            self.send_prepare(from, through);
        }
        // Also of a part: the rest may never come, and a master does not wait for it.
        self.pump();
    }

    /// This replica's own promise counts once it is durable. Others may have elected it before; whether it may
    /// go on with other members can depend on it then.
    pub(crate) fn own_promise_durable(&mut self) {
        if self.promise_record > self.durable && !planted!(self, OwnPromiseNotSynced) {
            return;
        }
        let (own, chosen, restored) = (self.config.replica, self.chosen, self.is_restored());
        let Some((reports, proposed)) = self.role.gathering() else { return };
        if reports.is_complete(own) {
            return;
        }
        reports.from.insert(own, Report { above: chosen, complete: true, restored });
        for (slot, ballot, value) in self.log.range(proposed.max(chosen).next(), self.log.last()) {
            reports.take(slot, ballot, value);
        }
        self.count_reports();
        self.pump();
    }

    /// Leads, once a quorum of everyone who governs an open slot has promised and told all.
    fn count_reports(&mut self) {
        self.ask_for_reports();
        let Role::Preparing(candidacy) = &self.role else { return };
        let reports = &candidacy.reports;
        let mut governing = self.governing();
        let enough = if planted!(self, OneConfigurationPrepared) {
            self.configurations.newest().is_quorum(|id| reports.is_complete(id))
        } else {
            governing.all(|members| self.is_enough(members, |id| reports.is_complete(id)))
        };
        let late = self.now > candidacy.until;
        drop(governing);
        if enough && (late || self.round_is_taken(self.promised.round)) {
            return self.give_up();
        }
        if enough && let Role::Preparing(candidacy) = core::mem::replace(&mut self.role, Role::Following) {
            self.lead(candidacy.reports);
        }
    }

    pub(crate) fn tick_candidate(&mut self) {
        match &mut self.role {
            Role::Asking(asking) if self.now >= asking.until => self.give_up(),
            Role::Asking(asking) if self.now >= asking.again_at => self.ask(),
            Role::Preparing(candidacy) if self.now >= candidacy.until => self.give_up(),
            Role::Preparing(candidacy) if self.now >= candidacy.resend_at => {
                candidacy.resend_at = self.now + self.config.resend;
                self.resend_prepares();
            }
            _ => {}
        }
    }

    /// Stops campaigning, and tries again a little later. When candidates have got in each other's way, they spread
    /// out further each time: the first must have its answers before the next begins.
    pub(crate) fn give_up(&mut self) {
        let most = self.config.lease * (1 << self.failed_campaigns);
        if matches!(self.role, Role::Preparing(_)) {
            self.failed_campaigns = (self.failed_campaigns + 1).min(MOST_BACK_OFF);
        }
        self.role = Role::Following;
        self.election_at = self.now + self.jitter(most);
    }

    /// The master hands over: it serves no longer, so nothing is in the way.
    pub(crate) fn take_over(&mut self, from: ReplicaId, ballot: Ballot, stalls: u32) {
        let follows = self.promised == ballot && ballot.replica == from && from != self.config.replica;
        if follows && matches!(self.role, Role::Following) && self.may_vote() && !self.is_silent() {
            if self.is_restored() {
                return;
            }
            self.grant = None;
            self.released = ballot;
            self.count_stalls(stalls);
            self.start_preparing(self.next_round());
        }
    }

    pub(crate) fn lead(&mut self, reports: Reports) {
        let originals = |members: &Members| members.is_quorum(|id| reports.is_original(id));
        let from_copies = !self.governing().all(originals);
        let leadership = Leadership::new(self.chosen, reports, from_copies, self.config.lease, self.now);
        self.role = Role::Leading(leadership);
        self.failed_campaigns = 0;
        self.meet_peers();
        self.send_heartbeats();
        self.pump();
    }
}
