//! The one way in: everything that happens to the replica waits here for its next turn. Lanes, so that what
//! other replicas say and KeepAlives never wait behind client work; each bounded, so that readers stop reading
//! when it is full; and a turn takes only so much, so that the replica's own heartbeats go out in time.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use tokio::sync::Notify;
use wombat_proto::limits::{INBOX_BYTES, MULTI_STEPS};
use wombat_proto::wire::{Change, Guard, Request, request::Call};
use wombat_proto::{Accepted, ReplicaId, Value};
use wombat_replica::{ConnectionId, Input, PaxosMessage, PeerMessage};

/// Most inputs of clients that one turn takes of each lane: some ten milliseconds of work. A heartbeat waits
/// for the end of the turn, and the master lease may be a few hundred milliseconds.
const TURN_INPUTS: usize = 4096;

/// What waits for the replica, and who waits for room.
#[derive(Default)]
pub(crate) struct Inbox {
    peers: Lane,
    urgent: Lane,
    normal: Lane,
    filled: Notify,
    emptied: Notify,
}

/// Inputs, with roughly the memory that they take, each and in all.
#[derive(Default)]
struct Lane {
    inputs: RefCell<VecDeque<(Input, usize)>>,
    bytes: Cell<usize>,
}

impl Lane {
    fn push(&self, input: Input, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes);
        self.inputs.borrow_mut().push_back((input, bytes));
    }

    fn is_empty(&self) -> bool {
        self.inputs.borrow().is_empty()
    }

    /// Takes the first inputs out, at most so many.
    fn take(&self, most: usize) -> impl Iterator<Item = Input> + use<> {
        let mut inputs = self.inputs.borrow_mut();
        // With its memory, if it can be: after a crowd there is no need for so much.
        let taken =
            if inputs.len() <= most { std::mem::take(&mut *inputs) } else { inputs.drain(..most).collect() };
        self.bytes.set(self.bytes.get() - taken.iter().map(|(_, bytes)| bytes).sum::<usize>());
        taken.into_iter().map(|(input, _)| input)
    }
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
        self.put(&self.peers, Input::Peer { from, message }, frame_bytes + parts).await;
    }

    /// `bytes`: what it takes beside its own place. A small frame takes much more memory than it has bytes.
    async fn put(&self, lane: &Lane, input: Input, bytes: usize) {
        while lane.bytes.get() >= INBOX_BYTES {
            let emptied = self.emptied.notified();
            if lane.bytes.get() >= INBOX_BYTES {
                emptied.await;
            }
        }
        lane.push(input, size_of::<(Input, usize)>() + bytes);
        self.filled.notify_one();
    }

    /// Tells that a connection of another replica is gone, behind what it brought.
    pub(crate) fn peer_lost(&self, peer: ReplicaId) {
        self.peers.push(Input::PeerLost { peer }, 0);
        self.filled.notify_one();
    }

    /// Tells that a connection is gone, behind what it sent.
    pub(crate) fn disconnected(&self, connection: ConnectionId) {
        self.normal.push(Input::Disconnected { connection }, 0);
        self.filled.notify_one();
    }

    /// Waits until something is in.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Takes what the next turn takes, the urgent first, and tells whether something urgent is left. Nothing
    /// passes what is urgent and left: a connection's end is known behind all that came on it.
    pub(crate) fn take(&self) -> (impl Iterator<Item = Input> + use<>, bool) {
        let peers = self.peers.take(usize::MAX);
        let urgent = self.urgent.take(TURN_INPUTS);
        let urgent_left = !self.urgent.is_empty();
        let normal = self.normal.take(if urgent_left { 0 } else { TURN_INPUTS });
        self.emptied.notify_waiters();
        if urgent_left || !self.normal.is_empty() {
            self.filled.notify_one();
        }
        (peers.chain(urgent).chain(normal), urgent_left)
    }
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
        let (inputs, urgent_left) = inbox.take();
        let inputs: Vec<Input> = inputs.collect();
        assert!(!urgent_left && inputs.len() == 3 && is_keep_alive(&inputs[0]));
        assert!(matches!(inputs[2], Input::Disconnected { .. }), "the end of a connection comes last");
        assert!([&inbox.peers, &inbox.urgent, &inbox.normal].iter().all(|lane| lane.bytes.get() == 0));
        runtime.block_on(inbox.filled()); // There was something left after the first turn.
    }

    fn is_keep_alive(input: &Input) -> bool {
        matches!(input, Input::Request { request: Request { call: Some(Call::KeepAlive(_)), .. }, .. })
    }
}
