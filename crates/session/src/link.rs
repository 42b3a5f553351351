//! The state of the connection, as far as the session cares. Where to connect is the shell's business.

use wombat_proto::Instant;

/// Where the connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Link {
    /// There is none until then.
    Down {
        /// When to try again.
        retry_at: Instant,
    },
    /// There is none, and none is needed before the next call: the session was idle, and is ended.
    Resting,
    /// The shell is trying.
    Connecting,
    /// Hello was sent.
    Greeting {
        /// When, as far as time has been told since.
        since: Option<Instant>,
    },
    /// CreateSession or ResumeSession was sent, at that time.
    Attaching {
        /// When: the lease counts from here.
        sent: Instant,
    },
    /// The connection speaks for the session.
    Up,
}
