//! The regular work of a master in each step.

use super::Master;
use crate::context::Cx;
use crate::tables::sessions::STALL;
use crate::tables::timers::Timer;
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::Instant;

/// Most timers that run in one step: thousands of leases that are due at once must not delay the heartbeats. The
/// other timers are due again at once.
const MAX_TIMERS_PER_TICK: usize = 4096;

/// Most KeepAlives that are answered in one step, for the same reason. The rest waits for the next tick, so that
/// many steps between two ticks answer no more.
const MAX_ANSWERED_AT_ONCE: usize = 1024;

impl Master {
    /// Time has passed. Every KeepAlive that arrived before `drained_through` was taken up.
    pub(crate) fn tick(&mut self, cx: &mut Cx<'_>, drained_through: Instant) {
        self.run_timers(cx, drained_through);
        self.answers.backlogged = false;
        self.deferred.tick();
        self.publications.tick();
        self.publish_waiting();
        let ended = self.invalidations.tick(cx.now());
        self.end_rounds(ended);
        self.maintain_leases(cx);
        self.maintain_members(cx);
        self.maintain_digests(cx);
    }

    fn run_timers(&mut self, cx: &mut Cx<'_>, drained_through: Instant) {
        let mut ends = Vec::new();
        for _ in 0..MAX_TIMERS_PER_TICK {
            let Some(timer) = self.timers.pop(drained_through) else { break };
            match timer {
                Timer::KeepAlive(session) => self.notify(session),
                Timer::Orphans => self.close_orphans(cx),
                Timer::CachesLapse => self.fail_over.caches_have_lapsed(),
                Timer::Lease(session) => ends.push(session),
                Timer::RefuseWaiters(instance) => self.refuse_waiters(cx, instance),
                Timer::Acquire(instance, session, handle, number) => {
                    self.time_out(cx, instance, session, handle, number);
                }
                Timer::Delay(instance, since) => {
                    self.locks.end_delay(instance, since, cx.now());
                    self.grant_next(cx, instance);
                }
            }
        }
        if !ends.is_empty() {
            self.end_expired(cx, ends, drained_through);
        }
    }

    /// Continues the work that had to wait for something. Returns whether it proposed or answered anything.
    pub(crate) fn progress(&mut self, cx: &mut Cx<'_>) -> bool {
        self.send_invalidations(cx);
        self.release_deferred(cx)
            | self.finish_revocations(cx)
            | self.resume_changes(cx)
            | self.log_cache_leases(cx)
    }

    /// Answers the KeepAlives of the sessions that have news, or whose time has come. If this replica may not be
    /// master any more, they wait until it surely is.
    pub(crate) fn answer_keep_alives(&mut self, cx: &mut Cx<'_>) {
        if self.answers.is_empty() || self.answers.backlogged || !cx.lease_holds() {
            return;
        }
        for _ in 0..MAX_ANSWERED_AT_ONCE {
            let Some(session) = self.answers.next() else { return };
            self.answer_keep_alive(cx, session);
        }
        self.answers.backlogged = !self.answers.is_empty();
    }

    /// When the next tick is due.
    pub(crate) fn next_due(&self, now: Instant, lease_holds: bool) -> Option<Instant> {
        let unsent = self.invalidations.has_unsent() || self.cache_keys.has_pending_releases();
        let invalidations = if unsent { Some(now) } else { self.invalidations.next_due() };
        let unanswered =
            !self.answers.is_empty() || !self.publications.is_empty() || self.deferred.is_backlogged();
        let answers = (unanswered && lease_holds).then_some(now);
        [self.timers.next_due(), invalidations, answers].into_iter().flatten().min()
    }

    /// After a stall of its own, a master gives every session a whole lease: their KeepAlives may lie unread in its
    /// sockets, and the end of a lease may always move forward.
    pub(crate) fn forgive_stall(&mut self, cx: &Cx<'_>, stalled: Duration) {
        if stalled < STALL {
            return;
        }
        let until = cx.now() + self.lease(cx.view());
        for (_, live) in self.sessions.iter_mut() {
            live.lease.extend(until);
        }
    }
}
