//! Cached reads on real processes (P§2.7, SPEC I8): clients that cache read and write the same files, while some of
//! them stand still for longer than their cache lease, and for longer than their session, are killed with -9, and
//! masters are killed and stand still. Whatever anybody has read, and however fast, could have been read from one
//! file that everybody shares.
//!
//! The long proof: `cargo test --release --test linearizable -- --ignored --nocapture`

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
#[path = "linearizable/history.rs"]
mod history;
#[path = "linearizable/process.rs"]
mod process;

use common::five::Five;
use common::{is_stopped, signal, wait_for};
use history::{History, Nanos, Span};
use process::{FILES, FIRST, Role};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};
use wombat_client::{Cell, Config, Create, OpenOptions, now};

const CLIENTS: usize = 4;

/// A client's process, which the tests start and kill.
#[test]
#[ignore = "the other tests start it"]
fn a_client() {
    process::live();
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    KillClient,
    /// It goes on after so long.
    FreezeClient(Duration),
    KillMaster,
    FreezeMaster(Duration),
    HandOver,
}

/// The cache lease is 1 s here, the session lease 3 s.
const FAULTS: [Fault; 7] = [
    Fault::FreezeClient(Duration::from_millis(1500)),
    Fault::KillMaster,
    Fault::FreezeClient(Duration::from_millis(400)),
    Fault::KillClient,
    Fault::FreezeMaster(Duration::from_millis(1200)),
    Fault::FreezeClient(Duration::from_millis(4500)),
    Fault::HandOver,
];

struct Crowd {
    five: Five,
    roles: Vec<Role>,
    children: Vec<Child>,
    next: usize,
}

impl Crowd {
    fn start(dir: &Path) -> Crowd {
        let five = Five::start_with(dir, 5, &["--session-lease", "3s", "--cache-lease", "1s"]);
        let endpoints = five.addresses().join(",");
        common::run(make_files(&endpoints));
        let role = |number| Role { number, life: 0, endpoints: endpoints.clone(), dir: dir.to_owned() };
        let roles: Vec<Role> = (0..CLIENTS).map(role).collect();
        let children = roles.iter().map(Role::play).collect();
        Crowd { five, roles, children, next: 0 }
    }

    /// Waits until so many more writes are done.
    fn go_on(&mut self, writes: usize) {
        let dir = self.roles[0].dir.clone();
        let enough = done(&dir) + writes;
        let children = &mut self.children;
        wait_for("the writes to go on", || {
            let ended = children.iter_mut().filter_map(|child| child.try_wait().unwrap());
            assert_eq!(ended.count(), 0, "a client has ended");
            (done(&dir) >= enough).then_some(())
        });
    }

    fn suffer(&mut self, fault: Fault) {
        self.next = (self.next + 1) % CLIENTS;
        let client = self.next;
        match fault {
            Fault::KillClient => {
                let child = &mut self.children[client];
                child.kill().unwrap();
                child.wait().unwrap();
                self.roles[client].life += 1;
                *child = self.roles[client].play();
            }
            Fault::FreezeClient(length) => {
                let pid = self.children[client].id();
                signal(pid, "STOP");
                wait_for("a client to stand still", || is_stopped(pid).then_some(()));
                std::thread::sleep(length);
                signal(pid, "CONT");
            }
            Fault::KillMaster => {
                let master = self.five.master();
                self.five.kill(master);
                self.five.master();
                self.five.restart(master);
            }
            Fault::FreezeMaster(length) => {
                let master = self.five.master();
                self.five.freeze(master);
                std::thread::sleep(length);
                self.five.wake(master);
            }
            Fault::HandOver => {
                let master = self.five.master();
                self.five.stop(master);
                self.five.restart(master);
            }
        }
    }

    fn ends(&mut self) {
        std::fs::write(process::enough(&self.roles[0].dir), "").unwrap();
        for child in &mut self.children {
            let status = wait_for("a client to end", || child.try_wait().unwrap());
            assert!(status.success(), "{status}");
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _it_is_gone = child.kill();
            let _it_is_gone = child.wait();
        }
    }
}

async fn make_files(endpoints: &str) {
    let cell = Cell::connect_with(Config::new(endpoints.split(','))).await.unwrap();
    for file in 0..FILES {
        let options = OpenOptions::new().write().create(Create::Must).contents(FIRST);
        cell.open(&process::path(file), options).await.unwrap();
    }
    cell.close().await.unwrap();
}

/// The lines of everybody's notes. The last one of who was killed may not be whole.
fn lines(dir: &Path) -> impl Iterator<Item = String> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let notes = files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("notes-"));
    notes.flat_map(|path| {
        let text = std::fs::read_to_string(path).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]).to_owned();
        whole.lines().map(str::to_owned).collect::<Vec<_>>()
    })
}

/// How many writes are done.
fn done(dir: &Path) -> usize {
    lines(dir).filter(|line| line.starts_with("d ")).count()
}

/// Everybody's notes as the history of each file.
fn histories(dir: &Path, began: Nanos) -> Vec<History> {
    let mut all: Vec<History> = (0..FILES).map(|_| History::default()).collect();
    let first = Span { from: 0, to: began };
    all.iter_mut().for_each(|history| history.wrote(FIRST, first));
    let mut begun = BTreeMap::new();
    let number = |text: &str| text.parse::<u64>().unwrap();
    let lines: Vec<String> = lines(dir).collect();
    for line in &lines {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["w", file, value, from] => {
                let (file, from) = (number(file) as usize, number(from));
                begun.insert(value, from);
                all[file].wrote(value, Span { from, to: Nanos::MAX });
            }
            ["d", file, value, to] => {
                let span = Span { from: begun[value], to: number(to) };
                all[number(file) as usize].wrote(value, span);
            }
            ["r", file, value, count, a, b, c, d] => {
                let first = Span { from: number(a), to: number(b) };
                let last = Span { from: number(c), to: number(d) };
                all[number(file) as usize].read(value, number(count), first, last);
            }
            _ => panic!("no note: {line:?}"),
        }
    }
    all
}

fn check(rounds: usize, writes: usize) {
    let begun = Instant::now();
    let dir = tempfile::tempdir().unwrap();
    let mut crowd = Crowd::start(dir.path());
    let began = now().as_nanos();
    crowd.go_on(writes);
    for fault in FAULTS.iter().cycle().take(FAULTS.len() * rounds) {
        crowd.suffer(*fault);
        crowd.go_on(writes);
    }
    crowd.ends();
    let histories = histories(dir.path(), began);
    for (file, history) in histories.iter().enumerate() {
        assert_eq!(history.wrong(), None, "file {file}");
    }
    let reads: u64 = histories.iter().map(History::reads).sum();
    let written: usize = histories.iter().map(History::writes).sum();
    eprintln!("{reads} reads, {written} writes in {:?}: linearizable", begun.elapsed());
}

#[test]
fn what_clients_read_could_have_been_read_from_one_file() {
    check(1, 100);
}

#[test]
#[ignore = "minutes"]
fn the_same_for_long() {
    check(20, 300);
}
