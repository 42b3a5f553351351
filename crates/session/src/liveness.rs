//! Whether the master on the session's link still answers. A link without traffic costs nothing: only when
//! something that was sent stays without an answer, or a KeepAlive is late, is a Hello sent as a probe. A master
//! answers that at once, ahead of other requests, also while it is overloaded. One that does not is silent, and
//! another is searched for; the link is kept until that is found.

use crate::search::{LinkId, RELAY_AFTER};
use core::time::Duration;
use wombat_proto::Instant;

/// A call that is not answered for so long, on a link that brings nothing else, leads to a probe. Each further
/// probe that is answered waits twice as long: the call takes its time.
const CALL_PATIENCE: Duration = Duration::from_millis(500);
/// The longest of these waits.
const LONGEST_PATIENCE: Duration = Duration::from_secs(8);
/// How late a KeepAlive is before there is a probe, and how long a probe may take, at least and at most. In
/// between it is a part of the lease.
const ALLOWANCE: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(500)];
const ALLOWANCE_PART: u32 = 24;
/// How often a session whose link a follower relays looks whether it reaches the master itself, and for how long:
/// not for as long as it takes to ask for another relay.
const DIRECT_LOOK_INTERVAL: Duration = Duration::from_secs(30);
const DIRECT_LOOK: Duration = Duration::from_millis(900);
const _: () = assert!(DIRECT_LOOK.as_millis() < RELAY_AFTER.as_millis());

/// The session's link, and what is known of the other end.
#[derive(Clone, Debug)]
pub(crate) struct UpLink {
    pub(crate) link: LinkId,
    pub(crate) endpoint: alloc::string::String,
    /// Since when a follower relays it, if one does.
    relayed_since: Option<Instant>,
    /// Since when something that was sent waits for an answer and nothing has arrived.
    quiet_since: Option<Instant>,
    /// How many probes were answered since a call was.
    probes: u32,
    /// The last probe.
    probe: Option<Probe>,
    /// After a probe was answered, a KeepAlive that is late leads to no other before that.
    late_again: Instant,
}

/// The last Hello that was sent as a probe.
#[derive(Clone, Copy, Debug)]
struct Probe {
    number: u64,
    sent: Instant,
    /// Nothing has arrived since it was sent.
    is_pending: bool,
}

/// How long a probe may take, and how much later than it should a KeepAlive may be answered.
pub(crate) fn allowance(lease: Duration) -> Duration {
    (lease / ALLOWANCE_PART).clamp(ALLOWANCE[0], ALLOWANCE[1])
}

impl UpLink {
    pub(crate) fn new(
        link: LinkId,
        endpoint: alloc::string::String,
        relayed_since: Option<Instant>,
    ) -> UpLink {
        UpLink {
            link,
            endpoint,
            relayed_since,
            quiet_since: None,
            probes: 0,
            probe: None,
            late_again: Instant::default(),
        }
    }

    /// A call was sent.
    pub(crate) fn sent(&mut self, now: Instant) {
        self.quiet_since.get_or_insert(now);
    }

    /// Something arrived, which answers a pending probe as well as its own answer would. `calls_wait`: whether a
    /// call, other than one that may wait at the master, is without an answer.
    pub(crate) fn received(&mut self, now: Instant, calls_wait: bool) {
        self.quiet_since = calls_wait.then_some(now);
        if self.pending_probe().is_some() {
            self.late_again = now + self.patience();
            self.probes += 1;
            self.probe.iter_mut().for_each(|probe| probe.is_pending = false);
        }
    }

    /// A call was answered.
    pub(crate) fn answered(&mut self) {
        self.probes = 0;
    }

    /// Whether this is the answer to the last probe.
    pub(crate) fn is_probe(&self, number: u64) -> bool {
        self.probe.is_some_and(|probe| probe.number == number)
    }

    pub(crate) fn probed(&mut self, now: Instant, number: u64) {
        self.probe = Some(Probe { number, sent: now, is_pending: true });
    }

    fn pending_probe(&self) -> Option<&Probe> {
        self.probe.as_ref().filter(|probe| probe.is_pending)
    }

    fn patience(&self) -> Duration {
        CALL_PATIENCE.saturating_mul(1 << self.probes.min(8)).min(LONGEST_PATIENCE)
    }

    /// When to send a probe. `late_at`: when the pending KeepAlive is late.
    fn probe_at(&self, late_at: Option<Instant>) -> Option<Instant> {
        let call = self.quiet_since.map(|since| since + self.patience());
        let keep_alive = late_at.map(|at| at.max(self.late_again));
        call.into_iter().chain(keep_alive).min().filter(|_| self.pending_probe().is_none())
    }

    pub(crate) fn is_probe_due(&self, now: Instant, late_at: Option<Instant>) -> bool {
        self.probe_at(late_at).is_some_and(|at| at <= now)
    }

    fn silent_at(&self, lease: Duration) -> Option<Instant> {
        self.pending_probe().map(|probe| probe.sent + allowance(lease))
    }

    /// Whether the probe was not answered in time.
    pub(crate) fn is_silent(&self, now: Instant, lease: Duration) -> bool {
        self.silent_at(lease).is_some_and(|at| at <= now)
    }

    /// When the session looks for a link of its own to the master next, or is done with that.
    fn direct_look(&self, now: Instant) -> Option<[Instant; 2]> {
        let since = self.relayed_since?;
        let turn = now.since(since).as_nanos() / DIRECT_LOOK_INTERVAL.as_nanos() + 1;
        let end = since + DIRECT_LOOK_INTERVAL.saturating_mul(u32::try_from(turn).unwrap_or(u32::MAX));
        Some([end - DIRECT_LOOK, end])
    }

    /// Whether to look for a link of its own to the master.
    pub(crate) fn looks_for_direct_link(&self, now: Instant) -> bool {
        self.direct_look(now).is_some_and(|[start, _]| start <= now)
    }

    /// When one of these changes.
    pub(crate) fn next_deadline(
        &self,
        now: Instant,
        late_at: Option<Instant>,
        lease: Duration,
    ) -> Option<Instant> {
        let silent = self.silent_at(lease).filter(|at| *at > now);
        let look = self.direct_look(now).into_iter().flatten().find(|at| *at > now);
        self.probe_at(late_at).into_iter().chain(silent).chain(look).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(12);

    /// A client that was stopped finds its KeepAlive late and answers of long ago waiting: each of those must not
    /// lead to one more probe, whose answer would lead to the next.
    #[test]
    fn an_answer_to_something_else_leads_to_no_further_probe() {
        let mut up = UpLink::new(LinkId(1), "a".into(), None);
        let (start, late_at) = (Instant::default(), Some(Instant::default()));
        assert!(up.is_probe_due(start, late_at));
        up.probed(start, 7);
        for _ in 0..3 {
            up.received(start, false);
            assert!(!up.is_probe_due(start, late_at), "the master has answered at this instant");
            assert!(!up.is_silent(start + LEASE, LEASE));
        }
        assert!(up.is_probe(7), "its answer is still to come, and may say that there is no master");
        assert!(up.is_probe_due(start + CALL_PATIENCE, late_at));
    }
}
