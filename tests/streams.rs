//! The tool when its output cannot be written or is not read, and when the cell does not answer.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{Serve, WOMBAT, serve, shown, signal, wait_for};
use std::fs::{File, OpenOptions};
use std::io::{PipeReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};

/// The exit code after SIGPIPE, as a shell shows it.
const SIGPIPE: i32 = 141;

fn full_disk() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

/// A pipe that nobody reads.
fn readerless() -> std::io::PipeWriter {
    std::io::pipe().unwrap().1
}

/// A pipe that takes nothing until it is read.
fn stalled() -> (PipeReader, std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut filler = Command::new("sh");
    // The shell's descriptor becomes non-blocking, which is that of the pipe's end: the tool has to cope with it.
    filler.args(["-c", "dd if=/dev/zero bs=4096 oflag=nonblock 2>/dev/null; true"]);
    filler.stdout(writer.try_clone().unwrap()).status().unwrap();
    (reader, writer)
}

fn ended(child: &mut Child) -> ExitStatus {
    wait_for("the command to end", || child.try_wait().unwrap())
}

/// Runs the tool with these streams, and returns its exit code.
fn code(serve: &Serve, arguments: &[&str], out: impl Into<Stdio>, err: impl Into<Stdio>) -> Option<i32> {
    ended(&mut serve.wombat(arguments).stdout(out).stderr(err).spawn().unwrap()).code()
}

const ENDING: &[&[&str]] = &[
    &["get", "/ls/local/f"],
    &["get", "--json", "/ls/local/f"],
    &["get", "--stale", "/ls/local/f"],
    &["ls"],
    &["ls", "-l"],
    &["tree"],
    &["stat", "/ls/local/f"],
    &["sessions"],
    &["locks"],
    &["status"],
    &["status", "--json"],
    &["put", "--sequential", "/ls/local/s-", "x"],
    &["put", "--json", "/ls/local/f", "x"],
    &["multi", "sequential /ls/local/m- x"],
    &["completions", "bash"],
    &["--help"],
    &["lock", "--help"],
    &["--version"],
];

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let (_dir, serve) = serve("12s");
    serve.ok(&["put", "/ls/local/f", "x"]);
    for arguments in ENDING {
        let output = serve.wombat(arguments).stdout(full_disk()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?} to a full disk: {}", shown(&output));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("cannot write to standard output"), "{arguments:?}: {error}");
        let output = serve.wombat(arguments).stdout(readerless()).output().unwrap();
        assert_eq!(output.status.code(), Some(SIGPIPE), "{arguments:?} to nobody: {}", shown(&output));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.is_empty() || arguments.contains(&"--stale"), "{arguments:?} to nobody: {error}");
        let mut closed = Command::new("sh");
        closed.args(["-c", "exec \"$0\" \"$@\" >&-", WOMBAT]).args(*arguments);
        serve.environment(&mut closed);
        let output = closed.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?} >&-: {}", shown(&output));
    }
}

#[test]
fn a_lock_whose_output_cannot_be_written_is_released() {
    let (dir, serve) = serve("12s");
    let note = dir.path().join("note");
    let touch = note.to_str().unwrap();
    let commands: &[&[&str]] = &[
        &["lock", "/ls/local/l"],
        &["semaphore", "/ls/local/s", "--permits", "1"],
        &["elect", "/ls/local/e", "--value", "v"],
        &["elect", "/ls/local/c", "--value", "v", "--", "touch", touch],
        &["put", "/ls/local/p", "x", "--ephemeral", "--json"],
    ];
    for arguments in commands {
        for (out, expected) in [(Stdio::from(full_disk()), 1), (Stdio::from(readerless()), SIGPIPE)] {
            assert_eq!(code(&serve, arguments, out, Stdio::null()), Some(expected), "{arguments:?}");
            assert_eq!(serve.ok(&["locks", "--json"]), "[]\n", "{arguments:?}");
        }
    }
    assert!(!note.exists(), "a command does not run when its leader cannot say that it leads");
    serve.fails(3, &["get", "/ls/local/p"]);
}

#[test]
fn a_standard_error_that_is_full_changes_no_exit_code() {
    let (dir, serve) = serve("12s");
    serve.ok(&["put", "/ls/local/f", "1"]);
    assert_eq!(code(&serve, &["get", "/ls/local/none"], Stdio::null(), full_disk()), Some(3));
    assert_eq!(code(&serve, &["frobnicate"], Stdio::null(), full_disk()), Some(2));
    let mut watch = serve.wombat(&["watch", "/ls/local/f", "--count", "1"]);
    let mut watch = watch.stdout(Stdio::null()).stderr(full_disk()).spawn().unwrap();
    // The watch has begun when one of the writes ends it.
    wait_for("the watch to see a change", || {
        serve.ok(&["put", "/ls/local/f", "2"]);
        watch.try_wait().unwrap()
    });
    assert!(watch.wait().unwrap().success());
    let mut holder = serve.wombat(&["lock", "/ls/local/l"]).stdout(Stdio::null()).spawn().unwrap();
    wait_for("the lock to be held", || (serve.ok(&["locks", "--json"]) != "[]\n").then_some(()));
    let note = dir.path().join("note");
    // It tells who holds the lock, and then runs its command.
    let mut waiter = serve.wombat(&["lock", "/ls/local/l", "--", "touch", note.to_str().unwrap()]);
    let mut waiter = waiter.stderr(full_disk()).spawn().unwrap();
    wait_for("a waiter", || serve.ok(&["locks", "--json"]).contains("\"waiting\":1").then_some(()));
    signal(holder.id(), "TERM");
    assert!(holder.wait().unwrap().success());
    assert!(waiter.wait().unwrap().success() && note.exists());
    let mut broken = serve.wombat(&["lock", "/ls/local/l", "--", "sleep", "1000"]);
    let mut broken = broken.stderr(full_disk()).spawn().unwrap();
    wait_for("the lock to be held", || (serve.ok(&["locks", "--json"]) != "[]\n").then_some(()));
    serve.ok(&["lock", "break", "/ls/local/l"]);
    assert_eq!(ended(&mut broken).code(), Some(7));
}

#[test]
fn a_watch_that_nobody_reads_ends_before_the_next_event() {
    let (_dir, serve) = serve("12s");
    serve.ok(&["put", "/ls/local/f", "1"]);
    for arguments in [&["watch", "/ls/local/f"][..], &["watch", "--json", "-r", "/ls/local"]] {
        assert_eq!(code(&serve, arguments, readerless(), Stdio::null()), Some(SIGPIPE), "{arguments:?}");
    }
    let mut full = serve.wombat(&["watch", "/ls/local/f"]);
    let mut full = full.stdout(full_disk()).stderr(Stdio::null()).spawn().unwrap();
    let status = wait_for("the watch to print an event", || {
        serve.ok(&["put", "/ls/local/f", "2"]);
        full.try_wait().unwrap()
    });
    assert_eq!(status.code(), Some(1));
}

#[test]
fn a_reader_that_pauses_costs_no_session() {
    let (_dir, serve) = serve("2s");
    let (mut reader, writer) = stalled();
    let mut leader = serve.wombat(&["elect", "/ls/local/e", "--value", "v"]).stdout(writer).spawn().unwrap();
    let held = |path: &str| !serve.ok(&["locks", path, "--json"]).starts_with("[]");
    serve.ok(&["put", "/ls/local/l", ""]);
    wait_for("a leader", || held("/ls/local").then_some(()));
    // The lease of another one, which is dead, passes meanwhile, twice.
    for _ in 0..2 {
        let mut dead = serve.wombat(&["lock", "/ls/local/l"]).stdout(Stdio::null()).spawn().unwrap();
        wait_for("a holder", || held("/ls/local/l").then_some(()));
        dead.kill().unwrap();
        dead.wait().unwrap();
        wait_for("its lease to end", || (!held("/ls/local/l")).then_some(()));
    }
    assert!(held("/ls/local/e"), "the leader's session goes on though its first line is not read");
    // An interrupt does not wait for the reader either.
    signal(leader.id(), "TERM");
    assert!(ended(&mut leader).success());
    assert!(!held("/ls/local/e"));
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert!(!rest.is_empty());
}

/// A way to the server on which everything is lost from the first large packet on, in one direction (an MTU black
/// hole).
fn black_hole(server: &str, upwards: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, server) = (listener.local_addr().unwrap().to_string(), server.to_owned());
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(&server).unwrap();
            let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || pass(from, to, upwards));
            std::thread::spawn(move || pass(server, client, !upwards));
        }
    });
    address
}

fn pass(mut from: TcpStream, mut to: TcpStream, loses: bool) {
    let (mut bytes, mut lost) = ([0; 65_536], false);
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        lost |= loses && length > 4096;
        if !lost && to.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    let _gone_already = to.shutdown(Shutdown::Both);
}

#[test]
fn a_command_that_gets_no_answer_ends() {
    let (_dir, serve) = serve("12s");
    let large = "x".repeat(100_000);
    serve.ok(&["put", "/ls/local/large", &large]);
    let cases: &[(&[&str], bool, i32)] = &[
        // Whether it was written is not known.
        (&["put", "/ls/local/new", &large], true, 8),
        (&["multi", &format!("create /ls/local/m {large}")], true, 8),
        // Nothing was changed.
        (&["get", "/ls/local/large"], false, 5),
    ];
    for (arguments, upwards, expected) in cases {
        let address = black_hole(&serve.address, *upwards);
        let mut command = serve.wombat(arguments);
        command.args(["--timeout", "3s", "--endpoints", &address]).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let status = ended(&mut child);
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(status.code(), Some(*expected), "{}: {said}", arguments[0]);
    }
}
