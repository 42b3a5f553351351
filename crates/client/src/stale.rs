//! Reads at any replica (SPEC §7): for when there is no master, or when the reads are wanted elsewhere.

use crate::answer::unexpected;
use crate::direct::{Direct, Failed};
use crate::race::race;
use crate::stat::{Entry, Stat};
use crate::time::now;
use bytes::Bytes;
use std::time::Duration;
use wombat_proto::wire::read_stale::What;
use wombat_proto::wire::stale_read::Answer as Page;
use wombat_proto::wire::{self, request::Call, response::Result as Answer};
use wombat_proto::{CellName, Error, Path, ReplicaId, Result, Slot};

/// What a replica knew, which may not be so any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stale<T> {
    /// What it knew.
    pub value: T,
    /// How old that is.
    pub staleness: Staleness,
}

/// How old something is that a replica knew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Staleness {
    /// The replica had applied the log up to here. Of a long listing, the last parts may be younger.
    pub applied: Slot,
    /// Everything is in it that was completed so long before the read returned, by the clocks of the replica and of
    /// this machine: a bound, which no delay in any network breaks. `None`: the replica has not heard of a master
    /// since it started.
    pub age: Option<Duration>,
    /// The replica.
    pub replica: ReplicaId,
}

/// Reads at one replica of a cell for as long as it answers, then at another, without a session and without a
/// master. Replicas that are slow to answer are not waited for: the next one is asked a little later, too.
///
/// ```no_run
/// # use wombat_client::*;
/// # use std::time::Duration;
/// # async fn example() -> Result<()> {
/// let endpoints = ["a:7480", "b:7480", "c:7480"];
/// let mut reader = StaleReader::connect(endpoints, "main", Duration::from_secs(2)).await?;
/// let Stale { value: (contents, _), staleness } = reader.contents("/ls/local/config").await?;
/// if staleness.age.is_some_and(|age| age < Duration::from_secs(5)) {
///     println!("{}", String::from_utf8_lossy(&contents));
/// }
/// # Ok(())
/// # }
/// ```
pub struct StaleReader {
    endpoints: Vec<String>,
    within: Duration,
    cell: CellName,
    /// The endpoint that is next in turn.
    next: usize,
    replica: Option<Direct>,
}

impl StaleReader {
    /// Connects to one of these `host:port`s at which a replica answers, the first ones first. Each may take `within`
    /// for an answer, now and later. Without a cell's name, it is the cell of that replica.
    ///
    /// Errors: [`Error::Unreachable`] says what was wrong with each endpoint when none answered;
    /// [`Error::InvalidArgument`] if all are of another cell.
    pub async fn connect(
        endpoints: impl IntoIterator<Item = impl Into<String>>,
        cell: &str,
        within: Duration,
    ) -> Result<StaleReader> {
        let endpoints: Vec<String> = endpoints.into_iter().map(Into::into).collect();
        let cell = if cell == CellName::LOCAL { "" } else { cell };
        if endpoints.is_empty() {
            return Err(Error::invalid("no endpoint is given: say where the cell listens, host:port"));
        }
        let attempts = endpoints.iter().enumerate().map(async |(place, endpoint)| {
            Direct::connect(endpoint, cell, within).await.map(|replica| (place, replica))
        });
        let (place, replica) = race(attempts).await.map_err(Failed::together)?;
        let cell = CellName::parse(&replica.welcome.cell)?;
        Ok(StaleReader { endpoints, within, cell, next: place + 1, replica: Some(replica) })
    }

    /// The contents of a file and the metadata that belongs to them.
    ///
    /// Errors: [`Error::NotFound`] if the replica knew of no such node, [`Error::IsDirectory`],
    /// [`Error::InvalidArgument`] for a name that is none; [`Error::Unreachable`] if no replica answers any more.
    pub async fn contents(&mut self, path: &str) -> Result<Stale<(Bytes, Stat)>> {
        let (mut pages, staleness) = self.read(path, What::Contents).await?;
        match pages.pop() {
            Some(Page::Contents(wire::Contents { contents, stat: Some(stat) })) => {
                Ok(Stale { value: (contents, stat.into()), staleness })
            }
            _ => Err(unexpected()),
        }
    }

    /// The metadata of a node.
    ///
    /// Errors: as [`StaleReader::contents`].
    pub async fn stat(&mut self, path: &str) -> Result<Stale<Stat>> {
        let (mut pages, staleness) = self.read(path, What::Stat).await?;
        match pages.pop() {
            Some(Page::Stat(stat)) => Ok(Stale { value: stat.into(), staleness }),
            _ => Err(unexpected()),
        }
    }

    /// The children of a directory, in the order of their names.
    ///
    /// Errors: as [`StaleReader::contents`], and [`Error::NotDirectory`].
    pub async fn list(&mut self, path: &str) -> Result<Stale<Vec<Entry>>> {
        let (pages, staleness) = self.read(path, What::List).await?;
        let entries = pages.into_iter().flat_map(|page| match page {
            Page::Entries(page) => page.entries,
            _ => Vec::new(),
        });
        Ok(Stale { value: entries.map(Entry::from).collect(), staleness })
    }

    /// A whole name, with the cell of the replicas for `local`.
    pub fn resolve(&self, path: &str) -> Result<Path> {
        let mut path = Path::parse(path)?;
        if path.cell.as_str() == CellName::LOCAL {
            path.cell = self.cell.clone();
        }
        Ok(path)
    }

    /// Asks the replica that it is connected to, and if that fails or takes long each in turn.
    async fn read(&mut self, path: &str, what: What) -> Result<(Vec<Page>, Staleness)> {
        let path = self.resolve(path)?.to_string();
        // Taken out, so that a read that is given up half-way leaves nothing behind for the next.
        let connected = self.replica.take().map(|replica| (self.next, Some(replica)));
        let others = (self.next..self.next + self.endpoints.len()).map(|place| (place + 1, None));
        let attempts = connected.into_iter().chain(others).map(async |(next, replica)| {
            let mut replica = match replica {
                Some(replica) => replica,
                None => {
                    let endpoint = &self.endpoints[(next - 1) % self.endpoints.len()];
                    Direct::connect(endpoint, self.cell.as_str(), self.within).await?
                }
            };
            match pages(&mut replica, &path, what).await {
                Ok(pages) => Ok((next, replica, Ok(pages))),
                // One that is in no cell yet, or not any more, knows nothing.
                Err(failed) => match failed.refusal().filter(|error| **error != Error::NoQuorum) {
                    Some(error) => Ok((next, replica, Err(error.clone()))),
                    None => Err(failed),
                },
            }
        });
        let raced: std::result::Result<_, Vec<Failed>> = race(attempts).await;
        let (next, replica, read) = raced.map_err(Failed::together)?;
        (self.next, self.replica) = (next % self.endpoints.len(), Some(replica));
        read
    }
}

/// All pages of an answer: more than one only of a listing.
async fn pages(
    replica: &mut Direct,
    path: &str,
    what: What,
) -> std::result::Result<(Vec<Page>, Staleness), Failed> {
    let begun = now();
    let (mut all, mut first, mut after) = (Vec::new(), None, String::new());
    loop {
        let read = wire::ReadStale { path: path.into(), what: what.into(), after, limit: 0 };
        let Answer::StaleRead(read) = replica.ask(Call::ReadStale(read)).await? else {
            return Err(replica.refused(unexpected()));
        };
        // What a later page adds is no older.
        let staleness = first.get_or_insert(Staleness {
            applied: Slot(read.applied_slot),
            age: (!read.age_unknown).then_some(Duration::from_millis(read.age_ms)),
            replica: ReplicaId(read.replica),
        });
        let page = read.answer.ok_or_else(|| replica.refused(unexpected()))?;
        let last = match &page {
            Page::Entries(page) if page.more => page.entries.last().map(|entry| entry.name.clone()),
            _ => None,
        };
        all.push(page);
        let Some(last) = last else {
            // It has aged since the replica answered, at most by all that this has taken.
            let age = staleness.age.map(|age| age + now().since(begun));
            return Ok((all, Staleness { age, ..*staleness }));
        };
        after = last;
    }
}
