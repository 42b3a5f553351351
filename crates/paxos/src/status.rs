//! Where a replica stands, for people and for the shell.

use crate::notice::Notice;
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::{Ballot, Members, ReplicaId, Slot};

/// What a replica is doing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Standing {
    /// It votes, and follows or waits for a master.
    Following,
    /// It only learns.
    Learning,
    /// Its disk is a copy: it only learns until it is reinstated.
    Restored,
    /// It tries to become master.
    Campaigning,
    /// It is master, or about to be.
    Leading,
}

/// Where a replica stands.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Status {
    /// What it is doing.
    pub standing: Standing,
    /// Whom it takes for the master.
    pub master: Option<ReplicaId>,
    /// The highest ballot that it has promised.
    pub ballot: Ballot,
    /// The last slot that it knows to be chosen.
    pub chosen: Slot,
    /// The last slot in which it has accepted something.
    pub last: Slot,
    /// What is left of its own master lease; zero if it has none.
    pub lease_left: Duration,
    /// The lease that it asks for while it leads.
    pub lease: Duration,
    /// The usual lease, and the longest that it may ask for.
    pub lease_range: (Duration, Duration),
    /// How long a heartbeat and its answer take to and from the nearest quorum, while it leads.
    pub round_trip: Option<Duration>,
    /// For how long the oldest proposal of its own has not been chosen, while it leads.
    pub oldest_proposal: Option<Duration>,
    /// The members that were agreed last.
    pub members: Members,
    /// Whether those are in force already, and can do without the ones before.
    pub members_in_force: bool,
    /// What it knows of the others while it leads.
    pub peers: Vec<PeerStatus>,
}

/// What a master knows of a replica.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PeerStatus {
    /// Which.
    pub id: ReplicaId,
    /// The last slot that it has accepted from this master, durably.
    pub accepted: Slot,
    /// The last slot that it knew, durably, to be chosen at its last heartbeat.
    pub chosen: Slot,
    /// For how long nothing was heard of it.
    pub silent_for: Duration,
    /// How long a heartbeat and its answer take, smoothed.
    pub round_trip: Option<Duration>,
    /// The last slot of which it has the value, durable or not.
    pub received: Slot,
}

/// After so many master leases without a choice, an operator should know.
const LONG_WAIT: u32 = 4;

impl Status {
    /// What an operator should do something about at present.
    pub fn warnings(&self) -> impl Iterator<Item = Notice> {
        let (usual, longest) = self.lease_range;
        let lease = self.lease;
        let lengthened = self.round_trip.filter(|round_trip| lease > usual || lease < 2 * *round_trip);
        let lengthened = lengthened.map(|round_trip| Notice::LeaseLengthened { round_trip, lease, longest });
        let waits = self.oldest_proposal.filter(|age| *age >= LONG_WAIT * lease.max(usual));
        let lacks = |peer: &&PeerStatus| self.members.is_voter(peer.id) && peer.received <= self.chosen;
        let waiting = waits.map(|oldest| Notice::NothingChosen {
            oldest,
            unreached: self.peers.iter().filter(lacks).map(|peer| peer.id).collect(),
        });
        waiting.into_iter().chain(lengthened)
    }
}
