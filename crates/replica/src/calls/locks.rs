//! Acquire, Release and sequencers (P§2.4).

use crate::handles::OpenHandle;
use crate::lock_queue::Waiter;
use crate::{Answer, Asker, Replica};
use core::time::Duration;
use wombat_proto::limits::ACQUIRE_TIMEOUT;
use wombat_proto::wire::{self, log, log::command::Op, mode};
use wombat_proto::{Error, HandleId, Instant, LockMode, Result, Sequencer};

/// How long an Acquire is sent away that comes behind one whose grant is on its way into the log.
const UNDECIDED: Duration = Duration::from_millis(10);

impl Replica {
    fn lock_handle(&mut self, asker: Asker, token: Option<&wire::Handle>) -> Result<OpenHandle> {
        self.serving()?.handle_for(asker.session, token, mode::WRITE)
    }

    /// From now on, Acquires of this handle that were sent before are over.
    fn end_earlier_acquires(&mut self, asker: Asker, handle: HandleId) -> Result<()> {
        if let Some(handle) = self.serving()?.session(asker.session)?.handles.get_mut(handle) {
            handle.end_acquires(asker.number, None);
        }
        Ok(())
    }

    pub(super) fn acquire(&mut self, asker: Asker, acquire: &wire::Acquire) -> Result<Option<Answer>> {
        let timeout = Duration::from_millis(acquire.timeout_ms);
        if timeout > ACQUIRE_TIMEOUT {
            return Err(Error::invalid("a timeout is at most a year; 0 waits for as long as it takes"));
        }
        if acquire.r#try && acquire.timeout_ms != 0 {
            return Err(Error::invalid("an Acquire that only tries takes no timeout"));
        }
        if acquire.shared && acquire.clears_contents {
            return Err(Error::invalid("only an exclusive holder can have contents of its own"));
        }
        let handle = self.lock_handle(asker, acquire.handle.as_ref())?;
        let (id, instance) = (HandleId(handle.token.id), handle.instance());
        let node = self.state.tree().get(instance).ok_or(Error::StaleHandle)?;
        match node.lock.holder(asker.session, id) {
            Some(holder) if holder.acquire == asker.number => {
                let generation = node.lock.generation();
                return self.granted_answer(asker.session, instance, id, holder.token, generation).map(Some);
            }
            // What it holds is on its way back: it waits for that as for anybody else's.
            Some(holder) if handle.has_ended(holder.acquire) => {}
            Some(_) => return Err(Error::invalid("this handle holds the lock already; release it first")),
            None => {}
        }
        let locks = &mut self.serving()?.locks;
        let waiter = locks.waiter(instance, asker.session, id);
        if waiter.is_some_and(|waiter| waiter.asker.number == asker.number) {
            // It comes again, on another connection; its time runs on.
            locks.update(instance, (asker.session, id), |waiter| waiter.asker = asker);
            return Ok(None);
        }
        handle.check_acquire(asker.number)?;
        if let Some(waiter) = self.serving()?.locks.waiter(instance, asker.session, id) {
            return Err(match handle.has_ended(waiter.asker.number) {
                // It was taken back while its grant was on its way; what becomes of that is known soon.
                true => Error::Overloaded { retry_after: UNDECIDED },
                false => Error::invalid("an Acquire of this handle waits already"),
            });
        }
        let since = self.waits_since(asker, Duration::from_millis(acquire.waited_ms));
        let deadline = (acquire.timeout_ms != 0).then(|| since + timeout);
        let waiter = Waiter {
            asker,
            handle: id,
            mode: if acquire.shared { LockMode::Shared } else { LockMode::Exclusive },
            lock_delay_ms: handle.token.lock_delay_ms,
            clears_contents: acquire.clears_contents,
            since,
            deadline,
            only_try: acquire.r#try,
            proposed: false,
        };
        self.enqueue(instance, waiter).map(|()| None)
    }

    /// Since when an Acquire waits. Its client's word for having waited longer counts only for the time before
    /// this master: those that queued at an earlier one keep their turns, in the order of their waiting.
    fn waits_since(&self, asker: Asker, waited: Duration) -> Instant {
        let now = self.moment.now;
        let said = now - waited;
        let fail_over = self.master.as_ref().map(|master| &master.fail_over);
        if fail_over.is_some_and(|it| it.is_before(asker.session, said)) { said } else { now }
    }

    /// Takes an Acquire back: out of the queue, or the lock out of its hand. If its grant is on its way into
    /// the log, the release follows it there.
    pub(super) fn cancel_acquire(
        &mut self,
        asker: Asker,
        acknowledged: u64,
        cancel: &wire::CancelAcquire,
    ) -> Result<Option<Answer>> {
        let done = Ok(Some(Answer::Done(wire::Done {})));
        if self.answered_before(asker).is_some() {
            return done;
        }
        let handle = self.lock_handle(asker, cancel.handle.as_ref())?;
        let (id, instance) = (HandleId(handle.token.id), handle.instance());
        self.end_earlier_acquires(asker, id)?;
        let master = self.serving()?;
        let waiter = master.locks.waiter(instance, asker.session, id);
        let waiter = waiter.filter(|waiter| waiter.asker.number == cancel.acquire).map(|w| w.proposed);
        if waiter == Some(false) {
            self.dismiss(instance, asker.session, id, Error::Cancelled);
            self.grant_turns(instance);
            return done;
        }
        let node = self.state.tree().get(instance);
        let holder = node.and_then(|node| node.lock.holder(asker.session, id));
        if waiter.is_none() && holder.is_none_or(|holder| holder.acquire != cancel.acquire) {
            return done;
        }
        let op = Op::Release(log::Release { instance: instance.0, handle: id.0 });
        self.propose_release(asker, acknowledged, (instance, id), op)
    }

    pub(super) fn release(
        &mut self,
        asker: Asker,
        acknowledged: u64,
        release: &wire::Release,
    ) -> Result<Option<Answer>> {
        if let Some(result) = self.answered_before(asker) {
            return result.map(Some);
        }
        let handle = self.lock_handle(asker, release.handle.as_ref())?;
        let (id, instance) = (HandleId(handle.token.id), handle.instance());
        self.end_earlier_acquires(asker, id)?;
        let op = Op::Release(log::Release { instance: instance.0, handle: id.0 });
        self.propose_release(asker, acknowledged, (instance, id), op)
    }

    pub(super) fn get_sequencer(&mut self, asker: Asker, get: &wire::GetSequencer) -> Result<Answer> {
        let handle = self.lock_handle(asker, get.handle.as_ref())?;
        let (id, instance) = (HandleId(handle.token.id), handle.instance());
        let lock = &self.state.tree().get(instance).ok_or(Error::StaleHandle)?.lock;
        let token = lock.holder(asker.session, id).ok_or(Error::NotHeld)?.token;
        self.granted_answer(asker.session, instance, id, token, lock.generation())
    }

    pub(super) fn set_sequencer(
        &mut self,
        asker: Asker,
        acknowledged: u64,
        set: &wire::SetSequencer,
    ) -> Result<Option<Answer>> {
        if let Some(result) = self.answered_before(asker) {
            return result.map(Some);
        }
        let sequencer: Sequencer = set.sequencer.parse()?;
        let handle = self.serving()?.handle(asker.session, set.handle.as_ref())?;
        self.state.check_sequencer(&sequencer)?;
        let op = Op::SetSequencer(log::SetSequencer {
            handle: handle.token.id,
            instance: sequencer.instance.0,
            token: sequencer.token.0,
        });
        self.change(asker, acknowledged, op)
    }

    pub(super) fn check_sequencer(&mut self, check: &wire::CheckSequencer) -> Result<Answer> {
        let sequencer: Sequencer = check.sequencer.parse()?;
        self.state.check_sequencer(&sequencer)?;
        Ok(Answer::Done(wire::Done {}))
    }
}
