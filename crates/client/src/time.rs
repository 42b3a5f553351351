//! Waiting by the clock that leases run on.

use std::time::Duration;
use wombat_proto::{Instant, clock};

/// Timers stop while the machine is suspended and leases do not: a sleeper looks at the real clock at least
/// this often.
const LONGEST_NAP: Duration = Duration::from_millis(500);

/// Sleeps until `deadline`, or for a nap; whoever waits looks at the clock again. `None`: a nap.
pub(crate) async fn nap_until(deadline: Option<Instant>) {
    let left = deadline.map_or(LONGEST_NAP, |deadline| deadline.since(clock::now()));
    tokio::time::sleep(left.min(LONGEST_NAP)).await;
}

/// Sleeps until `deadline`.
pub(crate) async fn sleep_until(deadline: Instant) {
    while clock::now() < deadline {
        nap_until(Some(deadline)).await;
    }
}

/// The present reading of the clock that [`crate::LockGuard::safe_until`] speaks of: it runs through suspend.
pub fn now() -> Instant {
    clock::now()
}
