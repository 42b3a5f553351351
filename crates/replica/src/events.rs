//! Events on their way to a session (P§2.5): in log order, after the change is visible, bounded, and with
//! every gap told.

use crate::master::{LiveSession, Master};
use crate::{Replica, next_in_turn};
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

/// Most handles for which events are queued between two ticks, likewise.
const PUBLISHED_AT_ONCE: usize = 4096;

/// When so many wait for that, counted once for each event, another event takes the place of one of the same kind
/// and the same node. Whoever would have heard of both hears of a gap, and of the later one.
const TO_PUBLISH: usize = 256 * 1024;

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

/// Whose handles an event is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// One handle.
    One,
    /// Who listens to a node.
    Of(Instance),
    /// Who listens to everything below a directory.
    Above(Instance),
    /// Who holds a lock.
    Holders(Instance),
}

/// An event on its way to the queues of those who want it.
struct Publication {
    audience: Audience,
    /// Those of them that it has still to be queued for.
    to: IntoIter<(SessionId, HandleId)>,
    kind: Kind,
    slot: Slot,
    child: Option<String>,
    /// Whether it stands for earlier ones, too.
    gap: bool,
}

/// Events in log order, of which the first has so many handles that it is queued for them by and by.
pub(crate) struct Publications {
    waiting: VecDeque<Publication>,
    /// How many handles these have still to be queued for, all together.
    handles: usize,
    /// For how many more handles events are queued before the next tick.
    left: usize,
}

impl Default for Publications {
    fn default() -> Publications {
        Publications { waiting: VecDeque::new(), handles: 0, left: PUBLISHED_AT_ONCE }
    }
}

impl Publications {
    fn add(&mut self, mut publication: Publication) {
        if self.handles >= TO_PUBLISH && publication.audience != Audience::One {
            let like =
                |one: &Publication| (one.audience, one.kind) == (publication.audience, publication.kind);
            let earlier = self.waiting.iter().position(like);
            if let Some(earlier) = earlier.and_then(|place| self.waiting.remove(place)) {
                self.handles -= earlier.to.len();
                publication.gap = true;
            }
        }
        self.handles += publication.to.len();
        self.waiting.push_back(publication);
    }
}

/// The sessions whose KeepAlives are to be answered, each in its turn: a crowd that has news all the time must not
/// keep the others waiting.
#[derive(Default)]
pub(crate) struct ToNotify {
    sessions: BTreeSet<SessionId>,
    last: Option<SessionId>,
}

impl ToNotify {
    /// Adds a session if it has a KeepAlive parked: without one, the next finds the news itself.
    pub(crate) fn add(&mut self, session: SessionId, live: &LiveSession) {
        if live.lease.is_parked() {
            self.sessions.insert(session);
        }
    }

    fn next(&mut self) -> Option<SessionId> {
        self.last = next_in_turn(&self.sessions, self.last.as_ref()).copied();
        self.last.filter(|next| self.sessions.remove(next))
    }

    fn is_empty(&self) -> bool {
        self.sessions.is_empty()
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

    /// The handles that want events of a node.
    pub(crate) fn of(&self, instance: Instance) -> impl Iterator<Item = (SessionId, HandleId)> {
        self.nodes.get(&instance).into_iter().flatten().copied()
    }

    fn of_all_below(&self, instance: Instance) -> Vec<(SessionId, HandleId)> {
        self.below.get(&instance).into_iter().flatten().copied().collect()
    }
}

impl Master {
    /// Queues an event for each of these handles, if it is open and wants that kind; for a crowd of them by and by.
    pub(crate) fn publish(
        &mut self,
        (audience, to): (Audience, Vec<(SessionId, HandleId)>),
        kind: Kind,
        slot: Slot,
        child: Option<&str>,
    ) {
        if to.is_empty() {
            return;
        }
        let (to, child) = (to.into_iter(), child.map(String::from));
        self.publications.add(Publication { audience, to, kind, slot, child, gap: false });
        self.publish_some();
    }

    /// A tick: goes on with the events that wait.
    pub(crate) fn publish_more(&mut self) {
        self.publications.left = PUBLISHED_AT_ONCE;
        self.publish_some();
    }

    fn publish_some(&mut self) {
        while self.publications.left > 0
            && let Some(mut first) = self.publications.waiting.pop_front()
        {
            let some = self.publications.left.min(first.to.len());
            self.publications.left -= some;
            self.publications.handles -= some;
            for (session, handle) in first.to.by_ref().take(some) {
                let Some(live) = self.sessions.get_mut(&session) else { continue };
                if !live.handles.wants(handle, first.kind) {
                    continue;
                }
                let (handle, slot) = (handle.0, first.slot.0);
                if first.gap {
                    live.events.push(Event { kind: Kind::Gap.into(), slot, ..Event::default() });
                }
                let (kind, child) = (first.kind.into(), first.child.clone().unwrap_or_default());
                live.events.push(Event { kind, handle, slot, child });
                self.to_notify.add(session, live);
            }
            if first.to.len() > 0 {
                self.publications.waiting.push_front(first);
            }
        }
    }

    /// Lets the KeepAlive of a session be answered.
    pub(crate) fn notify(&mut self, session: SessionId) {
        if let Some(live) = self.sessions.get(&session) {
            self.to_notify.add(session, live);
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
            Change::LockAcquired { instance, .. } => (*instance, Kind::LockAcquired, None),
            Change::LockBroken { session, handle } => {
                let holder = (Audience::One, [(*session, *handle)].into());
                return master.publish(holder, Kind::LockInvalid, slot, None);
            }
            Change::LockReleased { instance, .. } | Change::LockDelayed { instance, .. } => {
                (*instance, Kind::LockReleased, None)
            }
            Change::SessionEnded { .. } => return,
        };
        let child = child.map(Name::as_str);
        master.publish(
            (Audience::Of(instance), master.subscribers.of(instance).collect()),
            kind,
            slot,
            child,
        );
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
            let to = master.subscribers.of_all_below(*above);
            master.publish((Audience::Above(*above), to), kind, slot, Some(&way));
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
            let next = self.master.as_mut().and_then(|master| master.to_notify.next());
            let Some(session) = next else { return };
            self.answer_keep_alive(session);
        }
        if let Some(master) = &mut self.master {
            master.crowd_waits = !master.to_notify.is_empty();
        }
    }

    /// When the rest of a crowd is to be answered: at once, with the next tick.
    pub(crate) fn crowd_due(&self) -> Option<Instant> {
        let waits = |master: &Master| !master.to_notify.is_empty() || !master.publications.waiting.is_empty();
        (self.master.as_ref().is_some_and(waits) && self.lease_holds()).then_some(self.moment.now)
    }
}
