//! What a master has proposed: from the first of its slots to those that are not accepted by itself yet.

use crate::outbox::{Outbox, RecordNumber};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use wombat_proto::{Slot, Value};

/// A master's proposals.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Proposals {
    /// Chosen when the master was elected. It proposes every slot after it under its own ballot.
    base: Slot,
    /// The slot of the next proposal.
    next: Slot,
    /// The slot of its first own value. Once that is chosen, the master knows everything that was chosen before it.
    barrier: Option<Slot>,
    /// What was proposed since the last batch was sealed: the values of the slots before `next`.
    unsealed: Vec<Value>,
    /// The master's own acceptances on their way to the disk: each batch's last record and last slot.
    unsynced: VecDeque<(RecordNumber, Slot)>,
    /// The bytes of commands that are proposed and not chosen.
    bytes: usize,
}

impl Proposals {
    pub(crate) fn after(base: Slot) -> Proposals {
        Proposals {
            base,
            next: base.next(),
            barrier: None,
            unsealed: Vec::new(),
            unsynced: VecDeque::new(),
            bytes: 0,
        }
    }

    pub(crate) fn base(&self) -> Slot {
        self.base
    }

    pub(crate) fn next(&self) -> Slot {
        self.next
    }

    /// The last slot that was proposed; the base before the first.
    pub(crate) fn last(&self) -> Slot {
        Slot(self.next.0 - 1)
    }

    /// The bytes of commands that are proposed and not chosen.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The slot of the master's first own value.
    pub(crate) fn barrier(&self) -> Option<Slot> {
        self.barrier
    }

    /// Whether the master knows everything that was chosen before it.
    pub(crate) fn is_barrier_chosen(&self, chosen: Slot) -> bool {
        self.barrier.is_some_and(|barrier| chosen >= barrier)
    }

    /// The next value is the master's first own one.
    pub(crate) fn set_barrier(&mut self) {
        self.barrier = Some(self.next);
    }

    /// The first slot whose value may be a client's: not found by phase 1, and not the master's first own one.
    pub(crate) fn first_own(&self) -> Slot {
        self.barrier.map_or(self.next, Slot::next)
    }

    /// Whether the master waits for its disk with more than the window allows for, though others choose without it.
    pub(crate) fn is_disk_stalled(&self, window: u64) -> bool {
        self.unsynced.len() as u64 >= 4 * window
    }

    pub(crate) fn has_unsealed(&self) -> bool {
        !self.unsealed.is_empty()
    }

    /// Gives the next slot to a value.
    pub(crate) fn append(&mut self, value: Value) -> Slot {
        let slot = self.next;
        self.next = slot.next();
        self.bytes += command_bytes(&value);
        self.unsealed.push(value);
        slot
    }

    /// Leaves the next slot open.
    pub(crate) fn skip(&mut self) {
        self.next = self.next.next();
    }

    /// The values that were proposed since the last time, and the slot of the first.
    pub(crate) fn seal(&mut self) -> (Slot, Vec<Value>) {
        let first = Slot(self.next.0 - self.unsealed.len() as u64);
        (first, core::mem::take(&mut self.unsealed))
    }

    /// The master accepts its own proposals up to the last one, durably once `record` is.
    pub(crate) fn accepted_by_master(&mut self, record: RecordNumber) {
        self.unsynced.push_back((record, self.last()));
    }

    /// The last slot that the master has accepted itself, durably, if that is news.
    pub(crate) fn take_synced(&mut self, outbox: &Outbox) -> Option<Slot> {
        let mut synced = None;
        while let Some((_, slot)) = self.unsynced.pop_front_if(|(record, _)| outbox.is_durable(*record)) {
            synced = Some(slot);
        }
        synced
    }

    /// A value that was proposed is chosen.
    pub(crate) fn value_chosen(&mut self, value: &Value) {
        self.bytes -= command_bytes(value);
    }
}

fn command_bytes(value: &Value) -> usize {
    match value {
        Value::Command(command) => command.len(),
        Value::Noop | Value::Members(_) => 0,
    }
}
