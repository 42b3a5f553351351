//! The server's edges. Its log and its output may block or fail, clients may fill it up, say nothing or vanish, and
//! may not reach the master: it serves on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::five::Five;
use common::raw::Raw;
use common::{WOMBAT, connect_to, free_addresses, open, run, wait_for};
use nix::fcntl::{FcntlArg, fcntl};
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use wombat_proto::wire::{self, error::Code, request::Call, response::Result as Answer};

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _it_is_gone = self.0.kill();
        let _it_is_gone = self.0.wait();
    }
}

impl Process {
    fn start(command: &mut Command) -> Process {
        Process(command.stdin(Stdio::null()).env_remove("RUST_LOG").spawn().unwrap())
    }

    /// Waits for the end of the process, and no longer than a test may wait.
    fn code(&mut self) -> Option<i32> {
        wait_for("the end of a process", || self.0.try_wait().unwrap()).code()
    }
}

fn serve(dir: &Path, address: &str, log: &str) -> Command {
    let mut command = Command::new(WOMBAT);
    command.args(["serve", "--cell", "local", "--listen", address, "--log", log]);
    command.arg("--dir").arg(dir.join("data")).stdout(Stdio::null());
    command
}

/// A pipe that holds one page.
fn small_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    (reader, writer)
}

/// Many changes, each acknowledged.
fn check_that_it_serves(address: &str) {
    wait_for("a server", || TcpStream::connect(address).ok());
    run(async {
        let cell = connect_to(address).await;
        let node = open(&cell, "/ls/local/written").await;
        for number in 0..300 {
            node.set(format!("value {number}")).await.unwrap();
        }
        cell.close().await.unwrap();
    });
}

/// What the server counts.
fn metric(address: &str, name: &str) -> u64 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

#[test]
fn server_whose_log_cannot_be_written_serves_and_counts_lines() {
    let dir = tempfile::tempdir().unwrap();
    let at = free_addresses(2);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = serve(dir.path(), &at[0], "info");
    let _server = Process::start(command.args(["--metrics", &at[1]]).stderr(full));
    check_that_it_serves(&at[0]);
    assert!(metric(&at[1], "wombat_log_lines_dropped_total") > 0);
    assert!(metric(&at[1], "wombat_longest_step_microseconds") > 0);
}

/// The reader of the log ends while the server runs, as when journald is restarted.
#[test]
fn server_whose_log_reader_is_gone_serves() {
    let dir = tempfile::tempdir().unwrap();
    let at = free_addresses(2);
    let (reader, writer) = small_pipe();
    let mut command = serve(dir.path(), &at[0], "debug");
    let mut server = Process::start(command.args(["--metrics", &at[1]]).stderr(writer));
    drop(command);
    wait_for("a server", || TcpStream::connect(&at[0]).ok());
    drop(reader);
    check_that_it_serves(&at[0]);
    wait_for("a line that cannot be written", || {
        drop(TcpStream::connect(&at[0]).unwrap());
        (metric(&at[1], "wombat_log_lines_dropped_total") > 0).then_some(())
    });
    assert!(server.0.try_wait().unwrap().is_none(), "the server has ended");
}

#[test]
fn server_whose_log_nobody_drains_serves_and_stops() {
    let dir = tempfile::tempdir().unwrap();
    let at = &free_addresses(1)[0];
    let (reader, mut writer) = small_pipe();
    writer.write_all(&[b'x'; 4096]).unwrap();
    let mut server = Process::start(serve(dir.path(), at, "debug").stderr(writer));
    check_that_it_serves(at);
    common::signal(server.0.id(), "TERM");
    assert_eq!(server.code(), Some(0));
    drop(reader);
}

/// Whatever supervises the server can start it again only when it has ended.
#[test]
fn server_that_cannot_start_ends_though_nobody_drains_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let (reader, mut writer) = small_pipe();
    writer.write_all(&[b'x'; 4096]).unwrap();
    let mut server = Process::start(serve(dir.path(), &at, "info").stderr(writer));
    assert_eq!(server.code(), Some(1));
    drop(reader);
}

#[test]
fn dev_cell_under_a_paused_pager_serves() {
    let at = &free_addresses(1)[0];
    let (mut pager, writer) = small_pipe();
    let mut command = Command::new(WOMBAT);
    let dev = Process::start(command.args(["dev", "--listen", at]).stdout(writer));
    drop(command);
    check_that_it_serves(at);
    // The pager goes on, and has missed nothing.
    std::thread::spawn(move || wait_for_end(dev));
    let mut shown = String::new();
    pager.read_to_string(&mut shown).unwrap();
    assert!(shown.contains("wombat put /ls/local/greeting hello"), "{shown}");
    assert!(shown.contains("/ls/local/written"), "{shown}");
}

fn wait_for_end(mut process: Process) {
    common::signal(process.0.id(), "TERM");
    assert_eq!(process.code(), Some(0));
}

/// A client without a place: it is welcome, and may have no session.
/// A client without a session.
fn welcomed(address: &str) -> Raw {
    let mut raw = Raw::dial(address);
    assert!(matches!(raw.answer(1), Some(Answer::Welcome(_))));
    raw
}

fn check_has_no_place(address: &str) {
    let mut raw = welcomed(address);
    assert!(matches!(raw.ask(Call::GetStatus(wire::GetStatus {})), Some(Answer::Status(_))));
    let create = Call::CreateSession(wire::CreateSession::default());
    let Some(Answer::Error(error)) = raw.ask(create) else { panic!("a session without a place") };
    assert_eq!(error.code(), Code::Overloaded);
    assert!(raw.next().is_none(), "it is not closed");
}

#[test]
fn master_full_of_clients_keeps_its_followers_and_its_office() {
    let dir = tempfile::tempdir().unwrap();
    let mut five = Five::start_with_descriptors(dir.path(), 3, 256);
    let before = five.status();
    let address = before["master"].as_str().unwrap().to_owned();
    let most = before["max_connections"].as_u64().unwrap() as usize;
    // The test's own status has a place for as long as it lasts.
    let share = most - most / 16;
    let mut clients: Vec<Raw> = (0..share).map(|_| Raw::attach(&address)).collect();
    // A session that lives may still come back, a new one may not begin.
    let lost = clients.pop().unwrap().session;
    let mut other = Raw::attach(&address);
    let mut newcomer = welcomed(&address);
    let create = Call::CreateSession(wire::CreateSession::default());
    assert!(matches!(newcomer.ask(create), Some(Answer::Error(error)) if error.code() == Code::Overloaded));
    assert!(newcomer.next().is_none(), "its place is free for one that returns");
    let mut returned = Raw::dial(&address);
    let resumed = returned.resume(&lost);
    assert!(matches!(returned.answer(resumed), Some(Answer::SessionOpened(_))));
    let others: Vec<Raw> = (share + 1..most).map(|_| welcomed(&address)).collect();
    check_has_no_place(&address);
    for arguments in [&["sessions"][..], &["locks"], &["locks", "/ls/local"], &["admin", "audit"]] {
        let endpoints = five.addresses().join(",");
        let output = Command::new(WOMBAT).args(arguments).args(["--endpoints", &endpoints]).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", common::shown(&output));
        assert!(arguments[0] != "sessions" || common::shown(&output).matches("by hand").count() >= share);
    }
    // A follower comes back, and an operator looks.
    let follower = (five.master() + 1) % 3;
    five.kill(follower);
    five.restart(follower);
    let now = five.settled();
    assert_eq!((&now["master"], &now["epoch"]), (&before["master"], &before["epoch"]));
    // Whose connection ends makes room.
    drop((others, returned, clients.pop()));
    assert!(matches!(other.ask(Call::GetStatus(wire::GetStatus {})), Some(Answer::Status(_))));
    wait_for("a place", || {
        let create = Call::CreateSession(wire::CreateSession::default());
        matches!(welcomed(&address).ask(create), Some(Answer::SessionOpened(_))).then_some(())
    });
}

#[test]
fn connections_that_say_nothing_are_closed_and_shut_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let five = Five::start_with_descriptors(dir.path(), 1, 256);
    let address = five.replicas[0].address.clone();
    let connect = |said: &[u8]| {
        let mut stream = TcpStream::connect(&address).unwrap();
        let _it_may_be_closed = stream.write_all(said);
        stream
    };
    // Nothing, half a Hello, half a greeting of a replica; many more than there are descriptors.
    let silent: Vec<TcpStream> =
        (0..200).flat_map(|_| [connect(b""), connect(&[0, 0, 0]), connect(b"WOMB")]).collect();
    check_that_it_serves(&address);
    for mut stream in silent {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let read = stream.read(&mut [0; 1]);
        let open = read.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!open, "it is still connected");
    }
}

#[test]
fn connection_of_a_vanished_client_is_closed_when_its_session_is_over() {
    let (_dir, serve) = common::serve("1s");
    let mut vanished = Raw::attach(&serve.address);
    assert!(vanished.next().is_none());
    assert_eq!(serve.ok(&["sessions"]).lines().filter(|line| line.contains("by hand")).count(), 0);
}

#[test]
fn address_has_no_more_connections_than_configured() {
    let dir = tempfile::tempdir().unwrap();
    let five = Five::start_with(dir.path(), 1, &["--connections-per-address", "3"]);
    let address = &five.replicas[0].address;
    let clients: Vec<Raw> = (0..3).map(|_| Raw::attach(address)).collect();
    check_has_no_place(address);
    drop(clients);
    check_that_it_serves(address);
}

/// The Hello of a client that does not reach the master.
fn relayed() -> wire::Hello {
    wire::Hello { relay: true, wait_ms: 5_000, ..wire::Hello::default() }
}

#[test]
fn follower_passes_clients_on_until_there_is_another_master() {
    let dir = tempfile::tempdir().unwrap();
    let five = Five::start(dir.path(), 3);
    let master = five.master();
    let follower = five.replicas[(master + 1) % 3].address.clone();
    let mut client = Raw::dial_with(&follower, relayed());
    let Some(Answer::Welcome(welcome)) = client.answer(1) else { panic!("not welcome") };
    assert!(welcome.epoch > 0 && welcome.relayed_by > 0, "{welcome:?}");
    client.begin_session();
    let open = |path: &str| wire::Open {
        path: path.into(),
        mode: 3,
        create: 1,
        node: Some(wire::NewNode::default()),
        ..wire::Open::default()
    };
    let Some(Answer::Opened(opened)) = client.ask(Call::Open(open("/ls/local/x"))) else {
        panic!("not opened")
    };
    let contents = bytes::Bytes::from(vec![b'x'; 200 << 10]);
    let set = wire::SetContents { handle: opened.handle, contents, ..wire::SetContents::default() };
    assert!(matches!(client.ask(Call::SetContents(set)), Some(Answer::Stat(_))));
    let get = Call::GetContents(wire::GetContents { handle: opened.handle });
    assert!(matches!(client.ask(get), Some(Answer::Contents(it)) if it.contents.len() == 200 << 10));
    // A connection that was welcome to the follower may ask later, too.
    let mut late = Raw::dial(&follower);
    assert!(matches!(late.answer(1), Some(Answer::Welcome(welcome)) if welcome.epoch == 0));
    let hello = wire::Hello { version: wire::VERSION, ..relayed() };
    assert!(matches!(late.ask(Call::Hello(hello)), Some(Answer::Welcome(welcome)) if welcome.epoch > 0));
    late.begin_session();
    let object: serde_json::Value = five.view(&follower).unwrap();
    let relayed_by = |replica: &serde_json::Value| replica["relayed"].as_u64().unwrap();
    assert_eq!(object["replicas"].as_array().unwrap().iter().map(relayed_by).sum::<u64>(), 2);
    // It stands still, and says nothing of that. The others have another.
    five.freeze(master);
    assert!(client.next().is_none() && late.next().is_none(), "they are passed on to the old master");
    five.wake(master);
}

#[test]
fn master_that_is_asked_for_a_relay_serves_itself() {
    let (_dir, serve) = common::serve("6s");
    let mut client = Raw::dial_with(&serve.address, relayed());
    assert!(matches!(client.answer(1), Some(Answer::Welcome(welcome)) if welcome.relayed_by == 0));
    client.begin_session();
}
