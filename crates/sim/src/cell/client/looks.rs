//! What a client looks at: in its cache if it is there, or else at the master. And a nest of files and directories
//! that come and go, so that there is something to see.

use super::shelf::mark;
use super::sight::Look;
use super::{Client, DIRECTORY, Doing, FENCED};
use crate::cell::oracle::cache::is_current;
use crate::cell::tally::Tally;
use crate::random::Random;
use std::sync::Arc;
use std::time::Duration;
use wombat_proto::wire::{
    self, Handle, NewNode, change, open::Create, request::Call, response::Result as Answer,
};
use wombat_proto::{Error, Instance};
use wombat_session::{Cached, Place};
use wombat_state::State;

const NEST: &str = "/ls/sim/nest";
/// In the nest: one that is anything, one that only Multis make and delete, and those that a number completes.
const ANY: &str = "/ls/sim/nest/any";
const BELOW_ANY: &str = "/ls/sim/nest/any/below";
const MULTI: &str = "/ls/sim/nest/multi";
const NUMBERED: &str = "/ls/sim/nest/s-";
/// Paths that lead somewhere now and then, or never.
const PATHS: [&str; 12] = [
    NEST,
    ANY,
    BELOW_ANY,
    MULTI,
    MULTI,
    MULTI,
    "/ls/sim/nest/s-0000000001",
    "/ls/sim/nest/nothing/at/all",
    "/ls/sim/common",
    "/ls/sim/lock-0",
    "/ls/sim/lock-1",
    "/ls/sim/own-1",
];
/// Most handles that a client has open in the nest.
const NESTED: usize = 3;

impl Client {
    /// The threads of the application read all that they can without asking anybody. I8: it is all so.
    pub(in crate::cell) fn read_cached(
        &mut self,
        real: Duration,
        state: &State,
        tally: &mut Tally,
        random: &mut Random,
    ) {
        if !self.caches || self.dead {
            return;
        }
        self.check_cached(real, state);
        let now = self.clock.read(real);
        let lapsed = self.shelf.has_lapsed(now);
        if lapsed && !self.sight.lapsed {
            tally.count("cache leases that lapsed");
        }
        self.sight.lapsed = lapsed;
        if !self.reads {
            return;
        }
        let mut reads = 0;
        for (_, cached) in self.shelf.usable(now) {
            if random.chance(500) {
                mark(cached).touch();
            }
            reads += 1;
        }
        tally.count_many("cached reads", reads);
        if self.shelf.glance(now, state, random) {
            tally.count("cached reads of slow threads");
        }
    }

    /// I8: whatever it may use is so, and the session says the same as its shell.
    pub(in crate::cell) fn check_cached(&self, real: Duration, state: &State) {
        let now = self.clock.read(real);
        for (place, cached) in self.shelf.usable(now) {
            assert!(is_current(state, place, cached), "I8: client {} has {cached:?} in its cache", self.name);
            let entries = self.session.cached(now).expect("the session says the same");
            let same = match (place, cached) {
                (Place::Node(instance), Cached::Node(node)) => {
                    entries.node(*instance).is_some_and(|one| Arc::ptr_eq(one, node))
                }
                (Place::Listing(directory), Cached::Listing(listing)) => {
                    entries.listing(*directory).is_some_and(|one| Arc::ptr_eq(one, listing))
                }
                (Place::Absence(path), Cached::Absence(absence)) => {
                    entries.absence(path).is_some_and(|one| Arc::ptr_eq(one, absence))
                }
                _ => false,
            };
            assert!(same, "client {}: its shell has {cached:?}, and its session has not", self.name);
        }
    }

    /// Whether it goes on looking at things.
    pub(in crate::cell) fn keeps_looking(&self) -> bool {
        let can = self.session.id().is_some() && !self.session.is_expired() && !self.asked_to_end;
        self.caches && self.reads && can && !self.dead && !(self.finished && self.rests)
    }

    /// Looks at something. Returns what it has to ask the master, unless it has it cached.
    pub(super) fn look(&mut self, real: Duration, random: &mut Random) -> Option<(Call, Doing)> {
        let now = self.clock.read(real);
        if let Some((directory, after)) = self.sight.paging.take() {
            return Some(page(directory, after, random));
        }
        let known = |(place, handle): (usize, &Option<Handle>)| handle.filter(|_| place != FENCED);
        let places = self.handles.iter().enumerate().filter_map(known);
        let handles: Vec<Handle> =
            places.chain(self.sight.nest.iter().copied()).chain(self.sight.peeked).collect();
        let some = handles.get(random.below(handles.len().max(1) as u64) as usize).copied();
        let handle = self.sight.peeked.filter(|_| random.chance(400)).or(some);
        let instance = Instance(handle.map_or(0, |handle| handle.instance));
        match random.below(4) {
            0 => match self.shelf.find(&Place::Node(instance), now) {
                Some(Cached::Node(node)) if node.contents.is_some() => None,
                _ => {
                    let get = wire::GetContents { handle: Some(handle?) };
                    Some((Call::GetContents(get), Doing::Looking(Look::Node)))
                }
            },
            1 => match self.shelf.find(&Place::Node(instance), now) {
                Some(_) => None,
                None => {
                    let get = wire::GetStat { handle: Some(handle?) };
                    Some((Call::GetStat(get), Doing::Looking(Look::Node)))
                }
            },
            2 => {
                let directory = if random.chance(500) { self.handles[DIRECTORY] } else { handle }?;
                let place = Place::Listing(Instance(directory.instance));
                let cached = self.shelf.find(&place, now).is_some();
                (!cached).then(|| page(directory, String::new(), random))
            }
            _ => {
                let path = PATHS[random.below(PATHS.len() as u64) as usize];
                let cached = self.shelf.find(&Place::Absence(Arc::from(path)), now).is_some();
                if cached || self.calls.values().any(|doing| *doing == Doing::Looking(Look::Path)) {
                    return None;
                }
                if let Some(handle) = self.sight.peeked.take() {
                    return Some((Call::Close(wire::Close { handle: Some(handle) }), Doing::Closing));
                }
                let open = wire::Open { path: path.into(), mode: 1, ..wire::Open::default() };
                Some((Call::Open(open), Doing::Looking(Look::Path)))
            }
        }
    }

    /// The master has answered.
    pub(super) fn looked(&mut self, look: Look, result: Result<Answer, Error>, tally: &mut Tally) {
        tally.count("reads at the master");
        match (look, result) {
            (Look::Node, Ok(Answer::Contents(_) | Answer::Stat(_))) => {}
            (Look::Page(directory), Ok(Answer::Entries(page))) => {
                let last = page.entries.last().map(|last| last.name.clone());
                self.sight.paging = last.filter(|_| page.more).map(|last| (directory, last));
            }
            (Look::Path, Ok(Answer::Opened(opened))) => self.sight.peeked = opened.handle,
            (_, Err(Error::StaleHandle | Error::IsDirectory | Error::NotDirectory)) => {}
            (Look::Path, Err(Error::NotFound { .. })) => {}
            (_, Err(Error::Unreachable { .. })) if self.session.id().is_none() => {}
            (look, result) => panic!("client {}: {look:?} ended with {result:?}", self.name),
        }
    }

    /// Makes something in the nest, or changes it, or takes it away.
    pub(super) fn nest(&mut self, vanishes: bool, random: &mut Random) -> (Call, Doing) {
        let full = self.sight.nest.len() >= NESTED;
        if full || random.chance(400) && !self.sight.nest.is_empty() {
            let which = random.below(self.sight.nest.len() as u64) as usize;
            let handle = self.sight.nest[which];
            let call = match random.below(if full { 2 } else { 3 }) {
                0 => Call::Delete(wire::Delete { handle: Some(handle) }),
                1 => {
                    self.sight.nest.remove(which);
                    Call::Close(wire::Close { handle: Some(handle) })
                }
                _ => {
                    let contents = random.next().to_string().into();
                    Call::SetContents(wire::SetContents { handle: Some(handle), contents, if_generation: 0 })
                }
            };
            return (call, Doing::Nesting);
        }
        let call = match random.below(5) {
            0 => make(NEST, true, vanishes, false),
            1 => make(ANY, random.chance(500), random.chance(500), false),
            2 => make(BELOW_ANY, false, random.chance(500), false),
            3 => make(NUMBERED, false, true, true),
            _ => several(random),
        };
        (call, Doing::Nesting)
    }

    pub(super) fn nested(&mut self, result: Result<Answer, Error>, tally: &mut Tally) {
        match result {
            Ok(Answer::Opened(opened)) => {
                tally.count("nodes made or opened in the nest");
                self.sight.nest.extend(opened.handle);
            }
            Ok(_) => tally.count("changes in the nest"),
            Err(
                Error::StaleHandle
                | Error::NotFound { .. }
                | Error::AlreadyExists
                | Error::NotEmpty
                | Error::IsDirectory
                | Error::NotDirectory,
            ) => {}
            Err(Error::Unreachable { .. }) if self.session.id().is_none() => {}
            Err(error) => panic!("client {}: something in the nest ended with {error:?}", self.name),
        }
    }
}

fn page(directory: Handle, after: String, random: &mut Random) -> (Call, Doing) {
    let read = wire::ReadDir { handle: Some(directory), after, limit: random.below(5) as u32 };
    (Call::ReadDir(read), Doing::Looking(Look::Page(directory)))
}

fn make(path: &str, directory: bool, ephemeral: bool, sequential: bool) -> Call {
    let node = NewNode { directory, ephemeral, sequential, ..NewNode::default() };
    let create = if sequential { Create::Must } else { Create::May };
    Call::Open(wire::Open {
        path: path.into(),
        mode: 3,
        create: create.into(),
        node: Some(node),
        ..wire::Open::default()
    })
}

/// A file is made, written or deleted by its path.
fn several(random: &mut Random) -> Call {
    let create = || {
        let node = Some(NewNode::default());
        change::Change::Create(wire::CreateNode { path: MULTI.into(), node })
    };
    let set = |text: u64| {
        let contents = text.to_string().into();
        change::Change::Set(wire::SetNode { path: MULTI.into(), contents })
    };
    let text = random.next();
    let changes = match random.below(4) {
        0 => vec![create()],
        1 => vec![create(), set(text)],
        2 => vec![set(text)],
        _ => vec![change::Change::Delete(MULTI.into())],
    };
    let changes = changes.into_iter().map(|change| wire::Change { change: Some(change) }).collect();
    Call::Multi(wire::Multi { guards: Vec::new(), changes })
}
