//! How a cell is founded by real processes, and what may go wrong before it is (docs/decisions/0009).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use bytes::BytesMut;
use common::five::{Five, SETTINGS};
use common::{WOMBAT, shown, wait_for};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use wombat_proto::frame;
use wombat_proto::wire::{VERSION, peer::Hello};

/// A founder that shows itself only to whom the test lets see it.
#[derive(Clone)]
struct Shy {
    address: String,
    founders: Vec<String>,
    shown_to: Arc<Mutex<BTreeSet<String>>>,
}

impl Shy {
    fn listen(listener: TcpListener, mut founders: Vec<String>) -> Shy {
        founders.sort_unstable();
        let address = listener.local_addr().unwrap().to_string();
        let shy = Shy { address, founders, shown_to: Arc::default() };
        let answering = shy.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _it_comes_again = answering.meet(stream.unwrap());
            }
        });
        shy
    }

    fn show_to(&self, address: &str) {
        self.shown_to.lock().unwrap().insert(address.to_owned());
    }

    fn meet(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.read_exact(&mut [0; 8])?;
        let mut buffer = BytesMut::zeroed(4);
        stream.read_exact(&mut buffer)?;
        let length = u32::from_be_bytes(buffer[..].try_into().unwrap()) as usize;
        buffer.resize(4 + length, 0);
        stream.read_exact(&mut buffer[4..])?;
        let hello: Hello = frame::read(&mut buffer).map_err(std::io::Error::other)?.unwrap();
        if self.shown_to.lock().unwrap().contains(&hello.address) {
            let own = Hello {
                version: VERSION,
                cell: "local".into(),
                nonce: "5e".repeat(16),
                founders: self.founders.clone(),
                address: self.address.clone(),
                ..Hello::default()
            };
            frame::write(&own, &mut buffer);
            stream.write_all(&buffer)?;
        }
        Ok(())
    }
}

/// Three founders, the third of which is shy. The first has met both others and founded the cell; the second
/// has not seen the third.
fn founded_by_the_first() -> (tempfile::TempDir, Five, Shy) {
    let dir = tempfile::tempdir().unwrap();
    let third = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut at = common::free_addresses(2);
    at.push(third.local_addr().unwrap().to_string());
    let third = Shy::listen(third, at.clone());
    let mut five =
        Five::planned(dir.path(), at.into_iter().map(|address| (address, None)).collect(), &SETTINGS);
    third.show_to(&five.replicas[0].address);
    five.restart(0);
    five.restart(1);
    let founded = || five.log(0).contains("founding the cell").then_some(());
    wait_for("the first founder to have met the others", founded);
    (dir, five, third)
}

/// The first and the second are two of three, if the second is a founder.
fn check_they_are_a_quorum(five: &Five) {
    let status = five.status();
    let ids: Vec<_> = status["members"].as_array().unwrap().iter().map(|one| &one["replica"]).collect();
    assert_eq!(ids, [1, 2, 3]);
    assert!(five.log(1).contains("founding the cell"));
}

#[test]
fn a_founder_that_restarts_when_another_has_founded_already_is_still_a_founder() {
    let (_dir, mut five, third) = founded_by_the_first();
    five.kill(1);
    five.restart(1);
    third.show_to(&five.replicas[1].address);
    check_they_are_a_quorum(&five);
}

#[test]
fn a_founder_that_has_begun_to_join_is_still_a_founder_once_it_meets_the_others() {
    let (_dir, five, third) = founded_by_the_first();
    wait_for("the second to try to join", || five.log(1).contains("exists already").then_some(()));
    let mut status = Command::new(WOMBAT);
    status.args(["status", "--endpoints", &five.addresses().join(",")]).env_remove("WOMBAT_CELL");
    let said = shown(&status.output().unwrap());
    assert!(
        said.contains(&format!("{} runs, but without the cell's data", five.replicas[1].address)),
        "{said}"
    );
    third.show_to(&five.replicas[1].address);
    check_they_are_a_quorum(&five);
}

/// Starts a replica, and returns what it says before it refuses.
fn refused(listen: &str, peers: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let output = serve(dir.path(), listen, peers).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
    String::from_utf8(output.stderr).unwrap()
}

fn serve(dir: &Path, listen: &str, peers: &[&str]) -> Command {
    let mut command = Command::new(WOMBAT);
    command.args(["serve", "--cell", "local", "--listen", listen, "--peers", &peers.join(",")]);
    command.args(["--log", "info"]).arg("--dir").arg(dir.join("data")).env_remove("WOMBAT_CELL");
    command
}

#[test]
fn a_list_of_peers_that_cannot_be_right_is_refused() {
    let (_dir, five, _third) = founded_by_the_first();
    let founder = &five.replicas[0].address;
    wait_for("the first to serve", || five.log(0).contains("ready:").then_some(()));
    let own = &common::free_addresses(1)[0];
    let said = refused(own, &[own, founder]);
    assert!(said.contains(&format!("the replica at {founder} founded it with")), "{said}");
    let said = refused(own, &[own, own]);
    assert!(said.contains("named twice"), "{said}");
}

#[test]
fn a_peer_that_cannot_be_found_by_its_name_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let own = &common::free_addresses(1)[0];
    let mut child =
        serve(dir.path(), own, &[own, "nowhere.invalid:7480"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("nowhere.invalid:7480 cannot be found by its name")));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn replica_without_data_says_for_whom_it_waits_and_never_for_an_empty_list() {
    let dir = tempfile::tempdir().unwrap();
    let mut three = Five::start(dir.path(), 3);
    three.settled();
    let (wiped, down) = (0, 1);
    three.kill(wiped);
    three.kill(down);
    three.wipe(wiped);
    three.restart(wiped);
    let waits = format!("waiting for the other founders at {}", three.replicas[down].address);
    wait_for("the list of those that are missing", || three.log(wiped).contains(&waits).then_some(()));
    // Now all are there, and no master yet that could take it in.
    three.restart(down);
    wait_for("the replica to join", || {
        let members = three.settled()["members"].as_array().cloned().unwrap_or_default();
        members.iter().any(|member| member["replica"] == 4).then_some(())
    });
    let log = three.log(wiped);
    assert!(!log.lines().any(|line| line.trim_end().ends_with("founders at")), "{log}");
}
