//! Who read and wrote what, when; and whether it could have happened one thing after the other.
//!
//! Every written value is another one, so a file is a register with unique writes, and its history is
//! linearizable exactly if (Gibbons and Korach, 1997) nothing is read that finishes before its write begins, and
//! the *zones* of the values fit together. A value's zone reaches from the first end of an operation on it to
//! the last beginning of one. If the end comes first, the value was surely there for all of that time, and for
//! nothing else was there room; otherwise all its operations can be put at one moment, which has to lie outside
//! of another value's time.

use std::collections::BTreeMap;

/// A moment of the machine's clock that all processes share, in nanoseconds.
pub(crate) type Nanos = u64;

/// When an operation was called and when it returned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) from: Nanos,
    pub(crate) to: Nanos,
}

/// What is known of one value of a file: its write, and all reads of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Value {
    write: Option<Span>,
    reads: u64,
    /// Of the reads: the first end and the last beginning.
    first_end: Option<Nanos>,
    last_beginning: Option<Nanos>,
}

/// The history of one file.
#[derive(Default)]
pub(crate) struct History {
    values: BTreeMap<String, Value>,
}

impl History {
    /// A write; `to` is the end of time if nobody knows whether it took effect.
    pub(crate) fn wrote(&mut self, value: &str, span: Span) {
        let entry = self.values.entry(value.into()).or_default();
        entry.write = Some(span);
    }

    /// So many reads in a row of one reader found the same value, from the first to the last of them.
    pub(crate) fn read(&mut self, value: &str, count: u64, first: Span, last: Span) {
        let entry = self.values.entry(value.into()).or_default();
        entry.reads += count;
        entry.first_end = Some(entry.first_end.map_or(first.to, |end| end.min(first.to)));
        entry.last_beginning = Some(entry.last_beginning.map_or(last.from, |from| from.max(last.from)));
    }

    pub(crate) fn reads(&self) -> u64 {
        self.values.values().map(|value| value.reads).sum()
    }

    pub(crate) fn writes(&self) -> usize {
        self.values.values().filter(|value| value.write.is_some()).count()
    }

    /// What cannot have happened, in words; nothing, if all of it can.
    pub(crate) fn wrong(&self) -> Option<String> {
        let (mut times, mut moments) = (Vec::new(), Vec::new());
        for (name, value) in &self.values {
            let Some(write) = value.write else {
                return Some(format!("{name:?} was read and never written"));
            };
            if value.first_end.is_some_and(|end| end < write.from) {
                return Some(format!("{name:?} was read before it was written: {value:?}"));
            }
            // A write of which nobody knows, and that nobody has read, may never have happened.
            if write.to == Nanos::MAX && value.reads == 0 {
                continue;
            }
            let first_end = value.first_end.map_or(write.to, |end| end.min(write.to));
            let last_beginning = value.last_beginning.map_or(write.from, |from| from.max(write.from));
            match first_end < last_beginning {
                true => times.push((first_end, last_beginning, name)),
                false => moments.push((last_beginning, first_end, name)),
            }
        }
        times.sort_unstable();
        for pair in times.windows(2) {
            let [(from, to, one), (next, end, other)] = pair else { continue };
            if next < to {
                let (one, other) = ((one, from, to), (other, next, end));
                return Some(format!("two values were surely there at one time: {one:?} and {other:?}"));
            }
        }
        for (from, to, name) in moments {
            let before = times.partition_point(|(begins, ..)| *begins < from);
            if let Some((begins, ends, there)) = before.checked_sub(1).map(|index| times[index])
                && to < ends
            {
                return Some(format!(
                    "{name:?} has no place, from {from} to {to}: {there:?} was there from {begins} to {ends}"
                ));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes are `w value from to`, reads `r value from to`.
    fn check(script: &[(&str, Nanos, Nanos)], is_right: bool) {
        let mut history = History::default();
        for (what, from, to) in script {
            let span = Span { from: *from, to: *to };
            match what.split_at(2) {
                ("w ", value) => history.wrote(value, span),
                (_, value) => history.read(value, 1, span, span),
            }
        }
        let wrong = history.wrong();
        assert_eq!(wrong.is_none(), is_right, "{script:?}: {wrong:?}");
    }

    #[test]
    fn what_can_happen_one_after_the_other_is_right() {
        check(&[("w a", 0, 1), ("r a", 2, 3), ("w b", 4, 5), ("r b", 6, 7)], true);
        // While b is written, either may be read, and once b was, no more a.
        check(&[("w a", 0, 1), ("w b", 4, 9), ("r a", 5, 6), ("r b", 6, 7)], true);
        check(&[("w a", 0, 1), ("w b", 4, 9), ("r b", 5, 6), ("r a", 7, 8)], false);
        // Two at once may come in either order, but in one.
        check(&[("w a", 0, 9), ("w b", 0, 9), ("r a", 10, 11)], true);
        check(&[("w a", 0, 9), ("w b", 0, 9), ("r a", 10, 11), ("r b", 12, 13)], false);
        // Of an unknown write nobody knows whether it ever happens.
        check(&[("w a", 0, 1), ("w b", 2, Nanos::MAX), ("r a", 90, 91)], true);
        check(&[("w a", 0, 1), ("w b", 2, Nanos::MAX), ("r b", 90, 91)], true);
        check(&[("w a", 0, 1), ("w b", 2, Nanos::MAX), ("r b", 50, 51), ("r a", 90, 91)], false);
    }

    #[test]
    fn a_stale_read_is_wrong() {
        check(&[("w a", 0, 1), ("w b", 2, 3), ("r a", 4, 5)], false);
        check(&[("w a", 0, 1), ("r a", 2, 3), ("w b", 4, 5), ("r b", 6, 7), ("r a", 8, 9)], false);
        check(&[("w a", 2, 3), ("r a", 0, 1)], false);
        check(&[("r a", 0, 1)], false);
    }
}
