//! The heartbeats that ask for the master lease (P§2.2), and for how long they ask.
//!
//! The lease is timed at the sending of a heartbeat, so of a lease that is shorter than the round trip nothing is left
//! when the grant arrives. A master that measures such round trips asks for a longer lease, within
//! [`crate::Config::longest_lease`].

use alloc::collections::VecDeque;
use core::time::Duration;
use wombat_proto::{Instant, Slot};

/// How many heartbeats a master remembers.
const MAX_REMEMBERED: usize = 256;

/// A master asks for a lease of [`LEASE_ROUND_TRIPS`] round trips when the one that it has is shorter than
/// [`MIN_ROUND_TRIPS`] of them, or longer than [`MAX_ROUND_TRIPS`].
const LEASE_ROUND_TRIPS: u32 = 3;
const MIN_ROUND_TRIPS: u32 = 2;
const MAX_ROUND_TRIPS: u32 = 8;

/// The heartbeats of one master.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Heartbeats {
    /// The number of the last one.
    sequence: u64,
    /// The latest ones, oldest first.
    sent: VecDeque<Heartbeat>,
    pub(crate) due_at: Instant,
    /// The lease that the next one asks for.
    pub(crate) lease: Duration,
}

/// A heartbeat that was sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Heartbeat {
    pub(crate) sent_at: Instant,
    /// The lease that it asked for.
    pub(crate) lease: Duration,
    /// The last slot that was proposed by then.
    pub(crate) proposed: Slot,
}

impl Heartbeats {
    pub(crate) fn new(lease: Duration, now: Instant) -> Heartbeats {
        Heartbeats { sequence: 0, sent: VecDeque::new(), due_at: now, lease }
    }

    /// The heartbeat of that number, if it is remembered.
    pub(crate) fn get(&self, sequence: u64) -> Option<Heartbeat> {
        let ago = self.sequence.checked_sub(sequence)? as usize;
        self.sent.len().checked_sub(1 + ago).map(|place| self.sent[place])
    }

    /// A heartbeat is sent. Returns its number.
    pub(crate) fn send(&mut self, now: Instant, interval: Duration, proposed: Slot) -> u64 {
        self.due_at = now + interval;
        self.sequence += 1;
        self.sent.push_back(Heartbeat { sent_at: now, lease: self.lease, proposed });
        if self.sent.len() > MAX_REMEMBERED {
            self.sent.pop_front();
        }
        self.sequence
    }

    /// The lease to ask for so that it outlasts the round trip, and no longer one than that; `None` if the present one
    /// fits.
    pub(crate) fn fitting_lease(
        &self,
        round_trip: Duration,
        shortest: Duration,
        longest: Duration,
    ) -> Option<Duration> {
        let is_short = self.lease < MIN_ROUND_TRIPS * round_trip;
        let is_long = self.lease > MAX_ROUND_TRIPS * round_trip && self.lease > shortest;
        if !(is_short || is_long) || (is_short && self.lease >= longest) {
            return None;
        }
        let units = (LEASE_ROUND_TRIPS * round_trip).as_nanos().div_ceil(shortest.as_nanos().max(1));
        let wanted = shortest.saturating_mul(units.min(u128::from(u32::MAX)) as u32);
        Some(wanted.min(longest).max(shortest))
    }
}
