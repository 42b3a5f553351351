//! How long the leases are that a master grants (P§2.8).

use super::Master;
use crate::context::{Cx, View};
use crate::tables::leases::Lengths;
use core::time::Duration;
use wombat_proto::limits::{KEEP_ALIVES_PER_SECOND, LEASE, lease_for_hold};
use wombat_proto::wire::{log, log::command::Op};
use wombat_proto::{Instant, SessionId};
use wombat_state::Session;

/// Of how many locks of a session it is checked whether their ends clear contents.
const MAX_LOCKS_CHECKED: usize = 16;

/// The session lease of a replica, master or not: the configured one or, where so many sessions would send too many
/// KeepAlives, a longer one.
fn wanted_lease(view: View<'_>) -> Duration {
    // Every session sends a KeepAlive in the time for which that is held.
    let sessions = u32::try_from(view.state.session_count()).unwrap_or(u32::MAX);
    let paced = lease_for_hold(Duration::from_secs(1).saturating_mul(sessions) / KEEP_ALIVES_PER_SECOND);
    view.config.lease.max(paced.min(LEASE))
}

/// The session lease as far as the log has it.
pub(crate) fn logged_lease(view: View<'_>) -> Duration {
    wanted_lease(view).min(view.state.lease())
}

impl Master {
    /// The session lease that is granted now.
    pub(crate) fn lease(&self, view: View<'_>) -> Duration {
        logged_lease(view).min(self.lease_plan.bounds()[0])
    }

    /// The lease that a session is granted now. While others wait for the session to acknowledge the fail-over, give
    /// up a lock or drop a cached entry, its lease is not extended without end.
    pub(super) fn lease_of(&self, view: View<'_>, session: SessionId) -> Duration {
        let bound = self.lease_bound(view, session);
        bound.map_or(Duration::MAX, |bound| bound.since(view.now)).min(self.lease(view))
    }

    /// The end that the lease of a session is not extended beyond.
    fn lease_bound(&self, view: View<'_>, session: SessionId) -> Option<Instant> {
        let live = self.sessions.get(session);
        let bounds = [
            live.filter(|_| self.fail_over.awaits(session)).map(|live| live.lease.until),
            self.revocations.lease_bound(session),
            live.and_then(|live| Some(live.unresponsive_since()? + self.lease(view))),
        ];
        bounds.into_iter().flatten().min()
    }

    /// Whether others wait for this session to acknowledge something.
    pub(super) fn is_awaited(&self, session: SessionId) -> bool {
        self.fail_over.awaits(session) || self.revocations.lease_bound(session).is_some()
    }

    /// For how long a session can live at most if no more KeepAlives come from it; while a lock of it is being broken,
    /// whatever comes from it. Another master, and one that was stalled itself, gives it a whole lease.
    pub(super) fn lives_within(&self, view: View<'_>, session: SessionId) -> Duration {
        let Some(live) = self.sessions.get(session) else { return Duration::ZERO };
        let pending = self.revocations.lease_bound(session).unwrap_or(live.lease.latest_end());
        let bound = self.lease_bound(view, session).unwrap_or(pending);
        let end = live.lease.until.max(pending.min(bound)).since(view.now);
        if self.leaves_cached_nodes(view, session) { end + view.state.cache_lease() } else { end }
    }

    /// Whether ephemeral nodes or contents may go with a session, so that its end waits for the sessions that have them
    /// cached.
    pub(super) fn leaves_cached_nodes(&self, view: View<'_>, session: SessionId) -> bool {
        let opens = self.changes.has_session(session)
            || view.log.proposals().opened_by(&[session.0]).next().is_some();
        let clears = |(instance, handle)| {
            let holder = view.state.tree().get(instance).and_then(|node| node.lock.holder(session, handle));
            holder.is_some_and(|holder| holder.clears_contents)
        };
        let held = view.state.session(session);
        // Of one that holds many, it is assumed: each lock that an operator lists asks this of its holders.
        let locks_clear = |held: &Session| held.lock_count() > MAX_LOCKS_CHECKED || held.locks().any(clears);
        opens || held.is_some_and(|held| held.ephemeral_count() > 0 || locks_clear(held))
    }

    /// The cache lease that is granted now (SPEC §6): the configured one or, where so many sessions would send too many
    /// KeepAlives, a longer one, as far as the log has it.
    pub(super) fn cache_lease(&self, view: View<'_>) -> Duration {
        let logged = self.wanted_cache_lease(view).min(view.state.cache_lease());
        logged.min(self.lease_plan.bounds()[1]).min(self.lease(view))
    }

    fn wanted_cache_lease(&self, view: View<'_>) -> Duration {
        // A session that uses its cache sends a KeepAlive in about half of its cache lease.
        let readers = u32::try_from(self.cache_keys.readers()).unwrap_or(u32::MAX);
        let paced = Duration::from_secs(2).saturating_mul(readers) / KEEP_ALIVES_PER_SECOND;
        view.config.cache_lease.max(paced)
    }

    /// Keeps the longest leases in force in the log.
    pub(super) fn maintain_leases(&mut self, cx: &mut Cx<'_>) {
        let view = cx.view();
        let session =
            Lengths { usual: view.config.lease, wanted: wanted_lease(view), in_force: view.state.lease() };
        let cache = Lengths {
            usual: view.config.cache_lease,
            wanted: self.wanted_cache_lease(view).min(LEASE),
            in_force: view.state.cache_lease(),
        };
        let Some(leases) = self.lease_plan.next([session, cache], cx.now()) else { return };
        let [lease_ms, cache_lease_ms] = leases.map(|lease| lease.as_millis() as u32);
        let set = Op::SetLease(log::SetLease { lease_ms, cache_lease_ms });
        let proposed = self.propose_own(cx, set).is_ok();
        self.lease_plan.proposed(proposed.then_some(leases));
    }
}
