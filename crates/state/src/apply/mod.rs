//! How each command changes the state. What must hold when it takes effect is checked here, at apply, and
//! not only where it was proposed: in between a session may have ended, a node have gone, a master changed.

mod contents;
mod context;
mod locks;
mod multi;
mod nodes;
mod sessions;

use crate::change::Change;
use crate::outcome::Outcome;
use crate::session::Session;
use crate::state::{Cell, KEY_BYTES, State};
use alloc::vec::Vec;
use context::Context;
use core::time::Duration;
use wombat_proto::wire::log::{self, command::Op};
use wombat_proto::{CellName, Epoch, Error, Instance, Result, SessionId, Slot};

/// What a command did.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The answer for the one who asked.
    pub result: Result<Outcome>,
    /// What has changed, for events, lock queues and caches; empty when nothing was done.
    pub changes: Vec<Change>,
}

impl State {
    /// Applies the command of `slot`, which must be later than the last. Total: whatever the command says,
    /// it either does what it names or does nothing and says why.
    pub fn apply(&mut self, slot: Slot, command: &log::Command) -> Applied {
        assert!(slot > self.applied, "slot {slot} was applied already: {}", self.applied);
        self.applied = slot;
        let mut changes = Vec::new();
        let result = apply(self, command, &mut changes);
        Applied { result, changes }
    }
}

fn apply(state: &mut State, command: &log::Command, changes: &mut Vec<Change>) -> Result<Outcome> {
    let Some(op) = &command.op else { return Err(Error::invalid("the command names no operation")) };
    if let Op::FoundCell(found) = op {
        return found_cell(state, command.wall_ms, found);
    }
    if state.cell.is_none() {
        return Err(Error::invalid("the cell is not founded"));
    }
    if let Op::BeginEpoch(begin) = op
        && command.epoch > state.epoch.0
    {
        state.epoch = Epoch(command.epoch);
        state.lead = state.lead.max(state.epoch.first_stamp().0.saturating_sub(state.applied.0));
        // Leases that an earlier master granted may still run, however many masters were in between.
        state.lease = state.lease.max(Duration::from_millis(begin.lease_ms.into()));
        state.cache_lease = state.cache_lease.max(Duration::from_millis(begin.cache_lease_ms.into()));
    }
    // SPEC I15: what a deposed master proposed takes no effect in a later epoch.
    if command.epoch != state.epoch.0 {
        return Err(Error::StaleEpoch { current: state.epoch });
    }
    let session = SessionId(command.session);
    let (stamp, wall_ms) = (state.stamp(), command.wall_ms);
    let context = &mut Context { stamp, wall_ms, session, delays_over: &command.delays_over, changes };
    match op {
        Op::BeginEpoch(begin) => {
            if begin.restored {
                sessions::end_all_restored(state, context);
            }
            Ok(Outcome::Done)
        }
        Op::FoundCell(_) | Op::CompareDigest(_) => Ok(Outcome::Done),
        Op::TakeDigest(take) => {
            let after = (Instance(take.after_node), SessionId(take.after_session));
            let (digest, next) = state.digest_part(after);
            Ok(Outcome::Digest { digest, next })
        }
        Op::SetLease(set) => {
            state.lease = Duration::from_millis(set.lease_ms.into());
            state.cache_lease = Duration::from_millis(set.cache_lease_ms.into());
            Ok(Outcome::Done)
        }
        Op::CloseOrphans(orphans) => {
            for one in &orphans.handles {
                context.session = SessionId(one.session);
                nodes::close(state, context, &log::Close { instance: one.instance, handle: one.handle })?;
            }
            Ok(Outcome::Done)
        }
        Op::AllowCacheLeases(allow) => {
            sessions::allow_cache_leases(state, allow);
            Ok(Outcome::Done)
        }
        Op::CreateSession(create) => sessions::create(state, context, create),
        Op::EndSessions(end) => sessions::end(state, context, end),
        // A grant is found again by its handle, so its answer needs no keeping.
        Op::Grant(grant) => {
            live(state, session)?;
            locks::grant(state, context, grant)
        }
        change => once(state, command, |state| {
            if is_fenced(change) {
                state.check_session_fences(session)?;
            }
            match change {
                Op::Open(open) => nodes::open(state, context, open),
                Op::Close(close) => nodes::close(state, context, close),
                Op::SetContents(set) => nodes::set_contents(state, context, set),
                Op::Delete(delete) => nodes::delete(state, context, delete),
                Op::Release(release) => locks::release(state, context, release),
                Op::SetSequencer(set) => locks::set_sequencer(state, context, set),
                Op::BreakLock(broken) => locks::break_lock(state, context, broken),
                Op::Multi(multi) => multi::apply(state, context, multi),
                _ => unreachable!("handled above"),
            }
        }),
    }
}

/// Whether a session's fences stand before a change. What gives something up is never refused.
fn is_fenced(op: &Op) -> bool {
    match op {
        Op::Close(_) | Op::Release(_) | Op::SetSequencer(_) => false,
        // To keep an ephemeral node alive that exists changes nothing in it.
        Op::Open(open) => open.instance == 0,
        _ => true,
    }
}

fn found_cell(state: &mut State, wall_ms: u64, found: &log::FoundCell) -> Result<Outcome> {
    if state.cell.is_some() {
        return Err(Error::invalid("the cell is founded already"));
    }
    let key = <[u8; KEY_BYTES]>::try_from(&found.key[..])
        .map_err(|_| Error::invalid("the cell's key has the wrong length"))?;
    state.cell = Some(Cell { name: CellName::parse(&found.cell)?, key });
    let stamp = state.stamp();
    state.last_instance = Instance(stamp.0);
    state.tree.insert(nodes::root(stamp, wall_ms));
    Ok(Outcome::Done)
}

fn live(state: &mut State, session: SessionId) -> Result<&mut Session> {
    state.session_mut(session).ok_or(Error::SessionExpired)
}

/// Makes a session's change take effect at most once (SPEC I13): a retry gets the first answer.
fn once(
    state: &mut State,
    command: &log::Command,
    change: impl FnOnce(&mut State) -> Result<Outcome>,
) -> Result<Outcome> {
    let id = SessionId(command.session);
    let session = live(state, id)?;
    if let Some(result) = session.answer(command.number) {
        return result;
    }
    session.acknowledge(command.acknowledged.min(command.number.saturating_sub(1)));
    session.admit()?;
    let result = change(state);
    let session = live(state, id).expect("a session's change does not end it");
    session.keep(command.number, result.clone());
    result
}
