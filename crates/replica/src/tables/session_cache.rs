//! The entries that one session may have cached (P§2.7), and the invalidations that it has not acknowledged.

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
    /// The keys that it may have cached, and of which it was sent no invalidation.
    pub(crate) keys: BTreeSet<CacheKey>,
    /// The end of its cache lease, unless it is answered again.
    until: Instant,
    /// Whether it uses its cache, or would.
    pub(crate) reads: bool,
    /// Whether the log says that it may be granted cache leases.
    pub(crate) may_lease: bool,
    /// How many reads its client has answered from its cache, by its last report.
    cached_reads: Option<u64>,
    /// The invalidations that it was sent and has not acknowledged. The last of them is number `last`.
    sent: VecDeque<SentInvalidation>,
    last: u64,
    /// Up to this number they became too many, and are sent as one invalidation of everything; 0: none.
    overrun: u64,
    /// Since when the first of them is unacknowledged.
    unresponsive_since: Option<Instant>,
}

/// An invalidation that a session was sent.
pub(crate) struct SentInvalidation {
    pub(crate) key: CacheKey,
    /// The end of the session's cache lease at that time, if the round waits for it.
    pub(crate) awaited: Option<Instant>,
}

impl SessionCache {
    pub(crate) fn new(may_lease: bool) -> SessionCache {
        SessionCache { may_lease, ..SessionCache::default() }
    }

    /// The invalidations that a session leaves unacknowledged that has ended.
    pub(crate) fn into_sent(self) -> impl Iterator<Item = SentInvalidation> {
        self.sent.into_iter()
    }

    /// Whether it has to drop everything before it may cache anything again.
    pub(crate) fn is_overrun(&self) -> bool {
        self.overrun != 0
    }

    /// Queues an invalidation. Returns until when its round has to wait for the session, if it has to.
    pub(crate) fn invalidate(&mut self, key: CacheKey, now: Instant) -> Option<Instant> {
        self.keys.remove(&key);
        let awaited = (now < self.until).then_some(self.until);
        self.sent.push_back(SentInvalidation { key, awaited });
        self.last += 1;
        self.unresponsive_since.get_or_insert(now);
        if self.sent.len() > INVALIDATIONS_PER_SESSION {
            self.overrun = self.last;
        }
        awaited
    }

    /// Takes the invalidations that the session acknowledges with that number.
    pub(crate) fn acknowledge(&mut self, number: u64, now: Instant) -> Vec<SentInvalidation> {
        let first = self.last + 1 - self.sent.len() as u64;
        let count = number.saturating_add(1).saturating_sub(first).min(self.sent.len() as u64);
        if self.overrun <= number {
            self.overrun = 0;
        }
        let gone: Vec<SentInvalidation> = self.sent.drain(..count as usize).collect();
        if self.sent.is_empty() {
            self.unresponsive_since = None;
        } else if !gone.is_empty() {
            self.unresponsive_since = Some(now);
        }
        gone
    }

    /// The invalidations in an answer to its KeepAlive: the number of the first, as many as fit, and whether those
    /// are all.
    fn unacknowledged(&self) -> (u64, Vec<Invalidation>, bool) {
        let first = self.last + 1 - self.sent.len() as u64;
        let (skipped, first) = match self.overrun {
            0 => (0, first),
            overrun => ((overrun - first) as usize + 1, overrun),
        };
        let everything = self.is_overrun().then(Invalidation::of_everything);
        let rest = self.sent.iter().skip(skipped).map(|sent| Invalidation::from(&sent.key));
        let mut bytes = 0;
        let fits = |invalidation: &Invalidation| {
            bytes += invalidation.encoded_len() + 8;
            bytes <= INVALIDATION_BYTES
        };
        let invalidations: Vec<Invalidation> = everything.into_iter().chain(rest).take_while(fits).collect();
        let whole = first + invalidations.len() as u64 == self.last + 1;
        (first, invalidations, whole)
    }

    /// The part of an answer to its KeepAlive that is about its cache: the invalidations, and the cache lease. No
    /// lease is granted to a session that does not use its cache, that the next master would not wait for, that
    /// may still have something from before a fail-over, or whose invalidations do not all fit.
    pub(crate) fn answer(&mut self, now: Instant, lease: Duration, knows_epoch: bool) -> KeptAlive {
        let (first_invalidation, invalidations, whole) = self.unacknowledged();
        let may_lease = whole && self.reads && self.may_lease && knows_epoch;
        let granted = if may_lease { lease } else { Duration::ZERO };
        self.until = self.until.max(now + granted);
        let cache_lease_ms = granted.as_millis() as u32;
        KeptAlive { first_invalidation, invalidations, cache_lease_ms, ..KeptAlive::default() }
    }

    /// When its KeepAlive is to be answered so that its cache lease does not end.
    pub(crate) fn due(&self, lease: Duration) -> Option<Instant> {
        (self.reads && self.may_lease && !self.keys.is_empty()).then(|| self.until - lease / 2)
    }

    /// Takes its client's count of the reads from its cache. Returns how many are new.
    pub(crate) fn count_reads(&mut self, cached_reads: u64) -> u64 {
        // The first report may be about the time of an earlier master.
        let before = self.cached_reads.replace(cached_reads).unwrap_or(cached_reads);
        cached_reads.saturating_sub(before)
    }

    /// Whether it was sent an invalidation that it has not acknowledged.
    pub(crate) fn has_news(&self) -> bool {
        !self.sent.is_empty()
    }

    /// The end of its cache lease.
    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    /// Since when it has left an invalidation unacknowledged, and has acknowledged no other.
    pub(crate) fn unresponsive_since(&self) -> Option<Instant> {
        self.unresponsive_since
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wombat_proto::Instance;

    const LEASE: Duration = Duration::from_secs(4);

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn key(instance: u64) -> CacheKey {
        CacheKey::node(Instance(instance))
    }

    fn reader() -> SessionCache {
        SessionCache { reads: true, ..SessionCache::new(true) }
    }

    #[test]
    fn only_a_session_with_a_cache_lease_is_awaited() {
        let mut cache = reader();
        assert_eq!(cache.invalidate(key(1), at(1)), None);
        cache.acknowledge(1, at(1));
        cache.answer(at(1), LEASE, true);
        assert_eq!(cache.invalidate(key(1), at(2)), Some(at(5)));
        assert_eq!(cache.invalidate(key(1), at(5)), None, "the lease has ended");
    }

    #[test]
    fn no_lease_is_granted_without_a_reason_to() {
        let granted = |mut cache: SessionCache, knows| cache.answer(at(1), LEASE, knows).cache_lease_ms;
        assert_eq!(granted(reader(), true), 4000);
        assert_eq!(granted(reader(), false), 0, "it may have something from before the fail-over");
        assert_eq!(granted(SessionCache::new(true), true), 0, "it does not read");
        assert_eq!(granted(SessionCache { reads: true, ..SessionCache::new(false) }, true), 0, "not logged");
    }

    #[test]
    fn acknowledgement_ends_the_silence() {
        let mut cache = reader();
        cache.invalidate(key(1), at(1));
        cache.invalidate(key(2), at(2));
        assert_eq!(cache.unresponsive_since(), Some(at(1)));
        assert_eq!(cache.acknowledge(1, at(3)).len(), 1);
        assert_eq!(cache.unresponsive_since(), Some(at(3)));
        assert_eq!(cache.acknowledge(2, at(4)).len(), 1);
        assert_eq!(cache.unresponsive_since(), None);
    }

    #[test]
    fn too_many_invalidations_are_sent_as_one() {
        let mut cache = reader();
        for instance in 0..=INVALIDATIONS_PER_SESSION as u64 {
            cache.invalidate(key(instance), at(1));
        }
        assert!(cache.is_overrun());
        let answer = cache.answer(at(1), LEASE, true);
        assert_eq!(answer.invalidations, [Invalidation::of_everything()]);
        cache.acknowledge(answer.first_invalidation, at(2));
        assert!(!cache.is_overrun() && !cache.has_news());
    }

    #[test]
    fn first_report_of_cached_reads_counts_nothing() {
        let mut cache = reader();
        assert_eq!([cache.count_reads(10), cache.count_reads(15), cache.count_reads(3)], [0, 5, 0]);
    }
}
