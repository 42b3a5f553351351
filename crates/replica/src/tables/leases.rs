//! The longest leases in force (P§2.8): that of sessions, and that of their caches. A longer one is in the log
//! before it is granted, and for as long as it may be in force: the next master must give every session as much,
//! and wait for as long until no session has anything cached.

use core::time::Duration;
use wombat_proto::Instant;
use wombat_proto::limits::LEASE;

/// Changes of the longest leases that are planned or on their way into the log.
#[derive(Default)]
pub(crate) struct LeasePlan {
    /// The session lease and the cache lease that are on their way into the log.
    proposed: Option<[Duration; 2]>,
    /// A shorter lease to propose for each, and since when no longer one was granted.
    lower: [Option<(Duration, Instant)>; 2],
}

/// The lengths of one kind of lease.
#[derive(Clone, Copy)]
pub(crate) struct Lengths {
    /// The configured length.
    pub(crate) usual: Duration,
    /// The length that the present number of sessions asks for.
    pub(crate) wanted: Duration,
    /// The longest that may be in force, as the log says.
    pub(crate) in_force: Duration,
}

impl LeasePlan {
    /// The longest session lease and cache lease that may be granted: no longer than what the log is about to say,
    /// or what it is to say soon.
    pub(crate) fn bounds(&self) -> [Duration; 2] {
        let proposed = self.proposed.unwrap_or([Duration::MAX; 2]);
        let lower = self.lower.map(|lower| lower.map_or(Duration::MAX, |(lower, _)| lower));
        [proposed[0].min(lower[0]), proposed[1].min(lower[1])]
    }

    /// The session lease and the cache lease that the log should say, if others than now.
    pub(crate) fn next(&mut self, lengths: [Lengths; 2], now: Instant) -> Option<[Duration; 2]> {
        if self.proposed.is_some() {
            return None;
        }
        let [lower, lower_cache] = &mut self.lower;
        let next = [next_in_force(lower, lengths[0], now), next_in_force(lower_cache, lengths[1], now)];
        if next == [None, None] {
            return None;
        }
        Some([next[0].unwrap_or(lengths[0].in_force), next[1].unwrap_or(lengths[1].in_force)])
    }

    /// These are on their way into the log; `None`: it has no room.
    pub(crate) fn proposed(&mut self, leases: Option<[Duration; 2]>) {
        *self = LeasePlan { proposed: leases, ..LeasePlan::default() };
    }

    /// The log says so.
    pub(crate) fn applied(&mut self) {
        self.proposed = None;
    }
}

/// The longest lease that the log should say, if another than now: a longer one before it is granted, and a
/// shorter one when all longer ones have ended.
fn next_in_force(
    lower: &mut Option<(Duration, Instant)>,
    Lengths { usual, wanted, in_force }: Lengths,
    now: Instant,
) -> Option<Duration> {
    // A little more than wanted, so that not every new session needs an entry.
    let aim = if wanted > usual { (wanted + wanted / 4).min(LEASE) } else { wanted };
    *lower = lower.filter(|(lower, _)| wanted <= *lower);
    if wanted > in_force {
        Some(aim)
    } else if aim < in_force {
        let (lower, since) = *lower.get_or_insert((aim, now));
        (now >= since + in_force).then_some(lower)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CACHE: Lengths = lengths(4, 4, 4);

    const fn lengths(usual: u64, wanted: u64, in_force: u64) -> Lengths {
        let seconds = Duration::from_secs;
        Lengths { usual: seconds(usual), wanted: seconds(wanted), in_force: seconds(in_force) }
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn longer_lease_is_logged_at_once() {
        let mut plan = LeasePlan::default();
        assert_eq!(plan.next([lengths(12, 12, 12), CACHE], at(0)), None);
        let next = plan.next([lengths(12, 16, 12), CACHE], at(0));
        assert_eq!(next, Some([20, 4].map(Duration::from_secs)), "a quarter more than wanted");
        plan.proposed(next);
        assert_eq!(plan.next([lengths(12, 24, 12), CACHE], at(0)), None, "one command at a time");
        assert_eq!(plan.bounds()[0], Duration::from_secs(20));
    }

    #[test]
    fn shorter_lease_is_logged_when_all_longer_ones_have_ended() {
        let mut plan = LeasePlan::default();
        assert_eq!(plan.next([lengths(12, 12, 20), CACHE], at(0)), None);
        assert_eq!(plan.bounds()[0], Duration::from_secs(12), "no longer one is granted from now on");
        assert_eq!(plan.next([lengths(12, 12, 20), CACHE], at(19)), None);
        assert_eq!(plan.next([lengths(12, 12, 20), CACHE], at(20)), Some([12, 4].map(Duration::from_secs)));
    }

    #[test]
    fn longer_lease_that_is_wanted_again_drops_the_plan_for_a_shorter_one() {
        let mut plan = LeasePlan::default();
        plan.next([lengths(12, 12, 20), CACHE], at(0));
        assert_eq!(plan.next([lengths(12, 16, 20), CACHE], at(19)), None);
        assert_eq!(plan.bounds()[0], Duration::MAX);
        assert_eq!(plan.next([lengths(12, 12, 20), CACHE], at(21)), None, "the wait begins again");
    }
}
