//! What a master knows of the replicas that it talks to.

use crate::message::Mark;
use crate::rules::Rules;
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::limits::CELL_REPLICAS;
use wombat_proto::{Instant, Members, ReplicaId, Slot};

/// What a master knows of a replica.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Peer {
    pub(crate) id: ReplicaId,
    /// Every slot from the base to here is accepted there under this ballot, durably.
    pub(crate) matched: Slot,
    /// The last slot sent to it.
    pub(crate) sent: Slot,
    /// When to send again what it has not acknowledged.
    pub(crate) resend_at: Instant,
    /// The newest heartbeat that it has granted; 0: none.
    pub(crate) granted: u64,
    /// Until when it has granted the lease at least, by this replica's clock.
    pub(crate) leased_until: Instant,
    /// How long a heartbeat and its grant take, smoothed; unknown before the first.
    pub(crate) round_trip: Option<Duration>,
    /// Until when it is sent small messages only, because large ones were lost on the way.
    pub(crate) lossy_until: Instant,
    /// The newest mark on its grants.
    pub(crate) mark: Option<Mark>,
    /// Every slot from the base to here had arrived there, durable or not, when it granted that heartbeat.
    pub(crate) received: Slot,
    /// The last slot that it knows to be chosen, durably.
    pub(crate) chosen: Slot,
    /// When its last message arrived.
    pub(crate) last_message_at: Instant,
}

impl Peer {
    /// Through which slot it has acknowledged that it has values, durably. A replica acknowledges the `base` itself
    /// before it has learned what was chosen up to there.
    pub(crate) fn acknowledged(&self, base: Slot) -> Slot {
        let accepted = if self.matched > base { self.matched } else { Slot(0) };
        accepted.max(self.chosen)
    }

    /// A replica that has not answered yet, by a master that proposes the slots after `base`.
    fn new(id: ReplicaId, base: Slot, resend_at: Instant, now: Instant) -> Peer {
        Peer {
            id,
            matched: Slot(0),
            sent: base,
            resend_at,
            granted: 0,
            leased_until: Instant::default(),
            round_trip: None,
            lossy_until: Instant::default(),
            mark: None,
            received: Slot(0),
            chosen: Slot(0),
            last_message_at: now,
        }
    }

    /// The last slot that has arrived there, as far as is known.
    pub(crate) fn arrived(&self) -> Slot {
        self.received.max(self.matched)
    }
}

/// All replicas that a master talks to, itself among them, by id. They are few, so they are found by looking.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Peers(Vec<Peer>);

impl Peers {
    pub(crate) fn get(&self, id: ReplicaId) -> Option<&Peer> {
        self.0.iter().find(|peer| peer.id == id)
    }

    pub(crate) fn get_mut(&mut self, id: ReplicaId) -> Option<&mut Peer> {
        self.0.iter_mut().find(|peer| peer.id == id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.0.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.0.iter_mut()
    }

    /// Adds the members that are missing, and removes replicas that are no members any more.
    pub(crate) fn set_members(&mut self, ids: &[ReplicaId], base: Slot, resend_at: Instant, now: Instant) {
        self.0.retain(|peer| ids.contains(&peer.id));
        for id in ids {
            if self.get(*id).is_none() {
                self.0.push(Peer::new(*id, base, resend_at, now));
            }
        }
        self.0.sort_unstable_by_key(|peer| peer.id);
    }

    /// The last slot that a quorum of voters has accepted.
    pub(crate) fn accepted_by_quorum(&self, voters: &Members, rules: Rules) -> Slot {
        let matched = |peer: &Peer| peer.matched.0;
        let by_fastest = || self.0.iter().map(matched).max().unwrap_or(0);
        Slot(rules.is_chosen_through(self.reached_by_quorum(voters, matched), by_fastest))
    }

    /// The greatest number that a quorum of voters has reached; unknown replicas have reached 0.
    pub(crate) fn reached_by_quorum(&self, voters: &Members, of: impl Fn(&Peer) -> u64) -> u64 {
        // Greatest first.
        let mut reached = [0; CELL_REPLICAS];
        let count = voters.voters.len().min(CELL_REPLICAS);
        for (known, member) in voters.voters.iter().take(count).enumerate() {
            let number = self.get(member.id).map_or(0, &of);
            let mut place = known;
            while place > 0 && reached[place - 1] < number {
                reached[place] = reached[place - 1];
                place -= 1;
            }
            reached[place] = number;
        }
        reached[voters.quorum() - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_is_no_acknowledgement_of_slots_before_it() {
        let (base, now) = (Slot(7), Instant::default());
        let mut peer = Peer::new(ReplicaId(2), base, now, now);
        peer.chosen = Slot(3);
        peer.matched = base;
        assert_eq!(peer.acknowledged(base), Slot(3), "it may have nothing of the slots 4 to 7");
        peer.matched = base.next();
        assert_eq!(peer.acknowledged(base), base.next());
    }
}
