//! The client's own view of its lease (SPEC §3): never longer than what the master keeps.

use core::time::Duration;
use wombat_proto::{Instant, Rho};

/// Until when the session is surely alive, and what that means now.
#[derive(Clone, Debug)]
pub(crate) struct LeaseView {
    rho: Rho,
    /// For how long after the end of the view a master may still be found.
    grace: Duration,
    until: Instant,
    /// The lease that was granted last.
    granted: Duration,
    /// Whether the end of the view has been noticed.
    in_jeopardy: bool,
}

/// What time has done to the view.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Passed {
    /// Nothing new.
    Nothing,
    /// The view has ended.
    Jeopardy,
    /// So has the grace period.
    Grace,
}

impl LeaseView {
    pub(crate) fn new(rho: Rho, grace: Duration) -> LeaseView {
        LeaseView { rho, grace, until: Instant::default(), granted: Duration::ZERO, in_jeopardy: false }
    }

    /// When a lease surely has not ended yet that the master granted when it answered, after holding for `held` a
    /// request that was sent at `sent`: until `sent + (held + lease)·(1−ρ)/(1+ρ)`.
    pub(crate) fn end_of(&self, sent: Instant, held: Duration, lease: Duration) -> Instant {
        sent + self.rho.shorten(held + lease)
    }

    /// The master extended the lease to that [end](LeaseView::end_of). It never moves back. Returns whether this
    /// ended a jeopardy.
    pub(crate) fn extend(&mut self, now: Instant, sent: Instant, held: Duration, lease: Duration) -> bool {
        self.until = self.until.max(self.end_of(sent, held, lease));
        self.granted = lease;
        let safe_again = self.in_jeopardy && now < self.until;
        self.in_jeopardy &= !safe_again;
        safe_again
    }

    /// The lease that was granted last; zero before the first.
    pub(crate) fn granted(&self) -> Duration {
        self.granted
    }

    /// When to search for another master whatever this one says: it should have answered the KeepAlive when more
    /// than half of the lease was left.
    pub(crate) fn overdue_at(&self) -> Instant {
        self.until - self.granted * 2 / 5
    }

    /// The end of the view.
    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    pub(crate) fn is_safe(&self) -> bool {
        !self.in_jeopardy
    }

    /// When [`LeaseView::pass`] has something to say.
    pub(crate) fn deadline(&self) -> Instant {
        if self.in_jeopardy { self.until + self.grace } else { self.until }
    }

    pub(crate) fn pass(&mut self, now: Instant) -> Passed {
        if now >= self.until + self.grace {
            return Passed::Grace;
        }
        if now >= self.until && !self.in_jeopardy {
            self.in_jeopardy = true;
            return Passed::Jeopardy;
        }
        Passed::Nothing
    }
}
