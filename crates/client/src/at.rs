//! Reading a node, with a word on who is to answer.

use crate::convert::unexpected;
use crate::{Entry, Node, Reading, Stat};
use bytes::Bytes;
use tokio::task::coop;
use wombat_proto::Result;
use wombat_proto::wire::{self, request::Call};
use wombat_session::Answer;

/// Who answers a read, or an [`crate::Cell::open`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub enum Consistency {
    /// The cache, if it can, otherwise the master. What it says was true at some instant within the call: nothing
    /// changes before those who have it cached have dropped it, or their leases have ended (P§2.7).
    #[default]
    Cached,
    /// The master, in any case. It is as true, and does not rely on the rate of this machine's clock.
    Master,
}

/// A [`Node`] as whom to ask about it: [`Node::at`].
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    node: &'a Node,
    consistency: Consistency,
}

impl<'a> At<'a> {
    pub(crate) fn new(node: &'a Node, consistency: Consistency) -> At<'a> {
        At { node, consistency }
    }

    /// As [`Node::contents`].
    pub async fn contents(self) -> Result<(Bytes, Stat)> {
        let reading = self.read().await?;
        Ok((reading.bytes(), reading.stat()))
    }

    /// As [`Node::read`].
    pub async fn read(self) -> Result<Reading> {
        if let Some(reading) = self.cached(|| self.node.peek()).await {
            return Ok(reading);
        }
        let get = wire::GetContents { handle: Some(self.node.handle().token()) };
        match self.node.call(Call::GetContents(get)).await? {
            Answer::Contents(wire::Contents { contents, stat: Some(stat) }) => {
                Ok(Reading::answered(contents, stat))
            }
            _ => Err(unexpected()),
        }
    }

    /// As [`Node::stat`].
    pub async fn stat(self) -> Result<Stat> {
        let handle = self.node.handle();
        if let Some(stat) = self.cached(|| handle.shared().store.stat(handle.slot()?)).await {
            return Ok(stat.into());
        }
        self.node.stat_of(Call::GetStat(wire::GetStat { handle: Some(handle.token()) })).await
    }

    /// As [`Node::list`].
    pub async fn list(self) -> Result<Vec<Entry>> {
        let handle = self.node.handle();
        let entries = |all: &[wire::Entry]| all.iter().cloned().map(Entry::from).collect();
        if let Some(all) = self.cached(|| handle.shared().store.listing(handle.slot()?, entries)).await {
            return Ok(all);
        }
        let mut all: Vec<Entry> = Vec::new();
        loop {
            let after = all.last().map_or_else(String::new, |entry| entry.name.clone());
            let read = wire::ReadDir { handle: Some(handle.token()), after, limit: 0 };
            let Answer::Entries(page) = self.node.call(Call::ReadDir(read)).await? else {
                return Err(unexpected());
            };
            let more = page.more && !page.entries.is_empty();
            all.extend(page.entries.into_iter().map(Entry::from));
            if !more {
                return Ok(all);
            }
        }
    }

    /// What the cache says, if it may be asked. A task that reads again and again gives way to others of its runtime
    /// now and then, although it waits for nothing.
    async fn cached<T>(self, look: impl FnOnce() -> Option<T>) -> Option<T> {
        match self.consistency {
            Consistency::Cached => {
                coop::consume_budget().await;
                let found = look();
                if found.is_none() {
                    self.node.handle().shared().store.missed();
                }
                found
            }
            Consistency::Master => None,
        }
    }
}
