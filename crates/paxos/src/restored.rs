//! A replica whose disk is a copy: it may know less than it once said.
//!
//! It may have promised, accepted and granted what it has forgotten, so a quorum with it proves nothing. Until it
//! is reinstated it only learns. Two kinds of ballot may count on it again, because what they are built on does not
//! rest on its memory:
//!
//! - A ballot that a quorum of *other* replicas promised after it came back. It draws a number and sends it to the
//!   master ([`Message::Restored`]), which takes a higher ballot and returns the number in its heartbeats.
//! - A ballot that *every* voter promised: a whole cell that was restored or moved. Only such replicas ask for it.
//!
//! Under such a ballot it accepts and grants. It is reinstated when it knows, durably, everything that the ballot's
//! phase 1 found and one slot more: every value that it may have helped to choose is among that.

use crate::candidate::PHASE_1;
use crate::{Message, Paxos, Role, planted};
use wombat_proto::{Ballot, Instant, Members, ReplicaId, Slot};

/// What such a replica remembers.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Restored {
    /// Tells what is sent to it in this life from what was sent to it before.
    number: u64,
    /// The ballot that may count on it, and the slot of its master's first own value, once it is known.
    trusted: Option<(Ballot, Option<Slot>)>,
}

impl Restored {
    pub(crate) fn new(number: u64) -> Restored {
        Restored { number, trusted: None }
    }
}

impl Paxos {
    /// Another replica knows a later start of this one: its disk is an older copy, though it does not look like one.
    pub fn rolled_back(&mut self, now: Instant) {
        self.advance_clock(now);
        if !self.is_restored() && !self.is_sole_voter() {
            self.step_down();
            self.lose_vote();
            self.election_at = self.silent_until + self.jitter(self.config.heartbeat);
        }
    }

    /// From now on this replica only learns, and keeps silent until candidacies are over that count on what it has
    /// forgotten.
    pub(crate) fn lose_vote(&mut self) {
        self.restored = Some(Restored::new(self.random.draw()));
        if !self.is_sole_voter() {
            self.silent_until = self.silent_until.max(self.candidacies_end(self.now));
        }
    }

    /// Whether this replica has no vote until it is reinstated.
    pub(crate) fn is_restored(&self) -> bool {
        self.restored.is_some()
    }

    /// Whether some voters are enough for this replica to go on with its candidacy.
    pub(crate) fn is_enough(&self, members: &Members, holds: impl Fn(ReplicaId) -> bool) -> bool {
        match self.is_restored() && !planted!(self, CopyElected) {
            true => members.voters.iter().all(|voter| holds(voter.id)),
            false => members.is_quorum(holds),
        }
    }

    /// Whether a ballot may count on this replica.
    pub(crate) fn may_serve(&self, ballot: Ballot) -> bool {
        !self.is_restored()
            || self.restored.as_ref().and_then(|it| it.trusted).is_some_and(|(b, _)| b == ballot)
    }

    /// Every voter is asked to promise this ballot, or it is this replica's own.
    pub(crate) fn trust(&mut self, ballot: Ballot) {
        if let Some(restored) =
            self.restored.as_mut().filter(|it| it.trusted.is_none_or(|(b, _)| b != ballot))
        {
            restored.trusted = Some((ballot, None));
        }
    }

    /// A master's heartbeat, before it is followed. Returns whether it may be.
    pub(crate) fn heartbeat_while_restored(
        &mut self,
        from: ReplicaId,
        ballot: Ballot,
        barrier: Option<Slot>,
        reinstates: Option<u64>,
        chosen: Slot,
    ) -> bool {
        let Some(number) = self.restored.as_ref().map(|it| it.number) else { return true };
        let returned = reinstates == Some(number) || planted!(self, CopyTrusts);
        if returned && !self.is_silent() && ballot >= self.promised {
            self.trust(ballot);
        }
        if !self.may_serve(ballot) {
            if chosen > self.chosen {
                self.catch_up_from(from);
            }
            if !self.is_silent() {
                let promised = self.promised;
                self.send(
                    from,
                    match returned {
                        // Only its own ballot, which was higher, keeps it from trusting this one.
                        true => Message::Refused { promised },
                        false => Message::Restored { number },
                    },
                );
            }
            self.postpone_election();
            return false;
        }
        if let Some(Some((_, known))) = self.restored.as_mut().map(|it| it.trusted.as_mut()) {
            *known = known.or(barrier);
        }
        true
    }

    /// A replica has come back with a copy of its disk. Whoever is master takes a ballot that rests on nothing that
    /// it has forgotten.
    pub(crate) fn restored_arrived(&mut self, from: ReplicaId, number: u64) {
        let known = self.configurations.knows(from) && from != self.config.replica;
        if !known || !matches!(self.role, Role::Leading(_)) || self.reinstates.get(&from) == Some(&number) {
            return;
        }
        let configurations = &self.configurations;
        self.reinstates.retain(|id, _| configurations.knows(*id));
        self.reinstates.insert(from, number);
        if planted!(self, CopyTrusted) {
            return;
        }
        self.step_down();
        if self.may_vote() {
            self.start_preparing(self.next_round());
        }
    }

    /// Reinstates this replica once it knows all that it may have forgotten.
    pub(crate) fn reinstate_if_caught_up(&mut self) {
        let Some((ballot, known)) = self.restored.as_ref().and_then(|it| it.trusted) else { return };
        let barrier = match &self.role {
            Role::Leading(leadership) => leadership.barrier,
            _ => known,
        };
        let caught_up = barrier.is_some_and(|barrier| self.chosen_durable > barrier)
            || planted!(self, CopyReinstatedEarly);
        if caught_up && ballot == self.promised && self.durable >= self.promise_record {
            self.restored = None;
            self.out.reinstated = true;
        }
    }

    /// Until when a candidacy may last that counts on what this replica said before it came back.
    pub(crate) fn candidacies_end(&self, now: Instant) -> Instant {
        now + self.config.rho.lengthen(PHASE_1 * self.config.resend.max(self.lease_bound))
    }
}
