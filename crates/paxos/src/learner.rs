//! The learner: what this replica knows to be chosen, and which replicas vote on what comes next.

use crate::batch::Batch;
use crate::configurations::Configurations;
use crate::outbox::{Outbox, RecordNumber};
use alloc::collections::VecDeque;
use wombat_proto::{Record, Slot, Value};

/// How many more slots are chosen before a record reports it, if no heartbeat does so earlier.
pub(crate) const RECORD_CHOSEN_INTERVAL: u64 = 256;

/// What is chosen, as far as this replica knows.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Learner {
    /// Every slot up to here is chosen and was handed out.
    chosen: Slot,
    /// The last slot that a record reports as chosen.
    recorded: Slot,
    /// Those records that are on their way to the disk, each with its slot.
    records: VecDeque<(RecordNumber, Slot)>,
    /// The last slot that a durable record reports as chosen.
    durable: Slot,
    /// The slot of the newest durable snapshot.
    snapshot: Slot,
    configurations: Configurations,
}

impl Learner {
    /// A learner that has a snapshot, and knows from its disk that everything up to `chosen` is chosen.
    pub(crate) fn new(snapshot: Slot, chosen: Slot, configurations: Configurations) -> Learner {
        let durable = chosen.max(snapshot);
        Learner {
            chosen: snapshot,
            recorded: durable,
            records: VecDeque::new(),
            durable,
            snapshot,
            configurations,
        }
    }

    /// The last slot that is known to be chosen.
    pub(crate) fn chosen(&self) -> Slot {
        self.chosen
    }

    /// The last slot that is known to be chosen, durably.
    pub(crate) fn durable(&self) -> Slot {
        self.durable
    }

    /// The slot of the newest durable snapshot.
    pub(crate) fn snapshot(&self) -> Slot {
        self.snapshot
    }

    pub(crate) fn configurations(&self) -> &Configurations {
        &self.configurations
    }

    /// The next slots are chosen, with these values. A change of members is in force `window` slots later.
    pub(crate) fn learn(&mut self, batch: &Batch, window: u64) {
        debug_assert_eq!(batch.first, self.chosen.next());
        for (slot, value) in batch.iter() {
            if let Value::Members(members) = value {
                self.configurations.change(slot, window, members.clone());
            }
        }
        self.chosen = batch.last();
        self.configurations.note_round(batch.ballot.round);
    }

    /// Forgets the members that vote on no slot that is still open.
    pub(crate) fn forget_former_members(&mut self) {
        self.configurations.forget_through(self.chosen);
    }

    /// Writes a record of how far the log is chosen, unless one says so. It spares work after a restart. And a replica
    /// that has left the cell must not be needed to find out again what was chosen while it voted.
    pub(crate) fn record_chosen(&mut self, outbox: &mut Outbox) {
        if self.chosen > self.recorded {
            self.recorded = self.chosen;
            self.records.push_back((outbox.write(Record::Chosen(self.chosen)), self.chosen));
        }
    }

    /// Whether the newest members are in force, and a crash of this replica may forget it.
    pub(crate) fn has_unrecorded_members(&self) -> bool {
        let in_force_from = self.configurations.newest_from();
        self.recorded.next() < in_force_from && in_force_from <= self.chosen.next()
    }

    /// Whether so much is chosen and not recorded that a record is due.
    pub(crate) fn is_record_due(&self) -> bool {
        self.chosen.0.saturating_sub(self.recorded.0) >= RECORD_CHOSEN_INTERVAL
    }

    /// The first `through` records ever handed out are durable.
    pub(crate) fn persisted(&mut self, through: RecordNumber) {
        while let Some((_, slot)) = self.records.pop_front_if(|(record, _)| *record <= through) {
            self.durable = self.durable.max(slot);
        }
    }

    /// A snapshot of every slot up to `slot` is durable.
    pub(crate) fn snapshotted(&mut self, slot: Slot) {
        assert!(slot <= self.chosen, "a snapshot holds slots that are not chosen");
        self.snapshot = self.snapshot.max(slot);
    }

    /// A snapshot of another replica is installed in place of everything up to `slot`.
    pub(crate) fn installed(&mut self, slot: Slot, configurations: Configurations) {
        self.chosen = slot;
        self.recorded = self.recorded.max(slot);
        self.durable = self.durable.max(slot);
        self.snapshot = self.snapshot.max(slot);
        self.configurations = configurations;
    }
}
