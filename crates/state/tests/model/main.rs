//! Random commands against a naive model: flat lists, everything looked up by walking, obviously right.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod naive;
mod step;

use naive::{Item, Model, seen, sorted};
use proptest::prelude::*;
use std::collections::BTreeMap;
use step::{Kind, NAMES, Step, Whose, step};
use wombat_proto::wire::log::{self, command::Op};
use wombat_proto::wire::{self, NewNode};
use wombat_proto::{Error, NodePath, Slot};
use wombat_state::{Outcome, State};

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
