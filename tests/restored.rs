//! Data directories that are copied and put back by an operator: no token is issued twice, and no acknowledged write
//! is lost in silence (docs/decisions/0022).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::five::Five;
use common::{Serve, WOMBAT, copy, shown, wait_for};
use std::path::Path;
use std::process::{Command, Stdio};
use wombat_proto::Sequencer;

const LOCK: &str = "/ls/local/lock";
const FILE: &str = "/ls/local/file";

fn wombat(endpoints: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(WOMBAT);
    command.args(arguments).stdin(Stdio::null());
    command.env("WOMBAT_ENDPOINTS", endpoints).env_remove("WOMBAT_CELL").env_remove("WOMBAT_SEQUENCER");
    command
}

#[track_caller]
fn ok(endpoints: &str, arguments: &[&str]) -> String {
    let output = wombat(endpoints, arguments).output().unwrap();
    assert!(output.status.success(), "wombat {arguments:?}: {}", shown(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// What the next holder of the lock gets.
fn next_sequencer(endpoints: &str) -> Sequencer {
    ok(endpoints, &["lock", LOCK, "--", "sh", "-c", "echo $WOMBAT_SEQUENCER"]).parse().unwrap()
}

/// A holder from before the restore is stale, and everything that the cell gives out is later.
#[track_caller]
fn check_later(endpoints: &str, before: &Sequencer) -> Sequencer {
    let after = next_sequencer(endpoints);
    assert!(after.token > before.token, "{after} was issued after {before}");
    assert!(after.generation > before.generation, "{after} was issued after {before}");
    let checked = wombat(endpoints, &["sequencer", "check", &before.to_string()]).output().unwrap();
    assert!(!checked.status.success(), "{before} is stale: {}", shown(&checked));
    after
}

#[test]
fn a_restored_cell_of_one_repeats_no_token() {
    let dir = tempfile::tempdir().unwrap();
    let (data, backup) = (dir.path().join("data"), dir.path().join("backup"));
    let mut serve = Serve::start(&data, "6s");
    next_sequencer(&serve.address);
    assert_eq!(serve.stop(), Some(0));
    copy(&data, &backup);
    serve.restart();
    let mut last = next_sequencer(&serve.address);
    // Twice from the same backup: in the place of the directory, and over its files.
    for in_place in [false, true] {
        ok(&serve.address, &["put", FILE, "since the backup"]);
        serve.kill();
        if !in_place {
            std::fs::remove_dir_all(&data).unwrap();
        }
        copy(&backup, &data);
        serve.restart();
        last = check_later(&serve.address, &last);
        assert!(
            !wombat(&serve.address, &["get", FILE]).status().unwrap().success(),
            "it was not in the backup"
        );
        // An Open that makes a node names it by a later instance, too.
        ok(&serve.address, &["put", FILE, "after the restore"]);
        ok(&serve.address, &["rm", FILE]);
    }
    // A restart is no restore.
    serve.kill();
    serve.restart();
    check_later_only_by_token(&serve.address, &last);
}

fn check_later_only_by_token(endpoints: &str, before: &Sequencer) {
    let after = next_sequencer(endpoints);
    assert!(after.token > before.token);
    assert_eq!(after.generation, before.generation.next());
}

/// Stops all, and puts copies in the place of all directories.
fn restore_all(five: &mut Five, backups: &Path) {
    for number in 0..five.replicas.len() {
        five.kill(number);
        five.put_back(number, &backups.join(number.to_string()));
    }
}

#[test]
fn a_restored_cell_of_three_waits_for_all_and_repeats_no_token() {
    let dir = tempfile::tempdir().unwrap();
    let backups = dir.path().join("backups");
    let mut five = Five::start(dir.path(), 3);
    let endpoints = five.addresses().join(",");
    ok(&endpoints, &["put", FILE, "in the backup"]);
    for number in 0..3 {
        five.kill(number);
        five.back_up(number, &backups.join(number.to_string()));
    }
    (0..3).for_each(|number| five.restart(number));
    five.master();
    ok(&endpoints, &["put", FILE, "since the backup"]);
    let before = next_sequencer(&endpoints);
    restore_all(&mut five, &backups);
    // Two of three are not enough.
    five.restart(0);
    five.restart(1);
    wait_for("both to say that they are copies", || are_copies(&endpoints, 2));
    let said = wombat(&endpoints, &["status"]).output().unwrap();
    assert!(String::from_utf8_lossy(&said.stderr).contains("is a copy"), "{}", shown(&said));
    five.restart(2);
    five.master();
    assert_eq!(ok(&endpoints, &["get", FILE]), "in the backup");
    check_later(&endpoints, &before);
    // From now on it is a cell like any other: one may fail.
    wait_for("all to vote again", || are_copies(&endpoints, 0));
    let master = five.master();
    five.kill(master);
    five.master();
    assert_eq!(ok(&endpoints, &["get", FILE]), "in the backup");
}

/// Whether so many of those that answer say that they have no vote.
fn are_copies(endpoints: &str, how_many: usize) -> Option<()> {
    let all: Vec<&str> = endpoints.split(',').collect();
    let is_copy = |at: &&&str| {
        let output = wombat(at, &["status"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.lines().any(|line| line.contains(**at) && line.contains("copy"))
    };
    (all.iter().filter(is_copy).count() == how_many).then_some(())
}

/// A put is acknowledged by two replicas, while the third is down. One of them comes back with an older disk.
#[test]
fn a_rolled_back_replica_loses_no_acknowledged_write() {
    let dir = tempfile::tempdir().unwrap();
    let backup = dir.path().join("backup");
    let mut five = Five::start(dir.path(), 3);
    let endpoints = five.addresses().join(",");
    ok(&endpoints, &["put", FILE, "before"]);
    five.settled();
    five.stop(1);
    five.back_up(1, &backup);
    five.restart(1);
    five.settled();
    five.kill(2);
    ok(&endpoints, &["put", FILE, "acknowledged"]);
    five.kill(0);
    five.kill(1);
    five.put_back(1, &backup);
    five.restart(1);
    five.restart(2);
    // They are two of three, but one has forgotten: they elect nobody.
    let at = five.replicas[1].address.clone();
    wait_for("it to say that it is a copy", || are_copies(&at, 1));
    five.restart(0);
    assert_eq!(ok(&endpoints, &["get", FILE]), "acknowledged");
    // It learns what it had forgotten, and votes again.
    wait_for("it to vote again", || are_copies(&endpoints, 0));
    five.settled();
    five.kill(0);
    five.master();
    assert_eq!(ok(&endpoints, &["get", FILE]), "acknowledged");
}

/// The directory itself is put back, not a copy of it, so that nothing on the disk shows it. Others have met the
/// replica since.
#[test]
fn a_replica_whose_later_starts_others_know_loses_its_vote() {
    let dir = tempfile::tempdir().unwrap();
    let aside = dir.path().join("aside");
    let mut five = Five::start(dir.path(), 3);
    let endpoints = five.addresses().join(",");
    five.settled();
    five.stop(1);
    std::fs::rename(five.dir(1), &aside).unwrap();
    copy(&aside, five.dir(1));
    five.restart(1);
    five.settled();
    wait_for("the copy to vote again", || are_copies(&endpoints, 0));
    ok(&endpoints, &["put", FILE, "acknowledged"]);
    five.kill(1);
    std::fs::remove_dir_all(five.dir(1)).unwrap();
    std::fs::rename(&aside, five.dir(1)).unwrap();
    five.restart(1);
    wait_for("it to hear of its later start", || five.log(1).contains("knows a later start").then_some(()));
    // It learns what it had forgotten, and votes again.
    five.settled();
    wait_for("it to vote again", || are_copies(&endpoints, 0));
    // A restart is nothing of the kind.
    let warnings = five.log(1).matches("knows a later start").count();
    five.kill(1);
    five.restart(1);
    five.settled();
    assert_eq!(five.log(1).matches("knows a later start").count(), warnings);
    assert_eq!(ok(&endpoints, &["get", FILE]), "acknowledged");
}
