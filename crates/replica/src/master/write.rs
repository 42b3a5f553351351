//! Writes and deletes through a handle (P§2.6), and several changes as one.

use super::Master;
use super::open::check_length;
use crate::context::Cx;
use crate::request::{Reply, RequestContext};
use wombat_proto::limits::{CONTENTS_BYTES, MULTI_STEPS};
use wombat_proto::wire::{self, change, guard, log, log::command::Op, mode};
use wombat_proto::{Error, Result};

impl Master {
    pub(super) fn set_contents(
        &mut self,
        cx: &mut Cx<'_>,
        request: RequestContext,
        set: wire::SetContents,
    ) -> Result<Reply> {
        if let Some(result) = Master::answered_before(cx, request) {
            return result.map(Reply::Now);
        }
        if set.contents.len() > CONTENTS_BYTES {
            return Err(Error::contents_too_large(set.contents.len()));
        }
        let (handle, node) = self.node(cx, request, set.handle.as_ref(), mode::WRITE)?;
        if node.is_directory() {
            return Err(Error::IsDirectory);
        }
        let op = Op::SetContents(log::SetContents {
            instance: handle.token.instance,
            contents: set.contents,
            if_generation: set.if_generation,
            handle: handle.token.id,
        });
        self.change(cx, request, op)
    }

    pub(super) fn delete(
        &mut self,
        cx: &mut Cx<'_>,
        request: RequestContext,
        delete: &wire::Delete,
    ) -> Result<Reply> {
        if let Some(result) = Master::answered_before(cx, request) {
            return result.map(Reply::Now);
        }
        let (handle, _) = self.node(cx, request, delete.handle.as_ref(), mode::WRITE)?;
        let op = Op::Delete(log::Delete { instance: handle.token.instance, handle: handle.token.id });
        self.change(cx, request, op)
    }

    pub(super) fn multi(
        &mut self,
        cx: &mut Cx<'_>,
        request: RequestContext,
        multi: wire::Multi,
    ) -> Result<Reply> {
        if multi.guards.len() + multi.changes.len() > MULTI_STEPS {
            let what = alloc::format!("a Multi of more than {MULTI_STEPS} guards and changes");
            return Err(Error::TooLarge { what });
        }
        let guarded = multi.guards.iter().map(path_of_guard);
        for (step, path) in (1..).zip(guarded.chain(multi.changes.iter().map(path_of_change))) {
            if let Some(path) = path {
                cx.config.parse_path(path).map_err(|error| error.at_step(step))?;
            }
        }
        for (step, change) in (multi.guards.len() as u32 + 1..).zip(&multi.changes) {
            if let Some(change::Change::Create(create)) = &change.change {
                check_length(create.path.len(), create.node.as_ref().is_some_and(|new| new.sequential))
                    .map_err(|error| error.at_step(step))?;
            }
        }
        self.change(cx, request, Op::Multi(log::Multi { steps: Some(multi) }))
    }
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
