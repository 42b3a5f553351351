//! The turns of waiting Acquires (P§2.4). A grant is a log entry; the queue is the master's memory.

use super::Master;
use super::propose::GrantStep;
use crate::context::Cx;
use crate::request::{Answer, RequestContext};
use crate::tables::lock_queue::Waiter;
use crate::tables::proposals::PendingReply;
use crate::tables::timers::Timer;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::limits::LOCK_WAITERS;
use wombat_proto::wire::{self, change, log, log::command::Op};
use wombat_proto::{Error, Generation, HandleId, Instance, LockMode, Result, Sequencer, SessionId, Token};
use wombat_state::Outcome;

/// How many waiters for a lock whose node is gone are refused in one step.
const MAX_REFUSED_AT_ONCE: usize = 1024;
/// How long the others wait for their refusal, so that other steps come between.
const REFUSE_INTERVAL: Duration = Duration::from_millis(1);

impl Master {
    /// Puts an Acquire into its lock's queue, and grants what can be granted.
    pub(super) fn enqueue(&mut self, cx: &mut Cx<'_>, instance: Instance, waiter: Waiter) -> Result<()> {
        if self.locks.waiting_for(instance) >= LOCK_WAITERS {
            return Err(Error::Overloaded { retry_after: Duration::from_secs(1) });
        }
        self.locks.push(instance, waiter);
        if let Some(deadline) = waiter.deadline {
            self.timers.set(deadline, waiter.timer(instance));
        }
        self.grant_next(cx, instance);
        let (session, handle) = (waiter.request.session, waiter.handle);
        if self.locks.waiter(instance, session, handle).is_none_or(|waiter| waiter.proposed) {
            return Ok(());
        }
        match waiter.only_try {
            true if self.changes.has_grant(instance) => {} // It may be the next.
            true => self.reject_try(cx, instance, waiter),
            false => self.report_conflict_to_holders(cx, instance),
        }
        Ok(())
    }

    /// Refuses an Acquire that only tries, and cannot have the lock now.
    fn reject_try(&mut self, cx: &mut Cx<'_>, instance: Instance, waiter: Waiter) {
        let Some(node) = cx.state.tree().get(instance) else { return };
        let delay = self.locks.delay_against(node, waiter.mode, cx.now());
        let refusal = delay.map_or(Error::LockHeld, |remaining| Error::LockDelayed { remaining });
        self.dismiss(cx, instance, waiter.request.session, waiter.handle, refusal);
    }

    /// Proposes a grant for each waiter whose turn it is.
    pub(super) fn grant_next(&mut self, cx: &mut Cx<'_>, instance: Instance) {
        let Some(node) = cx.state.tree().get(instance) else { return };
        while let Some(next) = self.locks.next(node, cx.now()) {
            let (session, handle) = (next.request.session, next.handle);
            let op = Op::Grant(log::Grant {
                instance: instance.0,
                handle: handle.0,
                shared: next.mode == LockMode::Shared,
                lock_delay_ms: next.lock_delay_ms,
                acquire: next.request.number,
                clears_contents: next.clears_contents,
            });
            let keys = match self.prepare_grant(cx, instance, &op) {
                GrantStep::Append(keys) => keys,
                GrantStep::Wait => return,
            };
            match self.append(cx, PendingReply::Grant(next.request, instance, handle), op, keys) {
                Ok(()) => {
                    self.locks.update(instance, (session, handle), |waiter| waiter.proposed = true);
                }
                Err(error) => self.dismiss(cx, instance, session, handle, error),
            }
        }
    }

    /// Gives the waiters of released locks their turns: their grants follow the releases in the log.
    pub(super) fn grant_released(&mut self, cx: &mut Cx<'_>) {
        for instance in core::mem::take(&mut self.released) {
            self.grant_next(cx, instance);
        }
    }

    /// Grants what could not be granted while sessions had the lock's node cached.
    pub(super) fn grant_after_wait(&mut self, cx: &mut Cx<'_>, instance: Instance) {
        self.grant_next(cx, instance);
        if self.changes.has_grant(instance) {
            return;
        }
        for waiter in self.locks.tries(instance).copied().collect::<Vec<_>>() {
            self.reject_try(cx, instance, waiter);
        }
    }

    /// The log has decided about a grant.
    pub(super) fn granted(
        &mut self,
        cx: &mut Cx<'_>,
        request: RequestContext,
        instance: Instance,
        handle: HandleId,
        result: Result<Outcome>,
    ) {
        match result {
            Ok(Outcome::Granted { token, generation }) => {
                let request = match self.remove_waiter(instance, request.session, handle) {
                    Some(waiter) => waiter.request, // It may have come again on another connection.
                    None => request,
                };
                let answer = granted_answer(cx, request.session, (instance, handle), token, generation);
                self.reply(cx, request, answer);
            }
            Err(Error::LockHeld | Error::LockDelayed { .. }) => {
                self.grant_failed(cx, instance, request.session, handle);
            }
            Ok(_) => unreachable!("a grant's outcome is Granted"),
            Err(error) => self.dismiss(cx, instance, request.session, handle, error),
        }
    }

    /// The turn of a waiter has passed for now, because a holder's session ended with a lock-delay, or a release before
    /// the grant has failed. It waits on, unless it has given up meanwhile and only the log's decision was missing.
    fn grant_failed(&mut self, cx: &mut Cx<'_>, instance: Instance, session: SessionId, handle: HandleId) {
        let back = self.locks.update(instance, (session, handle), |waiter| waiter.proposed = false);
        let Some(waiter) = back else { return };
        let open = self.sessions.get(session).and_then(|live| live.handles.get(handle));
        if open.is_none_or(|open| open.has_ended(waiter.request.number)) {
            self.dismiss(cx, instance, session, handle, Error::Cancelled);
        } else if waiter.deadline.is_some_and(|deadline| deadline <= cx.now()) {
            self.dismiss(cx, instance, session, handle, Error::Timeout);
        } else if waiter.only_try {
            self.reject_try(cx, instance, waiter);
        }
    }

    /// Takes a waiter out of its queue.
    fn remove_waiter(&mut self, instance: Instance, session: SessionId, handle: HandleId) -> Option<Waiter> {
        let waiter = self.locks.remove(instance, session, handle)?;
        if let Some(deadline) = waiter.deadline {
            self.timers.clear(deadline, waiter.timer(instance));
        }
        Some(waiter)
    }

    /// Takes a waiter out of its queue and answers it with an error.
    pub(super) fn dismiss(
        &mut self,
        cx: &mut Cx<'_>,
        instance: Instance,
        session: SessionId,
        handle: HandleId,
        error: Error,
    ) {
        let Some(waiter) = self.remove_waiter(instance, session, handle) else { return };
        let open = self.sessions.get_mut(session).and_then(|live| live.handles.get_mut(handle));
        if let Some(open) = open {
            open.end_acquires(waiter.request.number, Some(error.clone()));
        }
        self.reply(cx, waiter.request, Err(error));
    }

    /// Refuses the waiters for a lock whose node is gone: so many in one step, and the rest in later steps.
    pub(super) fn refuse_waiters(&mut self, cx: &mut Cx<'_>, instance: Instance) {
        let first = self.locks.queue(instance).take(MAX_REFUSED_AT_ONCE);
        for waiter in first.copied().collect::<Vec<_>>() {
            self.dismiss(cx, instance, waiter.request.session, waiter.handle, Error::StaleHandle);
        }
        if self.locks.waiting_for(instance) > 0 {
            self.timers.set(cx.now() + REFUSE_INTERVAL, Timer::RefuseWaiters(instance));
        }
    }

    /// Dismisses a session that has ended from every queue, and gives the waiters behind it their turns.
    pub(super) fn dismiss_session(&mut self, cx: &mut Cx<'_>, session: SessionId) {
        for (instance, handle) in self.locks.waits_of(session).collect::<Vec<_>>() {
            self.dismiss(cx, instance, session, handle, Error::SessionExpired);
            self.grant_next(cx, instance);
        }
    }

    /// An Acquire has waited for its timeout. One whose grant is on its way into the log waits for that.
    pub(super) fn time_out(
        &mut self,
        cx: &mut Cx<'_>,
        instance: Instance,
        session: SessionId,
        handle: HandleId,
        number: u64,
    ) {
        let waiter = self.locks.waiter(instance, session, handle);
        if waiter.is_some_and(|waiter| waiter.request.number == number && !waiter.proposed) {
            self.dismiss(cx, instance, session, handle, Error::Timeout);
            self.grant_next(cx, instance);
        }
    }

    /// The lock-delays that have passed, of the nodes that a command is about. The command names a delay by its slot,
    /// and so no slot whose delay still stands against another of those nodes.
    pub(super) fn delays_over(&self, cx: &Cx<'_>, op: &Op) -> Vec<u64> {
        let delays = locked_nodes(cx, op).into_iter().filter_map(|instance| {
            let delay = cx.state.tree().get(instance)?.lock.delay()?;
            Some((delay.since, self.locks.delay_left(instance, delay.since, cx.now()).is_some()))
        });
        let (running, over): (Vec<_>, Vec<_>) = delays.partition(|(_, runs)| *runs);
        let over = over.into_iter().filter(|(since, _)| !running.contains(&(*since, true)));
        over.map(|(since, _)| since.0).collect()
    }
}

/// The nodes whose lock-delays decide the outcome of a command.
fn locked_nodes(cx: &Cx<'_>, op: &Op) -> Vec<Instance> {
    match op {
        Op::Grant(grant) => [Instance(grant.instance)].into(),
        Op::BreakLock(broken) => [Instance(broken.instance)].into(),
        Op::Delete(delete) => [Instance(delete.instance)].into(),
        Op::EndSessions(end) => {
            let sessions = end.sessions.iter().filter_map(|id| cx.state.session(SessionId(*id)));
            sessions.flat_map(|session| session.locks().map(|(instance, _)| instance)).collect()
        }
        Op::Multi(log::Multi { steps: Some(multi) }) => {
            let deleted = multi.changes.iter().filter_map(|change| match &change.change {
                Some(change::Change::Delete(path)) => cx.config.parse_path(path).ok(),
                _ => None,
            });
            deleted.filter_map(|path| Some(cx.state.tree().find(&path)?.instance)).collect()
        }
        _ => Vec::new(),
    }
}

/// The answer to an Acquire or a GetSequencer.
pub(super) fn granted_answer(
    cx: &Cx<'_>,
    session: SessionId,
    (instance, handle): (Instance, HandleId),
    token: Token,
    generation: Generation,
) -> Result<Answer> {
    let node = cx.state.tree().get(instance).ok_or(Error::StaleHandle)?;
    let mode = node.lock.holder(session, handle).ok_or(Error::NotHeld)?.mode;
    let path = cx.state.path_of(node).ok_or(Error::StaleHandle)?;
    let sequencer = Sequencer { path, instance, mode, generation, token }.to_string();
    Ok(Answer::Granted(wire::Granted { sequencer }))
}
