//! The way to one replica: a connection for each lane, made again whenever it breaks, and datagrams beside them.

use super::datagrams::{Datagrams, Sender};
use super::hello;
use super::own::{Own, Start};
use crate::outlet::Outlet;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tracing::{debug, info};
use wombat_proto::frame;
use wombat_proto::limits::{PEER_FRAME_BYTES, PEER_OUTBOX_BYTES};
use wombat_proto::{Member, ReplicaId};
use wombat_replica::{PaxosMessage as Message, PeerMessage};

/// The waits between attempts to connect: the first, and the longest. Each is taken by half to the whole.
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// What must not wait behind what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lane {
    /// Heartbeats, leases, elections, acknowledgements: small messages.
    Pulse,
    /// Values.
    Log,
    /// Catching up: big transfers.
    Bulk,
}

const LANES: [Lane; 3] = [Lane::Pulse, Lane::Log, Lane::Bulk];

impl Lane {
    fn of(message: &PeerMessage) -> Lane {
        match message {
            PeerMessage::Paxos(message) => Lane::of_paxos(message),
            PeerMessage::Digest { .. } => Lane::Log,
        }
    }

    fn of_paxos(message: &Message) -> Lane {
        match message {
            Message::Accept { .. } | Message::Promise { .. } => Lane::Log,
            Message::Learn { .. } | Message::Chunk { .. } => Lane::Bulk,
            _ => Lane::Pulse,
        }
    }
}

/// Whether a message is worth a copy as a datagram, if it is small enough: what leases, elections and proposals
/// wait for. What asks for much in answer is not.
fn travels_twice(message: &PeerMessage) -> bool {
    let PeerMessage::Paxos(message) = message else { return false };
    !matches!(message, Message::Fetch { .. } | Message::FetchChunk { .. } | Message::Truncated { .. })
        && Lane::of_paxos(message) != Lane::Bulk
}

/// The way to a replica.
pub(super) struct Link {
    pub(super) member: Member,
    queues: [Rc<Queue>; LANES.len()],
    datagrams: Rc<Sender>,
    tasks: Vec<JoinHandle<()>>,
}

/// Frames on their way out of a lane.
#[derive(Default)]
struct Queue {
    outlet: Outlet,
    connected: Cell<bool>,
}

impl Link {
    pub(super) fn new(member: Member, own: &Rc<Own>, datagrams: Option<Rc<Datagrams>>) -> Link {
        let first = own.random.borrow_mut().draw();
        let datagrams = Rc::new(Sender::new(datagrams, own.replica, first));
        let queues: [Rc<Queue>; LANES.len()] = Default::default();
        let tasks = queues.iter().zip(LANES).map(|(queue, lane)| {
            let (queue, datagrams) = (Rc::clone(queue), Rc::clone(&datagrams));
            tokio::task::spawn_local(keep_connected(member.clone(), lane, Rc::clone(own), queue, datagrams))
        });
        let tasks = tasks.collect();
        Link { member, queues, datagrams, tasks }
    }

    /// Whether heartbeats can go out.
    pub(super) fn is_connected(&self) -> bool {
        self.queues[Lane::Pulse as usize].connected.get()
    }

    /// Takes a message for the next [`Link::flush`]. While there is no connection, or when too much waits for it
    /// already, only a datagram goes.
    pub(super) fn send(&self, message: PeerMessage) {
        let queue = &self.queues[Lane::of(&message) as usize];
        let travels_twice = travels_twice(&message);
        let connected = queue.connected.get() && queue.outlet.len() <= PEER_OUTBOX_BYTES;
        if !connected && !travels_twice {
            return;
        }
        let mut frame = super::convert::to_frame(message);
        if travels_twice {
            self.datagrams.add(&mut frame);
        }
        if connected {
            queue.outlet.add(|buffer| frame::write_up_to(&frame, buffer, PEER_FRAME_BYTES));
        }
    }

    /// Sends what it has taken.
    pub(super) fn flush(&self) {
        self.datagrams.flush();
        self.queues.iter().filter(|queue| queue.outlet.len() > 0).for_each(|queue| queue.outlet.send());
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn keep_connected(member: Member, lane: Lane, own: Rc<Own>, queue: Rc<Queue>, datagrams: Rc<Sender>) {
    let mut wait = FIRST_WAIT;
    let mut told = false;
    loop {
        match hello::connect(&member.address, &own).await {
            Ok((stream, hello)) if hello.replica == member.id.0 && hello.cell_id == own.cell_id => {
                if lane == Lane::Pulse {
                    info!("connected to replica {} at {}", member.id, member.address);
                }
                own.note_start(member.id, Start::of(&hello));
                own.rolled_back.set(own.rolled_back.get() | hello.rolled_back);
                if let Ok(at) = stream.peer_addr() {
                    datagrams.meet(at, &hello.datagram_key);
                }
                (wait, told) = (FIRST_WAIT, false);
                queue.connected.set(true);
                let why = carry(stream, &queue).await;
                queue.connected.set(false);
                queue.outlet.close();
                if lane == Lane::Pulse {
                    info!("the connection to replica {} is gone: {why}", member.id);
                }
            }
            Ok((_, hello)) if hello.cell_id.is_empty() => {
                if !std::mem::replace(&mut told, true) && lane == Lane::Pulse {
                    info!("the replica at {} has no identity yet", member.address);
                }
                wait = FIRST_WAIT;
            }
            Ok((_, hello)) => {
                let other = ReplicaId(hello.replica);
                if !std::mem::replace(&mut told, true) && lane == Lane::Pulse {
                    info!(
                        "at {} is replica {other} of the cell {} ({}), not replica {} of this one",
                        member.address, hello.cell, hello.cell_id, member.id
                    );
                }
                wait = LONGEST_WAIT;
            }
            Err(error) => {
                if !std::mem::replace(&mut told, true) && lane == Lane::Pulse {
                    info!("cannot reach replica {} at {}: {error}", member.id, member.address);
                }
            }
        }
        debug!(replica = member.id.0, ?lane, ?wait, "connecting again");
        tokio::time::sleep(own.jitter(wait)).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Sends what the queue holds until the connection breaks. Returns why it did.
async fn carry(stream: TcpStream, queue: &Queue) -> String {
    let (mut reader, writer) = stream.into_split();
    let mut nothing = [0; 1];
    let why = tokio::select! {
        carried = queue.outlet.carry(writer, |_| false) => carried.err(),
        // The other side says nothing more on this connection, but its end.
        read = reader.read(&mut nothing) => read.err(),
    };
    why.map_or_else(|| "closed by it".into(), |error| error.to_string())
}
