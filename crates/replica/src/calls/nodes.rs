//! Reading, writing and deleting through a handle (P§2.6), and several changes as one.

use super::fill_page;
use super::open::check_length;
use crate::handles::OpenHandle;
use crate::{Answer, Asker, Replica};
use core::ops::Bound;
use wombat_proto::limits::{CONTENTS_BYTES, MULTI_STEPS};
use wombat_proto::wire::{self, change, guard, log, log::command::Op, mode};
use wombat_proto::{Error, Name, Result};
use wombat_state::{Node, Tree};

impl Replica {
    /// The node behind a handle that was opened for `wanted` use. A handle whose sequencer is stale is none.
    fn node(
        &mut self,
        asker: Asker,
        token: Option<&wire::Handle>,
        wanted: u32,
    ) -> Result<(OpenHandle, &Node)> {
        let handle = self.serving()?.handle_for(asker.session, token, wanted)?;
        let id = wombat_proto::HandleId(handle.token.id);
        self.state.check_fence(asker.session, id)?;
        let node = self.state.tree().get(handle.instance()).ok_or(Error::StaleHandle)?;
        Ok((handle, node))
    }

    pub(super) fn get_contents(&mut self, asker: Asker, get: &wire::GetContents) -> Result<Answer> {
        let (_, node) = self.node(asker, get.handle.as_ref(), mode::READ)?;
        let contents = node.contents().ok_or(Error::IsDirectory)?.clone();
        Ok(Answer::Contents(wire::Contents { contents, stat: Some(node.stat()) }))
    }

    pub(super) fn get_stat(&mut self, asker: Asker, get: &wire::GetStat) -> Result<Answer> {
        let (_, node) = self.node(asker, get.handle.as_ref(), mode::READ)?;
        Ok(Answer::Stat(node.stat()))
    }

    pub(super) fn read_dir(&mut self, asker: Asker, read: &wire::ReadDir) -> Result<Answer> {
        let (handle, _) = self.node(asker, read.handle.as_ref(), mode::READ)?;
        let tree = self.state.tree();
        let directory = tree.get(handle.instance()).ok_or(Error::StaleHandle)?;
        page_of(tree, directory, &read.after, read.limit).map(Answer::Entries)
    }

    pub(super) fn set_contents(
        &mut self,
        asker: Asker,
        acknowledged: u64,
        set: wire::SetContents,
    ) -> Result<Option<Answer>> {
        if let Some(result) = self.answered_before(asker) {
            return result.map(Some);
        }
        if set.contents.len() > CONTENTS_BYTES {
            return Err(Error::contents_too_large(set.contents.len()));
        }
        let (handle, node) = self.node(asker, set.handle.as_ref(), mode::WRITE)?;
        if node.is_directory() {
            return Err(Error::IsDirectory);
        }
        let op = Op::SetContents(log::SetContents {
            instance: handle.token.instance,
            contents: set.contents,
            if_generation: set.if_generation,
            handle: handle.token.id,
        });
        self.change(asker, acknowledged, op)
    }

    pub(super) fn delete(
        &mut self,
        asker: Asker,
        acknowledged: u64,
        delete: &wire::Delete,
    ) -> Result<Option<Answer>> {
        if let Some(result) = self.answered_before(asker) {
            return result.map(Some);
        }
        let (handle, _) = self.node(asker, delete.handle.as_ref(), mode::WRITE)?;
        let op = Op::Delete(log::Delete { instance: handle.token.instance, handle: handle.token.id });
        self.change(asker, acknowledged, op)
    }

    pub(super) fn multi(
        &mut self,
        asker: Asker,
        acknowledged: u64,
        multi: wire::Multi,
    ) -> Result<Option<Answer>> {
        if multi.guards.len() + multi.changes.len() > MULTI_STEPS {
            let what = alloc::format!("a Multi of more than {MULTI_STEPS} guards and changes");
            return Err(Error::TooLarge { what });
        }
        let guarded = multi.guards.iter().map(path_of_guard);
        for (step, path) in (1..).zip(guarded.chain(multi.changes.iter().map(path_of_change))) {
            if let Some(path) = path {
                self.parse(path).map_err(|error| error.at_step(step))?;
            }
        }
        for (step, change) in (multi.guards.len() as u32 + 1..).zip(&multi.changes) {
            if let Some(change::Change::Create(create)) = &change.change {
                check_length(create.path.len(), create.node.as_ref().is_some_and(|new| new.sequential))
                    .map_err(|error| error.at_step(step))?;
            }
        }
        self.change(asker, acknowledged, Op::Multi(log::Multi { steps: Some(multi) }))
    }
}

/// A page of a directory: its children after a name, the first ones if that is empty.
pub(super) fn page_of(tree: &Tree, directory: &Node, after: &str, limit: u32) -> Result<wire::Entries> {
    let children = directory.children().ok_or(Error::NotDirectory)?;
    let after = match after {
        "" => None,
        after => Some(Name::parse(after)?),
    };
    let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    let rest = children.iter_from(from).map(|(name, child)| {
        let stat = tree.get(*child).map(Node::stat);
        wire::Entry { name: name.as_str().into(), stat }
    });
    let (entries, more) = fill_page(limit, rest);
    Ok(wire::Entries { entries, more })
}

fn path_of_guard(guard: &wire::Guard) -> Option<&str> {
    match guard.guard.as_ref()? {
        guard::Guard::Exists(path) | guard::Guard::Absent(path) | guard::Guard::LockHeld(path) => Some(path),
        guard::Guard::GenerationIs(expected) => Some(&expected.path),
    }
}

fn path_of_change(change: &wire::Change) -> Option<&str> {
    match change.change.as_ref()? {
        change::Change::Create(create) => Some(&create.path),
        change::Change::Set(set) => Some(&set.path),
        change::Change::Delete(path) => Some(path),
    }
}
