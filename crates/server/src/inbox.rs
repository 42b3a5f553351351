//! The one way in: everything that happens to the replica waits here for its next turn. Two lanes, so that
//! KeepAlives never wait behind client work; each bounded, so that readers stop reading when it is full.

use std::cell::{Cell, RefCell};
use tokio::sync::Notify;
use wombat_proto::limits::{INBOX_BYTES, MULTI_STEPS};
use wombat_proto::wire::{Change, Guard, Request, request::Call};
use wombat_proto::{Accepted, ReplicaId, Value};
use wombat_replica::{ConnectionId, Input, PaxosMessage, PeerMessage};

/// What waits for the replica, and who waits for room.
#[derive(Default)]
pub(crate) struct Inbox {
    urgent: Lane,
    normal: Lane,
    filled: Notify,
    emptied: Notify,
}

#[derive(Default)]
struct Lane {
    inputs: RefCell<Vec<Input>>,
    /// Roughly the memory that they take.
    bytes: Cell<usize>,
}

impl Inbox {
    /// Puts a request in, once there is room for it.
    pub(crate) async fn request(&self, connection: ConnectionId, mut request: Request, frame_bytes: usize) {
        let mut parts = 0;
        if let Some(Call::Multi(multi)) = &mut request.call {
            // Too many are refused for their number: the rest need not wait for that.
            multi.guards.truncate(MULTI_STEPS + 1);
            multi.guards.shrink_to_fit();
            multi.changes.truncate(MULTI_STEPS + 1);
            multi.changes.shrink_to_fit();
            parts = multi.guards.len() * size_of::<Guard>() + multi.changes.len() * size_of::<Change>();
        }
        // Hello goes with them, because it comes before everything else on its connection.
        let urgent =
            matches!(request.call, Some(Call::Hello(_) | Call::ResumeSession(_) | Call::KeepAlive(_)));
        let lane = if urgent { &self.urgent } else { &self.normal };
        self.put(lane, Input::Request { connection, request }, frame_bytes + parts).await;
    }

    /// Puts in what another replica says, once there is room for it.
    pub(crate) async fn peer(&self, from: ReplicaId, message: PeerMessage, frame_bytes: usize) {
        let parts = match &message {
            PeerMessage::Paxos(PaxosMessage::Accept { values, .. }) => values.len() * size_of::<Value>(),
            PeerMessage::Paxos(
                PaxosMessage::Promise { accepted, .. } | PaxosMessage::Learn { chosen: accepted, .. },
            ) => accepted.len() * size_of::<Accepted>(),
            _ => 0,
        };
        self.put(&self.urgent, Input::Peer { from, message }, frame_bytes + parts).await;
    }

    /// `bytes`: what it takes beside its own place. A small frame takes much more memory than it has bytes.
    async fn put(&self, lane: &Lane, input: Input, bytes: usize) {
        while lane.bytes.get() >= INBOX_BYTES {
            let emptied = self.emptied.notified();
            if lane.bytes.get() >= INBOX_BYTES {
                emptied.await;
            }
        }
        lane.bytes.set(lane.bytes.get() + size_of::<Input>() + bytes);
        lane.inputs.borrow_mut().push(input);
        self.filled.notify_one();
    }

    /// Tells that a connection is gone, behind what it sent.
    pub(crate) fn disconnected(&self, connection: ConnectionId) {
        self.normal.inputs.borrow_mut().push(Input::Disconnected { connection });
        self.filled.notify_one();
    }

    /// Waits until something is in.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Takes everything out, the urgent first.
    pub(crate) fn take(&self) -> impl Iterator<Item = Input> {
        let [urgent, normal] = [&self.urgent, &self.normal].map(|lane| {
            lane.bytes.set(0);
            lane.inputs.take()
        });
        self.emptied.notify_waiters();
        urgent.into_iter().chain(normal)
    }
}
