//! The replicas that have connected to this one.

use super::arrivals::Arrivals;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use wombat_proto::limits::{CELL_REPLICAS, CONNECTIONS_PER_REPLICA};
use wombat_proto::{Member, ReplicaId};

/// Replicas that have connected to this one.
#[derive(Default)]
pub(crate) struct Callers {
    pub(super) known: RefCell<BTreeMap<ReplicaId, Member>>,
    pub(super) new: Cell<bool>,
    /// The members, which are welcome whoever else has called.
    pub(super) members: RefCell<BTreeSet<ReplicaId>>,
    /// Each is held once more by every connection of that replica.
    admitted: RefCell<BTreeMap<ReplicaId, Rc<()>>>,
    arrivals: Arrivals,
}

impl Callers {
    /// Counts a connection for as long as what it returns is kept; `None`: there are too many of this replica,
    /// or too many of which nobody knows.
    pub(super) fn admit(&self, id: ReplicaId) -> Option<Rc<()>> {
        let mut admitted = self.admitted.borrow_mut();
        admitted.retain(|_, held| Rc::strong_count(held) > 1);
        self.arrivals.retain(|id| admitted.contains_key(id));
        let members = self.members.borrow();
        let strangers = admitted.keys().filter(|id| !members.contains(id)).count();
        let welcome = members.contains(&id) || admitted.contains_key(&id) || strangers < CELL_REPLICAS;
        let held = welcome.then(|| admitted.entry(id).or_default())?;
        (Rc::strong_count(held) <= CONNECTIONS_PER_REPLICA).then(|| Rc::clone(held))
    }

    /// Whether a replica has a connection.
    pub(super) fn is_admitted(&self, id: ReplicaId) -> bool {
        self.admitted.borrow().get(&id).is_some_and(|held| Rc::strong_count(held) > 1)
    }

    /// Whether a message has not arrived by another way before.
    pub(super) fn is_new(&self, from: ReplicaId, number: u64) -> bool {
        self.arrivals.is_new(from, number)
    }

    pub(super) fn note(&self, member: Member) {
        let mut known = self.known.borrow_mut();
        if known.len() < 2 * CELL_REPLICAS || known.contains_key(&member.id) {
            let earlier = known.insert(member.id, member.clone());
            self.new.set(self.new.get() || earlier != Some(member));
        }
    }
}
