//! Which faults a run has, and how its replicas, their disks and their network are.

use crate::faults::Fault;
use crate::random::Random;
use crate::swarm::Weights;
use std::time::Duration;

/// The master lease.
pub(super) const LEASE: Duration = Duration::from_secs(1);

/// The faults of disks, connections and members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CellFault {
    /// A replica's connections break, or seem to, though it lives.
    Disconnect,
    /// A disk's contents are gone, or cannot be trusted: a new replica has to take its place.
    Wipe,
    /// The whole cell is stopped, and goes on from copies of its disks.
    Move,
    /// A voter is replaced though nothing is wrong with it.
    Replace,
    /// One more voter.
    Grow,
    /// One voter less.
    Shrink,
    /// One that only learns.
    Learner,
}

const ALL: [Fault<CellFault>; 17] = [
    Fault::Kill,
    Fault::KillMany,
    Fault::Pause,
    Fault::Partition,
    Fault::Other(CellFault::Disconnect),
    Fault::Weather,
    Fault::Narrow,
    Fault::Other(CellFault::Wipe),
    Fault::Rollback,
    Fault::Other(CellFault::Move),
    Fault::Transfer,
    Fault::Snapshot,
    Fault::SlowDisk,
    Fault::Other(CellFault::Replace),
    Fault::Other(CellFault::Grow),
    Fault::Other(CellFault::Shrink),
    Fault::Other(CellFault::Learner),
];

/// The kinds of a run, each with its weight, and what else makes it what it is.
pub(super) struct Swarm {
    pub(super) faults: Weights<Fault<CellFault>, { ALL.len() }>,
    /// How long between two, at most.
    pub(super) pause: Duration,
    /// Of a thousand steps, after how many the replica dies in the middle of what it has to do.
    pub(super) dies_in_step: u64,
    /// How long a replica is down, at most.
    pub(super) down: Duration,
    /// How long a disk that is well takes, at most.
    pub(super) disk: Duration,
    /// How long a message takes that nothing happens to, at most.
    pub(super) network: Duration,
    /// How long between two bursts of proposals, at most, and how many one has, at most.
    pub(super) proposing: (Duration, u64),
    /// Of a thousand elections, and of a thousand changes of the members, how many draw trouble at once.
    pub(super) hits_elections: u64,
    pub(super) hits_changes: u64,
    /// Whether clocks are as wrong as they may be.
    pub(super) worst_clocks: bool,
    /// Whether a replica may come back with another master lease.
    pub(super) leases_vary: bool,
    /// For how many leases a replica waits for a master that sends it nothing.
    pub(super) patience: u32,
    /// Of a thousand deaths, how many the others notice by the broken connection.
    pub(super) deaths_noticed: u64,
}

impl Swarm {
    pub(super) fn draw(random: &mut Random) -> Swarm {
        let faults = Weights::draw(ALL, random);
        let fast = random.chance(300);
        let longest = if random.chance(200) { 12_000 } else { 4000 };
        let mut often =
            |per_mille: u64, most: u64| if random.chance(per_mille) { random.below(most) } else { 0 };
        let (dies_in_step, hits_elections, hits_changes) =
            (often(300, 6), often(400, 1000), often(500, 1000));
        Swarm {
            faults,
            dies_in_step,
            hits_elections,
            hits_changes,
            pause: random.millis(200, 2000),
            down: random.millis(100, longest),
            disk: Duration::from_micros(if fast { 200 } else { 10_000 }),
            network: Duration::from_micros(if fast { 200 } else { 5000 }),
            proposing: (random.millis(100, 600), 1 + random.below(12)),
            worst_clocks: random.chance(500),
            leases_vary: random.chance(150),
            patience: [1, 1, 2, 4][random.below(4) as usize],
            deaths_noticed: random.below(1001),
        }
    }
}
