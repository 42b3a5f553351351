//! What happens in a run.

use super::host::Snapshot;
use crate::network::kind_of;
use wombat_paxos::Message;
use wombat_proto::{Instant, ReplicaId};

/// Something that is going to happen.
pub(super) enum Event {
    Arrive(ReplicaId, ReplicaId, Message),
    /// A tick is due at that time of its clock, unless another is due by now.
    Tick(ReplicaId, u64, Instant),
    Synced(ReplicaId, u64),
    /// A snapshot that was received is on the disk.
    Installed(ReplicaId, u64, Snapshot),
    /// A snapshot that was taken is on the disk.
    Written(ReplicaId, u64, Snapshot),
    Start(ReplicaId),
    /// Clients propose.
    Propose,
    Fault,
    /// A fault in addition to the regular ones.
    ExtraFault,
    /// The network falls apart while the members change: the master and a new member are on one side.
    Split(ReplicaId, ReplicaId),
    /// The operator looks after the members of the cell.
    Operate,
}

impl Event {
    /// The kind of the event and its details, for the hash of a run.
    pub(super) fn summary(&self) -> (u64, u64) {
        match self {
            Event::Arrive(from, to, message) => (kind_of(message), u64::from(from.0) << 8 | u64::from(to.0)),
            Event::Tick(id, ..) => (20, u64::from(id.0)),
            Event::Synced(id, _) => (21, u64::from(id.0)),
            Event::Installed(id, ..) => (22, u64::from(id.0)),
            Event::Start(id) => (23, u64::from(id.0)),
            Event::Propose => (24, 0),
            Event::Fault => (25, 0),
            Event::Operate => (26, 0),
            Event::ExtraFault => (27, 0),
            Event::Split(master, new) => (29, u64::from(master.0) << 8 | u64::from(new.0)),
            Event::Written(id, ..) => (28, u64::from(id.0)),
        }
    }

    /// The replica to which it happens; `None`: to the world.
    pub(super) fn replica(&self) -> Option<ReplicaId> {
        match self {
            Event::Arrive(_, id, _)
            | Event::Tick(id, ..)
            | Event::Synced(id, _)
            | Event::Installed(id, ..)
            | Event::Written(id, ..) => Some(*id),
            Event::Start(_)
            | Event::Propose
            | Event::Operate
            | Event::Fault
            | Event::ExtraFault
            | Event::Split(..) => None,
        }
    }
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Event::Arrive(from, to, message) => write!(f, "{from} → {to} {message:?}"),
            Event::Tick(id, ..) => write!(f, "{id} tick"),
            Event::Synced(id, _) => write!(f, "{id} synced"),
            Event::Installed(id, _, snapshot) => {
                write!(f, "{id} has the snapshot of {}", snapshot.applied.slot)
            }
            Event::Written(id, _, snapshot) => {
                write!(f, "{id} has written its snapshot of {}", snapshot.applied.slot)
            }
            Event::Start(id) => write!(f, "{id} starts"),
            Event::Propose => write!(f, "proposals"),
            Event::Fault | Event::ExtraFault => write!(f, "a fault"),
            Event::Split(master, new) => write!(f, "{master} and {new} are to be split off"),
            Event::Operate => write!(f, "the operator"),
        }
    }
}
