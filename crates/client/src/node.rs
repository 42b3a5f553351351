//! An open node: a handle of the cell (P§2.6).

use crate::convert::unexpected;
use crate::events::{Conflicts, NodeEvents};
use crate::lock::{self, LockGuard};
use crate::shared::Shared;
use crate::{Cell, EventKind, OpenOptions};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use wombat_proto::limits::CONTENTS_BYTES;
use wombat_proto::wire::{self, request::Call};
use wombat_proto::{
    Class, Error, Generation, HandleId, Instance, Instant, LockMode, Name, NodePath, Path, Result, Sequencer,
    Slot, Token,
};
use wombat_session::{Answer, Kind};

/// What is known of a node besides its contents (P§2.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stat {
    /// Greater than that of any earlier node of that name.
    pub instance: Instance,
    /// Rises with each write of a file; 1 at creation.
    pub content_generation: Generation,
    /// Rises when the lock goes from free to held.
    pub lock_generation: Generation,
    /// Rises when the ACL names change.
    pub acl_generation: Generation,
    /// xxh3-64 of the contents.
    pub checksum: u64,
    /// Bytes of contents.
    pub length: u64,
    /// How many children a directory has.
    pub children: u64,
    /// Whether it is a directory.
    pub directory: bool,
    /// Whether it vanishes when no handle has it open.
    pub ephemeral: bool,
    /// Most shared holders of its lock; 0: any number.
    pub permits: u32,
    /// When it was made, wall time in milliseconds since 1970, for people.
    pub created_wall_ms: u64,
    /// When its contents were last written, likewise.
    pub modified_wall_ms: u64,
    /// The place in the log of that write: greater than a fencing token if the write came after the grant.
    pub modified_slot: Slot,
}

/// A child of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its metadata.
    pub stat: Stat,
}

/// An open node. It is bound to the instance that it was opened as: when that is deleted every call fails
/// with [`Error::StaleHandle`], even if the name exists again. Dropping it closes the handle in the
/// background, once no guard of it is left.
pub struct Node {
    handle: Arc<OpenHandle>,
    created: bool,
    stat: Stat,
}

/// The handle itself, kept open by its node and by guards on it.
pub(crate) struct OpenHandle {
    pub(crate) cell: Cell,
    pub(crate) token: wire::Handle,
    pub(crate) path: Path,
    /// How often this client has asked to close it or to delete its node, refusals not counted: once it has, no
    /// guard of it holds anything.
    gone: AtomicUsize,
    poisoned: watch::Sender<bool>,
}

impl OpenHandle {
    pub(crate) fn shared(&self) -> &Shared {
        &self.cell.shared
    }

    /// Does a call on the handle, unless it is poisoned first: then an Acquire is taken back, and nobody knows
    /// of a change that is under way.
    pub(crate) async fn call(&self, call: Call) -> Result<Answer> {
        let mut poisoned = self.poisoned.subscribe();
        if *poisoned.borrow() {
            return Err(Error::Cancelled);
        }
        let kind = Kind::of(&call);
        let poisoned = async {
            let _while_this_borrows_it_the_sender_lives = poisoned.wait_for(|poisoned| *poisoned).await;
        };
        tokio::select! {
            biased;
            () = poisoned => Err(if kind == Kind::Change { Error::Unknown } else { Error::Cancelled }),
            answer = self.shared().call(call) => answer,
        }
    }

    /// What it hears of those who wait for its lock.
    pub(crate) fn conflicts(&self) -> Result<watch::Receiver<Conflicts>> {
        if self.token.events & EventKind::LockConflict.bit() == 0 {
            return Err(Error::invalid("the node was not opened with OpenOptions::gives_way"));
        }
        let subscriptions = self.shared().view.subscriptions.lock().expect("nobody panics with it");
        subscriptions.conflicts(HandleId(self.token.id)).ok_or(Error::SessionExpired)
    }

    /// Until when the lock that the handle holds by this grant is surely held.
    pub(crate) fn safe_until(&self, grant: Token) -> Instant {
        let view = &self.shared().view;
        match self.gone.load(Ordering::Acquire) {
            0 => {
                let revoked = view.revoked_at(HandleId(self.token.id), grant);
                revoked.map_or(view.safe_until(), |until| until.min(view.safe_until()))
            }
            _ => Instant::default(),
        }
    }

    /// Whether somebody breaks the lock that the handle holds by this grant.
    pub(crate) fn is_revoked(&self, grant: Token) -> bool {
        self.shared().view.revoked_at(HandleId(self.token.id), grant).is_some()
    }

    /// Notes, before it is so, that no lock of this handle is sure any more.
    fn give_up(&self) {
        self.gone.fetch_add(1, Ordering::AcqRel);
        self.shared().view.lease_changed.send_replace(());
    }
}

impl Drop for OpenHandle {
    fn drop(&mut self) {
        self.shared().view.forget_handle(HandleId(self.token.id));
        self.shared().forget(Call::Close(wire::Close { handle: Some(self.token) }));
    }
}

/// Opens a node by its name, which is `path` in all.
pub(crate) async fn open(
    cell: &Cell,
    directory: Option<&OpenHandle>,
    name: String,
    path: Path,
    options: OpenOptions,
) -> Result<Node> {
    let events = options.has_events();
    let open = options.into_open(directory.map(|directory| directory.token), name);
    if let Some(new) = &open.node
        && new.contents.len() > CONTENTS_BYTES
    {
        return Err(Error::contents_too_large(new.contents.len()));
    }
    let answer = match directory {
        Some(directory) => directory.call(Call::Open(open)).await?,
        None => cell.shared.call(Call::Open(open)).await?,
    };
    let Answer::Opened(opened) = answer else { return Err(unexpected()) };
    let (Some(token), Some(stat)) = (opened.handle, opened.stat) else { return Err(unexpected()) };
    let path = named(path, &opened.name);
    let (gone, poisoned) = (AtomicUsize::new(0), watch::Sender::new(false));
    let handle = OpenHandle { cell: cell.clone(), token, path, gone, poisoned };
    if events {
        let subscriptions = &cell.shared.view.subscriptions;
        subscriptions.lock().expect("nobody panics with it").open(HandleId(token.id));
    }
    Ok(Node { handle: Arc::new(handle), created: opened.created, stat: stat.into() })
}

/// The path with its last name as the cell has it: a sequential one was completed by a number.
fn named(path: Path, name: &str) -> Path {
    let above = path.node.split_last().map(|(above, _)| above);
    match (above, Name::parse(name)) {
        (Some(above), Ok(name)) => {
            Path::new(path.cell, above.names().iter().cloned().chain([name]).collect())
        }
        _ => path,
    }
}

impl Node {
    /// Its whole name.
    pub fn path(&self) -> &Path {
        &self.handle.path
    }

    /// Its instance.
    pub fn instance(&self) -> Instance {
        Instance(self.handle.token.instance)
    }

    /// Whether opening it made it.
    pub fn created(&self) -> bool {
        self.created
    }

    /// Its metadata at the time when it was opened.
    pub fn opened_stat(&self) -> &Stat {
        &self.stat
    }

    /// The contents and the metadata that belongs to them.
    ///
    /// Errors: [`Error::IsDirectory`], [`Error::StaleHandle`].
    pub async fn contents(&self) -> Result<(Bytes, Stat)> {
        let get = wire::GetContents { handle: Some(self.handle.token) };
        match self.call(Call::GetContents(get)).await? {
            Answer::Contents(wire::Contents { contents, stat: Some(stat) }) => Ok((contents, stat.into())),
            _ => Err(unexpected()),
        }
    }

    /// The metadata.
    pub async fn stat(&self) -> Result<Stat> {
        let get = wire::GetStat { handle: Some(self.handle.token) };
        self.stat_of(Call::GetStat(get)).await
    }

    /// The children of a directory, in the order of their names.
    ///
    /// Errors: [`Error::NotDirectory`].
    pub async fn list(&self) -> Result<Vec<Entry>> {
        let mut all: Vec<Entry> = Vec::new();
        loop {
            let after = all.last().map_or_else(String::new, |entry| entry.name.clone());
            let read = wire::ReadDir { handle: Some(self.handle.token), after, limit: 0 };
            let Answer::Entries(page) = self.call(Call::ReadDir(read)).await? else {
                return Err(unexpected());
            };
            let more = page.more && !page.entries.is_empty();
            all.extend(page.entries.into_iter().map(Entry::from));
            if !more {
                return Ok(all);
            }
        }
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
        let handle = Some(self.handle.token);
        let set = wire::SetContents { handle, contents, if_generation: if_generation.0 };
        self.stat_of(Call::SetContents(set)).await
    }

    /// Deletes the node. A guard of this handle is no longer safe from when it is asked for.
    ///
    /// Errors: [`Error::NotEmpty`]; [`Error::LockHeld`] while another handle holds its lock,
    /// [`Error::LockDelayed`] while its lock-delay runs.
    pub async fn delete(&self) -> Result<()> {
        self.handle.give_up();
        let deleted = self.done(Call::Delete(wire::Delete { handle: Some(self.handle.token) })).await;
        // A refusal has changed nothing. After anything else the node may be gone, and the handle goes with it.
        let refused = deleted.as_ref().is_err_and(|error| error.class() != Class::Unknown);
        if refused {
            self.handle.gone.fetch_sub(1, Ordering::AcqRel);
        }
        deleted
    }

    /// Takes the lock, waiting in line for as long as it takes.
    ///
    /// Errors: [`Error::StaleHandle`] if the node is deleted meanwhile, [`Error::BadHandle`] if the node was
    /// not opened for writing, [`Error::SequencerStale`] on a handle that is tied to a sequencer.
    pub async fn acquire(&self, mode: LockMode) -> Result<LockGuard> {
        lock::acquire(&self.handle, mode, false, Duration::ZERO).await
    }

    /// Takes the lock, waiting in line for so long at most.
    ///
    /// Errors: as [`Node::acquire`], and [`Error::Timeout`].
    pub async fn acquire_within(&self, mode: LockMode, timeout: Duration) -> Result<LockGuard> {
        match timeout.is_zero() {
            true => self.try_acquire(mode).await,
            false => lock::acquire(&self.handle, mode, false, timeout).await,
        }
    }

    /// Takes the lock if it is to be had at once.
    ///
    /// Errors: as [`Node::acquire`], and [`Error::LockHeld`], [`Error::LockDelayed`].
    pub async fn try_acquire(&self, mode: LockMode) -> Result<LockGuard> {
        lock::acquire(&self.handle, mode, true, Duration::ZERO).await
    }

    /// Ties this handle to a lock: its calls fail once the sequencer is stale (P§2.4).
    ///
    /// Errors: [`Error::SequencerStale`] if it is already.
    pub async fn set_sequencer(&self, sequencer: &Sequencer) -> Result<()> {
        let (handle, sequencer) = (Some(self.handle.token), sequencer.to_string());
        self.done(Call::SetSequencer(wire::SetSequencer { handle, sequencer })).await
    }

    /// Opens a node by its name relative to this directory, `a/b`.
    pub async fn open(&self, relative: &str, options: OpenOptions) -> Result<Node> {
        let below = NodePath::parse(relative)?;
        let path = Path::new(self.path().cell.clone(), self.path().node.extend(&below));
        open(&self.handle.cell, Some(&self.handle), relative.into(), path, options).await
    }

    /// The events that the node was opened with, from now on.
    pub fn events(&self) -> NodeEvents {
        let subscriptions = &self.handle.shared().view.subscriptions;
        let mut subscriptions = subscriptions.lock().expect("nobody panics with it");
        NodeEvents { receiver: subscriptions.listen(HandleId(self.handle.token.id)) }
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
        self.handle.poisoned.send_replace(true);
    }

    /// Closes the handle and waits until it is closed. A guard of it is no longer safe from when it is asked for.
    pub async fn close(self) -> Result<()> {
        self.handle.give_up();
        let close = Call::Close(wire::Close { handle: Some(self.handle.token) });
        done(self.handle.shared().call(close).await?)
    }

    async fn call(&self, call: Call) -> Result<Answer> {
        self.handle.call(call).await
    }

    async fn stat_of(&self, call: Call) -> Result<Stat> {
        match self.call(call).await? {
            Answer::Stat(stat) => Ok(stat.into()),
            _ => Err(unexpected()),
        }
    }

    async fn done(&self, call: Call) -> Result<()> {
        done(self.call(call).await?)
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
