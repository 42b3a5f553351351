//! Chance that can be repeated.

use std::time::Duration;
use wombat_proto::SplitMix64;

/// What a simulation draws.
#[derive(Clone)]
pub(crate) struct Random(SplitMix64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(SplitMix64::new(seed))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.draw()
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    /// True so many times of a thousand.
    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// One of several, each as likely as its weight says; none if all weights are zero.
    pub(crate) fn weighted(&mut self, weights: &[u64]) -> Option<usize> {
        let total: u64 = weights.iter().sum();
        let mut drawn = if total == 0 { return None } else { self.below(total) };
        weights.iter().position(|weight| {
            let here = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            here
        })
    }

    /// Puts a list into any order.
    pub(crate) fn shuffle<T>(&mut self, all: &mut [T]) {
        for place in (1..all.len()).rev() {
            all.swap(place, self.below(place as u64 + 1) as usize);
        }
    }

    pub(crate) fn duration(&mut self, from: Duration, to: Duration) -> Duration {
        from + Duration::from_nanos(self.below((to - from).as_nanos() as u64 + 1))
    }

    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Duration {
        self.duration(Duration::from_millis(from), Duration::from_millis(to))
    }
}

/// A machine's clock: it runs a little fast or slow, from an origin of its own.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    /// Nanoseconds that it counts in a thousand real ones.
    rate: u64,
    origin: u64,
}

impl Clock {
    /// A clock whose rate is wrong by one per cent at most (SPEC §3: ρ), or by all of that.
    pub(crate) fn draw(worst: bool, random: &mut Random) -> Clock {
        if worst { Clock::worst(random) } else { Clock::new(random) }
    }

    fn new(random: &mut Random) -> Clock {
        Clock { rate: 990 + random.below(21), origin: random.below(1 << 40) }
    }

    /// A clock that is as wrong as it may be, one way or the other.
    fn worst(random: &mut Random) -> Clock {
        Clock { rate: if random.chance(500) { 990 } else { 1010 }, origin: random.below(1 << 40) }
    }

    pub(crate) fn read(&self, real: Duration) -> wombat_proto::Instant {
        let counted = real.as_nanos() * u128::from(self.rate) / 1000;
        wombat_proto::Instant::from_nanos(self.origin + counted as u64)
    }

    /// The real time at which the clock shows `reading`, or a little later.
    pub(crate) fn when(&self, reading: wombat_proto::Instant) -> Duration {
        let counted = u128::from(reading.as_nanos().saturating_sub(self.origin));
        Duration::from_nanos((counted * 1000).div_ceil(u128::from(self.rate)) as u64)
    }
}
