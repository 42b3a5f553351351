//! A lock that is held, and for how long that is sure.

use crate::answer::unexpected;
use crate::events::Conflicts;
use crate::handle::OpenHandle;
use crate::listings;
use crate::time;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use wombat_proto::wire::{self, request::Call};
use wombat_proto::{Error, Instant, LockMode, Result, Sequencer, Token, clock};
use wombat_session::Answer;

/// A held lock. Dropping it releases the lock in the background.
///
/// The lock is sure until [`LockGuard::safe_until`], which moves on with every KeepAlive; when the cell cannot
/// be reached it stands still, and whoever works under the lock must have stopped by then. To be safe also
/// against pauses that nobody notices, pass the [`LockGuard::sequencer`] along with the work.
pub struct LockGuard {
    handle: Arc<OpenHandle>,
    sequencer: Sequencer,
    /// How often, when it was last sure of it, the handle had missed a word about those who wait.
    missed: AtomicU64,
    released: bool,
}

/// The lock was about to be lost, and what ran under it was stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost;

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the lock was about to be lost")
    }
}

impl std::error::Error for Lost {}

pub(crate) async fn acquire(
    handle: &Arc<OpenHandle>,
    mode: LockMode,
    only_try: bool,
    timeout: Duration,
    clears_contents: bool,
) -> Result<LockGuard> {
    handle.spoil();
    let acquire = wire::Acquire {
        handle: Some(handle.token()),
        shared: mode == LockMode::Shared,
        r#try: only_try,
        // A wait shorter than a millisecond is still a wait; 0 would wait for ever.
        timeout_ms: if timeout.is_zero() {
            0
        } else {
            u64::try_from(timeout.as_millis().max(1)).unwrap_or(u64::MAX)
        },
        waited_ms: 0,
        clears_contents,
    };
    // From before it is asked for: between the grant and its answer there may be a fail-over.
    let missed = handle.conflicts().map_or(0, |conflicts| conflicts.borrow().missed);
    let sequencer = match handle.call(Call::Acquire(acquire)).await? {
        Answer::Granted(granted) => granted.sequencer.parse().map_err(|_| unexpected()),
        _ => Err(unexpected()),
    };
    match sequencer {
        Ok(sequencer) => {
            let (handle, missed) = (Arc::clone(handle), AtomicU64::new(missed));
            Ok(LockGuard { handle, sequencer, missed, released: false })
        }
        Err(error) => {
            // Whatever the server meant, nobody will use a lock that it may have given.
            handle.shared().forget(release(handle));
            Err(error)
        }
    }
}

fn release(handle: &OpenHandle) -> Call {
    Call::Release(wire::Release { handle: Some(handle.token()) })
}

impl LockGuard {
    /// The proof of the lock for the services that its holder talks to (P§2.4).
    pub fn sequencer(&self) -> &Sequencer {
        &self.sequencer
    }

    /// The fencing token: greater than that of every earlier grant of this name.
    pub fn token(&self) -> Token {
        self.sequencer.token
    }

    /// How the lock is held.
    pub fn mode(&self) -> LockMode {
        self.sequencer.mode
    }

    /// Until when, by [`crate::now`], the lock is surely held. In the past once the session is lost. An
    /// administrator who breaks the lock leaves a few seconds of it.
    pub fn safe_until(&self) -> Instant {
        self.handle.safe_until(self.token())
    }

    /// Whether somebody breaks the lock: it is sure for a few seconds more at most, time to stop.
    pub fn is_revoked(&self) -> bool {
        self.handle.is_revoked(self.token())
    }

    /// Whether the lock is surely held now.
    pub fn is_safe(&self) -> bool {
        clock::now() < self.safe_until()
    }

    /// Waits until [`LockGuard::safe_until`] is something else than `known`, and returns it: for whoever stops
    /// the work under the lock from outside this program.
    pub async fn safe_until_changed(&self, known: Instant) -> Instant {
        let mut changed = self.handle.shared().view.lease_changed.subscribe();
        loop {
            let safe_until = self.safe_until();
            if safe_until != known {
                return safe_until;
            }
            if changed.changed().await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Waits until the lock is no longer surely held.
    pub async fn lost(&self) {
        self.unsafe_within(Duration::ZERO).await;
    }

    /// Waits until the lock is surely held for no longer than `margin`: time to stop what runs under it.
    pub async fn unsafe_within(&self, margin: Duration) {
        let mut changed = self.handle.shared().view.lease_changed.subscribe();
        loop {
            let end = self.safe_until() - margin;
            if clock::now() >= end {
                return;
            }
            tokio::select! {
                () = time::sleep_until(end) => {}
                _ = changed.changed() => {}
            }
        }
    }

    /// Runs a task while the lock is surely held, and stops it, by dropping it, when it is so for no longer than
    /// `margin`. The margin has to cover the longest stretch that the task goes without awaiting anything, and
    /// to stay well below half of the session lease, which is left after a fail-over.
    ///
    /// Errors: [`Lost`] if the task was stopped, or not begun.
    ///
    /// ```no_run
    /// # use wombat_client::*;
    /// # use std::time::Duration;
    /// # async fn work() -> u32 { 7 }
    /// # async fn example(guard: LockGuard) {
    /// match guard.run(Duration::from_secs(1), work()).await {
    ///     Ok(result) => println!("done: {result}"),
    ///     Err(Lost) => println!("stopped in time; someone else may go on with it"),
    /// }
    /// # }
    /// ```
    pub async fn run<T>(
        &self,
        margin: Duration,
        task: impl Future<Output = T>,
    ) -> std::result::Result<T, Lost> {
        tokio::select! {
            biased;
            () = self.unsafe_within(margin) => Err(Lost),
            done = task => Ok(done),
        }
    }

    /// Waits until somebody waits for the lock whom this guard keeps from it, so that a holder who could as
    /// well go on later gives way. From then on it returns at once, also if that one has given up since. The
    /// node must have been opened with [`crate::OpenOptions::gives_way`].
    ///
    /// It does not matter whether they came before this was called, or before the lock was granted; and where
    /// the word about them may have been missed, at a fail-over or in a [`crate::EventKind::Gap`], it asks the
    /// cell. A master that follows another hears of them again, and tells again.
    ///
    /// Errors: [`Error::InvalidArgument`] if the node was not opened so, [`Error::SessionExpired`].
    ///
    /// ```no_run
    /// # use wombat_client::*;
    /// # async fn some_of_the_work() {}
    /// # async fn example(cell: Cell) -> Result<()> {
    /// let node = cell.open("/ls/local/batch", OpenOptions::new().write().gives_way()).await?;
    /// loop {
    ///     let guard = node.acquire(LockMode::Exclusive).await?;
    ///     while tokio::select! { wanted = guard.wanted() => { wanted?; false } () = some_of_the_work() => true } {}
    ///     guard.release().await?; // And to the end of the line.
    /// }
    /// # }
    /// ```
    pub async fn wanted(&self) -> Result<()> {
        let mut conflicts = self.handle.conflicts()?;
        loop {
            let Conflicts { told, missed } = *conflicts.borrow_and_update();
            // What was told before the grant was about an earlier one.
            if told.0 >= self.token().0 {
                return Ok(());
            }
            if missed != self.missed.load(Ordering::Relaxed) && self.is_waited_for().await? {
                return Ok(());
            }
            self.missed.store(missed, Ordering::Relaxed);
            conflicts.changed().await.map_err(|_| Error::SessionExpired)?;
        }
    }

    /// Whether the cell knows of somebody who waits. Whoever comes later it will tell of.
    async fn is_waited_for(&self) -> Result<bool> {
        // It tells only the handles that it knows, and a new master knows this one when it has seen it.
        let stat = Call::GetStat(wire::GetStat { handle: Some(self.handle.token()) });
        self.handle.shared().call(stat).await?;
        let path = self.handle.path().to_string();
        let locks = listings::locks(self.handle.shared(), path.clone()).await?;
        Ok(locks.iter().any(|lock| lock.path == path && lock.waiting > 0))
    }

    /// Releases the lock, and waits until it is free.
    ///
    /// Errors: [`crate::Error::NotHeld`] if it was lost before.
    pub async fn release(mut self) -> Result<()> {
        self.released = true;
        match self.handle.shared().call(release(&self.handle)).await? {
            Answer::Done(_) => Ok(()),
            _ => Err(unexpected()),
        }
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if !self.released {
            self.handle.shared().forget(release(&self.handle));
        }
    }
}

impl std::fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LockGuard").field(&self.sequencer.to_string()).finish()
    }
}
