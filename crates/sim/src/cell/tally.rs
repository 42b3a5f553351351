//! What the runs have seen, so that one can tell whether they reach what they should.

use std::collections::BTreeMap;

/// Counts by name.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Tally {
    counts: BTreeMap<&'static str, u64>,
    greatest: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub(super) fn count(&mut self, what: &'static str) {
        self.count_many(what, 1);
    }

    pub(super) fn count_many(&mut self, what: &'static str, times: u64) {
        *self.counts.entry(what).or_default() += times;
    }

    /// Notes the greatest of some numbers.
    pub(super) fn at_most(&mut self, what: &'static str, number: u64) {
        let greatest = self.greatest.entry(what).or_default();
        *greatest = number.max(*greatest);
    }

    pub(super) fn of(&self, what: &'static str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    /// Takes another's counts in.
    pub(crate) fn add(&mut self, other: &Tally) {
        for (what, count) in &other.counts {
            *self.counts.entry(what).or_default() += count;
        }
        for (what, number) in &other.greatest {
            self.at_most(what, *number);
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, (what, count)) in self.counts.iter().chain(&self.greatest).enumerate() {
            write!(f, "{}{count} {what}", if place == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
