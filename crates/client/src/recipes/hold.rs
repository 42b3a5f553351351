//! Run this wherever the lock is, for as long as it is there.

use crate::{Cell, LockGuard, Lost, OpenOptions};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use wombat_proto::{Instant, LockMode, Result};

/// Runs a task whenever this session holds the lock at `path`, again and again until it says that it is done.
/// It is stopped, by being dropped, when the lock is sure for no longer than `margin`, as [`LockGuard::run`]
/// does it; then it waits for its turn again. [`ControlFlow::Continue`] gives the lock to whoever waits, and
/// goes to the end of the line.
///
/// Errors: those of [`Cell::open`] and of [`crate::Node::acquire`]; [`crate::Error::SessionExpired`] if the
/// session is lost, which takes a new [`Cell`] to go on.
///
/// ```no_run
/// # use wombat_client::*;
/// # use std::{ops::ControlFlow, time::Duration};
/// # async fn serve() {}
/// # async fn example(cell: Cell) -> Result<()> {
/// let options = OpenOptions::new().write().create(Create::May).gives_way();
/// let second = Duration::from_secs(1);
/// let done = hold(&cell, "/ls/local/primary", &options, second, |guard| async move {
///     println!("primary, token {}", guard.token());
///     tokio::select! {
///         () = serve() => ControlFlow::Break("finished"),
///         _ = guard.wanted() => ControlFlow::Continue(()),
///     }
/// });
/// println!("{}", done.await?);
/// # Ok(())
/// # }
/// ```
pub async fn hold<T, F: Future<Output = ControlFlow<T>>>(
    cell: &Cell,
    path: &str,
    options: &OpenOptions,
    margin: Duration,
    mut task: impl FnMut(Arc<LockGuard>) -> F,
) -> Result<T> {
    loop {
        let node = cell.open(path, options.clone()).await?;
        let guard = Arc::new(node.acquire(LockMode::Exclusive).await?);
        let ended = guard.run(margin, task(Arc::clone(&guard))).await;
        // It takes the lock back even from a guard that the task has given away.
        let closed = node.close().await;
        match ended {
            Ok(ControlFlow::Break(done)) => return Ok(done),
            Ok(ControlFlow::Continue(())) => closed?,
            Err(Lost) => {
                closed?;
                lease_moves_on(cell).await;
            }
        }
    }
}

/// Waits until the lease of the session is another one than now, so that with a margin that is longer than what
/// is left the lock is not taken and given back without end. At once if the session is lost.
async fn lease_moves_on(cell: &Cell) {
    let mut changed = cell.shared.view.lease_changed.subscribe();
    if cell.safe_until() != Instant::default() {
        let _its_sender_is_the_cell_s = changed.changed().await;
    }
}
