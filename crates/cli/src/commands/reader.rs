//! Where the commands read that change nothing: at the master, or with `--stale` at any replica. Neither takes a
//! session, so a read leaves nothing in the log.

use crate::exit::Failure;
use crate::output;
use crate::settings::Settings;
use bytes::Bytes;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use wombat_client::{Entry, Error, Operator, Path, Stale, StaleReader, Staleness, Stat};

/// How long one replica may take to answer a stale read.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How long to wait before a master is looked for again.
const PAUSE: Duration = Duration::from_millis(100);

/// Where nodes are read.
pub(super) struct Reader<'a> {
    settings: &'a Settings,
    at: At,
    /// Since when the master has given no answer.
    silent_since: Option<Instant>,
}

enum At {
    /// What is so now.
    Master(Operator),
    /// What any one replica knows.
    AnyReplica(StaleReader),
}

/// What was read, and how old it may be if it was not read at the master.
pub(super) struct Read<T> {
    pub(super) value: T,
    staleness: Option<Staleness>,
}

impl<T> Read<T> {
    fn now(value: T) -> Read<T> {
        Read { value, staleness: None }
    }

    /// Says after what was read how old it may be.
    pub(super) fn tell_age(&self) {
        if let Some(Staleness { applied, replica, age }) = &self.staleness {
            let age = match age {
                Some(age) => format!("at most {} ms old", whole_ms(*age)),
                None => "of unknown age".to_owned(),
            };
            output::notice(format!("as of slot {applied} at replica {replica}, {age}"));
        }
    }

    /// The same within what was read.
    pub(super) fn add_age(&self, object: &mut Value) {
        if let Some(staleness) = &self.staleness {
            object["stale"] = json!({
                "applied_slot": staleness.applied.0,
                "replica": staleness.replica.0,
                "age_ms": staleness.age.map(whole_ms),
            });
        }
    }
}

impl<T> From<Stale<T>> for Read<T> {
    fn from(stale: Stale<T>) -> Read<T> {
        Read { value: stale.value, staleness: Some(stale.staleness) }
    }
}

impl Reader<'_> {
    pub(super) async fn connect(settings: &Settings, stale: bool) -> Result<Reader<'_>, Failure> {
        let at = if stale {
            let cell = settings.cell.as_deref().unwrap_or_default();
            let within = settings.connect_timeout.min(ANSWER_WITHIN);
            At::AnyReplica(StaleReader::connect(settings.endpoints.iter().cloned(), cell, within).await?)
        } else {
            At::Master(settings.operator().await?)
        };
        Ok(Reader { settings, at, silent_since: None })
    }

    /// The contents of a file, and the metadata that belongs to them.
    pub(super) async fn contents(&mut self, path: &str) -> Result<Read<(Bytes, Stat)>, Failure> {
        let read = async |at: &mut At| match at {
            At::Master(master) => master.contents(path).await.map(Read::now),
            At::AnyReplica(replica) => replica.contents(path).await.map(Read::from),
        };
        self.until_answered(path, read).await
    }

    /// The metadata of a node.
    pub(super) async fn stat(&mut self, path: &str) -> Result<Read<Stat>, Failure> {
        let read = async |at: &mut At| match at {
            At::Master(master) => master.stat(path).await.map(Read::now),
            At::AnyReplica(replica) => replica.stat(path).await.map(Read::from),
        };
        self.until_answered(path, read).await
    }

    /// The children of a directory.
    pub(super) async fn list(&mut self, path: &str) -> Result<Read<Vec<Entry>>, Failure> {
        let read = async |at: &mut At| match at {
            At::Master(master) => master.list(path).await.map(Read::now),
            At::AnyReplica(replica) => replica.list(path).await.map(Read::from),
        };
        self.until_answered(path, read).await
    }

    /// Reads once more for each master that does not answer.
    async fn until_answered<T>(
        &mut self,
        path: &str,
        read: impl AsyncFn(&mut At) -> Result<Read<T>, Error>,
    ) -> Result<Read<T>, Failure> {
        loop {
            match read(&mut self.at).await {
                Err(error) => self.again(path, error).await?,
                Ok(read) => {
                    self.silent_since = None;
                    return Ok(read);
                }
            }
        }
    }

    /// Looks for the master again if it does not answer any more, for as long as a cell is looked for. Any other error
    /// is the command's.
    async fn again(&mut self, path: &str, error: Error) -> Result<(), Failure> {
        let elsewhere = matches!(
            error,
            Error::Unreachable { .. } | Error::NotMaster { .. } | Error::NoQuorum | Error::Overloaded { .. }
        );
        let silent_since = *self.silent_since.get_or_insert_with(Instant::now);
        match &mut self.at {
            At::Master(master) if elsewhere && silent_since.elapsed() < self.settings.connect_timeout => {
                sleep(PAUSE).await;
                *master = self.settings.operator().await?;
                Ok(())
            }
            _ => Err(Failure::from(error).about(path)),
        }
    }

    /// A whole name, with the name of this cell for `local`.
    pub(super) fn resolve(&self, path: &str) -> Result<Path, Failure> {
        Ok(match &self.at {
            At::Master(master) => master.resolve(path)?,
            At::AnyReplica(replica) => replica.resolve(path)?,
        })
    }
}

/// Rounded up: it is a bound.
fn whole_ms(age: Duration) -> u64 {
    age.as_nanos().div_ceil(1_000_000) as u64
}

#[cfg(test)]
mod tests {
    use super::whole_ms;
    use std::time::Duration;

    #[test]
    fn a_bound_is_rounded_up() {
        let micros = [0, 1, 999, 1000, 1001];
        assert_eq!(micros.map(|micros| whole_ms(Duration::from_micros(micros))), [0, 1, 1, 1, 2]);
    }
}
