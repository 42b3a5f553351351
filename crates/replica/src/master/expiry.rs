//! The end of sessions whose lease is over (P§2.8).

use super::Master;
use crate::context::Cx;
use crate::tables::sessions::{Due, LeaseCheck};
use crate::tables::timers::Timer;
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::wire::{log, log::command::Op};
use wombat_proto::{Instant, SessionId};

/// Most sessions that one command ends: thousands that end together must not stop everything else.
const MAX_ENDED_AT_ONCE: usize = 512;
/// The locks and ephemeral nodes that the sessions of one command may have in all, unless one has more.
const MAX_HELD_AT_ONCE: usize = 1024;

/// Splits sessions into batches, each of which is ended in a short step. `held`: what a session has.
fn batches(sessions: &[SessionId], held: impl Fn(SessionId) -> usize) -> Vec<&[SessionId]> {
    let (mut batches, mut first, mut sum) = (Vec::new(), 0, 0);
    for (place, session) in sessions.iter().enumerate() {
        let more = held(*session);
        if place > first && (place - first == MAX_ENDED_AT_ONCE || sum + more > MAX_HELD_AT_ONCE) {
            batches.push(&sessions[first..place]);
            (first, sum) = (place, 0);
        }
        sum += more;
    }
    batches.extend((first < sessions.len()).then_some(&sessions[first..]));
    batches
}

impl Master {
    /// Ends those of these sessions whose lease is over. Only the log ends a session: its client gets the error, and its
    /// locks go free, when the entry is applied.
    pub(super) fn end_expired(&mut self, cx: &mut Cx<'_>, due: Vec<SessionId>, drained_through: Instant) {
        let (now, master_answers, lease) = (cx.now(), cx.lease_holds(), self.lease(cx.view()));
        let mut expired = Vec::new();
        for id in due {
            let is_awaited = self.is_awaited(id);
            let check = LeaseCheck { now, drained_through, master_answers, is_awaited, lease };
            match self.sessions.due(id, &check) {
                Due::Nothing => {}
                Due::Later(at) => self.timers.set(at, Timer::Lease(id)),
                Due::Answer(at) => {
                    self.notify(id);
                    self.timers.set(at, Timer::Lease(id));
                }
                Due::Expire => expired.push(id),
            }
        }
        // Those whose end may have to wait for caches do not delay the others, nor their locks.
        let (slow, fast): (Vec<_>, Vec<_>) =
            expired.into_iter().partition(|id| self.leaves_cached_nodes(cx.view(), *id));
        let held = |id| {
            let session = cx.state.session(id);
            session.map_or(0, |session| session.lock_count() + session.ephemeral_count())
        };
        let (fast, slow) = (batches(&fast, held), batches(&slow, held));
        for batch in fast.into_iter().chain(slow) {
            let sessions = batch.iter().map(|id| id.0).collect();
            let end = Op::EndSessions(log::EndSessions { sessions, asked: false });
            if self.propose_own(cx, end).is_err() {
                self.end_later(cx, batch);
            }
        }
    }

    /// Tries the end of sessions again when the log has room.
    pub(super) fn end_later(&mut self, cx: &Cx<'_>, batch: &[SessionId]) {
        let again = cx.now() + Duration::from_millis(100);
        for id in batch {
            if let Some(live) = self.sessions.get_mut(*id) {
                live.lease.ending = false;
                self.timers.set(again, Timer::Lease(*id));
            }
        }
    }

    pub(super) fn forget_lease_timer(&mut self, session: SessionId, until: Instant) {
        self.timers.clear(until, Timer::Lease(session));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded_by_sessions_and_by_what_they_hold() {
        let sessions: Vec<SessionId> = (0..1200).map(SessionId).collect();
        let lengths = |held: fn(SessionId) -> usize| {
            batches(&sessions, held).into_iter().map(<[_]>::len).collect::<Vec<_>>()
        };
        assert_eq!(lengths(|_| 0), [512, 512, 176]);
        assert_eq!(lengths(|_| 4)[..2], [256, 256]);
        assert_eq!(lengths(|id| if id.0 == 1 { 16_000 } else { 0 }), [1, 1, 512, 512, 174]);
        let ended: Vec<SessionId> = batches(&sessions, |id| id.0 as usize).concat();
        assert_eq!(ended, sessions);
        assert!(batches(&[], |_| 0).is_empty());
    }
}
