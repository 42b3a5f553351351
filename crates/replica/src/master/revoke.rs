//! Breaking a lock that a live session holds (SPEC §4).

use super::Master;
use crate::context::Cx;
use crate::request::{Reply, RequestContext};
use crate::tables::proposals::PendingReply;
use crate::tables::revocations::{Holders, Revocation};
use alloc::string::String;
use wombat_proto::limits::REASON_BYTES;
use wombat_proto::wire::{self, log, log::command::Op};
use wombat_proto::{Error, Result};

/// Most holders that the audit names.
const MAX_HOLDERS_NAMED: usize = 16;

impl Master {
    /// Begins to break a lock: its holders are sent a revocation.
    pub(super) fn break_lock(
        &mut self,
        cx: &mut Cx<'_>,
        request: RequestContext,
        call: wire::BreakLock,
    ) -> Result<Reply> {
        if let Some(result) = Master::answered_before(cx, request) {
            return result.map(Reply::Now);
        }
        // A copy that comes when all holders have obeyed does not ask them again.
        if self.is_under_way(cx, request) {
            return Ok(Reply::Later);
        }
        if call.reason.len() > REASON_BYTES {
            return Err(Error::TooLarge {
                what: alloc::format!("a reason of more than {REASON_BYTES} bytes"),
            });
        }
        let path = cx.config.parse_path(&call.path)?;
        let node = cx.state.tree().find(&path).ok_or_else(|| Error::not_found(&call.path))?;
        let holders = node.lock.holders().map(|((session, handle), holder)| (session, handle, holder.token));
        let awaited: Holders = holders
            .filter(|(.., token)| [0, token.0].contains(&call.token))
            .map(|key| (key, false))
            .collect();
        if self.revocations.redirect(request) {
            return Ok(Reply::Later);
        }
        if awaited.is_empty() {
            return Err(Error::NotHeld);
        }
        self.revocations.check_room()?;
        for (session, ..) in awaited.keys() {
            self.notify(*session);
        }
        let (instance, until) = (node.instance, cx.now() + self.lease(cx.view()));
        let tokens = awaited.keys().map(|(.., token)| *token).collect();
        let what = audit_of(cx, &call, &awaited);
        self.revocations.begin(Revocation { request, instance, what, tokens, awaited, until });
        Ok(Reply::Later)
    }

    /// Takes the locks whose holders have obeyed, released them, or ended. Returns whether there were any.
    pub(super) fn finish_revocations(&mut self, cx: &mut Cx<'_>) -> bool {
        let ready = self.revocations.take_ready(cx.state);
        let any = !ready.is_empty();
        for Revocation { request, instance, what, tokens, .. } in ready {
            let tokens = tokens.into_iter().map(|token| token.0).collect();
            let op = Op::BreakLock(log::BreakLock { instance: instance.0, tokens, what });
            if let Err(error) = self.propose(cx, PendingReply::Plain(request), op) {
                self.reply(cx, request, Err(error));
            }
        }
        any
    }
}

/// The audit's entry of a broken lock: who held it, and why it was broken.
fn audit_of(cx: &Cx<'_>, call: &wire::BreakLock, holders: &Holders) -> String {
    let mut what = alloc::format!("broke the lock of {}", call.path);
    for (index, (id, _, token)) in holders.keys().take(MAX_HOLDERS_NAMED).enumerate() {
        let client = cx.state.session(*id).map_or("", |session| &session.client);
        what += if index == 0 { ", held by " } else { ", and by " };
        what += &alloc::format!("{client} (session {id}, token {token})");
    }
    if holders.len() > MAX_HOLDERS_NAMED {
        what += &alloc::format!(", and by {} more", holders.len() - MAX_HOLDERS_NAMED);
    }
    if !call.reason.is_empty() {
        what += &alloc::format!(": {}", call.reason);
    }
    what
}
