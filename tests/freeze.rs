//! What stands still and goes on as if nothing had been (P§2.4, P§2.8): a client that wakes up after its lease,
//! a master that wakes up after its own, a whole cell that does.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::five::Five;
use common::raw::Raw;
use common::store::Store;
use common::{is_stopped, open, run, signal, wait_for};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;
use wombat_client::{Cell, Config, Error, LockMode, OpenOptions, Sequencer, SessionEvent};
use wombat_proto::wire::{self, Handle, error::Code, mode, request::Call, response::Result as Answer};

/// How long the client that is frozen looks for a master after the end of its lease.
const GRACE: Duration = Duration::from_millis(500);
/// By which the client process finds its cell; without it there is nothing to do for it.
const CELL: &str = "FREEZE_CELL";

/// A client as a process of its own, which the next test starts and freezes. It speaks on standard error,
/// where no test harness speaks.
#[test]
#[ignore = "the other tests start it"]
fn client_process() {
    let Ok(cell) = std::env::var(CELL) else { return };
    run(async {
        let mut config = Config::new(cell.split(','));
        config.grace = GRACE;
        let cell = Cell::connect_with(config).await.unwrap();
        let mut life = cell.session_events();
        let node = open(&cell, "/ls/local/frozen").await;
        let guard = node.acquire(LockMode::Exclusive).await.unwrap();
        assert!(guard.is_safe());
        eprintln!("{}", guard.sequencer());
        let (word, given) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).unwrap();
            word.send(guard.is_safe()).unwrap();
            guard
        });
        eprintln!("is its lock safe? {}", given.await.unwrap());
        while let Some(event) = life.recv().await {
            eprintln!("its session: {event:?}");
        }
        eprintln!("a read: {:?}", node.contents().await.err());
        eprintln!("a write: {:?}", node.set("late").await.err());
        eprintln!("a lock: {:?}", node.acquire(LockMode::Exclusive).await.err());
    });
}

#[test]
fn a_client_that_was_frozen_for_longer_than_its_grace_knows_that_it_lost_everything() {
    let dir = tempfile::tempdir().unwrap();
    let five = Five::start_with(dir.path(), 5, &["--session-lease", "2s"]);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "client_process", "--ignored", "--nocapture"]);
    command.env(CELL, five.addresses().join(",")).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut process = Process(command.stdout(Stdio::null()).spawn().unwrap());
    let child = &mut process.0;
    let mut says = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut store = Store::default();

    let first: Sequencer = says.next().unwrap().parse().unwrap();
    store.write(&first).unwrap();
    signal(child.id(), "STOP");
    wait_for("the client to stand still", || is_stopped(child.id()).then_some(()));
    // What it is told meanwhile it hears before anything else.
    child.stdin.take().unwrap().write_all(b"well?\n").unwrap();
    run(async {
        let cell = Cell::connect(five.addresses()).await.unwrap();
        let node = open(&cell, "/ls/local/frozen").await;
        let second = node.acquire(LockMode::Exclusive).await.unwrap();
        assert!(second.token() > first.token);
        store.write(second.sequencer()).unwrap();
        node.set("by the second").await.unwrap();
        assert_eq!(cell.check_sequencer(&first).await, Err(Error::SequencerStale));

        // Its lease is over, and then its grace.
        tokio::time::sleep(GRACE).await;
        signal(child.id(), "CONT");
        // It was in the middle of a write: that was on its way, and comes now.
        assert_eq!(store.write(&first), Err(second.token()));
        let expected = [
            "is its lock safe? false",
            "its session: Expired",
            "a read: Some(SessionExpired)",
            "a write: Some(SessionExpired)",
            "a lock: Some(SessionExpired)",
        ];
        assert_eq!(says.by_ref().take(expected.len()).collect::<Vec<_>>(), expected);
        assert!(child.wait().unwrap().success());
        assert_eq!(node.contents().await.unwrap().0, "by the second");
        second.release().await.unwrap();
    });
}

/// A request, and what a master that had slept through it all would answer.
fn questions(file: Handle, lock: Handle, before: &str, after: &str) -> Vec<(&'static str, Call)> {
    let check = |sequencer: &str| Call::CheckSequencer(wire::CheckSequencer { sequencer: sequencer.into() });
    let open = |path: &str| wire::Open { path: path.into(), mode: mode::READ, ..wire::Open::default() };
    let acquire = wire::Acquire { handle: Some(lock), r#try: true, ..wire::Acquire::default() };
    let set = wire::SetContents { handle: Some(file), contents: "late".into(), if_generation: 0 };
    vec![
        ("the old contents", Call::GetContents(wire::GetContents { handle: Some(file) })),
        ("the old generation", Call::GetStat(wire::GetStat { handle: Some(file) })),
        ("that there is no such file", Call::Open(open("/ls/local/fresh"))),
        ("that the file is still there", Call::Open(open("/ls/local/doomed"))),
        ("that the lock is held", Call::Acquire(acquire)),
        ("that the lock is held as it was", check(before)),
        ("that the lock is not held as it is", check(after)),
        ("who held locks", Call::ListLocks(wire::ListLocks::default())),
        ("which sessions there were", Call::ListSessions(wire::ListSessions::default())),
        ("done", Call::SetContents(set)),
        ("alive", Call::KeepAlive(wire::KeepAlive::default())),
    ]
}

/// A process that does not outlive the test.
struct Process(std::process::Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _it_is_gone = self.0.kill();
        let _it_is_gone = self.0.wait();
    }
}

/// Opens a file by hand, and returns its handle.
fn open_by_hand(raw: &mut Raw, path: &str) -> Handle {
    let mode = mode::READ | mode::WRITE;
    let open = wire::Open { path: path.into(), mode, ..wire::Open::default() };
    let Some(Answer::Opened(opened)) = raw.ask(Call::Open(open)) else { panic!("no handle of {path}") };
    opened.handle.unwrap()
}

#[test]
fn a_master_that_was_frozen_never_answers_from_the_past() {
    let dir = tempfile::tempdir().unwrap();
    let five = Five::start(dir.path(), 5);
    let old = five.master();
    let at = &five.replicas[old].address;
    run(async {
        let cell = Cell::connect(five.addresses()).await.unwrap();
        let file = open(&cell, "/ls/local/where").await;
        file.set("old").await.unwrap();
        let doomed = open(&cell, "/ls/local/doomed").await;
        let lock = open(&cell, "/ls/local/lock").await;
        let before = lock.acquire(LockMode::Exclusive).await.unwrap();
        let before_text = before.sequencer().to_string();

        // It answers whoever asks on these connections, as long as it is master.
        let mut raw = Raw::attach(at);
        let file_by_hand = open_by_hand(&mut raw, "/ls/local/where");
        let lock_by_hand = open_by_hand(&mut raw, "/ls/local/lock");
        let get = Call::GetContents(wire::GetContents { handle: Some(file_by_hand) });
        assert!(matches!(raw.ask(get), Some(Answer::Contents(it)) if it.contents == "old"));
        let mut greeted = Raw::dial(at);
        assert!(matches!(greeted.answer(1), Some(Answer::Welcome(_))));

        // It is frozen in the middle of its work, not while it waits for some.
        let busy = Raw::attach(at);
        let status = Call::GetStatus(wire::GetStatus {});
        let busy = std::thread::spawn(move || busy.pester(&status));
        five.freeze(old);
        // The world goes on without it.
        file.set("new").await.unwrap();
        before.release().await.unwrap();
        let after = lock.acquire(LockMode::Exclusive).await.unwrap();
        doomed.delete().await.unwrap();
        let fresh = open(&cell, "/ls/local/fresh").await;
        let others: Vec<String> = five.addresses().into_iter().filter(|other| other != at).collect();
        let master = wait_for("its successor", || five.view(&others.join(",")));
        let elsewhere = Raw::attach(master["master"].as_str().unwrap());

        // All this lies in its sockets when it wakes up.
        let after = after.sequencer().to_string();
        let asked: Vec<_> = questions(file_by_hand, lock_by_hand, &before_text, &after)
            .into_iter()
            .map(|(past, call)| (raw.send(call), past))
            .collect();
        let resume = greeted.resume(&elsewhere.session);
        let mut late = Raw::dial(at);
        let create = late
            .send(Call::CreateSession(wire::CreateSession { client: "late".into(), ..Default::default() }));
        five.wake(old);

        let mut past = said(&mut raw, &asked);
        past.extend(said(&mut greeted, &[(resume, "that a session that lives is over")]));
        past.extend(said(&mut late, &[(create, "that a session begins")]));
        assert!(past.is_empty(), "it answered from the past: {past:#?}");
        assert_eq!(file.contents().await.unwrap().0, "new");
        fresh.close().await.unwrap();
        busy.join().unwrap();
    });
}

/// What a connection brings, until it is closed or everything asked is answered, that is more than: I am not,
/// or no longer, who you think. Its greeting says which epoch it speaks for: whoever knows a later one knows
/// better.
fn said(raw: &mut Raw, asked: &[(u64, &str)]) -> Vec<String> {
    let mut said = Vec::new();
    let mut open: Vec<u64> = asked.iter().map(|(number, _)| *number).collect();
    while !open.is_empty()
        && let Some((number, answer)) = raw.next()
    {
        open.retain(|asked| *asked != number);
        let sends_away = match &answer {
            Answer::Error(error) => matches!(error.code(), Code::NotMaster | Code::StaleEpoch),
            Answer::Welcome(_) => true,
            _ => false,
        };
        if !sends_away {
            let what = asked.iter().find(|(asked, _)| *asked == number).map_or("news", |(_, what)| what);
            said.push(format!("{what}: {answer:?}"));
        }
    }
    said
}

/// The replica that is frozen may stand at any place of a client's list: first, in the middle, last. No client comes
/// near the point at which what runs under its lock would be stopped.
#[test]
fn locks_outlast_a_frozen_master_in_every_order_of_the_endpoints() {
    const LEASE: Duration = Duration::from_secs(12);
    let dir = tempfile::tempdir().unwrap();
    let five = Five::start_with(dir.path(), 3, &["--session-lease", "12s"]);
    let master = five.master();
    run(async {
        let mut clients = Vec::new();
        for first in 0..3 {
            let mut endpoints = five.addresses();
            endpoints.rotate_left(first);
            let cell = Cell::connect(endpoints).await.unwrap();
            let node = open(&cell, &format!("/ls/local/order-{first}")).await;
            let guard = node.acquire(LockMode::Exclusive).await.unwrap();
            clients.push((cell, node, guard));
        }
        let epoch = clients[0].0.epoch();
        five.freeze(master);
        // A write is answered by the next master, long before a KeepAlive would be late.
        let begun = std::time::Instant::now();
        clients[0].1.set("written meanwhile").await.unwrap();
        eprintln!("a write took {:?}", begun.elapsed());
        for (cell, _, guard) in &clients {
            let found = async {
                while cell.epoch() <= epoch {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::select! {
                biased;
                () = guard.unsafe_within(LEASE / 4) => panic!("what runs under the lock is stopped"),
                () = found => {}
            }
        }
        five.wake(master);
        for (_, _, guard) in clients {
            guard.release().await.unwrap();
        }
    });
}

#[test]
fn a_cell_that_was_frozen_for_longer_than_the_lease_has_lost_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let five = Five::start(dir.path(), 5);
    run(async {
        let cell = Cell::connect(five.addresses()).await.unwrap();
        let mut life = cell.session_events();
        let node = open(&cell, "/ls/local/f").await;
        let guard = node.acquire(LockMode::Exclusive).await.unwrap();
        (0..5).for_each(|number| five.freeze(number));
        assert_eq!(life.recv().await, Some(SessionEvent::Jeopardy));
        assert!(!guard.is_safe());
        let write = node.set("written in jeopardy");
        let (written, ()) = tokio::join!(write, async {
            tokio::task::yield_now().await;
            (0..5).for_each(|number| five.wake(number));
        });
        assert_eq!(written.unwrap().content_generation.0, 2);
        check_kept(&cell, &mut life, guard).await;
    });
}

#[test]
fn a_cell_that_was_dead_for_longer_than_the_lease_has_lost_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut five = Five::start_with(dir.path(), 5, &["--session-lease", "2s"]);
    run(async {
        let cell = Cell::connect(five.addresses()).await.unwrap();
        let mut life = cell.session_events();
        let node = open(&cell, "/ls/local/f").await;
        let guard = node.acquire(LockMode::Exclusive).await.unwrap();
        (0..5).for_each(|number| five.kill(number));
        assert_eq!(life.recv().await, Some(SessionEvent::Jeopardy));
        assert!(!guard.is_safe());
        let write = node.set("written in jeopardy");
        let (written, ()) = tokio::join!(write, async {
            tokio::task::yield_now().await;
            (0..5).for_each(|number| five.restart(number));
        });
        assert_eq!(written.unwrap().content_generation.0, 2);
        check_kept(&cell, &mut life, guard).await;
    });
}

/// The session is safe again, and its lock is its own.
async fn check_kept(cell: &Cell, life: &mut wombat_client::SessionEvents, guard: wombat_client::LockGuard) {
    loop {
        match life.recv().await {
            Some(SessionEvent::Safe) => break,
            // In jeopardy once more before it could be told, on a machine that is busy.
            Some(SessionEvent::FailedOver { .. } | SessionEvent::Jeopardy) => {}
            other => panic!("{other:?}"),
        }
    }
    cell.check_sequencer(guard.sequencer()).await.unwrap();
    guard.release().await.unwrap();
}

#[test]
fn a_cell_that_was_dead_for_longer_than_the_grace_is_no_way_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut five = Five::start_with(dir.path(), 5, &["--session-lease", "2s"]);
    run(async {
        let mut config = Config::new(five.addresses());
        config.grace = Duration::from_secs(1);
        let cell = Cell::connect_with(config).await.unwrap();
        let mut life = cell.session_events();
        let node = open(&cell, "/ls/local/f").await;
        let guard = node.acquire(LockMode::Exclusive).await.unwrap();
        (0..5).for_each(|number| five.kill(number));
        assert_eq!(life.recv().await, Some(SessionEvent::Jeopardy));
        // Calls that begin in jeopardy wait for its end.
        let (read, written, opened) =
            tokio::join!(node.contents(), node.set("x"), cell.open("/ls/local/g", OpenOptions::new()));
        assert_eq!(read.err(), Some(Error::SessionExpired));
        assert_eq!(written.err(), Some(Error::SessionExpired));
        assert_eq!(opened.err(), Some(Error::SessionExpired));
        assert_eq!(life.recv().await, Some(SessionEvent::Expired));
        assert_eq!(life.recv().await, None);
        (0..5).for_each(|number| five.restart(number));
        let other = Cell::connect_with(Config {
            connect_timeout: Duration::from_secs(60),
            ..Config::new(five.addresses())
        });
        let theirs = open(&other.await.unwrap(), "/ls/local/f").await;
        theirs.acquire(LockMode::Exclusive).await.unwrap().release().await.unwrap();
        assert!(!guard.is_safe());
        assert_eq!(node.stat().await.err(), Some(Error::SessionExpired), "I14");
        assert_eq!(node.try_acquire(LockMode::Exclusive).await.err(), Some(Error::SessionExpired));
        assert_eq!(guard.release().await.err(), Some(Error::SessionExpired));
    });
}
