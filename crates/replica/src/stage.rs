//! The nine steps of a fail-over (P§2.9), as events for operators.

use core::fmt;
use core::time::Duration;
use wombat_proto::Epoch;

/// A step of a new master on its way to ordinary service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stage {
    /// 1: it was elected, under a ballot whose round is the new epoch.
    Elected {
        /// The epoch.
        epoch: Epoch,
    },
    /// 2: until its epoch is in the log, it answers only where the master is.
    Locates,
    /// 3: sessions and locks are rebuilt from the state, leases at their maximum.
    Rebuilt {
        /// How many sessions.
        sessions: usize,
        /// How many locks are held.
        locks: usize,
        /// The lease that each session has now.
        lease: Duration,
    },
    /// 4: KeepAlives are answered.
    KeepsAlive,
    /// 5: each session has an event that reports the fail-over.
    Tells {
        /// How many sessions.
        sessions: usize,
    },
    /// 6: until these sessions have acknowledged it, nothing else is answered.
    Awaits {
        /// How many sessions may have something cached.
        sessions: usize,
    },
    /// 7: everything is allowed.
    Serves {
        /// How long it took since its epoch began.
        after: Duration,
    },
    /// 8: handles of earlier epochs are made again when they are used.
    Recreates,
    /// 9: a minute later, handles on ephemeral nodes that no client has presented are closed.
    ClosedOrphans {
        /// How many handles that were.
        handles: usize,
    },
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stage::Elected { epoch } => write!(f, "takes epoch {epoch}; earlier ones are refused"),
            Stage::Locates => write!(f, "tells where the master is, and nothing else"),
            Stage::Rebuilt { sessions, locks, lease } => write!(
                f,
                "has rebuilt {sessions} sessions with leases of {} ms, {locks} held locks",
                lease.as_millis()
            ),
            Stage::KeepsAlive => write!(f, "answers KeepAlives"),
            Stage::Tells { sessions } => write!(f, "tells {sessions} sessions of the fail-over"),
            Stage::Awaits { sessions } => write!(f, "waits for {sessions} sessions to acknowledge it"),
            Stage::Serves { after } => {
                write!(f, "allows everything, {} ms after it began", after.as_millis())
            }
            Stage::Recreates => write!(f, "makes a handle of an earlier epoch again, as it is used"),
            Stage::ClosedOrphans { handles } => {
                write!(f, "has closed {handles} handles on ephemeral nodes that nobody has presented")
            }
        }
    }
}

impl Stage {
    /// Its place among the nine.
    pub fn number(&self) -> u32 {
        match self {
            Stage::Elected { .. } => 1,
            Stage::Locates => 2,
            Stage::Rebuilt { .. } => 3,
            Stage::KeepsAlive => 4,
            Stage::Tells { .. } => 5,
            Stage::Awaits { .. } => 6,
            Stage::Serves { .. } => 7,
            Stage::Recreates => 8,
            Stage::ClosedOrphans { .. } => 9,
        }
    }
}
