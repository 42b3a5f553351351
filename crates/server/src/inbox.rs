//! The one way in: everything that happens to the replica waits here for its next turn. Lanes, so that what
//! other replicas say and KeepAlives never wait behind client work; each bounded, so that readers stop reading
//! when it is full; and a turn takes only so much, so that the replica's own heartbeats go out in time.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use tokio::sync::Notify;
use wombat_proto::limits::{INBOX_BYTES, MULTI_STEPS};
use wombat_proto::wire::{Request, request::Call};
use wombat_proto::{Accepted, Instant, ReplicaId, Value};
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
    /// How many inputs ever came on the lanes of clients.
    came: Cell<u64>,
    heard: Cell<Heard>,
}

/// How far the urgent lane has been emptied, when it never is.
#[derive(Clone, Copy, Default)]
struct Heard {
    /// All that arrived before this was taken.
    before: Instant,
    /// The same will be true of this once so many inputs are.
    next: (u64, Instant),
}

/// Inputs in the order of their coming, with roughly the memory that they take, each and in all.
#[derive(Default)]
struct Lane {
    inputs: RefCell<VecDeque<Queued>>,
    bytes: Cell<usize>,
}

struct Queued {
    input: Input,
    bytes: usize,
    /// How many came before it.
    place: u64,
}

impl Lane {
    fn push(&self, input: Input, bytes: usize, place: u64) {
        self.bytes.set(self.bytes.get() + bytes);
        self.inputs.borrow_mut().push_back(Queued { input, bytes, place });
    }

    /// The place of the first input; beyond all places if there is none.
    fn first(&self) -> u64 {
        self.inputs.borrow().front().map_or(u64::MAX, |queued| queued.place)
    }

    /// Takes the first inputs out, at most so many, and none that came after that place.
    fn take(&self, most: usize, before: u64) -> impl Iterator<Item = Input> + use<> {
        let mut inputs = self.inputs.borrow_mut();
        let most = most.min(inputs.partition_point(|queued| queued.place < before));
        // With its memory, if it can be: after a crowd there is no need for so much.
        let taken =
            if inputs.len() <= most { std::mem::take(&mut *inputs) } else { inputs.drain(..most).collect() };
        self.bytes.set(self.bytes.get() - taken.iter().map(|queued| queued.bytes).sum::<usize>());
        taken.into_iter().map(|queued| queued.input)
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
            parts = multi.steps_size();
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
        lane.push(input, size_of::<Queued>() + bytes, self.place());
        self.filled.notify_one();
    }

    /// Tells that a connection of another replica is gone, behind what it brought.
    pub(crate) fn peer_lost(&self, peer: ReplicaId) {
        self.peers.push(Input::PeerLost { peer }, 0, self.place());
        self.filled.notify_one();
    }

    /// Tells that a connection is gone, behind what it sent.
    pub(crate) fn disconnected(&self, connection: ConnectionId) {
        self.normal.push(Input::Disconnected { connection }, 0, self.place());
        self.filled.notify_one();
    }

    fn place(&self) -> u64 {
        self.came.replace(self.came.get() + 1)
    }

    /// Waits until something is in.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Takes what the turn of this moment takes, the urgent first, and tells since when there may be urgent
    /// inputs that are left. Nothing passes those: a connection's end is known behind all that came on it.
    pub(crate) fn take(&self, now: Instant) -> (impl Iterator<Item = Input> + use<>, Instant) {
        let peers = self.peers.take(usize::MAX, u64::MAX);
        let urgent = self.urgent.take(TURN_INPUTS, u64::MAX);
        let left = self.urgent.first();
        let normal = self.normal.take(TURN_INPUTS, left);
        self.emptied.notify_waiters();
        if left.min(self.normal.first()) < u64::MAX {
            self.filled.notify_one();
        }
        let Heard { mut before, mut next } = self.heard.get();
        if left == u64::MAX {
            (before, next) = (now, (0, now));
        } else if left >= next.0 {
            (before, next) = (next.1, (self.came.get(), now));
        }
        self.heard.set(Heard { before, next });
        (peers.chain(urgent).chain(normal), before)
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
    fn a_turn_takes_only_so_much_and_nothing_passes_what_is_urgent_and_came_before() {
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
        let (inputs, heard) = inbox.take(Instant::from_nanos(1));
        let inputs: Vec<Input> = inputs.collect();
        assert!(heard < Instant::from_nanos(1));
        assert!(matches!(inputs[0], Input::Peer { .. }), "another replica waits for no client");
        assert_eq!(inputs.len(), 2 + TURN_INPUTS);
        assert!(
            inputs[1..=TURN_INPUTS].iter().all(is_keep_alive),
            "only what came before the one that is left"
        );
        let (inputs, heard) = inbox.take(Instant::from_nanos(2));
        let inputs: Vec<Input> = inputs.collect();
        assert!(heard == Instant::from_nanos(2) && inputs.len() == 2 && is_keep_alive(&inputs[0]));
        assert!(matches!(inputs[1], Input::Disconnected { .. }), "the end of a connection comes last");
        assert!([&inbox.peers, &inbox.urgent, &inbox.normal].iter().all(|lane| lane.bytes.get() == 0));
        runtime.block_on(inbox.filled()); // There was something left after the first turn.
    }

    /// Somebody sends KeepAlives without end, faster than turns take them.
    #[test]
    fn a_flood_of_what_is_urgent_stops_neither_other_requests_nor_time() {
        let inbox = Inbox::default();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut heard = Vec::new();
        let mut answered = None;
        for turn in 1..8 {
            runtime.block_on(async {
                for _ in 0..2 * TURN_INPUTS / turn.min(2) {
                    let flood = request(Call::KeepAlive(wire::KeepAlive::default()));
                    inbox.request(ConnectionId(1), flood, 1).await;
                }
                if turn == 2 {
                    inbox.request(ConnectionId(2), request(Call::GetStatus(wire::GetStatus {})), 1).await;
                }
            });
            let (inputs, before) = inbox.take(Instant::from_nanos(turn as u64));
            if inputs.filter(|input| !is_keep_alive(input)).count() > 0 {
                answered = answered.or(Some(turn));
            }
            heard.push(before.as_nanos());
        }
        assert_eq!(answered, Some(3), "behind what was urgent when it came");
        assert_eq!(heard, [0, 1, 2, 3, 4, 5, 6], "a turn behind");
    }

    fn is_keep_alive(input: &Input) -> bool {
        matches!(input, Input::Request { request: Request { call: Some(Call::KeepAlive(_)), .. }, .. })
    }
}
