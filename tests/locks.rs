//! Locks as people use them: who holds, who waits and why, breaking one, semaphores, sequential names, and
//! watching a whole tree.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{Serve, open, run, serve, signal, wait_for};
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;
use wombat_client::{Cell, Create, Error, EventKind, LockMode, OpenOptions, Token};

const LOCK: &str = "/ls/local/lock";

/// Runs the tool, and reads what it prints.
fn spawn(serve: &Serve, arguments: &[&str]) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut command = serve.wombat(arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

/// What `wombat locks LOCK --json` says of the lock, if anything.
fn look(serve: &Serve) -> Option<serde_json::Value> {
    let locks: serde_json::Value = serde_json::from_str(&serve.ok(&["locks", LOCK, "--json"])).unwrap();
    locks.as_array().unwrap().iter().find(|lock| lock["path"] == LOCK).cloned()
}

fn wait_for_waiters(serve: &Serve, count: u64) -> serde_json::Value {
    wait_for("the waiters", || look(serve).filter(|lock| lock["waiting"] == count))
}

#[test]
fn a_lock_is_inspected_and_broken_and_goes_to_the_next_in_line() {
    let (_dir, serve) = serve("12s");
    let script = "trap 'echo stopped; exit 0' TERM; echo $WOMBAT_TOKEN; sleep 1000 & wait";
    let (mut holder, mut said) = spawn(&serve, &["lock", LOCK, "--", "sh", "-c", script]);
    let token: u64 = said.next().unwrap().unwrap().parse().unwrap();
    let (mut next, mut next_said) = spawn(&serve, &["lock", LOCK, "--", "sh", "-c", "echo mine"]);
    let lock = wait_for_waiters(&serve, 1);
    assert_eq!(
        (&lock["holders"][0]["token"], &lock["waiters"][0]["mode"]),
        (&token.into(), &"exclusive".into())
    );
    let free_within = lock["free_within_ms"].as_u64().unwrap();
    assert!((1..=18_000).contains(&free_within), "a lease and a half, and no lock-delay: {lock}");
    let shown = serve.ok(&["locks", LOCK]);
    for part in ["held     exclusive", "waits    1. exclusive", "why", "at the latest", &token.to_string()] {
        assert!(shown.contains(part), "{part:?} in {shown}");
    }
    serve.fails(4, &["lock", "break", LOCK, "--token", "1"]);
    serve.fails(3, &["lock", "break", "/ls/local/none"]);
    let broken = serve.ok(&["lock", "break", LOCK, "--reason", "it hangs"]);
    assert!(broken.contains("broke the lock"), "{broken}");
    assert_eq!(said.next().unwrap().unwrap(), "stopped", "its command was asked to stop first");
    assert_eq!(holder.wait().unwrap().code(), Some(7));
    assert_eq!(next_said.next().unwrap().unwrap(), "mine");
    assert!(next.wait().unwrap().success());
    let audit = serve.ok(&["admin", "audit"]);
    assert!(audit.contains(&format!("token {token}")) && audit.contains("it hangs"), "{audit}");
    assert!(serve.fails(4, &["lock", "break", LOCK]).contains("nobody holds the lock"));
}

#[test]
fn a_frozen_holder_is_waited_for_until_its_lease_has_ended_and_its_lock_delay_is_kept() {
    let (_dir, serve) = serve("2s");
    let (mut holder, mut said) = spawn(&serve, &["lock", LOCK, "--lock-delay", "1500ms"]);
    said.next().unwrap().unwrap();
    signal(holder.id(), "STOP");
    let (_next, mut next_said) = spawn(&serve, &["lock", LOCK]);
    wait_for_waiters(&serve, 1);
    let (mut breaks, _its_output_stays_open) = spawn(&serve, &["lock", "break", LOCK]);
    let lock = wait_for("the break", || look(&serve).filter(|lock| lock["breaking"] == true));
    assert_eq!(lock["holders"].as_array().unwrap().len(), 1, "it is still the holder's: {lock}");
    assert!(breaks.wait().unwrap().success());
    let delayed = wait_for("the lock-delay", || {
        look(&serve).filter(|lock| lock["holders"].as_array().unwrap().is_empty())
    });
    assert!(
        delayed["delay_left_ms"].as_u64().unwrap() > 0 && delayed["why"].to_string().contains("lock-delay")
    );
    assert!(next_said.next().unwrap().unwrap().starts_with("wsq1.x."), "the next has it in the end");
    signal(holder.id(), "KILL");
    holder.wait().unwrap();
}

#[test]
fn a_guard_knows_that_its_lock_is_broken_before_anybody_else_can_have_it() {
    let (_dir, serve) = serve("3s");
    run(async {
        let [one, two, admin] = [(); 3].map(|()| Cell::connect([serve.address.clone()]));
        let (one, two, admin) = (one.await.unwrap(), two.await.unwrap(), admin.await.unwrap());
        let options = OpenOptions::new().write().create(Create::May).events(&[EventKind::LockInvalid]);
        let node = one.open(LOCK, options).await.unwrap();
        let mut events = node.events();
        let guard = node.acquire(LockMode::Exclusive).await.unwrap();
        let theirs = open(&two, LOCK).await;
        let next = theirs.acquire(LockMode::Exclusive);
        let broken = admin.break_lock(LOCK, Some(guard.token()), "test");
        let watched = async {
            guard.lost().await;
            wombat_client::now()
        };
        let (next, broken, lost_at) = tokio::join!(
            async {
                let guard = next.await.unwrap();
                (guard, wombat_client::now())
            },
            broken,
            watched
        );
        broken.unwrap();
        assert!(guard.is_revoked() && !guard.is_safe());
        assert!(lost_at <= next.1, "the one is over before the other begins");
        assert!(guard.token() < next.0.token());
        assert_eq!(events.recv().await.unwrap().kind, EventKind::LockInvalid);
        assert_eq!(one.check_sequencer(guard.sequencer()).await, Err(Error::SequencerStale));
        assert_eq!(guard.release().await, Err(Error::NotHeld));
        next.0.release().await.unwrap();
        // The handle is as good as ever, and so is its next guard.
        let again = node.acquire(LockMode::Exclusive).await.unwrap();
        assert!(again.is_safe() && !again.is_revoked());
        assert_eq!(admin.break_lock(LOCK, Some(Token(1)), "").await, Err(Error::NotHeld));
    });
}

#[test]
fn a_semaphore_lets_in_as_many_as_it_has_permits() {
    let (_dir, serve) = serve("12s");
    let take = || spawn(&serve, &["semaphore", LOCK, "--permits", "2"]);
    let (mut first, mut first_said) = take();
    let (mut second, mut second_said) = take();
    assert!(first_said.next().unwrap().unwrap().starts_with("wsq1.s."));
    assert!(second_said.next().unwrap().unwrap().starts_with("wsq1.s."));
    let (mut third, mut third_said) = take();
    let lock = wait_for_waiters(&serve, 1);
    assert_eq!(lock["permits"], 2);
    assert!(lock["why"].to_string().contains("all 2 permits are taken"), "{lock}");
    serve.fails(5, &["semaphore", LOCK, "--permits", "2", "--timeout", "0s", "--", "true"]);
    let other = serve.fails(4, &["semaphore", LOCK, "--permits", "3", "--", "true"]);
    assert!(other.contains("a semaphore of 2"), "{other}");
    serve.ok(&["put", "/ls/local/plain", ""]);
    serve.fails(4, &["semaphore", "/ls/local/plain", "--permits", "3", "--", "true"]);
    signal(first.id(), "TERM");
    assert!(first.wait().unwrap().success());
    assert!(third_said.next().unwrap().unwrap().starts_with("wsq1.s."));
    for child in [&mut second, &mut third] {
        signal(child.id(), "TERM");
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn sequential_names_and_several_changes_as_one() {
    let (_dir, mut serve) = serve("12s");
    let put = |serve: &Serve| serve.ok(&["put", "/ls/local/job-", "work", "--sequential"]);
    assert_eq!(put(&serve), "/ls/local/job-0000000001\n");
    assert_eq!(serve.ok(&["get", "/ls/local/job-0000000001"]), "work");
    serve.ok(&["rm", "/ls/local/job-0000000001"]);
    serve.kill();
    serve.restart();
    assert_eq!(put(&serve), "/ls/local/job-0000000002\n", "no number is given twice");
    serve.fails(2, &["put", "/ls/local/job-", "work", "--sequential", "--create", "may"]);
    let made = serve.ok(&[
        "multi",
        "absent /ls/local/d",
        "mkdir /ls/local/d",
        "create /ls/local/d/f some text",
        "sequential /ls/local/d/q-",
    ]);
    assert_eq!(made, "/ls/local/d/q-0000000001\n");
    assert_eq!(serve.ok(&["get", "/ls/local/d/f"]), "some text");
    serve.fails(4, &["multi", "absent /ls/local/d", "delete /ls/local/d/f"]);
    serve.fails(4, &["multi", "generation /ls/local/d/f 2", "set /ls/local/d/f new"]);
    serve.fails(3, &["multi", "delete /ls/local/d/f", "delete /ls/local/none"]);
    assert_eq!(serve.ok(&["get", "/ls/local/d/f"]), "some text", "none of them was made");
    serve.ok(&["multi", "generation /ls/local/d/f 1", "set /ls/local/d/f new"]);
    assert_eq!(serve.ok(&["get", "/ls/local/d/f"]), "new");
    for nonsense in ["frob /ls/local/d", "delete", "delete /ls/local/d x", "generation /ls/local/d/f x"] {
        serve.fails(2, &["multi", nonsense]);
    }
    run(async {
        let cell = Cell::connect([serve.address.clone()]).await.unwrap();
        let options = OpenOptions::new().write().sequential().contents("x");
        let node = cell.open("/ls/local/d/q-", options).await.unwrap();
        assert_eq!(node.path().to_string(), "/ls/local/d/q-0000000002");
        assert!(node.created());
    });
}

#[test]
fn a_whole_tree_is_watched() {
    let (_dir, serve) = serve("12s");
    serve.ok(&["mkdir", "-p", "/ls/local/a/b"]);
    let mut command = serve.wombat(&["watch", "-r", "/ls/local/a"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(said.next().unwrap().unwrap().contains("watching"));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    serve.ok(&["put", "-p", "/ls/local/a/b/c/f", "1"]);
    assert_eq!((next(), next()), ("child_added b/c".into(), "child_added b/c/f".into()));
    serve.ok(&["put", "/ls/local/a/b/c/f", "2"]);
    assert_eq!(next(), "child_modified b/c/f");
    serve.ok(&["lock", "/ls/local/a/b/c/f", "--", "true"]);
    assert_eq!(next(), "locked b/c/f");
    serve.ok(&["put", "/ls/local/elsewhere", "1"]);
    serve.ok(&["rm", "-r", "/ls/local/a"]);
    let gone = ["b/c/f", "b/c", "b"].map(|path| format!("child_removed {path}"));
    assert_eq!([next(), next(), next()], gone);
    assert_eq!(next(), "deleted");
    assert!(child.wait().unwrap().success());
    serve.fails(4, &["watch", "-r", "/ls/local/elsewhere"]);
}

#[test]
fn a_break_is_finished_by_the_next_master() {
    let (_dir, mut serve) = serve("3s");
    run(async {
        let holder = Cell::connect([serve.address.clone()]).await.unwrap();
        let node = open(&holder, LOCK).await;
        let guard = node.acquire(LockMode::Exclusive).await.unwrap();
        let admin = Cell::connect([serve.address.clone()]).await.unwrap();
        let broken = admin.break_lock(LOCK, None, "over a restart");
        let (broken, ()) = tokio::join!(broken, async {
            // The guard has heard of it, and so the first master has asked for it.
            while !guard.is_revoked() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            serve.kill();
            serve.restart();
        });
        broken.unwrap();
        assert!(!guard.is_safe());
        let audit = admin.audit().await.unwrap();
        assert_eq!(audit.len(), 1, "{audit:?}");
    });
}
