//! What the master has to do at which time. An entry that has lost its reason is ignored when it comes up.

use alloc::collections::BTreeSet;
use wombat_proto::{HandleId, Instance, Instant, SessionId, Slot};

/// Something that is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Timer {
    /// To answer a parked KeepAlive.
    KeepAlive(SessionId),
    /// To look whether a session's lease has ended.
    Lease(SessionId),
    /// To give up an Acquire.
    Acquire(Instance, SessionId, HandleId, u64),
    /// A lock-delay has passed.
    Delay(Instance, Slot),
    /// To refuse those who still wait for a lock whose node is gone.
    RefuseWaiters(Instance),
    /// What was cached before a fail-over cannot be used any more.
    CachesLapse,
    /// To close what nobody has presented since the fail-over.
    Orphans,
}

/// All that is due, soonest first.
#[derive(Default)]
pub(crate) struct Timers {
    due: BTreeSet<(Instant, Timer)>,
}

impl Timers {
    pub(crate) fn of(due: impl Iterator<Item = (Instant, Timer)>) -> Timers {
        Timers { due: due.collect() }
    }

    pub(crate) fn set(&mut self, at: Instant, timer: Timer) {
        self.due.insert((at, timer));
    }

    pub(crate) fn clear(&mut self, at: Instant, timer: Timer) {
        self.due.remove(&(at, timer));
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes the first timer that is due at `now`.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        self.due.pop_first().map(|(_, timer)| timer)
    }
}
