//! What this replica has accepted and still keeps in memory.

use crate::batch::{Batch, Values};
use crate::outbox::{Outbox, RecordNumber};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use wombat_proto::{Accepted, Ballot, Slot, Value};

/// Accepted values, those of the chosen slots among them, from some slot on.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Log {
    /// The first slot that it can hold.
    first: Slot,
    /// In the order of the slots. No slot is in two of them; some may be in none.
    batches: VecDeque<Batch>,
    bytes: usize,
}

impl Log {
    /// An empty log that begins after `slot`.
    pub(crate) fn after(slot: Slot) -> Log {
        Log { first: slot.next(), batches: VecDeque::new(), bytes: 0 }
    }

    /// The first slot that it can hold; what was before is gone.
    pub(crate) fn first(&self) -> Slot {
        self.first
    }

    /// The slot of its last entry; the one before [`Log::first`] if it has none.
    pub(crate) fn last(&self) -> Slot {
        self.batches.back().map_or(Slot(self.first.0 - 1), Batch::last)
    }

    /// The bytes of its values.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The place of the first batch that does not end before `slot`. The newest are asked for most, so it goes
    /// back from the end in steps that grow, and halves the last of them.
    fn place(&self, slot: Slot) -> usize {
        let ends_before = |place: usize| self.batches[place].last() < slot;
        let (mut begin, mut end, mut step) = (self.batches.len(), self.batches.len(), 0);
        while begin > 0 && !ends_before(begin - 1) {
            end = begin - 1;
            begin = end.saturating_sub(step);
            step = 2 * step + 1;
        }
        while begin < end {
            let middle = begin.midpoint(end);
            if ends_before(middle) {
                begin = middle + 1;
            } else {
                end = middle;
            }
        }
        begin
    }

    /// The batch that a slot is in.
    pub(crate) fn batch_at(&self, slot: Slot) -> Option<&Batch> {
        if slot > self.last() {
            return None;
        }
        self.batches.get(self.place(slot)).filter(|batch| batch.first <= slot)
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<(Ballot, &Value)> {
        let batch = self.batch_at(slot)?;
        Some((batch.ballot, &batch.values[(slot.0 - batch.first.0) as usize]))
    }

    /// What is there of the slots from `first` to `last`.
    fn parts(&self, first: Slot, last: Slot) -> impl Iterator<Item = Batch> {
        let batches = self.batches.range(self.place(first)..).take_while(move |batch| batch.first <= last);
        batches.filter_map(move |batch| batch.clone().part(first, last))
    }

    /// The entries from `first` to `last` that are there.
    pub(crate) fn range(&self, first: Slot, last: Slot) -> impl Iterator<Item = (Slot, Ballot, &Value)> {
        self.batches
            .range(self.place(first)..)
            .flat_map(|batch| batch.iter().map(|(slot, value)| (slot, batch.ballot, value)))
            .skip_while(move |(slot, ..)| *slot < first)
            .take_while(move |(slot, ..)| *slot <= last)
    }

    /// The first stretch of the slots from `first` to `last` where nothing was accepted under a ballot.
    pub(crate) fn lacks(&self, ballot: Ballot, first: Slot, last: Slot) -> Option<(Slot, Slot)> {
        let mut begin = first;
        if first > self.last() {
            return (first <= last).then_some((first, last));
        }
        for batch in self.batches.range(self.place(first)..).filter(|batch| batch.ballot == ballot) {
            if batch.first > begin {
                return (begin <= last).then(|| (begin, last.min(Slot(batch.first.0 - 1))));
            }
            begin = batch.last().next();
        }
        (begin <= last).then_some((begin, last))
    }

    /// The values from `first` to `last`: as many as so many bytes hold, but one at least if there is one.
    pub(crate) fn values(&self, first: Slot, last: Slot, most: usize) -> Option<Values> {
        let mut parts = self.parts(first, last);
        let part = parts.next()?;
        if parts.next().is_none() && part.weight() <= most {
            return Some(part.values);
        }
        let mut bytes = 0;
        let fits = |(place, value): &(usize, &Value)| {
            bytes += value.weight();
            *place == 0 || bytes <= most
        };
        let values = self.range(first, last).map(|(.., value)| value).enumerate();
        Some(values.take_while(fits).map(|(_, value)| value.clone()).collect())
    }

    /// Accepts values, and hands out their records to be written. Returns the number of the last record.
    pub(crate) fn write(&mut self, batch: Batch, outbox: &mut Outbox) -> RecordNumber {
        self.put(batch.clone());
        outbox.write_batch(batch)
    }

    /// The entries after `above`, through `last` at most, as many as fit into so many bytes, but one at least; and
    /// the last slot that they cover.
    pub(crate) fn part(&self, above: Slot, last: Slot, most_bytes: usize) -> (Vec<Accepted>, Slot) {
        let mut accepted = Vec::new();
        let mut bytes = 0;
        for (slot, ballot, value) in self.range(above.next(), last) {
            bytes += value.weight();
            if !accepted.is_empty() && bytes > most_bytes {
                return (accepted, Slot(slot.0 - 1));
            }
            accepted.push(Accepted { slot, ballot, value: value.clone() });
        }
        (accepted, last.max(above))
    }

    /// Puts values in, in place of earlier ones. Slots before [`Log::first`] are past changing.
    pub(crate) fn put(&mut self, batch: Batch) {
        if batch.first > self.last() {
            self.bytes += batch.weight();
            return self.batches.push_back(batch);
        }
        let (first, last) = (batch.first.max(self.first), batch.last());
        let Some(batch) = batch.part(first, last) else { return };
        self.bytes += batch.weight();
        // Of the batches in its way, what is before it and what is behind it stays.
        self.bytes -= self.parts(first, last).map(|part| part.weight()).sum::<usize>();
        let (begin, end) = (self.place(first), self.batches.partition_point(|other| other.first <= last));
        let mut tail = self.batches.split_off(begin);
        let behind = tail.split_off(end - begin);
        let before = tail.front().and_then(|other| other.clone().part(self.first, Slot(first.0 - 1)));
        let rest = tail.back().and_then(|other| other.clone().part(last.next(), other.last()));
        self.batches.extend(before.into_iter().chain([batch]).chain(rest).chain(behind));
    }

    /// Drops the first entry.
    pub(crate) fn drop_first(&mut self) {
        let Some(batch) = self.batches.front_mut() else { return };
        let dropped = self.first;
        self.first = dropped.next();
        if batch.first > dropped {
            return;
        }
        self.bytes -= batch.values[0].weight();
        if batch.values.len() > 1 {
            batch.drop_first();
        } else {
            self.batches.pop_front();
        }
    }

    /// Drops everything through `slot`; begins after it even if it was not there yet.
    pub(crate) fn drop_through(&mut self, slot: Slot) {
        while self.first <= slot && !self.batches.is_empty() {
            self.drop_first();
        }
        self.first = self.first.max(slot.next());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use alloc::vec::Vec;
    use wombat_proto::{ReplicaId, SplitMix64};

    /// A log, and what it has to hold. Values differ in their lengths.
    struct Both {
        log: Log,
        begins: u64,
        model: BTreeMap<u64, (Ballot, Value)>,
        random: SplitMix64,
        length: usize,
    }

    impl Both {
        fn below(&mut self, limit: u64) -> u64 {
            self.random.below(limit)
        }

        fn put(&mut self) {
            let end = self.model.last_key_value().map_or(self.begins, |(slot, _)| slot + 1);
            let first = 1 + self.below(end + 3);
            let ballot = Ballot { round: 1 + self.below(3), replica: ReplicaId(1), incarnation: 1 };
            let values: Vec<Value> = (0..=self.below(5))
                .map(|_| {
                    self.length = (self.length + 1) % 997;
                    Value::Command(alloc::vec![0; self.length].into())
                })
                .collect();
            for (slot, value) in (first..).zip(&values).filter(|(slot, _)| *slot >= self.begins) {
                self.model.insert(slot, (ballot, value.clone()));
            }
            self.log.put(Batch { ballot, first: Slot(first), values: values.into() });
        }

        fn drop(&mut self) {
            if self.below(2) == 0 {
                if !self.model.is_empty() {
                    self.model.remove(&self.begins);
                    self.begins += 1;
                }
                self.log.drop_first();
            } else {
                let through = self.begins + self.below(4);
                self.model = self.model.split_off(&(through + 1));
                self.begins = through + 1;
                self.log.drop_through(Slot(through));
            }
        }

        fn check(&mut self) {
            let (log, model) = (&self.log, &self.model);
            let last = model.last_key_value().map_or(self.begins - 1, |(slot, _)| *slot);
            assert_eq!((log.first(), log.last()), (Slot(self.begins), Slot(last)));
            assert_eq!(log.bytes(), model.values().map(|(_, value)| value.weight()).sum());
            for slot in 1..last + 3 {
                let here = model.get(&slot).map(|(ballot, value)| (*ballot, value));
                assert_eq!(log.get(Slot(slot)), here);
            }
            let (first, until) = (self.below(last + 3), self.below(last + 3));
            let until = until.max(first);
            let within: Vec<_> =
                self.model.range(first..=until).map(|(s, (b, v))| (Slot(*s), *b, v)).collect();
            assert!(self.log.range(Slot(first), Slot(until)).eq(within.iter().copied()));

            let ballot = Ballot { round: 2, replica: ReplicaId(1), incarnation: 1 };
            let lacks = |slot: &u64| self.model.get(slot).is_none_or(|(b, _)| *b != ballot);
            let from = (first..=until).find(lacks);
            let stretch =
                from.map(|from| (Slot(from), Slot((from..=until).take_while(lacks).last().unwrap())));
            assert_eq!(self.log.lacks(ballot, Slot(first), Slot(until)), stretch);

            let most = 64 * 3;
            let mut bytes = 0;
            let mut fits =
                within.iter().map(|(.., value)| *value).enumerate().take_while(|(place, value)| {
                    bytes += value.weight();
                    *place == 0 || bytes <= most
                });
            let values = self.log.values(Slot(first), Slot(until), most);
            assert!(values.iter().flat_map(|values| values.iter()).eq(fits.by_ref().map(|(_, value)| value)));
        }
    }

    #[test]
    fn it_holds_what_was_put_in_last() {
        for seed in 0..300 {
            let (log, model) = (Log::after(Slot(0)), BTreeMap::new());
            let mut both = Both { log, begins: 1, model, random: SplitMix64::new(seed), length: 0 };
            for _ in 0..60 {
                match both.below(4) {
                    0 => both.drop(),
                    _ => both.put(),
                }
                both.check();
            }
        }
    }
}
