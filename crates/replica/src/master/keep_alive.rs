//! KeepAlives (P§2.8): a session's KeepAlive is parked until its lease has to be extended or there is news, and then
//! answered with both.

use super::Master;
use crate::context::Cx;
use crate::request::{Answer, ConnectionId, Reply, RequestContext};
use crate::tables::connections::Connection;
use crate::tables::sessions::Parked;
use crate::tables::timers::Timer;
use core::time::Duration;
use wombat_proto::limits::{IDLE_END, REVOCATIONS, keep_alive_hold};
use wombat_proto::wire::{self, log, log::command::Op};
use wombat_proto::{Error, Instant, Result, SessionId};

impl Master {
    /// Parks a KeepAlive. A newer one replaces an older one, whose connection is gone.
    pub(super) fn keep_alive(
        &mut self,
        cx: &mut Cx<'_>,
        request: RequestContext,
        keep_alive: &wire::KeepAlive,
    ) -> Result<Reply> {
        let (now, lease, session) = (cx.now(), self.lease(cx.view()), request.session);
        if keep_alive.revocations_heard.len().max(keep_alive.revocations_obeyed.len()) > REVOCATIONS {
            let what = alloc::format!("a KeepAlive that speaks of more than {REVOCATIONS} revocations");
            return Err(Error::TooLarge { what });
        }
        self.revocations.forget_released(session, cx.state);
        self.sessions.live(session)?.lease.check_newest(request.number)?;
        self.update_cache_use(session, keep_alive);
        self.invalidations_acknowledged(cx, session, keep_alive.invalidations_acknowledged);
        let cache_lease = self.cache_lease(cx.view());
        let live = self.sessions.live(session)?;
        if let Some(earlier) = live.lease.unpark() {
            self.timers.clear(earlier.answer_at, Timer::KeepAlive(session));
        }
        live.events.acknowledge(keep_alive.events_acknowledged);
        let is_idle = keep_alive.idle && live.handles.len() == 0;
        live.lease.idle_since = live.lease.idle_since.or(Some(now)).filter(|_| is_idle);
        // After a fail-over the session may last for longer than its client knows.
        let until = live.lease.until.min(now + lease);
        let hold = keep_alive_hold(lease);
        let due = until - (lease - hold) - stagger(session, hold);
        let cache_due = live.cache.as_ref().and_then(|cache| cache.due(cache_lease));
        let answer_at = due.min(cache_due.unwrap_or(due)).max(now);
        live.lease.park(Parked { request, received: now, answer_at, lease });
        let has_news = live.has_news();
        let is_revoked = self.revocations.acknowledge(session, keep_alive);
        if has_news || is_revoked || answer_at <= now {
            self.notify(session);
        } else {
            self.timers.set(answer_at, Timer::KeepAlive(session));
        }
        // The first event of an epoch is that the master failed over.
        if keep_alive.events_acknowledged > 0 {
            self.fail_over.acknowledged(session);
        }
        Ok(Reply::Later)
    }

    /// Answers the parked KeepAlive of a session, if it has one. The lease of the master holds.
    pub(super) fn answer_keep_alive(&mut self, cx: &mut Cx<'_>, session: SessionId) {
        let now = cx.now();
        let lease = self.lease_of(cx.view(), session);
        let cache_lease = self.cache_lease(cx.view());
        let knows_epoch = !self.fail_over.awaits(session);
        let Some(live) = self.sessions.get_mut(session) else { return };
        if live.lease.ending {
            return; // Too late: its KeepAlive is answered when the session has expired.
        }
        // The client ends such a session itself, a little earlier, unless it is another implementation.
        let is_idle = live.lease.idle_since.is_some_and(|since| now >= since + IDLE_END + lease / 2);
        let may_cache = live.cache.as_ref().is_some_and(|cache| now < cache.until());
        let held = cx.state.session(session);
        let holds_nothing = held.is_some_and(|held| held.lock_count() + held.ephemeral_count() == 0);
        if is_idle && holds_nothing && !may_cache {
            return self.end_idle(cx, session);
        }
        let Some(parked) = live.lease.unpark() else { return };
        let lease = lease.min(parked.lease);
        live.lease.extend(now + lease);
        let cache = live.cache.as_mut().map(|cache| cache.answer(now, cache_lease.min(lease), knows_epoch));
        let (first_event, events) = live.events.unacknowledged();
        self.timers.clear(parked.answer_at, Timer::KeepAlive(session));
        let answer = Answer::KeptAlive(wire::KeptAlive {
            lease_ms: lease.as_millis() as u32,
            held_us: now.since(parked.received).as_micros() as u64,
            epoch: self.epoch.0,
            first_event,
            events,
            revocations: self.revocations.of(session),
            ..cache.unwrap_or_default()
        });
        self.reply(cx, parked.request, Ok(answer));
    }

    /// Notes how a session uses its cache.
    fn update_cache_use(&mut self, session: SessionId, keep_alive: &wire::KeepAlive) {
        if let Some(cache) = self.sessions.get_mut(session).and_then(|live| live.cache.as_mut()) {
            self.cache_keys.note_reads(session, cache, keep_alive.reads_cache);
            self.cache_keys.count_reads(cache, keep_alive.cached_reads);
        }
    }

    /// Ends a session that holds nothing and asks for nothing.
    fn end_idle(&mut self, cx: &mut Cx<'_>, session: SessionId) {
        let end = log::EndSessions { sessions: [session.0].into(), asked: true };
        let ending = self.propose_own(cx, Op::EndSessions(end)).is_ok();
        let Some(live) = self.sessions.get_mut(session) else { return };
        live.lease.ending = ending;
        if !ending {
            self.timers.set(cx.now() + Duration::from_secs(1), Timer::KeepAlive(session));
        }
    }

    /// A connection is gone. That ends no session (SPEC §3).
    pub(crate) fn disconnected(&mut self, id: ConnectionId, connection: Connection) {
        for session in connection.sessions {
            let live = self.sessions.get_mut(session);
            if let Some(parked) = live.and_then(|live| live.lease.unpark_from(id)) {
                self.timers.clear(parked.answer_at, Timer::KeepAlive(session));
            }
        }
    }

    pub(super) fn forget_keep_alive_timer(&mut self, session: SessionId, answer_at: Instant) {
        self.timers.clear(answer_at, Timer::KeepAlive(session));
    }
}

/// By how much earlier than others a session is answered: sessions that came all at once, to a new master, do not
/// stay in step.
fn stagger(session: SessionId, hold: Duration) -> Duration {
    hold / 8 * (session.0 % 64) as u32 / 64
}
