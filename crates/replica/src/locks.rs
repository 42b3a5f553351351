//! Acquire's turns at the master (P§2.4): what the queue decides is proposed, and what the log decides is told. A
//! grant is a log entry; the queue is the master's memory (`lock_queue.rs`).

use crate::events::Audience;
use crate::lock_queue::Waiter;
use crate::master::Master;
use crate::proposals::Origin;
use crate::timers::Timer;
use crate::{Answer, Asker, Replica};
use alloc::string::ToString;
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::limits::LOCK_WAITERS;
use wombat_proto::wire::{self, change, event::Kind, log, log::command::Op};
use wombat_proto::{
    Error, Generation, HandleId, Instance, Instant, LockMode, Result, Sequencer, SessionId, Slot, Token,
};
use wombat_state::Outcome;

/// How many of those who wait for a lock whose node is gone are refused in one step.
const REFUSED_AT_ONCE: usize = 1024;
/// How long the others wait for their refusal: for other steps.
const REFUSED_EVERY: Duration = Duration::from_millis(1);

impl Master {
    /// Lets a lock-delay run until `until`.
    pub(crate) fn start_delay(&mut self, instance: Instance, since: Slot, until: Instant) {
        self.locks.start_delay(instance, since, until);
        self.timers.set(until, Timer::Delay(instance, since));
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
            let Some(next) = master.locks.next_turn(node, now) else { return };
            let op = Op::Grant(log::Grant {
                instance: instance.0,
                handle: next.handle.0,
                shared: next.mode == LockMode::Shared,
                lock_delay_ms: next.lock_delay_ms,
                acquire: next.asker.number,
                clears_contents: next.clears_contents,
            });
            let origin = Origin::Grant(next.asker, instance, next.handle);
            match self.propose_grant(origin, instance, op) {
                Ok(false) => return,
                Ok(true) => {
                    let Some(master) = &mut self.master else { return };
                    let key = (next.asker.session, next.handle);
                    master.locks.update(instance, key, |waiter| waiter.proposed = true);
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
        let lock = self.state.tree().get(instance).map(|node| &node.lock);
        let holds = lock.is_some_and(|lock| lock.holder(session, handle).is_some());
        master.locks.release_proposed(instance, (session, handle), holds);
        self.grant_turns(instance);
    }

    /// Grants what could not be granted while somebody had the lock's node cached.
    pub(crate) fn take_turns(&mut self, instance: Instance) {
        self.grant_turns(instance);
        let Some(master) = self.master.as_ref().filter(|_| !self.turn_waits(instance)) else { return };
        for waiter in master.locks.tries(instance).copied().collect::<Vec<_>>() {
            self.turn_away(instance, waiter);
        }
    }

    /// The log has decided about a release.
    pub(crate) fn released(&mut self, asker: Asker, instance: Instance, handle: HandleId) {
        let Some(master) = &mut self.master else { return };
        master.locks.release_decided(instance, (asker.session, handle));
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
        let back = master.locks.update(instance, (session, handle), |waiter| waiter.proposed = false);
        let Some(waiter) = back else { return };
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

    /// Refuses those who wait for a lock whose node is gone: so many in one step, and the rest in later
    /// steps.
    pub(crate) fn refuse_waiters(&mut self, instance: Instance) {
        let Ok(master) = self.serving() else { return };
        let first = master.locks.queue(instance).take(REFUSED_AT_ONCE);
        for waiter in first.copied().collect::<Vec<_>>() {
            self.dismiss(instance, waiter.asker.session, waiter.handle, Error::StaleHandle);
        }
        let later = self.moment.now + REFUSED_EVERY;
        if let Some(master) = self.master.as_mut().filter(|master| master.locks.waiting_for(instance) > 0) {
            master.timers.set(later, Timer::RefuseWaiters(instance));
        }
    }

    /// Dismisses a session that has ended from every queue, and lets those behind it have their turn.
    pub(crate) fn dismiss_session(&mut self, session: SessionId) {
        let Ok(master) = self.serving() else { return };
        for (instance, handle) in master.locks.waits_of(session).collect::<Vec<_>>() {
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
            Some((delay.since, master.locks.delay_left(instance, delay.since, self.moment.now).is_some()))
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
        let (Some(node), Some(master)) = (self.state.tree().get(instance), &self.master) else { return };
        // A lock may have tens of thousands of holders, of which few want to know.
        let subscribed = master.subscribers.of(instance);
        let holders = subscribed.filter(|(session, handle)| node.lock.holder(*session, *handle).is_some());
        let holders = holders.collect();
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
        master.publish((audience, holders), Kind::LockConflict, self.state.stamp(), None);
    }
}
