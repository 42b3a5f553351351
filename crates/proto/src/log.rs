//! What a replica writes to its log: the part of Paxos that must survive a crash.

use crate::{Ballot, Members, Slot};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::Bytes;
use core::time::Duration;

/// What can stand in a slot.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Value {
    /// Nothing: it fills a gap, or shows that a new master may go on.
    Noop,
    /// An encoded [`crate::wire::log::Command`], opaque to Paxos and to the disk.
    Command(Bytes),
    /// Who the cell's replicas are, in force some slots later.
    Members(Members),
}

impl Value {
    /// Roughly the bytes that it takes in memory and on the disk.
    pub fn weight(&self) -> usize {
        match self {
            Value::Noop => 64,
            Value::Command(command) => 64 + command.len(),
            Value::Members(members) => 64 + 32 * (members.voters.len() + members.learners.len()),
        }
    }
}

/// A value accepted for a slot under a ballot.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Accepted {
    /// The slot.
    pub slot: Slot,
    /// The ballot under which it was accepted; of two for one slot, the higher counts.
    pub ballot: Ballot,
    /// The value.
    pub value: Value,
}

/// One durable step of a replica. A record is written, and synced, before anything that follows from it
/// is said to anyone.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Record {
    /// The acceptor will take part in no lower ballot.
    Promise(Ballot),
    /// The acceptor accepted a value.
    Accept(Accepted),
    /// Every slot up to this one is chosen, and what was accepted last in each is what was chosen.
    Chosen(Slot),
    /// The acceptor may grant master leases as long as this: for so long it keeps silent after a restart.
    LeaseBound(Duration),
}

/// What the records that are durable come to.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Durable {
    /// The highest ballot that the acceptor promised to take part in.
    pub promised: Ballot,
    /// The longest master lease that it may have granted.
    pub lease_bound: Duration,
    /// Every slot up to here is known to be chosen.
    pub chosen: Slot,
    /// What it accepted; of several ballots for a slot, the highest.
    pub accepted: BTreeMap<Slot, Accepted>,
}

impl Durable {
    /// Takes one more record in.
    pub fn take(&mut self, record: Record) {
        match record {
            Record::Promise(ballot) => self.promised = self.promised.max(ballot),
            Record::Accept(accepted) => {
                // To accept is to promise.
                self.promised = self.promised.max(accepted.ballot);
                let known = self.accepted.get(&accepted.slot);
                if known.is_none_or(|known| known.ballot <= accepted.ballot) {
                    self.accepted.insert(accepted.slot, accepted);
                }
            }
            Record::Chosen(slot) => self.chosen = self.chosen.max(slot),
            Record::LeaseBound(bound) => self.lease_bound = self.lease_bound.max(bound),
        }
    }

    /// What a replica that starts knows from these records and from a snapshot.
    pub fn recover(self, starts: u32, is_copy: bool, snapshot: Option<(Slot, Vec<Bytes>)>) -> Recovered {
        let above = snapshot.as_ref().map_or(Slot(0), |(slot, _)| *slot);
        let accepted = self.accepted.into_values().filter(|accepted| accepted.slot > above).collect();
        let Durable { promised, lease_bound, chosen, .. } = self;
        Recovered { starts, is_copy, promised, lease_bound, chosen, snapshot, accepted }
    }
}

/// What a replica's disk knew when the replica started.
#[derive(Clone, Default, Debug)]
pub struct Recovered {
    /// How often this replica has started, this time included.
    pub starts: u32,
    /// Whether the disk is a copy: what this replica has sent since the copy was made is not on it.
    pub is_copy: bool,
    /// The highest ballot that it promised to take part in.
    pub promised: Ballot,
    /// The longest master lease that it may have granted; zero: none.
    pub lease_bound: Duration,
    /// Every slot up to here is chosen, with its value in the snapshot or in `accepted`.
    pub chosen: Slot,
    /// The newest snapshot: the last slot that it holds, and its chunks.
    pub snapshot: Option<(Slot, Vec<Bytes>)>,
    /// What it accepted above the snapshot, in slot order; of several ballots for a slot, the highest.
    pub accepted: Vec<Accepted>,
}

impl Recovered {
    /// The last slot that the snapshot holds; 0 without one.
    pub fn snapshot_slot(&self) -> Slot {
        self.snapshot.as_ref().map_or(Slot(0), |(slot, _)| *slot)
    }
}
