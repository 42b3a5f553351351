//! A replica whose disk is a copy: it may know less than it once sent.
//!
//! It may have promised, accepted and granted what it has forgotten, so a quorum with it proves nothing. Until it is
//! reinstated it only learns. Two kinds of ballot may count on it again, because what they are built on does not rest
//! on its memory:
//!
//! - A ballot that a quorum of *other* replicas promised after it came back. The replica draws a number and sends it
//!   to the master ([`crate::Message::Restored`]), which takes a higher ballot and returns the number in its
//!   heartbeats.
//! - A ballot that *every* voter promised: a whole cell that was restored or moved. Only such replicas ask for it.
//!
//! Under such a ballot it accepts and grants. It is reinstated when it knows, durably, everything that the ballot's
//! phase 1 found and one slot more: every value that it may have helped to choose is among that.

use alloc::collections::BTreeMap;
use wombat_proto::{Ballot, ReplicaId, Slot};

/// What such a replica remembers until it is reinstated.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Restored {
    /// Tells what is sent to the replica in this life from what was sent to it before.
    pub(crate) number: u64,
    /// The ballot that may count on the replica.
    trusted: Option<Ballot>,
    /// The slot of that ballot's first own value, once it is known.
    barrier: Option<Slot>,
}

impl Restored {
    pub(crate) fn new(number: u64) -> Restored {
        Restored { number, trusted: None, barrier: None }
    }

    /// Whether the ballot may count on this replica.
    pub(crate) fn trusts(&self, ballot: Ballot) -> bool {
        self.trusted == Some(ballot)
    }

    /// The ballot may count on this replica: all voters are asked to promise it, it is the replica's own, or its
    /// master has returned the number.
    pub(crate) fn trust(&mut self, ballot: Ballot) {
        if !self.trusts(ballot) {
            (self.trusted, self.barrier) = (Some(ballot), None);
        }
    }

    /// The master of the trusted ballot reports the slot of its first own value.
    pub(crate) fn note_barrier(&mut self, barrier: Option<Slot>) {
        self.barrier = self.barrier.or(barrier);
    }

    /// The slot of the trusted ballot's first own value, once it is known.
    pub(crate) fn barrier(&self) -> Option<Slot> {
        self.barrier
    }
}

/// Replicas whose disks are copies, each with the number that it sent before this replica's present ballot.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Reinstatements(BTreeMap<ReplicaId, u64>);

impl Reinstatements {
    /// The number to return to a replica.
    pub(crate) fn get(&self, id: ReplicaId) -> Option<u64> {
        self.0.get(&id).copied()
    }

    /// A member asks to be reinstated. Returns whether that is new. Forgets those that are no members any more.
    pub(crate) fn add(&mut self, id: ReplicaId, number: u64, is_member: impl Fn(ReplicaId) -> bool) -> bool {
        if self.get(id) == Some(number) {
            return false;
        }
        self.0.retain(|id, _| is_member(*id));
        self.0.insert(id, number);
        true
    }
}
