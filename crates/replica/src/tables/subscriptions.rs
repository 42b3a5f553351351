//! Which handles want events of which node (P§2.5).

use alloc::collections::btree_map::Entry;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use wombat_proto::wire::Handle;
use wombat_proto::wire::event::BELOW;
use wombat_proto::{HandleId, Instance, SessionId};

/// The subscriptions of all handles.
#[derive(Default)]
pub(crate) struct Subscriptions {
    nodes: BTreeMap<Instance, BTreeSet<(SessionId, HandleId)>>,
    /// Those among them that want the events of everything below their node, too.
    below: BTreeMap<Instance, BTreeSet<(SessionId, HandleId)>>,
}

impl Subscriptions {
    /// Registers the subscriptions of a new handle.
    pub(crate) fn add(&mut self, session: SessionId, handle: &Handle) {
        for (map, bits) in [(&mut self.nodes, u32::MAX), (&mut self.below, BELOW)] {
            if handle.events & bits != 0 {
                map.entry(Instance(handle.instance)).or_default().insert((session, HandleId(handle.id)));
            }
        }
    }

    /// Forgets the subscriptions of a handle.
    pub(crate) fn remove(&mut self, session: SessionId, handle: &Handle) {
        for map in [&mut self.nodes, &mut self.below] {
            if let Entry::Occupied(mut handles) = map.entry(Instance(handle.instance)) {
                handles.get_mut().remove(&(session, HandleId(handle.id)));
                if handles.get().is_empty() {
                    handles.remove();
                }
            }
        }
    }

    /// Forgets a node that is gone.
    pub(crate) fn forget_node(&mut self, instance: Instance) {
        self.nodes.remove(&instance);
        self.below.remove(&instance);
    }

    /// The handles that want events of a node.
    pub(crate) fn of(&self, instance: Instance) -> impl Iterator<Item = (SessionId, HandleId)> {
        self.nodes.get(&instance).into_iter().flatten().copied()
    }

    /// Whether any handle wants the events of everything below its node.
    pub(crate) fn has_recursive(&self) -> bool {
        !self.below.is_empty()
    }

    /// The handles that want the events of everything below a directory.
    pub(crate) fn of_all_below(&self, instance: Instance) -> Vec<(SessionId, HandleId)> {
        self.below.get(&instance).into_iter().flatten().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wombat_proto::wire::event::Kind;

    const NODE: Instance = Instance(3);

    fn handle(id: u64, events: u32) -> Handle {
        Handle { id, instance: NODE.0, events, ..Handle::default() }
    }

    #[test]
    fn handle_without_events_subscribes_to_nothing() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.add(SessionId(1), &handle(1, 0));
        assert_eq!(subscriptions.of(NODE).count(), 0);
    }

    #[test]
    fn recursive_handle_is_found_both_ways_until_it_goes() {
        let mut subscriptions = Subscriptions::default();
        let recursive = handle(1, BELOW | Kind::ContentsModified.bit());
        subscriptions.add(SessionId(1), &recursive);
        subscriptions.add(SessionId(2), &handle(2, Kind::ContentsModified.bit()));
        assert_eq!(subscriptions.of(NODE).count(), 2);
        assert_eq!(subscriptions.of_all_below(NODE), [(SessionId(1), HandleId(1))]);
        subscriptions.remove(SessionId(1), &recursive);
        assert!(!subscriptions.has_recursive());
        subscriptions.forget_node(NODE);
        assert_eq!(subscriptions.of(NODE).count(), 0);
    }
}
