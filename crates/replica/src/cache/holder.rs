//! What one session may have cached, and what it has been told to drop.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;
use prost::Message;
use wombat_proto::limits::{INVALIDATION_BYTES, INVALIDATIONS_PER_SESSION};
use wombat_proto::wire::{Invalidation, KeptAlive};
use wombat_proto::{CacheKey, Instant};

/// The master's view of a session's cache. Its invalidations are numbered from 1 in each epoch.
#[derive(Default)]
pub(crate) struct SessionCache {
    /// What it may have cached and has not been told to drop.
    pub(super) keys: BTreeSet<CacheKey>,
    /// It uses what it has cached no longer than this, unless it is answered again.
    pub(super) until: Instant,
    /// Whether it uses its cache, or would.
    pub(super) reads: bool,
    /// Whether the log says that it may be granted cache leases.
    pub(super) may_lease: bool,
    /// How many reads its client has answered from its cache, as it said last.
    pub(super) cached_reads: Option<u64>,
    /// What it was told to drop and has not acknowledged. The last of them is number `last`.
    told: VecDeque<Told>,
    last: u64,
    /// Up to this number they became too many, and are told as one of everything.
    overrun: u64,
    /// For how long the first of them is there.
    unheard_since: Option<Instant>,
}

/// Something that a session was told to drop.
pub(super) struct Told {
    pub(super) key: CacheKey,
    /// The end of its cache lease at that time, if the round waits for it.
    pub(super) awaited: Option<Instant>,
}

impl SessionCache {
    pub(super) fn new(may_lease: bool) -> SessionCache {
        SessionCache { may_lease, ..SessionCache::default() }
    }

    pub(super) fn told(self) -> impl Iterator<Item = Told> {
        self.told.into_iter()
    }

    /// Whether it has to drop everything before it may cache anything again.
    pub(super) fn is_overrun(&self) -> bool {
        self.overrun != 0
    }

    /// Queues an invalidation. Returns until when the session has to be waited for, if it has.
    pub(super) fn tell(&mut self, key: CacheKey, now: Instant) -> Option<Instant> {
        self.keys.remove(&key);
        let awaited = (now < self.until).then_some(self.until);
        self.told.push_back(Told { key, awaited });
        self.last += 1;
        self.unheard_since.get_or_insert(now);
        if self.told.len() > INVALIDATIONS_PER_SESSION {
            self.overrun = self.last;
        }
        awaited
    }

    /// What the session has acknowledged by that number.
    pub(super) fn acknowledge(&mut self, number: u64, now: Instant) -> Vec<Told> {
        let first = self.last + 1 - self.told.len() as u64;
        let count = number.saturating_add(1).saturating_sub(first).min(self.told.len() as u64);
        if self.overrun <= number {
            self.overrun = 0;
        }
        let gone: Vec<Told> = self.told.drain(..count as usize).collect();
        if self.told.is_empty() {
            self.unheard_since = None;
        } else if !gone.is_empty() {
            self.unheard_since = Some(now);
        }
        gone
    }

    /// What an answer to its KeepAlive says: the number of the first invalidation, the invalidations, and whether
    /// those are all.
    fn unacknowledged(&self) -> (u64, Vec<Invalidation>, bool) {
        let first = self.last + 1 - self.told.len() as u64;
        let (skipped, first) = match self.overrun {
            0 => (0, first),
            overrun => ((overrun - first) as usize + 1, overrun),
        };
        let everything = self.is_overrun().then(Invalidation::of_everything);
        let rest = self.told.iter().skip(skipped).map(|told| Invalidation::from(&told.key));
        let mut bytes = 0;
        let fits = |invalidation: &Invalidation| {
            bytes += invalidation.encoded_len() + 8;
            bytes <= INVALIDATION_BYTES
        };
        let said: Vec<Invalidation> = everything.into_iter().chain(rest).take_while(fits).collect();
        let whole = first + said.len() as u64 == self.last + 1;
        (first, said, whole)
    }

    /// What an answer to its KeepAlive says: all that it has to drop and has not yet, and then for how long it
    /// may use the rest. A session that does not use its cache gets no such lease, nor does one that the next master
    /// would not wait for, or that may still have something from before a fail-over.
    pub(crate) fn answer(&mut self, now: Instant, lease: Duration, knows_epoch: bool) -> KeptAlive {
        let (first_invalidation, invalidations, whole) = self.unacknowledged();
        let may_lease = whole && self.reads && self.may_lease && knows_epoch;
        let granted = if may_lease { lease } else { Duration::ZERO };
        self.until = self.until.max(now + granted);
        let cache_lease_ms = granted.as_millis() as u32;
        KeptAlive { first_invalidation, invalidations, cache_lease_ms, ..KeptAlive::default() }
    }

    /// Whether there is something that it was told and has not acknowledged.
    pub(crate) fn has_news(&self) -> bool {
        !self.told.is_empty()
    }

    /// Until when it uses what it has cached.
    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    /// Since when it leaves an invalidation unacknowledged, and has acknowledged no other.
    pub(crate) fn unheard_since(&self) -> Option<Instant> {
        self.unheard_since
    }
}
