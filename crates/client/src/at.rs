//! Reading a node, with a word on who is to answer.

use crate::answer::unexpected;
use crate::cache::Reading;
use crate::consistency::Consistency;
use crate::handle::OpenHandle;
use crate::stat::{Entry, Stat};
use bytes::Bytes;
use tokio::task::coop;
use wombat_proto::Result;
use wombat_proto::wire::{self, request::Call};
use wombat_session::Answer;

/// A [`crate::Node`] as whom to ask about it: [`crate::Node::at`].
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    handle: &'a OpenHandle,
    consistency: Consistency,
}

impl<'a> At<'a> {
    pub(crate) fn new(handle: &'a OpenHandle, consistency: Consistency) -> At<'a> {
        At { handle, consistency }
    }

    /// As [`crate::Node::contents`].
    pub async fn contents(self) -> Result<(Bytes, Stat)> {
        let reading = self.read().await?;
        Ok((reading.bytes(), reading.stat()))
    }

    /// As [`crate::Node::read`].
    pub async fn read(self) -> Result<Reading> {
        if let Some(reading) = self.cached(|| self.handle.peek()).await {
            return Ok(reading);
        }
        let get = wire::GetContents { handle: Some(self.handle.token()) };
        match self.handle.call(Call::GetContents(get)).await? {
            Answer::Contents(wire::Contents { contents, stat: Some(stat) }) => {
                Ok(Reading::answered(contents, stat))
            }
            _ => Err(unexpected()),
        }
    }

    /// As [`crate::Node::stat`].
    pub async fn stat(self) -> Result<Stat> {
        let handle = self.handle;
        if let Some(stat) = self.cached(|| handle.shared().store.stat(handle.slot()?)).await {
            return Ok(stat.into());
        }
        handle.stat_of(Call::GetStat(wire::GetStat { handle: Some(handle.token()) })).await
    }

    /// As [`crate::Node::list`].
    pub async fn list(self) -> Result<Vec<Entry>> {
        let handle = self.handle;
        let entries = |all: &[wire::Entry]| all.iter().cloned().map(Entry::from).collect();
        if let Some(all) = self.cached(|| handle.shared().store.listing(handle.slot()?, entries)).await {
            return Ok(all);
        }
        let mut all: Vec<Entry> = Vec::new();
        loop {
            let after = all.last().map_or_else(String::new, |entry| entry.name.clone());
            let read = wire::ReadDir { handle: Some(handle.token()), after, limit: 0 };
            let Answer::Entries(page) = self.handle.call(Call::ReadDir(read)).await? else {
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
                    self.handle.shared().store.missed();
                }
                found
            }
            Consistency::Master => None,
        }
    }
}
