//! `--timeout`: how long a command that ends by itself may take.

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
pub(crate) enum Effect {
    Reads,
    Changes,
    BreaksLock,
}

/// The time that a command has.
pub(crate) struct TimeLimit {
    within: Duration,
    effect: Effect,
    until: Cell<Instant>,
}

impl TimeLimit {
    /// `within`: how long it may take, if that was said.
    pub(crate) fn new(effect: Effect, within: Option<Duration>) -> TimeLimit {
        let usual = if effect == Effect::BreaksLock { DEFAULT_OF_BREAK } else { DEFAULT };
        let within = within.unwrap_or(usual);
        TimeLimit { within, effect, until: Cell::new(Instant::now() + within) }
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
            Effect::Changes | Effect::BreaksLock => {
                let text = format!("{text}; the change may have been made or not");
                Failure::new(exit::UNKNOWN, "Unknown", text).hint("look before you retry")
            }
        }
    }
}

/// Waits for so long; without a time, for ever.
pub(crate) async fn pass(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}
