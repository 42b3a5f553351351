//! Events on their way to a session (P§2.5): in log order, after the change is visible, bounded, and with every
//! gap reported.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::{IntoIter, Vec};
use core::ops::Bound;
use prost::Message;
use wombat_proto::limits::{EVENTS_PER_SESSION, PAGE_BYTES};
use wombat_proto::wire::Event;
use wombat_proto::wire::event::Kind;
use wombat_proto::{HandleId, Instance, SessionId, Slot};

/// Most handles for which events are queued between two ticks: many subscribers of one node must not delay the
/// heartbeats.
const MAX_PUBLISHED_PER_TICK: usize = 4096;

/// When so many deliveries wait, counted once for each handle, a new event replaces a waiting one of the same kind
/// and the same node. Its recipients get a gap and the newer event.
const MAX_WAITING_DELIVERIES: usize = 256 * 1024;

/// The events that a session has not acknowledged.
#[derive(Default)]
pub(crate) struct EventQueue {
    /// The number of the last event ever queued; numbers count from 1 in each epoch.
    last: u64,
    /// The unacknowledged events; the last of them is number `last`.
    waiting: VecDeque<Event>,
}

impl EventQueue {
    /// The queue of a session at a new master: its first event says so.
    pub(crate) fn of_fail_over() -> EventQueue {
        let waiting = [Event { kind: Kind::FailedOver.into(), ..Event::default() }].into();
        EventQueue { last: 1, waiting }
    }

    /// Queues an event. When the queue is full, one GAP replaces all waiting events.
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

    /// The number of the first waiting event, and as many events from it on as fit into an answer.
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
pub(crate) enum Recipients {
    /// One handle.
    One,
    /// The subscribers of a node.
    SubscribersOf(Instance),
    /// The subscribers of everything below a directory.
    SubscribersAbove(Instance),
    /// The holders of a lock.
    HoldersOf(Instance),
}

/// An event that handles subscribe to.
pub(crate) struct Publication {
    pub(crate) recipients: Recipients,
    pub(crate) to: Vec<(SessionId, HandleId)>,
    pub(crate) kind: Kind,
    pub(crate) slot: Slot,
    /// The child of a directory that it is about.
    pub(crate) child: Option<String>,
}

/// An event on its way to the queues of its recipients.
struct InDelivery {
    recipients: Recipients,
    /// The handles for which it has still to be queued.
    to: IntoIter<(SessionId, HandleId)>,
    kind: Kind,
    slot: Slot,
    child: Option<String>,
    /// Whether it also stands for earlier events.
    has_gap: bool,
}

/// An event for one handle.
pub(crate) struct Delivery {
    pub(crate) session: SessionId,
    pub(crate) handle: HandleId,
    pub(crate) kind: Kind,
    slot: Slot,
    child: Option<String>,
    has_gap: bool,
}

impl Delivery {
    /// Queues the event for its session.
    pub(crate) fn queue_in(self, queue: &mut EventQueue) {
        let (handle, slot) = (self.handle.0, self.slot.0);
        if self.has_gap {
            queue.push(Event { kind: Kind::Gap.into(), slot, ..Event::default() });
        }
        let (kind, child) = (self.kind.into(), self.child.unwrap_or_default());
        queue.push(Event { kind, handle, slot, child });
    }
}

/// Events in log order that have not reached the queues of all their recipients. Of an event with very many
/// recipients, some are served with each tick.
pub(crate) struct Publications {
    waiting: VecDeque<InDelivery>,
    /// How many handles the waiting events have still to be queued for.
    deliveries: usize,
    /// For how many more handles events are queued before the next tick.
    left: usize,
}

impl Default for Publications {
    fn default() -> Publications {
        Publications { waiting: VecDeque::new(), deliveries: 0, left: MAX_PUBLISHED_PER_TICK }
    }
}

impl Publications {
    pub(crate) fn add(&mut self, publication: Publication) {
        let Publication { recipients, to, kind, slot, child } = publication;
        if to.is_empty() {
            return;
        }
        let mut has_gap = false;
        if self.deliveries >= MAX_WAITING_DELIVERIES && recipients != Recipients::One {
            let like = |one: &InDelivery| (one.recipients, one.kind) == (recipients, kind);
            let earlier = self.waiting.iter().position(like);
            if let Some(earlier) = earlier.and_then(|place| self.waiting.remove(place)) {
                self.deliveries -= earlier.to.len();
                has_gap = true;
            }
        }
        self.deliveries += to.len();
        self.waiting.push_back(InDelivery { recipients, to: to.into_iter(), kind, slot, child, has_gap });
    }

    /// A tick: as many deliveries as before may follow again.
    pub(crate) fn tick(&mut self) {
        self.left = MAX_PUBLISHED_PER_TICK;
    }

    /// The next delivery, if another is allowed before the next tick.
    pub(crate) fn next(&mut self) -> Option<Delivery> {
        let first = self.waiting.front_mut().filter(|_| self.left > 0)?;
        let (session, handle) = first.to.next().expect("an event without recipients is not kept");
        self.left -= 1;
        self.deliveries -= 1;
        let InDelivery { kind, slot, has_gap, .. } = *first;
        let is_last = first.to.len() == 0;
        let child = if is_last { first.child.take() } else { first.child.clone() };
        if is_last {
            self.waiting.pop_front();
        }
        Some(Delivery { session, handle, kind, slot, child, has_gap })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// The sessions whose KeepAlives are to be answered, in turn: sessions that have news all the time must not delay
/// the others.
#[derive(Default)]
pub(crate) struct AnswerQueue {
    sessions: BTreeSet<SessionId>,
    last: Option<SessionId>,
    /// Whether so many were answered that the rest waits for the next tick.
    pub(crate) backlogged: bool,
}

impl AnswerQueue {
    /// Adds a session that has a KeepAlive parked.
    pub(crate) fn add(&mut self, session: SessionId) {
        self.sessions.insert(session);
    }

    pub(crate) fn next(&mut self) -> Option<SessionId> {
        self.last = next_in_turn(&self.sessions, self.last.as_ref()).copied();
        self.last.filter(|next| self.sessions.remove(next))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}

/// The first after `last`, and after the last the first again.
pub(crate) fn next_in_turn<'a, K: Ord>(all: &'a BTreeSet<K>, last: Option<&K>) -> Option<&'a K> {
    let after = (last.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
    all.range(after).next().or_else(|| all.first())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(slot: u64) -> Event {
        Event { kind: Kind::ContentsModified.into(), slot, ..Event::default() }
    }

    fn publication(to: usize, slot: u64) -> Publication {
        Publication {
            recipients: Recipients::SubscribersOf(Instance(1)),
            to: (0..to as u64).map(|n| (SessionId(n), HandleId(1))).collect(),
            kind: Kind::ContentsModified,
            slot: Slot(slot),
            child: None,
        }
    }

    fn kinds(queue: &EventQueue) -> Vec<Kind> {
        queue.unacknowledged().1.iter().map(Event::kind).collect()
    }

    #[test]
    fn full_queue_becomes_a_gap_and_the_newest_event() {
        let mut queue = EventQueue::default();
        for slot in 0..EVENTS_PER_SESSION as u64 + 1 {
            queue.push(event(slot));
        }
        assert_eq!(kinds(&queue), [Kind::Gap, Kind::ContentsModified]);
        assert_eq!(queue.unacknowledged().0, EVENTS_PER_SESSION as u64 + 1, "numbers go on");
    }

    #[test]
    fn acknowledged_events_are_not_sent_again() {
        let mut queue = EventQueue::of_fail_over();
        queue.push(event(1));
        queue.acknowledge(1);
        assert_eq!((queue.unacknowledged().0, kinds(&queue)), (2, [Kind::ContentsModified].into()));
        queue.acknowledge(u64::MAX);
        assert!(queue.is_empty());
    }

    #[test]
    fn event_for_very_many_handles_takes_several_ticks() {
        let mut publications = Publications::default();
        publications.add(publication(MAX_PUBLISHED_PER_TICK + 1, 1));
        let mut delivered = core::iter::from_fn(|| publications.next()).count();
        assert_eq!(delivered, MAX_PUBLISHED_PER_TICK);
        publications.tick();
        delivered += core::iter::from_fn(|| publications.next()).count();
        assert_eq!(delivered, MAX_PUBLISHED_PER_TICK + 1);
        assert!(publications.is_empty());
    }

    #[test]
    fn with_too_many_deliveries_the_newer_event_replaces_the_older() {
        let mut publications = Publications::default();
        publications.add(publication(MAX_WAITING_DELIVERIES, 1));
        publications.add(publication(1, 2));
        let delivery = publications.next().expect("one handle is left");
        assert_eq!(delivery.slot, Slot(2));
        let mut queue = EventQueue::default();
        delivery.queue_in(&mut queue);
        assert_eq!(kinds(&queue), [Kind::Gap, Kind::ContentsModified]);
    }

    #[test]
    fn session_with_constant_news_takes_turns_with_the_others() {
        let mut answers = AnswerQueue::default();
        answers.add(SessionId(1));
        answers.add(SessionId(2));
        assert_eq!(answers.next(), Some(SessionId(1)));
        answers.add(SessionId(1));
        assert_eq!(answers.next(), Some(SessionId(2)));
        assert_eq!(answers.next(), Some(SessionId(1)));
        assert_eq!(answers.next(), None);
    }
}
