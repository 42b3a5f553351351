//! What a replica tells the others of itself, and what it knows of their starts.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;
use wombat_proto::wire::peer::Hello;
use wombat_proto::{CellName, ReplicaId, SplitMix64};

/// What only those know that have met this replica over TCP since it started.
pub(crate) type Key = [u8; 16];

/// What a replica says of itself when it meets another.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    pub(crate) cell: CellName,
    /// Empty until the cell is founded.
    pub(crate) cell_id: String,
    /// 0 until it has an id.
    pub(crate) replica: ReplicaId,
    pub(crate) nonce: String,
    pub(crate) founders: Vec<String>,
    pub(crate) address: String,
    /// What datagrams to this replica begin with.
    pub(crate) key: Key,
    /// Which of this replica's starts this is.
    pub(crate) start: Start,
    /// The last start of each replica that was met at its address.
    pub(crate) known_starts: RefCell<BTreeMap<ReplicaId, Start>>,
    /// Whether another replica knows a later start of this one.
    pub(crate) rolled_back: Cell<bool>,
    /// For waits of different lengths.
    pub(crate) random: RefCell<SplitMix64>,
}

/// A start of a replica: how often it has started, as its disk says, and a random number that tells apart two
/// starts that say the same because the disk was put back in between.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Start {
    pub(crate) count: u32,
    pub(crate) life: u64,
}

impl Start {
    pub(crate) fn of(hello: &Hello) -> Start {
        Start { count: hello.starts, life: hello.life }
    }

    /// Whether a replica cannot start like this after it has started like the other, unless its disk was put back.
    fn is_before(self, other: Start) -> bool {
        self.count < other.count || self.count == other.count && self.life != other.life
    }
}

impl Own {
    /// A replica was met at the address that the members say. What a caller says of itself would prove nothing.
    pub(crate) fn note_start(&self, id: ReplicaId, start: Start) {
        let mut known = self.known_starts.borrow_mut();
        if known.get(&id).is_none_or(|known| known.count < start.count) {
            known.insert(id, start);
        }
    }

    /// Whether a later start of a replica is known than the one that it speaks of. That is said once: when it has
    /// heard of it, this start is the last one known.
    pub(crate) fn takes_back_start(&self, id: ReplicaId, start: Start) -> bool {
        let mut known = self.known_starts.borrow_mut();
        let Some(known) = known.get_mut(&id).filter(|known| start.is_before(**known)) else { return false };
        *known = start;
        true
    }

    /// Between half of `whole` and all of it.
    pub(crate) fn jitter(&self, whole: Duration) -> Duration {
        self.random.borrow_mut().jitter(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_before_a_known_one_shows_a_disk_put_back() {
        let start = |count, life| Start { count, life };
        assert!(!start(8, 2).is_before(start(7, 1)), "it has started once more");
        assert!(!start(7, 1).is_before(start(7, 1)), "another connection of the same start");
        assert!(start(7, 2).is_before(start(7, 1)), "the same count twice");
        assert!(start(3, 2).is_before(start(7, 1)));
    }
}
