//! Session leases and the KeepAlives that extend them (P§2.8).

use crate::cache::SessionCache;
use crate::events::EventQueue;
use crate::handles::Handles;
use crate::master::{LiveSession, Master};
use crate::timers::Timer;
use crate::{Answer, Asker, ConnectionId, Replica};
use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::limits::{
    IDLE_END, KEEP_ALIVES_PER_SECOND, LEASE, REVOCATIONS, keep_alive_hold, lease_for_hold,
};
use wombat_proto::wire::{self, log, log::command::Op};
use wombat_proto::{Error, Instant, Result, SessionId};
use wombat_state::Session;

/// When a master takes a step this long after the last one, it was itself stopped, or the machine slept.
const STALL: Duration = Duration::from_secs(2);

/// Most sessions that one command ends: thousands that die together do not stop the world (PITFALLS 18).
const ENDED_AT_ONCE: usize = 512;

/// The master's view of a session's lease.
pub(crate) struct Lease {
    /// The master ends the session no earlier. Never moves back (SPEC I5).
    pub(crate) until: Instant,
    /// Whether its end has been proposed.
    pub(crate) ending: bool,
    /// The KeepAlive that waits for an answer.
    parked: Option<Parked>,
    /// The highest number of a KeepAlive so far: a copy of an older one, delayed on a connection that its
    /// client has left, must not take the place of the one that is waited for.
    last_keep_alive: u64,
    /// Since when it has had no handle and made no call.
    idle_since: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Parked {
    asker: Asker,
    received: Instant,
    /// When it is answered even if there is nothing to tell.
    answer_at: Instant,
    /// The answer extends the session lease by no more than this, so that it is known from now on when the session
    /// ends if this is the last KeepAlive.
    lease: Duration,
}

impl LiveSession {
    pub(crate) fn new(until: Instant, events: EventQueue, cache: Option<Box<SessionCache>>) -> LiveSession {
        let lease = Lease { until, ending: false, parked: None, last_keep_alive: 0, idle_since: None };
        LiveSession { lease, handles: Handles::default(), events, cache, connection: None }
    }
}

impl Lease {
    /// Whether a KeepAlive waits for an answer.
    pub(crate) fn is_parked(&self) -> bool {
        self.parked.is_some()
    }

    /// When it ends at the latest if no more KeepAlives come: after the answer to the one that is pending.
    fn latest_end(&self) -> Instant {
        self.parked.map_or(self.until, |parked| self.until.max(parked.answer_at + parked.lease))
    }

    /// The session makes a call other than a KeepAlive.
    pub(crate) fn is_busy(&mut self) {
        self.idle_since = None;
    }
}

impl Master {
    /// Takes a new session in whose lease lasts until `until`.
    pub(crate) fn admit(&mut self, session: SessionId, until: Instant, caches: bool) {
        let cache = caches.then(|| Box::new(self.add_cache(false)));
        self.sessions.insert(session, LiveSession::new(until, EventQueue::default(), cache));
        self.timers.set(until, Timer::Lease(session));
    }

    /// Extends a session's lease to `until`, unless it lasts longer already.
    pub(crate) fn extend(&mut self, session: SessionId, until: Instant) -> Result<()> {
        let lease = &mut self.session(session)?.lease;
        lease.until = lease.until.max(until);
        Ok(())
    }

    /// Takes the parked KeepAlive of a session.
    pub(crate) fn unpark(&mut self, session: SessionId) -> Option<Asker> {
        let parked = self.sessions.get_mut(&session)?.lease.parked.take()?;
        self.timers.clear(parked.answer_at, Timer::KeepAlive(session));
        Some(parked.asker)
    }

    /// Forgets the parked KeepAlive of a session if it came on a connection that is gone: to answer it would
    /// lengthen the lease of a client that cannot hear of it.
    fn unpark_from(&mut self, session: SessionId, connection: ConnectionId) {
        let parked = self.sessions.get(&session).and_then(|live| live.lease.parked);
        if parked.is_some_and(|parked| parked.asker.connection == connection) {
            self.unpark(session);
        }
    }
}

/// What a master has in mind with the longest leases in force: that of sessions, and that of their caches.
#[derive(Default)]
pub(crate) struct LeasesInForce {
    /// Others, on their way into the log.
    proposed: Option<[Duration; 2]>,
    /// To lower each to that, as none longer was granted since then.
    lower: [Option<(Duration, Instant)>; 2],
}

impl LeasesInForce {
    /// Most that is granted of the one and of the other: no more than what the log will have in a moment, or is
    /// to have soon, as no longer one was granted since that was decided.
    pub(crate) fn bounds(&self) -> [Duration; 2] {
        let proposed = self.proposed.unwrap_or([Duration::MAX; 2]);
        let lower = self.lower.map(|lower| lower.map_or(Duration::MAX, |(lower, _)| lower));
        [proposed[0].min(lower[0]), proposed[1].min(lower[1])]
    }
}

/// What the longest lease in force should be, if it should be another: longer before such a one is granted, and
/// shorter when all longer ones have ended.
fn next_in_force(
    lower: &mut Option<(Duration, Instant)>,
    (usual, wanted, in_force): (Duration, Duration, Duration),
    now: Instant,
) -> Option<Duration> {
    // A little more, so that not every session that comes needs an entry.
    let aim = if wanted > usual { (wanted + wanted / 4).min(LEASE) } else { wanted };
    *lower = lower.filter(|(lower, _)| wanted <= *lower);
    if wanted > in_force {
        Some(aim)
    } else if aim < in_force {
        let (lower, since) = *lower.get_or_insert((aim, now));
        (now >= since + in_force).then_some(lower)
    } else {
        None
    }
}

/// Of how many locks of a session it is looked at whether their ends clear contents.
const LOCKS_LOOKED_AT: usize = 16;

impl Replica {
    /// The session lease that is granted now: the configured one or, where so many sessions would make too many
    /// KeepAlives, a longer one, as far as the log has it.
    pub(crate) fn lease(&self) -> Duration {
        let bound = self.master.as_ref().map_or(Duration::MAX, |master| master.leases_in_force.bounds()[0]);
        self.wanted_lease().min(self.state.lease()).min(bound)
    }

    /// The lease that a session is granted now. One that has still to acknowledge the fail-over gets no longer
    /// one than it had from the start, and one that has a lock to give up or something to drop from its cache none
    /// that grows without end: whatever else it says, the others wait no longer for it.
    pub(crate) fn lease_of(&self, session: SessionId) -> Duration {
        let bound = self.master.as_ref().and_then(|master| self.lease_bound(master, session));
        bound.map_or(Duration::MAX, |bound| bound.since(self.moment.now)).min(self.lease())
    }

    /// What the lease of a session is not extended beyond, for the reasons of [`Replica::lease_of`].
    fn lease_bound(&self, master: &Master, session: SessionId) -> Option<Instant> {
        let live = master.sessions.get(&session);
        let bounds = [
            live.filter(|_| master.fail_over.awaits(session)).map(|live| live.lease.until),
            master.breaks.lease_bound(session),
            live.and_then(|live| Some(live.cache.as_ref()?.unheard_since()? + self.lease())),
        ];
        bounds.into_iter().flatten().min()
    }

    /// For how long a session can live at most if no more KeepAlives come from it; while a lock of it is being
    /// broken, whatever comes from it. Another master, and one that stood still itself, gives it a whole lease.
    pub(crate) fn lives_within(&self, session: SessionId) -> Duration {
        let Some(master) = &self.master else { return Duration::ZERO };
        let Some(live) = master.sessions.get(&session) else { return Duration::ZERO };
        let pending = master.breaks.lease_bound(session).unwrap_or(live.lease.latest_end());
        let bound = self.lease_bound(master, session).unwrap_or(pending);
        let end = live.lease.until.max(pending.min(bound)).since(self.moment.now);
        if self.leaves_cached_nodes(session) { end + self.state.cache_lease() } else { end }
    }

    /// Whether ephemeral nodes or contents may go with a session, so that its end waits for the sessions that have
    /// them cached.
    fn leaves_cached_nodes(&self, session: SessionId) -> bool {
        let opens = self.master.as_ref().is_some_and(|master| master.cache.has_waiting(session))
            || self.proposals.opened_by(&[session.0]).next().is_some();
        let clears = |(instance, handle)| {
            let holder = self.state.tree().get(instance).and_then(|node| node.lock.holder(session, handle));
            holder.is_some_and(|holder| holder.clears_contents)
        };
        let held = self.state.session(session);
        // Of one that holds many, it is assumed: each lock that an operator lists asks this of its holders.
        let locks_clear = |held: &Session| held.lock_count() > LOCKS_LOOKED_AT || held.locks().any(clears);
        opens || held.is_some_and(|held| held.ephemeral_count() > 0 || locks_clear(held))
    }

    /// Every session sends a KeepAlive in the time for which that is held.
    fn wanted_lease(&self) -> Duration {
        let sessions = u32::try_from(self.state.session_count()).unwrap_or(u32::MAX);
        let paced = lease_for_hold(Duration::from_secs(1).saturating_mul(sessions) / KEEP_ALIVES_PER_SECOND);
        self.config.lease.max(paced.min(LEASE))
    }

    /// A longer lease stands in the log before it is granted, and for as long as it may be in force: the next
    /// master must give every session as much, and wait for as long until nobody has anything cached.
    pub(crate) fn tend_leases(&mut self) {
        let now = self.moment.now;
        let in_force = [self.state.lease(), self.state.cache_lease()];
        let session = (self.config.lease, self.wanted_lease(), in_force[0]);
        let cache = (self.config.cache_lease, self.wanted_cache_lease().min(LEASE), in_force[1]);
        let Some(master) = &mut self.master else { return };
        let plan = &mut master.leases_in_force;
        if plan.proposed.is_some() {
            return;
        }
        let [lower, lower_cache] = &mut plan.lower;
        let next = [next_in_force(lower, session, now), next_in_force(lower_cache, cache, now)];
        if next == [None, None] {
            return;
        }
        let [lease, cache_lease] = [next[0].unwrap_or(in_force[0]), next[1].unwrap_or(in_force[1])];
        let millis = |lease: Duration| lease.as_millis() as u32;
        let set = log::SetLease { lease_ms: millis(lease), cache_lease_ms: millis(cache_lease) };
        let proposed = self.propose_own(Op::SetLease(set)).is_ok().then_some([lease, cache_lease]);
        if let Some(master) = &mut self.master {
            master.leases_in_force = LeasesInForce { proposed, ..LeasesInForce::default() };
        }
    }

    /// The longest leases in force are what the log says now.
    pub(crate) fn leases_were_set(&mut self) {
        if let Some(master) = &mut self.master {
            master.leases_in_force.proposed = None;
        }
    }

    /// A connection is gone. That ends no session (SPEC §3).
    pub(crate) fn disconnected(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.remove(&id) else { return };
        let Some(master) = &mut self.master else { return };
        for session in connection.sessions {
            master.unpark_from(session, id);
        }
    }

    /// Parks a KeepAlive until the lease has to be extended or there is news. A newer one takes the place of an
    /// older, whose connection is gone.
    pub(crate) fn keep_alive(
        &mut self,
        asker: Asker,
        keep_alive: &wire::KeepAlive,
    ) -> Result<Option<Answer>> {
        let (now, lease) = (self.moment.now, self.lease());
        if keep_alive.revocations_heard.len().max(keep_alive.revocations_obeyed.len()) > REVOCATIONS {
            let what = format!("a KeepAlive that speaks of more than {REVOCATIONS} revocations");
            return Err(Error::TooLarge { what });
        }
        self.forget_given_back(asker.session);
        let master = self.serving()?;
        if asker.number < master.session(asker.session)?.lease.last_keep_alive {
            return Err(Error::Cancelled);
        }
        master.note_reads(asker.session, keep_alive.reads_cache);
        master.note_hits(asker.session, keep_alive.cached_reads);
        self.hear_of_dropped(asker.session, keep_alive.invalidations_acknowledged);
        let cache_due = self.cache_due(asker.session);
        let master = self.serving()?;
        master.unpark(asker.session);
        let live = master.session(asker.session)?;
        live.lease.last_keep_alive = asker.number;
        live.events.acknowledge(keep_alive.events_acknowledged);
        live.lease.idle_since = if keep_alive.idle && live.handles.len() == 0 {
            live.lease.idle_since.or(Some(now))
        } else {
            None
        };
        // After a fail-over the session may last for longer than its client was told.
        let until = live.lease.until.min(now + lease);
        let hold = keep_alive_hold(lease);
        let due = until - (lease - hold) - out_of_step(asker.session, hold);
        let answer_at = due.min(cache_due.unwrap_or(due)).max(now);
        live.lease.parked = Some(Parked { asker, received: now, answer_at, lease });
        let news = !live.events.is_empty() || live.cache.as_ref().is_some_and(|cache| cache.has_news());
        let revoked = master.breaks.answered(asker.session, keep_alive);
        if news || revoked || answer_at <= now {
            master.notify(asker.session);
        } else {
            master.timers.set(answer_at, Timer::KeepAlive(asker.session));
        }
        // The first event of an epoch is that the master failed over.
        if keep_alive.events_acknowledged > 0 {
            master.fail_over.settled(asker.session);
        }
        Ok(None)
    }

    /// Answers the parked KeepAlive of a session, if one waits. The lease of the master holds.
    pub(crate) fn answer_keep_alive(&mut self, session: SessionId) {
        let (now, lease) = (self.moment.now, self.lease_of(session));
        let Ok(master) = self.serving() else { return };
        let epoch = master.epoch.0;
        let Ok(live) = master.session(session) else { return };
        if live.lease.ending {
            return; // Too late: it hears that its session has expired.
        }
        // Its client ends such a session itself, a little earlier, unless it is of another make.
        let idle = live.lease.idle_since.is_some_and(|since| now >= since + IDLE_END + lease / 2);
        let cached = live.cache.as_ref().is_some_and(|cache| now < cache.until());
        let state = self.state.session(session);
        let holds_nothing = state.is_some_and(|held| held.lock_count() + held.ephemeral_count() == 0);
        if idle && holds_nothing && !cached {
            return self.end_idle(session);
        }
        let cache_lease = self.cache_lease();
        let Ok(master) = self.serving() else { return };
        let knows_epoch = !master.fail_over.awaits(session);
        let Ok(live) = master.session(session) else { return };
        let Some(parked) = live.lease.parked.take() else { return };
        let lease = lease.min(parked.lease);
        live.lease.until = live.lease.until.max(now + lease);
        let told = live.cache.as_mut().map(|cache| cache.answer(now, cache_lease.min(lease), knows_epoch));
        let (first_event, events) = live.events.unacknowledged();
        let revocations = master.breaks.revocations(session);
        master.timers.clear(parked.answer_at, Timer::KeepAlive(session));
        let answer = Answer::KeptAlive(wire::KeptAlive {
            lease_ms: lease.as_millis() as u32,
            held_us: now.since(parked.received).as_micros() as u64,
            epoch,
            first_event,
            events,
            revocations,
            ..told.unwrap_or_default()
        });
        self.reply(parked.asker, Ok(answer));
    }

    /// Ends a session that holds nothing and asks for nothing.
    fn end_idle(&mut self, session: SessionId) {
        let op = Op::EndSessions(log::EndSessions { sessions: [session.0].into(), asked: true });
        let ending = self.propose_own(op).is_ok();
        let again = self.moment.now + Duration::from_secs(1);
        let live = self.master.as_mut().and_then(|master| master.sessions.get_mut(&session));
        let Some(live) = live else { return };
        live.lease.ending = ending;
        if !ending {
            self.set_timer(again, Timer::KeepAlive(session));
        }
    }

    /// Ends the sessions whose lease is over. Only the log ends a session: its clients are told, and its
    /// locks go free, when the entry is applied.
    pub(crate) fn end_expired(&mut self, candidates: Vec<SessionId>, heard: Instant) {
        let now = self.moment.now;
        let (answers, lease) = (self.lease_holds(), self.lease());
        let Ok(master) = self.serving() else { return };
        let mut expired = Vec::new();
        for id in candidates {
            let Some(live) = master.sessions.get(&id) else { continue };
            let (until, parked) = (live.lease.until, live.lease.parked.is_some());
            let unheard_since = live.cache.as_ref().and_then(|cache| cache.unheard_since());
            let is_deaf = unheard_since.is_some_and(|since| since + lease <= now);
            if until > heard {
                master.timers.set(until, Timer::Lease(id));
            } else if !answers {
                // Its client may be there, and wait: it is this master that cannot answer, for want of its own
                // lease. Once it can, there is time to hear of each other.
                master.timers.set(now + STALL, Timer::Lease(id));
            } else if parked && !is_deaf && !master.is_awaited(id) {
                master.notify(id);
                master.timers.set(now + STALL, Timer::Lease(id));
            } else if let Some(live) = master.sessions.get_mut(&id).filter(|live| !live.lease.ending) {
                live.lease.ending = true;
                expired.push(id);
            }
        }
        // Those whose end may have to wait for caches keep no others waiting, nor their locks.
        let (slow, fast): (Vec<_>, Vec<_>) =
            expired.into_iter().partition(|id| self.leaves_cached_nodes(*id));
        for batch in fast.chunks(ENDED_AT_ONCE).chain(slow.chunks(ENDED_AT_ONCE)) {
            let op = Op::EndSessions(log::EndSessions {
                sessions: batch.iter().map(|id| id.0).collect(),
                asked: false,
            });
            if self.propose_own(op).is_err() {
                self.end_later(batch);
            }
        }
    }

    /// Tries the end of sessions again when the log has room.
    pub(crate) fn end_later(&mut self, batch: &[SessionId]) {
        let again = self.moment.now + Duration::from_millis(100);
        let Ok(master) = self.serving() else { return };
        for id in batch {
            if let Some(live) = master.sessions.get_mut(id) {
                live.lease.ending = false;
                master.timers.set(again, Timer::Lease(*id));
            }
        }
    }

    /// After a stall of its own, a master gives every session a whole lease: their KeepAlives may lie unread
    /// in its sockets, and a timeout may always move forward.
    pub(crate) fn forgive_stall(&mut self, stalled: Duration) {
        if stalled < STALL {
            return;
        }
        let until = self.moment.now + self.lease();
        let Ok(master) = self.serving() else { return };
        for live in master.sessions.values_mut() {
            live.lease.until = live.lease.until.max(until);
        }
    }
}

/// By how much earlier than others a session is answered: those that came all at once, to a new master, do not
/// stay in step.
fn out_of_step(session: SessionId, hold: Duration) -> Duration {
    hold / 8 * (session.0 % 64) as u32 / 64
}
