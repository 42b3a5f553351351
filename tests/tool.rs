//! The tool as people use it: what it prints, what it refuses, and with which code.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{Serve, WOMBAT, shown, wait_for};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

fn serve() -> (tempfile::TempDir, Serve) {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start(&dir.path().join("data"), "12s");
    (dir, serve)
}

fn put_stdin(serve: &Serve, path: &str, bytes: &[u8]) -> std::process::Output {
    let mut child = serve
        .wombat(&["put", path, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _it_may_have_enough = child.stdin.take().unwrap().write_all(bytes);
    child.wait_with_output().unwrap()
}

#[test]
fn files() {
    let (_dir, serve) = serve();
    serve.ok(&["put", "/ls/local/a", "one"]);
    assert_eq!(serve.ok(&["get", "/ls/local/a"]), "one");
    serve.ok(&["put", "/ls/local/a", "two", "--if-generation", "1"]);
    let said = serve.fails(4, &["put", "/ls/local/a", "three", "--if-generation", "1"]);
    assert!(said.contains("generation 2") && said.contains("hint:"), "{said}");
    serve.fails(4, &["put", "/ls/local/a", "x", "--create", "must"]);
    serve.fails(3, &["put", "/ls/local/none", "x", "--create", "never"]);
    serve.fails(3, &["put", "/ls/local/no/such/dir", "x"]);
    serve.ok(&["put", "-p", "/ls/local/such/a/dir/f", "-x"]);
    assert_eq!(serve.ok(&["get", "/ls/local/such/a/dir/f"]), "-x");
    let bytes: Vec<u8> = (0..=255).cycle().take(256 * 1024).collect();
    assert!(put_stdin(&serve, "/ls/local/bytes", &bytes).status.success());
    assert_eq!(serve.wombat(&["get", "/ls/local/bytes"]).output().unwrap().stdout, bytes);
    let output = put_stdin(&serve, "/ls/local/bytes", &vec![0; 256 * 1024 + 1]);
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
    let json: serde_json::Value = serde_json::from_str(&serve.ok(&["get", "/ls/local/a", "--json"])).unwrap();
    assert_eq!((&json["contents"], &json["stat"]["content_generation"]), (&"two".into(), &2.into()));
}

#[test]
fn directories() {
    let (_dir, serve) = serve();
    serve.ok(&["mkdir", "-p", "/ls/local/d/e"]);
    serve.ok(&["mkdir", "-p", "/ls/local/d/e"]);
    serve.fails(4, &["mkdir", "/ls/local/d"]);
    serve.ok(&["put", "/ls/local/d/f", "x"]);
    assert_eq!(serve.ok(&["ls", "/ls/local/d"]), "e/\nf\n");
    assert_eq!(serve.ok(&["tree"]), "/ls/local\n└── d/\n    ├── e/\n    └── f\n");
    assert!(serve.ok(&["ls", "-l", "/ls/local/d"]).contains("directory"));
    assert!(serve.ok(&["stat", "/ls/local/d"]).contains("children            2"));
    serve.fails(4, &["rm", "/ls/local/d"]);
    serve.fails(4, &["get", "/ls/local/d"]);
    serve.fails(4, &["ls", "/ls/local/d/f"]);
    serve.ok(&["rm", "-r", "/ls/local/d"]);
    serve.fails(3, &["stat", "/ls/local/d"]);
    serve.fails(2, &["rm", "-r", "/ls/local"]);
}

#[test]
fn the_root_is_refused_before_anything_below_it_is_deleted() {
    let (_dir, serve) = serve();
    serve.ok(&["put", "-p", "/ls/local/d/e/f", "x"]);
    serve.ok(&["put", "/ls/local/g", "x"]);
    for arguments in [
        &["rm", "-r", "/ls/local"][..],
        &["rm", "-r", "/ls/local/d", "/ls/local"],
        &["rm", "/ls/local/g", "/ls/local"],
    ] {
        let said = serve.fails(2, arguments);
        assert!(said.contains("root"), "{arguments:?}: {said}");
        assert_eq!(serve.ok(&["tree"]), "/ls/local\n├── d/\n│   └── e/\n│       └── f\n└── g\n");
    }
}

#[test]
fn bad_names_and_arguments_say_what_is_right() {
    let (_dir, serve) = serve();
    let long = format!("/ls/local/{}", "x".repeat(256));
    let cases = [
        ("relative", "/ls/local/relative"),
        ("/ls/local/a//b", "empty"),
        ("/ls/local/../b", "'..'"),
        (&long, "255"),
        ("/ls/other/b", "this is local"),
    ];
    for (path, part) in cases {
        let said = serve.fails(2, &["put", path, "x"]);
        assert!(said.contains(part), "{path}: {said}");
    }
    serve.fails(2, &["put", "/ls/local/a", "x", "--if-generation", "0"]);
    serve.fails(2, &["lock", "/ls/local/a", "--lock-delay", "61s", "--", "true"]);
    serve.fails(2, &["lock", "/ls/local/a", "--timeout", "5"]);
    serve.fails(2, &["sequencer", "check", "nonsense"]);
    let said = serve.fails(2, &["status", "--cell", "elsewhere"]);
    assert!(said.contains("this is the cell local"), "{said}");
    let json = serve.fails(3, &["get", "/ls/local/none", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["error"]["name"], "NotFound");
}

#[test]
fn a_cell_that_is_not_there() {
    let mut command = Command::new(WOMBAT);
    command.args(["get", "/ls/local/a", "--endpoints", "127.0.0.1:1", "--connect-timeout", "200ms"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(6), "{}", shown(&output));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("127.0.0.1:1: connection refused") && said.contains("wombat dev"), "{said}");
    assert!(!said.contains("does not exist"), "{said}");
}

#[test]
fn everything_that_is_printed_can_be_json() {
    let (_dir, serve) = serve();
    serve.ok(&["put", "/ls/local/a", "x"]);
    for arguments in [
        &["put", "/ls/local/a", "y"][..],
        &["get", "/ls/local/a"],
        &["ls"],
        &["stat", "/ls/local/a"],
        &["tree"],
        &["sessions"],
        &["locks"],
        &["status"],
    ] {
        let text = serve.ok(&[arguments, &["--json"]].concat());
        serde_json::from_str::<serde_json::Value>(&text)
            .unwrap_or_else(|e| panic!("{arguments:?}: {e}: {text}"));
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(serve.ok(&["completions", shell]).contains("wombat"));
    }
}

#[test]
fn watch_tells_each_change_and_goes_on_over_a_restart() {
    let (_dir, mut serve) = serve();
    serve.ok(&["put", "/ls/local/w", "0"]);
    let mut child = serve
        .wombat(&["watch", "/ls/local/w"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(said.next().unwrap().unwrap().contains("watching"));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    serve.ok(&["put", "/ls/local/w", "1"]);
    assert_eq!(lines.next().unwrap().unwrap(), "modified generation 2: 1");
    serve.kill();
    serve.restart();
    assert_eq!(lines.next().unwrap().unwrap(), "failed_over generation 2: 1");
    serve.ok(&["put", "/ls/local/w", "2"]);
    assert_eq!(lines.next().unwrap().unwrap(), "modified generation 3: 2");
    serve.ok(&["rm", "/ls/local/w"]);
    assert_eq!(lines.next().unwrap().unwrap(), "deleted");
    assert!(child.wait().unwrap().success());
}

#[test]
fn an_ephemeral_file_lives_as_long_as_the_command() {
    let (_dir, serve) = serve();
    let mut child =
        serve.wombat(&["put", "/ls/local/e", "x", "--ephemeral"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(said.next().unwrap().unwrap().contains("until this command ends"));
    assert_eq!(serve.ok(&["get", "/ls/local/e"]), "x");
    common::signal(child.id(), "TERM");
    assert!(child.wait().unwrap().success());
    serve.fails(3, &["get", "/ls/local/e"]);
}

#[test]
fn what_does_not_exist_can_be_waited_for_made_and_removed() {
    let (_dir, serve) = serve();
    serve.fails(3, &["rm", "/ls/local/none"]);
    serve.ok(&["put", "/ls/local/f", "x"]);
    let json = serve.ok(&["rm", "-rf", "/ls/local/none", "/ls/local/f", "/ls/local/no/such", "--json"]);
    let deleted = |path: &str, deleted: bool| serde_json::json!({ "path": path, "deleted": deleted });
    let expected = serde_json::json!([
        deleted("/ls/local/none", false),
        deleted("/ls/local/f", true),
        deleted("/ls/local/no/such", false),
    ]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), expected);
    serve.ok(&["lock", "-p", "/ls/local/a/b/lock", "--", "true"]);
    serve.fails(3, &["lock", "/ls/local/c/d/lock", "--", "true"]);
    serve.ok(&["elect", "-p", "/ls/local/c/d/e", "--value", "v", "--", "true"]);
    // A watch of what does not exist waits for it, each time.
    serve.fails(3, &["watch", "/ls/local/w"]);
    let mut watch = serve.wombat(&["watch", "--wait", "/ls/local/w", "--count", "4"]);
    let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(watch.stderr.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "waiting for /ls/local/w");
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    for value in ["one", "two"] {
        serve.ok(&["put", "/ls/local/w", value]);
        assert_eq!(lines.next().unwrap().unwrap(), format!("created generation 1: {value}"));
        serve.ok(&["rm", "/ls/local/w"]);
        assert_eq!(lines.next().unwrap().unwrap(), "deleted");
    }
    assert!(watch.wait().unwrap().success());
    // A name that could be taken for another is printed unambiguously.
    serve.ok(&["put", "/ls/local/new\nline", "x"]);
    serve.ok(&["put", "/ls/local/new\\nline", "x"]);
    assert_eq!(serve.ok(&["ls"]), "a/\nc/\nnew\\nline\nnew\\\\nline\n");
}

#[test]
fn a_sequencer_fences_puts_under_a_lock() {
    let (_dir, serve) = serve();
    let sequencer = serve.ok(&[
        "lock",
        "/ls/local/l",
        "--",
        "sh",
        "-c",
        "wombat put /ls/local/f held; echo $WOMBAT_SEQUENCER",
    ]);
    assert_eq!(serve.ok(&["get", "/ls/local/f"]), "held");
    let sequencer = sequencer.trim();
    assert!(serve.ok(&["sequencer", "show", sequencer]).contains("/ls/local/l exclusive"));
    serve.fails(4, &["sequencer", "check", sequencer]);
    serve.fails(4, &["put", "/ls/local/f", "late", "--sequencer", sequencer]);
    assert_eq!(serve.ok(&["get", "/ls/local/f"]), "held");
}

#[test]
fn every_change_under_a_lost_lock_is_refused() {
    let (_dir, serve) = serve();
    serve.ok(&["mkdir", "-p", "/ls/local/d/e"]);
    serve.ok(&["put", "/ls/local/f", "held"]);
    let sequencer = serve.ok(&["lock", "/ls/local/l", "--", "sh", "-c", "echo $WOMBAT_SEQUENCER"]);
    let sequencer = sequencer.trim();
    let mut holder = serve.wombat(&["lock", "/ls/local/held"]).stdout(Stdio::piped()).spawn().unwrap();
    BufReader::new(holder.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    let nodes = serve.ok(&["tree", "--json"]);
    let late = |arguments: &[&str]| {
        let output = serve.wombat(arguments).env("WOMBAT_SEQUENCER", sequencer).output().unwrap();
        assert_eq!(output.status.code(), Some(4), "{arguments:?}: {}", shown(&output));
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("--no-sequencer"),
            "{arguments:?}: {}",
            shown(&output)
        );
    };
    for arguments in [
        &["put", "/ls/local/f", "late"][..],
        &["put", "/ls/local/f", "late", "--if-generation", "1"],
        &["put", "/ls/local/new", "late"],
        &["put", "-p", "/ls/local/n/e/w", "late"],
        &["put", "/ls/local/new", "late", "--ephemeral"],
        &["put", "/ls/local/new-", "late", "--sequential"],
        &["mkdir", "/ls/local/new"],
        &["mkdir", "-p", "/ls/local/new/er"],
        &["rm", "/ls/local/f"],
        &["rm", "-r", "/ls/local/d"],
        &["multi", "create /ls/local/new late"],
        &["multi", "set /ls/local/f late"],
        &["multi", "delete /ls/local/f"],
        &["lock", "/ls/local/f"],
        &["lock", "/ls/local/new", "--", "true"],
        &["lock", "break", "/ls/local/held"],
        &["semaphore", "/ls/local/new", "--permits", "2"],
        &["elect", "/ls/local/new", "--value", "late"],
        &["admin", "transfer"],
    ] {
        late(arguments);
        assert_eq!(serve.ok(&["tree", "--json"]), nodes, "{arguments:?}");
    }
    assert!(holder.try_wait().unwrap().is_none(), "the holder was not asked to give its lock up");
    // To read is never refused, and who says so may change things.
    for arguments in [&["get", "/ls/local/f"][..], &["ls"], &["put", "/ls/local/f", "x", "--no-sequencer"]] {
        let output = serve.wombat(arguments).env("WOMBAT_SEQUENCER", sequencer).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", shown(&output));
    }
    common::signal(holder.id(), "INT");
    holder.wait().unwrap();
}

#[test]
fn a_nested_lock_is_fenced_by_the_outer_one() {
    let (_dir, serve) = serve();
    // The outer lock is as good as lost when its place is taken by a sequencer of earlier.
    let inner = "test -n \"$WOMBAT_OUTER_SEQUENCERS\" && wombat put /ls/local/f held && wombat sequencer check $WOMBAT_SEQUENCER >/dev/null && \
                 env WOMBAT_OUTER_SEQUENCERS= wombat put /ls/local/alone inner && \
                 env WOMBAT_OUTER_SEQUENCERS=$0 wombat put /ls/local/f late; echo $?";
    let stale = serve.ok(&["lock", "/ls/local/outer", "--", "sh", "-c", "echo $WOMBAT_SEQUENCER"]);
    let script = format!("wombat lock /ls/local/inner -- sh -c '{inner}' {}", stale.trim());
    assert_eq!(serve.ok(&["lock", "/ls/local/outer", "--", "sh", "-c", &script]), "4\n");
    assert_eq!(serve.ok(&["get", "/ls/local/f"]), "held");
    assert_eq!(serve.ok(&["get", "/ls/local/alone"]), "inner");
}

#[test]
fn an_election_leads_and_follows() {
    let (_dir, serve) = serve();
    let elect = |value: &str| {
        let mut command = serve.wombat(&["elect", "/ls/local/p", "--value", value]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (child, lines)
    };
    let (mut anna, mut anna_says) = elect("anna");
    assert!(anna_says.next().unwrap().unwrap().starts_with("leading anna (token "));
    assert_eq!(serve.ok(&["get", "/ls/local/p"]), "anna");
    let (mut bert, mut bert_says) = elect("bert");
    assert!(bert_says.next().unwrap().unwrap().starts_with("following anna (token "));
    serve.fails(5, &["elect", "/ls/local/p", "--value", "carl", "--timeout", "100ms"]);
    common::signal(anna.id(), "INT");
    assert!(anna.wait().unwrap().success());
    assert!(bert_says.next().unwrap().unwrap().starts_with("leading bert (token "));
    common::signal(bert.id(), "INT");
    assert!(bert.wait().unwrap().success());
    assert_eq!(serve.ok(&["get", "/ls/local/p"]), "", "nobody leads");
}

#[test]
fn a_value_ends_with_its_leader_however_that_ends() {
    let (_dir, serve) = common::serve("2s");
    // There may be a file already, with anything in it.
    serve.ok(&["put", "/ls/local/p", "before"]);
    let mut observer = serve.wombat(&["elect", "--observe", "/ls/local/p", "--json"]);
    let mut observer = observer.stdout(Stdio::piped()).spawn().unwrap();
    let mut observed = BufReader::new(observer.stdout.take().unwrap()).lines();
    let mut next =
        || -> serde_json::Value { serde_json::from_str(&observed.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next(), serde_json::json!({ "path": "/ls/local/p", "leader": null }), "nobody leads");
    let mut watch = serve.wombat(&["watch", "/ls/local/p"]);
    let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    BufReader::new(watch.stderr.take().unwrap()).lines().next().unwrap().unwrap();
    let mut watched = BufReader::new(watch.stdout.take().unwrap()).lines().map_while(Result::ok);
    for (how, lock_delay) in [("TERM", "0s"), ("break", "0s"), ("KILL", "0s"), ("KILL", "30s")] {
        let value = format!("anna, {how} {lock_delay}");
        let mut leader =
            serve.wombat(&["elect", "/ls/local/p", "--value", &value, "--lock-delay", lock_delay, "--once"]);
        let mut leader = leader.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let led = next();
        assert_eq!(led["leader"]["value"], value.as_str());
        assert!(led["leader"]["token"].is_u64() && led["leader"]["since"].is_string(), "{led}");
        assert_eq!(serve.ok(&["get", "/ls/local/p"]), value);
        match how {
            "break" => drop(serve.ok(&["lock", "break", "/ls/local/p"])),
            signal => common::signal(leader.id(), signal),
        }
        leader.wait().unwrap();
        assert_eq!(next()["leader"], serde_json::Value::Null, "{how}");
        assert_eq!(serve.ok(&["get", "/ls/local/p"]), "", "{how}");
        assert!(watched.any(|line| line.starts_with("modified") && line.contains(&value)), "{how}");
        let cleared = watched.find(|line| line.starts_with("modified")).unwrap();
        assert!(cleared.ends_with(": "), "a watch sees the value end: {cleared:?}");
        if lock_delay != "0s" {
            serve.fails(4, &["rm", "/ls/local/p"]); // In lock-delay, and nobody is named.
        }
    }
    assert_eq!(serve.ok(&["elect", "--observe", "/ls/local/none", "--count", "1"]), "nobody leads\n");
    serve.fails(5, &["elect", "--observe", "/ls/local/none", "--count", "2", "--timeout", "100ms"]);
    serve.fails(2, &["elect", "/ls/local/p"]);
    for child in [&mut observer, &mut watch] {
        common::signal(child.id(), "INT");
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn configuration_comes_from_flags_then_environment_then_file() {
    let (dir, serve) = serve();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, format!("endpoints = ['{}']", serve.address)).unwrap();
    let status = |endpoints: Option<&str>, flag: &[&str]| {
        let mut command = Command::new(WOMBAT);
        command.args(["status", "--connect-timeout", "200ms"]).args(flag).env("WOMBAT_CONFIG", &file);
        match endpoints {
            Some(endpoints) => command.env("WOMBAT_ENDPOINTS", endpoints),
            None => command.env_remove("WOMBAT_ENDPOINTS"),
        };
        command.output().unwrap().status.code()
    };
    assert_eq!(status(None, &[]), Some(0), "the file");
    assert_eq!(status(Some("127.0.0.1:1"), &[]), Some(6), "the environment goes before it");
    assert_eq!(status(Some("127.0.0.1:1"), &["--endpoints", &serve.address]), Some(0), "flags before that");
    std::fs::write(&file, "endpoint = 'misspelt'").unwrap();
    assert_eq!(status(None, &[]), Some(2));
}

#[test]
fn dev_runs_a_cell_of_several_processes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cell").display().to_string();
    let dev = |arguments: &[&str]| Command::new(WOMBAT).arg("dev").args(arguments).output().unwrap();
    let three = ["--replicas", "3", "--dir", &path, "--"];
    let output = dev(&[&three[..], &["sh", "-c", "wombat put /ls/local/a b && wombat status"]].concat());
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success() && said.contains("3 of 3 voters; 1 more may fail"), "{}", shown(&output));
    // Two lives of three directories, and one of the three may be gone.
    let script = "kill -9 $(pgrep -f \"dir $0/2\") && wombat get /ls/local/a";
    let output = dev(&[&three[..], &["sh", "-c", script, &path]].concat());
    assert_eq!(output.stdout, b"b", "{}", shown(&output));
    for arguments in [&["--replicas", "5"][..], &[]] {
        let output = dev(&[arguments, &["--dir", &path, "--", "true"]].concat());
        assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
        assert!(shown(&output).contains("--replicas 3"), "{}", shown(&output));
    }
}

#[test]
fn dev_runs_a_command_and_passes_its_status_on() {
    let dir = tempfile::tempdir().unwrap();
    let dev = |arguments: &[&str]| Command::new(WOMBAT).arg("dev").args(arguments).output().unwrap();
    let output = dev(&["--", "sh", "-c", "wombat put /ls/local/a b && wombat get /ls/local/a && exit 7"]);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(7), &b"b"[..]), "{}", shown(&output));
    // Two lives of one directory.
    let path = dir.path().join("cell").display().to_string();
    assert!(dev(&["--dir", &path, "--", "wombat", "put", "/ls/local/kept", "yes"]).status.success());
    assert_eq!(dev(&["--dir", &path, "--", "wombat", "get", "/ls/local/kept"]).stdout, b"yes");
    let output = dev(&["--replicas", "3", "--dir", &path, "--", "true"]);
    assert_eq!(output.status.code(), Some(2), "it is a cell of one: {}", shown(&output));
    assert_eq!(dev(&["--replicas", "0", "--", "true"]).status.code(), Some(2));
    assert_eq!(dev(&["--", "no-such-command"]).status.code(), Some(127));
    assert_eq!(dev(&["--session-lease", "1ms", "--", "true"]).status.code(), Some(2));
}

#[test]
fn dev_without_a_command_shows_what_goes_on() {
    let mut child = Command::new(WOMBAT)
        .args(["dev", "--listen", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let export = lines.find(|line| line.contains("export")).unwrap();
    let (_, address) = export.split_once('=').unwrap();
    let put =
        Command::new(WOMBAT).args(["put", "/ls/local/a", "b", "--endpoints", address]).output().unwrap();
    assert!(put.status.success(), "{}", shown(&put));
    assert!(lines.any(|line| line.contains("/ls/local/a created")));
    common::signal(child.id(), "INT");
    assert!(child.wait().unwrap().success());
}

#[test]
fn serve_stops_cleanly_on_sigterm_and_reads_its_file() {
    let (dir, mut serve) = serve();
    serve.ok(&["put", "/ls/local/a", "b"]);
    assert_eq!(serve.stop(), Some(0));
    let file = dir.path().join("server.toml");
    let text = format!(
        "cell = 'local'\ndir = '{}'\nlisten = '127.0.0.1:0'\nsession_lease = '3s'",
        serve.dir.display()
    );
    std::fs::write(&file, text).unwrap();
    let mut child = Command::new(WOMBAT)
        .args(["serve", "--config", file.to_str().unwrap()])
        .env_remove("RUST_LOG")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let ready = lines.find(|line| line.starts_with("ready:")).unwrap();
    let address = ready.rsplit(' ').next().unwrap();
    let get = Command::new(WOMBAT).args(["get", "/ls/local/a", "--endpoints", address]).output().unwrap();
    assert_eq!(get.stdout, b"b");
    common::signal(child.id(), "TERM");
    wait_for("the server to stop", || child.try_wait().unwrap()).success().then_some(()).unwrap();
    let output = Command::new(WOMBAT).args(["serve", "--cell", "x"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
}
