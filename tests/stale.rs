//! `--stale` on real processes: every replica answers, also when nobody is master, and says how old its answer is.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::five::Five;
use common::{WOMBAT, free_addresses, serve, shown, wait_for};
use serde_json::Value;
use std::process::{Child, Command, Output, Stdio};

fn wombat(endpoints: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(WOMBAT);
    command.args(arguments).args(["--endpoints", endpoints]).env_remove("WOMBAT_CELL");
    command.stdin(Stdio::null()).output().unwrap()
}

/// Reads a file at whichever of the endpoints answers.
#[track_caller]
fn read(endpoints: &str, path: &str) -> Value {
    let output = wombat(endpoints, &["get", "--stale", "--json", path]);
    assert!(output.status.success(), "{}", shown(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn age(read: &Value) -> Option<u64> {
    read["stale"]["age_ms"].as_u64()
}

fn put(five: &Five, text: &str) {
    let output = wombat(&five.addresses().join(","), &["put", "/ls/local/file", text]);
    assert!(output.status.success(), "{}", shown(&output));
}

/// What a replica answers, once it has heard of `text` and knows how old that is at most.
fn heard(address: &str, text: &str) -> Value {
    wait_for("a replica to hear of what was written", || {
        let output = wombat(address, &["get", "--stale", "--json", "/ls/local/file"]);
        let read: Value = serde_json::from_slice(&output.stdout).ok()?;
        (read["contents"] == text && age(&read).is_some()).then_some(read)
    })
}

#[test]
fn every_replica_answers_and_goes_on_when_there_is_no_master() {
    let dir = tempfile::tempdir().unwrap();
    let five = Five::start(dir.path(), 3);
    put(&five, "one");
    let numbers: Vec<u64> = five
        .addresses()
        .iter()
        .map(|address| heard(address, "one")["stale"]["replica"].as_u64().unwrap())
        .collect();
    assert!(numbers.len() == 3 && numbers[0] != numbers[1] && numbers[1] != numbers[2], "{numbers:?}");

    // The master stands still, and another one: nobody has a quorum.
    let master = five.master();
    let [left, frozen] = [1, 2].map(|step| (master + step) % 3);
    five.freeze(master);
    five.freeze(frozen);
    let alone = &five.replicas[left].address;
    let before = age(&read(alone, "/ls/local/file")).unwrap();
    let later = wait_for("its age to grow", || {
        let later = read(alone, "/ls/local/file");
        assert_eq!(later["contents"], "one");
        age(&later).filter(|later| *later > before + 3000)
    });
    assert_eq!(wombat(alone, &["get", "/ls/local/file", "--connect-timeout", "1s"]).status.code(), Some(6));
    // Those who do not answer are passed over, and people are told, too.
    let in_turn = [master, frozen, left].map(|number| five.replicas[number].address.clone()).join(",");
    let output = wombat(&in_turn, &["get", "--stale", "/ls/local/file"]);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"one"[..]), "{}", shown(&output));
    let said = String::from_utf8(output.stderr).unwrap();
    let who = format!(" at replica {}, at most ", numbers[left]);
    assert!(said.starts_with("as of slot ") && said.contains(&who) && said.ends_with(" ms old\n"), "{said}");

    five.wake(master);
    five.wake(frozen);
    wait_for("its age to shrink", || {
        age(&read(alone, "/ls/local/file")).filter(|now| *now < later.min(1000))
    });
    put(&five, "two");
    heard(alone, "two");
}

#[test]
fn whoever_has_just_started_does_not_know_how_old_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut five = Five::start(dir.path(), 3);
    put(&five, "one");
    let number = (five.master() + 1) % 3;
    let address = five.replicas[number].address.clone();
    let slot = heard(&address, "one")["stale"]["applied_slot"].as_u64();
    wait_for("it to have written down that this is chosen", || {
        let status = five.status();
        let member = status["members"].as_array()?.iter().find(|member| member["address"] == *address)?;
        (member["chosen_slot"].as_u64() >= slot).then_some(())
    });
    (0..3).for_each(|number| five.kill(number));
    // Alone it hears of no master.
    five.restart(number);
    let output = wait_for("it to be there", || {
        let output = wombat(&address, &["get", "--stale", "/ls/local/file"]);
        output.status.success().then_some(output)
    });
    assert_eq!(output.stdout, b"one");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(", of unknown age"), "{said}");
    let listed = wombat(&address, &["ls", "--stale", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!((&listed["path"], &listed["stale"]["age_ms"]), (&"/ls/local".into(), &Value::Null));
}

/// A server that is killed when the test ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _it_is_gone = self.0.kill();
        let _it_is_gone = self.0.wait();
    }
}

#[test]
fn a_learner_answers_too() {
    let dir = tempfile::tempdir().unwrap();
    let five = Five::start(dir.path(), 3);
    put(&five, "one");
    let address = free_addresses(1).remove(0);
    let mut command = Command::new(WOMBAT);
    command.args(["serve", "--cell", "local", "--join", "--listen", &address]);
    command.args(["--peers", &five.addresses().join(",")]).arg("--dir").arg(dir.path().join("learner"));
    let _learner = Killed(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    assert_eq!(heard(&address, "one")["stale"]["replica"], 4);
    put(&five, "two");
    heard(&address, "two");
}

#[test]
fn the_tool_reads_stale_as_it_reads_otherwise() {
    let (_dir, serve) = serve("12s");
    serve.ok(&["put", "-p", "/ls/local/d/file", "text"]);
    for arguments in [
        &["get", "/ls/local/d/file"][..],
        &["ls", "/ls/local/d"],
        &["ls", "-l", "/ls/local/d"],
        &["stat", "/ls/local/d/file"],
        &["stat", "/ls/local/d"],
    ] {
        assert_eq!(serve.ok(&[arguments, &["--stale"]].concat()), serve.ok(arguments), "{arguments:?}");
    }
    for arguments in [&["get", "/ls/local/d/file", "--json"][..], &["stat", "/ls/local/d", "--json"]] {
        let mut stale: Value = serde_json::from_str(&serve.ok(&[arguments, &["--stale"]].concat())).unwrap();
        let staleness = stale.as_object_mut().unwrap().remove("stale").unwrap();
        assert!(staleness["replica"] == 1 && staleness["applied_slot"].as_u64() > Some(0), "{staleness}");
        assert!(staleness["age_ms"].is_u64(), "{staleness}");
        assert_eq!(stale, serde_json::from_str::<Value>(&serve.ok(arguments)).unwrap());
    }
    serve.fails(3, &["get", "--stale", "/ls/local/none"]);
    serve.fails(4, &["get", "--stale", "/ls/local/d"]);
    serve.fails(4, &["ls", "--stale", "/ls/local/d/file"]);
    serve.fails(2, &["stat", "--stale", "relative"]);
    serve.fails(2, &["stat", "--stale", "/ls/other/file"]);
    let said = serve.fails(2, &["get", "--stale", "/ls/local/d/file", "--cell", "elsewhere"]);
    assert!(said.contains("this is the cell local"), "{said}");
    let said = serve.fails(6, &["get", "--stale", "/ls/local/d/file", "--endpoints", "127.0.0.1:1"]);
    assert!(said.contains("127.0.0.1:1"), "{said}");
    // None of that was a session, or is to be seen anywhere.
    let status: Value = serde_json::from_str(&serve.ok(&["status", "--json"])).unwrap();
    assert_eq!(status["sessions"], 0);
}
