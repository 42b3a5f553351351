//! Writing a file, and clearing it when the lock that its contents belong to is free again.

use super::context::Context;
use crate::change::Change;
use crate::lock::Holder;
use crate::node::{Body, Node};
use crate::state::State;
use bytes::Bytes;
use wombat_proto::limits::CONTENTS_BYTES;
use wombat_proto::wire::Stat;
use wombat_proto::{Error, Generation, Instance, Result};

/// Writes a file whole, if its contents are of the expected generation.
pub(super) fn write(
    state: &mut State,
    context: &mut Context<'_>,
    instance: Instance,
    contents: &Bytes,
    expected: Option<Generation>,
) -> Result<Stat> {
    check_contents(contents)?;
    let node = state.tree.get(instance).ok_or(Error::StaleHandle)?;
    let Body::File { generation, .. } = node.body else { return Err(Error::IsDirectory) };
    if expected.is_some_and(|expected| expected != generation) {
        return Err(Error::GenerationMismatch { actual: generation });
    }
    let place = node.place.clone();
    let floor = Generation(state.restored_at.0);
    let (wall_ms, stamp) = (context.wall_ms, context.stamp);
    let stat = state.tree.edit(instance, |node| {
        node.body = Body::file(contents.clone(), generation.next().max(floor));
        node.modified_wall_ms = wall_ms;
        node.modified_slot = stamp;
        node.stat()
    });
    context.changes.push(Change::ContentsModified { instance });
    if let Some((parent, name)) = place {
        context.changes.push(Change::ChildModified { parent, name });
    }
    Ok(stat.expect("looked up above"))
}

/// A grant has ended: contents that were to end with it are cleared.
pub(super) fn clear_ended(state: &mut State, context: &mut Context<'_>, instance: Instance, ended: Holder) {
    let contents = state.tree.get(instance).and_then(Node::contents);
    if ended.clears_contents && contents.is_some_and(|contents| !contents.is_empty()) {
        let cleared = write(state, context, instance, &Bytes::new(), None);
        debug_assert!(cleared.is_ok(), "a file that exists can be emptied");
    }
}

pub(super) fn check_contents(contents: &Bytes) -> Result<()> {
    if contents.len() > CONTENTS_BYTES { Err(Error::contents_too_large(contents.len())) } else { Ok(()) }
}
