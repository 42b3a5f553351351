//! How long to wait before the next attempt: longer each time, and never in step with other clients.

use core::time::Duration;
use wombat_proto::SplitMix64;

/// The first attempt after a success does not wait at all: the other side may have sent this client away, and
/// may serve again already. This is how long the second waits; each further one up to twice as long.
const FIRST: Duration = Duration::from_millis(10);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(1);

/// Jittered exponential back-off.
#[derive(Clone, Debug)]
pub(crate) struct Backoff(SplitMix64);

impl Backoff {
    /// `seed` is the client's own: two clients of one seed would connect at the same instants.
    pub(crate) fn new(seed: u64) -> Backoff {
        Backoff(SplitMix64::new(seed))
    }

    /// The wait before the next attempt after so many failures: between half of its length and all of it.
    pub(crate) fn after(&mut self, failures: u32) -> Duration {
        match failures {
            0 | 1 => Duration::ZERO,
            _ => self.jitter(FIRST.saturating_mul(1 << (failures - 2).min(16)).min(LONGEST)),
        }
    }

    /// Between half of `whole` and all of it.
    pub(crate) fn jitter(&mut self, whole: Duration) -> Duration {
        self.0.jitter(whole)
    }
}
