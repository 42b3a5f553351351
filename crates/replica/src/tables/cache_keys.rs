//! Which sessions may have which key cached (P§2.7, SPEC §6), and which keys must not be cached now because a
//! change of them waits or is on its way into the log.

use super::session_cache::SessionCache;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::ops::Bound;
use wombat_proto::limits::{CACHED_ABSENCES_PER_DIRECTORY, CACHED_ENTRIES, CACHED_ENTRIES_PER_SESSION};
use wombat_proto::{CacheKey, Facet, Instance, SessionId, Slot};

/// Most sessions that one command allows cache leases.
const MAX_LOGGED_AT_ONCE: usize = 512;

/// The cached keys of all sessions.
#[derive(Default)]
pub(crate) struct CacheKeys {
    /// The sessions that may have each key cached.
    holders: BTreeMap<CacheKey, BTreeSet<SessionId>>,
    /// How many those are, added up.
    entries: usize,
    /// How many sessions may cache anything at all.
    clients: usize,
    /// How many of them use their caches.
    readers: usize,
    /// The keys of changes that wait or are on their way into the log, and of how many changes: they must not be
    /// cached.
    closed: BTreeMap<CacheKey, u32>,
    /// Changes on their way into the log that may affect nodes that are created before them: nodes after these
    /// instances must not be cached.
    pending_creates: VecDeque<(Slot, Instance)>,
    /// Up to here changes were proposed without closing their keys, because no session could cache anything. Until
    /// that slot is applied nothing may be cached.
    untracked_through: Slot,
    /// Keys of sessions that have ended, or cache no more. Some are removed with each step.
    pending_releases: Vec<(SessionId, BTreeSet<CacheKey>)>,
    /// Sessions that use their caches, and to which the log does not allow cache leases yet.
    unlogged: BTreeSet<SessionId>,
    /// Whether the command that allows them is on its way into the log.
    is_logging: bool,
    /// Where the search for a key to evict goes on.
    eviction_hand: Option<CacheKey>,
    /// How many reads clients have answered from their caches since this master began.
    hits: u64,
}

/// Whether a session may cache a key.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Hold {
    /// It may.
    Held,
    /// It may not: the directory has enough absent names in caches.
    Refused,
    /// It may not: another key has to be dropped by every cache first, to make room.
    Evict(CacheKey),
}

impl CacheKeys {
    /// Whether no session can have anything cached.
    pub(crate) fn has_no_clients(&self) -> bool {
        self.clients == 0
    }

    pub(crate) fn readers(&self) -> usize {
        self.readers
    }

    pub(crate) fn entries(&self) -> usize {
        self.entries
    }

    pub(crate) fn hits(&self) -> u64 {
        self.hits
    }

    /// A session begins that may cache, or was there before this master.
    pub(crate) fn add_client(&mut self, may_lease: bool) -> SessionCache {
        self.clients += 1;
        SessionCache::new(may_lease)
    }

    /// A session has ended, or has dropped everything and will cache no more.
    pub(crate) fn remove_client(&mut self, session: SessionId, cache: &mut SessionCache) {
        self.clients -= 1;
        self.readers -= usize::from(cache.reads);
        self.unlogged.remove(&session);
        self.pending_releases.push((session, core::mem::take(&mut cache.keys)));
    }

    /// Counts the reads that a session's client has answered from its cache so far.
    pub(crate) fn count_reads(&mut self, cache: &mut SessionCache, cached_reads: u64) {
        self.hits = self.hits.wrapping_add(cache.count_reads(cached_reads));
    }

    /// Notes whether a session uses its cache, or would.
    pub(crate) fn note_reads(&mut self, session: SessionId, cache: &mut SessionCache, reads: bool) {
        if cache.reads != reads {
            cache.reads = reads;
            match reads {
                true => self.readers += 1,
                false => self.readers -= 1,
            }
        }
        if reads && !cache.may_lease {
            self.unlogged.insert(session);
        }
    }

    /// The sessions that the log should allow cache leases next; none while a command that does so is on its way.
    pub(crate) fn next_unlogged(&self) -> Vec<SessionId> {
        let most = if self.is_logging { 0 } else { MAX_LOGGED_AT_ONCE };
        self.unlogged.iter().take(most).copied().collect()
    }

    /// The command that allows these sessions cache leases is on its way, or the log has no room for it: then they
    /// are added again when they read.
    pub(crate) fn begin_logging(&mut self, sessions: &[SessionId], proposed: bool) {
        for session in sessions {
            self.unlogged.remove(session);
        }
        self.is_logging = proposed;
    }

    /// That command is applied.
    pub(crate) fn end_logging(&mut self) {
        self.is_logging = false;
    }

    /// A change waits or is proposed that affects these keys.
    pub(crate) fn close(&mut self, keys: &[CacheKey]) {
        for key in keys {
            *self.closed.entry(key.clone()).or_default() += 1;
        }
    }

    /// The change is applied, or waits no longer.
    pub(crate) fn open(&mut self, keys: &[CacheKey]) {
        for key in keys {
            let count = self.closed.get_mut(key).expect("a key that is opened was closed");
            *count -= 1;
            if *count == 0 {
                self.closed.remove(key);
            }
        }
    }

    /// A change was proposed that affects `keys` and, if so, nodes that are created until it is applied: those
    /// after `creates_after`. Returns the keys that are closed until then.
    pub(crate) fn proposed(
        &mut self,
        slot: Slot,
        keys: Vec<CacheKey>,
        creates_after: Option<Instance>,
    ) -> Vec<CacheKey> {
        if self.has_no_clients() {
            self.untracked_through = slot;
            return Vec::new();
        }
        self.close(&keys);
        self.pending_creates.extend(creates_after.map(|instance| (slot, instance)));
        keys
    }

    /// The change of a slot is applied, which had closed `keys`.
    pub(crate) fn applied(&mut self, slot: Slot, keys: &[CacheKey]) {
        self.open(keys);
        self.pending_creates.pop_front_if(|(first, _)| *first == slot);
    }

    /// Whether no change that waits or is on its way into the log affects a key.
    pub(crate) fn is_open(&self, key: &CacheKey, applied: Slot) -> bool {
        let any = CacheKey::any_absence(key.instance);
        let is_absence = matches!(key.facet, Facet::Absence(_));
        let is_new = self.pending_creates.front().is_some_and(|(_, oldest)| key.instance > *oldest);
        let is_closed = self.closed.contains_key(key) || is_absence && self.closed.contains_key(&any);
        !is_closed && !is_new && applied >= self.untracked_through
    }

    /// Notes that a session may have a key cached from now on, unless there is no room for it.
    pub(crate) fn hold(&mut self, session: SessionId, cache: &mut SessionCache, key: &CacheKey) -> Hold {
        if cache.keys.contains(key) {
            return Hold::Held;
        }
        if self.has_enough_absences(key) {
            return Hold::Refused;
        }
        let victim = if cache.keys.len() >= CACHED_ENTRIES_PER_SESSION {
            cache.keys.first().cloned()
        } else if self.entries >= CACHED_ENTRIES {
            self.next_victim()
        } else {
            None
        };
        if let Some(victim) = victim {
            return Hold::Evict(victim);
        }
        cache.keys.insert(key.clone());
        self.holders.entry(key.clone()).or_default().insert(session);
        self.entries += 1;
        Hold::Held
    }

    /// Whether so many absent names of a directory are cached that another is one too many.
    fn has_enough_absences(&self, key: &CacheKey) -> bool {
        let Facet::Absence(_) = key.facet else { return false };
        let absences = self.holders.range(CacheKey::any_absence(key.instance).covered());
        !self.holders.contains_key(key) && absences.count() >= CACHED_ABSENCES_PER_DIRECTORY
    }

    /// Chooses a key to evict, after the one that was chosen last.
    fn next_victim(&mut self) -> Option<CacheKey> {
        let after = self.eviction_hand.take().map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.holders.range((after, Bound::Unbounded)).next();
        let next = next.or_else(|| self.holders.first_key_value());
        self.eviction_hand = next.map(|(key, _)| key.clone());
        self.eviction_hand.clone()
    }

    /// Takes the holders of a key, and of the keys that it covers: they are to be sent an invalidation.
    pub(crate) fn take_holders(&mut self, key: &CacheKey) -> Vec<(CacheKey, BTreeSet<SessionId>)> {
        let held: Vec<_> = self.holders.range(key.covered()).map(|(held, _)| held.clone()).collect();
        let taken = held.into_iter().map(|held| {
            let holders = self.holders.remove(&held).unwrap_or_default();
            self.entries -= holders.len();
            (held, holders)
        });
        taken.collect()
    }

    /// A session has a key cached no longer.
    pub(crate) fn remove_holder(&mut self, key: &CacheKey, session: SessionId) {
        let Some(holders) = self.holders.get_mut(key) else { return };
        self.entries -= usize::from(holders.remove(&session));
        if holders.is_empty() {
            self.holders.remove(key);
        }
    }

    /// Whether keys of sessions that have ended are left to remove.
    pub(crate) fn has_pending_releases(&self) -> bool {
        !self.pending_releases.is_empty()
    }

    /// Removes some of the keys of sessions that have ended.
    pub(crate) fn release_some(&mut self, mut left: usize) {
        while left > 0
            && let Some((session, keys)) = self.pending_releases.last_mut()
        {
            let (session, key) = (*session, keys.pop_first());
            match key {
                Some(key) => self.remove_holder(&key, session),
                None => drop(self.pending_releases.pop()),
            }
            left -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wombat_proto::Name;

    const ONE: SessionId = SessionId(1);

    fn key(instance: u64) -> CacheKey {
        CacheKey::node(Instance(instance))
    }

    fn absence(name: &str) -> CacheKey {
        CacheKey::absence(Instance(1), Name::parse(name).expect("a name"))
    }

    #[test]
    fn key_of_a_change_under_way_is_closed_until_all_such_changes_are_applied() {
        let mut keys = CacheKeys::default();
        let _cache = keys.add_client(true);
        assert_eq!(keys.proposed(Slot(5), [key(2)].into(), None), [key(2)]);
        keys.close(&[key(2)]);
        assert!(!keys.is_open(&key(2), Slot(5)) && keys.is_open(&key(3), Slot(5)));
        keys.applied(Slot(5), &[key(2)]);
        assert!(!keys.is_open(&key(2), Slot(5)), "another change of it waits");
        keys.open(&[key(2)]);
        assert!(keys.is_open(&key(2), Slot(5)));
    }

    #[test]
    fn any_absence_closes_every_absent_name() {
        let mut keys = CacheKeys::default();
        keys.close(&[CacheKey::any_absence(Instance(1))]);
        assert!(!keys.is_open(&absence("a"), Slot(0)));
    }

    #[test]
    fn nodes_created_under_way_are_not_cached() {
        let mut keys = CacheKeys::default();
        let _cache = keys.add_client(true);
        keys.proposed(Slot(5), Vec::new(), Some(Instance(10)));
        assert!(keys.is_open(&key(10), Slot(4)) && !keys.is_open(&key(11), Slot(4)));
        keys.applied(Slot(5), &[]);
        assert!(keys.is_open(&key(11), Slot(5)));
    }

    #[test]
    fn changes_proposed_before_the_first_client_keep_everything_closed() {
        let mut keys = CacheKeys::default();
        assert_eq!(keys.proposed(Slot(5), [key(2)].into(), None), []);
        let _cache = keys.add_client(true);
        assert!(!keys.is_open(&key(9), Slot(4)));
        assert!(keys.is_open(&key(9), Slot(5)));
    }

    #[test]
    fn session_with_a_full_cache_drops_its_first_key() {
        let mut keys = CacheKeys::default();
        let mut cache = keys.add_client(true);
        for instance in 0..CACHED_ENTRIES_PER_SESSION as u64 {
            assert_eq!(keys.hold(ONE, &mut cache, &key(instance)), Hold::Held);
        }
        let next = key(CACHED_ENTRIES_PER_SESSION as u64);
        assert_eq!(keys.hold(ONE, &mut cache, &next), Hold::Evict(key(0)));
        assert_eq!(keys.hold(ONE, &mut cache, &key(1)), Hold::Held, "it holds that already");
    }

    #[test]
    fn ended_session_holds_nothing_once_its_keys_are_released() {
        let mut keys = CacheKeys::default();
        let mut cache = keys.add_client(true);
        keys.hold(ONE, &mut cache, &key(1));
        keys.hold(ONE, &mut cache, &absence("a"));
        keys.remove_client(ONE, &mut cache);
        assert!(keys.has_no_clients() && keys.has_pending_releases());
        keys.release_some(2);
        assert_eq!(keys.entries(), 0);
        keys.release_some(1);
        assert!(!keys.has_pending_releases());
    }

    #[test]
    fn holders_of_covered_keys_are_taken_once() {
        let mut keys = CacheKeys::default();
        let mut cache = keys.add_client(true);
        keys.hold(ONE, &mut cache, &absence("a"));
        keys.hold(ONE, &mut cache, &absence("b"));
        let taken = keys.take_holders(&CacheKey::any_absence(Instance(1)));
        assert_eq!(taken.len(), 2);
        assert!(keys.take_holders(&CacheKey::any_absence(Instance(1))).is_empty());
        assert_eq!(keys.entries(), 0);
    }

    #[test]
    fn sessions_that_read_are_logged_once() {
        let mut keys = CacheKeys::default();
        let mut cache = keys.add_client(false);
        keys.note_reads(ONE, &mut cache, true);
        assert_eq!((keys.readers(), keys.next_unlogged()), (1, [ONE].into()));
        keys.begin_logging(&[ONE], true);
        keys.note_reads(ONE, &mut cache, true);
        assert_eq!(keys.next_unlogged(), [], "one command at a time");
        keys.end_logging();
        cache.may_lease = true;
        keys.remove_client(ONE, &mut cache);
        assert_eq!((keys.readers(), keys.next_unlogged()), (0, [].into()));
    }
}
