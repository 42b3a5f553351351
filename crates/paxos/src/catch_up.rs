//! Catching up: what a replica that is behind requests from one that knows more. It requests the log, or the snapshot
//! if the log does not reach back so far.

use crate::message::Message;
use wombat_proto::{Instant, ReplicaId, Slot};

/// How often a request is repeated before another replica may be asked.
const MAX_RETRIES: u8 = 3;

/// What a replica that is behind waits for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct CatchUp {
    /// The replica that it learns from.
    from: ReplicaId,
    /// When to repeat the request, and how often that may still be done.
    pub(crate) retry_at: Instant,
    retries: u8,
    snapshot: Option<Incoming>,
}

/// A snapshot that is arriving.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Incoming {
    slot: Slot,
    /// The chunk that is missing next; `None`: all have arrived, and are being put in place.
    next: Option<u32>,
}

/// What to do after an answer, or after a request has not been answered for long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    Wait,
    /// Send the request that is due.
    Request,
    /// Nothing more can be learned here.
    Stop,
}

impl CatchUp {
    pub(crate) fn new(from: ReplicaId, retry_at: Instant) -> CatchUp {
        CatchUp { from, retry_at, retries: MAX_RETRIES, snapshot: None }
    }

    /// The request for what is missing after `chosen`, and its receiver. It may be repeated from `retry_at` on.
    pub(crate) fn request(&mut self, chosen: Slot, retry_at: Instant) -> Option<(ReplicaId, Message)> {
        self.retry_at = retry_at;
        let request = match &self.snapshot {
            None => Message::Fetch { above: chosen },
            Some(Incoming { slot, next: Some(index) }) => {
                Message::FetchChunk { snapshot: *slot, index: *index }
            }
            Some(Incoming { next: None, .. }) => return None,
        };
        Some((self.from, request))
    }

    fn is_installing(&self) -> bool {
        self.snapshot.as_ref().is_some_and(|incoming| incoming.next.is_none())
    }

    fn progressed(&mut self) -> Next {
        self.retries = MAX_RETRIES;
        Next::Request
    }

    /// Time has passed. If a snapshot is being installed, the disk is at work until `retry_at` at least.
    pub(crate) fn tick(&mut self, now: Instant, retry_at: Instant) -> Next {
        if now < self.retry_at {
            Next::Wait
        } else if self.is_installing() {
            self.retry_at = retry_at;
            Next::Wait
        } else if self.retries == 0 {
            Next::Stop
        } else {
            self.retries -= 1;
            Next::Request
        }
    }

    /// A replica that knows everything up to `through` has sent values. They were chosen after `before`, up to
    /// `chosen`.
    pub(crate) fn learned(&mut self, from: ReplicaId, before: Slot, chosen: Slot, through: Slot) -> Next {
        if self.from != from || self.snapshot.is_some() {
            Next::Wait
        } else if chosen >= through {
            Next::Stop
        } else if chosen > before {
            self.progressed()
        } else {
            Next::Wait
        }
    }

    /// The other replica's log does not reach back so far, but it has a snapshot.
    pub(crate) fn truncated(&mut self, from: ReplicaId, snapshot: Slot, chosen: Slot) -> Next {
        if self.from != from || self.is_installing() {
            Next::Wait
        } else if snapshot <= chosen {
            Next::Stop
        } else if self.snapshot.as_ref().is_none_or(|incoming| incoming.slot < snapshot) {
            self.snapshot = Some(Incoming { slot: snapshot, next: Some(0) });
            self.progressed()
        } else {
            Next::Wait
        }
    }

    /// A chunk has arrived. `None` if it is not the next one.
    pub(crate) fn chunk(&mut self, from: ReplicaId, snapshot: Slot, index: u32, last: bool) -> Option<Next> {
        let incoming = self.snapshot.as_mut().filter(|incoming| {
            self.from == from && incoming.slot == snapshot && incoming.next == Some(index)
        })?;
        incoming.next = (!last).then_some(index + 1);
        Some(self.progressed())
    }
}
