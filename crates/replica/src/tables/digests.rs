//! Whether all replicas have made the same state of the log (SPEC I19).
//!
//! Every few seconds the master proposes to hash a part of the state. Every replica does so at that slot and sends
//! the master its digest. The digest that a quorum agrees on goes into the log; the master's own counts like any
//! other. A replica whose own digest differs from the one in the log has diverged, and stops.

use alloc::collections::{BTreeMap, VecDeque};
use core::time::Duration;
use wombat_proto::wire::log;
use wombat_proto::{Instance, Instant, Members, ReplicaId, SessionId, Slot};

/// How often a part of the state is compared, if anything has changed.
const COMPARE_INTERVAL: Duration = Duration::from_secs(10);

/// How many digests of its own a replica remembers.
const MAX_REMEMBERED: usize = 8;

/// The digests that a replica knows of.
#[derive(Default)]
pub(crate) struct Digests {
    /// Its own, by the slot of the command that asked for them; the newest last.
    own: VecDeque<(Slot, u64)>,
    /// As master: the digests that replicas have sent for the newest slot, until a quorum agrees.
    received: BTreeMap<ReplicaId, u64>,
    /// As master: when to ask for the next digest.
    next_at: Option<Instant>,
    /// The part of the state that is hashed next begins after these.
    next: (Instance, SessionId),
    /// The slot of the last digest whose comparison is in the log, or on its way there.
    compared: Slot,
}

impl Digests {
    /// Nothing is to be compared: this replica is no master, or its cell has one voter.
    pub(crate) fn pause(&mut self) {
        self.next_at = None;
    }

    /// The command that asks for the next digest, if it is time and the state has changed.
    pub(crate) fn next_due(&mut self, now: Instant, applied: Slot) -> Option<log::TakeDigest> {
        let at = *self.next_at.get_or_insert(now + COMPARE_INTERVAL);
        // A comparison takes two entries of the log, which are no change by themselves.
        let changed = applied.0 > self.compared.0 + 2;
        if now < at || !changed {
            return None;
        }
        self.next_at = Some(now + COMPARE_INTERVAL);
        let (Instance(after_node), SessionId(after_session)) = self.next;
        Some(log::TakeDigest { after_node, after_session })
    }

    /// This replica has made a digest.
    pub(crate) fn taken(&mut self, slot: Slot, digest: u64, next: (Instance, SessionId)) {
        self.own.push_back((slot, digest));
        if self.own.len() > MAX_REMEMBERED {
            self.own.pop_front();
        }
        self.next = next;
        self.received.clear();
    }

    /// As master: a replica has sent its digest. Returns the comparison that the log has to say, if a quorum of the
    /// members agrees now.
    pub(crate) fn received(
        &mut self,
        from: ReplicaId,
        (slot, digest): (Slot, u64),
        members: &Members,
    ) -> Option<log::CompareDigest> {
        let newest = self.own.back().map(|(slot, _)| *slot);
        if newest != Some(slot) || self.compared >= slot || !members.is_voter(from) {
            return None;
        }
        self.received.insert(from, digest);
        let received = &self.received;
        let agreed = received.values().find(|one| members.is_quorum(|id| received.get(&id) == Some(one)));
        agreed.map(|digest| log::CompareDigest { slot: slot.0, digest: *digest })
    }

    /// The comparison of a slot is on its way into the log.
    pub(crate) fn compare_proposed(&mut self, slot: Slot) {
        self.compared = slot;
    }

    /// The log says what the digest of a slot is. Returns the slot if this replica's own differs.
    pub(crate) fn compare(&mut self, compare: &log::CompareDigest) -> Option<Slot> {
        let slot = Slot(compare.slot);
        self.compared = self.compared.max(slot);
        let own = self.own.iter().find(|(taken, _)| *taken == slot);
        own.is_some_and(|(_, digest)| *digest != compare.digest).then_some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: Slot = Slot(7);

    fn members() -> Members {
        Members::founding(["a:1", "b:1", "c:1"].map(Into::into))
    }

    fn with_own(digest: u64) -> Digests {
        let mut digests = Digests::default();
        digests.taken(SLOT, digest, (Instance(0), SessionId(0)));
        digests
    }

    #[test]
    fn digest_of_a_quorum_goes_into_the_log() {
        let mut digests = with_own(1);
        assert_eq!(digests.received(ReplicaId(1), (SLOT, 1), &members()), None);
        assert_eq!(digests.received(ReplicaId(9), (SLOT, 1), &members()), None, "no voter");
        assert_eq!(digests.received(ReplicaId(2), (Slot(6), 1), &members()), None, "of another slot");
        assert_eq!(digests.received(ReplicaId(2), (SLOT, 2), &members()), None);
        let agreed = digests.received(ReplicaId(3), (SLOT, 2), &members());
        assert_eq!(agreed, Some(log::CompareDigest { slot: 7, digest: 2 }), "the master is outvoted");
        digests.compare_proposed(SLOT);
        assert_eq!(digests.received(ReplicaId(3), (SLOT, 2), &members()), None, "once is enough");
    }

    #[test]
    fn replica_with_another_digest_has_diverged() {
        let compare = log::CompareDigest { slot: 7, digest: 2 };
        assert_eq!(with_own(1).compare(&compare), Some(SLOT));
        assert_eq!(with_own(2).compare(&compare), None);
        assert_eq!(Digests::default().compare(&compare), None, "it was not there");
    }

    #[test]
    fn unchanged_state_is_not_compared_again() {
        let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        let mut digests = Digests::default();
        assert_eq!(digests.next_due(at(0), Slot(9)), None, "the interval begins");
        assert!(digests.next_due(at(10), Slot(9)).is_some());
        assert_eq!(digests.next_due(at(15), Slot(99)), None);
        digests.compare_proposed(Slot(10));
        assert_eq!(digests.next_due(at(20), Slot(12)), None);
        assert!(digests.next_due(at(21), Slot(13)).is_some());
    }
}
