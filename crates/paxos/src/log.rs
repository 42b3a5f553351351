//! What this replica has accepted and still keeps in memory.

use alloc::collections::VecDeque;
use wombat_proto::{Ballot, Slot, Value};

/// Accepted values, those of the chosen slots among them, from some slot on.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Log {
    /// The slot of the first entry.
    first: Slot,
    entries: VecDeque<Option<(Ballot, Value)>>,
    bytes: usize,
}

impl Log {
    /// An empty log that begins after `slot`.
    pub(crate) fn after(slot: Slot) -> Log {
        Log { first: slot.next(), entries: VecDeque::new(), bytes: 0 }
    }

    /// The first slot that it can hold; what was before is gone.
    pub(crate) fn first(&self) -> Slot {
        self.first
    }

    /// The slot of its last entry; the one before [`Log::first`] if it has none.
    pub(crate) fn last(&self) -> Slot {
        Slot(self.first.0 + self.entries.len() as u64 - 1)
    }

    /// The bytes of its values.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&(Ballot, Value)> {
        let place = slot.0.checked_sub(self.first.0)?;
        self.entries.get(place as usize)?.as_ref()
    }

    /// The entries from `first` to `last` that are there.
    pub(crate) fn range(&self, first: Slot, last: Slot) -> impl Iterator<Item = (Slot, &(Ballot, Value))> {
        let begin = first.max(self.first);
        let skip = (begin.0 - self.first.0) as usize;
        let slots = (begin.0..=last.0).map(Slot);
        slots.zip(self.entries.iter().skip(skip)).filter_map(|(slot, entry)| Some((slot, entry.as_ref()?)))
    }

    /// Puts a value in, in place of an earlier one. Slots before [`Log::first`] are past changing.
    pub(crate) fn set(&mut self, slot: Slot, ballot: Ballot, value: Value) {
        let Some(place) = slot.0.checked_sub(self.first.0) else { return };
        let place = place as usize;
        self.bytes += value.weight();
        if place == self.entries.len() {
            self.entries.push_back(Some((ballot, value)));
            return;
        }
        if place > self.entries.len() {
            self.entries.resize(place + 1, None);
        }
        if let Some((_, earlier)) = self.entries[place].replace((ballot, value)) {
            self.bytes -= earlier.weight();
        }
    }

    /// Drops the first entry.
    pub(crate) fn drop_first(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry.map_or(0, |(_, value)| value.weight());
            self.first = self.first.next();
        }
    }

    /// Drops everything through `slot`; begins after it even if it was not there yet.
    pub(crate) fn drop_through(&mut self, slot: Slot) {
        while self.first <= slot && !self.entries.is_empty() {
            self.drop_first();
        }
        self.first = self.first.max(slot.next());
    }
}
