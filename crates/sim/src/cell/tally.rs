//! What the runs have seen, so that one can tell whether they reach what they should.

use std::collections::BTreeMap;

/// Counts by name.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Tally {
    counts: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub(super) fn count(&mut self, what: &'static str) {
        self.count_many(what, 1);
    }

    pub(super) fn count_many(&mut self, what: &'static str, times: u64) {
        *self.counts.entry(what).or_default() += times;
    }

    pub(super) fn of(&self, what: &'static str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    /// Takes another's counts in.
    pub(crate) fn add(&mut self, other: &Tally) {
        for (what, count) in &other.counts {
            *self.counts.entry(what).or_default() += count;
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, (what, count)) in self.counts.iter().enumerate() {
            write!(f, "{}{count} {what}", if place == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
