//! Events on their way to a session (P§2.5): in log order, after the change is visible, bounded, and with
//! every gap told.

use crate::Replica;
use crate::master::Master;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use wombat_proto::limits::EVENTS_PER_SESSION;
use wombat_proto::wire::event::Kind;
use wombat_proto::wire::{Event, Handle};
use wombat_proto::{HandleId, Instance, Name, SessionId, Slot};
use wombat_state::Change;

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

    /// The number of the first waiting event, and all of them.
    pub(crate) fn unacknowledged(&self) -> (u64, Vec<Event>) {
        (self.first(), self.waiting.iter().cloned().collect())
    }
}

impl Master {
    /// Queues an event that concerns a session as a whole, or one of its handles.
    pub(crate) fn notify(
        &mut self,
        session: SessionId,
        kind: Kind,
        about: Option<(HandleId, Slot, Option<&Name>)>,
    ) {
        let Some(live) = self.sessions.get_mut(&session) else { return };
        let (handle, slot, child) = about.unwrap_or_default();
        live.events.push(Event {
            kind: kind.into(),
            handle: handle.0,
            slot: slot.0,
            child: child.map_or_else(String::new, |name| name.as_str().into()),
        });
        self.to_notify.insert(session);
    }

    /// Registers what a new handle wants to hear of.
    pub(crate) fn subscribe(&mut self, session: SessionId, handle: &Handle) {
        if handle.events != 0 {
            let subscribers = self.subscribers.entry(Instance(handle.instance)).or_default();
            subscribers.insert((session, HandleId(handle.id)));
        }
    }

    /// Forgets what a handle wanted to hear of.
    pub(crate) fn unsubscribe(&mut self, session: SessionId, handle: HandleId, instance: Instance) {
        if let Some(subscribers) = self.subscribers.get_mut(&instance) {
            subscribers.remove(&(session, handle));
            if subscribers.is_empty() {
                self.subscribers.remove(&instance);
            }
        }
    }

    /// Queues an event for every handle on a node that wants that kind.
    pub(crate) fn publish(&mut self, instance: Instance, kind: Kind, slot: Slot, child: Option<&Name>) {
        let Some(subscribers) = self.subscribers.get(&instance) else { return };
        for (session, handle) in subscribers.clone() {
            let live = self.sessions.get(&session);
            if live.is_some_and(|live| live.handles.wants(handle, kind)) {
                self.notify(session, kind, Some((handle, slot, child)));
            }
        }
    }
}

impl Replica {
    /// Turns one applied change into events.
    pub(crate) fn publish_change(&mut self, slot: Slot, change: &Change) {
        let Some(master) = &mut self.master else { return };
        match change {
            Change::ContentsModified { instance } => {
                master.publish(*instance, Kind::ContentsModified, slot, None);
            }
            Change::ChildAdded { parent, name } => {
                master.publish(*parent, Kind::ChildAdded, slot, Some(name));
            }
            Change::ChildRemoved { parent, name } => {
                master.publish(*parent, Kind::ChildRemoved, slot, Some(name));
            }
            Change::ChildModified { parent, name } => {
                master.publish(*parent, Kind::ChildModified, slot, Some(name));
            }
            Change::Deleted { instance } => master.publish(*instance, Kind::HandleInvalid, slot, None),
            Change::LockAcquired { instance } => master.publish(*instance, Kind::LockAcquired, slot, None),
            Change::LockReleased { instance } | Change::LockDelayed { instance, .. } => {
                master.publish(*instance, Kind::LockReleased, slot, None);
            }
            Change::SessionEnded { .. } => {}
        }
    }

    /// Answers the KeepAlives of the sessions that have news, or whose time has come, unless this replica may
    /// not be master any more: then they wait until it surely is. Who has none parked hears with the next one.
    pub(crate) fn deliver_events(&mut self) {
        let waits = self.master.as_ref().is_some_and(|master| !master.to_notify.is_empty());
        if !waits || !self.lease_holds() {
            return;
        }
        let Some(master) = &mut self.master else { return };
        for session in core::mem::take(&mut master.to_notify) {
            self.answer_keep_alive(session);
        }
    }
}
