//! Session leases and the KeepAlives that extend them (P§2.8).

use crate::events::EventQueue;
use crate::handles::Handles;
use crate::master::{LiveSession, Master};
use crate::timers::Timer;
use crate::{Answer, Asker, Replica};
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::wire::{self, log};
use wombat_proto::{Error, Instant, Result, SessionId};

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
}

#[derive(Clone, Copy)]
struct Parked {
    asker: Asker,
    received: Instant,
    /// When it is answered even if there is nothing to tell.
    answer_at: Instant,
}

impl Master {
    /// Takes a session in whose lease lasts until `until`.
    pub(crate) fn admit(&mut self, session: SessionId, until: Instant) {
        let lease = Lease { until, ending: false, parked: None, last_keep_alive: 0 };
        let live = LiveSession {
            lease,
            handles: Handles::default(),
            events: EventQueue::default(),
            connection: None,
        };
        self.sessions.insert(session, live);
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

    /// Whether a KeepAlive of the session waits for news.
    pub(crate) fn is_parked(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|live| live.lease.parked.is_some())
    }
}

impl Replica {
    /// Parks a KeepAlive until half of the lease is over or there is news. A newer one takes the place of an
    /// older, whose connection is gone.
    pub(crate) fn keep_alive(
        &mut self,
        asker: Asker,
        keep_alive: &wire::KeepAlive,
    ) -> Result<Option<Answer>> {
        let (now, lease) = (self.moment.now, self.config.lease);
        let master = self.serving()?;
        if asker.number < master.session(asker.session)?.lease.last_keep_alive {
            return Err(Error::Cancelled);
        }
        master.unpark(asker.session);
        let live = master.session(asker.session)?;
        live.lease.last_keep_alive = asker.number;
        live.events.acknowledge(keep_alive.events_acknowledged);
        let answer_at = (live.lease.until - lease / 2).max(now);
        live.lease.parked = Some(Parked { asker, received: now, answer_at });
        if !live.events.is_empty() || answer_at <= now {
            return self.answer_keep_alive(asker.session).map(|()| None);
        }
        master.timers.set(answer_at, Timer::KeepAlive(asker.session));
        Ok(None)
    }

    /// Answers the parked KeepAlive of a session, if one waits and this replica is surely master still.
    pub(crate) fn answer_keep_alive(&mut self, session: SessionId) -> Result<()> {
        if !self.paxos.lease_holds(self.moment.now) {
            return Err(Error::NotMaster { hint: None });
        }
        let (now, lease) = (self.moment.now, self.config.lease);
        let master = self.serving()?;
        let epoch = master.epoch.0;
        let live = master.session(session)?;
        if live.lease.ending {
            return Ok(()); // Too late: it hears that its session has expired.
        }
        let Some(parked) = live.lease.parked.take() else { return Ok(()) };
        live.lease.until = live.lease.until.max(now + lease);
        let (first_event, events) = live.events.unacknowledged();
        master.timers.clear(parked.answer_at, Timer::KeepAlive(session));
        let answer = Answer::KeptAlive(wire::KeptAlive {
            lease_ms: lease.as_millis() as u32,
            held_us: now.since(parked.received).as_micros() as u64,
            epoch,
            first_event,
            events,
        });
        self.reply(parked.asker, Ok(answer));
        Ok(())
    }

    /// Ends the sessions whose lease is over. Only the log ends a session: its clients are told, and its
    /// locks go free, when the entry is applied.
    pub(crate) fn end_expired(&mut self, candidates: Vec<SessionId>) {
        let now = self.moment.now;
        let Ok(master) = self.serving() else { return };
        let mut expired = Vec::new();
        for id in candidates {
            let Some(live) = master.sessions.get_mut(&id) else { continue };
            if live.lease.until > now {
                master.timers.set(live.lease.until, Timer::Lease(id));
            } else if !live.lease.ending {
                live.lease.ending = true;
                expired.push(id);
            }
        }
        for batch in expired.chunks(ENDED_AT_ONCE) {
            let delays_over = self.delays_over_of_sessions(batch);
            let op = log::command::Op::EndSessions(log::EndSessions {
                sessions: batch.iter().map(|id| id.0).collect(),
                asked: false,
            });
            if self.propose(crate::proposals::Origin::Own, 0, delays_over, op).is_err() {
                self.end_later(batch);
            }
        }
    }

    /// Tries the end of sessions again when the log has room.
    fn end_later(&mut self, batch: &[SessionId]) {
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
        let until = self.moment.now + self.config.lease;
        let Ok(master) = self.serving() else { return };
        for live in master.sessions.values_mut() {
            live.lease.until = live.lease.until.max(until);
        }
    }
}
