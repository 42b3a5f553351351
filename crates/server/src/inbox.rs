//! The one way in: everything that happens to the replica waits here for its next turn. Lanes, so that what
//! other replicas say and KeepAlives never wait behind client work; bounded, so that readers stop reading when
//! it is full; and a turn takes only so much, so that the replica's own heartbeats go out in time.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use tokio::sync::Notify;
use wombat_proto::ReplicaId;
use wombat_proto::limits::INBOX_BYTES;
use wombat_proto::wire::{Request, request::Call};
use wombat_replica::{ConnectionId, Input, PeerMessage};

/// Most inputs of clients that one turn takes of each lane: some ten milliseconds of work. A heartbeat waits
/// for the end of the turn, and the master lease may be a few hundred milliseconds.
const TURN_INPUTS: usize = 4096;

/// Inputs and their sizes.
type Lane = RefCell<VecDeque<(Input, usize)>>;

/// What waits for the replica, and who waits for room.
#[derive(Default)]
pub(crate) struct Inbox {
    peers: Lane,
    urgent: Lane,
    normal: Lane,
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
        let lane = if urgent { &self.urgent } else { &self.normal };
        self.put(lane, Input::Request { connection, request }, bytes);
    }

    /// Puts in what another replica says, once there is room for it.
    pub(crate) async fn peer(&self, from: ReplicaId, message: PeerMessage, bytes: usize) {
        while self.bytes.get() >= INBOX_BYTES {
            let emptied = self.emptied.notified();
            if self.bytes.get() >= INBOX_BYTES {
                emptied.await;
            }
        }
        self.put(&self.peers, Input::Peer { from, message }, bytes);
    }

    /// Tells that a connection of another replica is gone, behind what it brought.
    pub(crate) fn peer_lost(&self, peer: ReplicaId) {
        self.put(&self.peers, Input::PeerLost { peer }, 0);
    }

    /// Tells that a connection is gone, behind what it sent.
    pub(crate) fn disconnected(&self, connection: ConnectionId) {
        self.put(&self.normal, Input::Disconnected { connection }, 0);
    }

    fn put(&self, lane: &Lane, input: Input, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes);
        lane.borrow_mut().push_back((input, bytes));
        self.filled.notify_one();
    }

    /// Waits until something is in.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Takes what the next turn takes, the urgent first, and tells whether something urgent is left. Nothing
    /// passes what is urgent and left: a connection's end is known behind all that came on it.
    pub(crate) fn take(&self) -> (impl Iterator<Item = Input>, bool) {
        let peers = self.peers.take();
        let urgent = up_to(TURN_INPUTS, &self.urgent);
        let urgent_left = !self.urgent.borrow().is_empty();
        let normal = up_to(if urgent_left { 0 } else { TURN_INPUTS }, &self.normal);
        let taken = || [&peers, &urgent, &normal].into_iter().flatten();
        self.bytes.set(self.bytes.get() - taken().map(|(_, bytes)| bytes).sum::<usize>());
        self.emptied.notify_waiters();
        if urgent_left || !self.normal.borrow().is_empty() {
            self.filled.notify_one();
        }
        (peers.into_iter().chain(urgent).chain(normal).map(|(input, _)| input), urgent_left)
    }
}

/// Takes the first inputs of a lane, at most so many.
fn up_to(most: usize, lane: &Lane) -> VecDeque<(Input, usize)> {
    let mut lane = lane.borrow_mut();
    if lane.len() <= most {
        return std::mem::take(&mut lane); // With its memory: after a crowd there is no need for so much.
    }
    lane.drain(..most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wombat_proto::Slot;
    use wombat_proto::wire;

    fn request(call: Call) -> Request {
        Request { call: Some(call), ..Request::default() }
    }

    #[test]
    fn a_turn_takes_only_so_much_and_nothing_passes_what_is_urgent() {
        let inbox = Inbox::default();
        let connection = ConnectionId(1);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            inbox.request(connection, request(Call::GetStatus(wire::GetStatus {})), 2).await;
            for _ in 0..=TURN_INPUTS {
                inbox.request(connection, request(Call::KeepAlive(wire::KeepAlive::default())), 1).await;
            }
            inbox.disconnected(connection);
            inbox.peer(ReplicaId(2), PeerMessage::Digest { slot: Slot(1), digest: 1 }, 3).await;
        });
        let (inputs, urgent_left) = inbox.take();
        let inputs: Vec<Input> = inputs.collect();
        assert!(urgent_left);
        assert!(matches!(inputs[0], Input::Peer { .. }), "another replica waits for no client");
        assert_eq!(inputs.len(), 1 + TURN_INPUTS);
        assert!(inputs[1..].iter().all(is_keep_alive), "nothing passes the KeepAlive that is left");
        assert_eq!(inbox.bytes.get(), 3, "of the KeepAlive and GetStatus");
        let (inputs, urgent_left) = inbox.take();
        let inputs: Vec<Input> = inputs.collect();
        assert!(!urgent_left && inputs.len() == 3 && is_keep_alive(&inputs[0]));
        assert!(matches!(inputs[2], Input::Disconnected { .. }), "the end of a connection comes last");
        assert_eq!(inbox.bytes.get(), 0);
        runtime.block_on(inbox.filled()); // There was something left after the first turn.
    }

    fn is_keep_alive(input: &Input) -> bool {
        matches!(input, Input::Request { request: Request { call: Some(Call::KeepAlive(_)), .. }, .. })
    }
}
