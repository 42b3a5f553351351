//! Which messages of the other replicas have arrived, when each may come by two ways.

use std::cell::RefCell;
use std::collections::BTreeMap;
use wombat_proto::ReplicaId;

/// Which of a sender's numbered messages have arrived, by whatever way.
#[derive(Clone, Copy, Default)]
struct Seen {
    highest: u64,
    /// Bit n: `highest - n` has arrived.
    recent: u128,
}

impl Seen {
    /// Counts a number. Returns whether it is the first time, as far as is remembered: the number of an earlier
    /// life of the sender, or of a message that was long under way, counts as new.
    fn is_new(&mut self, number: u64) -> bool {
        let ahead = number.wrapping_sub(self.highest);
        if ahead != 0 && ahead < u64::MAX / 2 {
            let shift = u32::try_from(ahead).unwrap_or(u32::MAX);
            (self.highest, self.recent) = (number, self.recent.checked_shl(shift).unwrap_or(0) | 1);
            return true;
        }
        let behind = u32::try_from(self.highest.wrapping_sub(number));
        let Ok(behind) = behind else {
            *self = Seen { highest: number, recent: 1 }; // Another life of the sender.
            return true;
        };
        let Some(bit) = 1_u128.checked_shl(behind) else { return true };
        let is_new = self.recent & bit == 0;
        self.recent |= bit;
        is_new
    }
}

/// What has arrived of each replica.
#[derive(Default)]
pub(super) struct Arrivals(RefCell<BTreeMap<ReplicaId, Seen>>);

impl Arrivals {
    /// Whether a message has not arrived by another way before. One that travels once has the number 0.
    pub(super) fn is_new(&self, from: ReplicaId, number: u64) -> bool {
        number == 0 || self.0.borrow_mut().entry(from).or_default().is_new(number)
    }

    /// Forgets the replicas that are not connected.
    pub(super) fn retain(&self, connected: impl Fn(&ReplicaId) -> bool) {
        self.0.borrow_mut().retain(|id, _| connected(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_a_message_count_once_in_any_order() {
        let mut seen = Seen::default();
        let first = u64::MAX / 3;
        for number in [first, first + 2, first + 1, first + 130] {
            assert!(seen.is_new(number), "{number}");
            assert!(!seen.is_new(number), "{number}");
        }
        assert!(seen.is_new(first + 3) && !seen.is_new(first + 3));
        // Too long ago to know: better twice than never.
        assert!(seen.is_new(first) && seen.is_new(first));
        // Another life of the sender.
        assert!(seen.is_new(7) && !seen.is_new(7) && seen.is_new(8));
        let mut after = Seen::default();
        assert!(after.is_new(u64::MAX) && after.is_new(1) && !after.is_new(u64::MAX));
    }
}
