//! Opening, writing, closing and deleting nodes (P§2.3, P§2.6).

use super::contents::{self, check_contents};
use super::context::Context;
use crate::change::Change;
use crate::cow_map::CowMap;
use crate::lock::Lock;
use crate::node::{Body, Node};
use crate::outcome::Outcome;
use crate::state::State;
use alloc::borrow::ToOwned;
use alloc::string::String;
use wombat_proto::limits::NODES;
use wombat_proto::wire::{NewNode, log};
use wombat_proto::{Error, Generation, HandleId, Instance, Name, Result, SessionId, Slot};

/// The root of a new cell.
pub(super) fn root(stamp: Slot, wall_ms: u64) -> Node {
    Node {
        instance: Instance(stamp.0),
        place: None,
        body: Body::directory(0),
        ephemeral: false,
        permits: 0,
        acls: ["*"; 3].map(String::from),
        acl_generation: Generation(1),
        lock: Lock::default(),
        openers: CowMap::new(),
        created_wall_ms: wall_ms,
        modified_wall_ms: wall_ms,
        modified_slot: stamp,
    }
}

pub(super) fn open(state: &mut State, context: &mut Context<'_>, open: &log::Open) -> Result<Outcome> {
    let handle = HandleId(open.handle);
    if open.instance != 0 {
        let node = state.tree.get(Instance(open.instance)).ok_or(Error::StaleHandle)?;
        return opened(state, context.session, handle, node.instance, false);
    }
    let name = Name::parse(&open.name)?;
    let parent = Instance(open.parent);
    let wanted = open.node.as_ref().ok_or_else(|| Error::invalid("the command says not what to create"))?;
    let existing = children(state, parent)?.get(&name).filter(|_| !wanted.sequential).copied();
    if let Some(instance) = existing {
        if open.must_create {
            return Err(Error::AlreadyExists);
        }
        let node = state.tree.get(instance).expect("a child exists");
        right_kind(node, wanted.directory)?;
        return opened(state, context.session, handle, instance, false);
    }
    let instance = create(state, context, parent, name, wanted)?;
    opened(state, context.session, handle, instance, true)
}

/// Refuses a file where a directory is wanted, and the other way about.
fn right_kind(node: &Node, directory: bool) -> Result<()> {
    match (node.is_directory(), directory) {
        (false, true) => Err(Error::NotDirectory),
        (true, false) => Err(Error::IsDirectory),
        _ => Ok(()),
    }
}

/// Makes a node. Its instance is the stamp of the entry that makes it or, where one entry makes several, the
/// next number that no node has had: later than every earlier node's in any case. A name that is to be
/// completed by a number gets the directory's next.
pub(super) fn create(
    state: &mut State,
    context: &mut Context<'_>,
    parent: Instance,
    name: Name,
    new: &NewNode,
) -> Result<Instance> {
    if state.tree.len() >= NODES {
        return Err(Error::QuotaExceeded { what: alloc::format!("the cell holds {NODES} nodes already") });
    }
    check_contents(&new.contents)?;
    if new.directory && !new.contents.is_empty() {
        return Err(Error::invalid("a directory has no contents"));
    }
    let acls = state.tree.get(parent).map(|parent| parent.acls.clone()).ok_or(Error::StaleHandle)?;
    let name = if new.sequential { numbered(state, parent, &name)? } else { name };
    let instance = Instance(context.stamp.0.max(state.last_instance.0 + 1));
    state.last_instance = instance;
    state.tree.insert(Node {
        instance,
        place: Some((parent, name.clone())),
        body: if new.directory {
            Body::directory(0)
        } else {
            Body::file(new.contents.clone(), Generation(1))
        },
        ephemeral: new.ephemeral,
        permits: new.permits,
        acls,
        acl_generation: Generation(1),
        lock: Lock::default(),
        openers: CowMap::new(),
        created_wall_ms: context.wall_ms,
        modified_wall_ms: context.wall_ms,
        modified_slot: context.stamp,
    });
    context.changes.push(Change::ChildAdded { parent, name });
    Ok(instance)
}

/// The name completed by the next number of its directory that makes it a new one.
fn numbered(state: &mut State, parent: Instance, prefix: &Name) -> Result<Name> {
    let floor = state.restored_at.0;
    let numbered = state.tree.edit(parent, |parent| {
        let Body::Directory { children, numbered } = &mut parent.body else {
            return Err(Error::NotDirectory);
        };
        *numbered = floor.max(*numbered);
        loop {
            let name = Name::parse(&alloc::format!("{prefix}{:010}", *numbered + 1))?;
            *numbered += 1;
            if !children.contains_key(&name) {
                return Ok(name);
            }
        }
    });
    numbered.ok_or(Error::StaleHandle)?
}

/// Registers the handle where it keeps a node alive, and tells what was opened.
fn opened(
    state: &mut State,
    session: SessionId,
    handle: HandleId,
    instance: Instance,
    created: bool,
) -> Result<Outcome> {
    let node = state.tree.get(instance).expect("looked up by the caller");
    let stat = node.stat();
    if node.ephemeral {
        state.tree.edit(instance, |node| node.openers.insert((session, handle), ()));
        let session = state.session_mut(session).ok_or(Error::SessionExpired)?;
        session.ephemerals.insert((instance, handle));
    }
    Ok(Outcome::Opened { created, stat })
}

/// Close never fails (P§2.6): what the handle held goes free, what it kept alive may vanish.
pub(super) fn close(state: &mut State, context: &mut Context<'_>, close: &log::Close) -> Result<Outcome> {
    let (instance, handle) = (Instance(close.instance), HandleId(close.handle));
    let Some(session) = state.session_mut(context.session) else { return Ok(Outcome::Done) };
    session.fences.remove(&handle);
    let held = session.locks.remove(&(instance, handle));
    let kept_alive = session.ephemerals.remove(&(instance, handle));
    let key = (context.session, handle);
    let released = state.tree.edit(instance, |node| {
        node.openers.remove(&key);
        node.lock.release(key.0, key.1)
    });
    if let Some(released) = released.flatten() {
        contents::clear_ended(state, context, instance, released);
    }
    if held {
        context.changes.push(Change::LockReleased { instance, holder: key });
    }
    if kept_alive {
        remove_orphans(state, context, instance);
    }
    Ok(Outcome::Done)
}

pub(super) fn set_contents(
    state: &mut State,
    context: &mut Context<'_>,
    set: &log::SetContents,
) -> Result<Outcome> {
    state.check_fence(context.session, HandleId(set.handle))?;
    let expected = (set.if_generation != 0).then_some(Generation(set.if_generation));
    contents::write(state, context, Instance(set.instance), &set.contents, expected).map(Outcome::Written)
}

pub(super) fn delete(state: &mut State, context: &mut Context<'_>, delete: &log::Delete) -> Result<Outcome> {
    let handle = HandleId(delete.handle);
    state.check_fence(context.session, handle)?;
    remove(state, context, Instance(delete.instance), handle)?;
    Ok(Outcome::Done)
}

/// Deletes a node that nothing stands against: children, a lock that another handle holds, a lock-delay.
pub(super) fn remove(
    state: &mut State,
    context: &mut Context<'_>,
    instance: Instance,
    handle: HandleId,
) -> Result<()> {
    let node = state.tree.get(instance).ok_or(Error::StaleHandle)?;
    if node.place.is_none() {
        return Err(Error::invalid("the root of a cell cannot be deleted"));
    }
    if node.children().is_some_and(|children| !children.is_empty()) {
        return Err(Error::NotEmpty);
    }
    // No guard may believe in a lock that someone else can have by making the name anew (SPEC §4).
    if node.lock.held_by_another(context.session, handle) {
        return Err(Error::LockHeld);
    }
    if let Some(delay) = node.lock.delay().filter(|delay| !context.is_over(delay.since)) {
        return Err(Error::LockDelayed { remaining: delay.length });
    }
    vanish(state, context, instance);
    Ok(())
}

/// Removes a node, what stood on it in its sessions, and the directories above that it kept alive.
fn vanish(state: &mut State, context: &mut Context<'_>, instance: Instance) {
    let node = state.tree.remove(instance).expect("looked up by the caller");
    for ((session, handle), _) in node.lock.holders() {
        if let Some(session) = state.session_mut(session) {
            session.locks.remove(&(instance, handle));
        }
    }
    for (session, handle) in node.openers.keys() {
        if let Some(session) = state.session_mut(*session) {
            session.ephemerals.remove(&(instance, *handle));
        }
    }
    context.changes.push(Change::Deleted { instance });
    if let Some((parent, name)) = node.place.clone() {
        context.changes.push(Change::ChildRemoved { parent, name });
        remove_orphans(state, context, parent);
    }
}

/// Removes an ephemeral node that nothing keeps alive any more (P§2.3).
pub(super) fn remove_orphans(state: &mut State, context: &mut Context<'_>, instance: Instance) {
    if state.tree.get(instance).is_some_and(Node::is_orphan) {
        vanish(state, context, instance);
    }
}

/// The children of a directory that a command names by instance.
pub(super) fn children(state: &State, parent: Instance) -> Result<&CowMap<Name, Instance>> {
    let gone = || Error::not_found("the directory to create it in".to_owned());
    state.tree.get(parent).ok_or_else(gone)?.children().ok_or(Error::NotDirectory)
}
