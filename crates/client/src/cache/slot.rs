//! The places where readers find what is cached of a node: one for all handles on it.

use arc_swap::ArcSwapOption;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use wombat_proto::Instance;
use wombat_session::{CachedListing, CachedNode};

/// What is cached of one node. It is there as long as somebody has a handle on the node, or something is cached.
pub(crate) struct Slot {
    pub(crate) node: ArcSwapOption<CachedNode>,
    pub(crate) listing: ArcSwapOption<CachedListing>,
    instance: Instance,
    slots: Weak<Slots>,
}

/// All slots of a session.
#[derive(Default)]
pub(crate) struct Slots(Mutex<BTreeMap<Instance, Weak<Slot>>>);

impl Slots {
    /// The slot of a node.
    pub(crate) fn of(self: &Arc<Slots>, instance: Instance) -> Arc<Slot> {
        let mut slots = self.0.lock().expect("nobody panics with it");
        if let Some(slot) = slots.get(&instance).and_then(Weak::upgrade) {
            return slot;
        }
        let slot = Arc::new(Slot {
            node: ArcSwapOption::empty(),
            listing: ArcSwapOption::empty(),
            instance,
            slots: Arc::downgrade(self),
        });
        slots.insert(instance, Arc::downgrade(&slot));
        slot
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.lock().expect("nobody panics with it").len()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(slots) = self.slots.upgrade() else { return };
        let mut slots = slots.0.lock().expect("nobody panics with it");
        // By now there may be another.
        if slots.get(&self.instance).is_some_and(|slot| slot.strong_count() == 0) {
            slots.remove(&self.instance);
        }
    }
}
