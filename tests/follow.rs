//! Commands that go on: what `watch` prints and runs, and how `elect` campaigns again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{Serve, WOMBAT, serve, signal};
use serde_json::Value;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};

/// A command that goes on, and what it prints.
struct Running {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    err: Lines<BufReader<ChildStderr>>,
}

impl Running {
    fn start(serve: &Serve, arguments: &[&str]) -> Running {
        let mut command = serve.wombat(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap()).lines();
        let err = BufReader::new(child.stderr.take().unwrap()).lines();
        Running { child, out, err }
    }

    /// A watch that has begun.
    fn watch(serve: &Serve, arguments: &[&str]) -> Running {
        let mut running = Running::start(serve, &[&["watch"], arguments].concat());
        assert!(running.err.next().unwrap().unwrap().starts_with("watching "));
        running
    }

    fn line(&mut self) -> String {
        self.out.next().expect("a further line").unwrap()
    }

    fn object(&mut self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    fn code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _gone_already = self.child.wait();
    }
}

#[test]
fn watch_of_a_directory_shows_values_on_request() {
    let (_dir, serve) = serve("12s");
    serve.ok(&["mkdir", "-p", "/ls/local/d/e"]);
    let mut plain = Running::watch(&serve, &["/ls/local/d", "--count", "1"]);
    let mut lines = Running::watch(&serve, &["/ls/local/d", "--values", "--count", "1"]);
    let mut objects = Running::watch(&serve, &["-r", "/ls/local/d", "--values", "--json", "--count", "3"]);
    serve.ok(&["put", "/ls/local/d/f", "one"]);
    assert_eq!(plain.line(), "child_added f");
    assert_eq!(lines.line(), "child_added f generation 1: one");
    let added = objects.object();
    assert_eq!((&added["child"], &added["contents"]), (&"f".into(), &"one".into()));
    serve.ok(&["put", "/ls/local/d/e/g", "two"]);
    let below = objects.object();
    assert_eq!((&below["child"], &below["contents"]), (&"e/g".into(), &"two".into()), "{below}");
    serve.ok(&["rm", "/ls/local/d/f"]);
    let removed = objects.object();
    assert_eq!((&removed["event"], removed.get("contents")), (&"child_removed".into(), None));
}

#[test]
fn watch_runs_a_command_at_each_event() {
    let (_dir, serve) = serve("12s");
    serve.ok(&["mkdir", "/ls/local/d"]);
    let script = "echo $WOMBAT_EVENT $WOMBAT_PATH $(wombat get $WOMBAT_PATH); exit 7";
    let mut watch = Running::watch(&serve, &["/ls/local/d", "--count", "2", "--", "sh", "-c", script]);
    serve.ok(&["put", "/ls/local/d/f", "one"]);
    assert_eq!(watch.line(), "child_added /ls/local/d/f one");
    let said = watch.err.next().unwrap().unwrap();
    assert!(said.contains("child_added /ls/local/d/f") && said.contains("status 7"), "{said}");
    serve.ok(&["put", "/ls/local/d/g", "two"]);
    assert_eq!(watch.line(), "child_added /ls/local/d/g two");
    assert_eq!(watch.code(), Some(7), "the status of the last one");
}

#[test]
fn watch_that_is_ended_ends_its_command() {
    let (_dir, serve) = serve("12s");
    serve.ok(&["put", "/ls/local/f", "one"]);
    // The command ends as if nothing had happened; the watch was meant all the same.
    let script = "trap 'exit 0' TERM; echo begun; while :; do sleep 0.1; done";
    let mut watch = Running::watch(&serve, &["/ls/local/f", "--", "sh", "-c", script]);
    serve.ok(&["put", "/ls/local/f", "two"]);
    assert_eq!(watch.line(), "begun");
    signal(watch.child.id(), "TERM");
    assert_eq!(watch.code(), Some(0));
    let mut watch = Running::watch(&serve, &["/ls/local/f", "--", "true"]);
    signal(watch.child.id(), "TERM");
    assert_eq!(watch.code(), Some(0), "also while nothing runs");
    let mut watch = Running::watch(&serve, &["/ls/local/f", "--", "no-such-command"]);
    serve.ok(&["put", "/ls/local/f", "three"]);
    assert_eq!(watch.code(), Some(127));
}

#[test]
fn campaign_goes_on_after_its_lock_was_broken() {
    let (_dir, serve) = serve("12s");
    let elect = ["elect", "/ls/local/e", "--value", "v", "--json"];
    let mut campaign = Running::start(&serve, &elect);
    let first = campaign.object();
    assert_eq!(first["event"], "leading");
    serve.ok(&["lock", "break", "/ls/local/e"]);
    let lost = campaign.object();
    assert_eq!(lost["event"], "lost");
    assert!(lost["why"].as_str().unwrap().contains("broke"), "{lost}");
    let again = campaign.object();
    assert_eq!(again["event"], "leading");
    assert!(again["token"].as_u64() > first["token"].as_u64(), "{first} {again}");
    signal(campaign.child.id(), "INT");
    assert_eq!(campaign.code(), Some(0));
    assert_eq!(serve.ok(&["get", "/ls/local/e"]), "", "it has resigned");

    let mut once = Running::start(&serve, &[&elect[..], &["--once"]].concat());
    assert_eq!(once.object()["event"], "leading");
    serve.ok(&["lock", "break", "/ls/local/e"]);
    assert_eq!(once.code(), Some(7));
}

#[test]
fn campaign_goes_on_after_its_session_was_lost() {
    let (_dir, mut serve) = serve("1s");
    let elect = ["elect", "/ls/local/e", "--value", "v", "--connect-timeout", "1s", "--"];
    let command = ["sh", "-c", "echo run; while :; do sleep 0.1; done"];
    let mut campaign = Running::start(&serve, &[&elect[..], &command].concat());
    assert!(campaign.line().starts_with("leading v"));
    assert_eq!(campaign.line(), "run");
    serve.kill();
    assert!(campaign.line().starts_with("lost: "));
    // It looks for the cell for longer than --connect-timeout says of one search.
    std::thread::sleep(std::time::Duration::from_secs(2));
    serve.restart();
    assert!(campaign.line().starts_with("leading v"));
    assert_eq!(campaign.line(), "run");
    signal(campaign.child.id(), "TERM");
    assert_eq!(campaign.code(), Some(143), "as its command");
}

#[test]
fn one_configuration_file_serves_clients_and_servers() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wombat.toml");
    let address = common::free_addresses(1).remove(0);
    let data = dir.path().join("data");
    let keys = format!(
        "cell = 'main'\nendpoints = ['{address}']\nconnect_timeout = '60s'\n\
         dir = '{}'\nlisten = '{address}'\nsession_lease = '5s'\n",
        data.display()
    );
    std::fs::write(&file, keys).unwrap();
    let wombat = |arguments: &[&str]| {
        let mut command = Command::new(WOMBAT);
        command.args(arguments).env("WOMBAT_CONFIG", &file).env_remove("WOMBAT_ENDPOINTS");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let server = wombat(&["serve"]);
    let ended = wombat(&["put", "/ls/main/f", "x"]).wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", common::shown(&ended));
    signal(server.id(), "TERM");
    let ended = server.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", common::shown(&ended));
    std::fs::write(&file, "cell = 'main'\nendpoint = 'misspelt'\n").unwrap();
    for arguments in [&["serve"][..], &["get", "/ls/main/f"]] {
        let ended = wombat(arguments).wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}");
        assert!(common::shown(&ended).contains("endpoint"), "{arguments:?}");
    }
}
