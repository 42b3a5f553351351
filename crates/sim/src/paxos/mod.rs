//! The agreement alone: replicas of `wombat-paxos` under every fault that a machine room has, and then healed.

mod faults;
mod host;
mod network;
mod operator;
mod oracle;
#[cfg(feature = "plant")]
pub(crate) mod plants;
mod swarm;
mod world;

pub(crate) use world::World;
