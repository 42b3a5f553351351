//! Reads of the tool: they take no session, leave nothing in the log, and find the master wherever it is.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::five::Five;
use common::{Serve, WOMBAT, raw::Raw, serve, shown};
use serde_json::Value;
use std::process::{Command, Stdio};
use wombat_proto::Error;
use wombat_proto::wire::{self, request::Call, response::Result as Answer};

/// The slot up to which the log is applied, and how many sessions there are.
fn log_and_sessions(serve: &Serve) -> (u64, u64) {
    let status: Value = serde_json::from_str(&serve.ok(&["status", "--json"])).unwrap();
    (status["applied_slot"].as_u64().unwrap(), status["sessions"].as_u64().unwrap())
}

#[test]
fn command_that_only_reads_leaves_nothing_in_the_log() {
    let (_dir, serve) = serve("12s");
    serve.ok(&["put", "-p", "/ls/local/d/file", "text"]);
    let before = log_and_sessions(&serve);
    for arguments in [
        &["get", "/ls/local/d/file"][..],
        &["stat", "/ls/local/d/file"],
        &["ls", "/ls/local/d"],
        &["tree"],
        &["locks"],
        &["sessions"],
        &["admin", "audit"],
    ] {
        serve.ok(arguments);
    }
    serve.fails(3, &["get", "/ls/local/none"]);
    serve.fails(4, &["get", "/ls/local/d"]);
    let stale = wombat_client::Sequencer {
        path: wombat_client::Path::parse("/ls/local/d/file").unwrap(),
        instance: wombat_client::Instance(1),
        mode: wombat_client::LockMode::Exclusive,
        generation: wombat_client::Generation(1),
        token: wombat_client::Token(1),
    };
    serve.fails(4, &["sequencer", "check", &stale.to_string()]);
    assert_eq!(log_and_sessions(&serve), before);
    // What changes something does.
    serve.ok(&["put", "/ls/local/d/file", "text"]);
    assert!(log_and_sessions(&serve).0 > before.0);
}

/// Reads the file through these endpoints.
fn read(endpoints: &str) -> std::process::Output {
    let mut tool = Command::new(WOMBAT);
    tool.args(["get", "/ls/local/file", "--connect-timeout", "60s", "--timeout", "90s"]);
    tool.env("WOMBAT_ENDPOINTS", endpoints).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn read_finds_the_master_from_any_replica_and_waits_for_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let mut three = Five::start(dir.path(), 3);
    let master = three.master();
    let others: Vec<usize> = (0..3).filter(|number| *number != master).collect();
    let of = |number: usize| three.replicas[number].address.clone();
    let put = Command::new(WOMBAT)
        .args(["put", "/ls/local/file", "text"])
        .env("WOMBAT_ENDPOINTS", of(master))
        .output()
        .unwrap();
    assert!(put.status.success(), "{}", shown(&put));
    let (follower, both) =
        (of(others[0]), others.iter().map(|number| of(*number)).collect::<Vec<_>>().join(","));
    for endpoints in [of(master), follower.clone(), both.clone()] {
        let output = read(&endpoints);
        assert_eq!(output.stdout, b"text", "{endpoints}: {}", shown(&output));
    }
    // The others name it as the master for a while.
    three.kill(master);
    for endpoints in [&follower, &both] {
        let output = read(endpoints);
        assert_eq!(output.stdout, b"text", "{endpoints}: {}", shown(&output));
    }
}

#[test]
fn read_takes_the_place_of_a_client_not_of_an_operator() {
    let dir = tempfile::tempdir().unwrap();
    let one = Five::start_with(dir.path(), 1, &["--connections-per-address", "2"]);
    let address = &one.replicas[0].address;
    let _clients: Vec<Raw> = (0..2).map(|_| Raw::attach(address)).collect();
    let mut operator = Raw::dial(address);
    assert!(matches!(operator.answer(1), Some(Answer::Welcome(_))));
    let locks = Call::ListLocks(wire::ListLocks::default());
    assert!(matches!(operator.ask(locks), Some(Answer::Locks(_))));
    let read = Call::ReadPath(wire::ReadPath { path: "/ls/local".into(), what: 1, ..Default::default() });
    match operator.ask(read) {
        Some(Answer::Error(error)) => assert!(matches!(error.into(), Error::Overloaded { .. })),
        other => panic!("{other:?}"),
    }
}
