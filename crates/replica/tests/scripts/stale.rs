//! Reads that need no session (SPEC §7): at any replica, what they say and how old they say that it is; and at the
//! master, as of now.

use crate::several::{Cell, hello};
use crate::world::{may_create, request, set};
use std::time::Duration;
use wombat_proto::wire::read_stale::What;
use wombat_proto::wire::stale_read::Answer as Value;
use wombat_proto::wire::{self, request::Call, response::Result as Answer};
use wombat_proto::{Error, Result};
use wombat_replica::{ConnectionId, Input};

/// The master lease of these cells is 2 s, and a heartbeat an eighth of that: who hears every one is as old as two
/// of them, and as a step of the world.
const FRESH_MS: u64 = 2 * 250 + 50;

fn listed(after: &str, limit: u32) -> wire::ReadStale {
    let (after, what) = (after.into(), What::List.into());
    wire::ReadStale { path: "/ls/test".into(), what, after, limit }
}

fn named(path: &str, what: What) -> wire::ReadStale {
    wire::ReadStale { path: path.into(), what: what.into(), ..wire::ReadStale::default() }
}

impl Cell {
    /// Reads at a replica, on a connection of its own, while no time passes.
    fn read(&mut self, id: u32, read: wire::ReadStale) -> Result<wire::StaleRead> {
        let connection = ConnectionId(9);
        for (number, call) in [(1, hello()), (2, Call::ReadStale(read))] {
            self.replies.clear();
            let request = wire::Request { number, ..request(call) };
            self.step(id, Input::Request { connection, request });
        }
        self.step(id, Input::Disconnected { connection });
        match self.replies.pop().and_then(|response| response.result) {
            Some(Answer::StaleRead(read)) => Ok(read),
            Some(Answer::Error(error)) => Err(error.into()),
            other => panic!("{other:?}"),
        }
    }

    /// Reads the file as of now at a replica, while no time passes. `None`: the answer has to wait.
    fn contents_now(&mut self, id: u32) -> Option<Result<String>> {
        let (connection, path) = (ConnectionId(9), "/ls/test/file".into());
        let read = wire::ReadPath { path, what: What::Contents.into(), ..wire::ReadPath::default() };
        for (number, call) in [(1, hello()), (2, Call::ReadPath(read))] {
            self.replies.clear();
            let request = wire::Request { number, ..request(call) };
            self.step(id, Input::Request { connection, request });
        }
        self.step(id, Input::Disconnected { connection });
        match self.replies.pop()?.result {
            Some(Answer::StaleRead(wire::StaleRead { answer: Some(Value::Contents(it)), .. })) => {
                Some(Ok(String::from_utf8_lossy(&it.contents).into_owned()))
            }
            Some(Answer::Error(error)) => Some(Err(error.into())),
            other => panic!("{other:?}"),
        }
    }

    /// The contents of the file, and how old they are at most.
    fn contents(&mut self, id: u32) -> (String, Option<u64>) {
        let read = self.read(id, named("/ls/test/file", What::Contents)).unwrap();
        assert_eq!(read.applied_slot, self.replicas[id as usize - 1].state().stamp().0);
        assert_eq!(read.replica, id);
        let Some(Value::Contents(contents)) = read.answer else { panic!("{read:?}") };
        let text = String::from_utf8_lossy(&contents.contents).into_owned();
        (text, (!read.age_unknown).then_some(read.age_ms))
    }
}

/// A cell in which somebody writes a file through the master.
struct Written {
    cell: Cell,
    session: u64,
    handle: wire::Handle,
    number: u64,
}

impl Written {
    fn new() -> Written {
        let mut cell = Cell::new();
        let master = cell.master();
        let create = Call::CreateSession(wire::CreateSession::default());
        let Answer::SessionOpened(opened) = cell.ask(master, vec![hello(), create]) else { panic!("none") };
        let open = wire::Open { path: "/ls/test/file".into(), ..may_create() };
        cell.send(master, opened.session, 3, Call::Open(open));
        cell.replies.clear();
        cell.pass(Duration::from_millis(100));
        let Some(Answer::Opened(opening)) = cell.replies.pop().and_then(|reply| reply.result) else {
            panic!()
        };
        let handle = opening.handle.unwrap();
        let mut written = Written { cell, session: opened.session, handle, number: 3 };
        written.write("one");
        written.cell.pass(Duration::from_secs(1));
        written
    }

    fn write(&mut self, text: &str) {
        let master = self.cell.master();
        self.number += 1;
        self.cell.send(master, self.session, self.number, set(self.handle, text));
        self.cell.pass(Duration::from_millis(100));
    }
}

#[test]
fn every_replica_answers_and_says_how_old_its_answer_is() {
    let Written { mut cell, .. } = Written::new();
    let master = cell.master();
    for id in 1..=3 {
        let (text, age) = cell.contents(id);
        assert_eq!(text, "one");
        match id == master {
            true => assert_eq!(age, Some(0)),
            false => assert!((1..=FRESH_MS).contains(&age.unwrap()), "{age:?}"),
        }
        let stat = cell.read(id, named("/ls/test/file", What::Stat)).unwrap();
        let Some(Value::Stat(stat)) = stat.answer else { panic!("{stat:?}") };
        assert_eq!((stat.length, stat.content_generation), (3, 2));
        let root = cell.read(id, named("/ls/test", What::Stat)).unwrap();
        assert!(matches!(root.answer, Some(Value::Stat(stat)) if stat.directory));
    }
}

#[test]
fn listings_come_in_pages() {
    let mut cell = Cell::new();
    let master = cell.master();
    let create = Call::CreateSession(wire::CreateSession::default());
    let Answer::SessionOpened(opened) = cell.ask(master, vec![hello(), create]) else { panic!("none") };
    for (number, name) in (3..).zip(["a", "b", "c", "d", "e"]) {
        let open = wire::Open { path: format!("/ls/test/{name}"), ..may_create() };
        cell.send(master, opened.session, number, Call::Open(open));
    }
    cell.pass(Duration::from_secs(1));
    let other = master % 3 + 1;
    let pages = [("", 2, "ab", true), ("b", 2, "cd", true), ("d", 2, "e", false), ("", 0, "abcde", false)];
    for (after, limit, names, more) in pages {
        let read = cell.read(other, listed(after, limit)).unwrap();
        let Some(Value::Entries(page)) = read.answer else { panic!("{read:?}") };
        let got: String = page.entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!((got.as_str(), page.more), (names, more));
        assert!(page.entries.iter().all(|entry| entry.stat.is_some()));
    }
}

#[test]
fn what_makes_no_sense_is_refused_everywhere() {
    let Written { mut cell, .. } = Written::new();
    for id in 1..=3 {
        for (path, what) in [
            ("/ls/test/none", What::Contents),
            ("/ls/test/file/below", What::Stat),
            ("/ls/test/none/list", What::List),
        ] {
            assert_eq!(cell.read(id, named(path, what)), Err(Error::not_found(path)));
        }
        assert_eq!(cell.read(id, named("/ls/test", What::Contents)), Err(Error::IsDirectory));
        assert_eq!(cell.read(id, named("/ls/test/file", What::List)), Err(Error::NotDirectory));
        for path in ["file", "/ls/other/file", "/ls/test//file"] {
            let refused = cell.read(id, named(path, What::Contents));
            assert!(matches!(refused, Err(Error::InvalidArgument { .. })), "{path}: {refused:?}");
        }
        let beyond = wire::ReadStale { what: 3, ..named("/ls/test/file", What::Contents) };
        assert!(matches!(cell.read(id, beyond), Err(Error::InvalidArgument { .. })));
        assert!(matches!(cell.read(id, listed("a/b", 0)), Err(Error::InvalidArgument { .. })));
    }
}

#[test]
fn who_hears_nothing_says_that_it_grows_older() {
    let mut written = Written::new();
    let master = written.cell.master();
    let other = master % 3 + 1;
    written.cell.cut_off = Some(other);
    let (_, before) = written.cell.contents(other);
    written.write("two");
    written.cell.pass(Duration::from_secs(4));
    assert_eq!(written.cell.contents(other), ("one".into(), before.map(|age| age + 4100)));
    assert_eq!(written.cell.contents(master), ("two".into(), Some(0)));
    written.cell.now += Duration::from_micros(1);
    assert_eq!(written.cell.contents(other).1, before.map(|age| age + 4101), "a bound is rounded up");
    written.cell.cut_off = None;
    written.cell.pass(Duration::from_secs(3));
    let (text, age) = written.cell.contents(other);
    assert_eq!(text, "two");
    assert!(age.unwrap() <= FRESH_MS, "{age:?}");
}

#[test]
fn without_a_master_everybody_answers_all_the_same() {
    let mut written = Written::new();
    let cell = &mut written.cell;
    let master = cell.master();
    // It hears nobody, and nobody hears it: its lease ends after two seconds.
    cell.cut_off = Some(master);
    cell.pass(Duration::from_secs(1));
    assert_eq!(cell.contents(master), ("one".into(), Some(0)), "nobody else can be master yet");
    cell.pass(Duration::from_secs(20));
    let (text, age) = cell.contents(master);
    assert_eq!(text, "one");
    assert!((18_500..=20_000).contains(&age.unwrap()), "since the end of its lease: {age:?}");
    // A master that slept knows nothing of today, and does not keep the reader waiting until it does.
    let next = (1..=3).find(|id| *id != master && cell.replicas[*id as usize - 1].is_master()).unwrap();
    assert_eq!(cell.contents(next).1, Some(0));
    cell.now += Duration::from_secs(60);
    let (_, age) = cell.contents(next);
    assert!((58_000..=60_000).contains(&age.unwrap()), "{age:?}");
}

#[test]
fn who_has_just_started_does_not_know_how_old_it_is_nor_anything_before_the_cell_is_founded() {
    let mut cell = Cell::unfounded();
    assert_eq!(cell.read(1, named("/ls/test", What::Stat)), Err(Error::NoQuorum));
    let Written { mut cell, .. } = Written::new();
    let other = cell.master() % 3 + 1;
    cell.start_from_snapshot(other, |chunk| chunk);
    assert_eq!(cell.contents(other), ("one".into(), None));
    cell.pass(Duration::from_secs(1));
    let (_, age) = cell.contents(other);
    assert!(age.unwrap() <= FRESH_MS, "{age:?}");
}

#[test]
fn read_of_now_is_answered_by_the_master_alone_and_enters_no_log() {
    let mut written = Written::new();
    let master = written.cell.master();
    let slot = written.cell.replicas[master as usize - 1].state().stamp();
    for id in 1..=3 {
        match written.cell.contents_now(id).unwrap() {
            Ok(text) => assert_eq!((text.as_str(), id), ("one", master)),
            Err(error) => assert!(matches!(error, Error::NotMaster { .. }) && id != master, "{id}: {error}"),
        }
    }
    written.cell.pass(Duration::from_secs(1));
    assert_eq!(written.cell.replicas[master as usize - 1].state().stamp(), slot, "it leaves nothing behind");
    written.write("two");
    assert_eq!(written.cell.contents_now(master), Some(Ok("two".into())));
}

#[test]
fn read_of_now_waits_at_a_master_whose_lease_has_ended() {
    let mut written = Written::new();
    let cell = &mut written.cell;
    let old = cell.master();
    assert_eq!(cell.contents_now(old), Some(Ok("one".into())));
    // It sleeps for longer than its lease: another may be master by now, and may have written.
    cell.now += Duration::from_secs(60);
    assert_eq!(cell.contents_now(old), None);
    assert_eq!(cell.contents(old).0, "one", "a stale read waits for nothing");
}
