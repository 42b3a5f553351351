//! Proposals of earlier leaderships whose outcome is not known yet.

use crate::effects::Outcome;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bytes::Bytes;
use wombat_proto::{Slot, Value};

/// What this replica proposed in earlier leaderships and has not seen the end of, by slot.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Orphans(VecDeque<(Slot, Bytes)>);

impl Orphans {
    /// Takes the open proposals of a leadership that ends, and keeps at most so many. The outcomes of those that it
    /// forgets are unknown.
    pub(crate) fn add(
        &mut self,
        proposals: impl Iterator<Item = (Slot, Bytes)>,
        most: u64,
        ended: &mut Vec<(Slot, Outcome)>,
    ) {
        self.0.extend(proposals);
        self.0.make_contiguous().sort_by_key(|(slot, _)| *slot);
        while self.0.len() as u64 > most {
            ended.extend(self.0.pop_front().map(|(slot, _)| (slot, Outcome::Unknown)));
        }
    }

    /// The value of `slot` is known now: so are the outcomes of all proposals for it and the slots before it.
    pub(crate) fn resolve(&mut self, slot: Slot, value: &Value, ended: &mut Vec<(Slot, Outcome)>) {
        while let Some((at, command)) = self.0.pop_front_if(|(at, _)| *at <= slot) {
            let outcome = match value {
                _ if at < slot => Outcome::Unknown,
                Value::Command(chosen) if *chosen == command => Outcome::Chosen,
                _ => Outcome::Lost,
            };
            ended.push((at, outcome));
        }
    }

    /// The slots up to `slot` are chosen, and their values will not be known here.
    pub(crate) fn give_up_through(&mut self, slot: Slot, ended: &mut Vec<(Slot, Outcome)>) {
        while let Some((at, _)) = self.0.pop_front_if(|(at, _)| *at <= slot) {
            ended.push((at, Outcome::Unknown));
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
