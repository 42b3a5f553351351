//! The calls that have not been answered: kept with their numbers, to be sent again on the next connection.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use wombat_proto::Instant;
use wombat_proto::limits::UNACKNOWLEDGED_OUTCOMES;
use wombat_proto::wire::request::Call;

/// What sending a call twice would do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Nothing.
    Read,
    /// Nothing, because the cell keeps its outcome until it is acknowledged.
    Change,
    /// Nothing: an Acquire finds its own grant again, however long it waits.
    Acquire,
    /// Nothing, and it belongs to no session.
    Sessionless,
}

impl Kind {
    /// What kind a call is.
    pub fn of(call: &Call) -> Kind {
        match call {
            Call::Hello(_)
            | Call::CreateSession(_)
            | Call::ResumeSession(_)
            | Call::GetStatus(_)
            | Call::ListSessions(_)
            | Call::ListLocks(_)
            | Call::ListAudit(_)
            | Call::ReadStale(_)
            | Call::ReadPath(_)
            | Call::CheckSequencer(_)
            | Call::Join(_)
            | Call::Transfer(_) => Kind::Sessionless,
            Call::GetContents(_)
            | Call::GetStat(_)
            | Call::ReadDir(_)
            | Call::GetSequencer(_)
            | Call::KeepAlive(_)
            | Call::EndSession(_) => Kind::Read,
            Call::Acquire(_) => Kind::Acquire,
            Call::Open(_)
            | Call::Close(_)
            | Call::SetContents(_)
            | Call::Delete(_)
            | Call::CancelAcquire(_)
            | Call::Release(_)
            | Call::SetSequencer(_)
            | Call::BreakLock(_)
            | Call::Multi(_) => Kind::Change,
        }
    }
}

/// A call without an answer.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) call: Call,
    pub(crate) kind: Kind,
    /// When it was taken in.
    pub(crate) since: Instant,
    /// Whether it was ever sent: if so, it may have taken effect.
    pub(crate) sent: bool,
    /// The master was too busy for it; it is sent again at this time.
    pub(crate) not_before: Option<Instant>,
}

/// All calls without an answer.
#[derive(Clone, Default, Debug)]
pub(crate) struct Calls {
    pending: BTreeMap<u64, Pending>,
    /// The changes among them that were handed out for sending.
    changes: BTreeSet<u64>,
    /// Changes that wait for room among the kept outcomes, and the Acquires behind them: a lock is not asked for
    /// before the release that was.
    held_back: VecDeque<u64>,
    /// How many of them are Acquires.
    acquires: usize,
    last: u64,
}

impl Calls {
    /// A number for something that is not kept.
    pub(crate) fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The number that the next call will have.
    pub(crate) fn next(&self) -> u64 {
        self.last + 1
    }

    /// Takes a call in.
    pub(crate) fn add(&mut self, call: Call, since: Instant) -> u64 {
        let number = self.number();
        let kind = Kind::of(&call);
        self.acquires += usize::from(kind == Kind::Acquire);
        self.pending.insert(number, Pending { call, kind, since, sent: false, not_before: None });
        number
    }

    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut Pending> {
        self.pending.get_mut(&number)
    }

    /// Whether an Acquire is being taken back, by a CancelAcquire or with its handle. It is not sent again: a
    /// new master that knows the end of the one would take the other for new, and lock for nobody.
    pub(crate) fn is_taken_back(&self, number: u64) -> bool {
        let Some(Call::Acquire(acquire)) = self.pending.get(&number).map(|pending| &pending.call) else {
            return false;
        };
        self.changes.range(number..).chain(&self.held_back).any(|change| {
            match self.pending.get(change).map(|pending| &pending.call) {
                Some(Call::CancelAcquire(cancel)) => cancel.acquire == number,
                Some(Call::Close(close)) => close.handle == acquire.handle,
                _ => false,
            }
        })
    }

    /// Whether a call may go out now. A change beyond the bound of kept outcomes waits for its turn.
    pub(crate) fn admit(&mut self, number: u64, kind: Kind) -> bool {
        let admitted = match kind {
            Kind::Read | Kind::Sessionless => true,
            Kind::Acquire => self.held_back.front().is_none_or(|first| number < *first),
            Kind::Change => self.changes.contains(&number) || self.has_room(number),
        };
        match (admitted, kind) {
            (true, Kind::Change) => drop(self.changes.insert(number)),
            (true, _) => {}
            (false, _) => self.held_back.push_back(number),
        }
        admitted
    }

    fn has_room(&self, number: u64) -> bool {
        self.changes.len() < UNACKNOWLEDGED_OUTCOMES && self.spans_little(number)
    }

    /// The cell keeps the outcomes of all changes after the first unanswered one: no more than the bound may
    /// stand between it and a new one.
    fn spans_little(&self, number: u64) -> bool {
        self.changes.first().is_none_or(|first| number - first < UNACKNOWLEDGED_OUTCOMES as u64)
    }

    /// Removes an answered call. Returns it, and those held back whose turn it is now.
    pub(crate) fn answered(&mut self, number: u64) -> Option<(Pending, Vec<u64>)> {
        let pending = self.pending.remove(&number)?;
        self.acquires -= usize::from(pending.kind == Kind::Acquire);
        let mut released = Vec::new();
        if self.changes.remove(&number) && !self.held_back.is_empty() {
            while let Some(next) = self.held_back.front().copied()
                && (!self.is_change(next) || self.has_room(next))
            {
                self.held_back.pop_front();
                if self.is_change(next) {
                    self.changes.insert(next);
                }
                released.push(next);
            }
        }
        Some((pending, released))
    }

    fn is_change(&self, number: u64) -> bool {
        self.pending.get(&number).is_some_and(|pending| pending.kind == Kind::Change)
    }

    /// Removes the Acquires that are over because `call` was answered, and returns their numbers.
    pub(crate) fn end_acquires(&mut self, call: &Call) -> Vec<u64> {
        let over = |(number, pending): (&u64, &Pending)| match (call, &pending.call) {
            (Call::CancelAcquire(cancel), Call::Acquire(_)) => (cancel.acquire == *number).then_some(*number),
            (Call::Close(close), Call::Acquire(acquire)) => {
                (close.handle == acquire.handle).then_some(*number)
            }
            _ => None,
        };
        let numbers: Vec<u64> = match call {
            Call::CancelAcquire(_) | Call::Close(_) => self.pending.iter().filter_map(over).collect(),
            _ => Vec::new(),
        };
        for number in &numbers {
            self.pending.remove(number);
        }
        self.acquires -= numbers.len();
        numbers
    }

    /// Every change with a number up to this has been answered. A call's own number is always greater.
    pub(crate) fn acknowledged(&self) -> u64 {
        let first = self.changes.first().or(self.held_back.front());
        first.map_or(self.last, |first| first - 1)
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether there is one that the master answers as soon as it has dealt with it: an Acquire may wait for as
    /// long as others hold the lock.
    pub(crate) fn any_but_acquires(&self) -> bool {
        self.pending.len() > self.acquires
    }

    /// Since when the first of them waits. Numbers rise with time.
    pub(crate) fn waits_since(&self) -> Option<Instant> {
        self.pending.first_key_value().map(|(_, pending)| pending.since)
    }

    /// There is another master, which is not too busy for anything yet.
    pub(crate) fn forget_overload(&mut self) {
        self.pending.values_mut().for_each(|pending| pending.not_before = None);
    }

    /// The numbers of all calls that may be sent, in order: for a new connection.
    pub(crate) fn to_send_again(&self) -> Vec<u64> {
        let held_back = self.held_back.front().copied().unwrap_or(u64::MAX);
        let may = |number: &u64, pending: &Pending| {
            let in_turn = match pending.kind {
                Kind::Read | Kind::Sessionless => true,
                Kind::Acquire => *number < held_back,
                Kind::Change => self.changes.contains(number),
            };
            pending.not_before.is_none() && in_turn
        };
        self.pending.iter().filter(|(number, pending)| may(number, pending)).map(|(n, _)| *n).collect()
    }

    /// The calls whose time to be sent again has come.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<u64> {
        let due =
            self.pending.iter_mut().filter(|(_, pending)| pending.not_before.is_some_and(|at| at <= now));
        due.map(|(number, pending)| {
            pending.not_before = None;
            *number
        })
        .collect()
    }

    /// When the next such call is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.pending.values().filter_map(|pending| pending.not_before).min()
    }

    /// Removes all calls, for a session that is lost.
    pub(crate) fn abandon(&mut self) -> BTreeMap<u64, Pending> {
        self.changes.clear();
        self.acquires = 0;
        self.held_back.clear();
        core::mem::take(&mut self.pending)
    }
}
