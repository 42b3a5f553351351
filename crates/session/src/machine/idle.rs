//! A session that is idle for long ends. It holds nothing, so nothing is lost; the next call begins another.

use super::Session;
use crate::api::Effects;
use crate::calls::Kind;
use crate::lease::LeaseView;
use wombat_proto::Epoch;
use wombat_proto::limits::IDLE_END;
use wombat_proto::wire::{self, request::Call};

impl Session {
    /// Ends a session that was idle for long. It holds nothing, so nothing is lost; the next call begins another.
    pub(super) fn maintain_idleness(&mut self, effects: &mut Effects) {
        if !self.is_idle() || self.up.is_none() || self.ending {
            self.idle_since = None;
            return;
        }
        let since = *self.idle_since.get_or_insert(self.now);
        if self.now >= since + IDLE_END && self.closing_idle.is_none() {
            let number = self.calls.number();
            self.transmit(number, Call::EndSession(wire::EndSession {}), Kind::Read, effects);
            self.closing_idle = Some(number);
            self.cache.shut(&mut effects.cache);
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.handles.is_empty() && self.calls.is_empty()
    }

    /// The session is over, and nobody needs another yet.
    pub(super) fn end_idle(&mut self, effects: &mut Effects) {
        self.close_links(effects);
        (self.identity, self.closing_idle, self.keep_alive, self.idle_since) = (None, None, None, None);
        self.lease = LeaseView::new(self.config.rho, self.config.grace);
        self.config.cell.clone_from(&self.cell); // The next session is with no other.
        (self.epoch, self.last_event) = (Epoch::NONE, 0);
        self.revocations.clear();
        self.cache.reopen();
        self.is_dormant = self.calls.is_empty();
    }
}
