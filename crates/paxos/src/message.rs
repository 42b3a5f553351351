//! What replicas say to each other. Every message may be lost, repeated, delayed or overtaken.

use crate::{Mark, Values};
use alloc::vec::Vec;
use bytes::Bytes;
use core::time::Duration;
use wombat_proto::{Accepted, Ballot, Slot};

/// A message from one replica to another.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Message {
    /// Would you promise this round to me? Binds nobody (pre-vote).
    Ask {
        /// The round that the sender would campaign with.
        round: u64,
        /// The last slot that it knows to be chosen.
        chosen: Slot,
    },
    /// The answer to [`Message::Ask`], or the refusal of a [`Message::Prepare`] that comes too late.
    Answer {
        /// The round asked for.
        round: u64,
        /// Whether it would be promised.
        granted: bool,
        /// The highest ballot promised.
        promised: Ballot,
        /// The last slot that the answering replica knows to be chosen.
        chosen: Slot,
    },
    /// Phase 1: promise this ballot, and tell what you have accepted above a slot.
    Prepare {
        /// The ballot.
        ballot: Ballot,
        /// Tell what comes after this slot.
        above: Slot,
        /// A ballot of whose master lease the master itself has let go: it stands in the way no more.
        released: Ballot,
    },
    /// A promise, and a part of what was accepted.
    Promise {
        /// The ballot promised.
        ballot: Ballot,
        /// As asked.
        above: Slot,
        /// What was accepted in `above+1 ..= through`.
        accepted: Vec<Accepted>,
        /// The last slot that this part covers.
        through: Slot,
        /// Whether nothing was accepted behind it.
        complete: bool,
    },
    /// Phase 2: accept these values in consecutive slots.
    Accept {
        /// The ballot.
        ballot: Ballot,
        /// The last slot that the master knew to be chosen when it was elected: it proposes all after it.
        base: Slot,
        /// The slot of the first value.
        first: Slot,
        /// The values.
        values: Values,
        /// Every slot up to here is chosen.
        chosen: Slot,
    },
    /// Every slot after the base of this ballot, up to `through`, is accepted under it, and durably.
    Accepted {
        /// The ballot.
        ballot: Ballot,
        /// How far.
        through: Slot,
    },
    /// The master's lease: grant it.
    Heartbeat {
        /// The master's ballot.
        ballot: Ballot,
        /// As in [`Message::Accept`].
        base: Slot,
        /// Counts the heartbeats of this ballot.
        sequence: u64,
        /// For how long to grant, from receipt.
        lease: Duration,
        /// Every slot up to here is chosen.
        chosen: Slot,
        /// The master's log begins after this slot.
        kept_after: Slot,
        /// The newest mark on a grant of the receiver's that has arrived, if the master's lease holds at this
        /// moment: whatever was completed before the receiver sent that is chosen up to `chosen`.
        mark: Option<Mark>,
    },
    /// The lease is granted.
    Granted {
        /// The master's ballot.
        ballot: Ballot,
        /// The heartbeat.
        sequence: u64,
        /// The last slot that the granting replica knows to be chosen, durably.
        chosen: Slot,
        /// Comes back in the heartbeats that the master sends after it has heard this.
        mark: Mark,
        /// Every slot after the base of this ballot, up to here, has arrived, durable or not.
        received: Slot,
    },
    /// A ballot came that is lower than one promised.
    Refused {
        /// The one promised.
        promised: Ballot,
    },
    /// Tell me what was chosen after a slot.
    Fetch {
        /// The slot.
        above: Slot,
    },
    /// What was chosen, or a part of it.
    Learn {
        /// Chosen values in consecutive slots, each with the ballot it was accepted under.
        chosen: Vec<Accepted>,
        /// The last slot that the teaching replica knows to be chosen.
        through: Slot,
    },
    /// The log no longer reaches back so far; here is the slot of a snapshot.
    Truncated {
        /// The slot.
        snapshot: Slot,
    },
    /// Send me a chunk of the snapshot.
    FetchChunk {
        /// The snapshot's slot.
        snapshot: Slot,
        /// The chunk's number, from 0.
        index: u32,
    },
    /// A chunk of a snapshot.
    Chunk {
        /// The snapshot's slot.
        snapshot: Slot,
        /// The chunk's number.
        index: u32,
        /// Whether it is the last.
        last: bool,
        /// The chunk.
        bytes: Bytes,
    },
    /// Take over: I serve no longer under this ballot.
    TakeOver {
        /// The ballot.
        ballot: Ballot,
        /// How many masters in a row have made way because none of their proposals was chosen.
        stalls: u32,
    },
}

/// No cell ever counts so far. What follows from numbers up to here can be counted.
const LAST: u64 = u64::MAX - (1 << 32);

impl Message {
    /// Whether all numbers are such as a cell may have: who counts on from the others would overflow.
    pub(crate) fn is_sane(&self) -> bool {
        let all = |numbers: &[u64]| numbers.iter().all(|number| *number <= LAST);
        let each = |values: &[Accepted]| values.iter().all(|one| all(&[one.slot.0, one.ballot.round]));
        match self {
            Message::Ask { round, chosen } => all(&[*round, chosen.0]),
            Message::Answer { round, promised, chosen, .. } => all(&[*round, promised.round, chosen.0]),
            Message::Prepare { ballot, above, .. } => all(&[ballot.round, above.0]),
            Message::Promise { ballot, above, accepted, through, .. } => {
                all(&[ballot.round, above.0, through.0]) && each(accepted)
            }
            Message::Accept { ballot, base, first, chosen, .. } => {
                all(&[ballot.round, base.0, chosen.0]) && (1..=LAST).contains(&first.0)
            }
            Message::Heartbeat { ballot, base, chosen, kept_after, .. } => {
                all(&[ballot.round, base.0, chosen.0, kept_after.0])
            }
            Message::Accepted { ballot, through } => all(&[ballot.round, through.0]),
            Message::Granted { ballot, chosen, received, .. } => all(&[ballot.round, chosen.0, received.0]),
            Message::Refused { promised: ballot } | Message::TakeOver { ballot, .. } => all(&[ballot.round]),
            Message::Learn { chosen, through } => all(&[through.0]) && each(chosen),
            Message::Fetch { above: slot }
            | Message::Truncated { snapshot: slot }
            | Message::FetchChunk { snapshot: slot, .. }
            | Message::Chunk { snapshot: slot, .. } => all(&[slot.0]),
        }
    }
}
