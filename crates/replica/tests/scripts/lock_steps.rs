//! The steps of the random scripts about locks, and how often each is chosen.

use proptest::prelude::*;

pub(crate) const PEOPLE: usize = 4;
/// The permits of each node's lock; 0: as many as there are.
pub(crate) const PERMITS: [u32; 3] = [0, 2, 0];
/// The lock-delays of the handles that each has on each node.
pub(crate) const DELAYS_MS: [u32; 3] = [0, 700, 1_900];

/// A step of a test. Small numbers stand for one of the handles, requests or clients that there are.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Acquire {
        who: usize,
        node: usize,
        handle: usize,
        shared: bool,
        patience: Patience,
    },
    Cancel {
        who: usize,
        which: usize,
    },
    Release {
        who: usize,
        node: usize,
        handle: usize,
    },
    Close {
        who: usize,
        node: usize,
        handle: usize,
    },
    /// Closes a handle that waits.
    CloseWaiting {
        who: usize,
        which: usize,
    },
    Delete {
        who: usize,
        node: usize,
        handle: usize,
    },
    EndSession {
        who: usize,
    },
    /// Its client sends nothing any more, and its lease ends.
    Dies {
        who: usize,
    },
    /// Its connection is another one from now on.
    Reconnect {
        who: usize,
    },
    /// The disk is busy, or no longer: what is proposed meanwhile stays on its way into the log.
    Disk {
        busy: bool,
    },
    /// The master fails; what was on its way survives or not. Its clients come to the next master in any order.
    FailOver {
        survives: bool,
        first: usize,
    },
    Pass {
        ms: u64,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    None,
    Some(u64),
    Endless,
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let who = || 0..PEOPLE;
    let one = || (0..PEOPLE, 0..PERMITS.len(), 0..DELAYS_MS.len());
    let patience = prop_oneof![
        1 => Just(Patience::None),
        2 => (1..1500u64).prop_map(Patience::Some),
        4 => Just(Patience::Endless),
    ];
    prop_oneof![
        24 => (one(), any::<bool>(), patience).prop_map(|((who, node, handle), shared, patience)| {
            Step::Acquire { who, node, handle, shared, patience }
        }),
        4 => (who(), 0..3usize).prop_map(|(who, which)| Step::Cancel { who, which }),
        8 => one().prop_map(|(who, node, handle)| Step::Release { who, node, handle }),
        4 => one().prop_map(|(who, node, handle)| Step::Close { who, node, handle }),
        3 => (who(), 0..3usize).prop_map(|(who, which)| Step::CloseWaiting { who, which }),
        2 => one().prop_map(|(who, node, handle)| Step::Delete { who, node, handle }),
        1 => who().prop_map(|who| Step::EndSession { who }),
        2 => who().prop_map(|who| Step::Dies { who }),
        2 => who().prop_map(|who| Step::Reconnect { who }),
        6 => any::<bool>().prop_map(|busy| Step::Disk { busy }),
        2 => (any::<bool>(), who()).prop_map(|(survives, first)| Step::FailOver { survives, first }),
        10 => (1..1500u64).prop_map(|ms| Step::Pass { ms }),
    ]
}
