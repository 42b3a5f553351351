//! What the master has to do at which time. A timer whose reason is gone is ignored when it is due.

use alloc::collections::BTreeSet;
use wombat_proto::{HandleId, Instance, Instant, SessionId, Slot};

/// Something that is due at a time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Timer {
    /// A parked KeepAlive is to be answered.
    KeepAlive(SessionId),
    /// A session's lease may have ended.
    Lease(SessionId),
    /// An Acquire has waited for its timeout.
    Acquire(Instance, SessionId, HandleId, u64),
    /// A lock-delay has passed.
    Delay(Instance, Slot),
    /// More waiters of a lock whose node is gone are to be refused.
    RefuseWaiters(Instance),
    /// The cache leases of the time before the fail-over have ended.
    CachesLapse,
    /// Handles that were not presented since the fail-over are to be closed.
    Orphans,
}

/// All timers, soonest first.
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

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes the first timer that is due at `now`.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Timer> {
        if self.next_due()? > now {
            return None;
        }
        self.due.pop_first().map(|(_, timer)| timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn timers_are_popped_in_order_when_due() {
        let mut timers = Timers::of([(at(3), Timer::Orphans)].into_iter());
        timers.set(at(1), Timer::Lease(SessionId(7)));
        timers.set(at(2), Timer::CachesLapse);
        assert_eq!(timers.next_due(), Some(at(1)));
        assert_eq!(timers.pop(at(0)), None);
        assert_eq!(timers.pop(at(2)), Some(Timer::Lease(SessionId(7))));
        assert_eq!(timers.pop(at(2)), Some(Timer::CachesLapse));
        assert_eq!(timers.pop(at(2)), None);
    }

    #[test]
    fn cleared_timer_is_never_popped() {
        let mut timers = Timers::default();
        timers.set(at(1), Timer::Orphans);
        timers.clear(at(1), Timer::Orphans);
        assert_eq!(timers.pop(at(9)), None);
    }
}
