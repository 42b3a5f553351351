//! What a test does, drawn at random.

use proptest::prelude::*;

/// What a test does. Small numbers stand for "one of those that there are".
#[derive(Clone, Debug)]
pub(crate) enum Step {
    BeginEpoch,
    OldEpoch,
    CreateSession,
    EndSession {
        who: usize,
        asked: bool,
        delay_over: bool,
    },
    Create {
        who: usize,
        place: usize,
        name: u8,
        kind: Kind,
        permits: u32,
        must: bool,
        sequential: bool,
    },
    OpenEphemeral {
        who: usize,
        what: usize,
    },
    Close {
        who: usize,
        what: usize,
        handle: u64,
    },
    Set {
        who: usize,
        what: usize,
        byte: u8,
        guess: u64,
    },
    Delete {
        who: usize,
        what: usize,
        handle: u64,
        delay_over: bool,
    },
    Grant {
        who: usize,
        what: usize,
        handle: u64,
        shared: bool,
        delay_ms: u32,
        clears: bool,
        delay_over: bool,
    },
    Release {
        who: usize,
        what: usize,
        handle: u64,
    },
    Break {
        who: usize,
        what: usize,
        whose: Whose,
        delay_over: bool,
    },
    Multi {
        who: usize,
        one: usize,
        other: usize,
        name: u8,
        byte: u8,
        sequential: bool,
    },
    Retry {
        who: usize,
        which: usize,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) directory: bool,
    pub(crate) ephemeral: bool,
}

/// Whose lock is broken.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whose {
    Everybodys,
    TheLasts,
    NobodysAnyMore,
}

/// What children are called. The last is what a number may make of the first.
pub(crate) const NAMES: [&str; 4] = ["a", "b", "c", "a0000000002"];

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let who = 0..3usize;
    let what = 0..8usize;
    let handle = 1..4u64;
    let kind = any::<(bool, bool)>().prop_map(|(directory, ephemeral)| Kind { directory, ephemeral });
    let whose = prop_oneof![Just(Whose::Everybodys), Just(Whose::TheLasts), Just(Whose::NobodysAnyMore)];
    prop_oneof![
        1 => Just(Step::BeginEpoch),
        1 => Just(Step::OldEpoch),
        2 => Just(Step::CreateSession),
        1 => (who.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(who, asked, delay_over)| Step::EndSession { who, asked, delay_over }),
        6 => (who.clone(), what.clone(), 0..4u8, kind, 0..3u32, any::<bool>(), any::<bool>()).prop_map(
            |(who, place, name, kind, permits, must, sequential)| {
                Step::Create { who, place, name, kind, permits, must, sequential }
            }
        ),
        2 => (who.clone(), what.clone()).prop_map(|(who, what)| Step::OpenEphemeral { who, what }),
        3 => (who.clone(), what.clone(), handle.clone())
            .prop_map(|(who, what, handle)| Step::Close { who, what, handle }),
        4 => (who.clone(), what.clone(), any::<u8>(), 0..4u64)
            .prop_map(|(who, what, byte, guess)| Step::Set { who, what, byte, guess }),
        3 => (who.clone(), what.clone(), handle.clone(), any::<bool>())
            .prop_map(|(who, what, handle, delay_over)| Step::Delete { who, what, handle, delay_over }),
        8 => (who.clone(), what.clone(), handle.clone(), any::<bool>(), 0..2u32, any::<(bool, bool)>()).prop_map(
            |(who, what, handle, shared, delay, (clears, delay_over))| {
                Step::Grant { who, what, handle, shared, delay_ms: delay * 5000, clears, delay_over }
            }
        ),
        4 => (who.clone(), what.clone(), handle).prop_map(|(who, what, handle)| Step::Release { who, what, handle }),
        3 => (who.clone(), what.clone(), whose, any::<bool>())
            .prop_map(|(who, what, whose, delay_over)| Step::Break { who, what, whose, delay_over }),
        3 => (who.clone(), what.clone(), what, 0..4u8, any::<u8>(), any::<bool>()).prop_map(
            |(who, one, other, name, byte, sequential)| Step::Multi { who, one, other, name, byte, sequential }
        ),
        2 => (who, 0..4usize).prop_map(|(who, which)| Step::Retry { who, which }),
    ]
}
