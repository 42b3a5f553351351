//! The closed list of errors (SPEC §10), each retryable, definite or unknown.

use crate::limits;
use crate::{Epoch, Generation};
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use core::fmt;
use core::time::Duration;

/// A result with the one [`Error`].
pub type Result<T> = core::result::Result<T, Error>;

/// What a caller may conclude from an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Nothing was done; the same call may succeed later or elsewhere.
    Retryable,
    /// Nothing was done, and the same call would be refused again.
    Definite,
    /// The call may or may not have taken effect.
    Unknown,
}

/// Why a call did not do what it was asked to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Error {
    /// This replica is not the master; the hint is the master's address, if known.
    NotMaster {
        /// `host:port` of the master.
        hint: Option<String>,
    },
    /// The call carries the epoch of an earlier master (P§2.9 step 1).
    StaleEpoch {
        /// The epoch of the present one.
        current: Epoch,
    },
    /// The cell cannot reach a majority of its replicas.
    NoQuorum,
    /// No master of the cell was reached.
    Unreachable {
        /// What came of the search, endpoint by endpoint.
        what: String,
    },
    /// The session ended; its handles, locks and cached entries are gone.
    SessionExpired,
    /// No such session, or the connection has not shown its resume token.
    SessionUnknown,
    /// The handle's node was deleted, or the handle was closed.
    StaleHandle,
    /// The handle was not made by this cell for this session, or it was not opened for this use.
    BadHandle {
        /// What is wrong with it.
        what: String,
    },
    /// The node's ACLs do not admit the caller.
    PermissionDenied,
    /// There is no node of that name.
    NotFound {
        /// Which one.
        what: String,
    },
    /// There is a node of that name already.
    AlreadyExists,
    /// The directory has children.
    NotEmpty,
    /// The call wants a file and the node is a directory.
    IsDirectory,
    /// The call wants a directory and the node is a file.
    NotDirectory,
    /// The contents are not of the expected generation.
    GenerationMismatch {
        /// The generation that they are of.
        actual: Generation,
    },
    /// Somebody holds the lock in a conflicting mode.
    LockHeld,
    /// The last holder's session ended, and its lock-delay has not passed (P§2.4).
    LockDelayed {
        /// How long until it has, by the master's clock.
        remaining: Duration,
    },
    /// The handle does not hold the lock.
    NotHeld,
    /// The sequencer's lock is no longer held as it says.
    SequencerStale,
    /// The time that the caller gave has passed.
    Timeout,
    /// The caller cancelled the call, or closed the handle that it waited on.
    Cancelled,
    /// Something exceeds its limit.
    TooLarge {
        /// What, and by which limit.
        what: String,
    },
    /// The cell or the subtree is full.
    QuotaExceeded {
        /// Which quota.
        what: String,
    },
    /// The call makes no sense as it is.
    InvalidArgument {
        /// What is wrong, and what would be right.
        what: String,
    },
    /// Too much is waiting already.
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// A step of a Multi was refused, and so none was done.
    Step {
        /// Which one, from 1: the conditions in their order, then the changes.
        step: u32,
        /// Why.
        error: Box<Error>,
    },
    /// The connection or the master went away, and whether the call took effect cannot be told.
    Unknown,
}

impl Error {
    /// An [`Error::InvalidArgument`] that says `what`.
    pub fn invalid(what: impl ToString) -> Error {
        Error::InvalidArgument { what: what.to_string() }
    }

    /// A [`Error::NotFound`] of `what`.
    pub fn not_found(what: impl ToString) -> Error {
        Error::NotFound { what: what.to_string() }
    }

    /// An [`Error::Unreachable`] that says `what`.
    pub fn unreachable(what: impl ToString) -> Error {
        Error::Unreachable { what: what.to_string() }
    }

    /// A [`Error::BadHandle`] that says `what`.
    pub fn bad_handle(what: impl ToString) -> Error {
        Error::BadHandle { what: what.to_string() }
    }

    /// Contents beyond [`limits::CONTENTS_BYTES`].
    pub fn contents_too_large(length: usize) -> Error {
        let what = alloc::format!(
            "contents of {length} bytes; a file holds at most {} (keep data elsewhere, and its name here)",
            limits::CONTENTS_BYTES
        );
        Error::TooLarge { what }
    }

    /// The same, of a step of a Multi.
    pub fn at_step(self, step: u32) -> Error {
        Error::Step { step, error: Box::new(self) }
    }

    /// Why a step was refused, or the error itself.
    pub fn root(&self) -> &Error {
        match self {
            Error::Step { error, .. } => error.root(),
            error => error,
        }
    }

    /// What a caller may conclude.
    pub fn class(&self) -> Class {
        match self.root() {
            Error::NotMaster { .. }
            | Error::StaleEpoch { .. }
            | Error::NoQuorum
            | Error::Unreachable { .. }
            | Error::LockHeld
            | Error::LockDelayed { .. }
            | Error::Timeout
            | Error::Overloaded { .. } => Class::Retryable,
            Error::Unknown => Class::Unknown,
            _ => Class::Definite,
        }
    }

    /// The error's name in the list: stable, for programs.
    pub fn name(&self) -> &'static str {
        match self {
            Error::Step { error, .. } => error.name(),
            Error::NotMaster { .. } => "NotMaster",
            Error::StaleEpoch { .. } => "StaleEpoch",
            Error::NoQuorum => "NoQuorum",
            Error::Unreachable { .. } => "Unreachable",
            Error::SessionExpired => "SessionExpired",
            Error::SessionUnknown => "SessionUnknown",
            Error::StaleHandle => "StaleHandle",
            Error::BadHandle { .. } => "BadHandle",
            Error::PermissionDenied => "PermissionDenied",
            Error::NotFound { .. } => "NotFound",
            Error::AlreadyExists => "AlreadyExists",
            Error::NotEmpty => "NotEmpty",
            Error::IsDirectory => "IsDirectory",
            Error::NotDirectory => "NotDirectory",
            Error::GenerationMismatch { .. } => "GenerationMismatch",
            Error::LockHeld => "LockHeld",
            Error::LockDelayed { .. } => "LockDelayed",
            Error::NotHeld => "NotHeld",
            Error::SequencerStale => "SequencerStale",
            Error::Timeout => "Timeout",
            Error::Cancelled => "Cancelled",
            Error::TooLarge { .. } => "TooLarge",
            Error::QuotaExceeded { .. } => "QuotaExceeded",
            Error::InvalidArgument { .. } => "InvalidArgument",
            Error::Overloaded { .. } => "Overloaded",
            Error::Unknown => "Unknown",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotMaster { hint: Some(address) } => write!(f, "not the master; it is at {address}"),
            Error::NotMaster { hint: None } => f.write_str("not the master, which is not known here"),
            Error::StaleEpoch { current } => {
                write!(f, "the master has changed; it serves epoch {current} now")
            }
            Error::NoQuorum => f.write_str("no majority of the cell's replicas can be reached"),
            Error::Unreachable { what } => write!(f, "cannot reach the cell: {what}"),
            Error::SessionExpired => f.write_str("the session has expired; its handles and locks are gone"),
            Error::SessionUnknown => f.write_str("the cell knows no such session on this connection"),
            Error::StaleHandle => f.write_str("the handle is stale: its node was deleted or it was closed"),
            Error::BadHandle { what } => write!(f, "bad handle: {what}"),
            Error::PermissionDenied => f.write_str("permission denied by the node's access list"),
            Error::NotFound { what } => write!(f, "{what} does not exist"),
            Error::AlreadyExists => f.write_str("a node of that name exists already"),
            Error::NotEmpty => f.write_str("the directory is not empty"),
            Error::IsDirectory => f.write_str("it is a directory, not a file"),
            Error::NotDirectory => f.write_str("it is a file, not a directory"),
            Error::GenerationMismatch { actual } => {
                write!(f, "the contents are of generation {actual}, not the expected one")
            }
            Error::LockHeld => f.write_str("the lock is held in a conflicting mode"),
            Error::LockDelayed { remaining } => write!(
                f,
                "the last holder's session ended without a release; its lock-delay lasts {} ms more",
                remaining.as_millis()
            ),
            Error::NotHeld => f.write_str("the handle does not hold the lock"),
            Error::SequencerStale => f.write_str("the sequencer is stale: its lock is no longer held"),
            Error::Timeout => f.write_str("the time allowed for the call has passed"),
            Error::Cancelled => f.write_str("the call was cancelled"),
            Error::TooLarge { what } => write!(f, "too large: {what}"),
            Error::QuotaExceeded { what } => write!(f, "quota exceeded: {what}"),
            Error::InvalidArgument { what } => f.write_str(what),
            Error::Step { step, error } => write!(f, "step {step}: {error}"),
            Error::Overloaded { retry_after } => {
                write!(f, "overloaded; try again after {} ms", retry_after.as_millis())
            }
            Error::Unknown => {
                f.write_str("whether the call took effect cannot be told; look before you retry")
            }
        }
    }
}

impl core::error::Error for Error {}
