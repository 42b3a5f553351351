//! The way in: whether a request may be answered now, whether it is its session's (session, epoch, number,
//! at-most-once), and which call it is.

use super::Master;
use super::caching::Cached;
use crate::context::Cx;
use crate::path_reads::read_path;
use crate::request::{Answer, Reply, RequestContext};
use crate::tables::deferred::Gate;
use wombat_proto::wire::{self, Request, request::Call};
use wombat_proto::{Error, Result};
use wombat_state::Outcome;

impl Master {
    /// Answers a request on a connection that has said Hello, begins what will answer it, or defers it.
    pub(crate) fn request(&mut self, cx: &mut Cx<'_>, context: RequestContext, request: Request) {
        // It takes its place behind those that came before it.
        let backlogged = self.deferred.is_backlogged();
        self.answer_or_defer(cx, context, request, backlogged);
    }

    fn answer_or_defer(
        &mut self,
        cx: &mut Cx<'_>,
        context: RequestContext,
        request: Request,
        backlogged: bool,
    ) {
        // Before a session's secret was shown, answers go to the request's own connection.
        let attached = cx.connections.is_attached(context.connection, context.session);
        let gate = request.call.as_ref().and_then(|call| self.gate(cx, call, backlogged));
        let (result, cached) = match gate {
            Some(gate) => match self.deferred.push(gate, context.connection, request) {
                Ok(()) => return,
                Err(error) => (Err(error), None),
            },
            None => {
                let cached = request.call.as_ref().filter(|_| attached).and_then(Cached::by);
                (self.call(cx, context, attached, request), cached)
            }
        };
        let result = match result {
            Ok(Reply::Later) => return,
            Ok(Reply::Now(answer)) => Ok(answer),
            Err(error) => Err(error),
        };
        let cachable = cached.and_then(|cached| self.cachable(cx, context.session, cached, &result));
        let to = if attached { self.connection_of(context) } else { context.connection };
        cx.respond(to, context, result, cachable);
    }

    /// What a call has to wait for before it is answered. `backlogged`: others that came before it wait still.
    fn gate(&self, cx: &Cx<'_>, call: &Call, backlogged: bool) -> Option<Gate> {
        let fail_over = (!self.fail_over.is_over()).then_some(Gate::FailOver);
        match call {
            // The log decides about these.
            Call::CreateSession(_) | Call::Join(_) | Call::Transfer(_) => None,
            Call::KeepAlive(_) => None, // It is parked in any case.
            // It takes the session's ephemerals with it, which other sessions may still have cached.
            Call::EndSession(_) => fail_over,
            _ if !cx.lease_holds() || backlogged => Some(Gate::Lease),
            Call::ResumeSession(_) | Call::ListSessions(_) | Call::ListLocks(_) | Call::ListAudit(_) => None,
            _ => fail_over,
        }
    }

    /// Takes up deferred requests that need not wait any more. Returns whether there were any.
    pub(super) fn release_deferred(&mut self, cx: &mut Cx<'_>) -> bool {
        if self.deferred.is_empty() || !cx.lease_holds() {
            return false;
        }
        let released = self.deferred.release(self.fail_over.is_over());
        let any = !released.is_empty();
        for (connection, request) in released {
            // If the connection is gone, the client repeats the request on another one.
            if cx.connections.get(connection).is_some_and(|connection| !connection.closing) {
                let context = RequestContext::of(connection, &request);
                self.answer_or_defer(cx, context, request, false);
            }
        }
        any
    }

    /// Answers a call, or begins what will answer it.
    fn call(
        &mut self,
        cx: &mut Cx<'_>,
        context: RequestContext,
        attached: bool,
        request: Request,
    ) -> Result<Reply> {
        let call = request.call.ok_or_else(|| Error::invalid("the request names no call"))?;
        match call {
            Call::ReadPath(read) => return read_path(cx.view(), read).map(Reply::Now),
            Call::CreateSession(create) => return self.create_session(cx, context, create),
            Call::ResumeSession(resume) => return self.resume_session(cx, context, &resume).map(Reply::Now),
            Call::ListSessions(list) => return Ok(Reply::Now(self.list_sessions(cx, &list))),
            Call::ListLocks(list) => return self.list_locks(cx, &list).map(Reply::Now),
            Call::ListAudit(list) => return Ok(Reply::Now(Master::list_audit(cx, &list))),
            Call::CheckSequencer(check) => return Master::check_sequencer(cx, &check).map(Reply::Now),
            Call::Join(join) => return Master::join(cx, context, join).map(|()| Reply::Later),
            Call::Transfer(transfer) => return super::transfer(cx, &transfer).map(Reply::Now),
            _ => {}
        }
        self.admit(cx, context, attached, request.epoch)?;
        let live = self.sessions.live(context.session)?;
        live.handles.acknowledge(context.acknowledged);
        if !matches!(call, Call::KeepAlive(_)) {
            live.lease.idle_since = None;
        }
        // The master's lease was checked before (SPEC §7), and time stands still in a step: no other replica can have been
        // master when an answer from the state is given.
        let reply = match check_fences(cx, context, &call) {
            Ok(()) => self.session_call(cx, context, call),
            Err(stale) => Err(stale),
        };
        self.grant_released(cx);
        self.report_recreated(cx);
        match reply {
            // An earlier copy of it is on its way into the log, and what comes of that is the answer, though it would
            // be refused by now.
            Err(_) if self.is_under_way(cx, context) => Ok(Reply::Later),
            reply => reply,
        }
    }

    /// Refuses a request that is not of a live session of this epoch.
    fn admit(&self, cx: &Cx<'_>, context: RequestContext, attached: bool, epoch: u64) -> Result<()> {
        let lives = cx.state.session(context.session).is_some();
        if !attached {
            // It may be known that a session has ended, but not whether another one lives.
            let was_there = (1..=cx.state.stamp().0).contains(&context.session.0);
            return Err(if !lives && was_there { Error::SessionExpired } else { Error::SessionUnknown });
        }
        if epoch != self.epoch.0 {
            return Err(Error::StaleEpoch { current: self.epoch });
        }
        if !lives {
            return Err(Error::SessionExpired);
        }
        if context.acknowledged >= context.number {
            return Err(Error::invalid("a request's number is greater than what it acknowledges"));
        }
        Ok(())
    }

    fn session_call(&mut self, cx: &mut Cx<'_>, context: RequestContext, call: Call) -> Result<Reply> {
        match call {
            Call::KeepAlive(keep_alive) => self.keep_alive(cx, context, &keep_alive),
            Call::EndSession(_) => self.end_session(cx, context),
            Call::Open(open) => self.open(cx, context, open),
            Call::Close(close) => self.close(cx, context, &close),
            Call::GetContents(get) => self.get_contents(cx, context, &get).map(Reply::Now),
            Call::GetStat(get) => self.get_stat(cx, context, &get).map(Reply::Now),
            Call::ReadDir(read) => self.read_dir(cx, context, &read).map(Reply::Now),
            Call::SetContents(set) => self.set_contents(cx, context, set),
            Call::Delete(delete) => self.delete(cx, context, &delete),
            Call::Acquire(acquire) => self.acquire(cx, context, &acquire),
            Call::CancelAcquire(cancel) => self.cancel_acquire(cx, context, &cancel),
            Call::Release(release) => self.release(cx, context, &release),
            Call::GetSequencer(get) => self.get_sequencer(cx, context, &get).map(Reply::Now),
            Call::SetSequencer(set) => self.set_sequencer(cx, context, &set),
            Call::BreakLock(call) => self.break_lock(cx, context, call),
            Call::Multi(multi) => self.multi(cx, context, multi),
            _ => Err(Error::invalid("the call belongs to no session: send it with session 0")),
        }
    }

    /// The answer that this change got when it was asked for before (SPEC I13). A late copy is answered from here
    /// before anything else happens: its client has dropped no cached entry for it.
    pub(super) fn answered_before(cx: &Cx<'_>, request: RequestContext) -> Option<Result<Answer>> {
        let result = cx.state.session(request.session)?.answer(request.number)?;
        Some(result.map(plain_answer))
    }
}

/// Refuses a change of a session whose fences are stale, before the holder of a lock or a session with a cached entry
/// is asked for anything. The fences are checked again when the change is applied.
fn check_fences(cx: &Cx<'_>, context: RequestContext, call: &Call) -> Result<()> {
    let changes = match call {
        Call::Open(open) => open.create() != wire::open::Create::Never,
        Call::SetContents(_) | Call::Delete(_) | Call::BreakLock(_) | Call::Multi(_) => true,
        _ => false,
    };
    if !changes || Master::answered_before(cx, context).is_some() {
        return Ok(());
    }
    cx.state.check_session_fences(context.session)
}

/// The answer that is nothing but the outcome of a change.
pub(super) fn plain_answer(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Done => Answer::Done(wire::Done {}),
        Outcome::Written(stat) => Answer::Stat(stat),
        Outcome::Multi(done) => Answer::MultiDone(done),
        Outcome::Session(_) | Outcome::Opened { .. } | Outcome::Granted { .. } | Outcome::Digest { .. } => {
            Answer::Error((&Error::invalid("the request's number was used for another call")).into())
        }
    }
}
