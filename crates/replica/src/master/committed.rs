//! A change that the log has decided: what the master's memory has to follow, the events, the answer, and the grants
//! that it makes possible.

use super::Master;
use super::admit::plain_answer;
use crate::context::Cx;
use crate::request::RequestContext;
use crate::tables::proposals::{PendingReply, Proposal};
use wombat_proto::wire::log::command::Op;
use wombat_proto::{Error, Instant, Result, SessionId, Slot};
use wombat_state::{Applied, Change, Outcome};

impl Master {
    /// The command of a slot was applied. `proposal`: this master's own proposal of it.
    pub(crate) fn committed(
        &mut self,
        cx: &mut Cx<'_>,
        slot: Slot,
        op: Option<&Op>,
        applied: Applied,
        proposal: Option<Proposal>,
    ) {
        match (op, &applied.result) {
            (_, Ok(Outcome::Digest { digest, .. })) => {
                self.digest_received(cx, cx.config.replica, (slot, *digest));
            }
            (Some(Op::SetLease(_)), _) => self.lease_plan.applied(),
            (Some(Op::AllowCacheLeases(allowed)), Ok(_)) => self.cache_leases_logged(allowed),
            _ => {}
        }
        let stamp = cx.state.stamp();
        for change in &applied.changes {
            self.update_holders(change, cx.now());
            self.publish_change(cx, stamp, change);
        }
        let (reply, keys) = match proposal {
            Some(proposal) => (proposal.reply, proposal.keys),
            None => (PendingReply::Own, [].into()),
        };
        self.cache_keys.applied(slot, &keys);
        self.answer(cx, reply, applied.result);
        for change in applied.changes {
            self.follow(cx, change);
        }
    }

    fn answer(&mut self, cx: &mut Cx<'_>, reply: PendingReply, result: Result<Outcome>) {
        match reply {
            PendingReply::Own => {}
            PendingReply::Plain(request) => self.reply(cx, request, result.map(plain_answer)),
            PendingReply::CreateSession(request) => match result {
                Ok(Outcome::Session(session)) => self.session_created(cx, request, session),
                Ok(_) => unreachable!("the outcome of CreateSession is a session"),
                Err(error) => self.reply(cx, request, Err(error)),
            },
            PendingReply::Join(..) => unreachable!("a change of members is no command"),
            PendingReply::Open(request, unsigned) => self.opened(cx, request, unsigned, result),
            PendingReply::Release(request, instance, handle) => {
                self.locks.release_decided(instance, (request.session, handle));
                self.reply(cx, request, result.map(plain_answer));
            }
            PendingReply::Grant(request, instance, handle) => {
                self.granted(cx, request, instance, handle, result);
                self.grant_next(cx, instance);
                self.report_waiters(cx, instance, (request.session, handle));
            }
        }
    }

    /// Notes who holds a lock now, and starts the clock of a lock-delay, before a waiter gets its turn: a delay that
    /// is not known to run counts as over.
    fn update_holders(&mut self, change: &Change, now: Instant) {
        match change {
            Change::LockAcquired { instance, holder } => self.locks.holder_changed(*instance, *holder, true),
            Change::LockReleased { instance, holder } => self.locks.holder_changed(*instance, *holder, false),
            Change::LockDelayed { instance, holder, since, length } => {
                self.locks.holder_changed(*instance, *holder, false);
                self.start_delay(*instance, *since, now + *length);
            }
            _ => {}
        }
    }

    /// Does in the master's memory what an applied change asks for.
    fn follow(&mut self, cx: &mut Cx<'_>, change: Change) {
        match change {
            // A lock-delay stands only against waiters that conflict with the holder that is gone.
            Change::LockReleased { instance, .. } | Change::LockDelayed { instance, .. } => {
                self.grant_next(cx, instance);
            }
            Change::Deleted { instance } => {
                self.subscriptions.forget_node(instance);
                self.refuse_waiters(cx, instance);
            }
            Change::SessionEnded { session } => self.session_ended(cx, session),
            Change::ContentsModified { .. }
            | Change::ChildAdded { .. }
            | Change::ChildRemoved { .. }
            | Change::ChildModified { .. }
            | Change::LockAcquired { .. }
            | Change::LockBroken { .. } => {}
        }
    }

    /// A slot with other members is chosen.
    pub(crate) fn members_chosen(&mut self, cx: &mut Cx<'_>, proposal: Option<Proposal>) {
        if let Some(PendingReply::Join(request, replica)) = proposal.map(|proposal| proposal.reply) {
            self.joined(cx, request, replica);
        }
    }

    /// Drops the memory of a session that has ended, and refuses its requests that still wait.
    fn session_ended(&mut self, cx: &mut Cx<'_>, session: SessionId) {
        self.dismiss_session(cx, session);
        let parked = self.unpark(session);
        self.fail_over.acknowledged(session);
        self.forget_cache(session);
        if let Some(live) = self.sessions.remove(session) {
            self.forget_lease_timer(session, live.lease.until);
            for handle in live.handles.open() {
                self.subscriptions.remove(session, &handle.token);
            }
            if let Some(connection) = live.connection {
                cx.connections.detach(connection, session);
            }
        }
        if let Some(request) = parked {
            self.reply(cx, request, Err(Error::SessionExpired));
        }
    }

    fn unpark(&mut self, session: SessionId) -> Option<RequestContext> {
        let parked = self.sessions.get_mut(session)?.lease.unpark()?;
        self.forget_keep_alive_timer(session, parked.answer_at);
        Some(parked.request)
    }
}
