//! What a command answers when it did what it was asked to.

use wombat_proto::wire::{self, log};
use wombat_proto::{Error, Generation, Instance, Result, SessionId, Token};

/// A successful command's answer. Answers to requests are kept until the client has them (SPEC §3).
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// There is nothing to tell.
    Done,
    /// The id of the new session.
    Session(SessionId),
    /// A node was opened.
    Opened {
        /// Whether it is new.
        created: bool,
        /// Its stat.
        stat: wire::Stat,
    },
    /// Contents were written; the file's stat with them.
    Written(wire::Stat),
    /// A lock is held.
    Granted {
        /// The fencing token.
        token: Token,
        /// The lock generation.
        generation: Generation,
    },
    /// A hash of a part of the state.
    Digest {
        /// The hash.
        digest: u64,
        /// After which node and which session the next part begins.
        next: (Instance, SessionId),
    },
    /// Several changes were made.
    Multi(wire::MultiDone),
}

/// The record of a kept answer.
pub(crate) fn to_record(number: u64, result: &Result<Outcome>) -> log::OutcomeRecord {
    use log::outcome_record::Outcome as Kept;
    let outcome = match result {
        Ok(Outcome::Done) => Kept::Done(wire::Done {}),
        Ok(Outcome::Opened { created, stat }) => {
            Kept::Opened(log::OpenedOutcome { created: *created, stat: Some(*stat) })
        }
        Ok(Outcome::Written(stat)) => Kept::Written(*stat),
        Ok(Outcome::Multi(done)) => Kept::Multi(done.clone()),
        Ok(Outcome::Session(_) | Outcome::Granted { .. } | Outcome::Digest { .. }) => {
            unreachable!("sessions and grants are found again by the state itself")
        }
        Err(error) => Kept::Error(error.into()),
    };
    log::OutcomeRecord { number, outcome: Some(outcome) }
}

/// The answer that a record keeps; `None` if the record is damaged.
pub(crate) fn from_record(record: log::OutcomeRecord) -> Option<(u64, Result<Outcome>)> {
    use log::outcome_record::Outcome as Kept;
    let result = match record.outcome? {
        Kept::Done(_) => Ok(Outcome::Done),
        Kept::Opened(opened) => Ok(Outcome::Opened { created: opened.created, stat: opened.stat? }),
        Kept::Written(stat) => Ok(Outcome::Written(stat)),
        Kept::Multi(done) => Ok(Outcome::Multi(done)),
        Kept::Error(error) => Err(Error::from(error)),
    };
    Some((record.number, result))
}
