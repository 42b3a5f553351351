//! What replicas say to each other. Every message may be lost, repeated, delayed or overtaken.

use crate::batch::Values;
use alloc::vec::Vec;
use bytes::Bytes;
use core::time::Duration;
use wombat_proto::limits::MAX_ROUND;
use wombat_proto::{Accepted, Ballot, Slot};

/// A mark on the grants of one replica (see `freshness.rs`); later ones are greater, over restarts too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Mark {
    /// How often the replica had started.
    pub life: u32,
    /// Counts the marks of this life.
    pub number: u64,
}

/// A message from one replica to another.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Message {
    /// Would you promise this round to me? Binds nobody (pre-vote).
    Ask {
        /// The round that the sender would campaign with.
        round: u64,
        /// The last slot that it knows to be chosen.
        chosen: Slot,
        /// It goes on only if every voter would: its disk is a copy.
        everyone: bool,
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
        /// It leads only if every voter promises: its disk is a copy.
        everyone: bool,
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
        /// Whether the promising replica's disk is a copy.
        restored: bool,
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
        /// The slot of the master's first own value: it knew by then what had been chosen before.
        barrier: Option<Slot>,
        /// The number of a [`Message::Restored`] of the receiver's that came before this ballot.
        reinstates: Option<u64>,
        /// Through which slot the receiver has acknowledged to this master that it has every value, durably. One that
        /// has less has lost what was on its disk.
        acknowledged: Slot,
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
    /// My disk is a copy: lead with a ballot that rests on nothing that I may have forgotten, and return the number.
    Restored {
        /// A number of the sender's.
        number: u64,
    },
}

/// No cell ever counts so far. What follows from numbers up to here can be counted.
const LAST: u64 = u64::MAX - (1 << 32);

impl Message {
    /// Whether all numbers are such as a cell may have: who counts on from the others would overflow.
    pub(crate) fn is_sane(&self) -> bool {
        let slots = |slots: &[Slot]| slots.iter().all(|slot| slot.0 <= LAST);
        let round = |round: u64| round <= MAX_ROUND;
        let each =
            |values: &[Accepted]| values.iter().all(|one| slots(&[one.slot]) && round(one.ballot.round));
        match self {
            Message::Ask { round: r, chosen, .. } => round(*r) && slots(&[*chosen]),
            Message::Answer { round: r, promised, chosen, .. } => {
                round(*r) && round(promised.round) && slots(&[*chosen])
            }
            Message::Prepare { ballot, above, .. } => round(ballot.round) && slots(&[*above]),
            Message::Promise { ballot, above, accepted, through, .. } => {
                round(ballot.round) && slots(&[*above, *through]) && each(accepted)
            }
            Message::Accept { ballot, base, first, chosen, .. } => {
                round(ballot.round) && slots(&[*base, *first, *chosen]) && first.0 > 0
            }
            Message::Heartbeat { ballot, base, chosen, kept_after, .. } => {
                round(ballot.round) && slots(&[*base, *chosen, *kept_after])
            }
            Message::Accepted { ballot, through } => round(ballot.round) && slots(&[*through]),
            Message::Granted { ballot, chosen, received, .. } => {
                round(ballot.round) && slots(&[*chosen, *received])
            }
            Message::Refused { promised: ballot } | Message::TakeOver { ballot, .. } => round(ballot.round),
            Message::Restored { .. } => true,
            Message::Learn { chosen, through } => slots(&[*through]) && each(chosen),
            Message::Fetch { above: slot }
            | Message::Truncated { snapshot: slot }
            | Message::FetchChunk { snapshot: slot, .. }
            | Message::Chunk { snapshot: slot, .. } => slots(&[*slot]),
        }
    }
}
