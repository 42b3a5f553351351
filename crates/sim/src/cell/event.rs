//! What happens in a run.

use super::endpoint::Endpoint;
use std::time::Duration;
use wombat_proto::wire::{Request, Response};
use wombat_proto::{Instant, ReplicaId};
use wombat_replica::PeerMessage;
use wombat_session::LinkId;

/// Something that is going to happen.
pub(super) enum Event {
    /// A request arrives at the replica's end of a connection, a response at the client's.
    Request(u64, Request),
    Response(u64, Box<Response>),
    /// A connection's end is noticed by the replica, or by the client.
    LostAtReplica(u64),
    LostAtClient(u64),
    /// A client's attempt to connect ends.
    Connected(usize, LinkId, Endpoint),
    /// Something that is no master answers a client on a link.
    Answered(usize, LinkId, Box<Response>),
    /// A replica hears of another.
    Arrive(ReplicaId, ReplicaId, PeerMessage),
    /// A replica notices that its connection to another is gone.
    PeerLost(ReplicaId, ReplicaId),
    /// A tick is due at that time of its clock, unless another is due by now.
    Tick(ReplicaId, u64, Instant),
    Synced(ReplicaId, u64),
    /// A snapshot is on the disk.
    Written(ReplicaId, u64, u64),
    Start(ReplicaId),
    /// A client's tick is due at that time, unless another is due by now.
    ClientTick(usize, Duration),
    /// The application of a client does its next thing.
    Act(usize),
    Fault,
    /// The master of an epoch, if it is master still, has trouble.
    Hunt,
    /// A client reads at a replica, whatever that is.
    ReadStale,
    /// An observer asks the replicas that it reaches.
    Observe,
}

impl Event {
    /// The kind of the event and its details, for the hash of a run.
    pub(super) fn summary(&self) -> (u64, u64) {
        match self {
            Event::Request(connection, request) => (1, connection ^ request.number << 8),
            Event::Response(connection, response) => (2, connection ^ response.number << 8),
            Event::LostAtReplica(connection) => (3, *connection),
            Event::LostAtClient(connection) => (4, *connection),
            Event::Connected(client, link, _) => (5, *client as u64 ^ link.0 << 8),
            Event::Answered(client, link, _) => (17, *client as u64 ^ link.0 << 8),
            Event::Arrive(from, to, _) => (6, u64::from(from.0) << 8 | u64::from(to.0)),
            Event::Tick(id, ..) => (7, u64::from(id.0)),
            Event::Synced(id, life) => (8, u64::from(id.0) | life << 8),
            Event::Written(id, ..) => (9, u64::from(id.0)),
            Event::Start(id) => (10, u64::from(id.0)),
            Event::ClientTick(client, _) => (11, *client as u64),
            Event::Act(client) => (12, *client as u64),
            Event::Fault => (13, 0),
            Event::Hunt => (14, 0),
            Event::ReadStale => (16, 0),
            Event::Observe => (18, 0),
            Event::PeerLost(id, peer) => (15, u64::from(id.0) << 8 | u64::from(peer.0)),
        }
    }
}
