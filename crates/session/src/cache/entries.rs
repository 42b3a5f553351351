//! The entries, their bound, and which of them gives way.

use super::entry::{
    CacheChange, Cached, CachedAbsence, CachedListing, CachedNode, Mark, Place, absence_bytes, listing_bytes,
    node_bytes,
};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use wombat_proto::wire;
use wombat_proto::{CacheKey, Error, Facet, Instance};

/// What a session has cached.
#[derive(Clone, Debug)]
pub struct Entries {
    /// Most that they may weigh.
    bound: usize,
    bytes: usize,
    all: BTreeMap<Place, Entry>,
    /// In which order they are looked at when room is needed.
    turns: BTreeMap<u64, Place>,
    last_turn: u64,
    /// The paths that lead nowhere, by what takes them away.
    absences: BTreeSet<(CacheKey, Arc<str>)>,
    evictions: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    what: What,
    bytes: usize,
    turn: u64,
}

#[derive(Clone, Debug)]
enum What {
    Node(Arc<CachedNode>),
    Listing {
        whole: Option<Arc<CachedListing>>,
        /// The first pages of another, which is being read.
        pages: Vec<wire::Entry>,
    },
    Absence(Arc<CachedAbsence>, CacheKey),
}

impl What {
    fn bytes(&self) -> usize {
        match self {
            What::Node(node) => node_bytes(node.contents.as_ref()),
            What::Listing { whole, pages } => {
                listing_bytes(pages) + whole.as_ref().map_or(0, |whole| listing_bytes(&whole.entries))
            }
            What::Absence(absence, key) => absence_bytes(&absence.path, name(key)),
        }
    }

    /// Whether a reader has used it since this was last asked.
    fn take_used(&self) -> bool {
        match self {
            What::Node(node) => node.mark.take_used(),
            What::Listing { whole, .. } => whole.as_ref().is_some_and(|whole| whole.mark.take_used()),
            What::Absence(absence, _) => absence.mark.take_used(),
        }
    }
}

fn name(key: &CacheKey) -> &str {
    match &key.facet {
        Facet::Absence(name) => name.as_str(),
        _ => "",
    }
}

impl Entries {
    /// A node.
    pub fn node(&self, instance: Instance) -> Option<&Arc<CachedNode>> {
        match &self.all.get(&Place::Node(instance))?.what {
            What::Node(node) => Some(node),
            _ => None,
        }
    }

    /// A directory's whole listing.
    pub fn listing(&self, instance: Instance) -> Option<&Arc<CachedListing>> {
        match &self.all.get(&Place::Listing(instance))?.what {
            What::Listing { whole, .. } => whole.as_ref(),
            _ => None,
        }
    }

    /// That a whole path leads nowhere.
    pub fn absence(&self, path: &str) -> Option<&Arc<CachedAbsence>> {
        match &self.all.get(&Place::Absence(Arc::from(path)))?.what {
            What::Absence(absence, _) => Some(absence),
            _ => None,
        }
    }

    pub(super) fn new(bound: usize) -> Entries {
        Entries {
            bound,
            bytes: 0,
            all: BTreeMap::new(),
            turns: BTreeMap::new(),
            last_turn: 0,
            absences: BTreeSet::new(),
            evictions: 0,
        }
    }

    pub(super) fn bound(&self) -> usize {
        self.bound
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn evictions(&self) -> u64 {
        self.evictions
    }

    pub(super) fn keep_node(
        &mut self,
        instance: Instance,
        contents: Option<&Bytes>,
        stat: wire::Stat,
        mark: Mark,
        changes: &mut Vec<CacheChange>,
    ) {
        // The stat alone is no more than what there is already.
        if contents.is_none() && self.node(instance).is_some_and(|node| node.stat == stat) {
            return;
        }
        // A copy: what came is a piece of the frame that it came in, and would keep all of that.
        let contents = contents.map(|contents| Bytes::copy_from_slice(contents));
        let node = Arc::new(CachedNode { contents, stat, mark });
        let kept = Cached::Node(Arc::clone(&node));
        self.insert(Place::Node(instance), What::Node(node), Some(kept), changes);
    }

    /// One page of a listing, which follows `after`: the last of them makes it whole.
    pub(super) fn keep_page(
        &mut self,
        directory: Instance,
        after: &str,
        page: &wire::Entries,
        mark: Mark,
        changes: &mut Vec<CacheChange>,
    ) {
        let place = Place::Listing(directory);
        let (whole, mut pages) = match self.all.get_mut(&place).map(|entry| &mut entry.what) {
            Some(What::Listing { whole, pages }) => (whole.clone(), core::mem::take(pages)),
            _ => (None, Vec::new()),
        };
        if after.is_empty() {
            pages.clear();
        }
        // If several read it at once, a page that another has brought already follows nothing.
        if pages.last().map_or("", |last| last.name.as_str()) == after {
            pages.extend(page.entries.iter().cloned());
            if !page.more {
                let whole = Arc::new(CachedListing { entries: pages, mark });
                let kept = Cached::Listing(Arc::clone(&whole));
                let what = What::Listing { whole: Some(whole), pages: Vec::new() };
                return self.insert(place, what, Some(kept), changes);
            }
        }
        self.insert(place, What::Listing { whole, pages }, None, changes);
    }

    pub(super) fn keep_absence(
        &mut self,
        key: CacheKey,
        path: &str,
        error: Error,
        mark: Mark,
        changes: &mut Vec<CacheChange>,
    ) {
        let path = Arc::from(path);
        let absence = Arc::new(CachedAbsence { path: Arc::clone(&path), error, mark });
        let kept = Cached::Absence(Arc::clone(&absence));
        self.insert(Place::Absence(path), What::Absence(absence, key), Some(kept), changes);
    }

    /// Drops what a change to this makes untrue.
    pub(super) fn drop_covered(&mut self, key: &CacheKey, changes: &mut Vec<CacheChange>) {
        let places: Vec<Place> = match key.facet {
            Facet::Node => [Place::Node(key.instance)].into(),
            Facet::Listing => [Place::Listing(key.instance)].into(),
            Facet::Absence(_) | Facet::AnyAbsence => {
                let from = (CacheKey::node(key.instance), Arc::from(""));
                let of_it = self.absences.range(from..).take_while(|(at, _)| at.instance == key.instance);
                let covered = of_it.filter(|(at, _)| key.covers(at));
                covered.map(|(_, path)| Place::Absence(Arc::clone(path))).collect()
            }
        };
        for place in places {
            if self.remove(&place) {
                changes.push(CacheChange::Drop(place));
            }
        }
    }

    pub(super) fn clear(&mut self) {
        let Entries { bound, last_turn, evictions, .. } = *self;
        *self = Entries { last_turn, evictions, ..Entries::new(bound) };
    }

    /// Puts an entry in its place, if all of them together are not too heavy then; readers are told of what is
    /// `kept`.
    fn insert(&mut self, place: Place, what: What, kept: Option<Cached>, changes: &mut Vec<CacheChange>) {
        let bytes = what.bytes();
        let was_there = self.remove(&place);
        if bytes > self.bound {
            if was_there {
                changes.push(CacheChange::Drop(place));
            }
            return;
        }
        self.make_room(bytes, changes);
        if let What::Absence(absence, key) = &what {
            self.absences.insert((key.clone(), Arc::clone(&absence.path)));
        }
        if let Some(kept) = kept {
            changes.push(CacheChange::Keep(place.clone(), kept));
        }
        self.bytes += bytes;
        let turn = self.next_turn(place.clone());
        self.all.insert(place, Entry { what, bytes, turn });
    }

    fn remove(&mut self, place: &Place) -> bool {
        let Some(entry) = self.all.remove(place) else { return false };
        self.turns.remove(&entry.turn);
        self.bytes -= entry.bytes;
        if let What::Absence(absence, key) = entry.what {
            self.absences.remove(&(key, Arc::clone(&absence.path)));
        }
        true
    }

    /// Gives up entries in their turn until so much more has room. What was used since its last turn gets
    /// another, but once only: readers do not stop while this goes on.
    fn make_room(&mut self, bytes: usize, changes: &mut Vec<CacheChange>) {
        let last_turn = self.last_turn;
        while self.bytes + bytes > self.bound {
            let Some((turn, place)) = self.turns.pop_first() else { return };
            let entry = self.all.get(&place);
            if turn <= last_turn && entry.is_some_and(|entry| entry.what.take_used()) {
                let next = self.next_turn(place.clone());
                self.all.entry(place).and_modify(|entry| entry.turn = next);
                continue;
            }
            self.remove(&place);
            self.evictions += 1;
            changes.push(CacheChange::Drop(place));
        }
    }

    fn next_turn(&mut self, place: Place) -> u64 {
        self.last_turn += 1;
        self.turns.insert(self.last_turn, place);
        self.last_turn
    }
}
