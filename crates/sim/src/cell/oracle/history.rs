//! The log as someone sees it who sees everything: each command at the instant at which the first replica
//! applies it, and what must hold of it then (SPEC §11). It keeps books of its own of all that it judges by;
//! the state that it applies to is only what the books are compared with.

use super::events::Events;
use super::locks::Locks;
use super::stale::Stale;
use crate::cell::tally::Tally;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wombat_proto::wire::{self, change, guard, log, log::command::Op};
use wombat_proto::{Epoch, Error, HandleId, Instance, SessionId, Slot, Token, Value};
use wombat_state::{Applied, Change, Outcome, State};

/// Of how many slots one has its digest kept.
const SAMPLED: u64 = 4;

/// What the world knows of the client of a session, at the instant at which a command is applied.
pub(in crate::cell) trait Witness {
    /// Whether the client's own view says that the session lives.
    fn is_live(&self, session: SessionId) -> bool;
    /// Whether the client has asked for the end of its session.
    fn has_asked_to_end(&self, session: SessionId) -> bool;
    /// Whether the client has asked for something and has no answer.
    fn waits_for(&self, session: SessionId, number: u64) -> bool;
}

/// A command of a session, and what it did.
struct Done<'a> {
    slot: Slot,
    session: SessionId,
    number: u64,
    applied: &'a Applied,
}

#[derive(Default)]
pub(in crate::cell) struct History {
    state: State,
    digests: BTreeMap<Slot, u64>,
    epoch: Epoch,
    sessions: BTreeSet<SessionId>,
    locks: Locks,
    pub(in crate::cell) events: Events,
    pub(in crate::cell) stale: Stale,
    last_instance: u64,
    /// The ephemeral nodes and who has them open.
    ephemerals: BTreeMap<Instance, BTreeSet<(SessionId, HandleId)>>,
    /// The contents of each file by generation.
    contents: BTreeMap<Instance, BTreeMap<u64, Vec<u8>>>,
    /// In which slot it got which generation.
    written: BTreeMap<(Instance, Slot), u64>,
    /// The requests that have taken effect.
    effective: BTreeSet<(SessionId, u64)>,
    /// Which request each lock was granted to.
    granted: BTreeMap<Token, (SessionId, u64)>,
    /// The requests about sequencers that the log has answered: a copy is told the same, whatever holds by then.
    answered: BTreeSet<(SessionId, u64)>,
}

impl History {
    /// The state after the last slot that any replica has applied.
    pub(in crate::cell) fn state(&self) -> &State {
        &self.state
    }

    pub(in crate::cell) fn last(&self) -> Slot {
        self.state.applied()
    }

    pub(in crate::cell) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(in crate::cell) fn lives(&self, session: SessionId) -> bool {
        self.sessions.contains(&session)
    }

    pub(in crate::cell) fn is_freed(&self, token: Token) -> bool {
        self.locks.is_freed(token)
    }

    /// Whether a handle held its lock after that slot.
    pub(in crate::cell) fn held_at(&self, session: SessionId, handle: HandleId, slot: Slot) -> bool {
        self.locks.held_at((session, handle), slot)
    }

    /// The generation that a file's contents got in a slot.
    pub(in crate::cell) fn generation_of(&self, instance: Instance, slot: Slot) -> Option<u64> {
        self.written.get(&(instance, slot)).copied()
    }

    /// What a generation of a file's contents is.
    pub(in crate::cell) fn contents(&self, instance: Instance, generation: u64) -> Option<&[u8]> {
        Some(self.contents.get(&instance)?.get(&generation)?)
    }

    /// Whatever was written to any file.
    pub(in crate::cell) fn all_contents(&self) -> impl Iterator<Item = &[u8]> {
        self.contents.values().flat_map(|generations| generations.values().map(Vec::as_slice))
    }

    /// I19: a replica's state after a slot is what everyone's is.
    pub(in crate::cell) fn compare(&self, state: &State) {
        if let Some(digest) = self.digests.get(&state.applied()) {
            assert_eq!(*digest, state.digest(), "I19: the states after slot {} differ", state.applied());
        }
    }

    /// A replica has applied the next slot, the first to do so.
    pub(in crate::cell) fn chosen(
        &mut self,
        value: &Value,
        now: Duration,
        witness: &impl Witness,
        tally: &mut Tally,
    ) {
        let slot = self.last().next();
        match value {
            Value::Noop | Value::Members(_) => self.state.skip(slot),
            Value::Command(bytes) => {
                let command = prost::Message::decode(bytes.clone()).expect("a command can be read");
                self.command(slot, &command, now, witness, tally);
            }
        }
        self.stale.note(&self.state);
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
        let slot = self.state.stamp(); // As clients see it.
        if begins && command.epoch > self.epoch.0 {
            self.epoch = Epoch(command.epoch);
            self.locks.begin_epoch(now, tally);
            tally.count("masters");
        }
        let (session, number) = (SessionId(command.session), command.number);
        if !applied.changes.is_empty() && number != 0 {
            self.once(session, number, command);
        }
        self.forget_broken(command, witness);
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
            (Some(Op::Close(close)), Ok(_)) if self.sessions.contains(&session) => {
                let (instance, handle) = (Instance(close.instance), HandleId(close.handle));
                self.locks.closed(instance, (session, handle), slot);
                if let Some(openers) = self.ephemerals.get_mut(&instance) {
                    openers.remove(&(session, handle));
                }
            }
            (Some(Op::Open(open)), Ok(Outcome::Opened { created, stat })) => {
                if *created && !applied.changes.is_empty() {
                    self.created(stat);
                }
                if stat.ephemeral {
                    self.opened(session, Instance(stat.instance), HandleId(open.handle));
                }
            }
            (Some(Op::Multi(multi)), Ok(Outcome::Multi(made))) if !applied.changes.is_empty() => {
                self.guarded(session, multi);
                tally.count(match changes_of(multi).count() {
                    _ if multi_is_guarded(multi) => "guarded writes",
                    1 | 2 => "changes by path",
                    _ => "floods",
                });
                for (change, stat) in changes_of(multi).zip(&made.stats) {
                    if matches!(change, change::Change::Create(_)) {
                        self.created(stat);
                    }
                }
            }
            (Some(op), _) => {
                let done = Done { slot, session, number, applied: &applied };
                self.command_of_lock(done, op, now, tally);
            }
            (None, _) => {}
        }
        self.note_contents(slot, &applied);
        for change in &applied.changes {
            self.events.note(slot, change);
        }
        self.check_ephemerals();
    }

    /// What is about locks, and about handles that are tied to one.
    fn command_of_lock(&mut self, done: Done<'_>, op: &Op, now: Duration, tally: &mut Tally) {
        let Done { slot, session, number, applied } = done;
        let effective = !applied.changes.is_empty();
        let who = |handle: u64| (session, HandleId(handle));
        match (op, &applied.result) {
            (Op::Grant(grant), Ok(Outcome::Granted { token, .. })) if token.0 == slot.0 => {
                self.granted.insert(*token, (session, number));
                self.locks.grant(session, grant, *token, now, tally);
            }
            (Op::Release(release), Ok(_)) if effective => {
                self.locks.free(Instance(release.instance), who(release.handle), slot);
            }
            (Op::BreakLock(broken), Ok(_)) if effective => {
                self.locks.broken(Instance(broken.instance), &broken.tokens, slot, now, tally);
            }
            (Op::Delete(delete), Ok(_)) if effective => {
                self.locks.check_tied(who(delete.handle), "a deletion");
                self.locks.deleted(Instance(delete.instance), who(delete.handle), slot, now);
                self.ephemerals.remove(&Instance(delete.instance));
                tally.count("deletions");
            }
            (Op::SetContents(set), Ok(_)) if effective => {
                self.locks.check_tied(who(set.handle), "a write");
            }
            (Op::SetContents(set), Err(Error::SequencerStale)) if self.answered.insert((session, number)) => {
                let stale = self.locks.is_fenced_off(who(set.handle));
                assert!(stale, "a write was refused for a sequencer that is valid");
                tally.count("writes that the log refused for a stale sequencer");
            }
            (Op::SetSequencer(set), result) if self.answered.insert((session, number)) && result.is_ok() => {
                self.locks.tie(who(set.handle), Token(set.token));
            }
            _ => {}
        }
    }

    /// A node was made. Its instance is greater than that of any before.
    fn created(&mut self, stat: &wire::Stat) {
        assert!(
            stat.instance > self.last_instance,
            "instance {} after {}",
            stat.instance,
            self.last_instance
        );
        self.last_instance = stat.instance;
        self.locks.created(Instance(stat.instance), stat.permits);
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

    /// Whoever has not heard of a grant that is broken before he has may be granted the lock again.
    fn forget_broken(&mut self, command: &log::Command, witness: &impl Witness) {
        let Some(Op::BreakLock(broken)) = &command.op else { return };
        for token in &broken.tokens {
            let request = self.granted.get(&Token(*token));
            if let Some(request) = request.filter(|(session, number)| witness.waits_for(*session, *number)) {
                self.effective.remove(request);
            }
        }
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
        self.locks.end_session(session, asked, self.state.stamp(), now, tally);
        for openers in self.ephemerals.values_mut() {
            openers.retain(|(one, _)| *one != session);
        }
    }

    /// An ephemeral node was opened. A retry may be told so although it has been closed since.
    fn opened(&mut self, session: SessionId, instance: Instance, handle: HandleId) {
        if self.state.session(session).is_some_and(|session| session.has_handle(instance, handle)) {
            self.ephemerals.entry(instance).or_default().insert((session, handle));
        }
    }

    /// A Multi that is guarded by a lock takes effect only while its session holds it.
    fn guarded(&self, session: SessionId, multi: &log::Multi) {
        let steps = multi.steps.as_ref().expect("a Multi has steps");
        for one in &steps.guards {
            if let Some(guard::Guard::LockHeld(path)) = &one.guard {
                let path = wombat_proto::Path::parse(path).expect("a good path");
                let node = self.state.tree().find(&path.node).expect("a locked node exists");
                let holds = self.locks.holds(node.instance, session);
                assert!(holds, "a change was made under a lock that session {session} does not hold");
            }
        }
    }

    /// Of several writes that one entry makes, nobody ever sees any but the last.
    fn note_contents(&mut self, slot: Slot, applied: &Applied) {
        let mut writes: BTreeMap<Instance, u64> = BTreeMap::new();
        for change in &applied.changes {
            if let Change::ContentsModified { instance } = change {
                *writes.entry(*instance).or_default() += 1;
            }
        }
        for (instance, writes) in writes {
            let node = self.state.tree().get(instance).expect("a file that was written exists");
            let generations = self.contents.entry(instance).or_default();
            let before = generations.last_key_value().map_or(1, |(generation, _)| *generation);
            let generation = node.stat().content_generation;
            assert_eq!(generation, before + writes, "a write makes the next generation");
            generations.insert(generation, node.contents().expect("it is a file").to_vec());
            self.written.insert((instance, slot), generation);
        }
    }

    /// I11: an ephemeral node exists iff a session that lives has it open or, of a directory, something is in it.
    fn check_ephemerals(&mut self) {
        let node = |instance: &Instance| self.state.tree().get(*instance);
        let has_children = |instance: &Instance| {
            let children = node(instance).and_then(|node| node.children());
            children.is_some_and(|children| !children.is_empty())
        };
        for (instance, openers) in &self.ephemerals {
            let (there, kept) = (node(instance).is_some(), !openers.is_empty() || has_children(instance));
            assert_eq!(there, kept, "I11: node {instance} is open by {openers:?}");
        }
        let state = &self.state;
        self.ephemerals.retain(|instance, _| state.tree().get(*instance).is_some());
        let known = self.state.tree().nodes().filter(|node| node.ephemeral).count();
        assert_eq!(known, self.ephemerals.len(), "I11: an ephemeral node that nobody has opened");
    }
}

fn changes_of(multi: &log::Multi) -> impl Iterator<Item = &change::Change> {
    multi.steps.iter().flat_map(|steps| &steps.changes).filter_map(|change| change.change.as_ref())
}

fn multi_is_guarded(multi: &log::Multi) -> bool {
    multi.steps.as_ref().is_some_and(|steps| !steps.guards.is_empty())
}
