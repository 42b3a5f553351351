//! The real clocks. The one place in the project that reads them.

use crate::Instant;
use core::time::Duration;
use nix::time::{ClockId, clock_gettime};

/// Reads CLOCK_BOOTTIME: monotonic, and it runs while the machine is suspended, so that a lease ends while
/// its holder sleeps.
pub fn now() -> Instant {
    let reading = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has CLOCK_BOOTTIME");
    Instant::from_nanos(Duration::from(reading).as_nanos() as u64)
}

/// Wall time in milliseconds since 1970, for people to read. It decides nothing.
pub fn wall_ms() -> u64 {
    let reading = clock_gettime(ClockId::CLOCK_REALTIME).expect("Linux has CLOCK_REALTIME");
    Duration::from(reading).as_millis() as u64
}
