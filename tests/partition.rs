//! A cell of five hosts, each a network namespace of its own, while the network between them falls apart in
//! the shapes that have brought others down. Needs root, for the namespaces.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::five::Five;
use common::network::{Network, PORT, address};
use common::{WOMBAT, wait_for};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The hosts of the replicas.
const HOSTS: usize = 5;

/// The session lease of these cells. After that a client that has reached no master has lost its locks.
const LEASE: Duration = Duration::from_secs(6);

/// Starts a replica on each of the first hosts. Returns their endpoints, too.
fn start(dir: &Path, network: &Network) -> (Five, String) {
    let at = (0..HOSTS).map(|number| (format!("{}:{PORT}", address(number)), Some(network.host(number))));
    let at: Vec<_> = at.collect();
    let all = at.iter().map(|(address, _)| address.clone()).collect::<Vec<_>>().join(",");
    (Five::start_without_waiting(dir, at), all)
}

#[test]
fn whatever_the_shape_of_the_partition_whoever_has_a_quorum_gets_one_master() {
    let Some(network) = Network::make(HOSTS) else {
        return eprintln!("no namespaces here: run it as root");
    };
    let dir = tempfile::tempdir().unwrap();
    let (mut started, all) = start(dir.path(), &network);
    let (master, epoch) = wait_for("a master", || network.master_seen_by(0));
    network.writes_from(0, &all, "together");

    // The master alone on one side: the others elect another, and it hears of that when it is back.
    network.connect(|a, b| (a == master) == (b == master));
    let other = (master + 1) % HOSTS;
    let (next, later) = wait_for("another master", || {
        network.master_seen_by(other).filter(|(place, now)| *place != master && *now > epoch)
    });
    network.writes_from(other, &all, "without it");
    network.connect(|_, _| true);
    wait_for("the old master to follow", || network.master_seen_by(master).filter(|(_, now)| *now >= later));

    // Quorum loss: only one host still reaches all others, and it was not master. It has to become it.
    let hub = (next + 1) % HOSTS;
    network.connect(|a, b| a == hub || b == hub);
    wait_for("the hub to be master", || network.master_seen_by(hub).filter(|(place, _)| *place == hub));
    network.writes_from(hub, &all, "through the hub");

    // Chained: each hears only its neighbours. Whoever is master has a quorum: the middle ones can be.
    network.connect(|_, _| true);
    wait_for("peace", || network.master_seen_by(0));
    network.connect(|a, b| a.abs_diff(b) <= 2);
    let (place, _) =
        wait_for("a master of the chain", || (0..HOSTS).find_map(|at| network.master_seen_by(at)));
    network.writes_from(place, &all, "along the chain");

    // Healed: one master, the last write is read everywhere.
    network.connect(|_, _| true);
    for number in 0..HOSTS {
        let read =
            wait_for("a read", || network.wombat(number, &["get", "/ls/local/x", "--endpoints", &all]));
        assert_eq!(read, "along the chain");
    }
    started.kill(0);
}

/// Only the observer's host does not reach the master, and what it sends there is lost in silence. The cell is well:
/// the status says so, a lock is kept and a write goes through, because others pass them on.
#[test]
fn host_that_does_not_reach_the_master_keeps_its_locks() {
    const OBSERVER: usize = HOSTS;
    let Some(network) = Network::make(HOSTS + 1) else {
        return eprintln!("no namespaces here: run it as root");
    };
    let dir = tempfile::tempdir().unwrap();
    let (_cell, all) = start(dir.path(), &network);
    let (master, epoch) = wait_for("a master", || network.master_seen_by(OBSERVER - 1));
    let endpoints = ["--endpoints", &all];
    let held = ["lock", "/ls/local/held", "--endpoints", &all, "--", "sh", "-c", "echo; read line"];
    let mut holder = network.command(OBSERVER, &held);
    let mut holder = Process(holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut began = [0; 1];
    holder.0.stdout.as_mut().unwrap().read_exact(&mut began).unwrap();
    network.connect(|from, to| (from, to) != (master, OBSERVER));
    let cut = Instant::now();

    network.wombat(OBSERVER, &[&["put", "/ls/local/x", "relayed"], &endpoints[..]].concat()).unwrap();
    let at = format!("{}:{PORT}", address(master));
    let said = network.wombat(OBSERVER, &[&["status"], &endpoints[..]].concat()).unwrap();
    let line = |name: &str| said.lines().find(|line| line.starts_with(name)).unwrap_or(&said);
    assert!(line("master").contains(&at), "{said}");
    assert!(line("not reached from here").contains(&at), "{said}");
    let said = network.wombat(OBSERVER, &[&["status", "--json"], &endpoints[..]].concat()).unwrap();
    let status: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&status["master"], &status["master_reached"]), (&at.clone().into(), &false.into()));
    let replicas = status["replicas"].as_array().unwrap();
    let naming = replicas.iter().filter(|replica| replica["reached"] == true);
    assert_eq!(naming.clone().count(), HOSTS - 1);
    for replica in naming {
        assert_eq!((&replica["master"], &replica["voters_connected"]), (&at.clone().into(), &HOSTS.into()));
        assert!(replica["age_ms"].as_u64().is_some(), "{replica}");
    }
    wait_for("twice the lease to pass", || (cut.elapsed() > 2 * LEASE).then_some(()));
    assert!(holder.0.try_wait().unwrap().is_none(), "the lock is lost");
    drop(holder);
    let next = (master + 1) % HOSTS;
    let to =
        replicas.iter().find(|replica| replica["address"] == format!("{}:{PORT}", address(next))).unwrap();
    let to = to["replica"].to_string();
    let said =
        network.wombat(OBSERVER, &[&["admin", "transfer", "--to", &to], &endpoints[..]].concat()).unwrap();
    assert!(said.contains("is master, epoch"), "{said}");
    let (now, later) = network.master_seen_by(next).unwrap();
    assert!(now == next && later > epoch);

    // Only the master is reached: there is the quorum that it has.
    network.connect(|from, to| (from != OBSERVER && to != OBSERVER) || from == next || to == next);
    let said = network.wombat(OBSERVER, &[&["status"], &endpoints[..]].concat()).unwrap();
    let quorum = said.lines().find(|line| line.starts_with("quorum")).unwrap();
    assert!(quorum.contains("5 of 5 voters; 2 more may fail"), "{said}");

    // Less than a majority answers, and knows of no master: the others may have one.
    let (lonely, rest) = ((next + 1) % HOSTS, (next + 2) % HOSTS);
    network.connect(|from, to| {
        let side = |host| host == OBSERVER || host == lonely || host == rest;
        side(from) == side(to)
    });
    let failed = wait_for("the minority to know of no master", || {
        let output = network.run(OBSERVER, &[&["status"], &endpoints[..]].concat());
        (output.status.code() == Some(6)).then_some(output)
    });
    let said = common::shown(&failed);
    assert!(!said.contains("has no master") && said.contains("may have one"), "{said}");
}

/// The hosts of the master and of another replica send nothing any more. Commands that run under locks go on, in
/// whichever order their clients have the endpoints, and new clients find the cell.
#[test]
fn two_silent_hosts_of_five_cost_no_lock() {
    const CLIENT: usize = HOSTS;
    let Some(network) = Network::make(HOSTS + 1) else {
        return eprintln!("no namespaces here: run it as root");
    };
    let dir = tempfile::tempdir().unwrap();
    let (_cell, all) = start(dir.path(), &network);
    let (master, epoch) = wait_for("a master", || network.master_seen_by(0));
    let mut endpoints: Vec<&str> = all.split(',').collect();
    let mut locks = Vec::new();
    for turn in 0..2 * HOSTS {
        endpoints.rotate_left(1);
        if turn == HOSTS {
            endpoints.reverse();
        }
        let (path, list) = (format!("/ls/local/lock-{turn}"), endpoints.join(","));
        let mut lock = network
            .command(CLIENT, &["lock", &path, "--endpoints", &list, "--", "sh", "-c", "echo; sleep 25"]);
        let mut lock = Process(lock.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        let mut began = String::new();
        BufReader::new(lock.0.stdout.as_mut().unwrap()).read_line(&mut began).unwrap();
        locks.push(lock);
    }

    let silent = [master, (master + 1) % HOSTS];
    network.connect(|from, _| !silent.contains(&from));
    let begun = Instant::now();
    let witness = (master + 2) % HOSTS;
    wait_for("another master", || network.master_seen_by(witness).filter(|(_, later)| *later > epoch));
    // The silent ones come first in the list. Each would cost two seconds if it were waited for.
    endpoints.sort_by_key(|at| !silent.iter().any(|host| **at == format!("{}:{PORT}", address(*host))));
    let list = endpoints.join(",");
    let takes = |arguments: &[&str]| {
        let begun = Instant::now();
        network.wombat(CLIENT, arguments).expect("it succeeds");
        begun.elapsed()
    };
    let best = |arguments: &[&str]| (0..4).map(|_| takes(arguments)).min().expect("four");
    let (session, direct) = (
        best(&["put", "/ls/local/x", "there", "--endpoints", &list]),
        best(&["get", "--stale", "/ls/local/x", "--endpoints", &list]),
    );
    assert!(session.max(direct) < Duration::from_millis(1500), "{session:?}, without a session {direct:?}");
    wait_for("the lease to be over", || (begun.elapsed() > LEASE).then_some(()));
    for (number, lock) in locks.iter_mut().enumerate() {
        if lock.0.try_wait().unwrap().is_some() {
            let mut said = String::new();
            lock.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("lock {number}: {said}");
        }
    }
}

/// A process that does not outlive the test.
struct Process(std::process::Child);

impl Drop for Process {
    fn drop(&mut self) {
        common::signal(self.0.id(), "TERM");
        let _it_is_gone = self.0.wait();
    }
}

/// Large packets from the master are lost, small ones arrive: its heartbeats keep its lease, and nothing it proposes
/// is chosen.
#[test]
fn master_whose_large_packets_are_lost_makes_way() {
    const OBSERVER: usize = HOSTS;
    let Some(network) = Network::make(HOSTS + 1) else {
        return eprintln!("no namespaces here: run it as root");
    };
    let dir = tempfile::tempdir().unwrap();
    let (cell, all) = start(dir.path(), &network);
    let (master, epoch) = wait_for("a master", || network.master_seen_by(0));
    network.writes_from(OBSERVER, &all, "before");
    for other in (0..HOSTS).filter(|other| *other != master) {
        network.drop_if(master, other, "meta length gt 600");
    }
    let large = "x".repeat(75_000);
    let mut large = network
        .command(OBSERVER, &["put", "/ls/local/large", &large, "--endpoints", &all])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (next, later) = wait_for("another master", || {
        (0..HOSTS).find_map(|host| network.master_seen_by(host)).filter(|(place, _)| *place != master)
    });
    assert!(next != master && later > epoch);
    network.writes_from(OBSERVER, &all, "after");
    let log = cell.log(master);
    assert!(log.contains("this replica steps down as master"), "{log}");
    let _either_way = large.wait();
}

/// Three packets in ten between replicas are lost, both ways, more than the bound that is documented: the master
/// stays, and every write goes through.
#[test]
fn loss_of_three_packets_in_ten_changes_no_master() {
    const WRITES: usize = 20;
    const ROUNDS: usize = 4;
    const OBSERVER: usize = HOSTS;
    let Some(network) = Network::make(HOSTS + 1) else {
        return eprintln!("no namespaces here: run it as root");
    };
    let dir = tempfile::tempdir().unwrap();
    let (_cell, all) = start(dir.path(), &network);
    wait_for("a master", || network.master_seen_by(0));
    for (from, to) in (0..HOSTS).flat_map(|from| (0..HOSTS).map(move |to| (from, to))) {
        if from != to {
            network.drop_if(from, to, "numgen random mod 1000 < 300");
        }
    }
    // A machine that stands still for a second can cost a round, and loss alone none.
    let quiet = (0..ROUNDS).any(|round| {
        let before = wait_for("a master", || (0..HOSTS).find_map(|host| network.master_seen_by(host)));
        for write in 0..WRITES {
            let text = format!("{round} {write}");
            let put = network.run(OBSERVER, &["put", "/ls/local/x", &text, "--endpoints", &all]);
            assert!(put.status.success(), "{}", common::shown(&put));
        }
        network.master_seen_by(before.0) == Some(before)
    });
    assert!(quiet, "the master has changed in each of {ROUNDS} rounds");
}

/// The round trip between replicas is longer than the master lease. Only connections pass, no datagrams.
#[test]
fn replicas_far_apart_get_a_longer_master_lease() {
    let dir = tempfile::tempdir().unwrap();
    let cell = Five::start_far_apart(dir.path(), 3, Duration::from_millis(160));
    let near = cell.near_endpoints();
    let status = wait_for("a master with its lease", || {
        cell.view(&near).filter(|status| status["master_lease_ms"].as_u64() > Some(0))
    });
    assert!(status["round_trip_us"].as_u64() > Some(300_000), "{status}");
    assert!(status["master_lease_length_ms"].as_u64() >= Some(600), "{status}");
    let warned = status["replicas"].as_array().unwrap().iter().any(|replica| {
        replica["warnings"].as_array().is_some_and(|all| {
            all.iter().any(|one| {
                one.as_str()
                    .is_some_and(|text| text.contains("round trip") && text.contains("--master-lease"))
            })
        })
    });
    assert!(warned, "{status}");
    let put = Command::new(common::WOMBAT)
        .args(["put", "/ls/local/x", "far", "--endpoints", &near])
        .env_remove("WOMBAT_CELL")
        .output()
        .unwrap();
    assert!(put.status.success(), "{}", common::shown(&put));
    let log: String = (0..3).map(|number| cell.log(number)).collect();
    assert!(log.contains("the round trip to a quorum of replicas takes"), "{log}");
}

/// A host that holds a lock falls silent. The cell says again and again when the lock is free at the latest, and never
/// later than it has said before.
#[test]
fn lock_of_a_host_that_vanished_is_free_when_it_was_said() {
    const SERVER: usize = 0;
    const OBSERVER: usize = 1;
    const HOLDER: usize = 2;
    let Some(network) = Network::make(3) else {
        return eprintln!("no namespaces here: run it as root");
    };
    let dir = tempfile::tempdir().unwrap();
    let endpoint = format!("{}:{PORT}", address(SERVER));
    let _server =
        Five::start_without_waiting(dir.path(), vec![(endpoint.clone(), Some(network.host(SERVER)))]);
    wait_for("the master", || network.master_seen_by(SERVER));
    let mut holder = Command::new("ip")
        .args([
            "netns",
            "exec",
            &network.host(HOLDER),
            WOMBAT,
            "lock",
            "/ls/local/x",
            "--endpoints",
            &endpoint,
        ])
        .args(["--lock-delay", "1s", "--", "sleep", "300"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let look = || {
        let look = ["locks", "/ls/local/x", "--json", "--endpoints", &endpoint];
        let before = Instant::now();
        let locks: serde_json::Value = serde_json::from_str(&network.wombat(OBSERVER, &look)?).unwrap();
        let lock = locks.as_array().unwrap().first().filter(|lock| lock["path"] == "/ls/local/x")?;
        Some((before, Duration::from_millis(lock["free_within_ms"].as_u64().unwrap()), Instant::now()))
    };
    wait_for("the lock", look);
    network.connect(|from, to| HOLDER != from && HOLDER != to);
    let (_, within, after) = look().unwrap();
    let free_by = after + within;
    wait_for("the lock to be free", || {
        let Some((before, within, _)) = look() else { return Some(()) };
        assert!(before + within <= free_by, "it was said to be free {:?} earlier", before + within - free_by);
        None
    });
    holder.kill().unwrap();
    holder.wait().unwrap();
}
