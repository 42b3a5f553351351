//! What clients are given in a run about the search for the master.

use super::endpoint::Endpoint;
use crate::random::Random;
use wombat_proto::ReplicaId;

/// What clients of such a run are given, and what becomes of the replicas.
pub(super) struct SearchPlan {
    /// Which endpoints clients have: replicas that are there, and others.
    endpoints: Vec<Endpoint>,
    /// Whether the minority has fallen silent.
    began: bool,
}

impl SearchPlan {
    pub(super) fn draw(replicas: u32, random: &mut Random) -> SearchPlan {
        let mut endpoints: Vec<Endpoint> =
            (1..=replicas).map(|id| Endpoint::Replica(ReplicaId(id))).collect();
        // Either replicas fail, or a minority of the list never was of use.
        if random.chance(500) {
            random.shuffle(&mut endpoints);
            for bad in &mut endpoints[..(replicas as usize - 1) / 2] {
                *bad = Endpoint::BAD[random.below(5) as usize];
            }
        }
        SearchPlan { endpoints, began: false }
    }

    /// The list of a client, in an order of its own.
    pub(super) fn endpoints(&self, random: &mut Random) -> Vec<String> {
        let mut endpoints: Vec<(usize, Endpoint)> = self.endpoints.iter().copied().enumerate().collect();
        random.shuffle(&mut endpoints);
        endpoints.into_iter().map(|(number, endpoint)| endpoint.address(number)).collect()
    }

    /// Whether replicas fall silent now. They do so once, unless endpoints of the list were of no use from the start.
    pub(super) fn silences(&mut self) -> bool {
        !std::mem::replace(&mut self.began, true) && self.is_reliable()
    }

    fn is_reliable(&self) -> bool {
        self.endpoints.iter().all(|endpoint| matches!(endpoint, Endpoint::Replica(_)))
    }
}
