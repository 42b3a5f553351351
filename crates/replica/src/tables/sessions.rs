//! The sessions of a master, and their leases (P§2.8).

use super::handles::Handles;
use super::outbox::EventQueue;
use super::session_cache::SessionCache;
use crate::request::{ConnectionId, RequestContext};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::time::Duration;
use wombat_proto::{Error, Instant, Result, SessionId};

/// When a master takes a step this long after the last one, it was itself stopped, or the machine slept.
pub(crate) const STALL: Duration = Duration::from_secs(2);

/// One entry for each session in the state.
#[derive(Default)]
pub(crate) struct Sessions(BTreeMap<SessionId, LiveSession>);

/// What the master knows of a session besides the state.
pub(crate) struct LiveSession {
    pub(crate) lease: Lease,
    pub(crate) handles: Handles,
    pub(crate) events: EventQueue,
    /// Its cached entries, if it may cache.
    pub(crate) cache: Option<Box<SessionCache>>,
    /// The connection that it was attached to last.
    pub(crate) connection: Option<ConnectionId>,
}

/// The master's view of a session's lease.
pub(crate) struct Lease {
    /// The master ends the session no earlier. Never moves back (SPEC I5).
    pub(crate) until: Instant,
    /// Whether its end has been proposed.
    pub(crate) ending: bool,
    /// The KeepAlive that waits for an answer.
    parked: Option<Parked>,
    /// The highest number of a KeepAlive so far. A delayed copy of an older one must not replace the parked one.
    last_keep_alive: u64,
    /// Since when it has had no handle and made no call.
    pub(crate) idle_since: Option<Instant>,
}

/// A KeepAlive that waits for an answer.
#[derive(Clone, Copy)]
pub(crate) struct Parked {
    pub(crate) request: RequestContext,
    pub(crate) received: Instant,
    /// When it is answered even without news.
    pub(crate) answer_at: Instant,
    /// The answer extends the session lease by no more than this, so that it is known from now on when the session
    /// ends if this is the last KeepAlive.
    pub(crate) lease: Duration,
}

impl LiveSession {
    pub(crate) fn new(until: Instant, events: EventQueue, cache: Option<SessionCache>) -> LiveSession {
        let lease = Lease { until, ending: false, parked: None, last_keep_alive: 0, idle_since: None };
        LiveSession {
            lease,
            handles: Handles::default(),
            events,
            cache: cache.map(Box::new),
            connection: None,
        }
    }

    /// Whether its KeepAlive has something to report.
    pub(crate) fn has_news(&self) -> bool {
        !self.events.is_empty() || self.cache.as_ref().is_some_and(|cache| cache.has_news())
    }

    /// Since when it has left an invalidation unacknowledged, and has acknowledged no other.
    pub(crate) fn unresponsive_since(&self) -> Option<Instant> {
        self.cache.as_ref()?.unresponsive_since()
    }
}

impl Lease {
    /// Extends the lease, unless it lasts longer already.
    pub(crate) fn extend(&mut self, until: Instant) {
        self.until = self.until.max(until);
    }

    pub(crate) fn is_parked(&self) -> bool {
        self.parked.is_some()
    }

    /// Refuses a delayed copy of an earlier KeepAlive.
    pub(crate) fn check_newest(&self, number: u64) -> Result<()> {
        if number < self.last_keep_alive { Err(Error::Cancelled) } else { Ok(()) }
    }

    pub(crate) fn park(&mut self, parked: Parked) {
        self.last_keep_alive = parked.request.number;
        self.parked = Some(parked);
    }

    pub(crate) fn unpark(&mut self) -> Option<Parked> {
        self.parked.take()
    }

    /// Takes the parked KeepAlive if it came on a connection that is gone: an answer would extend the lease of a
    /// client that does not get the answer.
    pub(crate) fn unpark_from(&mut self, connection: ConnectionId) -> Option<Parked> {
        self.parked.take_if(|parked| parked.request.connection == connection)
    }

    /// When it ends at the latest if no more KeepAlives come: after the answer to the parked one.
    pub(crate) fn latest_end(&self) -> Instant {
        self.parked.map_or(self.until, |parked| self.until.max(parked.answer_at + parked.lease))
    }
}

/// What a master knows when it looks whether a session's lease has ended.
pub(crate) struct LeaseCheck {
    pub(crate) now: Instant,
    /// All KeepAlives that arrived before this were taken up.
    pub(crate) drained_through: Instant,
    /// Whether the master's own lease holds, so that it can answer.
    pub(crate) master_answers: bool,
    /// Whether others wait for this session to acknowledge something.
    pub(crate) is_awaited: bool,
    /// The session lease that is granted now.
    pub(crate) lease: Duration,
}

/// What a session whose lease was due needs.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Due {
    /// Nothing: it has ended, or its end is proposed.
    Nothing,
    /// Another look at that time.
    Later(Instant),
    /// The answer to its KeepAlive, and another look at that time.
    Answer(Instant),
    /// Its end.
    Expire,
}

impl Sessions {
    pub(crate) fn get(&self, id: SessionId) -> Option<&LiveSession> {
        self.0.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: SessionId) -> Option<&mut LiveSession> {
        self.0.get_mut(&id)
    }

    /// A session that a request names.
    pub(crate) fn live(&mut self, id: SessionId) -> Result<&mut LiveSession> {
        self.0.get_mut(&id).ok_or(Error::SessionExpired)
    }

    pub(crate) fn contains(&self, id: SessionId) -> bool {
        self.0.contains_key(&id)
    }

    pub(crate) fn insert(&mut self, id: SessionId, live: LiveSession) {
        self.0.insert(id, live);
    }

    pub(crate) fn remove(&mut self, id: SessionId) -> Option<LiveSession> {
        self.0.remove(&id)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (SessionId, &mut LiveSession)> {
        self.0.iter_mut().map(|(id, live)| (*id, live))
    }

    /// What a session needs whose lease was due. If that is its end, the end counts as proposed.
    pub(crate) fn due(&mut self, id: SessionId, check: &LeaseCheck) -> Due {
        let Some(live) = self.0.get_mut(&id) else { return Due::Nothing };
        let silent_since = live.unresponsive_since();
        let is_unresponsive = silent_since.is_some_and(|since| since + check.lease <= check.now);
        if live.lease.until > check.drained_through {
            return Due::Later(live.lease.until);
        }
        if !check.master_answers {
            // Its client may be alive and wait: this master cannot answer, for want of its own lease. Once it can,
            // there is time for a KeepAlive.
            return Due::Later(check.now + STALL);
        }
        if live.lease.is_parked() && !is_unresponsive && !check.is_awaited {
            return Due::Answer(check.now + STALL);
        }
        if core::mem::replace(&mut live.lease.ending, true) { Due::Nothing } else { Due::Expire }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wombat_proto::{CacheKey, Instance};

    const ONE: SessionId = SessionId(1);
    const LEASE: Duration = Duration::from_secs(12);

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    /// Session 1 with a lease that lasts until 10.
    fn session() -> Sessions {
        let mut sessions = Sessions::default();
        sessions.insert(ONE, LiveSession::new(at(10), EventQueue::default(), Some(SessionCache::new(true))));
        sessions
    }

    fn park(sessions: &mut Sessions, number: u64) {
        let request =
            RequestContext { connection: ConnectionId(number), session: ONE, number, acknowledged: 0 };
        let parked = Parked { request, received: at(5), answer_at: at(8), lease: LEASE };
        sessions.live(ONE).expect("it is there").lease.park(parked);
    }

    fn check(now: u64) -> LeaseCheck {
        LeaseCheck {
            now: at(now),
            drained_through: at(now),
            master_answers: true,
            is_awaited: false,
            lease: LEASE,
        }
    }

    #[test]
    fn session_expires_once_when_its_lease_has_ended() {
        let mut sessions = session();
        assert_eq!(sessions.due(ONE, &check(9)), Due::Later(at(10)));
        assert_eq!(sessions.due(ONE, &check(10)), Due::Expire);
        assert_eq!(sessions.due(ONE, &check(11)), Due::Nothing);
        assert_eq!(sessions.due(SessionId(2), &check(11)), Due::Nothing);
    }

    #[test]
    fn keep_alives_that_are_not_taken_up_yet_count() {
        let late = LeaseCheck { drained_through: at(9), ..check(20) };
        assert_eq!(session().due(ONE, &late), Due::Later(at(10)));
    }

    #[test]
    fn master_without_a_lease_ends_no_session() {
        let mute = LeaseCheck { master_answers: false, ..check(10) };
        assert_eq!(session().due(ONE, &mute), Due::Later(at(10) + STALL));
    }

    #[test]
    fn session_whose_keep_alive_is_here_is_answered() {
        let mut sessions = session();
        park(&mut sessions, 3);
        assert_eq!(sessions.due(ONE, &check(10)), Due::Answer(at(10) + STALL));
        let awaited = LeaseCheck { is_awaited: true, ..check(10) };
        assert_eq!(sessions.due(ONE, &awaited), Due::Expire, "others wait for its acknowledgement");
    }

    #[test]
    fn session_that_leaves_an_invalidation_unacknowledged_expires() {
        let mut sessions = session();
        park(&mut sessions, 3);
        let live = sessions.live(ONE).expect("it is there");
        live.cache.as_mut().expect("it caches").invalidate(CacheKey::node(Instance(1)), at(1));
        assert_eq!(sessions.due(ONE, &check(12)), Due::Answer(at(12) + STALL));
        assert_eq!(sessions.due(ONE, &check(13)), Due::Expire);
    }

    #[test]
    fn parked_keep_alive_goes_with_its_connection_only() {
        let mut sessions = session();
        park(&mut sessions, 3);
        let lease = &mut sessions.live(ONE).expect("it is there").lease;
        assert_eq!(lease.latest_end(), at(20));
        assert!(lease.unpark_from(ConnectionId(2)).is_none());
        assert!(lease.unpark_from(ConnectionId(3)).is_some());
        assert_eq!(lease.latest_end(), at(10));
        assert_eq!(lease.check_newest(2), Err(Error::Cancelled));
        assert_eq!(lease.check_newest(3), Ok(()));
    }
}
