//! The settings of a replica of the agreement.

use crate::rules::Rules;
use core::time::Duration;
use wombat_proto::limits::{MASTER_LEASE, PEER_BATCH_BYTES, PROPOSAL_BYTES_IN_FLIGHT, PROPOSALS_IN_FLIGHT};
use wombat_proto::{ReplicaId, Rho};

/// Leases in a row that a master may miss before another takes its place, when nothing else is known of it.
const PATIENCE: u32 = 4;

/// Leases without a single proposal chosen after which a master makes way.
const STALL: u32 = 8;

/// How a replica takes part.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Config {
    /// Its id.
    pub replica: ReplicaId,
    /// The master lease M (P§2.2).
    pub lease: Duration,
    /// How long a lease a master asks for at most, when round trips are too long for the usual one.
    pub longest_lease: Duration,
    /// How long a replica that hears nothing of the master waits before it looks for another, and for how long
    /// a master that hears from no quorum hopes to: at least the lease. A master that only stalls keeps its
    /// office for that long; one whose connection breaks ([`crate::Paxos::lost`]) is followed by another as
    /// soon as its lease has ended.
    pub patience: Duration,
    /// For how long a master keeps its lease though none of its proposals is chosen, and though another might do
    /// better: then it makes way. Twice as long for each
    /// master in a row that had to, three times at most.
    pub stall: Duration,
    /// How often a master asks for its lease to be extended.
    pub heartbeat: Duration,
    /// How long to wait for an answer before saying something again.
    pub resend: Duration,
    /// By how much clocks may differ.
    pub rho: Rho,
    /// α: the master proposes nothing beyond so many slots after the last one chosen. The same at all replicas.
    pub window: u64,
    /// Most bytes of commands proposed and not yet chosen.
    pub bytes_in_flight: usize,
    /// Most bytes of values in one message; one value may be longer by itself.
    pub batch_bytes: usize,
    /// The bytes of chosen values that are kept in memory for replicas that are behind, once a snapshot has
    /// them.
    pub log_bytes_kept: usize,
    /// For what must differ from replica to replica.
    pub seed: u64,
    /// The bug to have.
    #[cfg(feature = "plant")]
    pub plant: Option<crate::Plant>,
}

impl Config {
    /// The usual numbers.
    pub fn new(replica: ReplicaId, seed: u64) -> Config {
        let unset = Duration::ZERO;
        let config = Config {
            replica,
            lease: unset,
            longest_lease: unset,
            patience: unset,
            stall: unset,
            heartbeat: unset,
            resend: unset,
            rho: Rho::default(),
            window: PROPOSALS_IN_FLIGHT as u64,
            bytes_in_flight: PROPOSAL_BYTES_IN_FLIGHT,
            batch_bytes: PEER_BATCH_BYTES,
            log_bytes_kept: 32 * 1024 * 1024,
            seed,
            #[cfg(feature = "plant")]
            plant: None,
        };
        config.with_lease(MASTER_LEASE)
    }

    /// The same with another master lease, and with what goes with it.
    pub fn with_lease(self, lease: Duration) -> Config {
        let patience = PATIENCE * lease;
        let longest_lease = lease.max(self.longest_lease);
        Config {
            lease,
            longest_lease,
            patience,
            stall: STALL * lease,
            heartbeat: lease / 8,
            resend: lease,
            ..self
        }
    }
    /// The rules that the replica keeps: all of them, but for a planted bug.
    pub(crate) fn rules(&self) -> Rules {
        #[cfg(feature = "plant")]
        return Rules::breaking(self.plant);
        #[cfg(not(feature = "plant"))]
        Rules::default()
    }
}
