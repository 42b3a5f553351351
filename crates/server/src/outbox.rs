//! What waits to be sent on a client's connection.

use crate::outlet::Outlet;
use std::cell::Cell;
use wombat_proto::frame;
use wombat_proto::limits::OUTBOX_BYTES;
use wombat_proto::wire::Response;

/// Frames on their way out of a connection.
#[derive(Default)]
pub(crate) struct Outbox {
    pub(crate) outlet: Outlet,
    /// Whether to close the connection once they are sent, or at once.
    pub(crate) closing: Cell<bool>,
    pub(crate) overflowed: Cell<bool>,
}

impl Outbox {
    /// Adds a frame, for the next [`Outbox::send`]. A client that does not read its answers is cut off. Returns
    /// whether nothing waited before.
    pub(crate) fn push(&self, response: &Response) -> bool {
        if self.overflowed.get() {
            return false;
        }
        let first = self.outlet.add(|buffer| frame::write(response, buffer));
        if self.outlet.len() > OUTBOX_BYTES {
            self.overflowed.set(true);
            self.outlet.wake();
        }
        first
    }

    /// Sends what was added.
    pub(crate) fn send(&self) {
        self.outlet.send();
    }

    /// Lets the connection's task send what was added.
    pub(crate) fn send_later(&self) {
        self.outlet.wake();
    }

    /// Closes the connection once what is in has been sent.
    pub(crate) fn close(&self) {
        self.closing.set(true);
        self.outlet.wake();
    }

    /// The connection is over.
    pub(crate) fn disconnect(&self) {
        self.outlet.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use wombat_proto::limits::CONTENTS_BYTES;
    use wombat_proto::wire::{Contents, response};

    #[test]
    fn a_client_that_takes_nothing_of_what_it_has_not_asked_for_is_cut_off() {
        let outbox = Outbox::default();
        let contents = Contents { contents: Bytes::from(vec![0; CONTENTS_BYTES]), ..Contents::default() };
        let response = Response { result: Some(response::Result::Contents(contents)), ..Response::default() };
        for _ in 0..OUTBOX_BYTES / CONTENTS_BYTES - 1 {
            outbox.push(&response);
        }
        assert!(!outbox.overflowed.get(), "there is room for that");
        outbox.push(&response);
        assert!(outbox.overflowed.get());
    }
}
