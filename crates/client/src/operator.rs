//! What operators ask the master without a session: a master that has no room for another client answers it, too.

use crate::answer::unexpected;
use crate::direct::{Direct, Failed};
use crate::listings::{self, Ask};
use crate::race::race;
use crate::{Entry, Stat};
use bytes::Bytes;
use std::time::Duration;
use wombat_proto::wire::read_stale::What;
use wombat_proto::wire::stale_read::Answer as Page;
use wombat_proto::wire::{self, request::Call, response::Result as Answer};
use wombat_proto::{CellName, Error, Path, Result, Sequencer};

/// A connection to the master that belongs to no session.
pub struct Operator {
    master: Direct,
    cell: CellName,
}

impl Ask for &mut Operator {
    async fn ask_master(&mut self, call: Call) -> Result<Answer> {
        self.master.ask(call).await.map_err(|failed| Failed::together(vec![failed]))
    }
}

impl Operator {
    /// Connects to the master, by what the first of these `host:port`s that answers says. A master that is not
    /// reached is asked through that replica. Each step may take `within`, and so may each answer later.
    ///
    /// Errors: [`Error::Unreachable`]; [`Error::InvalidArgument`] if all endpoints are of another cell.
    pub async fn connect(endpoints: &[String], cell: &str, within: Duration) -> Result<Operator> {
        let cell = if cell == CellName::LOCAL { "" } else { cell };
        let attempts = endpoints.iter().map(async |endpoint| {
            Direct::connect(endpoint, cell, within).await.map(|replica| (endpoint, replica))
        });
        let (endpoint, replica) = race(attempts).await.map_err(Failed::together)?;
        let master = match replica.welcome.epoch {
            0 => Operator::find(endpoint, &replica.welcome.master, cell, within).await?,
            _ => replica,
        };
        let cell = CellName::parse(&master.welcome.cell)?;
        Ok(Operator { master, cell })
    }

    /// Connects to the master that a replica names, or to one through that replica.
    async fn find(endpoint: &str, master: &str, cell: &str, within: Duration) -> Result<Direct> {
        if !master.is_empty()
            && let Ok(direct) = Direct::connect(master, cell, within).await
            && direct.welcome.epoch != 0
        {
            return Ok(direct);
        }
        let relayed = Direct::connect_through(endpoint, cell, within).await;
        let relayed = relayed.map_err(|failed| Failed::together(vec![failed]))?;
        match relayed.welcome.epoch {
            0 => Err(Error::unreachable(format!("{endpoint} answered: it reaches no master"))),
            _ => Ok(relayed),
        }
    }

    /// The contents of a file, and the metadata that belongs to them, as they are now.
    ///
    /// Errors: [`Error::NotFound`], [`Error::IsDirectory`]; [`Error::InvalidArgument`] for a name that is none;
    /// [`Error::Overloaded`] by a master that has no room for another client; [`Error::NotMaster`] and
    /// [`Error::Unreachable`] if it is not the master any more.
    pub async fn contents(&mut self, path: &str) -> Result<(Bytes, Stat)> {
        match self.read(path, What::Contents, String::new()).await? {
            Page::Contents(wire::Contents { contents, stat: Some(stat) }) => Ok((contents, stat.into())),
            _ => Err(unexpected()),
        }
    }

    /// The metadata of a node.
    ///
    /// Errors: as [`Operator::contents`].
    pub async fn stat(&mut self, path: &str) -> Result<Stat> {
        match self.read(path, What::Stat, String::new()).await? {
            Page::Stat(stat) => Ok(stat.into()),
            _ => Err(unexpected()),
        }
    }

    /// The children of a directory, in the order of their names. A long listing is asked for page by page.
    ///
    /// Errors: as [`Operator::contents`], and [`Error::NotDirectory`].
    pub async fn list(&mut self, path: &str) -> Result<Vec<Entry>> {
        let mut all: Vec<Entry> = Vec::new();
        loop {
            let after = all.last().map_or_else(String::new, |entry| entry.name.clone());
            let Page::Entries(page) = self.read(path, What::List, after).await? else {
                return Err(unexpected());
            };
            let more = page.more && !page.entries.is_empty();
            all.extend(page.entries.into_iter().map(Entry::from));
            if !more {
                return Ok(all);
            }
        }
    }

    async fn read(&mut self, path: &str, what: What, after: String) -> Result<Page> {
        let path = self.resolve(path)?.to_string();
        let read = wire::ReadPath { path, what: what.into(), after, limit: 0 };
        match (&mut *self).ask_master(Call::ReadPath(read)).await? {
            Answer::StaleRead(wire::StaleRead { answer: Some(page), .. }) => Ok(page),
            _ => Err(unexpected()),
        }
    }

    /// Whether the lock that a sequencer stands for is still held as it was granted.
    ///
    /// Errors: [`Error::SequencerStale`] if it is not.
    pub async fn check_sequencer(&mut self, sequencer: &Sequencer) -> Result<()> {
        let check = wire::CheckSequencer { sequencer: sequencer.to_string() };
        (&mut *self).ask_master(Call::CheckSequencer(check)).await.map(drop)
    }

    /// All sessions of the cell.
    pub async fn sessions(&mut self) -> Result<Vec<wire::SessionInfo>> {
        listings::sessions(self).await
    }

    /// The locks that are held, waited for or in a lock-delay: of one node and all below it, or of the cell.
    pub async fn locks(&mut self, path: Option<&str>) -> Result<Vec<wire::LockInfo>> {
        let path = path.map(|path| self.resolve(path)).transpose()?;
        listings::locks(self, path.map_or_else(String::new, |path| path.to_string())).await
    }

    /// What administrators did, the oldest first, as far as the cell remembers.
    pub async fn audit(&mut self) -> Result<Vec<wire::AuditEntry>> {
        listings::audit(self).await
    }

    /// A whole name, with the name of this cell for `local`.
    pub fn resolve(&self, path: &str) -> Result<Path> {
        let mut path = Path::parse(path)?;
        if path.cell.as_str() == CellName::LOCAL {
            path.cell = self.cell.clone();
        }
        Ok(path)
    }
}
