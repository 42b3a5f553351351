//! The events of a run in the order of time, and the hash of those that have happened.

use std::collections::BTreeMap;
use std::time::Duration;

/// What has happened in a run: equal for equal seeds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Happened {
    pub(crate) events: u64,
    pub(crate) hash: u64,
}

/// The queue of a run, and its time.
pub(crate) struct Schedule<E> {
    now: Duration,
    queue: BTreeMap<(Duration, u64), E>,
    /// The last number that was given out. Events of one instant happen in the order of their numbers.
    last: u64,
    happened: Happened,
    /// Whether to print what happens.
    trace: bool,
}

impl<E> Schedule<E> {
    pub(crate) fn new(trace: bool) -> Schedule<E> {
        Schedule {
            now: Duration::ZERO,
            queue: BTreeMap::new(),
            last: 0,
            happened: Happened::default(),
            trace,
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    pub(crate) fn happened(&self) -> Happened {
        self.happened
    }

    pub(crate) fn at(&mut self, time: Duration, event: E) {
        let number = self.number();
        self.queue.insert((time, number), event);
    }

    /// A number that was not given out before.
    pub(crate) fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The next event and its number. Time goes on to its instant.
    pub(crate) fn next(&mut self) -> Option<(u64, E)> {
        let ((time, number), event) = self.queue.pop_first()?;
        self.now = time;
        Some((number, event))
    }

    /// An event does not happen now but then, and keeps its number.
    pub(crate) fn postpone(&mut self, until: Duration, number: u64, event: E) {
        self.queue.insert((until, number), event);
    }

    /// An event of that kind happens now.
    pub(crate) fn note(&mut self, kind: u64, detail: u64) {
        self.happened.events += 1;
        let mixed = self.happened.hash ^ self.now.as_nanos() as u64 ^ (kind << 56) ^ detail;
        self.happened.hash = mixed.wrapping_mul(0x100_0000_01b3).rotate_left(17);
    }

    pub(crate) fn is_traced(&self) -> bool {
        self.trace
    }

    /// Prints what happens, if that is wanted.
    pub(crate) fn print(&self, line: std::fmt::Arguments<'_>) {
        if self.trace {
            eprintln!("{:9.4} {line}", self.now.as_secs_f64());
        }
    }
}
