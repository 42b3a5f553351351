//! Multi-Paxos, sans-IO: which value is chosen for which slot, which replica may propose, and for how long no other may
//! (P§2.2, PML).
//!
//! A replica gets inputs ([`Paxos::receive`], [`Paxos::persisted`], [`Paxos::tick`], [`Paxos::propose`]), and
//! [`Paxos::flush`] hands out what follows: records to write, messages to send, values that are chosen. A message that
//! rests on a record waits until [`Paxos::persisted`] reports that the record is durable. So all messages in
//! [`Effects::send`] may go at once.
//!
//! From the top down; a file uses only those below it:
//!
//! | file | what lives there |
//! |---|---|
//! | `paxos.rs` | inputs and questions; which message means what to which role |
//! | `role.rs` | follower, candidate, master, and how a replica changes from one to another |
//! | `mastership.rs` | the master's lease, changes of members, transfer to another master |
//! | `leader.rs` | proposals, phase 2, and what is chosen |
//! | `leader/*` | the parts of a master's state: proposals, peers, heartbeats, the stall clock |
//! | `candidate.rs`, `reports.rs` | pre-vote and phase 1 |
//! | `following.rs` | promises, acceptance, grants: what a candidate's and a master's messages lead to |
//! | `learning.rs` | what a replica that is behind learns from another, by log or by snapshot |
//! | `participant.rs` | a replica without its role: the parts below, the members, and what is chosen |
//! | `acceptor.rs` | what is promised, accepted and granted; the silence after a restart |
//! | `learner.rs` | what is known to be chosen, and which members vote on what comes next |
//! | `election.rs` | when to look for a new master, and with which round |
//! | `catch_up.rs` | what a replica that is behind waits for |
//! | `restored.rs` | a replica whose disk is a copy, until it may vote again |
//! | `freshness.rs` | how old what a replica knows may be |
//! | `orphans.rs` | proposals of earlier leaderships |
//! | `log.rs` | what was accepted and is kept in memory |
//! | `outbox.rs` | the durability queue: what is written, what is sent, and what waits for the disk |
//! | `rules.rs`, `plant.rs` | the rules that a planted bug can break |
//! | `batch.rs` | values that logs, messages and records share |
//! | `configurations.rs` | which members vote on which slot |
#![no_std]

extern crate alloc;

mod acceptor;
mod batch;
mod candidate;
mod catch_up;
mod config;
mod configurations;
mod effects;
mod election;
mod following;
mod freshness;
mod leader;
mod learner;
mod learning;
mod log;
mod mastership;
mod message;
mod notice;
mod orphans;
mod outbox;
mod participant;
mod paxos;
#[cfg(feature = "plant")]
mod plant;
mod reports;
mod restored;
mod role;
mod rules;
mod status;
#[cfg(test)]
mod tests;

pub use batch::{Batch, Persist, Values};
pub use config::Config;
pub use configurations::Configurations;
pub use effects::{Effects, Outcome, ReceivedChunk, WantedChunk};
pub use message::{Mark, Message};
pub use notice::Notice;
pub use paxos::Paxos;
#[cfg(feature = "plant")]
pub use plant::Plant;
pub use status::{PeerStatus, Standing, Status};
