//! What a server needs to know before it starts.

use crate::ServerError;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use wombat_proto::{CellName, limits};

/// The port that clients expect a cell at when they are told none.
pub const DEFAULT_PORT: u16 = 7480;

/// A server's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cell that it serves.
    pub cell: CellName,
    /// Its data directory; made if it is missing.
    pub dir: PathBuf,
    /// Where it listens, `host:port`; port 0 takes any free one.
    pub listen: String,
    /// The address that the others and the clients reach it at, `host:port`; `None`: where it listens.
    pub advertise: Option<String>,
    /// The addresses of all founders of the cell, its own among them, the same list at each; empty: it is
    /// alone. For a replica that joins: some replicas of the cell.
    pub peers: Vec<String>,
    /// Whether to join a cell that exists, as a further replica.
    pub join: bool,
    /// The session lease (P§2.8).
    pub session_lease: Duration,
    /// The cache lease (SPEC §6): how long at most a client that does not answer delays a change of what it may
    /// have cached, as long as there are not very many.
    pub cache_lease: Duration,
    /// The master lease (P§2.2): how long the other replicas wait for a master that is gone.
    pub master_lease: Duration,
    /// The longest master lease that it asks for where round trips are too long for the usual one.
    pub max_master_lease: Duration,
    /// Where it tells its metrics by HTTP, `host:port`; `None`: nowhere. Whoever can connect may read them.
    pub metrics: Option<String>,
    /// How many clients may be connected from one address; `None`: half of all, and from this machine any number.
    pub connections_per_address: Option<usize>,
    /// Whether to tell each applied change as a tracing event of the target `wombat::activity`.
    pub activity: bool,
    /// How many lines of the log were dropped, for the metrics; counted by whatever writes the log.
    pub log_lines_dropped: Arc<AtomicU64>,
}

impl Config {
    /// The configuration of a cell of one on this machine.
    pub fn new(cell: CellName, dir: impl Into<PathBuf>) -> Config {
        Config {
            cell,
            dir: dir.into(),
            listen: format!("127.0.0.1:{DEFAULT_PORT}"),
            advertise: None,
            peers: Vec::new(),
            join: false,
            session_lease: limits::DEFAULT_LEASE,
            cache_lease: limits::CACHE_LEASE,
            master_lease: limits::MASTER_LEASE,
            max_master_lease: limits::MAX_MASTER_LEASE,
            metrics: None,
            connections_per_address: None,
            activity: false,
            log_lines_dropped: Arc::default(),
        }
    }

    /// Refuses what cannot work.
    pub(crate) fn check(&self) -> Result<(), ServerError> {
        let leases = [
            ("session", self.session_lease, limits::SHORTEST_LEASE, limits::LEASE),
            ("cache", self.cache_lease, limits::SHORTEST_CACHE_LEASE, limits::LEASE),
            ("master", self.master_lease, limits::SHORTEST_MASTER_LEASE, limits::LONGEST_MASTER_LEASE),
            (
                "longest master",
                self.max_master_lease,
                limits::SHORTEST_MASTER_LEASE,
                limits::LONGEST_MASTER_LEASE,
            ),
        ];
        for (whose, lease, shortest, longest) in leases {
            if lease < shortest || lease > longest {
                return Err(ServerError::Config(format!(
                    "a {whose} lease of {} ms cannot work: take {} ms to {} s",
                    lease.as_millis(),
                    shortest.as_millis(),
                    longest.as_secs()
                )));
            }
        }
        if self.connections_per_address == Some(0) {
            return Err(ServerError::Config(
                "no client could connect: allow at least 1 connection per address".into(),
            ));
        }
        if let Some(twice) = self.peers.iter().enumerate().find(|(n, at)| self.peers[..*n].contains(at)) {
            return Err(ServerError::Config(format!(
                "{} is named twice among the peers: name each replica once",
                twice.1
            )));
        }
        if self.peers.len() > limits::CELL_REPLICAS {
            return Err(ServerError::Config(format!(
                "{} peers are too many: a cell has at most {} replicas",
                self.peers.len(),
                limits::CELL_REPLICAS
            )));
        }
        Ok(())
    }

    /// The addresses of all founders, in the order that all of them take them in.
    pub(crate) fn founders(&self, own: &str) -> Result<Vec<String>, ServerError> {
        if self.peers.is_empty() {
            return Ok(vec![own.to_owned()]);
        }
        let mut founders = self.peers.clone();
        founders.sort_unstable();
        if !self.join && !founders.iter().any(|at| at == own) {
            return Err(ServerError::Config(format!(
                "this replica's address {own} is not among the peers {}: list it, or say by --advertise \
                 under which of them the others reach this one, or --join the cell",
                founders.join(", ")
            )));
        }
        Ok(founders)
    }
}
