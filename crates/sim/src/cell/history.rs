//! The log as someone sees it who sees everything: each command at the instant at which the first replica
//! applies it, and what must hold of it then (SPEC §11). It keeps books of its own of all that it judges by;
//! the state that it applies to is only what the books are compared with.

use super::tally::Tally;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wombat_proto::wire::{change, guard, log, log::command::Op};
use wombat_proto::{Epoch, HandleId, Instance, LockMode, SessionId, Slot, Token, Value};
use wombat_state::{Applied, Change, Outcome, State};

/// Of how many slots one has its digest kept.
const SAMPLED: u64 = 4;

/// What the world knows of the client of a session, at the instant at which a command is applied.
pub(super) trait Witness {
    /// Whether the client's own view says that the session lives.
    fn is_live(&self, session: SessionId) -> bool;
    /// Whether the client has asked for the end of its session.
    fn has_asked_to_end(&self, session: SessionId) -> bool;
}

#[derive(Clone, Copy)]
struct Held {
    mode: LockMode,
    token: Token,
    lock_delay: Duration,
}

#[derive(Default)]
pub(super) struct History {
    state: State,
    digests: BTreeMap<Slot, u64>,
    epoch: Epoch,
    sessions: BTreeSet<SessionId>,
    locks: BTreeMap<Instance, BTreeMap<(SessionId, HandleId), Held>>,
    /// Until when nobody may have a lock, in a mode that conflicts.
    delays: BTreeMap<Instance, (Duration, LockMode)>,
    /// The ephemeral nodes and who has them open.
    ephemerals: BTreeMap<Instance, BTreeSet<(SessionId, HandleId)>>,
    /// The contents of each file by generation.
    contents: BTreeMap<Instance, BTreeMap<u64, Vec<u8>>>,
    /// The requests that have taken effect.
    effective: BTreeSet<(SessionId, u64)>,
    last_token: Token,
    /// The grants that are over.
    freed: BTreeSet<Token>,
}

impl History {
    /// The state after the last slot that any replica has applied.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    pub(super) fn last(&self) -> Slot {
        self.state.applied()
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(super) fn lives(&self, session: SessionId) -> bool {
        self.sessions.contains(&session)
    }

    pub(super) fn is_freed(&self, token: Token) -> bool {
        self.freed.contains(&token)
    }

    /// What a generation of a file's contents is.
    pub(super) fn contents(&self, instance: Instance, generation: u64) -> Option<&[u8]> {
        Some(self.contents.get(&instance)?.get(&generation)?)
    }

    /// Whatever was written to any file.
    pub(super) fn all_contents(&self) -> impl Iterator<Item = &[u8]> {
        self.contents.values().flat_map(|generations| generations.values().map(Vec::as_slice))
    }

    /// I19: a replica's state after a slot is what everyone's is.
    pub(super) fn compare(&self, state: &State) {
        if let Some(digest) = self.digests.get(&state.applied()) {
            assert_eq!(*digest, state.digest(), "I19: the states after slot {} differ", state.applied());
        }
    }

    /// A replica has applied the next slot, the first to do so.
    pub(super) fn chosen(&mut self, value: &Value, now: Duration, witness: &impl Witness, tally: &mut Tally) {
        let slot = self.last().next();
        match value {
            Value::Noop | Value::Members(_) => self.state.skip(slot),
            Value::Command(bytes) => {
                let command = prost::Message::decode(bytes.clone()).expect("a command can be read");
                self.command(slot, &command, now, witness, tally);
            }
        }
        if slot.0.is_multiple_of(SAMPLED) {
            self.digests.insert(slot, self.state.digest());
        }
    }

    fn command(
        &mut self,
        slot: Slot,
        command: &log::Command,
        now: Duration,
        witness: &impl Witness,
        tally: &mut Tally,
    ) {
        let begins = matches!(command.op, Some(Op::BeginEpoch(_)));
        if command.epoch < self.epoch.0 {
            return self.command_of_the_past(slot, command, tally);
        }
        let applied = self.state.apply(slot, command);
        if begins && command.epoch > self.epoch.0 {
            self.epoch = Epoch(command.epoch);
            tally.count("masters");
        }
        let (session, number) = (SessionId(command.session), command.number);
        if !applied.changes.is_empty() && number != 0 {
            self.once(session, number, command);
        }
        match (&command.op, &applied.result) {
            (Some(Op::CreateSession(_)), Ok(Outcome::Session(id))) => {
                tally.count("sessions");
                assert!(self.sessions.insert(*id), "a session begins once");
            }
            (Some(Op::EndSessions(end)), Ok(_)) => {
                for id in &end.sessions {
                    self.end_session(SessionId(*id), end.asked, now, witness, tally);
                }
            }
            (Some(Op::Grant(grant)), Ok(Outcome::Granted { token, .. })) if token.0 == slot.0 => {
                tally.count("grants");
                self.grant(session, grant, *token, now);
            }
            (Some(Op::Release(release)), Ok(_)) if !applied.changes.is_empty() => {
                self.free(Instance(release.instance), session, HandleId(release.handle));
            }
            (Some(Op::Close(close)), Ok(_)) if self.sessions.contains(&session) => {
                let (instance, handle) = (Instance(close.instance), HandleId(close.handle));
                self.free(instance, session, handle);
                if let Some(openers) = self.ephemerals.get_mut(&instance) {
                    openers.remove(&(session, handle));
                }
            }
            (Some(Op::Open(open)), Ok(Outcome::Opened { stat, .. })) if stat.ephemeral => {
                self.opened(session, Instance(stat.instance), HandleId(open.handle));
            }
            (Some(Op::Multi(multi)), Ok(_)) if !applied.changes.is_empty() => {
                self.guarded(session, multi);
                tally.count("guarded writes");
            }
            _ => {}
        }
        self.note_contents(&applied);
        self.check_ephemerals();
    }

    /// I15: a command of an old epoch takes no effect.
    fn command_of_the_past(&mut self, slot: Slot, command: &log::Command, tally: &mut Tally) {
        tally.count("commands of the past");
        let mut untouched = self.state.clone();
        untouched.skip(slot);
        let applied = self.state.apply(slot, command);
        let idle = applied.changes.is_empty() && applied.result.is_err();
        assert!(idle, "I15: the command of slot {slot} is of epoch {}, not {}", command.epoch, self.epoch);
        assert_eq!(self.state.digest(), untouched.digest(), "I15: slot {slot} is of an old epoch");
    }

    /// I13, I14: a request takes effect once at most, and only while its session lives.
    fn once(&mut self, session: SessionId, number: u64, command: &log::Command) {
        if matches!(command.op, Some(Op::CreateSession(_) | Op::EndSessions(_))) {
            return;
        }
        assert!(self.sessions.contains(&session), "I14: a change of session {session}, which has ended");
        let first = self.effective.insert((session, number));
        assert!(first, "I13: request {number} of session {session} took effect twice");
    }

    fn end_session(
        &mut self,
        session: SessionId,
        asked: bool,
        now: Duration,
        witness: &impl Witness,
        tally: &mut Tally,
    ) {
        if !self.sessions.remove(&session) {
            return;
        }
        match asked {
            true => assert!(witness.has_asked_to_end(session), "session {session} was ended unasked"),
            false => assert!(!witness.is_live(session), "I5: session {session} was ended under its client"),
        }
        tally.count(if asked { "sessions ended" } else { "expiries" });
        for (instance, holders) in &mut self.locks {
            let ended: Vec<_> = holders.keys().filter(|(one, _)| *one == session).copied().collect();
            for key in ended {
                let Some(held) = holders.remove(&key) else { continue };
                self.freed.insert(held.token);
                if !asked && !held.lock_delay.is_zero() {
                    // By the fastest of clocks.
                    let real = held.lock_delay * 1000 / 1010;
                    let (until, mode) = self.delays.get(instance).copied().unwrap_or((now, held.mode));
                    let mode = if mode == LockMode::Exclusive { mode } else { held.mode };
                    self.delays.insert(*instance, (until.max(now + real), mode));
                    tally.count("lock-delays");
                }
            }
        }
        for openers in self.ephemerals.values_mut() {
            openers.retain(|(one, _)| *one != session);
        }
    }

    /// I3, I4, I7: a lock is granted to one or to those who share, with a token greater than every other, and
    /// not before a lock-delay has passed.
    fn grant(&mut self, session: SessionId, grant: &log::Grant, token: Token, now: Duration) {
        let instance = Instance(grant.instance);
        let mode = if grant.shared { LockMode::Shared } else { LockMode::Exclusive };
        assert!(token > self.last_token, "I4: token {token} after {}", self.last_token);
        self.last_token = token;
        if let Some((until, delayed)) = self.delays.get(&instance).copied() {
            if delayed == LockMode::Exclusive || mode == LockMode::Exclusive {
                assert!(now >= until, "I7: a lock was granted {:?} before its delay had passed", until - now);
            }
            if now >= until {
                self.delays.remove(&instance);
            }
        }
        let lock_delay = Duration::from_millis(grant.lock_delay_ms.into());
        let holders = self.locks.entry(instance).or_default();
        holders.insert((session, HandleId(grant.handle)), Held { mode, token, lock_delay });
        let exclusive = holders.values().any(|held| held.mode == LockMode::Exclusive);
        assert!(!exclusive || holders.len() == 1, "I3: several hold the lock of node {instance}");
    }

    /// An ephemeral node was opened. A retry may be told so although it has been closed since.
    fn opened(&mut self, session: SessionId, instance: Instance, handle: HandleId) {
        if self.state.session(session).is_some_and(|session| session.has_handle(instance, handle)) {
            self.ephemerals.entry(instance).or_default().insert((session, handle));
        }
    }

    fn free(&mut self, instance: Instance, session: SessionId, handle: HandleId) {
        let held = self.locks.get_mut(&instance).and_then(|holders| holders.remove(&(session, handle)));
        self.freed.extend(held.map(|held| held.token));
    }

    /// A Multi that is guarded by a lock takes effect only while its session holds it.
    fn guarded(&self, session: SessionId, multi: &log::Multi) {
        let steps = multi.steps.as_ref().expect("a Multi has steps");
        for one in &steps.guards {
            if let Some(guard::Guard::LockHeld(path)) = &one.guard {
                let path = wombat_proto::Path::parse(path).expect("a good path");
                let node = self.state.tree().find(&path.node).expect("a locked node exists");
                let holders = self.locks.get(&node.instance);
                let holds = holders.is_some_and(|holders| holders.keys().any(|(one, _)| *one == session));
                assert!(holds, "a change was made under a lock that session {session} does not hold");
            }
        }
        let whole = steps.changes.iter().all(|one| matches!(one.change, Some(change::Change::Set(_))));
        assert!(whole, "the simulation's clients only write in a Multi");
    }

    fn note_contents(&mut self, applied: &Applied) {
        for change in &applied.changes {
            let Change::ContentsModified { instance } = change else { continue };
            let node = self.state.tree().get(*instance).expect("a file that was written exists");
            let generations = self.contents.entry(*instance).or_default();
            let before = generations.last_key_value().map_or(1, |(generation, _)| *generation);
            let generation = node.stat().content_generation;
            assert_eq!(generation, before + 1, "a write makes the next generation");
            generations.insert(generation, node.contents().expect("it is a file").to_vec());
        }
    }

    /// I11: an ephemeral node exists iff a session that lives has it open.
    fn check_ephemerals(&mut self) {
        let there = |instance: &Instance| self.state.tree().get(*instance).is_some();
        for (instance, openers) in &self.ephemerals {
            assert_eq!(there(instance), !openers.is_empty(), "I11: node {instance} is open by {openers:?}");
        }
        self.ephemerals.retain(|_, openers| !openers.is_empty());
        let known = self.state.tree().nodes().filter(|node| node.ephemeral).count();
        assert_eq!(known, self.ephemerals.len(), "I11: an ephemeral node that nobody has opened");
    }
}
