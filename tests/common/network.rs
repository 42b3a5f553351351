//! Hosts for real network faults: network namespaces on one bridge. They need root.

use super::{WOMBAT, wait_for};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where the replicas of these hosts listen.
pub(crate) const PORT: u16 = 7480;

/// Namespaces on one bridge, numbered from 0.
pub(crate) struct Network {
    prefix: String,
    hosts: usize,
}

fn ip(arguments: &[&str]) -> bool {
    let output = Command::new("ip").args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

impl Network {
    /// `None` where namespaces cannot be made.
    pub(crate) fn make(hosts: usize) -> Option<Network> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("wb{}{}", std::process::id() % 100_000, ["", "x", "y", "z"][made % 4]);
        let network = Network { prefix, hosts };
        let bridge = network.bridge();
        if !ip(&["link", "add", &bridge, "type", "bridge"]) || !ip(&["link", "set", &bridge, "up"]) {
            return None;
        }
        for number in 0..hosts {
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

    pub(crate) fn host(&self, number: usize) -> String {
        format!("{}h{number}", self.prefix)
    }

    fn end(&self, number: usize, side: &str) -> String {
        format!("{}{side}{number}", self.prefix)
    }

    /// Lets hosts send to exactly those for whom `connected` says so.
    pub(crate) fn connect(&self, connected: impl Fn(usize, usize) -> bool) {
        for from in 0..self.hosts {
            for to in (0..self.hosts).filter(|to| *to != from) {
                let (host, route) = (self.host(from), format!("{}/32", address(to)));
                let what = if connected(from, to) { "del" } else { "replace" };
                let _none_to_delete = ip(&["-n", &host, "route", what, "blackhole", &route]);
            }
        }
    }

    /// Drops what arrives at a host from another one, if it is so: a match of nftables.
    pub(crate) fn drop_if(&self, from: usize, to: usize, is_so: &str) {
        let nft = |rule: &str| {
            let output =
                Command::new("ip").args(["netns", "exec", &self.host(to), "nft", rule]).output().unwrap();
            assert!(output.status.success(), "nft {rule}: {output:?}");
        };
        nft("add table inet fault");
        nft("add chain inet fault input { type filter hook input priority 0; }");
        nft(&format!("add rule inet fault input ip saddr {} {is_so} drop", address(from)));
    }

    /// The tool on a host, which ends after half a minute at the latest.
    pub(crate) fn command(&self, number: usize, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["30", "ip", "netns", "exec", &self.host(number), WOMBAT]).args(arguments);
        command.env_remove("WOMBAT_CELL");
        command
    }

    /// Runs the tool on a host.
    pub(crate) fn run(&self, number: usize, arguments: &[&str]) -> Output {
        self.command(number, arguments).output().unwrap()
    }

    /// What the tool prints on a host, if it succeeds.
    pub(crate) fn wombat(&self, number: usize, arguments: &[&str]) -> Option<String> {
        let output = self.run(number, arguments);
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    /// Whom a host takes for the master, if it takes anyone for it who says so itself.
    pub(crate) fn master_seen_by(&self, number: usize) -> Option<(usize, u64)> {
        let at = format!("{}:{PORT}", address(number));
        let status = self.wombat(number, &["status", "--json", "--endpoints", &at])?;
        let status: serde_json::Value = serde_json::from_str(&status).ok()?;
        let master = status["master"].as_str()?.to_owned();
        let place = (0..self.hosts).find(|place| master == format!("{}:{PORT}", address(*place)))?;
        (status["master_lease_ms"].as_u64()? > 0).then_some((place, status["epoch"].as_u64()?))
    }

    /// A write that goes through, tried from one host.
    pub(crate) fn writes_from(&self, number: usize, endpoints: &str, text: &str) {
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
        for number in 0..self.hosts {
            ip(&["link", "del", &self.end(number, "a")]);
            ip(&["netns", "del", &self.host(number)]);
        }
        ip(&["link", "del", &self.bridge()]);
    }
}

pub(crate) fn address(number: usize) -> String {
    format!("10.213.7.{}", number + 1)
}
