//! The agreement alone: replicas of `wombat-paxos` under every fault that a machine room has, and then healed.

mod host;
mod network;
mod oracle;
mod swarm;
mod world;

pub(crate) use world::World;
