//! The shell around a replica: sockets, disk and time. It decides nothing about locks, sessions or the log.
//!
//! One thread owns the replica and its sockets. Whatever arrived while the last fsync ran is stepped through
//! the replica together and shares the next fsync; KeepAlives come first. The answers go out when the log
//! says that they may.

mod admission;
mod chunks;
mod config;
mod connection;
mod core;
mod disk;
mod entrance;
mod error;
mod founding;
mod inbox;
mod metrics;
mod outbox;
mod outlet;
mod peers;
mod relay;
mod server;
mod socket;
mod steps;

pub use config::{Config, DEFAULT_PORT};
pub use error::ServerError;
pub use server::Server;
