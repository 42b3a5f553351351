//! The server's edges: its log and its output may block or fail, and it serves on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{WOMBAT, connect_to, free_addresses, open, run, wait_for};
use nix::fcntl::{FcntlArg, fcntl};
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

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
    assert_eq!(server.0.wait().unwrap().code(), Some(0));
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
    assert_eq!(server.0.wait().unwrap().code(), Some(1));
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
    assert!(process.0.wait().unwrap().success());
}
