//! What readers are given: entries, shared with whoever holds one.

use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use core::sync::atomic::{AtomicBool, Ordering};
use wombat_proto::wire;
use wombat_proto::{Error, Instance};

/// A node as it is cached.
#[derive(Debug)]
pub struct CachedNode {
    /// What it holds; `None` if only its stat was asked for.
    pub contents: Option<Bytes>,
    /// Its metadata.
    pub stat: wire::Stat,
    /// Whose entry it is, and that it is used.
    pub mark: Mark,
}

/// A directory's whole listing.
#[derive(Debug)]
pub struct CachedListing {
    /// Its children, in the order of their names.
    pub entries: Vec<wire::Entry>,
    /// Whose entry it is, and that it is used.
    pub mark: Mark,
}

/// That a path leads nowhere.
#[derive(Debug)]
pub struct CachedAbsence {
    /// The path, as it was asked for.
    pub path: Arc<str>,
    /// What the cell said.
    pub error: Error,
    /// Whose entry it is, and that it is used.
    pub mark: Mark,
}

/// What an entry knows of its cache and its readers.
#[derive(Clone, Debug)]
pub struct Mark {
    era: u64,
    /// By somebody since the entry was last looked at for being given up.
    used: Arc<AtomicBool>,
    /// This or any other, since the master was last told.
    any_used: Arc<AtomicBool>,
}

impl Mark {
    pub(crate) fn new(era: u64, any_used: &Arc<AtomicBool>) -> Mark {
        Mark { era, used: Arc::default(), any_used: Arc::clone(any_used) }
    }

    /// How often everything had been dropped when the entry was made. A lease that was granted in another era
    /// says nothing of it.
    pub fn era(&self) -> u64 {
        self.era
    }

    /// Says that the entry is used. Writes only what is not so already: readers on several threads do not get in
    /// each other's way.
    pub fn touch(&self) {
        for flag in [&self.used, &self.any_used] {
            if !flag.load(Ordering::Relaxed) {
                flag.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Whether it was used since this was last asked.
    pub(crate) fn take_used(&self) -> bool {
        self.used.load(Ordering::Relaxed) && self.used.swap(false, Ordering::Relaxed)
    }
}

/// Where a reader looks for an entry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Place {
    /// At a node.
    Node(Instance),
    /// At a directory.
    Listing(Instance),
    /// At a whole path that leads nowhere.
    Absence(Arc<str>),
}

/// An entry.
#[derive(Clone, Debug)]
pub enum Cached {
    /// Contents and stat.
    Node(Arc<CachedNode>),
    /// A listing.
    Listing(Arc<CachedListing>),
    /// Nothing.
    Absence(Arc<CachedAbsence>),
}

/// What the shell has to let readers see, in this order, before it sends anything.
#[derive(Clone, Debug)]
pub enum CacheChange {
    /// They may use this from now on, as long as the cache lease lasts. It takes the place of what was there.
    Keep(Place, Cached),
    /// This no longer, if it is there.
    Drop(Place),
    /// Nothing that there is, and no lease but one that is told of after this. What is kept from now on is of
    /// this era.
    Clear(u64),
}

/// How a cache is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CacheStats {
    /// How many entries it has.
    pub entries: usize,
    /// What they weigh.
    pub bytes: usize,
    /// How many invalidations it was told of.
    pub invalidations: u64,
    /// How many entries gave way to others.
    pub evictions: u64,
}

/// What an entry weighs beside its data: itself, its place, its turn.
const ENTRY_BYTES: usize = 256;

pub(super) fn node_bytes(contents: Option<&Bytes>) -> usize {
    ENTRY_BYTES + size_of::<CachedNode>() + contents.map_or(0, Bytes::len)
}

pub(super) fn listing_bytes(entries: &[wire::Entry]) -> usize {
    let names: usize = entries.iter().map(|entry| entry.name.len()).sum();
    ENTRY_BYTES + names + size_of_val(entries)
}

pub(super) fn absence_bytes(path: &str, name: &str) -> usize {
    // The error names the path once more.
    ENTRY_BYTES + size_of::<CachedAbsence>() + 2 * path.len() + name.len()
}
