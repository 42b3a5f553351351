//! An open node: a handle of the cell (P§2.6).

use crate::answer::unexpected;
use crate::at::At;
use crate::cache::Reading;
use crate::consistency::Consistency;
use crate::events::NodeEvents;
use crate::handle::{OpenHandle, Opened, open};
use crate::lock::{self, LockGuard};
use crate::options::OpenOptions;
use crate::stat::{Entry, Stat};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::coop;
use wombat_proto::limits::CONTENTS_BYTES;
use wombat_proto::wire::{self, request::Call};
use wombat_proto::{Class, Error, Generation, Instance, LockMode, NodePath, Path, Result, Sequencer};
use wombat_session::Answer;

/// An open node. It is bound to the instance that it was opened as: when that is deleted every call fails
/// with [`Error::StaleHandle`], even if the name exists again. Dropping it closes the handle in the
/// background, once no guard of it is left; or it is kept open for the next who opens the node in the same way, if
/// it has no events, was never used for a lock, and the cache knows that the node is there.
pub struct Node {
    handle: Arc<OpenHandle>,
    created: bool,
    stat: Stat,
}

impl Node {
    pub(crate) fn new(opened: Opened) -> Node {
        let Opened { handle, created, stat } = opened;
        Node { handle, created, stat }
    }

    /// Its whole name.
    pub fn path(&self) -> &Path {
        self.handle.path()
    }

    /// Its instance.
    pub fn instance(&self) -> Instance {
        Instance(self.handle.token().instance)
    }

    /// Whether opening it made it.
    pub fn created(&self) -> bool {
        self.created
    }

    /// Its metadata at the time when it was opened.
    pub fn opened_stat(&self) -> &Stat {
        &self.stat
    }

    /// The contents and the metadata that belongs to them, from the cache if they are there and surely true.
    ///
    /// Errors: [`Error::IsDirectory`], [`Error::StaleHandle`].
    pub async fn contents(&self) -> Result<(Bytes, Stat)> {
        self.at(Consistency::Cached).contents().await
    }

    /// The same for whoever only looks at them: the cheapest way to read a file again and again, on any number of
    /// threads.
    ///
    /// Errors: as [`Node::contents`].
    ///
    /// ```no_run
    /// # use wombat_client::*;
    /// # async fn example(node: Node) -> Result<()> {
    /// if &node.read().await?[..] == b"open" { /* … */ }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn read(&self) -> Result<Reading> {
        coop::consume_budget().await;
        match self.peek() {
            Some(reading) => Ok(reading),
            None => self.at(Consistency::Cached).read().await,
        }
    }

    /// The contents, if they can be told without asking the cell.
    pub fn peek(&self) -> Option<Reading> {
        self.handle.peek()
    }

    /// The metadata, from the cache if it is there and surely true.
    pub async fn stat(&self) -> Result<Stat> {
        self.at(Consistency::Cached).stat().await
    }

    /// The children of a directory, in the order of their names, from the cache if they are all there and surely
    /// true.
    ///
    /// Errors: [`Error::NotDirectory`].
    pub async fn list(&self) -> Result<Vec<Entry>> {
        self.at(Consistency::Cached).list().await
    }

    /// The node as whom to ask about it.
    ///
    /// ```no_run
    /// # use wombat_client::*;
    /// # async fn example(node: Node) -> Result<()> {
    /// let (contents, stat) = node.at(Consistency::Master).contents().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn at(&self, consistency: Consistency) -> At<'_> {
        At::new(&self.handle, consistency)
    }

    /// Writes the contents whole. Returns the metadata after it.
    ///
    /// Errors: [`Error::IsDirectory`], [`Error::TooLarge`], [`Error::SequencerStale`] on a handle that is tied
    /// to a sequencer.
    pub async fn set(&self, contents: impl Into<Bytes>) -> Result<Stat> {
        self.set_contents(contents.into(), Generation(0)).await
    }

    /// Writes the contents if they are of that generation: compare and swap.
    ///
    /// Errors: as [`Node::set`], and [`Error::GenerationMismatch`].
    pub async fn set_if(&self, generation: Generation, contents: impl Into<Bytes>) -> Result<Stat> {
        if generation == Generation(0) {
            return Err(Error::invalid("a content generation is at least 1"));
        }
        self.set_contents(contents.into(), generation).await
    }

    async fn set_contents(&self, contents: Bytes, if_generation: Generation) -> Result<Stat> {
        if contents.len() > CONTENTS_BYTES {
            return Err(Error::contents_too_large(contents.len()));
        }
        let handle = Some(self.handle.token());
        let set = wire::SetContents { handle, contents, if_generation: if_generation.0 };
        self.handle.stat_of(Call::SetContents(set)).await
    }

    /// Deletes the node. A guard of this handle is no longer safe from when it is asked for.
    ///
    /// Errors: [`Error::NotEmpty`]; [`Error::LockHeld`] while another handle holds its lock,
    /// [`Error::LockDelayed`] while its lock-delay runs.
    pub async fn delete(&self) -> Result<()> {
        self.handle.give_up();
        self.handle.spoil();
        let deleted = self.done(Call::Delete(wire::Delete { handle: Some(self.handle.token()) })).await;
        // A refusal has changed nothing. After anything else the node may be gone, and the handle goes with it.
        let refused = deleted.as_ref().is_err_and(|error| error.class() != Class::Unknown);
        if refused {
            self.handle.take_back();
        }
        deleted
    }

    /// Takes the lock, waiting in line for as long as it takes.
    ///
    /// Errors: [`Error::StaleHandle`] if the node is deleted meanwhile, [`Error::BadHandle`] if the node was
    /// not opened for writing, [`Error::SequencerStale`] on a handle that is tied to a sequencer.
    pub async fn acquire(&self, mode: LockMode) -> Result<LockGuard> {
        lock::acquire(&self.handle, mode, false, Duration::ZERO, false).await
    }

    /// Takes the lock exclusively, as [`Node::acquire`] does. What the file holds when the grant ends, by release,
    /// loss or break, is emptied in the same instant: it was this holder's own.
    pub(crate) async fn acquire_as_author(&self) -> Result<LockGuard> {
        lock::acquire(&self.handle, LockMode::Exclusive, false, Duration::ZERO, true).await
    }

    /// Takes the lock, waiting in line for so long at most.
    ///
    /// Errors: as [`Node::acquire`], and [`Error::Timeout`].
    pub async fn acquire_within(&self, mode: LockMode, timeout: Duration) -> Result<LockGuard> {
        match timeout.is_zero() {
            true => self.try_acquire(mode).await,
            false => lock::acquire(&self.handle, mode, false, timeout, false).await,
        }
    }

    /// Takes the lock if it is to be had at once.
    ///
    /// Errors: as [`Node::acquire`], and [`Error::LockHeld`], [`Error::LockDelayed`].
    pub async fn try_acquire(&self, mode: LockMode) -> Result<LockGuard> {
        lock::acquire(&self.handle, mode, true, Duration::ZERO, false).await
    }

    /// Ties this handle to a lock: its calls fail once the sequencer is stale (P§2.4).
    ///
    /// Errors: [`Error::SequencerStale`] if it is already.
    pub async fn set_sequencer(&self, sequencer: &Sequencer) -> Result<()> {
        self.handle.ask_always();
        let (handle, sequencer) = (Some(self.handle.token()), sequencer.to_string());
        self.done(Call::SetSequencer(wire::SetSequencer { handle, sequencer })).await
    }

    /// Opens a node by its name relative to this directory, `a/b`.
    pub async fn open(&self, relative: &str, options: OpenOptions) -> Result<Node> {
        let below = NodePath::parse(relative)?;
        let path = Path::new(self.path().cell.clone(), self.path().node.extend(&below));
        open(self.handle.session(), Some(&self.handle), relative.into(), path, options).await.map(Node::new)
    }

    /// The events that the node was opened with, from now on.
    pub fn events(&self) -> NodeEvents {
        let subscriptions = &self.handle.shared().view.subscriptions;
        let mut subscriptions = subscriptions.lock().expect("nobody panics with it");
        NodeEvents { receiver: subscriptions.listen(self.handle.id()) }
    }

    /// Makes the calls on this handle that have not ended fail, and all later ones, without closing it (P§2.6):
    /// so that what other tasks do with it ends, and none of them finds it closed under its feet. An Acquire
    /// that waits is taken back. A lock that the handle holds stays held, and its guard stays what it was.
    ///
    /// The calls fail with [`Error::Cancelled`]; a change that was under way with [`Error::Unknown`], because
    /// it may have taken effect.
    ///
    /// ```no_run
    /// # use wombat_client::*;
    /// # use std::{sync::Arc, time::Duration};
    /// # async fn example(node: Arc<Node>) {
    /// let waits = tokio::spawn({
    ///     let node = Arc::clone(&node);
    ///     async move { node.acquire(LockMode::Exclusive).await }
    /// });
    /// node.poison();
    /// assert_eq!(waits.await.unwrap().unwrap_err(), Error::Cancelled);
    /// # }
    /// ```
    pub fn poison(&self) {
        self.handle.poison();
    }

    /// Closes the handle and waits until it is closed, or kept for the next who opens the node. A guard of it is
    /// no longer safe from when it is asked for.
    pub async fn close(self) -> Result<()> {
        self.handle.give_up();
        if self.handle.is_to_keep() {
            return Ok(());
        }
        self.handle.spoil(); // Whatever is cached of the node meanwhile.
        let close = Call::Close(wire::Close { handle: Some(self.handle.token()) });
        done(self.handle.shared().call(close).await?)
    }

    async fn done(&self, call: Call) -> Result<()> {
        done(self.handle.call(call).await?)
    }
}

fn done(answer: Answer) -> Result<()> {
    match answer {
        Answer::Done(_) => Ok(()),
        _ => Err(unexpected()),
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("path", self.path()).field("instance", &self.instance()).finish()
    }
}
