//! Why a sequencer is refused, and what its bearer can do about it.

use std::fmt;
use wombat_proto::{Error, Token};

/// Why a sequencer was not admitted. As text it says what to do, for the caller.
#[derive(Debug)]
pub enum Refused {
    /// There is none, or more than one.
    Missing {
        /// What was wrong.
        what: String,
    },
    /// The text is no sequencer.
    Damaged(Error),
    /// It is of a lock that does not guard this: any client can make a lock and hold it.
    OtherLock {
        /// The lock that it is of.
        path: String,
        /// The locks that would do.
        wanted: String,
    },
    /// A later grant of the lock was seen.
    Stale {
        /// The lock.
        path: String,
        /// The token that was brought.
        token: Token,
        /// The greatest that was seen.
        newest: Token,
    },
    /// It was granted so long ago that the fence no longer knows whether a later grant was seen.
    Forgotten {
        /// The lock.
        path: String,
        /// The token that was brought.
        token: Token,
        /// The smallest that is sure not to have been overtaken.
        floor: Token,
    },
    /// The cell says that the lock is no longer held as the sequencer says.
    NotHeld {
        /// The lock.
        path: String,
    },
    /// The cell was asked and could not tell.
    CellSilent(Error),
    /// The token is newer than all before, and could not be made durable.
    NotKept(std::io::Error),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let again = "stop what runs under it, and acquire the lock again before anything else";
        match self {
            Refused::Missing { what } => f.write_str(what),
            Refused::Damaged(error) => write!(f, "{error}; send the holder's sequencer as it is"),
            Refused::OtherLock { path, wanted } => {
                write!(f, "the lock {path} guards nothing here; bring the sequencer of {wanted}")
            }
            Refused::Stale { path, token, newest } => write!(
                f,
                "the sequencer of {path} is stale: its token is {token}, and {newest} was seen; {again}"
            ),
            Refused::Forgotten { path, token, floor } => write!(
                f,
                "the sequencer of {path} is too old to be judged: its token is {token}, and what was granted \
                 before {floor} is forgotten; {again}"
            ),
            Refused::NotHeld { path } => {
                write!(f, "the sequencer of {path} is stale: its lock is no longer held; {again}")
            }
            Refused::CellSilent(error) => {
                write!(f, "whether the lock is held cannot be told now: {error}; try again")
            }
            Refused::NotKept(error) => {
                write!(f, "the new token could not be made durable: {error}; try again")
            }
        }
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Refused::Damaged(error) | Refused::CellSilent(error) => Some(error),
            Refused::NotKept(error) => Some(error),
            _ => None,
        }
    }
}
