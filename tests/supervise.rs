//! What runs under a lock is stopped before the lock can be lost (PITFALLS: a child must not outlive its lock).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{Serve, is_alive, serve, signal, wait_for};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

/// Runs `wombat lock` with a shell script, which gets the name of a file for notes.
fn lock(serve: &Serve, script: &str, notes: &Path) -> Child {
    let notes = notes.to_str().unwrap();
    let mut command = serve.wombat(&["lock", "/ls/local/l", "--", "sh", "-c", script, "job", notes]);
    command.stderr(Stdio::null()).spawn().unwrap()
}

/// The process that a script has noted.
fn noted(notes: &Path) -> u32 {
    wait_for("a note", || std::fs::read_to_string(notes).ok()?.trim().parse().ok())
}

#[test]
fn the_status_of_the_command_is_passed_on() {
    let (_dir, serve) = serve("12s");
    serve.fails(9, &["lock", "/ls/local/l", "--", "sh", "-c", "exit 9"]);
    serve.fails(143, &["lock", "/ls/local/l", "--", "sh", "-c", "kill -TERM $$"]);
    serve.fails(127, &["lock", "/ls/local/l", "--", "no-such-command"]);
    serve.fails(126, &["lock", "/ls/local/l", "--", "/dev/null"]);
    assert_eq!(serve.ok(&["locks", "--json"]), "[]\n", "nothing is left locked");
}

#[test]
fn a_killed_holder_takes_its_whole_group_with_it() {
    let (dir, serve) = serve("2s");
    let notes = dir.path().join("notes");
    let mut holder = lock(&serve, "sleep 1000 & echo $! > $1; wait", &notes);
    let grandchild = noted(&notes);
    assert!(is_alive(grandchild));
    signal(holder.id(), "KILL");
    holder.wait().unwrap();
    wait_for("the grandchild to die", || (!is_alive(grandchild)).then_some(()));
    // And the lock goes free when the session has expired.
    serve.ok(&["lock", "/ls/local/l", "--", "true"]);
}

#[test]
fn what_the_command_leaves_running_is_stopped_before_the_release() {
    let (dir, serve) = serve("12s");
    let notes = dir.path().join("notes");
    let mut holder = lock(&serve, "sleep 1000 & echo $! > $1", &notes);
    assert!(holder.wait().unwrap().success());
    assert!(!is_alive(noted(&notes)));
}

#[test]
fn signals_go_to_the_command_and_its_answer_counts() {
    let (dir, serve) = serve("12s");
    let notes = dir.path().join("notes");
    let script = "trap 'exit 33' TERM; echo $$ > $1; while :; do sleep 0.05; done";
    let mut holder = lock(&serve, script, &notes);
    noted(&notes);
    signal(holder.id(), "TERM");
    assert_eq!(holder.wait().unwrap().code(), Some(33));
}

#[test]
fn when_the_cell_is_gone_the_command_is_stopped_and_the_code_says_why() {
    let (dir, mut serve) = serve("2s");
    let notes = dir.path().join("notes");
    // It ignores SIGTERM, and so does its child: only SIGKILL is left.
    let script = "trap '' TERM; sleep 1000 & echo $! > $1; wait; sleep 1000";
    let mut holder = lock(&serve, script, &notes);
    let grandchild = noted(&notes);
    serve.kill();
    assert_eq!(wait_for("the holder to give up", || holder.try_wait().unwrap()).code(), Some(7));
    assert!(!is_alive(grandchild));
}

#[test]
fn a_cell_that_comes_back_in_time_costs_nothing() {
    let (dir, mut serve) = serve("12s");
    let notes = dir.path().join("notes");
    let script =
        "echo $$ > $1; until [ -e $1.go ]; do sleep 0.05; done; wombat sequencer check $WOMBAT_SEQUENCER";
    let mut holder = lock(&serve, script, &notes);
    noted(&notes);
    serve.kill();
    serve.restart();
    std::fs::write(dir.path().join("notes.go"), "").unwrap();
    assert!(holder.wait().unwrap().success(), "the lock was kept over the restart");
}

#[test]
fn waiting_ends_when_it_said_and_trying_waits_not_at_all() {
    let (dir, serve) = serve("12s");
    let notes = dir.path().join("notes");
    let mut holder = lock(&serve, "echo $$ > $1; sleep 1000", &notes);
    let job = noted(&notes);
    serve.fails(5, &["lock", "/ls/local/l", "--timeout", "50ms", "--", "true"]);
    serve.fails(5, &["lock", "/ls/local/l", "--timeout", "0s", "--", "true"]);
    serve.fails(5, &["lock", "/ls/local/l", "--shared", "--timeout", "0s", "--", "true"]);
    // An interrupted wait leaves nothing behind.
    let mut waiter =
        serve.wombat(&["lock", "/ls/local/l", "--", "true"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(waiter.stderr.take().unwrap()).lines();
    assert!(said.next().unwrap().unwrap().contains("held by"), "it says who holds the lock");
    signal(waiter.id(), "INT");
    assert_eq!(waiter.wait().unwrap().code(), Some(130));
    signal(job, "KILL");
    holder.wait().unwrap();
    wait_for("the lock to be free", || (serve.ok(&["locks", "--json"]) == "[]\n").then_some(()));
}

#[test]
fn without_a_command_it_holds_until_interrupted() {
    let (_dir, serve) = serve("12s");
    let mut holder =
        serve.wombat(&["lock", "/ls/local/l", "--shared"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    let sequencer = lines.next().unwrap().unwrap();
    serve.ok(&["sequencer", "check", &sequencer]);
    serve.ok(&["lock", "/ls/local/l", "--shared", "--timeout", "0s", "--", "true"]);
    signal(holder.id(), "INT");
    assert!(holder.wait().unwrap().success());
    serve.fails(4, &["sequencer", "check", &sequencer]);
}
