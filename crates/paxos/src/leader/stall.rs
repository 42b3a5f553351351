//! For how long nothing of a master has been chosen.
//!
//! Heartbeats can do well while values do not: large packets are lost on the way out of the master, its link carries a
//! few bytes and no more, or its disk hangs so long that it may take no more proposals. Then it would keep its lease,
//! and the cell would not change any more. What counts is that nothing at all is chosen: under overload something
//! always is. If too many voters have the values and only wait for their disks, no other master could do better, and
//! the master stays: it still answers reads and KeepAlives.

use alloc::collections::VecDeque;
use core::time::Duration;
use wombat_proto::{Instant, Slot};

/// The open proposals of a master, and when it last made progress with them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct StallClock {
    /// The proposals that are not chosen, oldest first: the last slot of each batch, and when it was sealed.
    open: VecDeque<(Slot, Instant)>,
    /// When a proposal was chosen last, or the first of those that are open was made, if that was later. While the
    /// master's disk is stalled, this stands still.
    progress_at: Instant,
}

impl StallClock {
    pub(crate) fn new(now: Instant) -> StallClock {
        StallClock { open: VecDeque::new(), progress_at: now }
    }

    /// When the oldest open proposal was made.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.open.front().map(|(_, at)| *at)
    }

    pub(crate) fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// A batch of proposals that ends with `last` has been sealed.
    pub(crate) fn sealed(&mut self, last: Slot, now: Instant) {
        self.open.push_back((last, now));
    }

    /// Every slot up to `chosen` is chosen.
    pub(crate) fn chosen(&mut self, chosen: Slot) {
        while self.open.pop_front_if(|(last, _)| *last <= chosen).is_some() {}
    }

    /// There is progress, or the first proposal after a rest.
    pub(crate) fn restart(&mut self, now: Instant) {
        self.progress_at = now;
    }

    /// For how long there has been no progress.
    pub(crate) fn elapsed(&self, now: Instant) -> Duration {
        now.since(self.progress_at)
    }
}
