//! How a command ends: its exit code, and what it says when it fails.

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::process::ExitCode;
use wombat_client::Error;
use wombat_server::ServerError;

pub(crate) const OTHER: u8 = 1;
pub(crate) const USAGE: u8 = 2;
pub(crate) const NOT_FOUND: u8 = 3;
pub(crate) const REFUSED: u8 = 4;
pub(crate) const TIMEOUT: u8 = 5;
pub(crate) const UNREACHABLE: u8 = 6;
pub(crate) const LOST: u8 = 7;
pub(crate) const UNKNOWN: u8 = 8;
pub(crate) const NOT_EXECUTABLE: u8 = 126;
pub(crate) const COMMAND_NOT_FOUND: u8 = 127;
pub(crate) const SIGNAL: u8 = 128;

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    /// Its name, for programs.
    name: String,
    message: String,
    /// What can be done about it.
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: u8, name: &str, message: impl ToString) -> Failure {
        Failure { code, name: name.into(), message: message.to_string(), hint: None }
    }

    /// The command line or an argument makes no sense.
    pub(crate) fn usage(message: impl ToString) -> Failure {
        Failure::new(USAGE, "Usage", message)
    }

    /// What ran under a lock was stopped because the lock could not be sure any longer.
    pub(crate) fn lost(message: impl ToString) -> Failure {
        Failure::new(LOST, "Lost", message)
    }

    /// Standard output could not be written. As of `cat`, a reader that is gone (`wombat … | head`) needs no message.
    pub(crate) fn output(error: std::io::Error) -> Failure {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::new(SIGNAL + Signal::SIGPIPE as u8, "Output", ""),
            _ => Failure::new(OTHER, "Output", format!("cannot write to standard output: {error}")),
        }
    }

    pub(crate) fn hint(self, hint: impl ToString) -> Failure {
        Failure { hint: Some(hint.to_string()), ..self }
    }

    /// Whether something does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        self.code == NOT_FOUND
    }

    /// Whether the session or a lock was lost.
    pub(crate) fn is_lost(&self) -> bool {
        self.code == LOST
    }

    /// Whether the cell cannot be reached.
    pub(crate) fn is_unreachable(&self) -> bool {
        self.code == UNREACHABLE
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Says what the failure is about.
    pub(crate) fn about(self, what: &str) -> Failure {
        if self.message.is_empty() || self.message.contains(what) {
            return self;
        }
        Failure { message: format!("{what}: {}", self.message), ..self }
    }

    /// The process's exit code.
    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }

    /// For programs. Nothing to say: the code says it all.
    pub(crate) fn object(&self) -> Option<Value> {
        let error = json!({ "name": self.name, "message": self.message, "hint": self.hint });
        (!self.message.is_empty()).then(|| json!({ "error": error }))
    }

    /// For people, a line each.
    pub(crate) fn lines(&self) -> Vec<String> {
        let message = Some(&self.message).filter(|message| !message.is_empty());
        let message = message.map(|message| format!("wombat: {message}"));
        message.into_iter().chain(self.hint.as_ref().map(|hint| format!("hint: {hint}"))).collect()
    }
}

/// The exit code that an error of the cell leads to.
fn code_of(error: &Error) -> u8 {
    match error {
        Error::Step { error, .. } => code_of(error),
        Error::NotFound { .. } | Error::StaleHandle => NOT_FOUND,
        Error::AlreadyExists
        | Error::GenerationMismatch { .. }
        | Error::NotEmpty
        | Error::LockHeld
        | Error::LockDelayed { .. }
        | Error::NotHeld
        | Error::IsDirectory
        | Error::NotDirectory
        | Error::PermissionDenied
        | Error::SequencerStale => REFUSED,
        Error::Timeout => TIMEOUT,
        Error::NoQuorum | Error::Unreachable { .. } | Error::NotMaster { .. } => UNREACHABLE,
        Error::SessionExpired | Error::SessionUnknown => LOST,
        Error::Unknown => UNKNOWN,
        Error::InvalidArgument { .. } | Error::TooLarge { .. } => USAGE,
        Error::StaleEpoch { .. }
        | Error::BadHandle { .. }
        | Error::Cancelled
        | Error::QuotaExceeded { .. }
        | Error::Overloaded { .. } => OTHER,
    }
}

/// What can be done about an error of the cell.
fn hint_of(error: &Error) -> Option<&'static str> {
    match error {
        Error::Step { error, .. } => hint_of(error),
        Error::NotFound { what } if what.starts_with("the directory") => {
            Some("make it first: wombat mkdir -p, or put with -p")
        }
        Error::GenerationMismatch { .. } => Some("somebody wrote meanwhile: read it again and retry"),
        Error::NotEmpty => Some("delete what is in it first, or use rm -r"),
        Error::LockHeld => Some("wombat locks PATH shows who holds it"),
        Error::SequencerStale => Some(
            "the lock that this runs under (WOMBAT_SEQUENCER) is lost; --no-sequencer changes it all the same",
        ),
        Error::Unreachable { .. } => {
            Some("start one with `wombat dev`, or say where it is: --endpoints or WOMBAT_ENDPOINTS")
        }
        Error::SessionExpired => Some("the cell was away for longer than the session could wait"),
        _ => None,
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let failure = Failure::new(code_of(&error), error.name(), &error);
        match hint_of(&error) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Failure {
        let code = if matches!(error, ServerError::Config(_)) { USAGE } else { OTHER };
        Failure::new(code, "Server", error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::new(OTHER, "System", error)
    }
}

impl From<nix::errno::Errno> for Failure {
    fn from(error: nix::errno::Errno) -> Failure {
        Failure::from(std::io::Error::from(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wombat_client::Generation;

    #[test]
    fn codes_are_as_documented() {
        let table = [
            (Error::invalid("x"), USAGE),
            (Error::not_found("x"), NOT_FOUND),
            (Error::AlreadyExists, REFUSED),
            (Error::GenerationMismatch { actual: Generation(2) }, REFUSED),
            (Error::NotEmpty, REFUSED),
            (Error::LockHeld, REFUSED),
            (Error::SequencerStale, REFUSED),
            (Error::Timeout, TIMEOUT),
            (Error::NoQuorum, UNREACHABLE),
            (Error::unreachable("x"), UNREACHABLE),
            (Error::SessionExpired, LOST),
            (Error::Unknown, UNKNOWN),
        ];
        for (error, code) in table {
            assert_eq!(Failure::from(error.clone()).code, code, "{error:?}");
        }
    }
}
