//! The one way in: everything that happens to the replica waits here for its next turn. Two lanes, so that
//! KeepAlives never wait behind client work; bounded, so that readers stop reading when it is full.

use std::cell::{Cell, RefCell};
use tokio::sync::Notify;
use wombat_proto::ReplicaId;
use wombat_proto::limits::INBOX_BYTES;
use wombat_proto::wire::{Request, request::Call};
use wombat_replica::{ConnectionId, Input, PeerMessage};

/// What waits for the replica, and who waits for room.
#[derive(Default)]
pub(crate) struct Inbox {
    urgent: RefCell<Vec<Input>>,
    normal: RefCell<Vec<Input>>,
    bytes: Cell<usize>,
    filled: Notify,
    emptied: Notify,
}

impl Inbox {
    /// Puts a request in, once there is room for it.
    pub(crate) async fn request(&self, connection: ConnectionId, request: Request, bytes: usize) {
        // Hello goes with them, because it comes before everything else on its connection.
        let urgent =
            matches!(request.call, Some(Call::Hello(_) | Call::ResumeSession(_) | Call::KeepAlive(_)));
        while !urgent && self.bytes.get() >= INBOX_BYTES {
            let emptied = self.emptied.notified();
            if self.bytes.get() >= INBOX_BYTES {
                emptied.await;
            }
        }
        self.bytes.set(self.bytes.get() + bytes);
        let lane = if urgent { &self.urgent } else { &self.normal };
        lane.borrow_mut().push(Input::Request { connection, request });
        self.filled.notify_one();
    }

    /// Puts in what another replica says, once there is room for it.
    pub(crate) async fn peer(&self, from: ReplicaId, message: PeerMessage, bytes: usize) {
        while self.bytes.get() >= INBOX_BYTES {
            let emptied = self.emptied.notified();
            if self.bytes.get() >= INBOX_BYTES {
                emptied.await;
            }
        }
        self.bytes.set(self.bytes.get() + bytes);
        self.urgent.borrow_mut().push(Input::Peer { from, message });
        self.filled.notify_one();
    }

    /// Tells that a connection of another replica is gone, behind what it brought.
    pub(crate) fn peer_lost(&self, peer: ReplicaId) {
        self.urgent.borrow_mut().push(Input::PeerLost { peer });
        self.filled.notify_one();
    }

    /// Tells that a connection is gone, behind what it sent.
    pub(crate) fn disconnected(&self, connection: ConnectionId) {
        self.normal.borrow_mut().push(Input::Disconnected { connection });
        self.filled.notify_one();
    }

    /// Waits until something is in.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Takes everything out, the urgent first.
    pub(crate) fn take(&self) -> impl Iterator<Item = Input> {
        let (urgent, normal) = (self.urgent.take(), self.normal.take());
        self.bytes.set(0);
        self.emptied.notify_waiters();
        urgent.into_iter().chain(normal)
    }
}
