//! Reads through a handle (P§2.6).

use super::Master;
use crate::context::Cx;
use crate::pages::page_of;
use crate::request::{Answer, RequestContext};
use crate::tables::handles::OpenHandle;
use wombat_proto::wire::{self, mode};
use wombat_proto::{Error, Result};
use wombat_state::Node;

impl Master {
    /// The node behind a handle that was opened for `wanted` use. A handle whose sequencer is stale leads to none.
    pub(super) fn node<'a>(
        &mut self,
        cx: &Cx<'a>,
        request: RequestContext,
        token: Option<&wire::Handle>,
        wanted: u32,
    ) -> Result<(OpenHandle, &'a Node)> {
        let handle = self.handle_for(request.session, token, wanted)?;
        cx.state.check_fence(request.session, handle.id())?;
        let node = cx.state.tree().get(handle.instance()).ok_or(Error::StaleHandle)?;
        Ok((handle, node))
    }

    pub(super) fn get_contents(
        &mut self,
        cx: &Cx<'_>,
        request: RequestContext,
        get: &wire::GetContents,
    ) -> Result<Answer> {
        let (_, node) = self.node(cx, request, get.handle.as_ref(), mode::READ)?;
        let contents = node.contents().ok_or(Error::IsDirectory)?.clone();
        Ok(Answer::Contents(wire::Contents { contents, stat: Some(node.stat()) }))
    }

    pub(super) fn get_stat(
        &mut self,
        cx: &Cx<'_>,
        request: RequestContext,
        get: &wire::GetStat,
    ) -> Result<Answer> {
        let (_, node) = self.node(cx, request, get.handle.as_ref(), mode::READ)?;
        Ok(Answer::Stat(node.stat()))
    }

    pub(super) fn read_dir(
        &mut self,
        cx: &Cx<'_>,
        request: RequestContext,
        read: &wire::ReadDir,
    ) -> Result<Answer> {
        let (_, directory) = self.node(cx, request, read.handle.as_ref(), mode::READ)?;
        page_of(cx.state.tree(), directory, &read.after, read.limit).map(Answer::Entries)
    }
}
