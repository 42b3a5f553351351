//! The handles that a session has open (P§2.6): as long as there is one the session is not idle, and after a
//! fail-over some have to be presented to the new master.

use alloc::collections::BTreeMap;
use wombat_proto::wire::{Handle, Opened};

/// The open handles, by their ids.
#[derive(Clone, Default, Debug)]
pub(crate) struct Handles {
    open: BTreeMap<u64, Open>,
}

#[derive(Clone, Debug)]
struct Open {
    token: Handle,
    /// Whether the master must know of it even if it is not used: it keeps an ephemeral node alive, or wants
    /// events.
    to_present: bool,
}

impl Handles {
    /// An Open was answered.
    pub(crate) fn opened(&mut self, opened: &Opened) {
        let Some(token) = opened.handle else { return };
        let ephemeral = opened.stat.is_some_and(|stat| stat.ephemeral);
        self.open.insert(token.id, Open { token, to_present: ephemeral || token.events != 0 });
    }

    /// A handle is about to be closed.
    pub(crate) fn closed(&mut self, token: Option<&Handle>) {
        if let Some(token) = token {
            self.open.remove(&token.id);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Those that a new master must know of (P§2.9).
    pub(crate) fn to_present(&self) -> impl Iterator<Item = Handle> {
        self.open.values().filter(|open| open.to_present).map(|open| open.token)
    }
}
