//! The agreement alone: replicas of `wombat-paxos` under every fault that a machine room has, and then healed.

mod change;
mod ending;
mod event;
mod faults;
mod host;
mod operator;
mod oracle;
mod planted;
#[cfg(feature = "plant")]
pub(crate) mod plants;
mod proposals;
mod snapshots;
mod swarm;
mod world;

pub(crate) use planted::Planted;
pub(crate) use world::World;

#[cfg(test)]
mod tests {
    use super::World;

    /// Seeds of their own, so that they are not only those that everybody tries first.
    const FIRST: u64 = 7_000_000;

    /// Seeds that have found a mistake in the agreement, in the simulation of their day.
    const FOUND: [u64; 9] = [
        109_135,
        210_569,
        600_770,
        701_494,
        20_003_113,
        30_004_812,
        1_000_073_987,
        2_000_042_045,
        4_000_037_109,
    ];

    #[test]
    fn seeds_pass_and_do_the_same_twice() {
        for seed in (FIRST..FIRST + 300).chain(FOUND) {
            let run = || World::new(seed, false, None).run();
            let outcome = std::panic::catch_unwind(run).unwrap_or_else(|_| panic!("seed {seed} failed"));
            assert_eq!(outcome, run(), "seed {seed} ran differently the second time");
        }
    }
}
