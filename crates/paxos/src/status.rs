//! Where a replica stands, for people and for the shell.

use crate::{Paxos, Role};
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
}

impl Paxos {
    /// Where this replica stands.
    pub fn status(&self) -> Status {
        let standing = match &self.role {
            Role::Following if self.may_vote() => Standing::Following,
            Role::Following => Standing::Learning,
            Role::Asking(_) | Role::Preparing(_) => Standing::Campaigning,
            Role::Leading(_) => Standing::Leading,
        };
        let (lease_left, peers) = match &self.role {
            Role::Leading(leadership) => {
                let peers = leadership.peers.iter().map(|peer| PeerStatus {
                    id: peer.id,
                    accepted: peer.matched,
                    chosen: peer.chosen,
                    silent_for: self.now.since(peer.heard),
                });
                (self.lease_until(leadership).since(self.now), peers.collect())
            }
            _ => (Duration::ZERO, Vec::new()),
        };
        Status {
            standing,
            master: self.master(),
            ballot: self.promised,
            chosen: self.chosen,
            last: self.log.last().max(self.chosen),
            lease_left,
            members: self.configurations.newest().clone(),
            members_in_force: self.members_in_force(),
            peers,
        }
    }
}
