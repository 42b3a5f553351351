//! Which faults a run has, and on what terms its replicas serve.

use crate::faults::Fault;
use crate::random::Random;
use crate::swarm::Weights;
use std::time::Duration;
use wombat_proto::limits::{CACHE_LEASE, MASTER_LEASE, SHORTEST_CACHE_LEASE};

/// The faults of clients and their connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ClientFault {
    /// A client stops for a while, perhaps for longer than its session lives.
    Stop,
    /// A client dies.
    Kill,
    /// Some clients and some replicas do not reach each other for a while.
    Cut,
    /// Connections break.
    Break,
    /// The network between clients and replicas is slow, or quick again.
    Slowness,
}

const ALL: [Fault<ClientFault>; 15] = [
    Fault::Kill,
    Fault::KillMany,
    Fault::Pause,
    Fault::Partition,
    Fault::Weather,
    Fault::Narrow,
    Fault::Transfer,
    Fault::Snapshot,
    Fault::SlowDisk,
    Fault::Rollback,
    Fault::Other(ClientFault::Stop),
    Fault::Other(ClientFault::Kill),
    Fault::Other(ClientFault::Cut),
    Fault::Other(ClientFault::Break),
    Fault::Other(ClientFault::Slowness),
];

/// What deposes a master.
const DEPOSING: [Fault<ClientFault>; 4] = [Fault::Kill, Fault::Pause, Fault::Partition, Fault::Transfer];

/// The kinds of a run, each with its weight, and what else makes it what it is.
pub(super) struct Swarm {
    pub(super) faults: Weights<Fault<ClientFault>, { ALL.len() }>,
    /// How long between two, at most.
    pub(super) pause: Duration,
    /// Of a thousand masters, how many are deposed, and how long after they began at most.
    pub(super) hunts: u64,
    pub(super) hunted_within: Duration,
    /// Of a thousand steps, after how many the replica dies in the middle of what it has to do.
    pub(super) dies_in_step: u64,
    /// How long a replica is down, at most, and how long anyone stops.
    pub(super) down: Duration,
    pub(super) stop: Duration,
    /// How long a disk that is well takes, at most.
    pub(super) disk: Duration,
    /// How long a message between replicas takes that nothing happens to, at most.
    pub(super) network: Duration,
    /// Of a thousand requests, how many come again, and how much later at most.
    pub(super) copies: u64,
    pub(super) copied_within: Duration,
    /// Of a thousand KeepAlives that are answered, after how many the client reaches nobody for a while: its
    /// session then has no longer than what it was promised.
    pub(super) strands: u64,
    /// How long a client thinks, at most.
    pub(super) thinking: Duration,
    /// Of a thousand clients, how many cache, and how many of those have room for a few entries only.
    pub(super) caching: u64,
    pub(super) small_caches: u64,
    /// Of a thousand things that such a client does, how many are a look at something; and of a thousand others,
    /// how many are changes in the nest.
    pub(super) looks: u64,
    pub(super) nesting: u64,
    /// Whether the nest vanishes when nobody has it open and nothing is in it.
    pub(super) nest_vanishes: bool,
    /// Of a thousand troubles, how many come with a flood of writes that somebody who listens does not hear of.
    pub(super) floods: u64,
    /// How long between two reads at replicas, whatever they are, at most.
    pub(super) stale_reads: Duration,
    /// Whether clocks are as wrong as they may be.
    pub(super) worst_clocks: bool,
    pub(super) terms: Terms,
}

/// On what terms replicas serve.
pub(super) struct Terms {
    pub(super) master_lease: Duration,
    /// The session lease; where leases vary, the longest.
    pub(super) session_lease: Duration,
    /// The cache lease; where leases vary, the longest.
    cache_lease: Duration,
    /// Whether a replica may come back with shorter ones.
    leases_vary: bool,
    pub(super) segment_bytes: u64,
}

impl Terms {
    /// The longest that a master lengthens its lease to.
    pub(super) fn max_master_lease(&self) -> Duration {
        self.master_lease * 4
    }

    /// The session lease that a replica grants in the life that begins.
    pub(super) fn lease(&self, random: &mut Random) -> Duration {
        match self.leases_vary {
            true => self.session_lease * [2, 3, 4][random.below(3) as usize] / 4,
            false => self.session_lease,
        }
    }

    /// The cache lease likewise.
    pub(super) fn cache_lease(&self, random: &mut Random) -> Duration {
        let shorter = if self.leases_vary { 1 + random.below(4) as u32 } else { 1 };
        (self.cache_lease / shorter).max(SHORTEST_CACHE_LEASE)
    }
}

impl Swarm {
    pub(super) fn draw(random: &mut Random) -> Swarm {
        let faults = Weights::draw(ALL, random);
        let fast = random.chance(300);
        let (copies, hunts) = (
            if random.chance(400) { random.below(150) } else { 0 },
            if random.chance(500) { random.below(1001) } else { 0 },
        );
        let caching = match random.below(20) {
            0 | 1 => 0,
            2..5 => random.below(300),
            _ => 500 + random.below(501),
        };
        let longest_cache_lease = if random.chance(500) { 1000 } else { 6000 };
        Swarm {
            faults,
            pause: random.millis(500, 5000),
            hunts,
            hunted_within: random.millis(0, 8000),
            dies_in_step: if random.chance(200) { random.below(4) } else { 0 },
            down: random.millis(200, 8000),
            stop: random.millis(1000, 15_000),
            disk: Duration::from_micros(if fast { 500 } else { 20_000 }),
            network: Duration::from_micros(if fast { 500 } else { 5000 }),
            copies,
            copied_within: random.millis(10, 10_000),
            strands: if random.chance(300) { random.below(100) } else { 0 },
            thinking: random.millis(20, 1500),
            caching,
            small_caches: if random.chance(300) { random.below(1001) } else { 0 },
            looks: 300 + random.below(650),
            nesting: random.below(400),
            nest_vanishes: random.chance(500),
            stale_reads: if random.chance(200) { random.millis(5, 50) } else { random.millis(50, 3000) },
            worst_clocks: random.chance(500),
            floods: if random.chance(120) { random.below(200) } else { 0 },
            terms: Terms {
                master_lease: random.millis(500, 1500),
                session_lease: random.millis(2000, 5000),
                cache_lease: random.millis(200, longest_cache_lease),
                leases_vary: random.chance(300),
                segment_bytes: 1024 * (4 + random.below(60)),
            },
        }
    }

    /// Nothing goes wrong, and the terms are the usual ones, or near them.
    pub(super) fn quiet(random: &mut Random) -> Swarm {
        let session_lease = Duration::from_secs([8, 12, 20][random.below(3) as usize]);
        let drawn = Swarm::draw(random);
        Swarm {
            faults: Weights::none(ALL),
            hunts: 0,
            dies_in_step: 0,
            down: Duration::from_secs(60),
            copies: 0,
            strands: 0,
            floods: 0,
            disk: drawn.disk.min(Duration::from_millis(5)),
            terms: Terms {
                master_lease: MASTER_LEASE,
                session_lease,
                cache_lease: CACHE_LEASE,
                leases_vary: false,
                ..drawn.terms
            },
            ..drawn
        }
    }

    /// Something that deposes a master, or tries to.
    pub(super) fn deposing(random: &mut Random) -> Fault<ClientFault> {
        DEPOSING[random.below(DEPOSING.len() as u64) as usize]
    }
}
