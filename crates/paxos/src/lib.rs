//! Agreement on the log, sans-IO: which opaque command stands in which slot, and who may propose.
//!
//! This is the seam behind which Multi-Paxos lives. It knows a quorum of one so far: the sole voter
//! campaigns with a ballot above its promise, what it accepts is chosen once it is on its disk, and its
//! lease has nobody to expire against. Peers, phases and catch-up come behind the same calls.
//!
//! The caller hands in what happened and carries out the [`Effects`]: it writes the records, in order, and
//! says when they are durable. Nothing is chosen that is not (persist before send).
#![no_std]

extern crate alloc;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bytes::Bytes;
use core::time::Duration;
use wombat_proto::limits::{PROPOSAL_BYTES_IN_FLIGHT, PROPOSALS_IN_FLIGHT};
use wombat_proto::{Accepted, Ballot, Epoch, Error, Incarnation, Instant, Record, ReplicaId, Result, Slot};

/// What a replica's disk knew when it started.
#[derive(Clone, Default, Debug)]
pub struct Recovered {
    /// How often this replica has started, this time included.
    pub starts: u32,
    /// The highest ballot that it promised to take part in.
    pub promised: Ballot,
    /// The slot of its snapshot; every slot up to here is chosen and applied.
    pub snapshot: Slot,
    /// What it accepted above that, in slot order.
    pub accepted: Vec<Accepted>,
}

/// What the caller has to do, in this order.
#[derive(Default, Debug)]
pub struct Effects {
    /// Records to append to the log; [`Paxos::persisted`] says when they are durable.
    pub persist: Vec<Record>,
    /// Commands that are chosen from now on, in slot order without a gap.
    pub chosen: Vec<(Slot, Bytes)>,
}

/// Where a replica stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Role {
    /// Its promise to its own ballot is on the way to the disk, as the record of that number.
    Campaigning { promise: u64 },
    /// It may propose.
    Leading,
}

/// One replica's part in the agreement.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Paxos {
    ballot: Ballot,
    role: Role,
    /// The slot for the next proposal.
    next: Slot,
    /// How many records it has handed out to be written.
    written: u64,
    /// Proposals on their way to the disk, in slot order: the number of each one's record, and the command.
    in_flight: VecDeque<(u64, Slot, Bytes)>,
    /// The bytes of their commands.
    bytes_in_flight: usize,
}

impl Paxos {
    /// Starts a sole voter: it campaigns at once, and everything that it ever accepted is chosen.
    pub fn new(
        replica: ReplicaId,
        incarnation: Incarnation,
        recovered: Recovered,
        effects: &mut Effects,
    ) -> Paxos {
        let last = recovered.accepted.last().map_or(recovered.snapshot, |accepted| accepted.slot);
        let ballot = Ballot { round: recovered.promised.round + 1, replica, incarnation: recovered.starts };
        effects
            .chosen
            .extend(recovered.accepted.into_iter().map(|accepted| (accepted.slot, accepted.command)));
        effects.persist.push(Record::Promise(ballot));
        Paxos {
            ballot,
            role: Role::Campaigning { promise: 1 },
            next: last.max(Slot::start_of(incarnation)).next(),
            written: 1,
            in_flight: VecDeque::new(),
            bytes_in_flight: 0,
        }
    }

    /// The ballot that this replica leads or campaigns with.
    pub fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// The epoch in which this replica may propose; `None` while it may not.
    pub fn leads(&self) -> Option<Epoch> {
        (self.role == Role::Leading).then_some(self.ballot.epoch())
    }

    /// Whether, at `now`, no other replica can be master: what a read checks after it was done (P§2.2). A sole
    /// voter has nobody to lose its lease to.
    pub fn lease_holds(&self, _now: Instant) -> bool {
        self.role == Role::Leading
    }

    /// Proposes a command and tells its slot. It ends in [`Effects::chosen`] or, if this replica stops first,
    /// unknown.
    ///
    /// Errors: [`Error::NotMaster`]; [`Error::Overloaded`] while too many proposals are in flight.
    pub fn propose(&mut self, command: Bytes, effects: &mut Effects) -> Result<Slot> {
        if self.role != Role::Leading {
            return Err(Error::NotMaster { hint: None });
        }
        if self.in_flight.len() >= PROPOSALS_IN_FLIGHT
            || self.bytes_in_flight + command.len() > PROPOSAL_BYTES_IN_FLIGHT
        {
            return Err(Error::Overloaded { retry_after: Duration::from_millis(20) });
        }
        let slot = self.next;
        assert!(slot.incarnation() == slot.next().incarnation(), "an incarnation has run out of slots");
        self.next = slot.next();
        self.written += 1;
        self.bytes_in_flight += command.len();
        self.in_flight.push_back((self.written, slot, command.clone()));
        effects.persist.push(Record::Accept(Accepted { slot, ballot: self.ballot, command }));
        Ok(slot)
    }

    /// The first `through` records ever handed out are durable.
    pub fn persisted(&mut self, through: u64, effects: &mut Effects) {
        assert!(through <= self.written, "a record is durable that was never handed out");
        if let Role::Campaigning { promise } = self.role
            && promise <= through
        {
            self.role = Role::Leading;
        }
        while let Some((_, slot, command)) = self.in_flight.pop_front_if(|(record, ..)| *record <= through) {
            self.bytes_in_flight -= command.len();
            effects.chosen.push((slot, command));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(recovered: Recovered) -> (Paxos, Effects) {
        let mut effects = Effects::default();
        let paxos = Paxos::new(ReplicaId(1), Incarnation(0), recovered, &mut effects);
        (paxos, effects)
    }

    #[test]
    fn leads_only_once_its_promise_is_durable() {
        let (mut paxos, mut effects) = start(Recovered { starts: 1, ..Recovered::default() });
        assert_eq!(paxos.leads(), None);
        assert!(paxos.propose(Bytes::from_static(b"early"), &mut effects).is_err());
        paxos.persisted(1, &mut effects);
        assert_eq!(paxos.leads(), Some(Epoch(1)));
    }

    #[test]
    fn chooses_in_order_and_only_what_is_durable() {
        let (mut paxos, _) = start(Recovered { starts: 1, ..Recovered::default() });
        let mut effects = Effects::default();
        paxos.persisted(1, &mut effects);
        for n in 1..=3u64 {
            let command = Bytes::copy_from_slice(&n.to_be_bytes());
            assert_eq!(paxos.propose(command, &mut effects).unwrap(), Slot(n));
        }
        assert_eq!((effects.persist.len(), effects.chosen.len()), (3, 0));
        paxos.persisted(3, &mut effects);
        assert_eq!(effects.chosen.iter().map(|(slot, _)| slot.0).collect::<Vec<_>>(), [1, 2]);
        paxos.persisted(4, &mut effects);
        assert_eq!(effects.chosen.len(), 3);
    }

    #[test]
    fn a_restart_campaigns_higher_and_keeps_what_was_accepted() {
        let ballot = Ballot { round: 4, replica: ReplicaId(1), incarnation: 2 };
        let accepted = |n| Accepted { slot: Slot(n), ballot, command: Bytes::new() };
        let (mut paxos, mut effects) = start(Recovered {
            starts: 3,
            promised: ballot,
            snapshot: Slot(6),
            accepted: [accepted(7), accepted(8)].into(),
        });
        assert_eq!(effects.chosen.len(), 2);
        assert!(paxos.ballot() > ballot);
        paxos.persisted(1, &mut effects);
        assert_eq!(paxos.propose(Bytes::new(), &mut effects).unwrap(), Slot(9));
    }

    #[test]
    fn a_full_window_refuses() {
        let (mut paxos, mut effects) = start(Recovered::default());
        paxos.persisted(1, &mut effects);
        for _ in 0..PROPOSALS_IN_FLIGHT {
            paxos.propose(Bytes::new(), &mut effects).unwrap();
        }
        assert!(matches!(paxos.propose(Bytes::new(), &mut effects), Err(Error::Overloaded { .. })));
    }
}
