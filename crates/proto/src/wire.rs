//! The messages of `wombat.proto` (client and server), and how the project's own types become them. With the feature
//! `log`, also those of `log.proto` (log and snapshots) and `peer.proto` (replica and replica).

use crate::Error as Failure;
use crate::{Epoch, Generation};
use alloc::string::String;
use core::time::Duration;

#[allow(missing_docs, clippy::all, unreachable_pub)]
mod generated {
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/wombat.v1.rs"));
    }
    #[cfg(feature = "log")]
    pub mod log {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/wombat.log.v1.rs"));
        }
    }
    #[cfg(feature = "log")]
    pub mod peer {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/wombat.peer.v1.rs"));
        }
    }
}

#[cfg(feature = "log")]
pub use generated::log::v1 as log;
#[cfg(feature = "log")]
pub use generated::peer::v1 as peer;
pub use generated::v1::*;

/// The version of the protocol that this crate speaks.
pub const VERSION: u32 = 1;

/// The bits of [`Handle::mode`].
pub mod mode {
    /// The handle may read contents, stat and children.
    pub const READ: u32 = 1;
    /// The handle may write contents, delete the node, and take its lock in either mode (P§2.4).
    pub const WRITE: u32 = 2;
    /// Every bit that means something.
    pub const ALL: u32 = READ | WRITE;
}

/// Beside the generated.
pub mod event {
    pub use super::generated::v1::event::*;

    /// The bit of [`Handle::events`](super::Handle::events) that asks for what happens anywhere below the
    /// node, too.
    pub const BELOW: u32 = 1 << 31;
}

impl Multi {
    /// The memory that its guards and changes take, beside their bytes: a short frame can hold many.
    pub const fn steps_size(&self) -> usize {
        self.guards.len() * size_of::<Guard>() + self.changes.len() * size_of::<Change>()
    }
}

impl event::Kind {
    /// The kind's bit in [`Handle::events`].
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// The bits that a handle may subscribe to.
    pub const SUBSCRIBABLE: u32 = event::Kind::ContentsModified.bit()
        | event::Kind::ChildAdded.bit()
        | event::Kind::ChildRemoved.bit()
        | event::Kind::ChildModified.bit()
        | event::Kind::HandleInvalid.bit()
        | event::Kind::LockAcquired.bit()
        | event::Kind::LockConflict.bit()
        | event::Kind::LockInvalid.bit()
        | event::Kind::LockReleased.bit()
        | event::BELOW;
}

impl From<&Failure> for generated::v1::Error {
    fn from(error: &Failure) -> Self {
        use error::Code;
        let whole = |code: Code, text: &str, number: u64| generated::v1::Error {
            code: code as i32,
            text: String::from(text),
            number,
            step: 0,
        };
        let milliseconds = |duration: &Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        match error {
            Failure::NotMaster { hint } => whole(Code::NotMaster, hint.as_deref().unwrap_or_default(), 0),
            Failure::StaleEpoch { current } => whole(Code::StaleEpoch, "", current.0),
            Failure::NoQuorum => whole(Code::NoQuorum, "", 0),
            Failure::Unreachable { what } => whole(Code::Unreachable, what, 0),
            Failure::SessionExpired => whole(Code::SessionExpired, "", 0),
            Failure::SessionUnknown => whole(Code::SessionUnknown, "", 0),
            Failure::StaleHandle => whole(Code::StaleHandle, "", 0),
            Failure::BadHandle { what } => whole(Code::BadHandle, what, 0),
            Failure::PermissionDenied => whole(Code::PermissionDenied, "", 0),
            Failure::NotFound { what } => whole(Code::NotFound, what, 0),
            Failure::AlreadyExists => whole(Code::AlreadyExists, "", 0),
            Failure::NotEmpty => whole(Code::NotEmpty, "", 0),
            Failure::IsDirectory => whole(Code::IsDirectory, "", 0),
            Failure::NotDirectory => whole(Code::NotDirectory, "", 0),
            Failure::GenerationMismatch { actual } => whole(Code::GenerationMismatch, "", actual.0),
            Failure::LockHeld => whole(Code::LockHeld, "", 0),
            Failure::LockDelayed { remaining } => whole(Code::LockDelayed, "", milliseconds(remaining)),
            Failure::NotHeld => whole(Code::NotHeld, "", 0),
            Failure::SequencerStale => whole(Code::SequencerStale, "", 0),
            Failure::Timeout => whole(Code::Timeout, "", 0),
            Failure::Cancelled => whole(Code::Cancelled, "", 0),
            Failure::TooLarge { what } => whole(Code::TooLarge, what, 0),
            Failure::QuotaExceeded { what } => whole(Code::QuotaExceeded, what, 0),
            Failure::InvalidArgument { what } => whole(Code::InvalidArgument, what, 0),
            Failure::Overloaded { retry_after } => whole(Code::Overloaded, "", milliseconds(retry_after)),
            Failure::Unknown => whole(Code::Unknown, "", 0),
            Failure::Step { step, error } => generated::v1::Error { step: *step, ..error.root().into() },
        }
    }
}

impl From<generated::v1::Error> for Failure {
    /// A code that this version does not know becomes [`Failure::Unknown`]: nothing may be concluded from it.
    fn from(error: generated::v1::Error) -> Self {
        use error::Code;
        let (what, number) = (error.text, error.number);
        let of_step = |failure: Failure| if error.step == 0 { failure } else { failure.at_step(error.step) };
        of_step(match Code::try_from(error.code).unwrap_or(Code::Unspecified) {
            Code::NotMaster => Failure::NotMaster { hint: (!what.is_empty()).then_some(what) },
            Code::StaleEpoch => Failure::StaleEpoch { current: Epoch(number) },
            Code::NoQuorum => Failure::NoQuorum,
            Code::Unreachable => Failure::Unreachable { what },
            Code::SessionExpired => Failure::SessionExpired,
            Code::SessionUnknown => Failure::SessionUnknown,
            Code::StaleHandle => Failure::StaleHandle,
            Code::BadHandle => Failure::BadHandle { what },
            Code::PermissionDenied => Failure::PermissionDenied,
            Code::NotFound => Failure::NotFound { what },
            Code::AlreadyExists => Failure::AlreadyExists,
            Code::NotEmpty => Failure::NotEmpty,
            Code::IsDirectory => Failure::IsDirectory,
            Code::NotDirectory => Failure::NotDirectory,
            Code::GenerationMismatch => Failure::GenerationMismatch { actual: Generation(number) },
            Code::LockHeld => Failure::LockHeld,
            Code::LockDelayed => Failure::LockDelayed { remaining: Duration::from_millis(number) },
            Code::NotHeld => Failure::NotHeld,
            Code::SequencerStale => Failure::SequencerStale,
            Code::Timeout => Failure::Timeout,
            Code::Cancelled => Failure::Cancelled,
            Code::TooLarge => Failure::TooLarge { what },
            Code::QuotaExceeded => Failure::QuotaExceeded { what },
            Code::InvalidArgument => Failure::InvalidArgument { what },
            Code::Overloaded => Failure::Overloaded { retry_after: Duration::from_millis(number) },
            Code::Unknown | Code::Unspecified => Failure::Unknown,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_survives_the_wire() {
        let what = || String::from("what");
        let errors = [
            Failure::NotMaster { hint: None },
            Failure::NotMaster { hint: Some(what()) },
            Failure::StaleEpoch { current: Epoch(7) },
            Failure::NoQuorum,
            Failure::Unreachable { what: what() },
            Failure::SessionExpired,
            Failure::SessionUnknown,
            Failure::StaleHandle,
            Failure::BadHandle { what: what() },
            Failure::PermissionDenied,
            Failure::NotFound { what: what() },
            Failure::AlreadyExists,
            Failure::NotFound { what: what() }.at_step(3),
            Failure::NotEmpty,
            Failure::IsDirectory,
            Failure::NotDirectory,
            Failure::GenerationMismatch { actual: Generation(3) },
            Failure::LockHeld,
            Failure::LockDelayed { remaining: Duration::from_millis(5) },
            Failure::NotHeld,
            Failure::SequencerStale,
            Failure::Timeout,
            Failure::Cancelled,
            Failure::TooLarge { what: what() },
            Failure::QuotaExceeded { what: what() },
            Failure::InvalidArgument { what: what() },
            Failure::Overloaded { retry_after: Duration::from_millis(9) },
            Failure::Unknown,
        ];
        for error in errors {
            assert_eq!(Failure::from(generated::v1::Error::from(&error)), error);
        }
    }
}
