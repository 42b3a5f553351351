//! A gate: everyone waits while a node exists.

use crate::{Cell, Create, EventKind, OpenOptions};
use wombat_proto::{Error, Result};

/// A gate that is shut while a permanent node exists, made here or by somebody else. Whoever comes to it waits
/// until the node is gone.
///
/// ```no_run
/// # use wombat_client::*;
/// # async fn example(cell: Cell) -> Result<()> {
/// let migration = Gate::new(&cell, "/ls/local/migrating");
/// migration.shut().await?;
/// // Elsewhere, `migration.pass().await?` waits, until here:
/// migration.open().await
/// # }
/// ```
#[derive(Clone)]
pub struct Gate {
    cell: Cell,
    path: String,
}

impl Gate {
    /// The gate at `path`. As long as there is no such node, it is open.
    pub fn new(cell: &Cell, path: &str) -> Gate {
        Gate { cell: cell.clone(), path: path.into() }
    }

    /// Shuts it, if it is not shut already. It stays so, whatever becomes of this client.
    pub async fn shut(&self) -> Result<()> {
        self.cell.open(&self.path, OpenOptions::new().write().create(Create::May)).await.map(drop)
    }

    /// Opens it, if it is not open already: all who wait pass.
    pub async fn open(&self) -> Result<()> {
        let opened = match self.cell.open(&self.path, OpenOptions::new().write()).await {
            Ok(node) => node.delete().await,
            Err(error) => Err(error),
        };
        match opened {
            Err(Error::NotFound { .. } | Error::StaleHandle) => Ok(()),
            other => other,
        }
    }

    /// Waits until it is open, or was for a moment: who waits passes, even if it is shut again at once.
    ///
    /// Errors: [`Error::InvalidArgument`] if the node is ephemeral, because whoever waits here has it open, and
    /// so keeps it there; [`crate::Membership`] waits for the end of others.
    pub async fn pass(&self) -> Result<()> {
        let options = OpenOptions::new().events(&[EventKind::HandleInvalid]);
        let node = match self.cell.open(&self.path, options).await {
            Err(Error::NotFound { .. }) => return Ok(()),
            opened => opened?,
        };
        if node.opened_stat().ephemeral {
            let what = format!("{} is ephemeral, and would stay while it is waited for", node.path());
            return Err(Error::invalid(what));
        }
        let mut events = node.events();
        loop {
            match node.stat().await {
                Err(Error::StaleHandle) => return Ok(()),
                there => drop(there?),
            }
            events.recv().await.ok_or(Error::SessionExpired)?;
        }
    }
}
