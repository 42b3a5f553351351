//! A lock that is held, and for how long that is sure.

use crate::convert::unexpected;
use crate::node::OpenHandle;
use crate::time;
use std::sync::Arc;
use std::time::Duration;
use wombat_proto::wire::{self, request::Call};
use wombat_proto::{Instant, LockMode, Result, Sequencer, Token, clock};
use wombat_session::Answer;

/// A held lock. Dropping it releases the lock in the background.
///
/// The lock is sure until [`LockGuard::safe_until`], which moves on with every KeepAlive; when the cell cannot
/// be reached it stands still, and whoever works under the lock must have stopped by then. To be safe also
/// against pauses that nobody notices, pass the [`LockGuard::sequencer`] along with the work.
pub struct LockGuard {
    handle: Arc<OpenHandle>,
    sequencer: Sequencer,
    released: bool,
}

pub(crate) async fn acquire(
    handle: &Arc<OpenHandle>,
    mode: LockMode,
    only_try: bool,
    timeout: Duration,
) -> Result<LockGuard> {
    let acquire = wire::Acquire {
        handle: Some(handle.token),
        shared: mode == LockMode::Shared,
        r#try: only_try,
        // A wait shorter than a millisecond is still a wait; 0 would wait for ever.
        timeout_ms: if timeout.is_zero() {
            0
        } else {
            u64::try_from(timeout.as_millis().max(1)).unwrap_or(u64::MAX)
        },
        waited_ms: 0,
    };
    let sequencer = match handle.shared().acquire(Call::Acquire(acquire)).await? {
        Answer::Granted(granted) => granted.sequencer.parse().map_err(|_| unexpected()),
        _ => Err(unexpected()),
    };
    match sequencer {
        Ok(sequencer) => Ok(LockGuard { handle: Arc::clone(handle), sequencer, released: false }),
        Err(error) => {
            // Whatever the server meant, nobody will use a lock that it may have given.
            handle.shared().forget(release(handle));
            Err(error)
        }
    }
}

fn release(handle: &OpenHandle) -> Call {
    Call::Release(wire::Release { handle: Some(handle.token) })
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
