//! Chance that can be repeated: from the same seed comes the same.

use core::time::Duration;

/// SplitMix64: enough for spreading things out, and for simulations. Nothing that must not be guessed comes of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// The sequence of that seed.
    pub fn new(seed: u64) -> SplitMix64 {
        SplitMix64(seed)
    }

    /// The next number; each is as likely as any other.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    /// Between half of `whole` and all of it: a wait that others, who have the same, do not end together.
    pub fn jitter(&mut self, whole: Duration) -> Duration {
        whole / 2 + self.part(whole / 2)
    }

    /// A part of `most`.
    pub fn part(&mut self, most: Duration) -> Duration {
        let share = u128::from(self.draw() >> 32);
        Duration::from_nanos(((most.as_nanos() * share) >> 32) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_the_published_one() {
        let mut random = SplitMix64::new(1_234_567);
        let first = [random.draw(), random.draw(), random.draw()];
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn a_part_is_no_more_than_the_whole() {
        let mut random = SplitMix64::new(7);
        let most = Duration::from_secs(3600);
        let parts: alloc::vec::Vec<Duration> = (0..1000).map(|_| random.part(most)).collect();
        assert!(parts.iter().all(|part| *part < most));
        assert!(parts.iter().any(|part| *part < most / 10) && parts.iter().any(|part| *part > most / 10 * 9));
    }
}
