//! Who waits for which lock, and whose turn it is (P§2.4). First come, first served: a shared request never
//! overtakes a waiting exclusive one. The queue is the master's memory; a grant is a log entry.

use crate::events::Audience;
use crate::master::Master;
use crate::proposals::Origin;
use crate::timers::Timer;
use crate::{Answer, Asker, Replica};
use alloc::collections::btree_map::{BTreeMap, Entry};
use alloc::collections::{BTreeSet, VecDeque};
use alloc::string::ToString;
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::limits::LOCK_WAITERS;
use wombat_proto::wire::{self, change, event::Kind, log, log::command::Op};
use wombat_proto::{
    Error, Generation, HandleId, Instance, Instant, LockMode, Result, Sequencer, SessionId, Slot, Token,
};
use wombat_state::{Node, Outcome};

/// The queues of all locks, and the lock-delays that run.
#[derive(Default)]
pub(crate) struct Locks {
    queues: BTreeMap<Instance, VecDeque<Waiter>>,
    /// The same waiters by session, for when one ends. A handle waits at most once.
    by_session: BTreeSet<(SessionId, Instance, HandleId)>,
    /// When each running lock-delay passes; one that is not here has passed. One entry may begin several, so
    /// that a slot alone names none.
    delays: BTreeMap<(Slot, Instance), Instant>,
    /// How many releases of a handle are on their way into the log. The next grant follows them there at once:
    /// that the lock is free by then is checked where the grant takes effect.
    leaving: BTreeMap<(Instance, SessionId, HandleId), u32>,
}

/// An Acquire that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiter {
    pub(crate) asker: Asker,
    pub(crate) handle: HandleId,
    pub(crate) mode: LockMode,
    pub(crate) lock_delay_ms: u32,
    /// Since when it waits. Who waited at an earlier master has waited since before this one was there.
    pub(crate) since: Instant,
    /// When it gives up; never, if `None`.
    pub(crate) deadline: Option<Instant>,
    /// Whether it takes the lock at once or not at all.
    pub(crate) only_try: bool,
    /// Whether its grant is on its way into the log. From then on only the log decides.
    pub(crate) proposed: bool,
}

impl Waiter {
    fn timer(&self, instance: Instance) -> Timer {
        Timer::Acquire(instance, self.asker.session, self.handle, self.asker.number)
    }
}

impl Locks {
    /// How many Acquires wait, in all.
    pub(crate) fn waiting(&self) -> usize {
        self.by_session.len()
    }

    /// How many Acquires wait for one lock.
    pub(crate) fn waiting_for(&self, instance: Instance) -> usize {
        self.queues.get(&instance).map_or(0, VecDeque::len)
    }

    /// Who waits for one lock, in the order of their turns.
    pub(crate) fn queue(&self, instance: Instance) -> impl Iterator<Item = &Waiter> {
        self.queues.get(&instance).into_iter().flatten()
    }

    /// Whether somebody waits for a lock without a grant on its way.
    fn is_waited_for(&self, instance: Instance) -> bool {
        self.queue(instance).any(|waiter| !waiter.proposed)
    }

    /// The locks that somebody waits for.
    pub(crate) fn waited_for(&self) -> impl Iterator<Item = Instance> {
        self.queues.keys().copied()
    }

    /// Where a handle waits.
    pub(crate) fn waiter(
        &mut self,
        instance: Instance,
        session: SessionId,
        handle: HandleId,
    ) -> Option<&mut Waiter> {
        let queue = self.queues.get_mut(&instance)?;
        queue.iter_mut().find(|waiter| waiter.asker.session == session && waiter.handle == handle)
    }

    fn push(&mut self, instance: Instance, waiter: Waiter) {
        self.by_session.insert((waiter.asker.session, instance, waiter.handle));
        let queue = self.queues.entry(instance).or_default();
        let ahead = |other: &Waiter| other.proposed || other.since <= waiter.since;
        let place = queue.iter().rposition(ahead).map_or(0, |last| last + 1);
        queue.insert(place, waiter);
    }

    fn remove(&mut self, instance: Instance, session: SessionId, handle: HandleId) -> Option<Waiter> {
        self.by_session.remove(&(session, instance, handle));
        let queue = self.queues.get_mut(&instance)?;
        let at = queue.iter().position(|w| w.asker.session == session && w.handle == handle)?;
        let waiter = queue.remove(at);
        if queue.is_empty() {
            self.queues.remove(&instance);
        }
        waiter
    }

    /// How much of a delay is left; `None` if it has passed.
    pub(crate) fn delay_left(&self, instance: Instance, since: Slot, now: Instant) -> Option<Duration> {
        Some(self.delays.get(&(since, instance))?.since(now))
    }

    /// The locks whose delay runs.
    pub(crate) fn delayed(&self) -> impl Iterator<Item = Instance> {
        self.delays.keys().map(|(_, instance)| *instance)
    }

    /// Whether a grant in `mode` must wait for the lock's delay, and how long.
    fn delay_against(&self, node: &Node, mode: LockMode, now: Instant) -> Option<Duration> {
        self.delay_left(node.instance, node.lock.delay_against(mode)?.since, now)
    }

    /// The waiter whose turn it is, if one can hold the lock now beside those whose grants are on their way.
    fn next_turn(&self, instance: Instance, node: &Node, now: Instant) -> Option<Waiter> {
        let queue = self.queues.get(&instance)?;
        let on_the_way = queue.iter().filter(|waiter| waiter.proposed);
        let exclusive = on_the_way.clone().any(|waiter| waiter.mode == LockMode::Exclusive);
        let next = queue.iter().find(|waiter| !waiter.proposed)?;
        let stays = |(session, handle): &(SessionId, HandleId)| {
            self.leaving.is_empty() || !self.leaving.contains_key(&(instance, *session, *handle))
        };
        let room = node.lock.room_beside(next.mode, node.permits, stays) > on_the_way.count() && !exclusive;
        (room && self.delay_against(node, next.mode, now).is_none()).then_some(*next)
    }
}

impl Master {
    /// Lets a lock-delay run until `until`.
    pub(crate) fn start_delay(&mut self, instance: Instance, since: Slot, until: Instant) {
        self.locks.delays.insert((since, instance), until);
        self.timers.set(until, Timer::Delay(instance, since));
    }

    /// A lock-delay has passed, unless it was made longer by another holder that ended with the first.
    pub(crate) fn end_delay(&mut self, instance: Instance, since: Slot, now: Instant) {
        if self.locks.delays.get(&(since, instance)).is_some_and(|until| *until <= now) {
            self.locks.delays.remove(&(since, instance));
        }
    }

    /// Takes a waiter out of its queue.
    pub(crate) fn remove_waiter(
        &mut self,
        instance: Instance,
        session: SessionId,
        handle: HandleId,
    ) -> Option<Waiter> {
        let waiter = self.locks.remove(instance, session, handle)?;
        if let Some(deadline) = waiter.deadline {
            self.timers.clear(deadline, waiter.timer(instance));
        }
        Some(waiter)
    }
}

impl Replica {
    /// Puts an Acquire into its lock's queue, and grants what can be granted.
    pub(crate) fn enqueue(&mut self, instance: Instance, waiter: Waiter) -> Result<()> {
        let master = self.serving()?;
        if master.locks.waiting_for(instance) >= LOCK_WAITERS {
            return Err(Error::Overloaded { retry_after: Duration::from_secs(1) });
        }
        master.locks.push(instance, waiter);
        if let Some(deadline) = waiter.deadline {
            master.timers.set(deadline, waiter.timer(instance));
        }
        self.grant_turns(instance);
        let (session, handle) = (waiter.asker.session, waiter.handle);
        let Some(master) = &mut self.master else { return Ok(()) };
        let must_wait = master.locks.waiter(instance, session, handle).is_some_and(|w| !w.proposed);
        if !must_wait {
            return Ok(());
        }
        match waiter.only_try {
            true if self.turn_waits(instance) => {} // It may be the next.
            true => self.turn_away(instance, waiter),
            false => self.tell_holders_of_conflict(instance),
        }
        Ok(())
    }

    /// Dismisses an Acquire that only tries, and cannot have the lock now.
    fn turn_away(&mut self, instance: Instance, waiter: Waiter) {
        let (Some(master), Some(node)) = (&self.master, self.state.tree().get(instance)) else { return };
        let delay = master.locks.delay_against(node, waiter.mode, self.moment.now);
        let refusal = delay.map_or(Error::LockHeld, |remaining| Error::LockDelayed { remaining });
        self.dismiss(instance, waiter.asker.session, waiter.handle, refusal);
    }

    /// Proposes a grant for each waiter whose turn it is.
    pub(crate) fn grant_turns(&mut self, instance: Instance) {
        let now = self.moment.now;
        loop {
            let Some(master) = &mut self.master else { return };
            let Some(node) = self.state.tree().get(instance) else { return };
            let Some(next) = master.locks.next_turn(instance, node, now) else { return };
            let op = Op::Grant(log::Grant {
                instance: instance.0,
                handle: next.handle.0,
                shared: next.mode == LockMode::Shared,
                lock_delay_ms: next.lock_delay_ms,
                acquire: next.asker.number,
            });
            let origin = Origin::Grant(next.asker, instance, next.handle);
            match self.propose_grant(origin, instance, op) {
                Ok(false) => return,
                Ok(true) => {
                    let Some(master) = &mut self.master else { return };
                    let waiter = master.locks.waiter(instance, next.asker.session, next.handle);
                    waiter.expect("it was just found").proposed = true;
                }
                Err(error) => self.dismiss(instance, next.asker.session, next.handle, error),
            }
        }
    }

    /// Proposes that a holder is none any more, and gives those who wait for the lock their turns: their grants
    /// stand behind it in the log.
    pub(crate) fn propose_release(
        &mut self,
        asker: Asker,
        acknowledged: u64,
        (instance, handle): (Instance, HandleId),
        op: Op,
    ) -> Result<Option<Answer>> {
        self.propose(Origin::Release(asker, instance, handle), acknowledged, op)?;
        Ok(None)
    }

    /// A release is on its way into the log.
    pub(crate) fn leaves(&mut self, session: SessionId, instance: Instance, handle: HandleId) {
        let Some(master) = &mut self.master else { return };
        *master.locks.leaving.entry((instance, session, handle)).or_default() += 1;
        self.grant_turns(instance);
    }

    /// Grants what could not be granted while somebody had the lock's node cached.
    pub(crate) fn take_turns(&mut self, instance: Instance) {
        self.grant_turns(instance);
        let Some(master) = self.master.as_ref().filter(|_| !self.turn_waits(instance)) else { return };
        let tries = master.locks.queue(instance).filter(|waiter| waiter.only_try && !waiter.proposed);
        for waiter in tries.copied().collect::<Vec<_>>() {
            self.turn_away(instance, waiter);
        }
    }

    /// The log has decided about a release.
    pub(crate) fn released(&mut self, asker: Asker, instance: Instance, handle: HandleId) {
        let Some(master) = &mut self.master else { return };
        if let Entry::Occupied(mut releases) = master.locks.leaving.entry((instance, asker.session, handle)) {
            *releases.get_mut() -= 1;
            if *releases.get() == 0 {
                releases.remove();
            }
        }
    }

    /// The log has decided about a grant.
    pub(crate) fn granted(
        &mut self,
        asker: Asker,
        instance: Instance,
        handle: HandleId,
        result: Result<Outcome>,
    ) {
        let Ok(master) = self.serving() else { return };
        match result {
            Ok(Outcome::Granted { token, generation }) => {
                let asker = match master.remove_waiter(instance, asker.session, handle) {
                    Some(waiter) => waiter.asker, // It may have come again on another connection.
                    None => asker,
                };
                let answer = self.granted_answer(asker.session, instance, handle, token, generation);
                self.reply(asker, answer);
            }
            Err(Error::LockHeld | Error::LockDelayed { .. }) => {
                self.turn_passed(instance, asker.session, handle);
            }
            Ok(_) => unreachable!("a grant's outcome is Granted"),
            Err(error) => self.dismiss(instance, asker.session, handle, error),
        }
    }

    /// The turn of a waiter has passed for now, because a holder's session ended with a lock-delay, or a release
    /// that it stood behind has failed. It waits on, unless it has given up meanwhile: then only the log's word
    /// was missing.
    fn turn_passed(&mut self, instance: Instance, session: SessionId, handle: HandleId) {
        let now = self.moment.now;
        let Ok(master) = self.serving() else { return };
        let Some(waiter) = master.locks.waiter(instance, session, handle) else { return };
        waiter.proposed = false;
        let waiter = *waiter;
        let open = master.sessions.get(&session).and_then(|live| live.handles.get(handle));
        if open.is_none_or(|open| open.has_ended(waiter.asker.number)) {
            self.dismiss(instance, session, handle, Error::Cancelled);
        } else if waiter.deadline.is_some_and(|deadline| deadline <= now) {
            self.dismiss(instance, session, handle, Error::Timeout);
        } else if waiter.only_try {
            self.turn_away(instance, waiter);
        }
    }

    /// What an Acquire or a GetSequencer answers.
    pub(crate) fn granted_answer(
        &self,
        session: SessionId,
        instance: Instance,
        handle: HandleId,
        token: Token,
        generation: Generation,
    ) -> Result<Answer> {
        let node = self.state.tree().get(instance).ok_or(Error::StaleHandle)?;
        let mode = node.lock.holder(session, handle).ok_or(Error::NotHeld)?.mode;
        let path = self.state.path_of(node).ok_or(Error::StaleHandle)?;
        let sequencer = Sequencer { path, instance, mode, generation, token }.to_string();
        Ok(Answer::Granted(wire::Granted { sequencer }))
    }

    /// Takes a waiter out of its queue and tells it why.
    pub(crate) fn dismiss(&mut self, instance: Instance, session: SessionId, handle: HandleId, error: Error) {
        let Ok(master) = self.serving() else { return };
        let Some(waiter) = master.remove_waiter(instance, session, handle) else { return };
        let open = master.sessions.get_mut(&session).and_then(|live| live.handles.get_mut(handle));
        if let Some(open) = open {
            open.end_acquires(waiter.asker.number, Some(error.clone()));
        }
        self.reply(waiter.asker, Err(error));
    }

    /// Dismisses everyone who waits for a lock whose node is gone.
    pub(crate) fn dismiss_all(&mut self, instance: Instance) {
        let Ok(master) = self.serving() else { return };
        let queue = master.locks.queues.get(&instance).cloned().unwrap_or_default();
        for waiter in queue {
            self.dismiss(instance, waiter.asker.session, waiter.handle, Error::StaleHandle);
        }
    }

    /// Dismisses a session that has ended from every queue, and lets those behind it have their turn.
    pub(crate) fn dismiss_session(&mut self, session: SessionId) {
        let Ok(master) = self.serving() else { return };
        let from = (session, Instance(0), HandleId(0));
        let to = (session, Instance(u64::MAX), HandleId(u64::MAX));
        for (_, instance, handle) in master.locks.by_session.range(from..=to).copied().collect::<Vec<_>>() {
            self.dismiss(instance, session, handle, Error::SessionExpired);
            self.grant_turns(instance);
        }
    }

    /// An Acquire has waited for as long as it wanted to. One whose grant is on its way is past giving up.
    pub(crate) fn time_out(&mut self, instance: Instance, session: SessionId, handle: HandleId, number: u64) {
        let Ok(master) = self.serving() else { return };
        let waiter = master.locks.waiter(instance, session, handle);
        if waiter.is_some_and(|waiter| waiter.asker.number == number && !waiter.proposed) {
            self.dismiss(instance, session, handle, Error::Timeout);
            self.grant_turns(instance);
        }
    }

    /// The lock-delays that have passed, of the nodes that a command is about: what it must say to be let past
    /// them. It names a delay by its slot, and so none of which another of those nodes still has to wait for.
    pub(crate) fn delays_over(&self, op: &Op) -> Vec<u64> {
        let Some(master) = &self.master else { return Vec::new() };
        let delays = self.locked_nodes(op).into_iter().filter_map(|instance| {
            let delay = self.state.tree().get(instance)?.lock.delay()?;
            Some((delay.since, master.locks.delays.contains_key(&(delay.since, instance))))
        });
        let (running, over): (Vec<_>, Vec<_>) = delays.partition(|(_, runs)| *runs);
        over.into_iter()
            .filter(|(since, _)| !running.contains(&(*since, true)))
            .map(|(since, _)| since.0)
            .collect()
    }

    /// The nodes whose lock-delays decide what comes of a command.
    fn locked_nodes(&self, op: &Op) -> Vec<Instance> {
        match op {
            Op::Grant(grant) => [Instance(grant.instance)].into(),
            Op::BreakLock(broken) => [Instance(broken.instance)].into(),
            Op::Delete(delete) => [Instance(delete.instance)].into(),
            Op::EndSessions(end) => {
                let sessions = end.sessions.iter().filter_map(|id| self.state.session(SessionId(*id)));
                sessions.flat_map(|session| session.locks().map(|(instance, _)| instance)).collect()
            }
            Op::Multi(log::Multi { steps: Some(multi) }) => {
                let deleted = multi.changes.iter().filter_map(|change| match &change.change {
                    Some(change::Change::Delete(path)) => self.parse(path).ok(),
                    _ => None,
                });
                deleted.filter_map(|path| Some(self.state.tree().find(&path)?.instance)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn tell_holders_of_conflict(&mut self, instance: Instance) {
        let Some(node) = self.state.tree().get(instance) else { return };
        let holders = node.lock.holders().map(|(key, _)| key).collect();
        self.tell_of_conflict(instance, (Audience::Holders(instance), holders));
    }

    /// Tells a handle that holds a lock that somebody waits for it, if somebody does. Who came before its grant, or
    /// before its handle was made again at this master, would be waited out in vain by a holder that keeps the
    /// lock until it is wanted.
    pub(crate) fn tell_of_waiters(&mut self, instance: Instance, (session, handle): (SessionId, HandleId)) {
        let Some(node) = self.state.tree().get(instance) else { return };
        if node.lock.holder(session, handle).is_some() {
            self.tell_of_conflict(instance, (Audience::One, [(session, handle)].into()));
        }
    }

    /// Tells these holders of a lock that somebody waits for it, if somebody does and they want to hear of that.
    fn tell_of_conflict(
        &mut self,
        instance: Instance,
        (audience, mut holders): (Audience, Vec<(SessionId, HandleId)>),
    ) {
        let Some(master) = self.master.as_mut().filter(|m| m.locks.is_waited_for(instance)) else { return };
        let sessions = &master.sessions;
        holders.retain(|(session, handle)| {
            sessions.get(session).is_some_and(|live| live.handles.wants(*handle, Kind::LockConflict))
        });
        master.publish((audience, holders), Kind::LockConflict, self.state.applied(), None);
    }
}
