//! Reads at any replica (SPEC §7): for when there is no master, or when the reads are wanted elsewhere.

use crate::convert::unexpected;
use crate::direct::{Direct, Failed};
use crate::{Entry, Stat, now};
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

/// Reads at one replica of a cell after another, each for as long as it answers, without a session and without a
/// master.
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
    /// Connects to the first of these `host:port`s at which a replica answers. Each may take `within` for an answer,
    /// now and later. Without a cell's name, it is the cell of that replica.
    ///
    /// Errors: [`Error::NotFound`] names what was wrong with each endpoint when none answered;
    /// [`Error::InvalidArgument`] if one is of another cell.
    pub async fn connect(
        endpoints: impl IntoIterator<Item = impl Into<String>>,
        cell: &str,
        within: Duration,
    ) -> Result<StaleReader> {
        let endpoints: Vec<String> = endpoints.into_iter().map(Into::into).collect();
        let cell = if cell == CellName::LOCAL { "" } else { cell };
        let mut wrong = Vec::new();
        for (place, endpoint) in endpoints.iter().enumerate() {
            match Direct::connect(endpoint, cell, within).await {
                Ok(replica) => {
                    let cell = CellName::parse(&replica.welcome.cell)?;
                    let next = place + 1;
                    return Ok(StaleReader { endpoints, within, cell, next, replica: Some(replica) });
                }
                Err(Failed::Gone(what)) => wrong.push(what),
                Err(Failed::Refused(error)) => return Err(error),
            }
        }
        match wrong.is_empty() {
            true => Err(Error::invalid("no endpoint is given: say where the cell listens, host:port")),
            false => Err(Error::not_found(wrong.join("; "))),
        }
    }

    /// The contents of a file and the metadata that belongs to them.
    ///
    /// Errors: [`Error::NotFound`] if the replica knew of no such node, [`Error::IsDirectory`],
    /// [`Error::InvalidArgument`] for a name that is none; [`Error::NoQuorum`] if no replica answers any more.
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

    /// Asks the replica that it is connected to, and then each in turn.
    async fn read(&mut self, path: &str, what: What) -> Result<(Vec<Page>, Staleness)> {
        let path = self.resolve(path)?.to_string();
        for _ in 0..=self.endpoints.len() {
            // Taken out, so that a read that is given up half-way leaves nothing behind for the next.
            let connected = match self.replica.take() {
                Some(replica) => Ok(replica),
                None => self.connect_next().await,
            };
            let mut replica = match connected {
                Ok(replica) => replica,
                Err(Failed::Gone(_)) => continue,
                Err(Failed::Refused(error)) => return Err(error),
            };
            let pages = pages(&mut replica, &path, what).await;
            match pages {
                // It is in no cell yet, or not there any more.
                Err(Failed::Refused(Error::NoQuorum) | Failed::Gone(_)) => continue,
                Err(Failed::Refused(_)) | Ok(_) => self.replica = Some(replica),
            }
            return pages.map_err(Failed::into_error);
        }
        Err(Error::NoQuorum)
    }

    async fn connect_next(&mut self) -> std::result::Result<Direct, Failed> {
        let endpoint = &self.endpoints[self.next % self.endpoints.len()];
        self.next += 1;
        Direct::connect(endpoint, self.cell.as_str(), self.within).await
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
            return Err(Failed::Refused(unexpected()));
        };
        // What a later page adds is no older.
        let staleness = first.get_or_insert(Staleness {
            applied: Slot(read.applied_slot),
            age: (!read.age_unknown).then_some(Duration::from_millis(read.age_ms)),
            replica: ReplicaId(read.replica),
        });
        let page = read.answer.ok_or_else(|| Failed::Refused(unexpected()))?;
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
