//! How old what a replica knows may be: for reads at any replica (SPEC §7).
//!
//! Nobody knows how long a heartbeat was on its way. So a replica marks its grants, and a master whose lease holds
//! returns the newest mark. Such a heartbeat was sent after the marked grant, and its master knew of everything that
//! had been completed by then: its lease kept all others from completing anything. That is a bound by the replica's
//! own clock alone. Once the replica knows what the heartbeat reports as chosen, it knows everything that was
//! completed before it first sent the mark.

use crate::message::Mark;
use crate::rules::Rules;
use wombat_proto::{Instant, Slot};

/// What a replica knows of its own age.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Freshness {
    rules: Rules,
    /// The last mark, and when it was first sent; `None` once it has been returned.
    mark: Mark,
    sent_at: Option<Instant>,
    /// Everything that was completed before then is chosen up to that slot, which may not be known here yet.
    confirmed: Option<(Instant, Slot)>,
    /// Everything that was completed before then is known here to be chosen.
    complete_until: Option<Instant>,
}

impl Freshness {
    pub(crate) fn new(starts: u32, rules: Rules) -> Freshness {
        let mark = Mark { life: rules.mark_life(starts), number: 0 };
        Freshness { rules, mark, sent_at: None, confirmed: None, complete_until: None }
    }

    /// The mark for a grant that is sent now: the same one until it has been returned.
    pub(crate) fn mark(&mut self, now: Instant) -> Mark {
        if self.sent_at.is_none() {
            self.sent_at = Some(now);
            self.mark.number += 1;
        }
        self.mark
    }

    /// Until when everything that was completed is known here, if every slot up to `chosen` is.
    pub(crate) fn complete_until(&self, chosen: Slot) -> Option<Instant> {
        let reached = self.rules.known_through(chosen);
        let confirmed = self.confirmed.filter(|(_, slot)| *slot <= reached);
        confirmed.map(|(until, _)| until).max(self.complete_until)
    }

    /// A heartbeat has returned a mark, and reports everything up to `reported` as chosen; up to `chosen`, that is
    /// known here.
    pub(crate) fn mark_returned(&mut self, mark: Option<Mark>, reported: Slot, chosen: Slot, now: Instant) {
        if mark != Some(self.mark) {
            return;
        }
        let Some(sent_at) = self.sent_at.take() else { return };
        self.complete_until = self.complete_until(chosen);
        // A replica that lags reaches the earlier one sooner.
        if self.confirmed.is_none_or(|(_, slot)| slot <= self.rules.known_through(chosen)) {
            self.confirmed = Some((self.rules.mark_counts_from(sent_at, now), reported));
        }
    }

    /// This replica's leadership ends: until then it knew everything that was completed.
    pub(crate) fn led_until(&mut self, until: Option<Instant>) {
        self.complete_until = self.complete_until.max(until);
    }
}
