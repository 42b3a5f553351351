//! Random commands against a naive model: flat lists, everything looked up by walking, obviously right.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;
use wombat_proto::wire::log::{self, command::Op};
use wombat_proto::wire::{self, NewNode};
use wombat_proto::{Error, LockMode, NodePath, Slot};
use wombat_state::{Node, Outcome, State};

/// Session, handle, shared, token, lock-delay in milliseconds.
type Holder = (u64, u64, bool, u64, u32);

/// A node of the model.
#[derive(Clone, PartialEq, Debug)]
struct Item {
    instance: u64,
    directory: bool,
    ephemeral: bool,
    contents: Vec<u8>,
    generation: u64,
    lock_generation: u64,
    permits: u32,
    holders: Vec<Holder>,
    /// Since which slot, whether shared, for how many milliseconds.
    delay: Option<(u64, bool, u32)>,
    openers: Vec<(u64, u64)>,
    /// The holder with whose grant the contents end.
    author: Option<(u64, u64)>,
}

/// The model: nodes by their paths (`""` is the root, `"/a"` a child), sessions with the answers they got.
#[derive(Clone, Default)]
struct Model {
    items: BTreeMap<String, Item>,
    sessions: BTreeMap<u64, BTreeMap<u64, String>>,
    /// By instance of the directory, the number that last completed a name in it.
    numbered: BTreeMap<u64, u64>,
    /// Who broke a lock, and what was noted.
    audit: Vec<(u64, String)>,
    epoch: u64,
    last_instance: u64,
}

/// What a test does. Small numbers stand for "one of those that there are".
#[derive(Clone, Debug)]
enum Step {
    BeginEpoch,
    OldEpoch,
    CreateSession,
    EndSession {
        who: usize,
        asked: bool,
        delay_over: bool,
    },
    Create {
        who: usize,
        place: usize,
        name: u8,
        kind: Kind,
        permits: u32,
        must: bool,
        sequential: bool,
    },
    OpenEphemeral {
        who: usize,
        what: usize,
    },
    Close {
        who: usize,
        what: usize,
        handle: u64,
    },
    Set {
        who: usize,
        what: usize,
        byte: u8,
        guess: u64,
    },
    Delete {
        who: usize,
        what: usize,
        handle: u64,
        delay_over: bool,
    },
    Grant {
        who: usize,
        what: usize,
        handle: u64,
        shared: bool,
        delay_ms: u32,
        clears: bool,
        delay_over: bool,
    },
    Release {
        who: usize,
        what: usize,
        handle: u64,
    },
    Break {
        who: usize,
        what: usize,
        whose: Whose,
        delay_over: bool,
    },
    Multi {
        who: usize,
        one: usize,
        other: usize,
        name: u8,
        byte: u8,
        sequential: bool,
    },
    Retry {
        who: usize,
        which: usize,
    },
}

#[derive(Clone, Copy, Debug)]
struct Kind {
    directory: bool,
    ephemeral: bool,
}

/// Whose lock is broken.
#[derive(Clone, Copy, Debug)]
enum Whose {
    Everybodys,
    TheLasts,
    NobodysAnyMore,
}

/// What children are called. The last is what a number may make of the first.
const NAMES: [&str; 4] = ["a", "b", "c", "a0000000002"];

fn step() -> impl Strategy<Value = Step> {
    let who = 0..3usize;
    let what = 0..8usize;
    let handle = 1..4u64;
    let kind = any::<(bool, bool)>().prop_map(|(directory, ephemeral)| Kind { directory, ephemeral });
    let whose = prop_oneof![Just(Whose::Everybodys), Just(Whose::TheLasts), Just(Whose::NobodysAnyMore)];
    prop_oneof![
        1 => Just(Step::BeginEpoch),
        1 => Just(Step::OldEpoch),
        2 => Just(Step::CreateSession),
        1 => (who.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(who, asked, delay_over)| Step::EndSession { who, asked, delay_over }),
        6 => (who.clone(), what.clone(), 0..4u8, kind, 0..3u32, any::<bool>(), any::<bool>()).prop_map(
            |(who, place, name, kind, permits, must, sequential)| {
                Step::Create { who, place, name, kind, permits, must, sequential }
            }
        ),
        2 => (who.clone(), what.clone()).prop_map(|(who, what)| Step::OpenEphemeral { who, what }),
        3 => (who.clone(), what.clone(), handle.clone())
            .prop_map(|(who, what, handle)| Step::Close { who, what, handle }),
        4 => (who.clone(), what.clone(), any::<u8>(), 0..4u64)
            .prop_map(|(who, what, byte, guess)| Step::Set { who, what, byte, guess }),
        3 => (who.clone(), what.clone(), handle.clone(), any::<bool>())
            .prop_map(|(who, what, handle, delay_over)| Step::Delete { who, what, handle, delay_over }),
        8 => (who.clone(), what.clone(), handle.clone(), any::<bool>(), 0..2u32, any::<(bool, bool)>()).prop_map(
            |(who, what, handle, shared, delay, (clears, delay_over))| {
                Step::Grant { who, what, handle, shared, delay_ms: delay * 5000, clears, delay_over }
            }
        ),
        4 => (who.clone(), what.clone(), handle).prop_map(|(who, what, handle)| Step::Release { who, what, handle }),
        3 => (who.clone(), what.clone(), whose, any::<bool>())
            .prop_map(|(who, what, whose, delay_over)| Step::Break { who, what, whose, delay_over }),
        3 => (who.clone(), what.clone(), what, 0..4u8, any::<u8>(), any::<bool>()).prop_map(
            |(who, one, other, name, byte, sequential)| Step::Multi { who, one, other, name, byte, sequential }
        ),
        2 => (who, 0..4usize).prop_map(|(who, which)| Step::Retry { who, which }),
    ]
}

impl Item {
    /// Takes the lock from holders who do not give it back.
    fn abandon(&mut self, slot: u64, over: &[u64], who: impl Fn(&Holder) -> bool) {
        // In the order of handles, as the state keeps them.
        self.holders.sort_unstable();
        for (_, _, shared, _, delay) in self.holders.extract_if(.., |holder| who(holder)) {
            if delay > 0 {
                let running = self.delay.filter(|(since, ..)| !over.contains(since));
                self.delay = Some((slot, shared, delay.max(running.map_or(0, |(.., ms)| ms))));
            }
        }
    }
}

impl Model {
    fn path(&self, what: usize) -> String {
        self.items.keys().nth(what % self.items.len()).unwrap().clone()
    }

    fn session(&self, who: usize) -> u64 {
        self.sessions.keys().nth(who).copied().unwrap_or(999_999)
    }

    fn path_of(&self, instance: u64) -> Option<String> {
        Some(self.items.iter().find(|(_, item)| item.instance == instance)?.0.clone())
    }

    fn has_children(&self, path: &str) -> bool {
        self.items.keys().any(|other| other.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')))
    }

    /// Returns the path of the new node.
    fn create(&mut self, slot: u64, parent: &str, name: &str, new: &NewNode) -> Result<String, Error> {
        let directory = self.items.get(parent).ok_or(Error::not_found(""))?;
        if !directory.directory {
            return Err(Error::NotDirectory);
        }
        let mut path = format!("{parent}/{name}");
        let numbered = self.numbered.entry(directory.instance).or_default();
        while new.sequential && (path.ends_with(name) || self.items.contains_key(&path)) {
            *numbered += 1;
            path = format!("{parent}/{name}{numbered:010}");
        }
        self.last_instance = slot.max(self.last_instance + 1);
        let item = Item {
            instance: self.last_instance,
            directory: new.directory,
            ephemeral: new.ephemeral,
            contents: new.contents.to_vec(),
            generation: if new.directory { 0 } else { 1 },
            lock_generation: 0,
            permits: new.permits,
            holders: Vec::new(),
            author: None,
            delay: None,
            openers: Vec::new(),
        };
        self.items.insert(path.clone(), item);
        Ok(path)
    }

    fn write(&mut self, path: &str, contents: Vec<u8>, guess: u64) -> Result<(), Error> {
        let item = self.items.get_mut(path).ok_or(Error::not_found(""))?;
        if item.directory {
            return Err(Error::IsDirectory);
        }
        if guess != 0 && guess != item.generation {
            return Err(Error::GenerationMismatch { actual: wombat_proto::Generation(0) });
        }
        (item.contents, item.generation) = (contents, item.generation + 1);
        Ok(())
    }

    fn remove(&mut self, path: &str, who: (u64, u64), over: &[u64]) -> Result<(), Error> {
        let item = &self.items[path];
        if path.is_empty() {
            return Err(Error::invalid(""));
        }
        if self.has_children(path) {
            return Err(Error::NotEmpty);
        }
        if item.holders.iter().any(|holder| (holder.0, holder.1) != who) {
            return Err(Error::LockHeld);
        }
        if item.delay.is_some_and(|(since, ..)| !over.contains(&since)) {
            return Err(Error::LockDelayed { remaining: Duration::ZERO });
        }
        self.items.remove(path);
        self.sweep();
        Ok(())
    }

    /// Removes ephemeral nodes that nobody has open, until there are none.
    fn sweep(&mut self) {
        loop {
            let orphan = |path: &String, item: &Item| {
                item.ephemeral && item.openers.is_empty() && !self.has_children(path)
            };
            let Some((path, _)) = self.items.iter().find(|(path, item)| orphan(path, item)) else { return };
            let path = path.clone();
            self.items.remove(&path);
        }
    }

    fn grant(&mut self, slot: u64, session: u64, grant: &log::Grant, over: &[u64]) -> Result<(), Error> {
        let path = self.path_of(grant.instance).ok_or(Error::StaleHandle)?;
        let item = self.items.get_mut(&path).unwrap();
        if item.holders.iter().any(|holder| (holder.0, holder.1) == (session, grant.handle)) {
            return Err(Error::LockHeld);
        }
        let exclusive = item.holders.iter().any(|holder| !holder.2);
        let full = grant.shared && item.permits > 0 && item.holders.len() >= item.permits as usize;
        if exclusive || full || (!grant.shared && !item.holders.is_empty()) {
            return Err(Error::LockHeld);
        }
        if let Some((since, shared, _)) = item.delay
            && (!shared || !grant.shared)
        {
            if !over.contains(&since) {
                return Err(Error::LockDelayed { remaining: Duration::ZERO });
            }
            item.delay = None;
        }
        if item.holders.is_empty() {
            item.lock_generation += 1;
        }
        item.holders.push((session, grant.handle, grant.shared, slot, grant.lock_delay_ms));
        item.author = grant.clears_contents.then_some((session, grant.handle));
        Ok(())
    }

    /// Empties the files whose author holds their lock no more.
    fn clear_contents(&mut self) {
        for item in self.items.values_mut() {
            let holds = |author: (u64, u64)| item.holders.iter().any(|holder| (holder.0, holder.1) == author);
            if item.author.is_some_and(|author| !holds(author)) {
                item.author = None;
                if !item.directory && !item.contents.is_empty() {
                    (item.contents, item.generation) = (Vec::new(), item.generation + 1);
                }
            }
        }
    }

    fn end_session(&mut self, slot: u64, session: u64, asked: bool, over: &[u64]) {
        self.sessions.remove(&session);
        for item in self.items.values_mut() {
            if asked {
                item.holders.retain(|holder| holder.0 != session);
            }
            item.abandon(slot, over, |holder| holder.0 == session);
            item.openers.retain(|opener| opener.0 != session);
        }
        self.clear_contents();
        self.sweep();
    }
}

/// A state and its model, and the log that led to them.
struct Pair {
    state: State,
    model: Model,
    slot: u64,
    /// By how much what is made is named ahead of its slot: each epoch begins at a multiple of 2,048.
    lead: u64,
    number: u64,
    log: Vec<(Slot, log::Command)>,
}

fn class(result: &Result<Outcome, Error>) -> String {
    match result {
        Ok(_) => "ok".into(),
        Err(error) => error.name().into(),
    }
}

impl Pair {
    fn new() -> Pair {
        let model = Model::default();
        let mut pair = Pair { state: State::new(), model, slot: 0, lead: 0, number: 0, log: Vec::new() };
        let found = log::FoundCell { cell: "test".into(), key: vec![1; 32].into() };
        pair.apply(0, 0, &[], Op::FoundCell(found)).unwrap();
        let root = Item {
            instance: 1,
            directory: true,
            ephemeral: false,
            contents: Vec::new(),
            generation: 0,
            lock_generation: 0,
            permits: 0,
            holders: Vec::new(),
            author: None,
            delay: None,
            openers: Vec::new(),
        };
        pair.model.items.insert(String::new(), root);
        pair.model.last_instance = 1;
        pair.run(Step::BeginEpoch);
        pair
    }

    fn apply(&mut self, session: u64, number: u64, over: &[u64], op: Op) -> Result<Outcome, Error> {
        self.slot += 1;
        let command = log::Command {
            epoch: self.model.epoch,
            wall_ms: self.slot,
            session,
            number,
            acknowledged: 0,
            delays_over: over.to_vec(),
            op: Some(op),
        };
        let applied = self.state.apply(Slot(self.slot), &command);
        self.log.push((Slot(self.slot), command));
        if applied.result.is_err() {
            assert!(applied.changes.is_empty(), "what is refused changes nothing");
        }
        applied.result
    }

    /// A change of a session: what the state says must be what the model says; unless the session is gone.
    fn change(
        &mut self,
        session: u64,
        over: &[u64],
        op: Op,
        model: impl FnOnce(&mut Model, u64) -> Result<(), Error>,
    ) {
        self.number += 1;
        let number = self.number;
        let result = self.apply(session, number, over, op);
        if !self.model.sessions.contains_key(&session) {
            assert_eq!(class(&result), "SessionExpired");
            return;
        }
        let stamp = self.stamp();
        let expected = model(&mut self.model, stamp);
        self.model.clear_contents();
        let expected = match expected {
            Ok(()) => "ok".to_owned(),
            Err(error) => error.name().to_owned(),
        };
        assert_eq!(class(&result), expected, "slot {}: {result:?}", self.slot);
        self.model.sessions.get_mut(&session).unwrap().insert(number, format!("{result:?}"));
    }

    fn stamp(&self) -> u64 {
        self.slot + self.lead
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::BeginEpoch => {
                self.model.epoch += 1;
                self.lead = self.lead.max((2048 * self.model.epoch).saturating_sub(self.slot + 1));
                self.apply(
                    0,
                    0,
                    &[],
                    Op::BeginEpoch(log::BeginEpoch {
                        lease_ms: 12_000,
                        cache_lease_ms: 2_000,
                        restored: false,
                    }),
                )
                .unwrap();
            }
            Step::OldEpoch => {
                // I15: nothing changes but the slot.
                self.model.epoch -= 1;
                let result = self.apply(0, 0, &[], Op::CreateSession(log::CreateSession::default()));
                self.model.epoch += 1;
                assert_eq!(class(&result), "StaleEpoch");
            }
            Step::CreateSession => {
                self.apply(0, 0, &[], Op::CreateSession(log::CreateSession::default())).unwrap();
                let stamp = self.stamp();
                self.model.sessions.insert(stamp, BTreeMap::new());
            }
            Step::EndSession { who, asked, delay_over } => {
                let session = self.model.session(who);
                let over = if delay_over { self.all_delays() } else { Vec::new() };
                let end = log::EndSessions { sessions: vec![session], asked };
                self.apply(0, 0, &over, Op::EndSessions(end)).unwrap();
                let stamp = self.stamp();
                self.model.end_session(stamp, session, asked, &over);
            }
            Step::Retry { who, which } => self.retry(who, which),
            Step::Multi { who, one, other, name, byte, sequential } => {
                self.multi(who, one, other, NAMES[name as usize], byte, sequential);
            }
            step => self.on_node(step),
        }
    }

    fn all_delays(&self) -> Vec<u64> {
        self.model.items.values().filter_map(|item| Some(item.delay?.0)).collect()
    }

    fn on_node(&mut self, step: Step) {
        let handle = self.number + 1; // That of an Open is its own number.
        match step {
            Step::Create {
                who,
                place,
                name,
                kind: Kind { directory, ephemeral },
                permits,
                must,
                sequential,
            } => {
                let (session, parent) = (self.model.session(who), self.model.path(place));
                let name = NAMES[name as usize];
                let new = NewNode { directory, ephemeral, permits, sequential, ..NewNode::default() };
                let parent_instance = self.model.items[&parent].instance;
                let open = log::Open {
                    parent: parent_instance,
                    name: name.into(),
                    handle,
                    must_create: must,
                    node: Some(new.clone()),
                    instance: 0,
                };
                self.change(session, &[], Op::Open(open), |model, slot| {
                    let mut path = format!("{parent}/{name}");
                    match model.items.get(&path).filter(|_| !sequential) {
                        Some(_) if must => return Err(Error::AlreadyExists),
                        Some(item) if item.directory && !directory => return Err(Error::IsDirectory),
                        Some(item) if !item.directory && directory => return Err(Error::NotDirectory),
                        Some(_) => {}
                        None => path = model.create(slot, &parent, name, &new)?,
                    }
                    let item = model.items.get_mut(&path).unwrap();
                    if item.ephemeral {
                        item.openers.push((session, handle));
                    }
                    Ok(())
                });
            }
            Step::OpenEphemeral { who, what } => {
                let (session, path) = (self.model.session(who), self.model.path(what));
                let instance = self.model.items[&path].instance;
                let open = log::Open { instance, handle, ..log::Open::default() };
                self.change(session, &[], Op::Open(open), |model, _| {
                    let item = model.items.get_mut(&path).unwrap();
                    if item.ephemeral {
                        item.openers.push((session, handle));
                    }
                    Ok(())
                });
            }
            Step::Close { who, what, handle } => {
                let (session, path) = (self.model.session(who), self.model.path(what));
                let instance = self.model.items[&path].instance;
                // Handles of ephemerals have numbers of their own: now and then one of those.
                let opener = self.model.items[&path].openers.first().filter(|o| o.0 == session).map(|o| o.1);
                let handle = opener.unwrap_or(handle);
                self.change(session, &[], Op::Close(log::Close { instance, handle }), |model, _| {
                    let item = model.items.get_mut(&path).unwrap();
                    item.holders.retain(|holder| (holder.0, holder.1) != (session, handle));
                    item.openers.retain(|opener| *opener != (session, handle));
                    model.sweep();
                    Ok(())
                });
            }
            Step::Set { who, what, byte, guess } => {
                let (session, path) = (self.model.session(who), self.model.path(what));
                let instance = self.model.items[&path].instance;
                let contents = vec![byte; 3];
                let set = log::SetContents {
                    instance,
                    contents: contents.clone().into(),
                    if_generation: guess,
                    handle: 1,
                };
                let write = Op::SetContents(set);
                self.change(session, &[], write, |model, _| model.write(&path, contents, guess));
            }
            Step::Delete { who, what, handle, delay_over } => {
                let (session, path) = (self.model.session(who), self.model.path(what));
                let instance = self.model.items[&path].instance;
                let over = if delay_over { self.all_delays() } else { Vec::new() };
                let delete = Op::Delete(log::Delete { instance, handle });
                self.change(session, &over.clone(), delete, |model, _| {
                    model.remove(&path, (session, handle), &over)
                });
            }
            Step::Grant { who, what, handle, shared, delay_ms, clears, delay_over } => {
                let (session, path) = (self.model.session(who), self.model.path(what));
                let instance = self.model.items[&path].instance;
                let over = if delay_over { self.all_delays() } else { Vec::new() };
                let grant = log::Grant {
                    instance,
                    handle,
                    shared,
                    lock_delay_ms: delay_ms,
                    acquire: self.number + 1,
                    clears_contents: clears && !shared,
                };
                self.change(session, &over.clone(), Op::Grant(grant), |model, slot| {
                    model.grant(slot, session, &grant, &over)
                });
                // A grant's answer is not kept: it is found again by its handle.
                if let Some(answers) = self.model.sessions.get_mut(&session) {
                    answers.remove(&self.number);
                }
            }
            Step::Release { who, what, handle } => {
                let (session, path) = (self.model.session(who), self.model.path(what));
                let instance = self.model.items[&path].instance;
                self.change(session, &[], Op::Release(log::Release { instance, handle }), |model, _| {
                    let holders = &mut model.items.get_mut(&path).unwrap().holders;
                    let before = holders.len();
                    holders.retain(|holder| (holder.0, holder.1) != (session, handle));
                    if holders.len() == before { Err(Error::NotHeld) } else { Ok(()) }
                });
            }
            Step::Break { who, what, whose, delay_over } => {
                let (session, path) = (self.model.session(who), self.model.path(what));
                let item = &self.model.items[&path];
                let all: Vec<u64> = item.holders.iter().map(|holder| holder.3).collect();
                let tokens = match whose {
                    Whose::Everybodys => all,
                    Whose::TheLasts => all.into_iter().max().into_iter().collect(),
                    Whose::NobodysAnyMore => vec![item.instance],
                };
                let over = if delay_over { self.all_delays() } else { Vec::new() };
                let what = format!("the lock of {path}");
                let (instance, tokens_told) = (item.instance, tokens.clone());
                let broken = log::BreakLock { instance, tokens, what: what.clone() };
                self.change(session, &over.clone(), Op::BreakLock(broken), |model, slot| {
                    let item = model.items.get_mut(&path).unwrap();
                    let had = item.holders.len();
                    item.abandon(slot, &over, |holder| tokens_told.contains(&holder.3));
                    let none =
                        if item.holders.len() == had { " (given back when it was asked for)" } else { "" };
                    model.audit.push((session, format!("{what}{none}")));
                    Ok(())
                });
            }
            step => unreachable!("{step:?}"),
        }
    }

    /// A deletion, a creation and a write, as one: any of them may fail, and then none may show.
    fn multi(&mut self, who: usize, one: usize, other: usize, name: &str, byte: u8, sequential: bool) {
        let session = self.model.session(who);
        let (deleted, parent) = (self.model.path(one), self.model.path(other));
        // Or, if it gets a number, what it would be called without.
        let created = format!("{parent}/{name}");
        let whole = |path: &str| format!("/ls/test{path}");
        let new = NewNode { contents: vec![byte].into(), sequential, ..NewNode::default() };
        let changes = [
            wire::change::Change::Delete(whole(&deleted)),
            wire::change::Change::Create(wire::CreateNode { path: whole(&created), node: Some(new.clone()) }),
            wire::change::Change::Set(wire::SetNode {
                path: whole(&created),
                contents: vec![byte; 2].into(),
            }),
        ];
        let changes = changes.into_iter().map(|change| wire::Change { change: Some(change) }).collect();
        let steps = Some(wire::Multi { guards: Vec::new(), changes });
        self.change(session, &[], Op::Multi(log::Multi { steps }), |model, slot| {
            let before = model.clone();
            let result =
                model.remove(&deleted, (session, 0), &[]).map_err(|error| error.at_step(1)).and_then(|()| {
                    if model.items.contains_key(&created) && !sequential {
                        // The order of checks: the directory first, then the name.
                        let error = match model.items[&parent].directory {
                            true => Error::AlreadyExists,
                            false => Error::NotDirectory,
                        };
                        return Err(error.at_step(2));
                    }
                    model.create(slot, &parent, name, &new).map_err(|error| error.at_step(2))?;
                    model.write(&created, vec![byte; 2], 0).map_err(|error| error.at_step(3))
                });
            if result.is_err() {
                *model = before;
            }
            result
        });
    }

    /// I13: a retry gets the first answer and changes nothing.
    fn retry(&mut self, who: usize, which: usize) {
        let session = self.model.session(who);
        let Some(answers) = self.model.sessions.get(&session).filter(|answers| !answers.is_empty()) else {
            return;
        };
        let (number, expected) = answers.iter().nth_back(which % answers.len()).unwrap();
        let (number, expected) = (*number, expected.clone());
        let again =
            self.log.iter().find(|(_, c)| (c.session, c.number) == (session, number)).unwrap().1.clone();
        let before = self.state.digest_but_slot();
        let result = self.apply(session, number, &again.delays_over, again.op.unwrap());
        assert_eq!(format!("{result:?}"), expected);
        assert_eq!(self.state.digest_but_slot(), before);
    }

    fn check(&self) {
        self.state.check();
        let tree = self.state.tree();
        assert_eq!(tree.len(), self.model.items.len());
        for (path, item) in &self.model.items {
            let node = tree.find(&NodePath::parse(path.trim_start_matches('/')).unwrap());
            let node = node.unwrap_or_else(|| panic!("{path} is missing"));
            assert_eq!(seen(node), sorted(item.clone()), "{path}");
        }
        let sessions: Vec<u64> =
            self.state.sessions_after(wombat_proto::SessionId(0)).map(|(id, _)| id.0).collect();
        assert_eq!(sessions, self.model.sessions.keys().copied().collect::<Vec<_>>());
        let audit = self.state.audit_after(Slot(0)).map(|entry| (entry.session, entry.what.clone()));
        assert_eq!(audit.collect::<Vec<_>>(), self.model.audit);
    }

    /// I19: replay and snapshot give the same state as was live.
    fn check_replay(&self) {
        let mut replayed = State::new();
        for (slot, command) in &self.log {
            replayed.apply(*slot, command);
        }
        assert_eq!(replayed.digest(), self.state.digest());
        let restored = State::restore(self.state.snapshot()).unwrap();
        restored.check();
        assert_eq!(restored.digest(), self.state.digest());
    }
}

trait DigestButSlot {
    fn digest_but_slot(&self) -> String;
}

impl DigestButSlot for State {
    /// Everything of a state but the slot that it is after.
    fn digest_but_slot(&self) -> String {
        let mut all = format!("{:?}", self.tree());
        for (id, session) in self.sessions_after(wombat_proto::SessionId(0)) {
            all.push_str(&format!("{id:?}{session:?}"));
        }
        self.audit_after(Slot(0)).for_each(|entry| all.push_str(&format!("{entry:?}")));
        all
    }
}

/// A node of the state, as the model would have it.
fn seen(node: &Node) -> Item {
    let stat = node.stat();
    sorted(Item {
        instance: stat.instance,
        directory: stat.directory,
        ephemeral: stat.ephemeral,
        contents: node.contents().map(|contents| contents.to_vec()).unwrap_or_default(),
        generation: stat.content_generation,
        lock_generation: stat.lock_generation,
        permits: stat.permits,
        holders: node
            .lock
            .holders()
            .map(|((session, handle), holder)| {
                let delay = holder.lock_delay.as_millis() as u32;
                (session.0, handle.0, holder.mode == LockMode::Shared, holder.token.0, delay)
            })
            .collect(),
        delay: node
            .lock
            .delay()
            .map(|delay| (delay.since.0, delay.mode == LockMode::Shared, delay.length.as_millis() as u32)),
        author: node
            .lock
            .holders()
            .find(|(_, holder)| holder.clears_contents)
            .map(|((session, handle), _)| (session.0, handle.0)),
        openers: node.openers.keys().map(|(session, handle)| (session.0, handle.0)).collect(),
    })
}

fn sorted(mut item: Item) -> Item {
    item.holders.sort_unstable();
    item.openers.sort_unstable();
    item
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_state_does_what_the_model_does(steps in prop::collection::vec(step(), 1..80)) {
        let mut pair = Pair::new();
        pair.run(Step::CreateSession);
        for step in steps {
            pair.run(step);
            pair.check();
        }
        pair.check_replay();
    }
}
