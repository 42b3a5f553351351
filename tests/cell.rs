//! A cell of five real processes, under load, while replicas are killed, stopped and wiped (P§2.2): no
//! acknowledged write is lost, and only one master serves at a time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::five::Five;
use common::{WOMBAT, shown, wait_for};
use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use wombat_client::{Cell, Config, Create, Error, OpenOptions};

/// Clients that write and write, each file once, and remember what was acknowledged.
struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    written: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

const DIRECTORY: &str = "/ls/local/load";

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

impl Load {
    fn start(five: &Five, clients: usize) -> Load {
        let mut load = Load {
            stop: Arc::default(),
            acknowledged: Arc::default(),
            written: Arc::default(),
            threads: Vec::new(),
        };
        for client in 0..clients {
            let endpoints = five.addresses();
            let (stop, acknowledged) = (Arc::clone(&load.stop), Arc::clone(&load.acknowledged));
            let written = Arc::clone(&load.written);
            load.threads.push(std::thread::spawn(move || {
                run(write_until(client, endpoints, &stop, &acknowledged, &written));
            }));
        }
        load
    }

    /// Waits until as many more writes were acknowledged: the cell works.
    fn goes_on(&self) {
        let before = self.written.load(Ordering::SeqCst);
        wait_for("acknowledged writes", || (self.written.load(Ordering::SeqCst) > before + 50).then_some(()));
    }

    fn stop(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().unwrap();
        }
        Arc::try_unwrap(self.acknowledged).unwrap().into_inner().unwrap()
    }
}

async fn write_until(
    client: usize,
    endpoints: Vec<String>,
    stop: &AtomicBool,
    acknowledged: &Mutex<BTreeSet<String>>,
    written: &AtomicU64,
) {
    let mut config = Config::new(endpoints);
    config.connect_timeout = Duration::from_secs(60);
    let cell = Cell::connect_with(config).await.unwrap();
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let name = format!("{client}-{number}");
        let create = OpenOptions::new().write().create(Create::Must).contents(name.clone());
        match cell.open(&format!("{DIRECTORY}/{name}"), create).await {
            Ok(node) => {
                acknowledged.lock().unwrap().insert(name);
                written.fetch_add(1, Ordering::SeqCst);
                let _closed_all_the_same = node.close().await;
            }
            Err(Error::Unknown) => {}
            Err(error) => panic!("client {client}: {error}"),
        }
    }
    let _closed_all_the_same = cell.close().await;
}

/// The tool, speaking to some replicas.
fn wombat(endpoints: &[String], arguments: &[&str]) -> String {
    let mut command = Command::new(WOMBAT);
    command.args(arguments).args(["--endpoints", &endpoints.join(",")]).env_remove("WOMBAT_CELL");
    let output = command.output().unwrap();
    assert!(output.status.success(), "wombat {arguments:?}: {}", shown(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Everything acknowledged is there, whoever is asked last.
fn check_nothing_lost(five: &Five, acknowledged: &BTreeSet<String>) {
    let listed = wombat(&five.addresses(), &["ls", DIRECTORY]);
    let there: BTreeSet<&str> = listed.lines().map(str::trim).collect();
    let lost: Vec<_> = acknowledged.iter().filter(|name| !there.contains(name.as_str())).collect();
    assert!(
        lost.is_empty(),
        "{} of {} acknowledged writes are lost: {lost:?}",
        lost.len(),
        acknowledged.len()
    );
}

fn five() -> (tempfile::TempDir, Five) {
    let dir = tempfile::tempdir().unwrap();
    let five = Five::start(dir.path(), 5);
    wombat(&five.addresses(), &["mkdir", DIRECTORY]);
    (dir, five)
}

#[test]
fn any_two_of_five_may_die_under_load_and_come_back_in_any_order() {
    let (_dir, mut five) = five();
    let load = Load::start(&five, 4);
    load.goes_on();
    for round in 0..4 {
        // The master and one other, then two others, in turn.
        let master = five.master();
        let first = if round % 2 == 0 { master } else { (master + 1) % 5 };
        let second = (master + 2 + round % 3) % 5;
        five.kill(first);
        five.kill(second);
        load.goes_on();
        let (early, late) = if round < 2 { (first, second) } else { (second, first) };
        five.restart(early);
        load.goes_on();
        five.restart(late);
    }
    let acknowledged = load.stop();
    five.settled();
    check_nothing_lost(&five, &acknowledged);
}

#[test]
fn all_five_may_die_at_once() {
    let (_dir, mut five) = five();
    let load = Load::start(&five, 4);
    load.goes_on();
    (0..5).for_each(|number| five.kill(number));
    [3, 0, 4, 1, 2].into_iter().for_each(|number| five.restart(number));
    load.goes_on();
    let acknowledged = load.stop();
    check_nothing_lost(&five, &acknowledged);
}

#[test]
fn a_master_that_was_stopped_for_longer_than_its_lease_serves_no_more() {
    let (_dir, five) = five();
    let load = Load::start(&five, 2);
    load.goes_on();
    let before = five.status();
    let old = five.master();
    five.signal(old, "STOP");
    let others: Vec<String> =
        five.addresses().into_iter().filter(|at| *at != five.replicas[old].address).collect();
    let now = wait_for("another master", || {
        five.view(&others.join(",")).filter(|status| status["epoch"].as_u64() > before["epoch"].as_u64())
    });
    assert_ne!(now["master"], before["master"]);
    load.goes_on();
    wombat(&others, &["put", "/ls/local/where", "new"]);
    five.signal(old, "CONT");
    // Whatever it believed: asked alone, it gives no old answer.
    assert_eq!(wombat(&[five.replicas[old].address.clone()], &["get", "/ls/local/where"]), "new");
    let acknowledged = load.stop();
    five.settled();
    check_nothing_lost(&five, &acknowledged);
}

#[test]
fn a_replica_that_lost_its_disk_comes_back_under_another_id() {
    let (_dir, mut five) = five();
    let load = Load::start(&five, 2);
    load.goes_on();
    let lost = (five.master() + 1) % 5;
    five.kill(lost);
    five.wipe(lost);
    load.goes_on();
    five.restart(lost);
    let acknowledged = load.stop();
    let ids = |status: &serde_json::Value| {
        let members = status["members"].as_array().unwrap().iter();
        members.map(|member| member["replica"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let status = wait_for("the vote to be passed on", || {
        Some(five.settled()).filter(|status| ids(status).contains(&6) && ids(status).len() == 5)
    });
    assert!(status["members"].as_array().unwrap().iter().all(|member| member["voter"] == true));
    // With its vote, two others may die.
    let others: Vec<usize> = (0..5).filter(|number| *number != lost).take(2).collect();
    others.into_iter().for_each(|number| five.kill(number));
    wombat(&five.addresses(), &["put", "/ls/local/after", "all"]);
    check_nothing_lost(&five, &acknowledged);
}

#[test]
fn mastership_is_handed_over_on_request() {
    let (_dir, five) = five();
    let before = five.status();
    let said = wombat(&five.addresses(), &["admin", "transfer"]);
    assert!(said.contains("is master, epoch"), "{said}");
    assert_ne!(five.status()["master"], before["master"]);
}

#[test]
fn a_founder_that_waits_for_the_others_stops_cleanly() {
    use std::io::{BufRead, BufReader};
    let dir = tempfile::tempdir().unwrap();
    let at = common::free_addresses(3);
    let mut command = Command::new(WOMBAT);
    command.args(["serve", "--cell", "local", "--listen", &at[0], "--peers", &at.join(","), "--log", "info"]);
    command.arg("--dir").arg(dir.path().join("data")).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("waiting for the other founders")));
    common::signal(child.id(), "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_server_that_logs_nothing_serves_until_it_is_told_to_stop() {
    use std::io::{BufRead, BufReader};
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(WOMBAT);
    command.args(["serve", "--cell", "local", "--listen", "127.0.0.1:0", "--log", "off"]);
    command.arg("--dir").arg(dir.path().join("data")).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("ready:")), "it stopped before it served");
    common::signal(child.id(), "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
