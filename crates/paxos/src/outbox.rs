//! The durability queue: what a replica writes, what it sends, and which messages wait for which records.
//!
//! A promise, an acceptance and a grant bind the acceptor over a crash, so they are sent only when the records that
//! they rest on are durable (PML). Every other message is sent at once.

use crate::batch::{Batch, Persist};
use crate::effects::Effects;
use crate::message::Message;
use crate::rules::Rules;
use alloc::collections::VecDeque;
use wombat_proto::{Record, ReplicaId};

/// The number of a record, counted from 1 in the order in which records are handed out. 0: no record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub(crate) struct RecordNumber(pub(crate) u64);

/// A message that waits for a record to be durable.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Waiting {
    record: RecordNumber,
    to: ReplicaId,
    message: Message,
}

/// What a replica writes and sends.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Outbox {
    rules: Rules,
    /// The last record that was handed out.
    last_record: RecordNumber,
    /// Every record up to here is durable.
    durable: RecordNumber,
    /// In the order of the records.
    waiting: VecDeque<Waiting>,
    /// What the caller takes at the next flush.
    pub(crate) effects: Effects,
}

impl Outbox {
    pub(crate) fn new(rules: Rules) -> Outbox {
        Outbox {
            rules,
            last_record: RecordNumber(0),
            durable: RecordNumber(0),
            waiting: VecDeque::new(),
            effects: Effects::default(),
        }
    }

    pub(crate) fn is_durable(&self, record: RecordNumber) -> bool {
        record <= self.durable
    }

    /// Hands out a record to be written.
    pub(crate) fn write(&mut self, record: Record) -> RecordNumber {
        self.effects.persist.push(Persist::Record(record));
        self.last_record.0 += 1;
        self.last_record
    }

    /// Hands out the records of accepted values to be written. Returns the number of the last one.
    pub(crate) fn write_batch(&mut self, batch: Batch) -> RecordNumber {
        self.last_record.0 += batch.values.len() as u64;
        self.effects.persist.push(Persist::Batch(batch));
        self.last_record
    }

    /// Sends a message at once.
    pub(crate) fn send(&mut self, to: ReplicaId, message: Message) {
        self.effects.send.push((to, message));
    }

    /// Sends a message once all records handed out so far are durable.
    pub(crate) fn send_when_durable(&mut self, to: ReplicaId, message: Message) {
        if self.is_durable(self.last_record) || !self.rules.waits_for_disk(&message) {
            self.send(to, message);
        } else if !self.merge(to, &message) {
            self.waiting.push_back(Waiting { record: self.last_record, to, message });
        }
    }

    /// The first `through` records ever handed out are durable: sends what waited for them.
    pub(crate) fn persisted(&mut self, through: RecordNumber) {
        assert!(through <= self.last_record, "a record is durable that was never handed out");
        self.durable = self.durable.max(through);
        while let Some(Waiting { to, message, .. }) =
            self.waiting.pop_front_if(|waiting| waiting.record <= through)
        {
            // Of several acceptances in a row, the last one covers the others.
            let is_covered = self.waiting.front().is_some_and(|next| {
                next.to == to && next.record <= through && is_same_acceptance(&next.message, &message)
            });
            if !is_covered {
                self.send(to, message);
            }
        }
    }

    /// Whether a waiting message says the same already, or is changed here to do so. That bounds the queue by the
    /// records on their way to the disk, however often others repeat a request meanwhile.
    fn merge(&mut self, to: ReplicaId, message: &Message) -> bool {
        match message {
            Message::Accepted { .. } => {
                let last = self.last_record;
                let latest = self.waiting.iter_mut().rev().take_while(|waiting| waiting.record == last);
                let mut same = latest
                    .filter(|waiting| waiting.to == to && is_same_acceptance(&waiting.message, message));
                same.next().map(|waiting| waiting.message = message.clone()).is_some()
            }
            // A candidate needs only the reports for its last ballot, and each part of them once.
            Message::Promise { ballot, above, .. } => {
                let mut known = false;
                self.waiting.retain(|waiting| match &waiting.message {
                    Message::Promise { ballot: b, above: a, .. } if waiting.to == to => {
                        known |= (b, a) == (ballot, above);
                        b == ballot && a == above
                    }
                    _ => true,
                });
                known
            }
            _ => false,
        }
    }

    /// How many messages wait for the disk.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Checks what must hold between any two steps.
    pub(crate) fn check(&self) {
        assert!(self.durable <= self.last_record);
        assert!(
            self.waiting.iter().all(|waiting| waiting.record > self.durable),
            "a message waits for nothing"
        );
        assert!(self.waiting.iter().is_sorted_by_key(|waiting| waiting.record));
    }
}

/// Whether both are acceptances under one ballot.
fn is_same_acceptance(a: &Message, b: &Message) -> bool {
    matches!((a, b), (Message::Accepted { ballot: a, .. }, Message::Accepted { ballot: b, .. }) if a == b)
}
