//! Which members govern which slots.

use alloc::vec::Vec;
use wombat_proto::{Member, Members, ReplicaId, Slot};

/// The members in force, by the first slot that each governs. An entry that changes the members at slot s is
/// in force from s + α, α being the window of proposals: whoever may propose for a slot has learned all the
/// entries that say who votes on it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Configurations {
    /// Never empty; in the order of the slots.
    entries: Vec<(Slot, Members)>,
    /// The highest round under which anything chosen so far was accepted: no later master takes it, nor one
    /// below, even if none of those who promised it is a member any more.
    round: u64,
}

impl Default for Configurations {
    /// Nobody yet.
    fn default() -> Configurations {
        Configurations::founding(Members::default())
    }
}

impl Configurations {
    /// Those of a cell that has never changed its members.
    pub fn founding(members: Members) -> Configurations {
        Configurations { entries: [(Slot(0), members)].into(), round: 0 }
    }

    /// From what [`Configurations::entries`] and [`Configurations::round`] gave; `None` for what they cannot
    /// have given.
    pub fn restore(entries: Vec<(Slot, Members)>, round: u64) -> Option<Configurations> {
        let sorted = entries.is_sorted_by(|a, b| a.0 < b.0);
        (sorted && !entries.is_empty()).then_some(Configurations { entries, round })
    }

    /// Each with the first slot that it governs, in order.
    pub fn entries(&self) -> &[(Slot, Members)] {
        &self.entries
    }

    /// The highest round of anything chosen so far, as far as is known here.
    pub fn round(&self) -> u64 {
        self.round
    }

    pub(crate) fn note_round(&mut self, round: u64) {
        self.round = self.round.max(round);
    }

    /// Who votes on a slot.
    pub fn at(&self, slot: Slot) -> &Members {
        let governing = self.entries.iter().rev().find(|(from, _)| *from <= slot);
        &governing.unwrap_or(&self.entries[0]).1
    }

    /// The last slot that those who vote on `slot` vote on, as far as is known.
    pub fn last_like(&self, slot: Slot) -> Slot {
        let next = self.entries.iter().find(|(from, _)| *from > slot);
        next.map_or(Slot(u64::MAX), |(from, _)| Slot(from.0 - 1))
    }

    /// Those that govern any slot of `first..=last`.
    pub fn governing(&self, first: Slot, last: Slot) -> impl Iterator<Item = &Members> {
        self.entries.iter().enumerate().filter_map(move |(place, (from, members))| {
            let ends = self.entries.get(place + 1).map_or(Slot(u64::MAX), |(next, _)| Slot(next.0 - 1));
            (*from <= last && ends >= first).then_some(members)
        })
    }

    /// The members that were agreed last, in force or not.
    pub fn newest(&self) -> &Members {
        &self.entries[self.entries.len() - 1].1
    }

    /// From which slot the newest are in force.
    pub fn newest_from(&self) -> Slot {
        self.entries[self.entries.len() - 1].0
    }

    /// Every member that governs anything known.
    pub fn everyone(&self) -> impl Iterator<Item = &Member> {
        self.entries.iter().flat_map(|(_, members)| members.all())
    }

    /// Whether a replica is a member of any kind.
    pub fn knows(&self, id: ReplicaId) -> bool {
        self.everyone().any(|member| member.id == id)
    }

    /// Takes the change of members that was chosen for `slot`; with a window of α, it is in force α slots later.
    /// A master proposes one only when the last is in force. If another comes before that, an earlier master
    /// had proposed it for members that have changed since: it has no effect.
    pub fn change(&mut self, slot: Slot, window: u64, members: Members) {
        if slot >= self.newest_from() {
            self.entries.push((Slot(slot.0 + window), members));
        }
    }

    /// Forgets those who govern no slot after `chosen`.
    pub(crate) fn forget_through(&mut self, chosen: Slot) {
        while self.entries.get(1).is_some_and(|(from, _)| from.0 <= chosen.0 + 1) {
            self.entries.remove(0);
        }
    }
}
