//! So many at a time: a lock whose shared holders are counted (SPEC §4).

use crate::{Cell, Create, LockGuard, Node, OpenOptions};
use std::time::Duration;
use wombat_proto::limits::SHARED_HOLDERS;
use wombat_proto::{Error, LockMode, Result};

/// A number of permits, at a file that is made if it does not exist. Each guard is one permit; it goes back
/// when it is released or dropped, or when its session ends. Who waits is served first come, first served.
///
/// The cell counts, so there are never more holders than permits, and no permit leaks.
///
/// ```no_run
/// # use wombat_client::*;
/// # async fn example(cell: Cell) -> Result<()> {
/// let downloads = Semaphore::new(&cell, "/ls/local/downloads", 3);
/// let permit = downloads.acquire().await?; // At most three of these, everywhere.
/// permit.release().await
/// # }
/// ```
#[derive(Clone)]
pub struct Semaphore {
    cell: Cell,
    path: String,
    permits: u32,
}

impl Semaphore {
    /// The semaphore at `path`, with so many permits.
    pub fn new(cell: &Cell, path: &str, permits: u32) -> Semaphore {
        Semaphore { cell: cell.clone(), path: path.into(), permits }
    }

    /// Takes a permit, waiting in line for as long as it takes.
    ///
    /// Errors: [`Error::InvalidArgument`] if the file exists with another number of permits, and those of
    /// [`Node::acquire`].
    pub async fn acquire(&self) -> Result<LockGuard> {
        self.open().await?.acquire(LockMode::Shared).await
    }

    /// Takes a permit, waiting in line for so long at most.
    ///
    /// Errors: as [`Semaphore::acquire`], and [`Error::Timeout`].
    pub async fn acquire_within(&self, timeout: Duration) -> Result<LockGuard> {
        self.open().await?.acquire_within(LockMode::Shared, timeout).await
    }

    /// Takes a permit if one is to be had at once.
    ///
    /// Errors: as [`Semaphore::acquire`], and [`Error::LockHeld`].
    pub async fn try_acquire(&self) -> Result<LockGuard> {
        self.open().await?.try_acquire(LockMode::Shared).await
    }

    /// A handle of its own for each permit, since a handle holds a lock once.
    async fn open(&self) -> Result<Node> {
        if !(1..=SHARED_HOLDERS).contains(&(self.permits as usize)) {
            return Err(Error::invalid(format!("a semaphore has 1 to {SHARED_HOLDERS} permits")));
        }
        let options = OpenOptions::new().write().create(Create::May).permits(self.permits);
        let node = self.cell.open(&self.path, options).await?;
        match node.opened_stat().permits {
            permits if permits == self.permits => Ok(node),
            0 => Err(Error::invalid(format!("{} exists and is no semaphore", node.path()))),
            permits => {
                let what = format!("{} exists with {permits} permits, not {}", node.path(), self.permits);
                Err(Error::invalid(what))
            }
        }
    }
}
