//! How far a new master has come with its fail-over (P§2.9, SPEC §7).

use crate::stage::Stage;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::{Epoch, HandleId, Instance, Instant, SessionId, Slot, wire};

/// The progress of a fail-over.
pub(crate) struct FailOver {
    stage: Stage,
    begun: Instant,
    /// The stamp at which the epoch begins.
    stamp: Slot,
    /// Sessions that may still have something cached: they have neither acknowledged the fail-over nor ended.
    awaited: BTreeSet<SessionId>,
    /// Whether the cache leases of all of them have ended.
    caches_lapsed: bool,
    served_after: Option<Duration>,
    recreated: u64,
    /// Handles that were made again in this step.
    newly_recreated: Vec<(Instance, (SessionId, HandleId))>,
    orphans: u64,
}

impl FailOver {
    pub(crate) fn new(epoch: Epoch, stamp: Slot, now: Instant) -> FailOver {
        FailOver {
            stage: Stage::Elected { epoch },
            begun: now,
            stamp,
            awaited: BTreeSet::new(),
            caches_lapsed: false,
            served_after: None,
            recreated: 0,
            newly_recreated: Vec::new(),
            orphans: 0,
        }
    }

    pub(crate) fn reach(&mut self, stage: Stage) {
        self.stage = stage;
    }

    /// Ordinary service waits for these sessions.
    pub(crate) fn await_sessions(&mut self, sessions: BTreeSet<SessionId>) {
        self.awaited = sessions;
    }

    /// Whether everything is allowed (SPEC I10).
    pub(crate) fn is_over(&self) -> bool {
        self.served_after.is_some()
    }

    /// Whether a session can have waited since `then` at an earlier master.
    pub(crate) fn is_before(&self, session: SessionId, then: Instant) -> bool {
        session.0 < self.stamp.0 && then <= self.begun
    }

    /// Whether the session has still to acknowledge the fail-over.
    pub(crate) fn awaits(&self, session: SessionId) -> bool {
        self.awaited.contains(&session)
    }

    /// The session has acknowledged the fail-over, or has ended.
    pub(crate) fn acknowledged(&mut self, session: SessionId) {
        self.awaited.remove(&session);
    }

    /// All cache leases of the time before the fail-over have ended.
    pub(crate) fn caches_have_lapsed(&mut self) {
        self.caches_lapsed = true;
    }

    /// Ends the wait, if no session has to be waited for any more. Returns how long the fail-over took, once.
    pub(crate) fn finish(&mut self, now: Instant) -> Option<Duration> {
        if self.is_over() || !(self.awaited.is_empty() || self.caches_lapsed) {
            return None;
        }
        self.served_after = Some(now.since(self.begun));
        self.served_after
    }

    /// A handle of an earlier epoch was made again.
    pub(crate) fn recreated(&mut self, instance: Instance, session: SessionId, handle: HandleId) {
        self.recreated += 1;
        self.newly_recreated.push((instance, (session, handle)));
    }

    /// Takes the handles that were made again in this step.
    pub(crate) fn take_recreated(&mut self) -> Vec<(Instance, (SessionId, HandleId))> {
        core::mem::take(&mut self.newly_recreated)
    }

    /// Whether handles are made again, which is a stage that is not reported yet.
    pub(crate) fn begins_to_recreate(&self) -> bool {
        self.recreated > 0 && matches!(self.stage, Stage::Serves { .. })
    }

    pub(crate) fn orphans_closed(&mut self, handles: usize) {
        self.orphans = handles as u64;
    }

    /// The progress, for operators.
    pub(crate) fn report(&self, now: Instant) -> wire::FailOver {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        wire::FailOver {
            step: self.stage.number(),
            what: alloc::format!("{}", self.stage),
            awaited: self.awaited.len() as u64,
            begun_ms: millis(now.since(self.begun)),
            served_after_ms: self.served_after.map_or(0, |after| millis(after).max(1)),
            handles_recreated: self.recreated,
            orphans_closed: self.orphans,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn awaiting(sessions: &[u64]) -> FailOver {
        let mut fail_over = FailOver::new(Epoch(2), Slot(50), at(10));
        fail_over.await_sessions(sessions.iter().copied().map(SessionId).collect());
        fail_over
    }

    #[test]
    fn fail_over_ends_when_all_sessions_have_acknowledged() {
        let mut fail_over = awaiting(&[1, 2]);
        fail_over.acknowledged(SessionId(1));
        assert_eq!(fail_over.finish(at(11)), None);
        fail_over.acknowledged(SessionId(2));
        assert_eq!(fail_over.finish(at(12)), Some(Duration::from_secs(2)));
        assert_eq!(fail_over.finish(at(13)), None, "it ends once");
        assert!(fail_over.is_over());
    }

    #[test]
    fn fail_over_ends_when_no_cache_can_be_used_any_more() {
        let mut fail_over = awaiting(&[1]);
        fail_over.caches_have_lapsed();
        assert_eq!(fail_over.finish(at(15)), Some(Duration::from_secs(5)));
        assert!(fail_over.awaits(SessionId(1)), "its lease is still bounded");
    }

    #[test]
    fn only_an_earlier_session_can_have_waited_before() {
        let fail_over = awaiting(&[]);
        assert!(fail_over.is_before(SessionId(49), at(10)));
        assert!(!fail_over.is_before(SessionId(50), at(10)));
        assert!(!fail_over.is_before(SessionId(49), at(11)));
    }
}
