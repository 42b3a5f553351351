//! `--timeout`: how long a command that ends by itself may take.

use crate::args::{Admin, Command, LockAction};
use crate::exit::{self, Failure};
use std::cell::Cell;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Of most commands.
const DEFAULT: Duration = Duration::from_secs(30);
/// Of the break of a lock, which may have to wait for the lease of a holder that does not answer.
const DEFAULT_OF_BREAK: Duration = Duration::from_secs(120);

/// What a command may do to the cell before its time has passed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    Reads,
    Changes,
}

/// The time that a command has.
pub(crate) struct TimeLimit {
    within: Duration,
    effect: Effect,
    until: Cell<Instant>,
}

impl TimeLimit {
    /// The limit of a command. What waits by its nature (a lock, an election, a watch) has none here.
    pub(crate) fn of(command: &Command, timeout: Option<Duration>) -> Option<TimeLimit> {
        let (effect, usual) = match command {
            Command::Lock(lock) => match &lock.action {
                Some(LockAction::Break(_)) => (Effect::Changes, DEFAULT_OF_BREAK),
                None => return None,
            },
            Command::Dev(_)
            | Command::Serve(_)
            | Command::Watch(_)
            | Command::Semaphore(_)
            | Command::Elect(_)
            | Command::Completions { .. } => return None,
            Command::Put(_)
            | Command::Mkdir(_)
            | Command::Rm(_)
            | Command::Multi(_)
            | Command::Admin(Admin::Transfer { .. }) => (Effect::Changes, DEFAULT),
            Command::Get(_)
            | Command::Ls(_)
            | Command::Stat(_)
            | Command::Tree(_)
            | Command::Sequencer(_)
            | Command::Sessions
            | Command::Locks(_)
            | Command::Status
            | Command::Admin(Admin::Audit) => (Effect::Reads, DEFAULT),
        };
        let within = timeout.unwrap_or(usual);
        Some(TimeLimit { within, effect, until: Cell::new(Instant::now() + within) })
    }

    /// How much time is left.
    pub(crate) fn left(&self) -> Duration {
        self.until.get().saturating_duration_since(Instant::now())
    }

    /// A command of many steps has done one: the time begins again.
    pub(crate) fn restart(&self) {
        self.until.set(Instant::now() + self.within);
    }

    /// Does what a command does, and gives up when its time has passed.
    pub(crate) async fn run<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let passed = async {
            while !self.left().is_zero() {
                sleep_until(self.until.get()).await;
            }
        };
        tokio::select! {
            biased;
            done = work => done,
            () = passed => Err(self.failure()),
        }
    }

    fn failure(&self) -> Failure {
        let text = format!("the cell gave no answer within {}", humantime::format_duration(self.within));
        match self.effect {
            Effect::Reads => {
                Failure::new(exit::TIMEOUT, "Timeout", text).hint("--timeout allows the cell more time")
            }
            Effect::Changes => {
                let text = format!("{text}; the change may have been made or not");
                Failure::new(exit::UNKNOWN, "Unknown", text).hint("look before you retry")
            }
        }
    }
}
