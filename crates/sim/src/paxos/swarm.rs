//! What kinds of trouble a run has. Each run draws some kinds and leaves others out, so that no kind hides
//! behind another (swarm testing).

use super::network::Weather;
use crate::random::Random;
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// A replica dies and comes back.
    Kill,
    /// Several die at once, perhaps all.
    KillMany,
    /// A replica stops for a while, perhaps longer than the lease.
    Pause,
    /// The network falls apart, or comes together.
    Partition,
    /// The network's quality changes.
    Weather,
    /// A disk's contents are gone, or cannot be trusted: a new replica has to take its place.
    Wipe,
    /// The master is asked to hand over.
    Transfer,
    /// A replica writes a snapshot.
    Snapshot,
    /// A disk takes its time.
    SlowDisk,
    /// A voter is replaced though nothing is wrong with it.
    Replace,
}

const ALL: [Fault; 10] = [
    Fault::Kill,
    Fault::KillMany,
    Fault::Pause,
    Fault::Partition,
    Fault::Weather,
    Fault::Wipe,
    Fault::Transfer,
    Fault::Snapshot,
    Fault::SlowDisk,
    Fault::Replace,
];

/// The kinds of a run, each with its weight.
pub(super) struct Swarm {
    weights: [u64; ALL.len()],
    /// How long between two, at most.
    pub(super) pause: Duration,
    /// Of a thousand steps, after how many the replica dies in the middle of what it has to do.
    pub(super) dies_in_step: u64,
}

impl Swarm {
    pub(super) fn draw(random: &mut Random) -> Swarm {
        let mut weights = [0; ALL.len()];
        for weight in &mut weights {
            *weight = if random.chance(500) { 1 + random.below(9) } else { 0 };
        }
        let dies_in_step = if random.chance(300) { 1 + random.below(5) } else { 0 };
        Swarm { weights, pause: random.millis(200, 2000), dies_in_step }
    }

    pub(super) fn next(&self, random: &mut Random) -> Option<Fault> {
        let total: u64 = self.weights.iter().sum();
        if total == 0 {
            return None;
        }
        let mut drawn = random.below(total);
        for (fault, weight) in ALL.into_iter().zip(self.weights) {
            if drawn < weight {
                return Some(fault);
            }
            drawn -= weight;
        }
        None
    }
}

pub(super) fn weather(random: &mut Random) -> Weather {
    let mut some = |most: u64| if random.chance(400) { random.below(most) } else { 0 };
    Weather { lost: some(300), twice: some(200), slow: some(500), late: some(40) }
}
