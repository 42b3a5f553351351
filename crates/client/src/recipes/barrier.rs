//! A double barrier: nobody begins before all are there, nobody goes on before all have finished.

use crate::events::NodeEvents;
use crate::{Cell, Create, Entry, EventKind, Node, OpenOptions};
use std::collections::BTreeSet;
use wombat_proto::{Error, Generation, Instance, Result, Slot};

/// The file in the barrier's directory that is written each time that enough are there.
const OPENED: &str = ".opened";

/// A barrier for so many parties, at a directory that is made if it does not exist. It can be used again and
/// again.
///
/// Each party has an ephemeral file in the directory, so one that dies does not count: before all are there
/// another may take its place, and afterwards nobody waits for it for longer than its lease. Whoever sees that
/// enough are there writes the file `.opened` in it, and all pass whose files are older than that: also one
/// that looks so late that others have left already.
///
/// ```no_run
/// # use wombat_client::*;
/// # async fn compute() {}
/// # async fn example(cell: Cell) -> Result<()> {
/// let barrier = Barrier::new(&cell, "/ls/local/rounds", 3);
/// loop {
///     let inside = barrier.enter().await?; // Waits until three are there.
///     compute().await;
///     inside.leave().await?; // Waits until all three have finished.
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct Barrier {
    cell: Cell,
    path: String,
    parties: usize,
}

/// A party that has passed the barrier. Dropping it leaves without waiting for the others.
pub struct Inside {
    directory: Node,
    events: NodeEvents,
    /// Its file.
    place: Node,
}

impl Barrier {
    /// The barrier at `path`, for so many parties.
    pub fn new(cell: &Cell, path: &str, parties: usize) -> Barrier {
        Barrier { cell: cell.clone(), path: path.into(), parties }
    }

    /// Waits until enough parties are there. One more that comes while enough are inside passes at once.
    ///
    /// If the future is dropped it was never there.
    pub async fn enter(&self) -> Result<Inside> {
        let kinds = [EventKind::ChildAdded, EventKind::ChildRemoved, EventKind::ChildModified];
        let options = OpenOptions::new().create(Create::May).directory().events(&kinds);
        let directory = self.cell.open(&self.path, options).await?;
        let mut events = directory.events();
        let gate = directory.open(OPENED, OpenOptions::new().write().create(Create::May)).await?;
        let name = format!("{}-{}", self.cell.session().0, self.cell.shared.ticket());
        let place = OpenOptions::new().create(Create::Must).ephemeral();
        let place = directory.open(&name, place).await?;
        loop {
            let entries = directory.list().await?;
            if is_before(place.instance(), opened(&entries)) {
                break;
            }
            if parties(&entries).count() >= self.parties {
                gate.set("").await?;
                break;
            }
            look_again(&mut events).await?;
        }
        Ok(Inside { directory, events, place })
    }
}

impl Inside {
    /// Leaves, and waits until all others who were inside then have left or died.
    pub async fn leave(self) -> Result<()> {
        let Inside { directory, mut events, place } = self;
        let entries = directory.list().await?;
        let opened = opened(&entries);
        // Who waits for the next time is not waited for.
        let inside = parties(&entries).filter(|party| is_before(*party, opened));
        let mut others: BTreeSet<Instance> = inside.filter(|party| *party != place.instance()).collect();
        place.close().await?;
        while !others.is_empty() {
            look_again(&mut events).await?;
            let there: BTreeSet<Instance> = parties(&directory.list().await?).collect();
            others.retain(|party| there.contains(party));
        }
        Ok(())
    }
}

/// The parties that are there.
fn parties(entries: &[Entry]) -> impl Iterator<Item = Instance> {
    entries.iter().filter(|entry| entry.stat.ephemeral).map(|entry| entry.stat.instance)
}

/// When the barrier was opened last, if it ever was.
fn opened(entries: &[Entry]) -> Option<Slot> {
    let gate = entries.iter().find(|entry| entry.name == OPENED)?;
    (gate.stat.content_generation > Generation(1)).then_some(gate.stat.modified_slot)
}

/// Whether a party came before the barrier was opened, and so may pass.
fn is_before(party: Instance, opened: Option<Slot>) -> bool {
    opened.is_some_and(|opened| party.0 < opened.0)
}

/// Waits for anything to have changed.
async fn look_again(events: &mut NodeEvents) -> Result<()> {
    events.recv().await.ok_or(Error::SessionExpired)?;
    events.skip();
    Ok(())
}
