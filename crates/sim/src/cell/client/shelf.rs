//! What the threads of an application read without asking anybody: the session's cache as its shell lets them see
//! it.

use crate::cell::oracle::cache::is_current;
use crate::random::Random;
use std::collections::BTreeMap;
use wombat_proto::Instant;
use wombat_session::{CacheChange, Cached, Mark, Place};
use wombat_state::State;

/// Until when entries may be used, and those of which era.
#[derive(Clone, Copy, Default)]
struct Lease {
    until: Instant,
    era: u64,
}

impl Lease {
    /// Whether an entry may be used that was there when this was looked at, or later.
    fn covers(self, now: Instant, cached: &Cached) -> bool {
        now < self.until && mark(cached).era() == self.era
    }
}

/// How far a slow thread has come: whatever happens between its steps, what it uses in the end was so when it
/// looked at it.
#[derive(Default)]
enum Glance {
    #[default]
    Begins,
    /// 1: it has looked at the lease: of which era that is, and until when.
    Era(u64),
    Lease(Lease),
    /// 2: then at an entry, and whether that was so. What remains is, 3, to look at the clock and, 4, to use it.
    Entry(Lease, Place, Cached, bool),
}

pub(in crate::cell) struct Shelf {
    entries: BTreeMap<Place, Cached>,
    lease: Lease,
    glance: Glance,
    /// Of a thousand times, how often a slow thread comes to its next step.
    pace: u64,
    /// How often everything was dropped.
    pub(in crate::cell) flushes: u64,
}

impl Shelf {
    pub(super) fn new(random: &mut Random) -> Shelf {
        Shelf {
            entries: BTreeMap::new(),
            lease: Lease::default(),
            glance: Glance::default(),
            pace: [500, 50, 5][random.below(3) as usize],
            flushes: 0,
        }
    }

    /// Lets the threads see what has changed, one thing after the other.
    pub(in crate::cell) fn carry_out(
        &mut self,
        changes: Vec<CacheChange>,
        until: Instant,
        mut meanwhile: impl FnMut(&mut Shelf),
    ) {
        for change in changes {
            meanwhile(self);
            match change {
                CacheChange::Keep(place, cached) => drop(self.entries.insert(place, cached)),
                CacheChange::Drop(place) => drop(self.entries.remove(&place)),
                CacheChange::Clear(era) => {
                    self.lease = Lease { until: Instant::default(), era };
                    meanwhile(self);
                    self.entries.clear();
                    self.flushes += 1;
                }
            }
        }
        meanwhile(self);
        // Only now: it may have been granted on condition that all of that is gone.
        self.lease.until = until;
    }

    /// Until when a thread uses what it sees.
    pub(in crate::cell) fn until(&self) -> Instant {
        self.lease.until
    }

    /// What a thread may use that nothing interrupts.
    pub(in crate::cell) fn usable(&self, now: Instant) -> impl Iterator<Item = (&Place, &Cached)> {
        self.entries.iter().filter(move |(_, cached)| self.lease.covers(now, cached))
    }

    /// The same of one place.
    pub(super) fn find(&self, place: &Place, now: Instant) -> Option<&Cached> {
        self.entries.get(place).filter(|cached| self.lease.covers(now, cached))
    }

    /// Whether there is anything that must not be used any more.
    pub(in crate::cell) fn has_lapsed(&self, now: Instant) -> bool {
        !self.entries.is_empty() && self.lease.until <= now
    }

    /// A slow thread takes its next step. I8: what it uses was so when it looked at it. Returns whether it has used
    /// anything.
    pub(in crate::cell) fn glance(&mut self, now: Instant, state: &State, random: &mut Random) -> bool {
        let mut has_read = false;
        if !random.chance(self.pace) {
            return false;
        }
        self.glance = match std::mem::take(&mut self.glance) {
            Glance::Begins => Glance::Era(self.lease.era),
            Glance::Era(era) => Glance::Lease(Lease { until: self.lease.until, era }),
            Glance::Lease(lease) => {
                let which = random.below(self.entries.len().max(1) as u64) as usize;
                match self.entries.iter().nth(which) {
                    None => Glance::Begins,
                    Some((place, cached)) => {
                        let was_so = is_current(state, place, cached);
                        Glance::Entry(lease, place.clone(), cached.clone(), was_so)
                    }
                }
            }
            Glance::Entry(lease, place, cached, was_so) => {
                has_read = lease.covers(now, &cached);
                assert!(
                    was_so || !has_read,
                    "I8: a slow thread has read {place:?}, and it was not so: {cached:?}"
                );
                Glance::Begins
            }
        };
        has_read
    }
}

pub(super) fn mark(cached: &Cached) -> &Mark {
    match cached {
        Cached::Node(node) => &node.mark,
        Cached::Listing(listing) => &listing.mark,
        Cached::Absence(absence) => &absence.mark,
    }
}
