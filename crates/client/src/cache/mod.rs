//! The cache as readers see it (P§2.7): what the session's task has published, found without a lock.
//!
//! A reader may be stopped between any two of its steps, so they stand in this order and no other: it looks at the
//! lease, then at the entry, then at the clock, and uses the entry if the lease was still good. Then the entry was
//! true when it looked at it: it was there, so the master had not heard that it is gone, and the lease lasted, so
//! the master had not stopped waiting to hear that.

mod paths;
mod reading;
mod shelf;
mod slot;
mod stripes;
#[cfg(test)]
mod tests;

pub use reading::Reading;
pub(crate) use shelf::{LOOK_EVERY, WireHandle};
pub(crate) use slot::Slot;

use paths::{AtPath, Paths};
use shelf::Shelf;
use slot::Slots;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use stripes::Stripes;
use wombat_proto::limits::LOCK_DELAY;
use wombat_proto::wire::open::Create;
use wombat_proto::{Instance, Path, Result, clock, wire};
use wombat_session::{CacheChange, Cached, CachedAbsence, Mark, Place};

/// Buckets for the paths that lead nowhere.
const ABSENCE_BUCKETS: usize = 4096;

/// How the cache of a session is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CacheStats {
    /// Reads and opens that were answered from it.
    pub hits: u64,
    /// Those that it could not answer, and the cell was asked.
    pub misses: u64,
    /// What there is: nodes, listings, paths that lead nowhere.
    pub entries: usize,
    /// What that weighs.
    pub bytes: usize,
    /// How often the cell has taken something away.
    pub invalidations: u64,
    /// How many entries gave way to others.
    pub evictions: u64,
    /// Handles that are kept open for the next who opens their nodes.
    pub kept_handles: usize,
    /// Whether what there is may be used now: the cache lease lasts.
    pub is_live: bool,
}

/// What readers may use.
pub(crate) struct Store {
    is_on: bool,
    lease: Lease,
    slots: Arc<Slots>,
    absences: Paths<CachedAbsence>,
    shelf: Shelf,
    hits: Stripes,
    misses: AtomicU64,
    /// How the session's cache was, as its task last saw it.
    session: Mutex<wombat_session::CacheStats>,
}

/// The cache lease. Written once a KeepAlive, read all the time.
#[repr(align(128))]
#[derive(Default)]
struct Lease {
    /// Which entries it speaks of.
    era: AtomicU64,
    /// When it ends, in nanoseconds; 0: there is none.
    until: AtomicU64,
}

/// What a reader saw of the lease, before it looks at the entry.
#[derive(Clone, Copy)]
struct Glance {
    era: u64,
    until: u64,
}

impl Lease {
    fn glance(&self) -> Glance {
        // The era first: with the lease of the next one, nothing of this is left to be found.
        let era = self.era.load(Ordering::Acquire);
        Glance { era, until: self.until.load(Ordering::Acquire) }
    }
}

impl Glance {
    /// Whether the entry with this mark was true when it was looked at, just now.
    fn covers(self, mark: &Mark) -> bool {
        clock::now().as_nanos() < self.until && mark.era() == self.era
    }
}

/// An Open that the cache may be able to answer.
pub(crate) struct Opening<'a> {
    path: &'a str,
    mode: u32,
    lock_delay_ms: u32,
    /// Of a node that may be made: whether it is a directory. `None`: none is made.
    directory: Option<bool>,
    /// Whether the handle is to hear of nothing: another's may do.
    plain: bool,
}

impl Opening<'_> {
    /// What there is to look for; `None` if only the cell can tell what comes of it.
    pub(crate) fn of(open: &wire::Open) -> Option<Opening<'_>> {
        let sensible =
            |node: &&wire::NewNode| !node.ephemeral && (!node.directory || node.contents.is_empty());
        let directory = match open.create() {
            Create::Never => None,
            Create::May => Some(open.node.as_ref().filter(sensible)?.directory),
            Create::Must => return None,
        };
        let allowed = Duration::from_millis(open.lock_delay_ms.into()) <= LOCK_DELAY;
        (allowed && open.directory.is_none()).then_some(Opening {
            path: &open.path,
            mode: open.mode,
            lock_delay_ms: open.lock_delay_ms,
            directory,
            plain: open.events == 0,
        })
    }
}

impl AtPath for CachedAbsence {
    fn path(&self) -> &str {
        &self.path
    }
}

impl Store {
    pub(crate) fn new(is_on: bool) -> Store {
        Store {
            is_on,
            lease: Lease::default(),
            slots: Arc::default(),
            absences: Paths::new(ABSENCE_BUCKETS),
            shelf: Shelf::new(),
            hits: Stripes::default(),
            misses: AtomicU64::new(0),
            session: Mutex::default(),
        }
    }

    /// Looks at an entry, and returns it if it is true now.
    fn look<T>(&self, load: impl FnOnce() -> Option<T>, mark: impl FnOnce(&T) -> &Mark) -> Option<T> {
        let glance = self.lease.glance();
        let entry = load()?;
        let mark = mark(&entry);
        if !glance.covers(mark) {
            return None;
        }
        mark.touch();
        self.hits.add();
        Some(entry)
    }

    /// The contents of a node.
    pub(crate) fn contents(&self, slot: &Slot) -> Option<Reading> {
        let node = || {
            Some(slot.node.load()).filter(|node| node.as_ref().is_some_and(|node| node.contents.is_some()))
        };
        self.look(node, |node| &node.as_ref().expect("checked").mark).map(Reading::cached)
    }

    /// The metadata of a node.
    pub(crate) fn stat(&self, slot: &Slot) -> Option<wire::Stat> {
        let node = || Some(slot.node.load()).filter(|node| node.is_some());
        let node = self.look(node, |node| &node.as_ref().expect("checked").mark)?;
        node.as_ref().map(|node| node.stat)
    }

    /// The children of a directory.
    pub(crate) fn listing<T>(&self, slot: &Slot, read: impl FnOnce(&[wire::Entry]) -> T) -> Option<T> {
        let listing = || Some(slot.listing.load()).filter(|listing| listing.is_some());
        let listing = self.look(listing, |listing| &listing.as_ref().expect("checked").mark)?;
        listing.as_ref().map(|listing| read(&listing.entries))
    }

    /// What opening a node comes to: an error because it is not there, or a handle that was kept, which is the
    /// caller's until it puts it away again.
    pub(crate) fn open(&self, opening: &Opening<'_>) -> Option<Result<(Arc<WireHandle>, wire::Stat)>> {
        if opening.directory.is_none() {
            let absence = || self.absences.find(opening.path, |absence| Some(Arc::clone(absence)));
            if let Some(absence) = self.look(absence, |absence| &absence.mark) {
                return Some(Err(absence.error.clone()));
            }
        }
        if !opening.plain {
            return None;
        }
        let glance = self.lease.glance();
        let usable = |handle: &WireHandle| {
            let node = handle.slot.node.load();
            let node = node.as_ref().filter(|node| glance.covers(&node.mark))?;
            node.mark.touch();
            let fits = opening.directory.is_none_or(|directory| directory == node.stat.directory);
            fits.then_some(node.stat)
        };
        let kept = self.shelf.take(opening.path, opening.mode, opening.lock_delay_ms, usable)?;
        self.hits.add();
        Some(Ok(kept))
    }

    /// A read that the cell has to answer.
    pub(crate) fn missed(&self) {
        if self.is_on {
            self.misses.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A handle that the cell has just given.
    pub(crate) fn opened(&self, token: wire::Handle, path: Path, ephemeral: bool) -> Arc<WireHandle> {
        let slot = self.slots.of(Instance(token.instance));
        Arc::new(WireHandle::new(token, path, ephemeral, slot))
    }

    /// Nobody uses this handle any more. Returns the one that must be closed now, if one must.
    pub(crate) fn put_away(&self, handle: &Arc<WireHandle>) -> Option<Arc<WireHandle>> {
        self.shelf.put(handle)
    }

    /// The kept handles that must be closed: `all`, or those that were of no use for a while.
    pub(crate) fn clear_out(&self, all: bool) -> Vec<Arc<WireHandle>> {
        self.shelf.clear_out(all)
    }

    pub(crate) fn stats(&self) -> CacheStats {
        let session = *self.session.lock().expect("nobody panics with it");
        CacheStats {
            hits: self.hits.sum(),
            misses: self.misses.load(Ordering::Relaxed),
            entries: session.entries,
            bytes: session.bytes,
            invalidations: session.invalidations,
            evictions: session.evictions,
            kept_handles: self.shelf.len(),
            is_live: clock::now().as_nanos() < self.lease.until.load(Ordering::Acquire),
        }
    }
}

/// The task's side: it alone changes what readers find.
pub(crate) struct Publisher {
    store: Arc<Store>,
    /// The slots in which there is something.
    filled: BTreeMap<Instance, Arc<Slot>>,
}

impl Publisher {
    pub(crate) fn new(store: Arc<Store>) -> Publisher {
        Publisher { store, filled: BTreeMap::new() }
    }

    /// Carries out what the session wants readers to see. When this returns none of them can begin to use what is
    /// gone.
    pub(crate) fn publish(&mut self, session: &wombat_session::Session, changes: &mut Vec<CacheChange>) {
        for change in changes.drain(..) {
            match change {
                CacheChange::Keep(Place::Node(instance), Cached::Node(node)) => {
                    self.fill(instance).node.store(Some(node));
                }
                CacheChange::Keep(Place::Listing(instance), Cached::Listing(listing)) => {
                    self.fill(instance).listing.store(Some(listing));
                }
                CacheChange::Keep(_, Cached::Absence(absence)) => {
                    self.store.absences.insert(absence, |_| true)
                }
                CacheChange::Keep(..) => debug_assert!(false, "an entry in another's place"),
                CacheChange::Drop(Place::Node(instance)) => {
                    self.empty(instance, |slot| slot.node.store(None))
                }
                CacheChange::Drop(Place::Listing(instance)) => {
                    self.empty(instance, |slot| slot.listing.store(None));
                }
                CacheChange::Drop(Place::Absence(path)) => self.store.absences.remove(&path, |_| true),
                CacheChange::Clear(era) => self.clear(era),
            }
        }
        // Only now: it may be the lease that was granted on condition that all of that is gone.
        self.store.lease.until.store(session.cache_until().as_nanos(), Ordering::Release);
        *self.store.session.lock().expect("nobody panics with it") = session.cache_stats();
    }

    /// How many reads were answered from the cache.
    pub(crate) fn hits(&self) -> u64 {
        self.store.hits.sum()
    }

    fn fill(&mut self, instance: Instance) -> &Slot {
        self.filled.entry(instance).or_insert_with(|| self.store.slots.of(instance))
    }

    fn empty(&mut self, instance: Instance, empty: impl FnOnce(&Slot)) {
        let Some(slot) = self.filled.get(&instance) else { return };
        empty(slot);
        if slot.node.load().is_none() && slot.listing.load().is_none() {
            self.filled.remove(&instance);
        }
    }

    /// First the lease goes: what there is now must not be used under another, nor what comes under this.
    fn clear(&mut self, era: u64) {
        self.store.lease.until.store(0, Ordering::Release);
        self.store.lease.era.store(era, Ordering::Release);
        for slot in std::mem::take(&mut self.filled).into_values() {
            slot.node.store(None);
            slot.listing.store(None);
        }
        self.store.absences.clear();
    }
}
