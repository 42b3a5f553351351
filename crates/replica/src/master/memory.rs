//! The memory of a master: what the log does not hold, and a new master rebuilds conservatively.

use crate::context::Cx;
use crate::request::{Answer, ConnectionId, RequestContext};
use crate::tables::cache_keys::CacheKeys;
use crate::tables::connections::Connections;
use crate::tables::deferred::Deferred;
use crate::tables::fail_over::FailOver;
use crate::tables::invalidations::Invalidations;
use crate::tables::leases::LeasePlan;
use crate::tables::lock_queue::LockQueue;
use crate::tables::outbox::{AnswerQueue, EventQueue, Publications};
use crate::tables::revocations::Revocations;
use crate::tables::sessions::{LiveSession, Sessions};
use crate::tables::signer::Signer;
use crate::tables::subscriptions::Subscriptions;
use crate::tables::timers::{Timer, Timers};
use crate::tables::waiting_changes::WaitingChanges;
use alloc::string::String;
use alloc::vec::Vec;
use wombat_proto::{Epoch, Error, Instance, Instant, Result, SessionId, Slot};

/// A master.
pub(crate) struct Master {
    /// The epoch in which it serves.
    pub(super) epoch: Epoch,
    pub(super) signer: Signer,
    pub(super) sessions: Sessions,
    pub(super) locks: LockQueue,
    /// Locks with a release on its way into the log, whose next waiter has not had its turn yet.
    pub(super) released: Vec<Instance>,
    pub(super) revocations: Revocations,
    pub(super) cache_keys: CacheKeys,
    pub(super) invalidations: Invalidations,
    pub(super) changes: WaitingChanges,
    pub(super) subscriptions: Subscriptions,
    pub(super) publications: Publications,
    /// Sessions whose KeepAlives are to be answered.
    pub(super) answers: AnswerQueue,
    pub(super) timers: Timers,
    pub(super) fail_over: FailOver,
    pub(super) deferred: Deferred,
    pub(super) lease_plan: LeasePlan,
}

impl Master {
    /// Begins to serve, once the command that says so is applied (P§2.9): every session of the state gets the
    /// longest lease that any master may have granted it, every lock-delay runs again, and every session gets an
    /// event that reports the fail-over.
    pub(crate) fn new(cx: &mut Cx<'_>) -> Master {
        let state = cx.state;
        let longest_lease = state.lease();
        let now = cx.now();
        let key = state.key().expect("a cell that has an epoch is founded");
        let until = now + longest_lease;
        let ids = state.sessions_after(SessionId(0)).map(|(id, _)| id);
        let mut master = Master {
            epoch: state.epoch(),
            signer: Signer::new(key),
            sessions: Sessions::default(),
            locks: LockQueue::default(),
            released: Vec::new(),
            revocations: Revocations::default(),
            cache_keys: CacheKeys::default(),
            invalidations: Invalidations::default(),
            changes: WaitingChanges::default(),
            subscriptions: Subscriptions::default(),
            publications: Publications::default(),
            answers: AnswerQueue::default(),
            timers: Timers::of(ids.map(|id| (until, Timer::Lease(id)))),
            fail_over: FailOver::new(state.epoch(), state.stamp(), now),
            deferred: Deferred::default(),
            lease_plan: LeasePlan::default(),
        };
        for node in state.tree().delayed() {
            if let Some(delay) = node.lock.delay() {
                master.start_delay(node.instance, delay.since, now + delay.length);
            }
        }
        for (id, session) in state.sessions_after(SessionId(0)) {
            let cache = session.caches.then(|| master.cache_keys.add_client(session.has_cache_lease));
            master.sessions.insert(id, LiveSession::new(until, EventQueue::of_fail_over(), cache));
        }
        // No entry that an earlier master let a session cache can be used later than this.
        master.timers.set(now + state.cache_lease(), Timer::CachesLapse);
        master.begin_fail_over(cx, longest_lease);
        master
    }

    /// The epoch in which it serves.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Lets a lock-delay run until `until`.
    pub(super) fn start_delay(&mut self, instance: Instance, since: Slot, until: Instant) {
        self.locks.start_delay(instance, since, until);
        self.timers.set(until, Timer::Delay(instance, since));
    }

    /// Sends an answer to where the session was attached last: a delayed copy of a request must not move the answer
    /// to a connection that its client has left.
    pub(super) fn reply(&self, cx: &mut Cx<'_>, request: RequestContext, result: Result<Answer>) {
        cx.respond(self.connection_of(request), request, result, None);
    }

    pub(super) fn connection_of(&self, request: RequestContext) -> ConnectionId {
        let live = self.sessions.get(request.session);
        live.and_then(|live| live.connection).unwrap_or(request.connection)
    }

    /// Lets the KeepAlive of a session be answered, if it has one parked. Otherwise the next one finds the news.
    pub(super) fn notify(&mut self, session: SessionId) {
        if self.sessions.get(session).is_some_and(|live| live.lease.is_parked()) {
            self.answers.add(session);
        }
    }

    /// Ends the mastership. If the next master is known, the parked KeepAlives are answered with its address.
    pub(crate) fn resign(mut self, cx: &mut Cx<'_>, next: Option<String>) {
        if next.is_none() {
            return;
        }
        let parked: Vec<_> = self.sessions.iter_mut().filter_map(|(_, live)| live.lease.unpark()).collect();
        for parked in parked {
            let moved = Err(Error::NotMaster { hint: next.clone() });
            cx.respond(parked.request.connection, parked.request, moved, None);
        }
    }

    /// Whether a connection speaks for a session that lives, and that was attached to no other connection since.
    pub(crate) fn serves_session(&self, connections: &mut Connections, id: ConnectionId) -> bool {
        let attached = connections.retain(id, |session| self.sessions.contains(session));
        attached.is_some_and(|sessions| {
            let connection = |session: &SessionId| self.sessions.get(*session)?.connection;
            sessions.iter().any(|session| connection(session) == Some(id))
        })
    }
}
