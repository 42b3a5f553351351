//! How long to wait before the next attempt: longer each time, and never in step with other clients.

use core::time::Duration;
use wombat_proto::SplitMix64;

/// The first attempt after a success does not wait at all: the other side may have sent this client away, and
/// somebody else be there already. This is how long the second waits; each further one up to twice as long.
const FIRST: Duration = Duration::from_millis(10);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(1);

/// Jittered exponential back-off.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    attempts: u32,
    random: SplitMix64,
}

impl Backoff {
    /// `seed` is the client's own: two clients of one seed would knock together.
    pub(crate) fn new(seed: u64) -> Backoff {
        Backoff { attempts: 0, random: SplitMix64::new(seed) }
    }

    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }

    /// The wait before the next attempt: between half of its length and all of it.
    pub(crate) fn next(&mut self) -> Duration {
        let earlier = self.attempts;
        self.attempts += 1;
        match earlier {
            0 => Duration::ZERO,
            _ => self.jitter(FIRST.saturating_mul(1 << (earlier - 1).min(16)).min(LONGEST)),
        }
    }

    /// Between half of `whole` and all of it.
    pub(crate) fn jitter(&mut self, whole: Duration) -> Duration {
        self.random.jitter(whole)
    }
}
