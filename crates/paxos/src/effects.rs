//! What the caller of the agreement has to do after a step.

use crate::batch::{Batch, Persist};
use crate::message::Message;
use crate::notice::Notice;
use alloc::vec::Vec;
use bytes::Bytes;
use wombat_proto::{ReplicaId, Slot};

/// What the caller has to do, in this order.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub struct Effects {
    /// Records to append to the log; [`crate::Paxos::persisted`] reports when they are durable.
    pub persist: Vec<Persist>,
    /// Messages to send, each with its receiver. Any of them may be lost.
    pub send: Vec<(ReplicaId, Message)>,
    /// Values that are chosen from now on, in slot order without a gap.
    pub chosen: Vec<Batch>,
    /// Proposals of an earlier leadership whose outcome is known now, or can never be known.
    pub ended: Vec<(Slot, Outcome)>,
    /// Requests for chunks of this replica's snapshot. The caller answers each with a [`Message::Chunk`], or with
    /// [`Message::Truncated`] if it has a newer snapshot by now.
    pub wanted_chunks: Vec<WantedChunk>,
    /// Chunks of another replica's snapshot, in order; [`crate::Paxos::installed`] reports when all are in place.
    pub received_chunks: Vec<ReceivedChunk>,
    /// This replica's disk was a copy ([`wombat_proto::Recovered::is_copy`]), and the replica votes again: the disk is an
    /// original from now on.
    pub reinstated: bool,
    /// What this replica acknowledged is missing on its disk: the disk is a copy from now on.
    pub rolled_back: bool,
    /// Another replica needs a snapshot of this one that is newer than its newest.
    pub snapshot_wanted: bool,
    /// What an operator should know.
    pub notices: Vec<Notice>,
}

/// How a proposal of an earlier leadership ended. A proposal that is chosen while its proposer leads appears only in
/// [`Effects::chosen`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// Another master has completed it.
    Chosen,
    /// Another value is chosen for its slot; it never takes effect.
    Lost,
    /// Its outcome cannot be known.
    Unknown,
}

/// A replica's request for a chunk of a snapshot.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct WantedChunk {
    /// The requesting replica.
    pub to: ReplicaId,
    /// The snapshot's slot.
    pub snapshot: Slot,
    /// The chunk's number, from 0.
    pub index: u32,
}

/// A chunk of a snapshot that has arrived.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ReceivedChunk {
    /// The snapshot's slot. The first chunk discards what came before of it.
    pub snapshot: Slot,
    /// The chunk's number, from 0; chunks come in order.
    pub index: u32,
    /// Whether it is the last chunk.
    pub last: bool,
    /// The chunk.
    pub bytes: Bytes,
}

impl Effects {
    /// Moves everything into `target`, behind what is there.
    pub(crate) fn move_into(&mut self, target: &mut Effects) {
        move_all(&mut self.persist, &mut target.persist);
        move_all(&mut self.send, &mut target.send);
        move_all(&mut self.chosen, &mut target.chosen);
        move_all(&mut self.ended, &mut target.ended);
        move_all(&mut self.wanted_chunks, &mut target.wanted_chunks);
        move_all(&mut self.received_chunks, &mut target.received_chunks);
        move_all(&mut self.notices, &mut target.notices);
        target.reinstated |= core::mem::take(&mut self.reinstated);
        target.rolled_back |= core::mem::take(&mut self.rolled_back);
        target.snapshot_wanted |= core::mem::take(&mut self.snapshot_wanted);
    }
}

/// Appends all of one list to another; without copying if the other is empty.
fn move_all<T>(from: &mut Vec<T>, to: &mut Vec<T>) {
    if from.is_empty() {
        return;
    }
    if to.is_empty() {
        core::mem::swap(from, to);
    } else {
        to.append(from);
    }
}
