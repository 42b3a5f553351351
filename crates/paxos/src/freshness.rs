//! How old what a replica knows may be: for reads at any replica (SPEC §7).
//!
//! Nobody knows how long a heartbeat was under way. So a replica marks its grants, and a master whose lease
//! holds sends the newest mark back. Such a heartbeat was sent after the marked grant, and its master knew of
//! everything that had been completed by then: its lease kept all others from completing anything. That is a
//! bound by the replica's own clock alone: once it knows what the heartbeat says is chosen, it knows all that
//! was completed before it first sent the mark.

use crate::{Paxos, Role, planted};
use wombat_proto::{Instant, Slot};

/// A mark on the grants of one replica; later ones are greater, over restarts too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Mark {
    /// How often the replica had started.
    pub life: u32,
    /// Counts the marks of this life.
    pub number: u64,
}

/// What a replica knows of its own age.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Freshness {
    /// The last mark, and when it was first sent; `None` once it has come back.
    mark: Mark,
    sent_at: Option<Instant>,
    /// Everything that was completed before then is chosen up to that slot, which may not be known here yet.
    vouched: Option<(Instant, Slot)>,
    /// Everything that was completed before then is known here to be chosen.
    complete_until: Option<Instant>,
}

impl Freshness {
    pub(crate) fn new(life: u32) -> Freshness {
        Freshness { mark: Mark { life, number: 0 }, sent_at: None, vouched: None, complete_until: None }
    }

    /// The mark for a grant that is sent now: the same one until it has come back.
    pub(crate) fn mark(&mut self, now: Instant) -> Mark {
        if self.sent_at.is_none() {
            self.sent_at = Some(now);
            self.mark.number += 1;
        }
        self.mark
    }

    /// Until when everything is known that was completed, if every slot up to `chosen` is.
    fn complete_until(&self, chosen: Slot) -> Option<Instant> {
        let vouched = self.vouched.filter(|(_, slot)| *slot <= chosen);
        vouched.map(|(until, _)| until).max(self.complete_until)
    }
}

impl Paxos {
    /// The moment before which, by this replica's clock, whatever was completed in the cell is in the slots up to
    /// [`Paxos::chosen`]: what any master has told anyone. `None` if it has been sure of nothing since it started.
    pub fn complete_until(&self, now: Instant) -> Option<Instant> {
        self.freshness.complete_until(self.reached()).max(self.led_until(now))
    }

    /// A heartbeat has brought a mark back, and says what is chosen.
    pub(crate) fn vouched(&mut self, mark: Option<Mark>, chosen: Slot) {
        let (now, reached) = (self.now, self.reached());
        let from_receipt = planted!(self, VouchedFromReceipt);
        let freshness = &mut self.freshness;
        if mark != Some(freshness.mark) {
            return;
        }
        let Some(sent_at) = freshness.sent_at.take() else { return };
        freshness.complete_until = freshness.complete_until(reached);
        // A replica that lags reaches the earlier one sooner.
        if freshness.vouched.is_none_or(|(_, slot)| slot <= reached) {
            freshness.vouched = Some((if from_receipt { now } else { sent_at }, chosen));
        }
    }

    /// It is about to lead no more: what it knew as a master it goes on knowing.
    pub(crate) fn led(&mut self) {
        self.freshness.complete_until = self.freshness.complete_until.max(self.led_until(self.now));
    }

    /// While it leads and knows all that was chosen before: until when nobody else can have completed anything.
    fn led_until(&self, now: Instant) -> Option<Instant> {
        let Role::Leading(leadership) = &self.role else { return None };
        if leadership.barrier.is_none_or(|barrier| self.chosen < barrier) {
            return None;
        }
        let lease = if self.is_sole_voter() { now } else { self.lease_until(leadership) };
        Some(lease.min(now)).filter(|until| *until > Instant::default())
    }

    fn reached(&self) -> Slot {
        if planted!(self, VouchedUnreached) { Slot(u64::MAX) } else { self.chosen }
    }
}
