//! The way of a new master from its election to ordinary service, in nine steps (P§2.9, SPEC §7). The first two come
//! before there is a master's memory.

use super::Master;
use crate::context::Cx;
use crate::stage::Stage;
use crate::tables::timers::Timer;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::limits::ORPHANS_AFTER;
use wombat_proto::wire::{log, log::command::Op};
use wombat_proto::{HandleId, SessionId};

/// Most handles that one command closes.
const MAX_CLOSED_AT_ONCE: usize = 512;

impl Master {
    /// The master takes its next step.
    fn reach(&mut self, cx: &mut Cx<'_>, stage: Stage) {
        self.fail_over.reach(stage.clone());
        cx.out.stages.push((self.epoch, stage));
    }

    /// Steps 3 to 6, once the master's memory is rebuilt.
    pub(super) fn begin_fail_over(&mut self, cx: &mut Cx<'_>, lease: Duration) {
        let caching = cx.state.sessions_after(SessionId(0)).filter(|(_, session)| session.has_cache_lease);
        let awaited: BTreeSet<SessionId> = caching.map(|(id, _)| id).collect();
        let (sessions, locks) = (cx.state.session_count(), cx.state.tree().locks_held());
        let awaits = Stage::Awaits { sessions: awaited.len() };
        self.fail_over.await_sessions(awaited);
        let rebuilt = Stage::Rebuilt { sessions, locks, lease };
        for stage in [rebuilt, Stage::KeepsAlive, Stage::Tells { sessions }, awaits] {
            self.reach(cx, stage);
        }
    }

    /// Step 7, once every session that may have something cached has acknowledged the fail-over or ended, or the longest
    /// cache lease has ended.
    pub(crate) fn finish_fail_over(&mut self, cx: &mut Cx<'_>) {
        if let Some(after) = self.fail_over.finish(cx.now()) {
            self.timers.set(cx.now() + ORPHANS_AFTER, Timer::Orphans);
            self.reach(cx, Stage::Serves { after });
        }
    }

    /// Step 8 has begun. A holder whose handle was made again gets an event if sessions wait for its lock already.
    pub(super) fn report_recreated(&mut self, cx: &mut Cx<'_>) {
        for (instance, holder) in self.fail_over.take_recreated() {
            self.report_waiters(cx, instance, holder);
        }
        if self.fail_over.begins_to_recreate() {
            self.reach(cx, Stage::Recreates);
        }
    }

    /// Step 9: closes the handles on ephemeral nodes that their clients have not presented to this master. They would
    /// keep the nodes alive although no client uses them.
    pub(super) fn close_orphans(&mut self, cx: &mut Cx<'_>) {
        let mut orphans = Vec::new();
        for (id, session) in cx.state.sessions_after(SessionId(0)) {
            let Some(live) = self.sessions.get(id) else { continue };
            let forgotten = session.ephemerals().filter(|(_, handle)| !live.handles.is_open(*handle));
            orphans.extend(forgotten.map(|(instance, HandleId(handle))| log::Orphan {
                session: id.0,
                instance: instance.0,
                handle,
            }));
        }
        for batch in orphans.chunks(MAX_CLOSED_AT_ONCE) {
            let close = log::CloseOrphans { handles: batch.to_vec() };
            if self.propose_own(cx, Op::CloseOrphans(close)).is_err() {
                return self.timers.set(cx.now() + Duration::from_secs(1), Timer::Orphans);
            }
            for orphan in batch {
                if let Some(live) = self.sessions.get_mut(SessionId(orphan.session)) {
                    live.handles.forget(HandleId(orphan.handle));
                }
            }
        }
        self.fail_over.orphans_closed(orphans.len());
        self.reach(cx, Stage::ClosedOrphans { handles: orphans.len() });
    }
}
