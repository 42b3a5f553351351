//! The way of a change to the log (P§2.7): first the sessions that may have its keys cached drop them, then it is
//! proposed. A change that has to wait continues where it stopped.
//!
//! ```text
//!   propose ──▶ invalidate ──▶ append
//!                  │  ▲
//!                  ▼  │ its rounds have ended, and the earlier changes of its sessions are proposed
//!            WaitingChanges
//! ```

use super::Master;
use crate::affected_keys::{affected_keys, affects_later_nodes, ended_by};
use crate::context::Cx;
use crate::log::Entry;
use crate::request::{Reply, RequestContext};
use crate::tables::proposals::PendingReply;
use crate::tables::timers::Timer;
use crate::tables::waiting_changes::{Change, Continuation, Waiting};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::wire::log::{self, command::Op};
use wombat_proto::{CacheKey, Error, HandleId, Instance, Result, SessionId, Token};

/// What a grant needs before it is proposed.
pub(super) enum GrantStep {
    /// Nothing: it affects these keys, which no session has cached.
    Append(Vec<CacheKey>),
    /// Until sessions have dropped its keys, the grant waits in `WaitingChanges`.
    Wait,
}

impl Master {
    /// Proposes a change of a request whose answer is the outcome, unless it was answered before.
    pub(super) fn change(&mut self, cx: &mut Cx<'_>, request: RequestContext, op: Op) -> Result<Reply> {
        match Master::answered_before(cx, request) {
            Some(result) => result.map(Reply::Now),
            None => self.propose(cx, PendingReply::Plain(request), op).map(|()| Reply::Later),
        }
    }

    /// Proposes a change of the master's own.
    pub(super) fn propose_own(&mut self, cx: &mut Cx<'_>, op: Op) -> Result<()> {
        self.propose(cx, PendingReply::Own, op)
    }

    /// Proposes a change, once no session has its keys cached any more. Until then it waits.
    pub(super) fn propose(&mut self, cx: &mut Cx<'_>, reply: PendingReply, op: Op) -> Result<()> {
        if self.cache_keys.has_no_clients() {
            return self.append(cx, reply, op, Vec::new());
        }
        let request = reply.request();
        if request.is_some_and(|request| self.changes.redirect(request)) {
            return Ok(());
        }
        if let Op::EndSessions(log::EndSessions { asked: true, .. }) = &op {
            // Their clients have dropped everything, or have not used it for long.
            for session in ended_by(&op) {
                self.forget_cache(session);
            }
        }
        if let Some(request) = request {
            self.drop_own_copy(request.session, &op);
        }
        let sessions = match &op {
            Op::BreakLock(broken) => holders_of(cx, broken),
            _ => request.map(|request| request.session).into_iter().collect(),
        };
        let yields_lock = request.is_some_and(|request| yields_lock(cx, request.session, &op));
        let yields_lock = yields_lock || matches!(op, Op::BreakLock(_));
        self.invalidate(cx, Change { reply, op, sessions, yields_lock, place: None })
    }

    /// Sends invalidations of the keys of a change, and proposes it if there is nothing to wait for.
    fn invalidate(&mut self, cx: &mut Cx<'_>, change: Change) -> Result<()> {
        let session = change.reply.request().map_or(SessionId(0), |request| request.session);
        let keys = affected_keys(cx.view(), session, &change.op);
        let rounds = self.begin_rounds(&keys);
        let has_earlier = || change.sessions.iter().any(|session| self.changes.has_session(*session));
        let is_behind = change.place.is_none() && change.yields_lock && has_earlier();
        if rounds.is_empty() && !is_behind {
            return self.append(cx, change.reply, change.op, keys);
        }
        if change.place.is_none() && self.changes.is_full() {
            return Err(Error::Overloaded { retry_after: Duration::from_millis(100) });
        }
        let place = change.place.unwrap_or_else(|| self.changes.next_place(cx.now()));
        let then = Continuation::Propose(Change { place: Some(place), ..change }.into());
        self.wait(Waiting { then, keys, rounds, place });
        Ok(())
    }

    /// What the next grant of a lock needs before it is proposed.
    pub(super) fn prepare_grant(&mut self, cx: &Cx<'_>, instance: Instance, grant: &Op) -> GrantStep {
        if self.cache_keys.has_no_clients() {
            return GrantStep::Append(Vec::new());
        }
        if self.changes.has_grant(instance) {
            return GrantStep::Wait;
        }
        let keys = affected_keys(cx.view(), SessionId(0), grant);
        let rounds = self.begin_rounds(&keys);
        if rounds.is_empty() {
            return GrantStep::Append(keys);
        }
        let place = self.changes.next_place(cx.now());
        self.wait(Waiting { then: Continuation::GrantNext(instance), keys, rounds, place });
        GrantStep::Wait
    }

    fn wait(&mut self, waiting: Waiting) {
        self.cache_keys.close(&waiting.keys);
        self.invalidations.wait(waiting.rounds.iter(), waiting.place.ticket);
        self.changes.push(waiting);
    }

    /// Continues the changes that need not wait any more. Returns whether there were any.
    pub(super) fn resume_changes(&mut self, cx: &mut Cx<'_>) -> bool {
        let mut any = false;
        while let Some(ticket) = self.changes.next_ready() {
            any = true;
            let Some(waiting) = self.changes.take(ticket) else { continue };
            self.cache_keys.open(&waiting.keys);
            match waiting.then {
                Continuation::GrantNext(instance) => self.grant_after_wait(cx, instance),
                Continuation::Propose(change) => self.resume(cx, *change),
            }
        }
        any
    }

    fn resume(&mut self, cx: &mut Cx<'_>, change: Change) {
        let (reply, ended) = (change.reply, ended_by(&change.op));
        // The keys were closed, so no session has cached them again. But the names in a change may lead to other
        // nodes by now, so its keys are looked up again.
        let result = match self.cache_keys.has_no_clients() {
            true => self.append(cx, change.reply, change.op, Vec::new()),
            false => self.invalidate(cx, change),
        };
        if let Err(error) = result {
            self.refuse(cx, reply, &ended, error);
        }
        self.grant_released(cx);
    }

    /// A change that had to wait cannot be proposed: that of a request, or the master's own, which ends sessions or
    /// closes orphans.
    fn refuse(&mut self, cx: &mut Cx<'_>, reply: PendingReply, ended: &[SessionId], error: Error) {
        match reply.request() {
            Some(request) => self.reply(cx, request, Err(error)),
            None if ended.is_empty() => self.timers.set(cx.now() + Duration::from_secs(1), Timer::Orphans),
            None => self.end_later(cx, ended),
        }
    }

    /// Appends a command to the log, with the keys that it affects.
    pub(super) fn append(
        &mut self,
        cx: &mut Cx<'_>,
        reply: PendingReply,
        op: Op,
        keys: Vec<CacheKey>,
    ) -> Result<()> {
        let creates_after = affects_later_nodes(&op).then(|| cx.state.last_instance());
        let delays_over = self.delays_over(cx, &op);
        let entry = Entry { reply, op, wall_ms: cx.time.wall_ms, delays_over };
        let cache_keys = &mut self.cache_keys;
        cx.log.append(entry, |slot| cache_keys.proposed(slot, keys, creates_after))?;
        if let PendingReply::Release(request, instance, handle) = reply {
            let lock = cx.state.tree().get(instance).map(|node| &node.lock);
            let holds = lock.is_some_and(|lock| lock.holder(request.session, handle).is_some());
            self.locks.release_proposed(instance, (request.session, handle), holds);
            self.released.push(instance);
        }
        Ok(())
    }

    /// Begins a round for each of these keys that a session may have cached. Returns the rounds to wait for.
    pub(super) fn begin_rounds(&mut self, keys: &[CacheKey]) -> BTreeSet<CacheKey> {
        let mut all = BTreeSet::new();
        for key in keys {
            for (held, holders) in self.cache_keys.take_holders(key) {
                self.invalidations.begin(held, holders);
            }
            all.extend(self.invalidations.of(key).cloned());
        }
        all
    }

    /// A writer has dropped its own copy as it sent the change.
    fn drop_own_copy(&mut self, writer: SessionId, op: &Op) {
        let (Op::SetContents(log::SetContents { instance, .. }) | Op::Delete(log::Delete { instance, .. })) =
            op
        else {
            return;
        };
        let key = CacheKey::node(Instance(*instance));
        let cache = self.sessions.get_mut(writer).and_then(|live| live.cache.as_mut());
        if cache.is_some_and(|cache| cache.keys.remove(&key)) {
            self.cache_keys.remove_holder(&key, writer);
        }
    }

    /// Whether the change that a request asks for is on its way into the log, or waits to be.
    pub(super) fn is_under_way(&self, cx: &Cx<'_>, request: RequestContext) -> bool {
        cx.log.proposals().contains(request) || self.changes.contains(request)
    }
}

/// Whether a lock may be given up with a change that a session asks for.
fn yields_lock(cx: &Cx<'_>, session: SessionId, op: &Op) -> bool {
    match op {
        Op::Release(_) | Op::Close(_) => true,
        Op::Delete(delete) => {
            let node = cx.state.tree().get(Instance(delete.instance));
            node.is_some_and(|node| node.lock.holder(session, HandleId(delete.handle)).is_some())
        }
        _ => false,
    }
}

/// The sessions whose grants are taken.
fn holders_of(cx: &Cx<'_>, broken: &log::BreakLock) -> Vec<SessionId> {
    let Some(node) = cx.state.tree().get(Instance(broken.instance)) else { return Vec::new() };
    let tokens = broken.tokens.iter().map(|token| Token(*token));
    let of_tokens = tokens.filter_map(|token| node.lock.holder_of_token(token));
    let sessions: BTreeSet<SessionId> = of_tokens.map(|((session, _), _)| session).collect();
    sessions.into_iter().collect()
}
