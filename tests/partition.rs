//! A cell of five hosts, each a network namespace of its own, while the network between them falls apart in
//! the shapes that have brought others down (PITFALLS 16). Needs root, for the namespaces.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::five::Five;
use common::{WOMBAT, wait_for};
use std::process::Command;

const HOSTS: usize = 5;
const PORT: u16 = 7480;

/// Five namespaces on one bridge.
struct Network {
    prefix: String,
}

fn ip(arguments: &[&str]) -> bool {
    let output = Command::new("ip").args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

impl Network {
    /// `None` where namespaces cannot be made.
    fn make() -> Option<Network> {
        let prefix = format!("wb{}", std::process::id() % 100_000);
        let network = Network { prefix };
        let bridge = network.bridge();
        if !ip(&["link", "add", &bridge, "type", "bridge"]) || !ip(&["link", "set", &bridge, "up"]) {
            return None;
        }
        for number in 0..HOSTS {
            let (host, near, far) =
                (network.host(number), network.end(number, "a"), network.end(number, "b"));
            let address = format!("{}/24", address(number));
            let made = ip(&["netns", "add", &host])
                && ip(&["link", "add", &near, "type", "veth", "peer", "name", &far])
                && ip(&["link", "set", &near, "master", &bridge])
                && ip(&["link", "set", &near, "up"])
                && ip(&["link", "set", &far, "netns", &host])
                && ip(&["-n", &host, "addr", "add", &address, "dev", &far])
                && ip(&["-n", &host, "link", "set", &far, "up"])
                && ip(&["-n", &host, "link", "set", "lo", "up"]);
            if !made {
                return None;
            }
        }
        Some(network)
    }

    fn bridge(&self) -> String {
        format!("{}br", self.prefix)
    }

    fn host(&self, number: usize) -> String {
        format!("{}h{number}", self.prefix)
    }

    fn end(&self, number: usize, side: &str) -> String {
        format!("{}{side}{number}", self.prefix)
    }

    /// Connects exactly those for whom `connected` says so.
    fn connect(&self, connected: impl Fn(usize, usize) -> bool) {
        for from in 0..HOSTS {
            for to in (0..HOSTS).filter(|to| *to != from) {
                let (host, route) = (self.host(from), format!("{}/32", address(to)));
                let what = if connected(from, to) { "del" } else { "replace" };
                let _none_to_delete = ip(&["-n", &host, "route", what, "blackhole", &route]);
            }
        }
    }

    /// Runs the tool on a host.
    fn wombat(&self, number: usize, arguments: &[&str]) -> Option<String> {
        let mut command = Command::new("timeout");
        command.args(["30", "ip", "netns", "exec", &self.host(number), WOMBAT]).args(arguments);
        let output = command.env_remove("WOMBAT_CELL").output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    /// Whom a host takes for the master, if it takes anyone for it who says so itself.
    fn master_seen_by(&self, number: usize) -> Option<(usize, u64)> {
        let at = format!("{}:{PORT}", address(number));
        let status = self.wombat(number, &["status", "--json", "--endpoints", &at])?;
        let status: serde_json::Value = serde_json::from_str(&status).ok()?;
        let master = status["master"].as_str()?.to_owned();
        let place = (0..HOSTS).find(|place| master == format!("{}:{PORT}", address(*place)))?;
        (status["master_lease_ms"].as_u64()? > 0).then_some((place, status["epoch"].as_u64()?))
    }

    /// A write that goes through, tried from one host.
    fn writes_from(&self, number: usize, endpoints: &str, text: &str) {
        wait_for("a write", || {
            self.wombat(
                number,
                &["put", "/ls/local/x", text, "--endpoints", endpoints, "--connect-timeout", "3s"],
            )
        });
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for number in 0..HOSTS {
            ip(&["link", "del", &self.end(number, "a")]);
            ip(&["netns", "del", &self.host(number)]);
        }
        ip(&["link", "del", &self.bridge()]);
    }
}

fn address(number: usize) -> String {
    format!("10.213.7.{}", number + 1)
}

#[test]
fn whatever_the_shape_of_the_partition_whoever_has_a_quorum_gets_one_master() {
    let Some(network) = Network::make() else {
        return eprintln!("no namespaces here: run it as root");
    };
    let dir = tempfile::tempdir().unwrap();
    let at = (0..HOSTS).map(|number| (format!("{}:{PORT}", address(number)), Some(network.host(number))));
    let at: Vec<_> = at.collect();
    let all = at.iter().map(|(address, _)| address.clone()).collect::<Vec<_>>().join(",");
    let mut started = Five::start_without_waiting(dir.path(), at);
    let (master, epoch) = wait_for("a master", || network.master_seen_by(0));
    network.writes_from(0, &all, "together");

    // The master alone on one side: the others elect another, and it hears of that when it is back.
    network.connect(|a, b| (a == master) == (b == master));
    let other = (master + 1) % HOSTS;
    let (next, later) = wait_for("another master", || {
        network.master_seen_by(other).filter(|(place, now)| *place != master && *now > epoch)
    });
    network.writes_from(other, &all, "without it");
    network.connect(|_, _| true);
    wait_for("the old master to follow", || network.master_seen_by(master).filter(|(_, now)| *now >= later));

    // Quorum loss: only one host still reaches all others, and it was not master. It has to become it.
    let hub = (next + 1) % HOSTS;
    network.connect(|a, b| a == hub || b == hub);
    wait_for("the hub to be master", || network.master_seen_by(hub).filter(|(place, _)| *place == hub));
    network.writes_from(hub, &all, "through the hub");

    // Chained: each hears only its neighbours. Whoever is master has a quorum: the middle ones can be.
    network.connect(|_, _| true);
    wait_for("peace", || network.master_seen_by(0));
    network.connect(|a, b| a.abs_diff(b) <= 2);
    let (place, _) =
        wait_for("a master of the chain", || (0..HOSTS).find_map(|at| network.master_seen_by(at)));
    network.writes_from(place, &all, "along the chain");

    // Healed: one master, the last write is read everywhere.
    network.connect(|_, _| true);
    for number in 0..HOSTS {
        let read =
            wait_for("a read", || network.wombat(number, &["get", "/ls/local/x", "--endpoints", &all]));
        assert_eq!(read, "along the chain");
    }
    started.kill(0);
}
