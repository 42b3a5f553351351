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

impl Master {
    /// Ends those of these sessions whose lease is over. Only the log ends a session: its client is told, and its locks
    /// go free, when the entry is applied.
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
        for batch in fast.chunks(MAX_ENDED_AT_ONCE).chain(slow.chunks(MAX_ENDED_AT_ONCE)) {
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
