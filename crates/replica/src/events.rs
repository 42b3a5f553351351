//! Events on their way to a session (P§2.5): in log order, after the change is visible, bounded, and with
//! every gap told.

use crate::Replica;
use crate::master::Master;
use alloc::collections::btree_map::Entry;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::{IntoIter, Vec};
use prost::Message;
use wombat_proto::limits::{EVENTS_PER_SESSION, PAGE_BYTES};
use wombat_proto::wire::event::{BELOW, Kind};
use wombat_proto::wire::{Event, Handle};
use wombat_proto::{HandleId, Instance, Instant, Name, SessionId, Slot};
use wombat_state::Change;

/// Most KeepAlives that are answered in one step: a crowd that hears of the same thing must not keep the
/// heartbeats waiting. Nor must it in many steps between two ticks, so the rest waits for the next tick.
const ANSWERED_AT_ONCE: usize = 1024;

/// Most handles for which an event is queued in one step, likewise.
const PUBLISHED_AT_ONCE: usize = 4096;

/// Most events that wait for that. Of more, the first is queued for all of its handles, however many they are.
const PUBLICATIONS: usize = 16;

/// The events that a session has not acknowledged.
#[derive(Default)]
pub(crate) struct EventQueue {
    /// The number of the last event ever queued; numbers count from 1 in each epoch.
    last: u64,
    /// The unacknowledged ones; the last of them is number `last`.
    waiting: VecDeque<Event>,
}

impl EventQueue {
    /// The queue of a session at a new master: its first event says so.
    pub(crate) fn of_fail_over() -> EventQueue {
        let waiting = [Event { kind: Kind::FailedOver.into(), ..Event::default() }].into();
        EventQueue { last: 1, waiting }
    }

    /// Queues an event. When the queue is full, all that wait give way to one GAP.
    fn push(&mut self, event: Event) {
        if self.waiting.len() >= EVENTS_PER_SESSION {
            self.waiting.clear();
            let slot = event.slot;
            self.waiting.push_back(Event { kind: Kind::Gap.into(), slot, ..Event::default() });
            self.last += 1;
        }
        self.waiting.push_back(event);
        self.last += 1;
    }

    /// Forgets events up to that number.
    pub(crate) fn acknowledge(&mut self, number: u64) {
        let first = self.first();
        let received = number.saturating_add(1).saturating_sub(first).min(self.waiting.len() as u64);
        self.waiting.drain(..received as usize);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn first(&self) -> u64 {
        self.last + 1 - self.waiting.len() as u64
    }

    /// The number of the first waiting event, and as many from it on as fit into an answer.
    pub(crate) fn unacknowledged(&self) -> (u64, Vec<Event>) {
        let mut bytes = 0;
        let fits = |event: &&Event| {
            bytes += event.encoded_len() + 8;
            bytes <= PAGE_BYTES
        };
        (self.first(), self.waiting.iter().take_while(fits).cloned().collect())
    }
}

/// An event on its way to the queues of those who want it.
struct Publication {
    /// Handles that it has still to be queued for.
    to: IntoIter<(SessionId, HandleId)>,
    kind: Kind,
    slot: Slot,
    child: Option<String>,
}

/// Events in log order, of which the first has so many handles that it is queued for them by and by.
#[derive(Default)]
pub(crate) struct Publications(VecDeque<Publication>);

impl Publications {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Which handles want events of which node.
#[derive(Default)]
pub(crate) struct Subscribers {
    nodes: BTreeMap<Instance, BTreeSet<(SessionId, HandleId)>>,
    /// Those among them that want to hear of everything below their node, too.
    below: BTreeMap<Instance, BTreeSet<(SessionId, HandleId)>>,
}

impl Subscribers {
    /// Registers what a new handle wants to hear of.
    pub(crate) fn add(&mut self, session: SessionId, handle: &Handle) {
        for (map, bits) in [(&mut self.nodes, u32::MAX), (&mut self.below, BELOW)] {
            if handle.events & bits != 0 {
                map.entry(Instance(handle.instance)).or_default().insert((session, HandleId(handle.id)));
            }
        }
    }

    /// Forgets what a handle wanted to hear of.
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

    fn of(&self, instance: Instance) -> Vec<(SessionId, HandleId)> {
        self.nodes.get(&instance).into_iter().flatten().copied().collect()
    }

    fn of_all_below(&self, instance: Instance) -> Vec<(SessionId, HandleId)> {
        self.below.get(&instance).into_iter().flatten().copied().collect()
    }
}

impl Master {
    /// Queues an event for each of these handles, if it is open and wants that kind; for a crowd of them by and by.
    pub(crate) fn publish(
        &mut self,
        to: Vec<(SessionId, HandleId)>,
        kind: Kind,
        slot: Slot,
        child: Option<&str>,
    ) {
        if to.is_empty() {
            return;
        }
        let others = self.publications.0.len();
        let publication = Publication { to: to.into_iter(), kind, slot, child: child.map(String::from) };
        self.publications.0.push_back(publication);
        if others == 0 {
            self.publish_some();
        }
        while self.publications.0.len() > PUBLICATIONS {
            self.publish_some();
        }
    }

    /// Goes on with the events that wait.
    pub(crate) fn publish_some(&mut self) {
        let mut left = PUBLISHED_AT_ONCE;
        while left > 0
            && let Some(mut first) = self.publications.0.pop_front()
        {
            let some = left.min(first.to.len());
            left -= some;
            for (session, handle) in first.to.by_ref().take(some) {
                let Some(live) = self.sessions.get_mut(&session) else { continue };
                if live.handles.wants(handle, first.kind) {
                    let (kind, child) = (first.kind.into(), first.child.clone().unwrap_or_default());
                    live.events.push(Event { kind, handle: handle.0, slot: first.slot.0, child });
                    self.to_notify.insert(session);
                }
            }
            if first.to.len() > 0 {
                self.publications.0.push_front(first);
            }
        }
    }
}

impl Replica {
    /// Turns one applied change into events.
    pub(crate) fn publish_change(&mut self, slot: Slot, change: &Change) {
        let Some(master) = &mut self.master else { return };
        let (instance, kind, child) = match change {
            Change::ContentsModified { instance } => (*instance, Kind::ContentsModified, None),
            Change::ChildAdded { parent, name } => (*parent, Kind::ChildAdded, Some(name)),
            Change::ChildRemoved { parent, name } => (*parent, Kind::ChildRemoved, Some(name)),
            Change::ChildModified { parent, name } => (*parent, Kind::ChildModified, Some(name)),
            Change::Deleted { instance } => (*instance, Kind::HandleInvalid, None),
            Change::LockAcquired { instance } => (*instance, Kind::LockAcquired, None),
            Change::LockBroken { session, handle } => {
                return master.publish([(*session, *handle)].into(), Kind::LockInvalid, slot, None);
            }
            Change::LockReleased { instance } | Change::LockDelayed { instance, .. } => {
                (*instance, Kind::LockReleased, None)
            }
            Change::SessionEnded { .. } => return,
        };
        let child = child.map(Name::as_str);
        master.publish(master.subscribers.of(instance), kind, slot, child);
        let by_the_parent = matches!(kind, Kind::ContentsModified | Kind::HandleInvalid);
        if !by_the_parent && !master.subscribers.below.is_empty() {
            self.publish_upwards(instance, kind, slot, child);
        }
    }

    /// Queues an event for the handles on directories further up that hear of everything below them. Where a
    /// directory is gone with what was in it, they hear of the directory.
    fn publish_upwards(&mut self, instance: Instance, kind: Kind, slot: Slot, child: Option<&str>) {
        let Some(master) = &mut self.master else { return };
        let mut way: String = child.unwrap_or_default().into();
        let mut below = instance;
        while let Some((above, name)) = self.state.tree().get(below).and_then(|node| node.place.as_ref()) {
            way = if way.is_empty() { name.as_str().into() } else { alloc::format!("{name}/{way}") };
            master.publish(master.subscribers.of_all_below(*above), kind, slot, Some(&way));
            below = *above;
        }
    }

    /// Answers the KeepAlives of the sessions that have news, or whose time has come, unless this replica may
    /// not be master any more: then they wait until it surely is. Who has none parked hears with the next one.
    pub(crate) fn deliver_events(&mut self) {
        let waits = |master: &Master| !master.to_notify.is_empty() && !master.crowd_waits;
        if !self.master.as_ref().is_some_and(waits) || !self.lease_holds() {
            return;
        }
        for _ in 0..ANSWERED_AT_ONCE {
            let next = self.master.as_mut().and_then(|master| master.to_notify.pop_first());
            let Some(session) = next else { return };
            self.answer_keep_alive(session);
        }
        if let Some(master) = &mut self.master {
            master.crowd_waits = !master.to_notify.is_empty();
        }
    }

    /// When the rest of a crowd is to be answered: at once, with the next tick.
    pub(crate) fn crowd_due(&self) -> Option<Instant> {
        let waits = |master: &Master| !master.to_notify.is_empty() || !master.publications.is_empty();
        (self.master.as_ref().is_some_and(waits) && self.lease_holds()).then_some(self.moment.now)
    }
}
