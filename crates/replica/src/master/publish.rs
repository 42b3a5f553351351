//! Which handles an applied change or a waiting Acquire is reported to (P§2.5).

use super::Master;
use crate::context::Cx;
use crate::tables::outbox::{Publication, Recipients};
use alloc::string::String;
use alloc::vec::Vec;
use wombat_proto::wire::event::Kind;
use wombat_proto::{HandleId, Instance, Name, SessionId, Slot};
use wombat_state::Change;

impl Master {
    /// Queues an event for each of these handles, if it is open and wants that kind.
    fn publish(
        &mut self,
        (recipients, to): (Recipients, Vec<(SessionId, HandleId)>),
        kind: Kind,
        slot: Slot,
        child: Option<&str>,
    ) {
        let child = child.map(String::from);
        self.publications.add(Publication { recipients, to, kind, slot, child });
        self.publish_waiting();
    }

    /// Moves events to the queues of their sessions, as many as are allowed before the next tick.
    pub(super) fn publish_waiting(&mut self) {
        while let Some(delivery) = self.publications.next() {
            let session = delivery.session;
            let Some(live) = self.sessions.get_mut(session) else { continue };
            if live.handles.wants(delivery.handle, delivery.kind) {
                delivery.queue_in(&mut live.events);
                self.notify(session);
            }
        }
    }

    /// Turns one applied change into events.
    pub(super) fn publish_change(&mut self, cx: &Cx<'_>, slot: Slot, change: &Change) {
        let (instance, kind, child) = match change {
            Change::ContentsModified { instance } => (*instance, Kind::ContentsModified, None),
            Change::ChildAdded { parent, name } => (*parent, Kind::ChildAdded, Some(name)),
            Change::ChildRemoved { parent, name } => (*parent, Kind::ChildRemoved, Some(name)),
            Change::ChildModified { parent, name } => (*parent, Kind::ChildModified, Some(name)),
            Change::Deleted { instance } => (*instance, Kind::HandleInvalid, None),
            Change::LockAcquired { instance, .. } => (*instance, Kind::LockAcquired, None),
            Change::LockBroken { session, handle } => {
                let holder = (Recipients::One, [(*session, *handle)].into());
                return self.publish(holder, Kind::LockInvalid, slot, None);
            }
            Change::LockReleased { instance, .. } | Change::LockDelayed { instance, .. } => {
                (*instance, Kind::LockReleased, None)
            }
            Change::SessionEnded { .. } => return,
        };
        let child = child.map(Name::as_str);
        let subscribers = self.subscriptions.of(instance).collect();
        self.publish((Recipients::SubscribersOf(instance), subscribers), kind, slot, child);
        // Of these, the event of the parent is reported further up.
        let has_event_of_parent = matches!(kind, Kind::ContentsModified | Kind::HandleInvalid);
        if !has_event_of_parent && self.subscriptions.has_recursive() {
            self.publish_upwards(cx, instance, kind, slot, child);
        }
    }

    /// Queues an event for the handles on directories further up that want the events of everything below them. Where a
    /// directory is gone with everything in it, they get the event of the directory.
    fn publish_upwards(
        &mut self,
        cx: &Cx<'_>,
        instance: Instance,
        kind: Kind,
        slot: Slot,
        child: Option<&str>,
    ) {
        let mut path: String = child.unwrap_or_default().into();
        let mut below = instance;
        while let Some((above, name)) = cx.state.tree().get(below).and_then(|node| node.place.as_ref()) {
            path = if path.is_empty() { name.as_str().into() } else { alloc::format!("{name}/{path}") };
            let to = self.subscriptions.of_all_below(*above);
            self.publish((Recipients::SubscribersAbove(*above), to), kind, slot, Some(&path));
            below = *above;
        }
    }

    /// Reports to the holders of a lock that another session waits for it.
    pub(super) fn report_conflict_to_holders(&mut self, cx: &Cx<'_>, instance: Instance) {
        let Some(node) = cx.state.tree().get(instance) else { return };
        // A lock may have tens of thousands of holders, of which few subscribe to that.
        let subscribers = self.subscriptions.of(instance);
        let holders = subscribers.filter(|(session, handle)| node.lock.holder(*session, *handle).is_some());
        let holders = holders.collect();
        self.report_conflict(cx, instance, (Recipients::HoldersOf(instance), holders));
    }

    /// Reports to a handle that holds a lock that another session waits for it, if one does. A holder that keeps the
    /// lock until another session wants it would otherwise miss the waiters from before its grant, or from before its
    /// handle was made again at this master.
    pub(super) fn report_waiters(
        &mut self,
        cx: &Cx<'_>,
        instance: Instance,
        (session, handle): (SessionId, HandleId),
    ) {
        let Some(node) = cx.state.tree().get(instance) else { return };
        if node.lock.holder(session, handle).is_some() {
            self.report_conflict(cx, instance, (Recipients::One, [(session, handle)].into()));
        }
    }

    /// Reports to these holders of a lock that another session waits for it, if one does and they subscribe to that.
    fn report_conflict(
        &mut self,
        cx: &Cx<'_>,
        instance: Instance,
        (recipients, mut holders): (Recipients, Vec<(SessionId, HandleId)>),
    ) {
        if !self.locks.is_waited_for(instance) {
            return;
        }
        holders.retain(|(session, handle)| {
            let live = self.sessions.get(*session);
            live.is_some_and(|live| live.handles.wants(*handle, Kind::LockConflict))
        });
        self.publish((recipients, holders), Kind::LockConflict, cx.state.stamp(), None);
    }
}
