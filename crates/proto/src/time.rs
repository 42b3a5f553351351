//! Time as an argument. Real readings come from [`crate::clock`]; the simulator makes its own.

use core::ops::{Add, Sub};
use core::time::Duration;

/// A reading of a monotonic clock that also runs while the machine is suspended, in nanoseconds since an
/// origin of the machine's own choosing. Readings of two machines must never be compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Instant {
    nanos: u64,
}

impl Instant {
    /// The reading `nanos` nanoseconds after the clock's origin.
    pub const fn from_nanos(nanos: u64) -> Instant {
        Instant { nanos }
    }

    /// Nanoseconds since the clock's origin.
    pub const fn as_nanos(self) -> u64 {
        self.nanos
    }

    /// How long after `earlier` this is; zero if it is not after.
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.nanos.saturating_sub(earlier.nanos))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, duration: Duration) -> Instant {
        Instant { nanos: self.nanos.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)) }
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;
    fn sub(self, duration: Duration) -> Instant {
        Instant { nanos: self.nanos.saturating_sub(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)) }
    }
}

/// By how much the rates of two clocks may differ, in parts per thousand (SPEC §3: ρ, default 1 %).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rho(pub u32);

impl Default for Rho {
    fn default() -> Rho {
        Rho(10)
    }
}

impl Rho {
    /// `duration` on the other party's clock, in the worst case for someone who must not outlast it:
    /// `duration · (1−ρ)/(1+ρ)`, rounded down.
    pub fn shorten(self, duration: Duration) -> Duration {
        let (slow, fast) = (1000 - u128::from(self.0), 1000 + u128::from(self.0));
        Duration::from_nanos(u64::try_from(duration.as_nanos() * slow / fast).unwrap_or(u64::MAX))
    }

    /// `duration` on the other party's clock, in the worst case for someone who must outlast it:
    /// `duration · (1+ρ)/(1−ρ)`, rounded up.
    pub fn lengthen(self, duration: Duration) -> Duration {
        let (slow, fast) = (1000 - u128::from(self.0), 1000 + u128::from(self.0));
        Duration::from_nanos(u64::try_from((duration.as_nanos() * fast).div_ceil(slow)).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortening_is_never_optimistic() {
        assert_eq!(Rho(0).shorten(Duration::from_secs(12)), Duration::from_secs(12));
        let short = Rho(10).shorten(Duration::from_secs(12));
        assert_eq!(short, Duration::from_nanos(12_000_000_000u64 * 990 / 1010));
    }
}
