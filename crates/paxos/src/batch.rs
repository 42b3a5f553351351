//! Values in consecutive slots, which logs, messages and records share instead of copying them.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::{Deref, Range};
use wombat_proto::{Accepted, Ballot, Record, Slot, Value};

/// Some values, or a part of them. What is cloned or cut out of it shares the values with it.
#[derive(Clone)]
pub struct Values {
    all: Arc<[Value]>,
    part: Range<u32>,
}

impl FromIterator<Value> for Values {
    fn from_iter<I: IntoIterator<Item = Value>>(values: I) -> Values {
        let all: Arc<[Value]> = values.into_iter().collect();
        let part = 0..all.len() as u32;
        Values { all, part }
    }
}

impl From<Vec<Value>> for Values {
    fn from(values: Vec<Value>) -> Values {
        values.into_iter().collect()
    }
}

impl Deref for Values {
    type Target = [Value];

    fn deref(&self) -> &[Value] {
        &self.all[self.part.start as usize..self.part.end as usize]
    }
}

// What a part was cut out of makes no difference.

impl PartialEq for Values {
    fn eq(&self, other: &Values) -> bool {
        **self == **other
    }
}

impl Eq for Values {}

impl core::hash::Hash for Values {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl core::fmt::Debug for Values {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        (**self).fmt(f)
    }
}

/// Values accepted under one ballot in consecutive slots; at least one.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Batch {
    /// The ballot.
    pub ballot: Ballot,
    /// The slot of the first value.
    pub first: Slot,
    /// The values.
    pub values: Values,
}

impl Batch {
    /// A batch of one value.
    pub(crate) fn of(one: Accepted) -> Batch {
        Batch { ballot: one.ballot, first: one.slot, values: core::iter::once(one.value).collect() }
    }

    /// The slot of the last value.
    pub fn last(&self) -> Slot {
        Slot(self.first.0 + self.values.part.len() as u64 - 1)
    }

    /// The values, each with its slot.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Value)> {
        (self.first.0..).map(Slot).zip(&*self.values)
    }

    /// What of it is in the slots from `first` to `last`, if anything is.
    pub(crate) fn part(mut self, first: Slot, last: Slot) -> Option<Batch> {
        let (first, last) = (first.max(self.first), last.min(self.last()));
        if first > last {
            return None;
        }
        let begin = self.values.part.start + (first.0 - self.first.0) as u32;
        self.values.part = begin..begin + (last.0 - first.0) as u32 + 1;
        self.first = first;
        Some(self)
    }

    /// Drops the first value, which is not the last one.
    pub(crate) fn drop_first(&mut self) {
        assert!(self.values.len() > 1, "a batch is never empty");
        self.first = self.first.next();
        self.values.part.start += 1;
    }

    /// The sum of the weights of its values.
    pub(crate) fn weight(&self) -> usize {
        self.values.iter().map(Value::weight).sum()
    }
}

/// What has to be made durable.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Persist {
    /// A record.
    Record(Record),
    /// A record of acceptance for each value of a batch, in the order of the slots.
    Batch(Batch),
}

impl Persist {
    /// How many records that are.
    pub fn count(&self) -> u64 {
        match self {
            Persist::Record(_) => 1,
            Persist::Batch(batch) => batch.values.len() as u64,
        }
    }

    /// The records.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        let (record, batch) = match self {
            Persist::Record(record) => (Some(record.clone()), None),
            Persist::Batch(batch) => (None, Some(batch)),
        };
        let accepted = batch.into_iter().flat_map(|batch| {
            let accepted =
                |(slot, value): (Slot, &Value)| Accepted { slot, ballot: batch.ballot, value: value.clone() };
            batch.iter().map(accepted).map(Record::Accept)
        });
        record.into_iter().chain(accepted)
    }
}
