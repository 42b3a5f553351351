//! A lock that stays with its session between its uses (P§2.7).

use crate::{Cell, Create, LockGuard, Node, OpenOptions};
use std::ops::Deref;
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::AbortHandle;
use wombat_proto::{LockMode, Result};

/// An exclusive lock that is kept after each use, until somebody else wants it: to take it again costs nothing
/// meanwhile, and no word to the cell. For locks that one client takes again and again, and others seldom.
///
/// Within its session it is an ordinary mutex, first come first served; clones are the same. While it is kept the
/// cell shows it as held. Whoever else wants it waits until the cell has told this session, and a use that is
/// under way has ended: somewhat longer than for a lock that is free. All uses of one grant have its token.
///
/// ```no_run
/// # use wombat_client::*;
/// # async fn update(token: Token) {}
/// # async fn example(cell: Cell) -> Result<()> {
/// let lock = KeptLock::open(&cell, "/ls/local/shards/7", OpenOptions::new()).await?;
/// loop {
///     let guard = lock.acquire().await?; // Asks the cell the first time, and when others had it since.
///     update(guard.token()).await;
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct KeptLock {
    node: Arc<Node>,
    kept: Arc<Mutex<Kept>>,
}

/// A use of a [`KeptLock`], until it is dropped.
pub struct KeptGuard {
    guard: Arc<LockGuard>,
    _turn: OwnedMutexGuard<Kept>,
}

impl Deref for KeptGuard {
    type Target = LockGuard;

    fn deref(&self) -> &LockGuard {
        &self.guard
    }
}

/// What is kept; whoever has this out of its mutex uses the lock.
#[derive(Default)]
struct Kept {
    guard: Option<Arc<LockGuard>>,
    /// Gives it back when somebody wants it.
    watcher: Option<AbortHandle>,
}

impl Kept {
    /// Gives the lock back, if there is one.
    fn give_back(&mut self) {
        if let Some(watcher) = self.watcher.take() {
            watcher.abort();
        }
        self.guard = None;
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl KeptLock {
    /// The lock of the node at `path`, a file that is made if it does not exist. Takes nothing yet.
    ///
    /// Errors: those of [`Cell::open`].
    pub async fn open(cell: &Cell, path: &str, options: OpenOptions) -> Result<KeptLock> {
        let node = cell.open(path, options.write().create(Create::May).gives_way()).await?;
        Ok(KeptLock { node: Arc::new(node), kept: Arc::default() })
    }

    /// Takes the lock, waiting for those of this session that came before, and for others as long as it takes.
    ///
    /// Errors: those of [`Node::acquire`].
    pub async fn acquire(&self) -> Result<KeptGuard> {
        let mut turn = Arc::clone(&self.kept).lock_owned().await;
        if let Some(guard) = turn.guard.as_ref().filter(|guard| guard.is_safe() && !guard.is_revoked()) {
            return Ok(KeptGuard { guard: Arc::clone(guard), _turn: turn });
        }
        turn.give_back();
        let guard = Arc::new(self.node.acquire(LockMode::Exclusive).await?);
        turn.guard = Some(Arc::clone(&guard));
        turn.watcher = Some(self.give_way(Arc::clone(&guard)));
        Ok(KeptGuard { guard, _turn: turn })
    }

    /// Sees to it that the lock is given back, after the use that is under way, when somebody wants it.
    fn give_way(&self, guard: Arc<LockGuard>) -> AbortHandle {
        let kept = Arc::downgrade(&self.kept);
        let watch = async move {
            // Also if it cannot be told any more: then nobody holds it for sure.
            let _wanted_or_lost = guard.wanted().await;
            drop(guard);
            if let Some(kept) = kept.upgrade() {
                let mut turn = kept.lock().await;
                // Not this task, which is at its end.
                turn.watcher = None;
                turn.give_back();
            }
        };
        tokio::spawn(watch).abort_handle()
    }
}
