//! What follows when the log has decided: the change is applied, then told, then answered.

use crate::proposals::Origin;
use crate::timers::Timer;
use crate::{Answer, Asker, Replica, activity};
use alloc::vec::Vec;
use bytes::Bytes;
use core::time::Duration;
use prost::Message;
use wombat_proto::wire::{self, Handle, log, log::command::Op};
use wombat_proto::{Error, Instant, Result, SessionId, Slot};
use wombat_state::{Change, Outcome};

impl Replica {
    pub(crate) fn chosen(&mut self, slot: Slot, command: Bytes) {
        let command = log::Command::decode(command).expect("this replica encoded the command itself");
        let applied = self.state.apply(slot, &command);
        let stamp = self.state.stamp();
        if self.config.activity {
            self.effects.activity.extend(activity::describe(&self.state, &command, &applied));
        }
        match (&command.op, &applied.result) {
            (_, Ok(Outcome::Digest { digest, next })) => self.digest_taken(slot, *digest, *next),
            (Some(Op::CompareDigest(compare)), Ok(_)) => self.compare_digest(compare),
            (Some(Op::SetLease(_)), _) => self.leases_were_set(),
            (Some(Op::AllowCacheLeases(logged)), Ok(_)) => self.cache_leases_were_logged(logged),
            _ => {}
        }
        if matches!(command.op, Some(Op::BeginEpoch(_)))
            && self.paxos.leads() == Some(self.state.epoch())
            && self.master.is_none()
        {
            self.become_master();
        }
        for change in &applied.changes {
            self.note_holders(change);
            self.publish_change(stamp, change);
        }
        let (origin, keys) = self.proposals.take(slot);
        if let Some(master) = &mut self.master {
            master.cache.applied(slot, &keys);
        }
        self.answer(origin, applied.result);
        for change in applied.changes {
            self.follow(change);
        }
    }

    /// A slot without a command is chosen: a no-op, or other members.
    pub(crate) fn chosen_no_command(&mut self, slot: Slot) {
        self.state.skip(slot);
        if let (Origin::Join(asker, replica), _) = self.proposals.take(slot) {
            let joined = wire::Joined { replica: replica.0, cell_id: alloc::string::String::new() };
            self.reply(asker, Ok(Answer::Joined(joined)));
        }
    }

    fn answer(&mut self, origin: Origin, result: Result<Outcome>) {
        match origin {
            Origin::Own => {}
            Origin::Plain(asker) => self.reply(asker, result.map(plain_answer)),
            Origin::CreateSession(asker) => match result {
                Ok(Outcome::Session(session)) => self.session_created(asker, session),
                Ok(_) => unreachable!("the outcome of CreateSession is a session"),
                Err(error) => self.reply(asker, Err(error)),
            },
            Origin::Join(..) => unreachable!("a change of members is no command"),
            Origin::Open(asker, unsealed) => self.opened(asker, unsealed, result),
            Origin::Release(asker, instance, handle) => {
                self.released(asker, instance, handle);
                self.reply(asker, result.map(plain_answer));
            }
            Origin::Grant(asker, instance, handle) => {
                self.granted(asker, instance, handle, result);
                self.grant_turns(instance);
                self.tell_of_waiters(instance, (asker.session, handle));
            }
        }
    }

    /// Answers an Open that went through the log: seals the handle for the node that it came to.
    pub(crate) fn opened(&mut self, asker: Asker, unsealed: Handle, result: Result<Outcome>) {
        let answer = match result {
            Ok(Outcome::Opened { created, stat }) => {
                let unsealed = Handle { instance: stat.instance, ..unsealed };
                self.finish_open(asker, unsealed, created, stat)
            }
            Ok(_) => Err(Error::invalid("the request's number was used for another call")),
            Err(error) => Err(error),
        };
        self.reply(asker, answer);
    }

    fn session_created(&mut self, asker: Asker, session: SessionId) {
        let until = self.moment.now + self.lease();
        let caches = self.state.session(session).is_some_and(|session| session.caches);
        let Ok(master) = self.serving() else { return };
        master.admit(session, until, caches);
        let answer = self.session_opened(asker.connection, session);
        self.reply(asker, answer);
    }

    /// Notes who holds a lock now, and lets the clock of a lock-delay run, before anything that follows gives
    /// anyone a turn: a delay that is not known to run counts as over.
    fn note_holders(&mut self, change: &Change) {
        let now = self.moment.now;
        let Some(master) = &mut self.master else { return };
        match change {
            Change::LockAcquired { instance, holder } => {
                master.locks.holder_changed(*instance, *holder, true)
            }
            Change::LockReleased { instance, holder } => {
                master.locks.holder_changed(*instance, *holder, false)
            }
            Change::LockDelayed { instance, holder, since, length } => {
                master.locks.holder_changed(*instance, *holder, false);
                master.start_delay(*instance, *since, now + *length);
            }
            _ => {}
        }
    }

    /// Does in the master's memory what an applied change asks for.
    fn follow(&mut self, change: Change) {
        let Some(master) = &mut self.master else { return };
        match change {
            // A lock-delay is in the way of those only that conflict with the holder who is gone.
            Change::LockReleased { instance, .. } | Change::LockDelayed { instance, .. } => {
                self.grant_turns(instance);
            }
            Change::Deleted { instance } => {
                master.subscribers.forget_node(instance);
                self.refuse_waiters(instance);
            }
            Change::SessionEnded { session } => self.forget_session(session),
            Change::ContentsModified { .. }
            | Change::ChildAdded { .. }
            | Change::ChildRemoved { .. }
            | Change::ChildModified { .. }
            | Change::LockAcquired { .. }
            | Change::LockBroken { .. } => {}
        }
    }

    /// Drops the memory of a session that has ended, and tells whoever still waits in its name.
    fn forget_session(&mut self, session: SessionId) {
        self.dismiss_session(session);
        let Some(master) = &mut self.master else { return };
        let parked = master.unpark(session);
        master.fail_over.settled(session);
        master.forget_cache(session);
        if let Some(live) = master.sessions.remove(&session) {
            master.timers.clear(live.lease.until, Timer::Lease(session));
            for handle in live.handles.open() {
                master.subscribers.remove(session, &handle.token);
            }
            if let Some(connection) = live.connection.and_then(|id| self.connections.get_mut(&id)) {
                connection.sessions.remove(&session);
            }
        }
        if let Some(asker) = parked {
            self.reply(asker, Err(Error::SessionExpired));
        }
    }

    /// Does what was due when all that has been heard since arrived.
    pub(crate) fn run_timers(&mut self, heard: Instant) {
        let now = self.moment.now;
        let mut ends = Vec::new();
        for _ in 0..TIMERS_PER_TICK {
            let Some(timer) = self.master.as_mut().and_then(|master| master.timers.pop(heard)) else { break };
            match timer {
                Timer::KeepAlive(session) => {
                    if let Some(master) = &mut self.master {
                        master.notify(session);
                    }
                }
                Timer::Orphans => self.close_orphans(),
                Timer::CachesLapse => {
                    if let Some(master) = &mut self.master {
                        master.fail_over.caches_have_lapsed();
                    }
                }
                Timer::Lease(session) => ends.push(session),
                Timer::RefuseWaiters(instance) => self.refuse_waiters(instance),
                Timer::Acquire(instance, session, handle, number) => {
                    self.time_out(instance, session, handle, number);
                }
                Timer::Delay(instance, since) => {
                    if let Some(master) = &mut self.master {
                        master.locks.end_delay(instance, since, now);
                    }
                    self.grant_turns(instance);
                }
            }
        }
        if !ends.is_empty() {
            self.end_expired(ends, heard);
        }
    }
}

/// The answer that is nothing but the outcome of a change.
pub(crate) fn plain_answer(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Done => Answer::Done(wire::Done {}),
        Outcome::Written(stat) => Answer::Stat(stat),
        Outcome::Multi(done) => Answer::MultiDone(done),
        Outcome::Session(_) | Outcome::Opened { .. } | Outcome::Granted { .. } | Outcome::Digest { .. } => {
            Answer::Error((&Error::invalid("the request's number was used for another call")).into())
        }
    }
}

/// Most timers that run in one step: a crowd whose leases are due all at once must not keep the heartbeats
/// waiting. The others are due at once again.
const TIMERS_PER_TICK: usize = 4096;

/// How often timers must run at least, so that a clock that jumped in a suspend is noticed.
pub const LONGEST_TICK: Duration = Duration::from_millis(500);
