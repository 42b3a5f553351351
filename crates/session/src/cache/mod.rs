//! What the client has cached, and until when it may use it (P§2.7).
//!
//! The master knows what the client may have, and changes none of it before the client has dropped it and said
//! so, or its cache lease has ended. So there are two things to keep apart here: what there is, and whether it may
//! be used now. A lease that has ended takes nothing away: the next one is granted together with everything that
//! has to be dropped first.

mod entries;
mod entry;
mod flight;

pub use entries::Entries;
pub use entry::{CacheChange, CacheStats, Cached, CachedAbsence, CachedListing, CachedNode, Mark, Place};

use crate::api::Answer;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use flight::Flight;
use wombat_proto::wire::{self, request::Call};
use wombat_proto::{CacheKey, Epoch, Error, Instance, Instant, Name, Result};

/// The cache of a session.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    entries: Entries,
    flight: Flight,
    /// How often everything was dropped.
    era: u64,
    /// Until when what there is may be used.
    until: Instant,
    /// The lease that was granted last.
    granted: Duration,
    /// The number of the last invalidation of this epoch.
    last_invalidation: u64,
    invalidations: u64,
    /// Nothing is kept any more: the end of the session was asked for, or has come.
    shut: bool,
    /// Whether a KeepAlive that waits for its answer, or was lost, says that the cache is read.
    asked: bool,
    /// Since the KeepAlive before, a read that may be cached had to go to the master.
    missed: bool,
    /// Since then, a reader has used an entry.
    used: Arc<AtomicBool>,
}

impl Cache {
    /// A cache of so many bytes; 0: none.
    pub(crate) fn new(bound: usize) -> Cache {
        Cache {
            entries: Entries::new(bound),
            flight: Flight::default(),
            era: 0,
            until: Instant::default(),
            granted: Duration::ZERO,
            last_invalidation: 0,
            invalidations: 0,
            shut: false,
            asked: false,
            missed: false,
            used: Arc::default(),
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.entries.bound() > 0
    }

    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    /// What there is, if it may be used now.
    pub(crate) fn usable(&self, now: Instant) -> Option<&Entries> {
        (now < self.until).then_some(&self.entries)
    }

    pub(crate) fn stats(&self) -> CacheStats {
        CacheStats {
            entries: self.entries.len(),
            bytes: self.entries.bytes(),
            invalidations: self.invalidations,
            evictions: self.entries.evictions(),
        }
    }

    // ---- Calls ----

    /// A call was taken in.
    pub(crate) fn takes(&mut self, number: u64, call: &Call) {
        if self.is_on() {
            self.flight.took_off(number, call);
        }
    }

    /// A call is sent, for the first time or again. Nobody tells the client to drop what it changes itself.
    pub(crate) fn sends(&mut self, number: u64, call: &Call, changes: &mut Vec<CacheChange>) {
        if self.is_on()
            && let Some(instance) = self.flight.changes(number, call)
        {
            self.entries.drop_covered(&CacheKey::node(instance), changes);
        }
    }

    /// A call was answered. What may be cached of it is, if it is surely as new as it looks: nothing has overtaken
    /// it, and it comes from the master of this `epoch`, who knows that it is here.
    pub(crate) fn answered(
        &mut self,
        number: u64,
        (call, result): (&Call, &Result<Answer>),
        cachable: Option<&wire::Cachable>,
        epoch: Epoch,
        changes: &mut Vec<CacheChange>,
    ) {
        let in_time = self.flight.landed(number);
        let Some(cachable) = cachable.filter(|_| self.is_on() && !self.shut) else { return };
        self.missed = true;
        if !in_time || Epoch(cachable.epoch) != epoch {
            return;
        }
        let mark = Mark::new(self.era, &self.used);
        let node = |handle: &Option<wire::Handle>| Instance(handle.map_or(0, |handle| handle.instance));
        match (call, result) {
            (Call::GetContents(get), Ok(Answer::Contents(wire::Contents { contents, stat: Some(stat) }))) => {
                self.entries.keep_node(node(&get.handle), Some(contents), *stat, mark, changes);
            }
            (Call::GetStat(get), Ok(Answer::Stat(stat))) => {
                self.entries.keep_node(node(&get.handle), None, *stat, mark, changes);
            }
            (Call::ReadDir(read), Ok(Answer::Entries(page))) => {
                self.entries.keep_page(node(&read.handle), &read.after, page, mark, changes);
            }
            (Call::Open(open), Err(error @ Error::NotFound { .. })) => {
                let Ok(name) = Name::parse(&cachable.name) else { return };
                let key = CacheKey::absence(Instance(cachable.directory), name);
                self.entries.keep_absence(key, &open.path, error.clone(), mark, changes);
            }
            _ => {}
        }
    }

    /// None of the calls that are under way will be answered.
    pub(crate) fn abandon(&mut self) {
        self.flight = Flight::default();
    }

    // ---- What the master says ----

    /// Takes in invalidations, of which `first` is the number of the first. All of them are obeyed when this
    /// returns: the next KeepAlive says so.
    pub(crate) fn invalidate(
        &mut self,
        first: u64,
        invalidations: &[wire::Invalidation],
        changes: &mut Vec<CacheChange>,
    ) {
        for (offset, invalidation) in (0..).zip(invalidations) {
            let number = first.saturating_add(offset);
            if number <= self.last_invalidation {
                continue; // It was obeyed, and its acknowledgement was lost.
            }
            self.invalidations += 1;
            // One that is missing may have been of anything.
            let key = invalidation.key().filter(|_| number == self.last_invalidation + 1);
            self.last_invalidation = number;
            match key {
                Some(key) => {
                    self.flight.overtake(&key);
                    self.entries.drop_covered(&key, changes);
                }
                None => {
                    self.flight.overtake_all();
                    let until = self.until;
                    self.clear(changes);
                    self.until = until;
                }
            }
        }
    }

    /// The master has granted a cache lease of this length, which ends at `until`. Zero: it has not told of
    /// everything that must be dropped.
    pub(crate) fn extend(&mut self, granted: Duration, until: Instant) {
        self.asked = false;
        if self.is_on() && !self.shut && !granted.is_zero() {
            self.granted = granted;
            self.until = self.until.max(until);
        }
    }

    /// What the next KeepAlive acknowledges.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.last_invalidation
    }

    /// Whether the KeepAlive that is about to be sent says that the cache is read.
    pub(crate) fn ask(&mut self) -> bool {
        self.asked |= self.is_read();
        self.missed = false;
        self.used.store(false, Ordering::Relaxed);
        self.asked
    }

    fn is_read(&self) -> bool {
        self.missed || self.used.load(Ordering::Relaxed)
    }

    /// Whether it is time to tell the master, who holds a KeepAlive that does not say so, that the cache is read:
    /// half of the cache lease is over, if there is one.
    pub(crate) fn wants_lease(&self, now: Instant) -> bool {
        !self.asked && self.is_read() && self.half_over() <= now
    }

    /// When [`Cache::wants_lease`] may have something to say, if that is still to come.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        Some(self.half_over()).filter(|at| !self.asked && *at > now)
    }

    fn half_over(&self) -> Instant {
        self.until - self.granted / 2
    }

    // ---- Endings ----

    /// Another master serves: what the one before knew of this cache it does not.
    pub(crate) fn meet_epoch(&mut self, changes: &mut Vec<CacheChange>) {
        self.last_invalidation = 0;
        self.clear(changes);
    }

    /// Drops everything, and the lease with it.
    pub(crate) fn clear(&mut self, changes: &mut Vec<CacheChange>) {
        if self.entries.len() == 0 && self.until == Instant::default() {
            return;
        }
        self.entries.clear();
        self.until = Instant::default();
        self.era += 1;
        changes.push(CacheChange::Clear(self.era));
    }

    /// Drops everything, for good: the session ends.
    pub(crate) fn shut(&mut self, changes: &mut Vec<CacheChange>) {
        self.clear(changes);
        self.abandon();
        self.shut = true;
    }

    /// Another session begins, with nothing.
    pub(crate) fn reopen(&mut self) {
        debug_assert!(self.entries.len() == 0 && self.until == Instant::default());
        (self.shut, self.asked) = (false, false);
    }
}
