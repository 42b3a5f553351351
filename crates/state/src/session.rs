//! Sessions as the log knows them (P§2.8). Their leases are the master's business, not the state's.

use crate::outcome::Outcome;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use wombat_proto::limits::{UNACKNOWLEDGED_NAMES, UNACKNOWLEDGED_OUTCOMES};
use wombat_proto::{Error, HandleId, Instance, Result, Token};

/// A live session.
#[derive(Clone, Default, Debug)]
pub struct Session {
    /// What the client says of itself, for people.
    pub client: String,
    /// When it began, wall time, for people.
    pub created_wall_ms: u64,
    /// Whether the client has a cache.
    pub caches: bool,
    /// Whether a master may have granted it a cache lease: then a fail-over waits until it has acknowledged that
    /// (SPEC I10).
    pub has_cache_lease: bool,
    /// Every change with a number up to here has been answered and is never retried.
    pub(crate) acknowledged: u64,
    /// The answers to later changes, so that a retry gets the same one (SPEC I13). All numbers are greater
    /// than `acknowledged`.
    pub(crate) outcomes: BTreeMap<u64, Result<Outcome>>,
    /// How many names there are in them.
    pub(crate) names: usize,
    /// The locks that its handles hold; the other direction stands in each node's lock.
    pub(crate) locks: BTreeSet<(Instance, HandleId)>,
    /// The ephemeral nodes that its handles keep alive; the other direction stands in each node.
    pub(crate) ephemerals: BTreeSet<(Instance, HandleId)>,
    /// The handles that SetSequencer has tied to a lock.
    pub(crate) fences: BTreeMap<HandleId, Fence>,
    /// The locks that every change of the session depends on; held by other sessions.
    pub(crate) session_fences: Vec<Fence>,
}

/// A lock that must still be held as it was granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fence {
    /// The locked node.
    pub instance: Instance,
    /// The grant.
    pub token: Token,
}

impl Session {
    /// How many locks it holds.
    pub fn lock_count(&self) -> usize {
        self.locks.len()
    }

    /// How many ephemeral nodes it has open, counted by handle.
    pub fn ephemeral_count(&self) -> usize {
        self.ephemerals.len()
    }

    /// The locks that it holds, and by which handle.
    pub fn locks(&self) -> impl Iterator<Item = (Instance, HandleId)> {
        self.locks.iter().copied()
    }

    /// The ephemeral nodes that it keeps alive, and by which handle.
    pub fn ephemerals(&self) -> impl Iterator<Item = (Instance, HandleId)> {
        self.ephemerals.iter().copied()
    }

    /// The lock that changes through `handle` depend on.
    pub fn fence(&self, handle: HandleId) -> Option<Fence> {
        self.fences.get(&handle).copied()
    }

    /// Whether closing `handle` changes this session's replicated part.
    pub fn has_handle(&self, instance: Instance, handle: HandleId) -> bool {
        self.locks.contains(&(instance, handle))
            || self.ephemerals.contains(&(instance, handle))
            || self.fences.contains_key(&handle)
    }

    /// The answer to the change `number` if it was made before: the kept one or, when the client has said that it
    /// has that and would not ask again, an error.
    pub fn answer(&self, number: u64) -> Option<Result<Outcome>> {
        let forgotten = || Error::invalid("the request's number says that its answer was received already");
        let kept = self.outcomes.get(&number).cloned();
        kept.or_else(|| (number <= self.acknowledged).then(|| Err(forgotten())))
    }

    /// Forgets the answers that the client has.
    pub(crate) fn acknowledge(&mut self, up_to: u64) {
        if up_to > self.acknowledged {
            self.acknowledged = up_to;
            let kept = self.outcomes.split_off(&(up_to + 1));
            let forgotten = core::mem::replace(&mut self.outcomes, kept);
            self.names -= names_in(&forgotten);
        }
    }

    /// Whether there is room for one more answer.
    pub(crate) fn admit(&self) -> Result<()> {
        if self.outcomes.len() < UNACKNOWLEDGED_OUTCOMES && self.names < UNACKNOWLEDGED_NAMES {
            return Ok(());
        }
        Err(Error::Overloaded { retry_after: core::time::Duration::from_millis(10) })
    }

    /// Keeps the answer to a change.
    pub(crate) fn keep(&mut self, number: u64, result: Result<Outcome>) {
        self.names += names_of(&result);
        self.outcomes.insert(number, result);
    }
}

/// How many names some answers have, all in all.
pub(crate) fn names_in(outcomes: &BTreeMap<u64, Result<Outcome>>) -> usize {
    outcomes.values().map(names_of).sum()
}

fn names_of(result: &Result<Outcome>) -> usize {
    match result {
        Ok(Outcome::Multi(done)) => done.names.len(),
        _ => 0,
    }
}
