//! What a replica writes to its log: the part of Paxos that must survive a crash.

use crate::{Ballot, Slot};
use bytes::Bytes;

/// A value accepted for a slot under a ballot. The command is opaque to Paxos and to the disk.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Accepted {
    /// The slot.
    pub slot: Slot,
    /// The ballot under which it was accepted; of two for one slot, the higher counts.
    pub ballot: Ballot,
    /// The encoded [`crate::wire::Command`].
    pub command: Bytes,
}

/// One durable step of an acceptor. A record is written, and synced, before anything that follows from it
/// is said to anyone.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Record {
    /// The acceptor will take part in no lower ballot.
    Promise(Ballot),
    /// The acceptor accepted a value.
    Accept(Accepted),
}
