//! The candidate: first the pre-vote, which asks whether the replica would be elected, then phase 1.
//!
//! The pre-vote keeps a replica that hears from few others from deposing a master that all others hear: only a
//! replica that is connected to a quorum of replicas without a master goes on.

use crate::message::Message;
use crate::participant::{PHASE_1_WAITS, Participant};
use crate::reports::Reports;
use alloc::collections::BTreeSet;
use wombat_proto::{Instant, Members, ReplicaId};

/// For how many times the usual wait for an answer a pre-vote lasts at most.
const PRE_VOTE_WAITS: u32 = 8;

/// How far a candidacy has got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Too few have answered.
    Open,
    /// Enough have answered.
    Won,
    /// Enough have answered, but too late: the round is taken, or time is up.
    Lost,
}

/// A pre-vote.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct PreVote {
    pub(crate) round: u64,
    granted: BTreeSet<ReplicaId>,
    /// When to ask those again that have not answered.
    retry_at: Instant,
    /// When to give up.
    pub(crate) until: Instant,
}

impl PreVote {
    /// Asks all voters.
    pub(crate) fn begin(cx: &mut Participant) -> PreVote {
        let mut pre_vote = PreVote {
            round: cx.election.next_round(cx.acceptor.promised()),
            granted: [cx.id()].into(),
            retry_at: cx.now,
            until: cx.now + PRE_VOTE_WAITS * cx.config.resend,
        };
        pre_vote.ask(cx);
        pre_vote
    }

    /// Asks those that have not answered yet.
    fn ask(&mut self, cx: &mut Participant) {
        self.retry_at = cx.now + 2 * cx.config.resend;
        let (round, chosen, everyone) = (self.round, cx.chosen(), cx.is_restored());
        for voter in cx.other_voters() {
            if !self.granted.contains(&voter) {
                cx.send(voter, Message::Ask { round, chosen, everyone });
            }
        }
    }

    /// A replica would promise the round.
    pub(crate) fn grant(&mut self, from: ReplicaId) {
        self.granted.insert(from);
    }

    pub(crate) fn verdict(&self, cx: &Participant) -> Verdict {
        let granted = |id| self.granted.contains(&id);
        match cx.active_configurations().all(|members| is_enough(cx, members, granted)) {
            false => Verdict::Open,
            true if is_round_taken(cx, self.round) => Verdict::Lost,
            true => Verdict::Won,
        }
    }

    /// Time has passed. Returns whether the pre-vote goes on.
    pub(crate) fn tick(&mut self, cx: &mut Participant) -> bool {
        if cx.now >= self.until {
            return false;
        }
        if cx.now >= self.retry_at {
            self.ask(cx);
        }
        true
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.until.min(self.retry_at)
    }
}

/// Phase 1.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Candidate {
    pub(crate) reports: Reports,
    retry_at: Instant,
    /// When to give up.
    until: Instant,
}

impl Candidate {
    /// Asks all voters to promise the ballot that this replica has just promised itself.
    pub(crate) fn begin(cx: &mut Participant) -> Candidate {
        let mut candidate = Candidate {
            reports: Reports::default(),
            retry_at: cx.now + cx.config.resend,
            until: cx.now + PHASE_1_WAITS * cx.config.resend,
        };
        candidate.reports.ask_new_voters(cx);
        candidate
    }

    /// Whether a quorum of every active configuration has promised and reported everything.
    pub(crate) fn verdict(&mut self, cx: &mut Participant) -> Verdict {
        self.reports.ask_new_voters(cx);
        let (rules, newest) = (cx.rules(), cx.configurations().newest());
        let mut asked = cx.active_configurations().filter(|members| rules.must_promise(members, newest));
        let is_late = cx.now > self.until;
        match asked.all(|members| is_enough(cx, members, |id| self.reports.is_complete(id))) {
            false => Verdict::Open,
            true if is_late || is_round_taken(cx, cx.acceptor.promised().round) => Verdict::Lost,
            true => Verdict::Won,
        }
    }

    /// Time has passed. Returns whether phase 1 goes on.
    pub(crate) fn tick(&mut self, cx: &mut Participant) -> bool {
        if cx.now >= self.until {
            return false;
        }
        if cx.now >= self.retry_at {
            self.retry_at = cx.now + cx.config.resend;
            self.reports.ask_again(cx);
        }
        true
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.until.min(self.retry_at)
    }
}

/// Whether some voters are enough for this replica to go on with its candidacy.
fn is_enough(cx: &Participant, members: &Members, holds: impl Fn(ReplicaId) -> bool) -> bool {
    match cx.rules().needs_everyone(cx.is_restored()) {
        true => members.voters.iter().all(|voter| holds(voter.id)),
        false => members.is_quorum(holds),
    }
}

/// Whether something was chosen under that round or a later one. Then its master may have served, even if those that
/// promised it are not asked any more, because they are no members any more.
fn is_round_taken(cx: &Participant, round: u64) -> bool {
    cx.configurations().round() >= round
}
