//! The beginning and end of sessions (P§2.8).

use super::context::Context;
use super::{contents, locks, nodes};
use crate::change::Change;
use crate::outcome::Outcome;
use crate::session::{Fence, Session};
use crate::state::State;
use alloc::sync::Arc;
use wombat_proto::limits::{CLIENT_DESCRIPTION_BYTES, SEQUENCERS_PER_SESSION, SESSIONS};
use wombat_proto::wire::log;
use wombat_proto::{Error, Instance, Result, SessionId, Token};

pub(super) fn create(
    state: &mut State,
    context: &mut Context<'_>,
    create: &log::CreateSession,
) -> Result<Outcome> {
    if state.sessions.len() >= SESSIONS {
        return Err(Error::QuotaExceeded {
            what: alloc::format!("the cell has {SESSIONS} sessions already"),
        });
    }
    if create.client.len() > CLIENT_DESCRIPTION_BYTES {
        return Err(Error::TooLarge { what: "the client's description of itself".into() });
    }
    if create.fences.len() > SEQUENCERS_PER_SESSION {
        return Err(Error::TooLarge { what: "the session's list of sequencers".into() });
    }
    let id = SessionId(context.stamp.0);
    let fence = |fence: &log::Fence| Fence { instance: Instance(fence.instance), token: Token(fence.token) };
    let session = Session {
        client: create.client.clone(),
        created_wall_ms: context.wall_ms,
        caches: create.caches,
        session_fences: create.fences.iter().map(fence).collect(),
        ..Session::default()
    };
    state.sessions.insert(id, Arc::new(session));
    Ok(Outcome::Session(id))
}

/// Masters may grant cache leases to these sessions, of which some may have ended.
pub(super) fn allow_cache_leases(state: &mut State, allow: &log::AllowCacheLeases) {
    for id in &allow.sessions {
        if let Some(session) = state.sessions.get_mut(&SessionId(*id)) {
            Arc::make_mut(session).has_cache_lease = true;
        }
    }
}

/// Ends sessions, as one entry: their locks go free by the lock-delay rules and their ephemerals vanish.
pub(super) fn end(state: &mut State, context: &mut Context<'_>, end: &log::EndSessions) -> Result<Outcome> {
    for id in &end.sessions {
        end_one(state, context, SessionId(*id), end.asked);
    }
    Ok(Outcome::Done)
}

/// The cell goes on from a backup: nobody may go on with a session, a handle or a sequencer of before, because
/// what its client did since the backup is forgotten. What is given out from now on repeats nothing that was
/// given out since.
pub(super) fn end_all_restored(state: &mut State, context: &mut Context<'_>) {
    let first = |state: &State| state.sessions.keys().next().copied();
    while let Some(id) = first(state) {
        end_one(state, context, id, false);
    }
    state.restored_at = context.stamp;
}

fn end_one(state: &mut State, context: &mut Context<'_>, id: SessionId, asked: bool) {
    let Some(session) = state.sessions.remove(&id) else { return };
    for (instance, handle) in session.locks() {
        if asked {
            let released = state.tree.edit(instance, |node| node.lock.release(id, handle));
            let released = released.flatten().expect("a session knows what it holds");
            contents::clear_ended(state, context, instance, released);
            context.changes.push(Change::LockReleased { instance, holder: (id, handle) });
        } else {
            locks::abandon(state, context, instance, (id, handle));
        }
    }
    // First every handle is gone, then what none keeps alive: an ephemeral directory may hold an ephemeral
    // file of the same session.
    for (instance, handle) in session.ephemerals() {
        state.tree.edit(instance, |node| node.openers.remove(&(id, handle)));
    }
    for (instance, _) in session.ephemerals() {
        nodes::remove_orphans(state, context, instance);
    }
    context.changes.push(Change::SessionEnded { session: id });
}
