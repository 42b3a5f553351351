//! Guards and several changes as one entry: all or nothing (SPEC §8; MultiOp of Paxos Made Live).

use super::context::Context;
use super::{contents, nodes};
use crate::node::{Body, Node};
use crate::outcome::Outcome;
use crate::state::State;
use alloc::string::String;
use wombat_proto::limits::MULTI_STEPS;
use wombat_proto::wire::{self, change, guard, log};
use wombat_proto::{Error, Generation, HandleId, NodePath, Path, Result, SessionId};

pub(super) fn apply(state: &mut State, context: &mut Context<'_>, multi: &log::Multi) -> Result<Outcome> {
    let steps = multi.steps.as_ref().ok_or_else(|| Error::invalid("the command holds no steps"))?;
    if steps.guards.len() + steps.changes.len() > MULTI_STEPS {
        return Err(Error::TooLarge { what: alloc::format!("more than {MULTI_STEPS} guards and changes") });
    }
    for (step, guard) in (1..).zip(&steps.guards) {
        check(state, context.session, guard).map_err(|error| error.at_step(step))?;
    }
    let (changes_before, before) = (context.changes.len(), state.clone());
    let mut done = wire::MultiDone::default();
    let mut changes = (steps.guards.len() as u32 + 1..).zip(&steps.changes);
    let result = changes.try_for_each(|(step, change)| {
        make(state, context, change, &mut done).map_err(|error| error.at_step(step))
    });
    if done.names.iter().all(String::is_empty) {
        done.names.clear();
    }
    if result.is_err() {
        *state = before;
        context.changes.truncate(changes_before);
    }
    result.map(|()| Outcome::Multi(done))
}

fn check(state: &State, session: SessionId, guard: &wire::Guard) -> Result<()> {
    match guard.guard.as_ref().ok_or_else(|| Error::invalid("a guard is empty"))? {
        guard::Guard::Exists(path) => find(state, path).map(drop),
        guard::Guard::Absent(path) => match state.tree.find(&parse(state, path)?) {
            None => Ok(()),
            Some(_) => Err(Error::AlreadyExists),
        },
        guard::Guard::GenerationIs(expected) => match &find(state, &expected.path)?.body {
            Body::File { generation, .. } if generation.0 == expected.generation => Ok(()),
            Body::File { generation, .. } => Err(Error::GenerationMismatch { actual: *generation }),
            Body::Directory { .. } => Err(Error::IsDirectory),
        },
        guard::Guard::LockHeld(path) => {
            let mine = find(state, path)?.lock.holders_of(session).next().is_some();
            if mine { Ok(()) } else { Err(Error::NotHeld) }
        }
    }
}

/// Makes one change, and adds what is to tell of it.
fn make(
    state: &mut State,
    context: &mut Context<'_>,
    change: &wire::Change,
    done: &mut wire::MultiDone,
) -> Result<()> {
    let mut completed = String::new();
    let stat = match change.change.as_ref().ok_or_else(|| Error::invalid("a change is empty"))? {
        change::Change::Create(create) => {
            let path = parse(state, &create.path)?;
            let Some((directory, name)) = path.split_last() else { return Err(Error::AlreadyExists) };
            let name = name.clone();
            let new =
                create.node.as_ref().ok_or_else(|| Error::invalid("a change says not what to create"))?;
            if new.ephemeral {
                return Err(Error::invalid(
                    "an ephemeral node needs a handle: make it by Open, not in a Multi",
                ));
            }
            let missing = || Error::not_found(alloc::format!("the directory of {}", create.path));
            let parent = state.tree.find(&directory).ok_or_else(missing)?.instance;
            if nodes::children(state, parent)?.contains_key(&name) && !new.sequential {
                return Err(Error::AlreadyExists);
            }
            let instance = nodes::create(state, context, parent, name, new)?;
            let node = state.tree.get(instance).expect("it was just made");
            if new.sequential {
                let (_, name) = node.place.as_ref().expect("it is not the root");
                completed = name.as_str().into();
            }
            node.stat()
        }
        change::Change::Set(set) => {
            let instance = find(state, &set.path)?.instance;
            contents::write(state, context, instance, &set.contents, None::<Generation>)?
        }
        change::Change::Delete(path) => {
            let instance = find(state, path)?.instance;
            nodes::remove(state, context, instance, HandleId(0))?;
            wire::Stat::default()
        }
    };
    done.stats.push(stat);
    done.names.push(completed);
    Ok(())
}

fn find<'a>(state: &'a State, path: &str) -> Result<&'a Node> {
    state.tree.find(&parse(state, path)?).ok_or_else(|| Error::not_found(path))
}

/// Takes the cell off a path.
fn parse(state: &State, path: &str) -> Result<NodePath> {
    let path = Path::parse(path)?;
    match state.cell_name() {
        Some(cell) if *cell == path.cell => Ok(path.node),
        _ => Err(Error::invalid(alloc::format!("{path} is in another cell"))),
    }
}
