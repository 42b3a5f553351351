//! The interface of a replica: its configuration, inputs and effects.

use crate::request::ConnectionId;
use crate::snapshot::Snapshot;
use crate::stage::Stage;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use wombat_paxos::{Message as PaxosMessage, Notice, ReceivedChunk, WantedChunk};
use wombat_proto::wire;
use wombat_proto::{
    CellName, Epoch, Error, Instant, Members, NodePath, Path, Record, ReplicaId, Result, Slot,
};
use wombat_state::{KEY_BYTES, SnapshotError};

/// How often timers must run at least, so that a clock that jumped in a suspend is noticed.
pub const LONGEST_TICK: Duration = Duration::from_millis(500);

/// What a replica is, and how it serves.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cell's name.
    pub cell: CellName,
    /// This replica's id.
    pub replica: ReplicaId,
    /// Where clients reach it, `host:port`.
    pub address: String,
    /// The members that the cell was founded with; empty for a replica that joined it later.
    pub founders: Members,
    /// The master lease M (P§2.2).
    pub master_lease: Duration,
    /// The longest one that it asks for as master where round trips are too long for that.
    pub max_master_lease: Duration,
    /// The seed of this replica's random choices.
    pub seed: u64,
    /// The session lease L that it grants as master (P§2.8).
    pub lease: Duration,
    /// The cache lease C that it grants as master (SPEC §6), if L is not shorter.
    pub cache_lease: Duration,
    /// The server's version, for people.
    pub version: String,
    /// Random bytes for the key of a cell that is founded now; unused for one that exists.
    pub fresh_key: [u8; KEY_BYTES],
    /// Whether to describe each applied change in [`Effects::activity`].
    pub activity: bool,
}

impl Config {
    /// Parses a whole path of this cell.
    pub(crate) fn parse_path(&self, path: &str) -> Result<NodePath> {
        let path = Path::parse(path)?;
        if path.cell != self.cell {
            let what = alloc::format!("{path} is in the cell {}; this is {}", path.cell, self.cell);
            return Err(Error::invalid(what));
        }
        Ok(path.node)
    }
}

/// The time of one step.
#[derive(Clone, Copy, Default, Debug)]
pub struct StepTime {
    /// The monotonic clock; never earlier than at the last step.
    pub now: Instant,
    /// Wall time in milliseconds since 1970, for people, and the least epoch of a new master.
    pub wall_ms: u64,
}

/// A message between replicas.
#[derive(Clone, Debug)]
pub enum PeerMessage {
    /// A message of Paxos.
    Paxos(PaxosMessage),
    /// The sender's hash of a part of the state.
    Digest {
        /// The slot of the command that asked for it.
        slot: Slot,
        /// The hash.
        digest: u64,
    },
}

/// An input of a step.
#[derive(Debug)]
pub enum Input {
    /// A request arrived.
    Request {
        /// On which connection.
        connection: ConnectionId,
        /// The request.
        request: wire::Request,
    },
    /// A connection is gone. This ends no session (SPEC §3).
    Disconnected {
        /// Which.
        connection: ConnectionId,
    },
    /// The first `through` records ever handed out in [`Effects::persist`] are durable.
    Persisted {
        /// How many.
        through: u64,
    },
    /// A message of another replica arrived.
    Peer {
        /// Which.
        from: ReplicaId,
        /// The message.
        message: PeerMessage,
    },
    /// The connection of another replica is gone: it may be dead.
    PeerLost {
        /// Which.
        peer: ReplicaId,
    },
    /// A snapshot of this replica's own is durable.
    Snapshotted {
        /// Of which slot.
        slot: Slot,
    },
    /// Another replica's snapshot has arrived whole, and is durable.
    SnapshotArrived(Snapshot),
    /// Another replica's snapshot has arrived, and cannot be used.
    SnapshotFailed,
    /// Hand mastership to another voter.
    Transfer {
        /// Which; 0: the one that is furthest.
        to: ReplicaId,
    },
    /// Another replica knows a later start of this one: its disk is an older copy.
    RolledBack,
    /// Time has passed; due by [`Replica::next_deadline`], welcome at any time.
    Tick,
    /// Time has passed, but KeepAlives that have arrived may not be handed in yet: no lease has ended that lasts
    /// longer than this.
    PartialTick {
        /// Every KeepAlive that arrived before this was handed in.
        drained_through: Instant,
    },
}

/// What the server has to do.
#[derive(Default, Debug)]
pub struct Effects {
    /// Records to append to the log, in order.
    pub persist: Vec<Record>,
    /// Messages to other replicas. Any of them may be lost.
    pub send: Vec<(ReplicaId, PeerMessage)>,
    /// Chunks of this replica's snapshot that others ask for.
    pub wanted_chunks: Vec<WantedChunk>,
    /// Chunks of another replica's snapshot, in order; all of one snapshot become
    /// [`Input::SnapshotArrived`].
    pub received_chunks: Vec<ReceivedChunk>,
    /// This replica's disk was a copy, and it votes again: its disk is its own from now on.
    pub reinstated: bool,
    /// What this replica acknowledged is missing on its disk: the data directory is a copy from now on.
    pub rolled_back: bool,
    /// Another replica needs a snapshot that is newer than this replica's newest one.
    pub snapshot_wanted: bool,
    /// The state is not what a quorum of replicas has, as of this slot (SPEC I19): this replica must stop, and
    /// its data must never be used again.
    pub diverged: Option<Slot>,
    /// Answers to send. One for a connection that is gone is dropped.
    pub replies: Vec<(ConnectionId, wire::Response)>,
    /// Connections to close once their answers are sent.
    pub hang_up: Vec<ConnectionId>,
    /// The steps that a new master has taken, with its epoch (P§2.9).
    pub stages: Vec<(Epoch, Stage)>,
    /// Descriptions of applied changes, if the configuration asks for them.
    pub activity: Vec<String>,
    /// What an operator should know of the replicated log.
    pub notices: Vec<Notice>,
}

/// Why a replica cannot start from what is on its disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StartError {
    /// The snapshot cannot be read.
    Snapshot(SnapshotError),
    /// A command of the log cannot be read.
    Command(Slot),
}

impl core::fmt::Display for StartError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            StartError::Snapshot(error) => error.fmt(f),
            StartError::Command(slot) => {
                write!(f, "the command of slot {slot} cannot be read; was it written by a newer version?")
            }
        }
    }
}

impl core::error::Error for StartError {}
