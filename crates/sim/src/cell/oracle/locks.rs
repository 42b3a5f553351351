//! Books of every lock: who holds it since when, who held it, which lock-delay may still run, and which handles
//! are tied to a grant. They go by the commands that took effect, not by the state's own idea of locks.

use crate::cell::tally::Tally;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wombat_proto::wire::log;
use wombat_proto::{HandleId, Instance, LockMode, SessionId, Slot, Token};

/// A handle of a session.
type Who = (SessionId, HandleId);

#[derive(Clone, Copy)]
struct Held {
    mode: LockMode,
    token: Token,
    lock_delay: Duration,
}

/// A lock-delay that has not been waited for yet.
#[derive(Clone, Copy)]
struct Delay {
    mode: LockMode,
    length: Duration,
    /// It passes no earlier, by the fastest of clocks.
    until: Duration,
}

#[derive(Default)]
pub(in crate::cell) struct Locks {
    /// Most shared holders of a lock that has a bound.
    permits: BTreeMap<Instance, usize>,
    holders: BTreeMap<Instance, BTreeMap<Who, Held>>,
    delays: BTreeMap<Instance, Delay>,
    last_token: Token,
    /// The grants that are over, and who held a lock last.
    freed: BTreeSet<Token>,
    last_holder: BTreeMap<Instance, SessionId>,
    /// From when until when a handle held its lock, or holds it.
    tenures: BTreeMap<Who, Vec<(Slot, Option<Slot>)>>,
    /// The handles that are tied to a grant.
    ties: BTreeMap<Who, Token>,
}

impl Locks {
    pub(in crate::cell) fn created(&mut self, instance: Instance, permits: u32) {
        if permits > 0 {
            self.permits.insert(instance, permits as usize);
        }
    }

    /// Whether a grant is over.
    pub(in crate::cell) fn is_freed(&self, token: Token) -> bool {
        self.freed.contains(&token)
    }

    pub(in crate::cell) fn holds(&self, instance: Instance, session: SessionId) -> bool {
        let holders = self.holders.get(&instance);
        holders.is_some_and(|holders| holders.keys().any(|(one, _)| *one == session))
    }

    /// Whether a handle held its lock after that slot.
    pub(in crate::cell) fn held_at(&self, who: Who, slot: Slot) -> bool {
        let tenures = self.tenures.get(&who).into_iter().flatten();
        tenures.into_iter().any(|(from, to)| *from <= slot && to.is_none_or(|to| slot < to))
    }

    /// I3, I4, I7: a lock is granted to one or, up to its permits, to those who share; with a token greater than
    /// every other; and not before a lock-delay has passed.
    pub(in crate::cell) fn grant(
        &mut self,
        session: SessionId,
        grant: &log::Grant,
        token: Token,
        now: Duration,
        tally: &mut Tally,
    ) {
        let (instance, who) = (Instance(grant.instance), (session, HandleId(grant.handle)));
        let mode = if grant.shared { LockMode::Shared } else { LockMode::Exclusive };
        assert!(token > self.last_token, "I4: token {token} after {}", self.last_token);
        self.last_token = token;
        self.check_tied(who, "a grant");
        let in_the_way = |delay: &&Delay| delay.mode == LockMode::Exclusive || mode == LockMode::Exclusive;
        if let Some(delay) = self.delays.get(&instance).filter(in_the_way) {
            let early = delay.until.saturating_sub(now);
            assert!(early.is_zero(), "I7: a lock was granted {early:?} before its delay had passed");
            self.delays.remove(&instance);
            tally.count("lock-delays waited for");
        }
        tally.count("grants");
        if self.last_holder.insert(instance, session).is_some_and(|last| last != session) {
            tally.count("hand-offs");
        }
        let lock_delay = Duration::from_millis(grant.lock_delay_ms.into());
        let holders = self.holders.entry(instance).or_default();
        holders.insert(who, Held { mode, token, lock_delay });
        self.tenures.entry(who).or_default().push((Slot(token.0), None));
        let exclusive = holders.values().any(|held| held.mode == LockMode::Exclusive);
        let most = self.permits.get(&instance).copied().unwrap_or(usize::MAX);
        assert!(!exclusive || holders.len() == 1, "I3: several hold the lock of node {instance}");
        assert!(holders.len() <= most, "I3: {} hold the {most} permits of node {instance}", holders.len());
        if holders.len() > 1 && most < usize::MAX {
            tally.count("permits shared");
        }
    }

    /// A handle gives its lock back, or is closed.
    pub(in crate::cell) fn free(&mut self, instance: Instance, who: Who, slot: Slot) {
        if let Some(held) = self.holders.get_mut(&instance).and_then(|holders| holders.remove(&who)) {
            self.over(who, held.token, slot);
        }
    }

    pub(in crate::cell) fn closed(&mut self, instance: Instance, who: Who, slot: Slot) {
        self.free(instance, who, slot);
        self.ties.remove(&who);
    }

    /// A node is gone, with its lock and the delay that had passed. I3: nobody else held it.
    pub(in crate::cell) fn deleted(&mut self, instance: Instance, by: Who, slot: Slot, now: Duration) {
        for (who, held) in self.holders.remove(&instance).unwrap_or_default() {
            assert_eq!(who, by, "I6: the lock of node {instance} was deleted from under its holder");
            self.over(who, held.token, slot);
        }
        if let Some(delay) = self.delays.remove(&instance) {
            let early = delay.until.saturating_sub(now);
            assert!(early.is_zero(), "I7: a lock was deleted {early:?} before its delay had passed");
        }
    }

    fn over(&mut self, who: Who, token: Token, slot: Slot) {
        self.freed.insert(token);
        if let Some((_, to)) = self.tenures.get_mut(&who).and_then(|tenures| tenures.last_mut()) {
            *to = Some(slot);
        }
    }

    /// A lock was broken; it is delayed like one whose holder has died.
    pub(in crate::cell) fn broken(
        &mut self,
        instance: Instance,
        tokens: &[u64],
        slot: Slot,
        now: Duration,
        tally: &mut Tally,
    ) {
        let holders = self.holders.entry(instance).or_default();
        let broken: Vec<(Who, Held)> =
            holders.extract_if(.., |_, held| tokens.contains(&held.token.0)).collect();
        for (who, held) in broken {
            self.lost(instance, who, held, slot, now, tally);
        }
    }

    /// A holder is none any more, and did not give the lock back.
    fn lost(
        &mut self,
        instance: Instance,
        who: Who,
        held: Held,
        slot: Slot,
        now: Duration,
        tally: &mut Tally,
    ) {
        self.over(who, held.token, slot);
        if !held.lock_delay.is_zero() {
            tally.count("lock-delays");
            self.delay(instance, held.mode, held.lock_delay, now);
        }
    }

    /// A session has ended; the locks that it did not give back are delayed from now on.
    pub(in crate::cell) fn end_session(
        &mut self,
        session: SessionId,
        asked: bool,
        slot: Slot,
        now: Duration,
        tally: &mut Tally,
    ) {
        for instance in self.holders.keys().copied().collect::<Vec<_>>() {
            let holders = self.holders.entry(instance).or_default();
            let ended: Vec<(Who, Held)> = holders.extract_if(.., |(one, _), _| *one == session).collect();
            for (who, held) in ended {
                match asked {
                    true => self.over(who, held.token, slot),
                    false => self.lost(instance, who, held, slot, now, tally),
                }
            }
        }
        self.ties.retain(|(one, _), _| *one != session);
    }

    /// One delay begins where another may still run: whoever conflicts with either waits for both.
    fn delay(&mut self, instance: Instance, mode: LockMode, length: Duration, now: Duration) {
        let earlier = self.delays.get(&instance).copied();
        let runs = earlier.filter(|earlier| now < earlier.until);
        let length = runs.map_or(length, |earlier| earlier.length.max(length));
        let mode = earlier.filter(|one| one.mode == LockMode::Exclusive).map_or(mode, |one| one.mode);
        let until = earlier.map_or(now, |earlier| earlier.until).max(now + fast(length));
        self.delays.insert(instance, Delay { mode, length, until });
    }

    /// I7: a new master lets every delay that runs run anew.
    pub(in crate::cell) fn begin_epoch(&mut self, now: Duration, tally: &mut Tally) {
        for delay in self.delays.values_mut().filter(|delay| now < delay.until) {
            delay.until = now + fast(delay.length);
            tally.count("lock-delays begun anew");
        }
    }

    // ---- Handles tied to a sequencer ----

    pub(in crate::cell) fn tie(&mut self, who: Who, token: Token) {
        assert!(self.is_held(token), "I4: a handle was tied to token {token}, which is over");
        self.ties.insert(who, token);
    }

    /// I4: nothing takes effect through a handle whose sequencer is stale.
    pub(in crate::cell) fn check_tied(&self, who: Who, what: &str) {
        if let Some(token) = self.ties.get(&who) {
            assert!(self.is_held(*token), "I4: {what} through a handle that is tied to the stale {token}");
        }
    }

    /// Whether a handle is tied to a grant that is over.
    pub(in crate::cell) fn is_fenced_off(&self, who: Who) -> bool {
        self.ties.get(&who).is_some_and(|token| !self.is_held(*token))
    }

    fn is_held(&self, token: Token) -> bool {
        token <= self.last_token && !self.freed.contains(&token)
    }
}

/// How long a clock that is as fast as it may be takes for it.
fn fast(length: Duration) -> Duration {
    length * 1000 / 1010
}
