//! The roles of a replica, and how it changes from one to another.

use crate::candidate::{Candidate, PreVote, Verdict};
use crate::leader::Leader;
use crate::mastership::Next;
use crate::message::Message;
use crate::notice::Notice;
use crate::participant::Participant;
use crate::reports::{ReportPart, Reports};
use wombat_proto::{Ballot, Instant, ReplicaId, Slot};

/// What a replica is doing.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[allow(clippy::large_enum_variant, reason = "a replica has one")]
pub(crate) enum Role {
    /// It follows a master, or waits for one.
    Following,
    /// It asks whether it would be elected.
    PreVoting(PreVote),
    /// Phase 1.
    Preparing(Candidate),
    /// Phase 2.
    Leading(Leader),
}

impl Role {
    pub(crate) fn is_following(&self) -> bool {
        matches!(self, Role::Following)
    }

    pub(crate) fn is_leading(&self) -> bool {
        matches!(self, Role::Leading(_))
    }

    pub(crate) fn leader(&self) -> Option<&Leader> {
        match self {
            Role::Leading(leader) => Some(leader),
            _ => None,
        }
    }

    /// Whether this replica leads and decides alone. Then it needs no lease to forbid promises to others.
    pub(crate) fn leads_alone(&self, cx: &Participant) -> bool {
        self.is_leading() && cx.is_sole_voter()
    }

    // ---- To become master ----

    /// Looks for a new master if there has been none for long enough.
    fn look_for_master(&mut self, cx: &mut Participant) {
        let is_leased = cx.acceptor.granted_until().is_some_and(|until| until > cx.now);
        if cx.now < cx.election.due_at || cx.acceptor.is_silent(cx.now) || is_leased {
            return;
        }
        if cx.may_vote() {
            *self = Role::PreVoting(PreVote::begin(cx));
            return self.count_grants(cx);
        }
        // A replica without a vote only reports how much it knows: a new voter may not even know that it is one.
        cx.postpone_election();
        for id in cx.other_members().collect::<alloc::vec::Vec<_>>() {
            cx.send_answer(id, 0, false);
        }
    }

    /// A replica would promise a round.
    pub(crate) fn pre_vote_granted(&mut self, cx: &mut Participant, from: ReplicaId, round: u64) {
        if let Role::PreVoting(pre_vote) = self
            && pre_vote.round == round
        {
            pre_vote.grant(from);
            self.count_grants(cx);
        }
    }

    fn count_grants(&mut self, cx: &mut Participant) {
        let Role::PreVoting(pre_vote) = self else { return };
        let round = pre_vote.round;
        match pre_vote.verdict(cx) {
            Verdict::Open => {}
            Verdict::Lost => self.give_up(cx),
            Verdict::Won => self.prepare(cx, round),
        }
    }

    /// Begins phase 1 with a ballot of the next free round, if this replica has a vote.
    pub(crate) fn prepare_next(&mut self, cx: &mut Participant) {
        if cx.may_vote() {
            let round = cx.election.next_round(cx.acceptor.promised());
            self.prepare(cx, round);
        }
    }

    /// Begins phase 1 with a ballot of that round.
    fn prepare(&mut self, cx: &mut Participant, round: u64) {
        let ballot = Ballot { round, replica: cx.id(), incarnation: cx.starts };
        assert!(ballot > cx.acceptor.promised(), "a candidate's ballot is higher than what it has promised");
        cx.promise(ballot);
        cx.trust(ballot);
        *self = Role::Preparing(Candidate::begin(cx));
        self.own_promise_durable(cx);
    }

    /// A part of a report has arrived.
    pub(crate) fn report_arrived(&mut self, cx: &mut Participant, from: ReplicaId, part: ReportPart) {
        match self {
            Role::Preparing(candidate) => {
                if candidate.reports.add_part(cx, from, part, Slot(0)) {
                    self.count_reports(cx);
                }
            }
            Role::Leading(leader) => {
                let proposed = leader.proposals.last();
                if leader.reports.add_part(cx, from, part, proposed) {
                    leader.reports.ask_new_voters(cx);
                }
                // Also of a part: the rest may never come, and a master does not wait for it.
                leader.repropose_recovered(cx);
            }
            Role::Following | Role::PreVoting(_) => {}
        }
    }

    fn own_promise_durable(&mut self, cx: &mut Participant) {
        match self {
            Role::Preparing(candidate) => {
                if candidate.reports.add_own(cx, Slot(0)) {
                    self.count_reports(cx);
                }
            }
            Role::Leading(leader) => {
                let proposed = leader.proposals.last();
                if leader.reports.add_own(cx, proposed) {
                    leader.reports.ask_new_voters(cx);
                    leader.repropose_recovered(cx);
                }
            }
            Role::Following | Role::PreVoting(_) => {}
        }
    }

    /// Leads once enough replicas have promised and reported everything.
    fn count_reports(&mut self, cx: &mut Participant) {
        let Role::Preparing(candidate) = self else { return };
        match candidate.verdict(cx) {
            Verdict::Open => {}
            Verdict::Lost => self.give_up(cx),
            Verdict::Won => {
                let reports = core::mem::take(&mut candidate.reports);
                self.lead(cx, reports);
            }
        }
    }

    fn lead(&mut self, cx: &mut Participant, reports: Reports) {
        let mut leader = Leader::new(cx, reports);
        cx.election.end_back_off();
        leader.meet_members(cx);
        leader.send_heartbeats(cx);
        leader.repropose_recovered(cx);
        *self = Role::Leading(leader);
    }

    // ---- To become master no more ----

    /// Stops campaigning, and tries again a little later. When candidates have got in each other's way, they spread
    /// out further each time: the first must have its answers before the next begins.
    pub(crate) fn give_up(&mut self, cx: &mut Participant) {
        let most = cx.config.lease * cx.election.back_off();
        if matches!(self, Role::Preparing(_)) {
            cx.election.campaign_failed();
        }
        *self = Role::Following;
        cx.election.due_at = cx.now + cx.jitter(most);
    }

    /// Stops leading or campaigning, for good under this ballot.
    pub(crate) fn step_down(&mut self, cx: &mut Participant) {
        if let Role::Leading(leader) = core::mem::replace(self, Role::Following) {
            leader.step_down(cx);
        }
    }

    /// A master needs a higher ballot than its own.
    pub(crate) fn lead_anew(&mut self, cx: &mut Participant) {
        self.step_down(cx);
        self.prepare_next(cx);
    }

    /// After any step of a master: it steps down once its successor has everything.
    pub(crate) fn hand_over_if_ready(&mut self, cx: &mut Participant) {
        let Role::Leading(leader) = self else { return };
        leader.leave_if_removed(cx);
        if let Some(successor) = leader.ready_successor() {
            let ballot = cx.acceptor.promised();
            self.step_down(cx);
            cx.send(successor, Message::TakeOver { ballot, stalls: 0 });
        }
    }

    /// Steps down in favour of the voter that has got furthest, and does not campaign for a while.
    fn make_way(&mut self, cx: &mut Participant) {
        let Role::Leading(leader) = self else { return };
        let (heir, stalled_for) = (leader.heir(cx), leader.stalled_for(cx));
        cx.outbox.effects.notices.push(Notice::MadeWay { heir, stalled_for });
        cx.election.count_stalls(cx.election.stalls() + 1, cx.config.stall, cx.now);
        let (ballot, stalls) = (cx.acceptor.promised(), cx.election.stalls());
        self.step_down(cx);
        cx.election.due_at = cx.election.due_at + cx.config.stall;
        if let Some(heir) = heir {
            cx.election.successor = Some(heir);
            cx.send(heir, Message::TakeOver { ballot, stalls });
        }
    }

    // ---- What happens in every role ----

    /// More records are durable.
    pub(crate) fn persisted(&mut self, cx: &mut Participant) {
        self.own_promise_durable(cx);
        if let Role::Leading(leader) = self {
            leader.persisted(cx);
        }
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, cx: &mut Participant) {
        let goes_on = match self {
            Role::Following => return self.look_for_master(cx),
            Role::Leading(leader) => match leader.tick(cx) {
                Next::Lead => return,
                Next::StepDown => return self.step_down(cx),
                Next::MakeWay => return self.make_way(cx),
            },
            Role::PreVoting(pre_vote) => pre_vote.tick(cx),
            Role::Preparing(candidate) => candidate.tick(cx),
        };
        if !goes_on {
            self.give_up(cx);
        }
    }

    /// When the next tick is due.
    pub(crate) fn deadline(&self, cx: &Participant) -> Option<Instant> {
        match self {
            Role::Following => {
                let leased_until = cx.acceptor.granted_until().unwrap_or(cx.now);
                let due = cx.election.due_at.max(cx.acceptor.silent_until()).max(leased_until);
                // A replica that knows no other one never looks for a master.
                let knows_others = cx.other_members().next().is_some();
                (cx.may_vote() || knows_others).then_some(due)
            }
            Role::PreVoting(pre_vote) => Some(pre_vote.deadline()),
            Role::Preparing(candidate) => Some(candidate.deadline()),
            Role::Leading(leader) => leader.deadline(cx),
        }
    }
}
