//! Why a server does not start, or stopped.

use std::fmt;
use wombat_replica::StartError;
use wombat_storage::StorageError;

/// A server's failure. None of them loses anything that was acknowledged.
#[derive(Debug)]
pub enum ServerError {
    /// The configuration cannot work.
    Config(String),
    /// It cannot listen.
    Listen {
        /// Where.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The disk failed, is full, or holds what it should not.
    Storage(StorageError),
    /// What the disk holds makes no state.
    Start(StartError),
    /// The state is not what a quorum of the other replicas has.
    Diverged {
        /// After which slot.
        slot: wombat_proto::Slot,
    },
    /// The operating system refused something else.
    System(std::io::Error),
    /// The server's thread is gone without a word.
    Vanished,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerError::Config(what) => f.write_str(what),
            ServerError::Listen { address, source } => write!(
                f,
                "cannot listen on {address}: {source}; is another server running there? \
                 Choose another address, or port 0 for any free one"
            ),
            ServerError::Storage(error) => error.fmt(f),
            ServerError::Start(error) => error.fmt(f),
            ServerError::Diverged { slot } => write!(
                f,
                "THIS REPLICA HAS GONE WRONG: its state after slot {slot} is not what the other replicas have. \
                 It has stopped, and its data will not be used again. Find out why (memory? disk?), move its \
                 data directory away, and start it again: it then joins the cell again"
            ),
            ServerError::System(error) => error.fmt(f),
            ServerError::Vanished => f.write_str("the server's thread ended without saying why (a bug)"),
        }
    }
}

impl std::error::Error for ServerError {}

impl From<StorageError> for ServerError {
    fn from(error: StorageError) -> ServerError {
        ServerError::Storage(error)
    }
}

impl From<StartError> for ServerError {
    fn from(error: StartError) -> ServerError {
        ServerError::Start(error)
    }
}

impl From<std::io::Error> for ServerError {
    fn from(error: std::io::Error) -> ServerError {
        ServerError::System(error)
    }
}
