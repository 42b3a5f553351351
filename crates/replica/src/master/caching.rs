//! Which answers sessions may cache (P§2.7, SPEC §6), and the invalidations that they are sent.
//!
//! ```text
//!   a read is answered ──▶ its session is added to the holders of the key
//!   a change comes ──▶ its keys are closed ──▶ a round of invalidations for each key that has holders, sent with
//!        their KeepAlives ──▶ all have acknowledged, or their cache leases have ended ──▶ the change is proposed
//!        ──▶ applied: its keys are open again
//! ```
//!
//! While a key is closed, reads of it are answered, but may not be cached (SPEC I9). An answer to a KeepAlive that
//! grants a cache lease carries every invalidation that the session has not acknowledged.

use super::Master;
use crate::context::{Cx, View};
use crate::request::Answer;
use crate::tables::cache_keys::Hold;
use crate::tables::invalidations::{EndedRound, Sent};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use wombat_proto::wire::log::{self, command::Op};
use wombat_proto::wire::{self, open::Create, request::Call};
use wombat_proto::{CacheKey, Error, Facet, Instance, NodePath, Result, SessionId};
use wombat_state::{Node, State};

/// Most awaited sessions that the status names.
const MAX_AWAITED_LISTED: usize = 16;

/// Most keys of ended sessions that are removed in one step: sessions that have much cached may end together.
const MAX_RELEASED_AT_ONCE: usize = 4096;

/// What the answer to a call could put into its client's cache.
pub(super) enum Cached {
    Key(CacheKey),
    /// That a path leads nowhere.
    Absence(String),
}

impl Cached {
    /// What the answer to a call could put into a cache.
    pub(super) fn by(call: &Call) -> Option<Cached> {
        let instance = |handle: &Option<wire::Handle>| handle.map(|handle| Instance(handle.instance));
        match call {
            Call::GetContents(get) => instance(&get.handle).map(CacheKey::node).map(Cached::Key),
            Call::GetStat(get) => instance(&get.handle).map(CacheKey::node).map(Cached::Key),
            Call::ReadDir(read) => instance(&read.handle).map(CacheKey::listing).map(Cached::Key),
            Call::Open(open) if open.create() == Create::Never && open.directory.is_none() => {
                Some(Cached::Absence(open.path.clone()))
            }
            _ => None,
        }
    }
}

/// The key of the absence that a path comes to: a directory lacks a name.
fn absence(state: &State, path: &NodePath) -> Option<CacheKey> {
    let mut node = state.tree().root()?;
    for name in path.names() {
        match state.tree().child(node, name) {
            Some(child) => node = child,
            // A file has no names, and no invalidation is sent when a directory replaces it.
            None => return node.is_directory().then(|| CacheKey::absence(node.instance, name.clone())),
        }
    }
    None
}

impl Master {
    /// Whether the answer to a call may be cached. If so, its session is sent an invalidation before it changes.
    pub(super) fn cachable(
        &mut self,
        cx: &Cx<'_>,
        session: SessionId,
        cached: Cached,
        result: &Result<Answer>,
    ) -> Option<wire::Cachable> {
        let key = match (cached, result) {
            (Cached::Key(key), Ok(Answer::Contents(_) | Answer::Stat(_) | Answer::Entries(_))) => key,
            (Cached::Absence(path), Err(Error::NotFound { .. })) => {
                absence(cx.state, &cx.config.parse_path(&path).ok()?)?
            }
            _ => return None,
        };
        if !self.hold(cx, session, &key) {
            return None;
        }
        let (epoch, directory) = (self.epoch.0, key.instance.0);
        Some(match key.facet {
            Facet::Absence(name) => wire::Cachable { epoch, directory, name: name.to_string() },
            _ => wire::Cachable { epoch, ..wire::Cachable::default() },
        })
    }

    /// Notes that a session may have a key cached from now on, unless it must not.
    fn hold(&mut self, cx: &Cx<'_>, session: SessionId, key: &CacheKey) -> bool {
        let (now, lease) = (cx.now(), self.cache_lease(cx.view()));
        let Some(live) = self.sessions.get_mut(session) else { return false };
        let Some(cache) = &mut live.cache else { return false };
        let is_open = self.cache_keys.is_open(key, cx.state.applied()) && !self.invalidations.contains(key);
        if cache.is_overrun() || !self.fail_over.is_over() || !is_open {
            return false;
        }
        match self.cache_keys.hold(session, cache, key) {
            Hold::Held => {}
            Hold::Refused => return false,
            Hold::Evict(victim) => {
                self.begin_rounds(core::slice::from_ref(&victim));
                return false;
            }
        }
        let lease_is_short = cache.may_lease && cache.until() < now + lease / 2;
        if lease_is_short && live.lease.is_parked() {
            self.answers.add(session); // The answer to its KeepAlive begins or extends its cache lease.
        }
        self.cache_keys.note_reads(session, cache, true);
        true
    }

    /// A session has ended, or has dropped everything and will cache no more.
    pub(super) fn forget_cache(&mut self, session: SessionId) {
        let cache = self.sessions.get_mut(session).and_then(|live| live.cache.take());
        if let Some(mut cache) = cache {
            self.cache_keys.remove_client(session, &mut cache);
            let ended = self.invalidations.acknowledge(session, cache.into_sent());
            self.end_rounds(ended);
        }
    }

    /// Sends invalidations to the holders of keys that are to change, and removes keys of sessions that have ended.
    pub(super) fn send_invalidations(&mut self, cx: &Cx<'_>) {
        self.cache_keys.release_some(MAX_RELEASED_AT_ONCE);
        let (sessions, answers) = (&mut self.sessions, &mut self.answers);
        let ended = self.invalidations.send(|session, key| {
            let Some(live) = sessions.get_mut(session) else { return Sent::Gone };
            let Some(cache) = &mut live.cache else { return Sent::Gone };
            let awaited = cache.invalidate(key.clone(), cx.now());
            if live.lease.is_parked() {
                answers.add(session);
            }
            awaited.map_or(Sent::NotAwaited, Sent::AwaitedUntil)
        });
        self.end_rounds(ended);
    }

    /// A session has acknowledged invalidations up to that number.
    pub(super) fn invalidations_acknowledged(&mut self, cx: &Cx<'_>, session: SessionId, number: u64) {
        let cache = self.sessions.get_mut(session).and_then(|live| live.cache.as_mut());
        let acknowledged = cache.map(|cache| cache.acknowledge(number, cx.now()));
        let ended = self.invalidations.acknowledge(session, acknowledged.into_iter().flatten());
        self.end_rounds(ended);
    }

    /// The changes that waited for these rounds wait for them no longer.
    pub(super) fn end_rounds(&mut self, ended: Vec<EndedRound>) {
        for round in ended {
            self.changes.round_ended(round);
        }
    }

    /// Proposes that sessions which use their caches may be granted cache leases. They are granted none before the
    /// log says so: the next master waits only for the sessions that the log names. Returns whether it did.
    pub(super) fn log_cache_leases(&mut self, cx: &mut Cx<'_>) -> bool {
        let sessions = self.cache_keys.next_unlogged();
        if sessions.is_empty() {
            return false;
        }
        let allow = log::AllowCacheLeases { sessions: sessions.iter().map(|session| session.0).collect() };
        let proposed = self.propose_own(cx, Op::AllowCacheLeases(allow)).is_ok();
        self.cache_keys.begin_logging(&sessions, proposed);
        proposed
    }

    /// The log says that these sessions may be granted cache leases.
    pub(super) fn cache_leases_logged(&mut self, allowed: &log::AllowCacheLeases) {
        self.cache_keys.end_logging();
        for session in allowed.sessions.iter().copied().map(SessionId) {
            let Some(live) = self.sessions.get_mut(session) else { continue };
            let Some(cache) = &mut live.cache else { continue };
            cache.may_lease = true;
            if cache.reads && live.lease.is_parked() {
                self.answers.add(session);
            }
        }
    }

    /// The state of the caches, for operators.
    pub(crate) fn cache_status(&self, view: View<'_>) -> wire::CacheStatus {
        let millis = |duration: core::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let (now, state) = (view.now, view.state);
        let path = |instance: Instance| {
            let node: Option<&Node> = state.tree().get(instance);
            node.and_then(|node| state.path_of(node)).map_or_else(String::new, |path| path.to_string())
        };
        let awaited = self.invalidations.awaited().take(MAX_AWAITED_LISTED);
        let held_up_by = awaited.map(|(key, until, session)| wire::HeldUpBy {
            session: session.0,
            client: state.session(session).map_or_else(String::new, |session| session.client.clone()),
            path: path(key.instance),
            left_ms: millis(until.since(now)),
        });
        let counts = self.invalidations.counts;
        wire::CacheStatus {
            sessions: self.cache_keys.readers() as u64,
            entries: self.cache_keys.entries() as u64,
            lease_ms: self.cache_lease(view).as_millis() as u32,
            hits: self.cache_keys.hits(),
            rounds: counts.rounds,
            invalidations: counts.sent,
            lapsed: counts.lapsed,
            waiting: self.changes.len() as u64,
            longest_ms: self.changes.first_since().map_or(0, |first| millis(now.since(first))),
            held_up_by: held_up_by.collect(),
        }
    }
}
