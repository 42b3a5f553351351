//! A handle of the cell, as its node and its guards have it (P§2.6), and how it is come by.

use crate::answer::unexpected;
use crate::cache::{Opening, Reading, Slot, WireHandle};
use crate::consistency::Consistency;
use crate::events::Conflicts;
use crate::options::OpenOptions;
use crate::shared::Shared;
use crate::stat::Stat;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::watch;
use tokio::task::coop;
use wombat_proto::limits::CONTENTS_BYTES;
use wombat_proto::wire::event::Kind as EventKind;
use wombat_proto::wire::{self, request::Call};
use wombat_proto::{Error, HandleId, Instant, Name, Path, Result, Token};
use wombat_session::{Answer, Kind};

/// An open handle, kept so by its node and by guards on it.
pub(crate) struct OpenHandle {
    session: Arc<Shared>,
    /// The cell's part of it. When nobody has this open any more, it may be kept for somebody else.
    wire: Arc<WireHandle>,
    /// How often this client has asked to close it or to delete its node, refusals not counted: once it has, no
    /// guard of it holds anything.
    gone: AtomicUsize,
    poisoned: watch::Sender<bool>,
    /// Whether only the cell can tell if a read may be answered: the handle is poisoned, or tied to a sequencer.
    must_ask: AtomicBool,
}

impl OpenHandle {
    fn new(session: &Arc<Shared>, wire: Arc<WireHandle>) -> Arc<OpenHandle> {
        Arc::new(OpenHandle {
            session: Arc::clone(session),
            wire,
            gone: AtomicUsize::new(0),
            poisoned: watch::Sender::new(false),
            must_ask: AtomicBool::new(false),
        })
    }

    /// Its session.
    pub(crate) fn session(&self) -> &Arc<Shared> {
        &self.session
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.session
    }

    /// What the cell gave.
    pub(crate) fn token(&self) -> wire::Handle {
        self.wire.token
    }

    pub(crate) fn id(&self) -> HandleId {
        HandleId(self.wire.token.id)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.wire.path
    }

    /// Where readers find what is cached of its node, unless the cell has to be asked.
    pub(crate) fn slot(&self) -> Option<&Slot> {
        (!self.must_ask.load(Ordering::Acquire)).then_some(&*self.wire.slot)
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

    /// Does a call that is answered with the metadata of its node.
    pub(crate) async fn stat_of(&self, call: Call) -> Result<Stat> {
        match self.call(call).await? {
            Answer::Stat(stat) => Ok(stat.into()),
            _ => Err(unexpected()),
        }
    }

    /// The contents, if they can be told without asking the cell.
    pub(crate) fn peek(&self) -> Option<Reading> {
        self.session.store.contents(self.slot()?)
    }

    /// What it hears of those who wait for its lock.
    pub(crate) fn conflicts(&self) -> Result<watch::Receiver<Conflicts>> {
        if self.wire.token.events & EventKind::LockConflict.bit() == 0 {
            return Err(Error::invalid("the node was not opened with OpenOptions::gives_way"));
        }
        let subscriptions = self.shared().view.subscriptions.lock().expect("nobody panics with it");
        subscriptions.conflicts(self.id()).ok_or(Error::SessionExpired)
    }

    /// Until when the lock that the handle holds by this grant is surely held.
    pub(crate) fn safe_until(&self, grant: Token) -> Instant {
        let view = &self.shared().view;
        match self.gone.load(Ordering::Acquire) {
            0 => {
                let revoked = view.revoked_at(self.id(), grant);
                revoked.map_or(view.safe_until(), |until| until.min(view.safe_until()))
            }
            _ => Instant::default(),
        }
    }

    /// Whether somebody breaks the lock that the handle holds by this grant.
    pub(crate) fn is_revoked(&self, grant: Token) -> bool {
        self.shared().view.revoked_at(self.id(), grant).is_some()
    }

    /// Nobody else will use it after this.
    pub(crate) fn spoil(&self) {
        self.wire.spoil();
    }

    /// Whether it is kept, instead of closed, when nobody has it open any more.
    pub(crate) fn is_to_keep(&self) -> bool {
        self.wire.is_to_keep()
    }

    /// Its calls may fail from now on for a reason that only the cell knows.
    pub(crate) fn ask_always(&self) {
        self.spoil();
        self.must_ask.store(true, Ordering::Release);
    }

    /// Ends the calls on it that have not ended, and all later ones.
    pub(crate) fn poison(&self) {
        self.ask_always();
        self.poisoned.send_replace(true);
    }

    /// Its lock, if it holds one, is what it was before [`OpenHandle::give_up`].
    pub(crate) fn take_back(&self) {
        self.gone.fetch_sub(1, Ordering::AcqRel);
    }

    /// Notes, before it is so, that no lock of this handle is sure any more.
    pub(crate) fn give_up(&self) {
        self.gone.fetch_add(1, Ordering::AcqRel);
        self.shared().view.lease_changed.send_replace(());
    }
}

impl Drop for OpenHandle {
    fn drop(&mut self) {
        if let Some(handle) = self.shared().store.put_away(&self.wire) {
            self.shared().view.forget_handle(HandleId(handle.token.id));
            self.shared().forget(handle.close());
        }
    }
}

impl std::fmt::Debug for OpenHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenHandle").field("path", self.path()).field("id", &self.id()).finish()
    }
}

/// A node that was opened.
pub(crate) struct Opened {
    pub(crate) handle: Arc<OpenHandle>,
    /// Whether opening it made it.
    pub(crate) created: bool,
    /// As it was then.
    pub(crate) stat: Stat,
}

/// Opens a node by its name, which is `path` in all.
pub(crate) async fn open(
    session: &Arc<Shared>,
    directory: Option<&OpenHandle>,
    name: String,
    path: Path,
    options: OpenOptions,
) -> Result<Opened> {
    let (events, cached) = (options.has_events(), options.consistency == Consistency::Cached);
    let open = options.into_open(directory.map(OpenHandle::token), name);
    if let Some(new) = &open.node
        && new.contents.len() > CONTENTS_BYTES
    {
        return Err(Error::contents_too_large(new.contents.len()));
    }
    if let Some(opening) = Opening::of(&open).filter(|_| cached) {
        coop::consume_budget().await;
        match session.store.open(&opening) {
            Some(Ok((wire, stat))) => {
                let handle = OpenHandle::new(session, wire);
                return Ok(Opened { handle, created: false, stat: stat.into() });
            }
            Some(Err(absent)) => return Err(absent),
            None => session.store.missed(),
        }
    }
    let opened = match ask(session, directory, open.clone()).await {
        // Handles that are kept for nobody in particular make room.
        Err(Error::QuotaExceeded { .. }) if session.close_kept() => ask(session, directory, open).await?,
        opened => opened?,
    };
    let (Some(token), Some(stat)) = (opened.handle, opened.stat) else { return Err(unexpected()) };
    let wire = session.store.opened(token, named(path, &opened.name), stat.ephemeral);
    if events {
        let subscriptions = &session.view.subscriptions;
        subscriptions.lock().expect("nobody panics with it").open(HandleId(token.id));
    }
    let handle = OpenHandle::new(session, wire);
    Ok(Opened { handle, created: opened.created, stat: stat.into() })
}

async fn ask(session: &Shared, directory: Option<&OpenHandle>, open: wire::Open) -> Result<wire::Opened> {
    let answer = match directory {
        Some(directory) => directory.call(Call::Open(open)).await?,
        None => session.call(Call::Open(open)).await?,
    };
    match answer {
        Answer::Opened(opened) => Ok(opened),
        _ => Err(unexpected()),
    }
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
