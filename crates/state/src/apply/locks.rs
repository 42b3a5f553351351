//! Granting, releasing and breaking locks (P§2.4).

use super::contents::clear_ended;
use super::context::Context;
use crate::change::Change;
use crate::lock::Holder;
use crate::outcome::Outcome;
use crate::session::Fence;
use crate::state::State;
use alloc::collections::BTreeSet;
use alloc::format;
use core::time::Duration;
use wombat_proto::limits::HANDLES_PER_SESSION;
use wombat_proto::wire::log;
use wombat_proto::{Error, Generation, HandleId, Instance, LockMode, Result, SessionId, Token};

/// A grant checks again, where it takes effect, all that it was proposed on (SPEC §4): the session lives and
/// the epoch is current (checked by the caller), the instance is the same, the handle's sequencer is not stale,
/// the lock is compatible, and no lock-delay is in the way.
pub(super) fn grant(state: &mut State, context: &mut Context<'_>, grant: &log::Grant) -> Result<Outcome> {
    let (instance, handle) = (Instance(grant.instance), HandleId(grant.handle));
    let node = state.tree.get(instance).ok_or(Error::StaleHandle)?;
    if let Some(holder) = node.lock.holder(context.session, handle) {
        // A retry finds its own grant; a second Acquire on a handle that holds is refused.
        return match holder.acquire == grant.acquire {
            true => Ok(Outcome::Granted { token: holder.token, generation: node.lock.generation() }),
            false => Err(Error::LockHeld),
        };
    }
    state.check_session_fences(context.session)?;
    state.check_fence(context.session, handle)?;
    let holder = Holder {
        mode: if grant.shared { LockMode::Shared } else { LockMode::Exclusive },
        token: Token(context.stamp.0),
        lock_delay: Duration::from_millis(grant.lock_delay_ms.into()),
        acquire: grant.acquire,
        since_wall_ms: context.wall_ms,
        clears_contents: grant.clears_contents,
    };
    let delay_over = node.lock.delay().is_some_and(|delay| context.is_over(delay.since));
    let (key, floor) = ((context.session, handle), Generation(state.restored_at.0));
    let generation = state
        .tree
        .edit(instance, |node| {
            node.lock.grant(key, holder, (node.permits, floor), delay_over).map(|()| node.lock.generation())
        })
        .expect("looked up above")?;
    let session = state.session_mut(context.session).expect("checked by the caller");
    session.locks.insert((instance, handle));
    context.changes.push(Change::LockAcquired { instance, holder: key });
    Ok(Outcome::Granted { token: holder.token, generation })
}

pub(super) fn release(
    state: &mut State,
    context: &mut Context<'_>,
    release: &log::Release,
) -> Result<Outcome> {
    let (instance, handle) = (Instance(release.instance), HandleId(release.handle));
    let session = context.session;
    let holder = (session, handle);
    let released = state.tree.edit(instance, |node| node.lock.release(session, handle));
    let released = released.ok_or(Error::StaleHandle)?.ok_or(Error::NotHeld)?;
    clear_ended(state, context, instance, released);
    let session = state.session_mut(session).expect("checked by the caller");
    session.locks.remove(&(instance, handle));
    context.changes.push(Change::LockReleased { instance, holder });
    Ok(Outcome::Done)
}

pub(super) fn set_sequencer(
    state: &mut State,
    context: &mut Context<'_>,
    set: &log::SetSequencer,
) -> Result<Outcome> {
    let fence = Fence { instance: Instance(set.instance), token: Token(set.token) };
    let node = state.tree.get(fence.instance).ok_or(Error::SequencerStale)?;
    node.lock.holder_of_token(fence.token).ok_or(Error::SequencerStale)?;
    let session = state.session_mut(context.session).expect("checked by the caller");
    if session.fences.len() >= HANDLES_PER_SESSION && !session.fences.contains_key(&HandleId(set.handle)) {
        return Err(Error::QuotaExceeded { what: "handles with a sequencer in one session".into() });
    }
    session.fences.insert(HandleId(set.handle), fence);
    Ok(Outcome::Done)
}

/// Takes a lock from holders who know of it, or whose sessions have ended (SPEC §4). It is noted for good, also
/// when they have given it back meanwhile.
pub(super) fn break_lock(
    state: &mut State,
    context: &mut Context<'_>,
    broken: &log::BreakLock,
) -> Result<Outcome> {
    let instance = Instance(broken.instance);
    let node = state.tree.get(instance).ok_or(Error::StaleHandle)?;
    let holders = broken.tokens.iter().filter_map(|token| node.lock.holder_of_token(Token(*token)));
    let holders: BTreeSet<_> = holders.map(|(key, _)| key).collect();
    for (session, handle) in holders.iter().copied() {
        if let Some(session) = state.session_mut(session) {
            session.locks.remove(&(instance, handle));
        }
        context.changes.push(Change::LockBroken { session, handle });
        abandon(state, context, instance, (session, handle));
    }
    let given_back = if holders.is_empty() { " (given back when it was asked for)" } else { "" };
    let what = format!("{}{given_back}", broken.what);
    state.note_audit(context.stamp, context.wall_ms, context.session, what);
    Ok(Outcome::Done)
}

/// Takes a lock from a holder that has not given it back: its lock-delay begins, if it asked for one. That its
/// session holds it no more is up to the caller.
pub(super) fn abandon(
    state: &mut State,
    context: &mut Context<'_>,
    instance: Instance,
    holder: (SessionId, HandleId),
) {
    let held = state.tree.get(instance).and_then(|node| node.lock.holder(holder.0, holder.1)).copied();
    let delay = state.tree.edit(instance, |node| {
        let delay_over = node.lock.delay().is_some_and(|delay| context.is_over(delay.since));
        node.lock.abandon(holder, context.stamp, delay_over)
    });
    if let Some(held) = held {
        clear_ended(state, context, instance, held);
    }
    context.changes.push(match delay.expect("a locked node exists") {
        Some(delay) => Change::LockDelayed { instance, holder, since: delay.since, length: delay.length },
        None => Change::LockReleased { instance, holder },
    });
}
