//! The memory of a master: whatever it need not take from an earlier one, or rebuilds conservatively.

use crate::breaks::Breaks;
use crate::cache::{Cache, SessionCache};
use crate::events::{EventQueue, Publications, Subscribers, ToNotify};
use crate::fail_over::FailOver;
use crate::handles::Handles;
use crate::leases::{Lease, LeasesInForce};
use crate::lock_queue::Locks;
use crate::seal::Seal;
use crate::timers::{Timer, Timers};
use crate::waiting::Held;
use crate::{ConnectionId, Replica};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use wombat_proto::{Epoch, Error, Instant, Result, SessionId};

/// A master's memory.
pub(crate) struct Master {
    /// The epoch in which it serves.
    pub(crate) epoch: Epoch,
    pub(crate) seal: Seal,
    /// One for each session in the state.
    pub(crate) sessions: BTreeMap<SessionId, LiveSession>,
    pub(crate) locks: Locks,
    pub(crate) breaks: Breaks,
    pub(crate) cache: Cache,
    pub(crate) subscribers: Subscribers,
    /// Events that have not reached the queues of all who want them.
    pub(crate) publications: Publications,
    /// Sessions with news that have not gone out yet.
    pub(crate) to_notify: ToNotify,
    /// Whether they are so many that the rest of them waits for the next tick.
    pub(crate) crowd_waits: bool,
    pub(crate) timers: Timers,
    pub(crate) fail_over: FailOver,
    /// Requests that have to wait for the fail-over, or for the master's own lease.
    pub(crate) held: Held,
    pub(crate) leases_in_force: LeasesInForce,
}

/// What the master knows of a session beyond the state.
pub(crate) struct LiveSession {
    pub(crate) lease: Lease,
    pub(crate) handles: Handles,
    pub(crate) events: EventQueue,
    /// What it may have cached, if it may cache.
    pub(crate) cache: Option<Box<SessionCache>>,
    /// The connection that spoke for it last.
    pub(crate) connection: Option<ConnectionId>,
}

impl Master {
    pub(crate) fn session(&mut self, session: SessionId) -> Result<&mut LiveSession> {
        self.sessions.get_mut(&session).ok_or(Error::SessionExpired)
    }
}

impl Replica {
    /// Begins to serve, once the command that says so is applied (P§2.9): every session of the state gets
    /// the longest lease that any master may have promised it, every lock-delay runs anew, and every session
    /// is told that the master failed over.
    pub(crate) fn become_master(&mut self) {
        let longest_lease = self.state.lease();
        let now = self.moment.now;
        let key = self.state.key().expect("a cell that has an epoch is founded");
        let until = now + longest_lease;
        let ids = || self.state.sessions_after(SessionId(0)).map(|(id, _)| id);
        let mut master = Master {
            epoch: self.state.epoch(),
            seal: Seal::new(key),
            sessions: BTreeMap::new(),
            locks: Locks::default(),
            breaks: Breaks::default(),
            cache: Cache::default(),
            subscribers: Subscribers::default(),
            publications: Publications::default(),
            to_notify: ToNotify::default(),
            crowd_waits: false,
            timers: Timers::of(ids().map(|id| (until, Timer::Lease(id)))),
            fail_over: FailOver::new(self.state.epoch(), self.state.stamp(), now),
            held: Held::default(),
            leases_in_force: LeasesInForce::default(),
        };
        let delayed = self.state.tree().nodes().filter_map(|node| Some((node.instance, node.lock.delay()?)));
        for (instance, delay) in delayed.collect::<Vec<_>>() {
            master.start_delay(instance, delay.since, now + delay.length);
        }
        for (id, session) in self.state.sessions_after(SessionId(0)) {
            let cache = session.caches.then(|| Box::new(master.add_cache(session.has_cache_lease)));
            master.sessions.insert(id, LiveSession::new(until, EventQueue::of_fail_over(), cache));
        }
        // No later can anybody use what an earlier master let him cache.
        master.timers.set(now + self.state.cache_lease(), Timer::CachesLapse);
        self.master = Some(master);
        self.tell_sessions(longest_lease);
    }

    /// Lets something be due at that time.
    pub(crate) fn set_timer(&mut self, at: Instant, timer: Timer) {
        if let Some(master) = &mut self.master {
            master.timers.set(at, timer);
        }
    }

    /// Drops the memory of a master that is none any more. Its clients are sent away: they find the next
    /// master and ask it again.
    pub(crate) fn resign_if_deposed(&mut self) {
        let Some(begun) = self.begun else { return };
        if self.paxos.leads() == Some(begun) {
            return;
        }
        self.begun = None;
        let master = self.master.take();
        self.proposals.clear();
        // Who is known to be next is told to those who listen.
        let hint = self.paxos.successor().map(|next| self.address_of(next)).filter(|hint| !hint.is_empty());
        if let (Some(mut master), Some(_)) = (master, &hint) {
            let sessions: Vec<SessionId> = master.sessions.keys().copied().collect();
            for asker in sessions.into_iter().filter_map(|session| master.unpark(session)) {
                self.send(asker.connection, asker, Err(Error::NotMaster { hint: hint.clone() }), None);
            }
        }
        for id in self.connections.keys().copied().collect::<Vec<_>>() {
            self.hang_up(id);
        }
    }

    pub(crate) fn serving(&mut self) -> Result<&mut Master> {
        self.master.as_mut().ok_or(Error::NotMaster { hint: None })
    }
}
