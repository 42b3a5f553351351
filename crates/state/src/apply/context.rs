//! What the parts of `apply` share.

use crate::change::Change;
use alloc::vec::Vec;
use wombat_proto::{SessionId, Slot};

/// What the command's own part of `apply` needs to know, and where it notes what it changed.
pub(super) struct Context<'a> {
    /// What names what the command makes, see [`State::stamp`].
    pub(super) stamp: Slot,
    pub(super) wall_ms: u64,
    pub(super) session: SessionId,
    /// The lock-delays that have passed.
    pub(super) delays_over: &'a [u64],
    pub(super) changes: &'a mut Vec<Change>,
}

impl Context<'_> {
    pub(super) fn is_over(&self, delay: Slot) -> bool {
        self.delays_over.contains(&delay.0)
    }
}
