//! What a server needs to know before it starts.

use crate::ServerError;
use std::path::PathBuf;
use std::time::Duration;
use wombat_proto::{CellName, ReplicaId, limits};

/// The port that clients expect a cell at when they are told none.
pub const DEFAULT_PORT: u16 = 7480;

/// A server's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cell that it serves.
    pub cell: CellName,
    /// Its id within the cell.
    pub replica: ReplicaId,
    /// Its data directory; made if it is missing.
    pub dir: PathBuf,
    /// Where it listens, `host:port`; port 0 takes any free one.
    pub listen: String,
    /// The session lease (P§2.8).
    pub session_lease: Duration,
    /// The master lease (P§2.2): how long the other replicas wait for a master that is gone.
    pub master_lease: Duration,
    /// Whether to tell each applied change as a tracing event of the target `wombat::activity`.
    pub activity: bool,
}

impl Config {
    /// The configuration of a cell of one on this machine.
    pub fn new(cell: CellName, dir: impl Into<PathBuf>) -> Config {
        Config {
            cell,
            replica: ReplicaId(1),
            dir: dir.into(),
            listen: format!("127.0.0.1:{DEFAULT_PORT}"),
            session_lease: limits::DEFAULT_LEASE,
            master_lease: limits::MASTER_LEASE,
            activity: false,
        }
    }

    /// Refuses what cannot work.
    pub(crate) fn check(&self) -> Result<(), ServerError> {
        let lease = self.session_lease;
        if lease < limits::SHORTEST_LEASE || lease > limits::LEASE {
            let (least, most) = (limits::SHORTEST_LEASE.as_millis(), limits::LEASE.as_secs());
            return Err(ServerError::Config(format!(
                "a session lease of {} ms cannot work: take {least} ms to {most} s",
                lease.as_millis()
            )));
        }
        if self.replica == ReplicaId(0) {
            return Err(ServerError::Config("replica ids count from 1".into()));
        }
        Ok(())
    }
}
