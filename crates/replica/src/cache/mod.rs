//! Who may have what cached (P§2.7, SPEC §6). A change of something that sessions may have cached waits until each
//! of them has dropped it and said so, or may not use it any more: its cache lease has ended.
//!
//! ```text
//!   a read is answered ──▶ the session is noted as a holder of the key
//!   a change comes ──▶ its keys are closed ──▶ a round for each key with holders: each is told with its KeepAlive
//!        ──▶ all have acknowledged, or lapsed ──▶ the change is proposed ──▶ applied: its keys are open again
//! ```
//!
//! While a key is closed reads of it are answered, but not to be cached (SPEC I9). An answer to a KeepAlive that
//! grants a cache lease carries every invalidation that the session has not acknowledged: whoever hears of the
//! one hears of the other.

mod holder;
mod rounds;
mod touched;

pub(crate) use holder::SessionCache;
pub(crate) use rounds::Change;

use crate::master::Master;
use crate::{Answer, Asker, Replica};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;
use holder::Told;
use rounds::{Round, Ticket, Waiting};
use wombat_proto::limits::{
    CACHED_ABSENCES_PER_DIRECTORY, CACHED_ENTRIES, CACHED_ENTRIES_PER_SESSION, KEEP_ALIVES_PER_SECOND,
};
use wombat_proto::wire::log::{self, command::Op};
use wombat_proto::wire::{self, open::Create, request::Call};
use wombat_proto::{CacheKey, Error, Facet, Instance, Instant, NodePath, Result, SessionId, Slot};
use wombat_state::Node;

/// Most of those that hold a change up whom the status names.
const HELD_UP_BY_LISTED: usize = 16;

/// Most sessions that one command allows cache leases.
const LOGGED_AT_ONCE: usize = 512;

/// What all sessions together may have cached, and what waits for them.
#[derive(Default)]
pub(crate) struct Cache {
    /// The sessions that may have it cached.
    holders: BTreeMap<CacheKey, BTreeSet<SessionId>>,
    /// How many those are, added up.
    entries: usize,
    /// How many sessions may cache anything at all, and how many of them do and make use of it.
    clients: usize,
    readers: usize,
    /// What changes touch that wait or are on their way into the log, and how many of them do: it must not be
    /// cached.
    closed: BTreeMap<CacheKey, u32>,
    /// Changes on their way into the log that may touch nodes that are made before them: those that are greater
    /// than this must not be cached.
    young: VecDeque<(Slot, Instance)>,
    /// Up to here changes were proposed without a note of what they touch, because nobody could cache anything.
    /// Until it is applied nothing must be cached.
    unnoted: Slot,
    /// What sessions had cached that have ended, or cache no more. It is forgotten by and by.
    leaving: Vec<(SessionId, BTreeSet<CacheKey>)>,
    rounds: BTreeMap<CacheKey, Round>,
    /// Rounds in which some have still to be told, each in its turn, and whether they are so many that the rest
    /// waits for the next tick.
    to_tell: BTreeSet<CacheKey>,
    last_told: Option<CacheKey>,
    crowd_waits: bool,
    /// No later than the first end of a lease that each round waits for.
    due: BTreeSet<(Instant, CacheKey)>,
    waiting: BTreeMap<Ticket, Waiting>,
    /// The same by those whose changes they are.
    by_session: BTreeSet<(SessionId, Ticket)>,
    by_request: BTreeMap<(SessionId, u64), Ticket>,
    /// Locks whose next grant waits.
    turns: BTreeSet<Instance>,
    /// What nothing stands against any more.
    ready: BTreeSet<Ticket>,
    last_ticket: Ticket,
    /// Memory of the changes that wait.
    bytes: usize,
    /// Sessions that use their caches, of which the log has to say so before they are granted cache leases; and whether
    /// it is about to say so of some.
    unlogged: BTreeSet<SessionId>,
    is_logging: bool,
    /// Where the search for something to forget goes on.
    hand: Option<CacheKey>,
    /// For operators, since this master began.
    hits: u64,
    rounds_begun: u64,
    invalidations: u64,
    lapsed: u64,
}

impl Cache {
    /// When something is due: a lease that somebody waits for ends, or more is to be told or forgotten.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        match self.has_crowd() {
            false => self.due.first().map(|(at, _)| *at),
            true => Some(now),
        }
    }

    /// Whether more have to be told, or to be forgotten, than one step does.
    fn has_crowd(&self) -> bool {
        !(self.to_tell.is_empty() && self.leaving.is_empty())
    }

    /// Notes that a change is under way which touches these.
    fn close(&mut self, keys: &[CacheKey]) {
        for key in keys {
            *self.closed.entry(key.clone()).or_default() += 1;
        }
    }

    /// It has been applied, or is not under way any more.
    fn open(&mut self, keys: &[CacheKey]) {
        for key in keys {
            let count = self.closed.get_mut(key).expect("what is opened was closed");
            *count -= 1;
            if *count == 0 {
                self.closed.remove(key);
            }
        }
    }

    /// A slot is chosen and applied.
    pub(crate) fn applied(&mut self, slot: Slot, keys: &[CacheKey]) {
        self.open(keys);
        self.young.pop_front_if(|(first, _)| *first == slot);
    }

    /// Whether changes under way leave this alone.
    fn is_open(&self, key: &CacheKey, applied: Slot) -> bool {
        let any = CacheKey::any_absence(key.instance);
        let is_absence = matches!(key.facet, Facet::Absence(_));
        let is_young = self.young.front().is_some_and(|(_, oldest)| key.instance > *oldest);
        let is_closed = self.closed.contains_key(key) || is_absence && self.closed.contains_key(&any);
        let changes = is_closed || is_young || self.rounds.contains_key(key);
        !changes && applied >= self.unnoted
    }

    /// Whether it is known of so many names of a directory that they are missing that another is one too many.
    fn is_crowded(&self, key: &CacheKey) -> bool {
        let Facet::Absence(_) = key.facet else { return false };
        let missing = self.holders.range(CacheKey::any_absence(key.instance).covered());
        !self.holders.contains_key(key) && missing.count() >= CACHED_ABSENCES_PER_DIRECTORY
    }

    /// Whoever had it cached has no more. Returns whether it was known that he had.
    fn remove_holder(&mut self, key: &CacheKey, session: SessionId) -> bool {
        let Some(holders) = self.holders.get_mut(key) else { return false };
        let removed = holders.remove(&session);
        self.entries -= usize::from(removed);
        if holders.is_empty() {
            self.holders.remove(key);
        }
        removed
    }

    /// Takes a session out of everything: it has ended, and cannot use what it has cached. In rounds that are to
    /// tell it, it is passed over.
    fn forget(&mut self, session: SessionId, mut cache: SessionCache) {
        self.leaving.push((session, core::mem::take(&mut cache.keys)));
        self.settle_told(session, cache.told());
    }

    /// Forgets some of what sessions had cached that are gone.
    fn forget_some(&mut self, mut left: usize) {
        while left > 0
            && let Some((session, keys)) = self.leaving.last_mut()
        {
            let (session, key) = (*session, keys.pop_first());
            match key {
                Some(key) => drop(self.remove_holder(&key, session)),
                None => drop(self.leaving.pop()),
            }
            left -= 1;
        }
    }

    /// Chooses something that is to be forgotten so that something else may be cached, after what was chosen last.
    fn next_victim(&mut self) -> Option<CacheKey> {
        use core::ops::Bound::{Excluded, Unbounded};
        let after = self.hand.take().map_or(Unbounded, Excluded);
        let next = self.holders.range((after, Unbounded)).next().or_else(|| self.holders.first_key_value());
        self.hand = next.map(|(key, _)| key.clone());
        self.hand.clone()
    }
}

impl Master {
    /// Whether nobody can have anything cached.
    fn caches_nothing(&self) -> bool {
        self.cache.clients == 0
    }

    /// A change was proposed that touches `keys` and, if so, nodes that are made until it is applied: those
    /// after `young`. Returns what is closed until then.
    pub(crate) fn note_proposed(
        &mut self,
        slot: Slot,
        keys: Vec<CacheKey>,
        young: Option<Instance>,
    ) -> Vec<CacheKey> {
        if self.caches_nothing() {
            self.cache.unnoted = slot;
            return Vec::new();
        }
        self.cache.close(&keys);
        self.cache.young.extend(young.map(|instance| (slot, instance)));
        keys
    }

    /// A session begins that may cache, or was there before this master.
    pub(crate) fn add_cache(&mut self, may_lease: bool) -> SessionCache {
        self.cache.clients += 1;
        SessionCache::new(may_lease)
    }

    /// A session has ended, or has dropped all that it had and will cache no more.
    pub(crate) fn forget_cache(&mut self, session: SessionId) {
        let cache = self.sessions.get_mut(&session).and_then(|live| live.cache.take());
        if let Some(cache) = cache {
            self.cache.clients -= 1;
            self.cache.readers -= usize::from(cache.reads);
            self.cache.unlogged.remove(&session);
            self.cache.forget(session, *cache);
        }
    }

    /// Notes how many reads a session's client has answered from its cache so far.
    pub(crate) fn note_hits(&mut self, session: SessionId, cached_reads: u64) {
        let Some(cache) = self.sessions.get_mut(&session).and_then(|live| live.cache.as_mut()) else {
            return;
        };
        // What it says first may be about the time of an earlier master.
        let before = cache.cached_reads.replace(cached_reads).unwrap_or(cached_reads);
        self.cache.hits = self.cache.hits.wrapping_add(cached_reads.saturating_sub(before));
    }

    /// Notes whether a session makes use of what it has cached, or would.
    pub(crate) fn note_reads(&mut self, session: SessionId, reads: bool) {
        let Some(cache) = self.sessions.get_mut(&session).and_then(|live| live.cache.as_mut()) else {
            return;
        };
        if cache.reads != reads {
            cache.reads = reads;
            match reads {
                true => self.cache.readers += 1,
                false => self.cache.readers -= 1,
            }
        }
        if reads && !cache.may_lease {
            self.cache.unlogged.insert(session);
        }
    }
}

/// What the answer to a call could put into its client's cache.
pub(crate) enum Wanted {
    Key(CacheKey),
    /// That a path leads nowhere.
    Absence(String),
}

impl Wanted {
    /// What a call wants that reads.
    pub(crate) fn of(call: &Call) -> Option<Wanted> {
        let instance = |handle: &Option<wire::Handle>| handle.map(|handle| Instance(handle.instance));
        match call {
            Call::GetContents(get) => instance(&get.handle).map(CacheKey::node).map(Wanted::Key),
            Call::GetStat(get) => instance(&get.handle).map(CacheKey::node).map(Wanted::Key),
            Call::ReadDir(read) => instance(&read.handle).map(CacheKey::listing).map(Wanted::Key),
            Call::Open(open) if open.create() == Create::Never && open.directory.is_none() => {
                Some(Wanted::Absence(open.path.clone()))
            }
            _ => None,
        }
    }
}

impl Replica {
    /// Whether the answer to a call may be cached. If so, its session is told before it changes.
    pub(crate) fn cachable(
        &mut self,
        asker: Asker,
        wanted: Wanted,
        result: &Result<Answer>,
    ) -> Option<wire::Cachable> {
        let key = match (wanted, result) {
            (Wanted::Key(key), Ok(Answer::Contents(_) | Answer::Stat(_) | Answer::Entries(_))) => key,
            (Wanted::Absence(path), Err(Error::NotFound { .. })) => self.absence(&self.parse(&path).ok()?)?,
            _ => return None,
        };
        if !self.hold(asker.session, &key) {
            return None;
        }
        let epoch = self.master.as_ref()?.epoch.0;
        let directory = key.instance.0;
        Some(match key.facet {
            Facet::Absence(name) => wire::Cachable { epoch, directory, name: name.to_string() },
            _ => wire::Cachable { epoch, ..wire::Cachable::default() },
        })
    }

    /// Why a path leads nowhere: a directory lacks a name.
    fn absence(&self, path: &NodePath) -> Option<CacheKey> {
        let mut node = self.state.tree().root()?;
        for name in path.names() {
            match self.state.tree().child(node, name) {
                Some(child) => node = child,
                // A file has no names, and says nothing when it gives way to a directory.
                None => return node.is_directory().then(|| CacheKey::absence(node.instance, name.clone())),
            }
        }
        None
    }

    /// Notes that a session may have something cached from now on, unless it must not.
    fn hold(&mut self, session: SessionId, key: &CacheKey) -> bool {
        let (now, applied, lease) = (self.moment.now, self.state.applied(), self.cache_lease());
        let Some(master) = &mut self.master else { return false };
        let Some(live) = master.sessions.get_mut(&session) else { return false };
        let Some(cache) = &mut live.cache else { return false };
        if cache.is_overrun() || !master.fail_over.is_over() || !master.cache.is_open(key, applied) {
            return false;
        }
        if !cache.keys.contains(key) {
            if master.cache.is_crowded(key) {
                return false;
            }
            if cache.keys.len() >= CACHED_ENTRIES_PER_SESSION {
                let victim = cache.keys.first().cloned();
                self.forget_one(victim);
                return false;
            }
            if master.cache.entries >= CACHED_ENTRIES {
                let victim = master.cache.next_victim();
                self.forget_one(victim);
                return false;
            }
            cache.keys.insert(key.clone());
            master.cache.holders.entry(key.clone()).or_default().insert(session);
            master.cache.entries += 1;
        }
        if cache.may_lease && cache.until < now + lease / 2 {
            master.notify(session); // Its lease begins with the answer, if its KeepAlive is here.
        }
        master.note_reads(session, true);
        true
    }

    /// Has everybody drop something, to make room.
    fn forget_one(&mut self, victim: Option<CacheKey>) {
        if let Some(key) = victim {
            self.start_rounds(core::slice::from_ref(&key), None);
        }
    }

    /// The cache lease that is granted now (SPEC §6): the configured one or, where so many sessions would make
    /// too many KeepAlives, a longer one, as far as the log has it.
    pub(crate) fn cache_lease(&self) -> Duration {
        let bound = self.master.as_ref().map_or(Duration::MAX, |master| master.leases_in_force.bounds()[1]);
        self.wanted_cache_lease().min(self.state.cache_lease()).min(bound).min(self.lease())
    }

    /// A session that uses its cache sends a KeepAlive in about half of its cache lease.
    pub(crate) fn wanted_cache_lease(&self) -> Duration {
        let readers = self.master.as_ref().map_or(0, |master| master.cache.readers);
        let readers = u32::try_from(readers).unwrap_or(u32::MAX);
        let paced = Duration::from_secs(2).saturating_mul(readers) / KEEP_ALIVES_PER_SECOND;
        self.config.cache_lease.max(paced)
    }

    /// Lets the log say which sessions may be granted cache leases, before they are. Returns whether it is about to.
    pub(crate) fn log_cache_leases(&mut self) -> bool {
        let Some(master) = self.master.as_mut().filter(|master| !master.cache.is_logging) else {
            return false;
        };
        let some: Vec<SessionId> = master.cache.unlogged.iter().take(LOGGED_AT_ONCE).copied().collect();
        if some.is_empty() {
            return false;
        }
        let sessions = some.iter().map(|session| session.0).collect();
        // Where the log has no room, they say again that they read.
        let is_logging = self.propose_own(Op::AllowCacheLeases(log::AllowCacheLeases { sessions })).is_ok();
        let Some(master) = &mut self.master else { return false };
        for session in &some {
            master.cache.unlogged.remove(session);
        }
        master.cache.is_logging = is_logging;
        is_logging
    }

    /// The log says that these sessions may be granted cache leases: they are, if their KeepAlives are here.
    pub(crate) fn cache_leases_were_logged(&mut self, logged: &log::AllowCacheLeases) {
        let Some(master) = &mut self.master else { return };
        master.cache.is_logging = false;
        for session in logged.sessions.iter().copied().map(SessionId) {
            let Some(live) = master.sessions.get_mut(&session) else { continue };
            let Some(cache) = &mut live.cache else { continue };
            cache.may_lease = true;
            if cache.reads {
                master.to_notify.add(session, live);
            }
        }
    }

    /// When a session's KeepAlive is to be answered so that its cache lease does not end.
    pub(crate) fn cache_due(&self, session: SessionId) -> Option<Instant> {
        let cache = self.master.as_ref()?.sessions.get(&session)?.cache.as_ref()?;
        (cache.reads && cache.may_lease && !cache.keys.is_empty())
            .then(|| cache.until - self.cache_lease() / 2)
    }

    /// How the caches are, for operators.
    pub(crate) fn cache_status(&self) -> Option<wire::CacheStatus> {
        let cache = &self.master.as_ref()?.cache;
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let now = self.moment.now;
        let first = cache.waiting.values().map(|waiting| waiting.since).min();
        let awaited = cache.rounds.iter().filter(|(_, round)| !round.is_waited_for_by_none());
        let awaited = awaited.flat_map(|(key, round)| round.awaited.iter().map(move |one| (key, *one)));
        let path = |instance: Instance| {
            let node: Option<&Node> = self.state.tree().get(instance);
            node.and_then(|node| self.state.path_of(node)).map_or_else(String::new, |path| path.to_string())
        };
        let held_up_by = awaited.take(HELD_UP_BY_LISTED).map(|(key, (until, session))| wire::HeldUpBy {
            session: session.0,
            client: self.state.session(session).map_or_else(String::new, |session| session.client.clone()),
            path: path(key.instance),
            left_ms: millis(until.since(now)),
        });
        Some(wire::CacheStatus {
            sessions: cache.readers as u64,
            entries: cache.entries as u64,
            lease_ms: self.cache_lease().as_millis() as u32,
            hits: cache.hits,
            rounds: cache.rounds_begun,
            invalidations: cache.invalidations,
            lapsed: cache.lapsed,
            waiting: cache.waiting.len() as u64,
            longest_ms: first.map_or(0, |first| millis(now.since(first))),
            held_up_by: held_up_by.collect::<Vec<_>>(),
        })
    }
}
