//! A replica's snapshot: the members in force at each slot, and the state.

use alloc::vec::Vec;
use bytes::Bytes;
use prost::Message;
use wombat_paxos::Configurations;
use wombat_proto::wire::log;
use wombat_proto::{Members, Slot};
use wombat_state::{SnapshotError, State};

/// Everything up to a slot. Cheap to make and to clone: the state shares its nodes.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(crate) configurations: Configurations,
    pub(crate) state: State,
}

impl Snapshot {
    /// The last slot in it.
    pub fn slot(&self) -> Slot {
        self.state.applied()
    }

    /// It as chunks of bytes.
    pub fn chunks(&self) -> impl Iterator<Item = Bytes> + '_ {
        let entries = self
            .configurations
            .entries()
            .iter()
            .map(|(from, members)| log::Configuration { from: from.0, members: Some(members.into()) });
        let round = self.configurations.round();
        let configurations = log::Configurations { entries: entries.collect(), round };
        core::iter::once(Bytes::from(configurations.encode_to_vec())).chain(self.state.snapshot())
    }

    /// The snapshot of `slot` that [`Snapshot::chunks`] gave.
    pub fn restore(slot: Slot, chunks: Vec<Bytes>) -> Result<Snapshot, SnapshotError> {
        let mut chunks = chunks.into_iter();
        let first = chunks.next().ok_or(SnapshotError::new("it is empty"))?;
        let configurations =
            restore_configurations(first).ok_or(SnapshotError::new("its members cannot be read"))?;
        let state = State::restore(chunks)?;
        if state.applied() != slot {
            return Err(SnapshotError::new("it is of another slot than it says"));
        }
        Ok(Snapshot { configurations, state })
    }
}

fn restore_configurations(chunk: Bytes) -> Option<Configurations> {
    let configurations = log::Configurations::decode(chunk).ok()?;
    let entries = configurations.entries.into_iter().map(|entry| {
        let members = entry.members?;
        // A replica that joined an existing cell does not know its first members.
        let is_unknown = members.voters.is_empty() && members.learners.is_empty();
        let members = if is_unknown { Members::default() } else { Members::try_from(members).ok()? };
        Some((Slot(entry.from), members))
    });
    Configurations::restore(entries.collect::<Option<Vec<_>>>()?, configurations.round)
}
