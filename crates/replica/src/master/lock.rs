//! The calls Acquire, CancelAcquire and Release, and sequencers (P§2.4).

use super::Master;
use super::grants::granted_answer;
use crate::context::Cx;
use crate::request::{Answer, Reply, RequestContext};
use crate::tables::handles::OpenHandle;
use crate::tables::lock_queue::Waiter;
use crate::tables::proposals::PendingReply;
use core::time::Duration;
use wombat_proto::limits::ACQUIRE_TIMEOUT;
use wombat_proto::wire::{self, log, log::command::Op, mode};
use wombat_proto::{Error, HandleId, Instance, Instant, LockMode, Result, Sequencer};

/// After how long an Acquire is to come again that follows one whose grant is on its way into the log.
const RETRY_UNDECIDED: Duration = Duration::from_millis(10);

impl Master {
    fn lock_handle(&mut self, request: RequestContext, token: Option<&wire::Handle>) -> Result<OpenHandle> {
        self.handle_for(request.session, token, mode::WRITE)
    }

    /// From now on, Acquires of this handle that were sent before are over.
    fn end_earlier_acquires(&mut self, request: RequestContext, handle: HandleId) -> Result<()> {
        if let Some(handle) = self.sessions.live(request.session)?.handles.get_mut(handle) {
            handle.end_acquires(request.number, None);
        }
        Ok(())
    }

    pub(super) fn acquire(
        &mut self,
        cx: &mut Cx<'_>,
        request: RequestContext,
        acquire: &wire::Acquire,
    ) -> Result<Reply> {
        let timeout = Duration::from_millis(acquire.timeout_ms);
        if timeout > ACQUIRE_TIMEOUT {
            return Err(Error::invalid("a timeout is at most a year; 0 waits for as long as it takes"));
        }
        if acquire.r#try && acquire.timeout_ms != 0 {
            return Err(Error::invalid("an Acquire that only tries takes no timeout"));
        }
        if acquire.shared && acquire.clears_contents {
            return Err(Error::invalid("only an exclusive holder can have contents of its own"));
        }
        let session = request.session;
        let handle = self.lock_handle(request, acquire.handle.as_ref())?;
        let (id, instance) = (handle.id(), handle.instance());
        let node = cx.state.tree().get(instance).ok_or(Error::StaleHandle)?;
        match node.lock.holder(session, id) {
            Some(holder) if holder.acquire == request.number => {
                let generation = node.lock.generation();
                let answer = granted_answer(cx, session, (instance, id), holder.token, generation);
                return answer.map(Reply::Now);
            }
            // The lock that it holds is on its way back: it waits for that as for any other holder.
            Some(holder) if handle.has_ended(holder.acquire) => {}
            Some(_) => return Err(Error::invalid("this handle holds the lock already; release it first")),
            None => {}
        }
        let waiting = self.locks.waiter(instance, session, id).copied();
        if waiting.is_some_and(|waiter| waiter.request.number == request.number) {
            // It comes again, perhaps on another connection; its time runs on.
            self.locks.update(instance, (session, id), |waiter| {
                waiter.request.connection = request.connection;
            });
            return Ok(Reply::Later);
        }
        handle.check_acquire(request.number)?;
        if let Some(waiter) = waiting {
            return Err(match handle.has_ended(waiter.request.number) {
                // It was taken back while its grant was on its way, and the log decides about that soon.
                true => Error::Overloaded { retry_after: RETRY_UNDECIDED },
                false => Error::invalid("an Acquire of this handle waits already"),
            });
        }
        let since = self.waits_since(cx, request, Duration::from_millis(acquire.waited_ms));
        let deadline = (acquire.timeout_ms != 0).then(|| since + timeout);
        let waiter = Waiter {
            request,
            handle: id,
            mode: if acquire.shared { LockMode::Shared } else { LockMode::Exclusive },
            lock_delay_ms: handle.token.lock_delay_ms,
            clears_contents: acquire.clears_contents,
            since,
            deadline,
            only_try: acquire.r#try,
            proposed: false,
        };
        self.enqueue(cx, instance, waiter).map(|()| Reply::Later)
    }

    /// Since when an Acquire waits. A client's claim to have waited longer counts only for the time before this master:
    /// clients that queued at an earlier one keep their turns, in the order of their waiting.
    fn waits_since(&self, cx: &Cx<'_>, request: RequestContext, waited: Duration) -> Instant {
        let claimed = cx.now() - waited;
        if self.fail_over.is_before(request.session, claimed) { claimed } else { cx.now() }
    }

    /// Takes an Acquire back: out of the queue, or by a release if it was granted. If its grant is on its way into the
    /// log, the release follows it there.
    pub(super) fn cancel_acquire(
        &mut self,
        cx: &mut Cx<'_>,
        request: RequestContext,
        cancel: &wire::CancelAcquire,
    ) -> Result<Reply> {
        let done = Ok(Reply::Now(Answer::Done(wire::Done {})));
        if Master::answered_before(cx, request).is_some() {
            return done;
        }
        let handle = self.lock_handle(request, cancel.handle.as_ref())?;
        let (id, instance) = (handle.id(), handle.instance());
        self.end_earlier_acquires(request, id)?;
        let waiter = self.locks.waiter(instance, request.session, id);
        let waiter = waiter.filter(|waiter| waiter.request.number == cancel.acquire).map(|w| w.proposed);
        if waiter == Some(false) {
            self.dismiss(cx, instance, request.session, id, Error::Cancelled);
            self.grant_next(cx, instance);
            return done;
        }
        let node = cx.state.tree().get(instance);
        let holder = node.and_then(|node| node.lock.holder(request.session, id));
        if waiter.is_none() && holder.is_none_or(|holder| holder.acquire != cancel.acquire) {
            return done;
        }
        self.propose_release(cx, request, (instance, id), release_of(instance, id))
    }

    pub(super) fn release(
        &mut self,
        cx: &mut Cx<'_>,
        request: RequestContext,
        release: &wire::Release,
    ) -> Result<Reply> {
        if let Some(result) = Master::answered_before(cx, request) {
            return result.map(Reply::Now);
        }
        let handle = self.lock_handle(request, release.handle.as_ref())?;
        let (id, instance) = (handle.id(), handle.instance());
        self.end_earlier_acquires(request, id)?;
        self.propose_release(cx, request, (instance, id), release_of(instance, id))
    }

    /// Proposes that a handle holds a lock no longer.
    pub(super) fn propose_release(
        &mut self,
        cx: &mut Cx<'_>,
        request: RequestContext,
        (instance, handle): (Instance, HandleId),
        op: Op,
    ) -> Result<Reply> {
        self.propose(cx, PendingReply::Release(request, instance, handle), op)?;
        Ok(Reply::Later)
    }

    pub(super) fn get_sequencer(
        &mut self,
        cx: &Cx<'_>,
        request: RequestContext,
        get: &wire::GetSequencer,
    ) -> Result<Answer> {
        let handle = self.lock_handle(request, get.handle.as_ref())?;
        let (id, instance) = (handle.id(), handle.instance());
        let lock = &cx.state.tree().get(instance).ok_or(Error::StaleHandle)?.lock;
        let token = lock.holder(request.session, id).ok_or(Error::NotHeld)?.token;
        granted_answer(cx, request.session, (instance, id), token, lock.generation())
    }

    pub(super) fn set_sequencer(
        &mut self,
        cx: &mut Cx<'_>,
        request: RequestContext,
        set: &wire::SetSequencer,
    ) -> Result<Reply> {
        if let Some(result) = Master::answered_before(cx, request) {
            return result.map(Reply::Now);
        }
        let sequencer: Sequencer = set.sequencer.parse()?;
        let handle = self.handle(request.session, set.handle.as_ref())?;
        cx.state.check_sequencer(&sequencer)?;
        let op = Op::SetSequencer(log::SetSequencer {
            handle: handle.token.id,
            instance: sequencer.instance.0,
            token: sequencer.token.0,
        });
        self.change(cx, request, op)
    }

    pub(super) fn check_sequencer(cx: &Cx<'_>, check: &wire::CheckSequencer) -> Result<Answer> {
        let sequencer: Sequencer = check.sequencer.parse()?;
        cx.state.check_sequencer(&sequencer)?;
        Ok(Answer::Done(wire::Done {}))
    }
}

fn release_of(instance: Instance, handle: HandleId) -> Op {
    Op::Release(log::Release { instance: instance.0, handle: handle.0 })
}
