//! Streams of events: of the session's life, and of the nodes that handles watch.

use crate::EventKind;
use std::collections::BTreeMap;
use tokio::sync::broadcast::{self, error::RecvError, error::TryRecvError};
use tokio::sync::watch;
use wombat_proto::{HandleId, Slot};
use wombat_session::SessionEvent;

/// Events of a node that wait for their reader before they give way to a gap.
const WAITING: usize = 256;

/// Something that happened to a node (P§2.5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeEvent {
    /// What happened. `FailedOver` and `Gap` say: events may be missing here, look again.
    pub kind: EventKind,
    /// The child that it happened to.
    pub child: Option<String>,
    /// The change's place in the log.
    pub slot: Slot,
}

impl From<&wombat_session::NodeEvent> for NodeEvent {
    fn from(event: &wombat_session::NodeEvent) -> NodeEvent {
        NodeEvent { kind: event.kind, child: event.child.clone(), slot: event.slot }
    }
}

/// Who listens to which handle.
#[derive(Default)]
pub(crate) struct Subscriptions {
    handles: BTreeMap<HandleId, Subscription>,
    /// Whether the session is over.
    closed: bool,
}

/// Where the events of one handle go.
#[derive(Default)]
struct Subscription {
    /// Made for the first who listens: it takes memory for all that may wait.
    events: Option<broadcast::Sender<NodeEvent>>,
    conflicts: watch::Sender<Conflicts>,
}

/// What a handle has heard of those who wait for its lock. It is kept, because they may have come before
/// anybody asks.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Conflicts {
    /// How far the log was when it last heard that somebody waits: beyond the grant of the lock that it spoke of.
    pub(crate) told: Slot,
    /// How often it may have missed such a word.
    pub(crate) missed: u64,
}

impl Subscriptions {
    pub(crate) fn open(&mut self, handle: HandleId) {
        if !self.closed {
            self.handles.insert(handle, Subscription::default());
        }
    }

    pub(crate) fn listen(&mut self, handle: HandleId) -> Option<broadcast::Receiver<NodeEvent>> {
        let events = &mut self.handles.get_mut(&handle)?.events;
        Some(events.get_or_insert_with(|| broadcast::Sender::new(WAITING)).subscribe())
    }

    /// What the handle hears of those who wait for its lock; `None` if the session is over.
    pub(crate) fn conflicts(&self, handle: HandleId) -> Option<watch::Receiver<Conflicts>> {
        self.handles.get(&handle).map(|subscription| subscription.conflicts.subscribe())
    }

    pub(crate) fn remove(&mut self, handle: HandleId) {
        self.handles.remove(&handle);
    }

    /// The session is over: every stream ends.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.handles.clear();
    }

    pub(crate) fn publish(&self, handle: HandleId, event: &NodeEvent) {
        let all = handle == HandleId(0);
        let listeners = self.handles.iter().filter(|(id, _)| all || **id == handle);
        for (_, subscription) in listeners {
            match event.kind {
                EventKind::LockConflict => subscription.conflicts.send_modify(|conflicts| {
                    conflicts.told = conflicts.told.max(event.slot);
                }),
                EventKind::FailedOver | EventKind::Gap => {
                    subscription.conflicts.send_modify(|conflicts| conflicts.missed += 1);
                }
                _ => {}
            }
            if let Some(events) = &subscription.events {
                let _nobody_listens = events.send(event.clone());
            }
        }
    }
}

/// The events of one handle, as it subscribed to them at [`crate::OpenOptions::events`].
pub struct NodeEvents {
    pub(crate) receiver: Option<broadcast::Receiver<NodeEvent>>,
}

impl NodeEvents {
    /// The next event; `None` when the session is over or the handle closed. A reader that is too slow gets a
    /// `Gap` for what it missed.
    pub async fn recv(&mut self) -> Option<NodeEvent> {
        match self.receiver.as_mut()?.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(_)) => Some(NodeEvent { kind: EventKind::Gap, child: None, slot: Slot(0) }),
            Err(RecvError::Closed) => None,
        }
    }

    /// Forgets the events that have come, for whoever is about to look at everything anyway: what they tell of
    /// is visible.
    pub(crate) fn skip(&mut self) {
        let Some(receiver) = &mut self.receiver else { return };
        while matches!(receiver.try_recv(), Ok(_) | Err(TryRecvError::Lagged(_))) {}
    }
}

/// The life of a session: jeopardy, safe, expired, failed over (P§2.8).
pub struct SessionEvents {
    pub(crate) receiver: broadcast::Receiver<SessionEvent>,
}

impl SessionEvents {
    /// The next event; `None` when the session is over and all was told.
    pub async fn recv(&mut self) -> Option<SessionEvent> {
        loop {
            match self.receiver.recv().await {
                Ok(event) => return Some(event),
                Err(RecvError::Lagged(_)) => {} // The last events say how it is.
                Err(RecvError::Closed) => return None,
            }
        }
    }
}
