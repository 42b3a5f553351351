//! What a client needs to know to find a cell.

use std::time::Duration;
use wombat_proto::{Sequencer, limits};

/// How to reach a cell, and as whom.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where its replicas listen, `host:port`. Names are resolved anew at each attempt.
    pub endpoints: Vec<String>,
    /// The name of the cell; `None`: that of the cell that answers.
    pub cell: Option<String>,
    /// What this client says of itself, for people.
    pub client: String,
    /// How long a session in jeopardy looks for a master (P§2.8: 45 s).
    pub grace: Duration,
    /// How long [`crate::Cell::connect_with`] looks for one.
    pub connect_timeout: Duration,
    /// The locks that every change of the session depends on; see [`Config::fenced_by`].
    pub sequencers: Vec<Sequencer>,
    /// What the cache may weigh in memory, in bytes; 0: there is none.
    pub cache_bytes: usize,
}

impl Config {
    /// The usual configuration for these endpoints.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Config {
        Config {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            cell: None,
            client: describe_this_process(),
            grace: limits::GRACE,
            connect_timeout: Duration::from_secs(10),
            sequencers: Vec::new(),
            cache_bytes: limits::CLIENT_CACHE_BYTES,
        }
    }

    /// Ties every change of the session to a lock that another session holds, as [`crate::Node::set_sequencer`] ties
    /// a handle (P§2.4): for work that a lock's holder passes on. Once the lock is no longer held as it was granted,
    /// each change fails with [`wombat_proto::Error::SequencerStale`]; reads go on. Of several locks, all must be
    /// held.
    #[must_use]
    pub fn fenced_by(mut self, sequencer: Sequencer) -> Config {
        self.sequencers.push(sequencer);
        self
    }

    /// What the cache may weigh in memory.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: usize) -> Config {
        self.cache_bytes = bytes;
        self
    }

    /// Every read asks the cell. Then no change of others ever waits for this client: best for one that reads
    /// little, or seldom the same.
    #[must_use]
    pub fn no_cache(self) -> Config {
        self.cache_bytes(0)
    }
}

/// Host, process and program, for whoever lists the sessions.
fn describe_this_process() -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let program = std::env::args().next().unwrap_or_default();
    let program = program.rsplit('/').next().unwrap_or_default();
    let mut text = format!("{}:{} {program}", host.unwrap_or_default(), std::process::id());
    while text.len() > limits::CLIENT_DESCRIPTION_BYTES {
        text.pop();
    }
    text
}
