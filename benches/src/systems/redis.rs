//! Redis: separate servers that know nothing of each other, for Redlock. Debian's package `redis-server`.

use super::{Process, wait_for};
use crate::Result;
use crate::replicas::free_addresses;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

/// The servers, killed when this is dropped.
pub struct Redis {
    addresses: Vec<String>,
    _servers: Vec<Process>,
}

impl Redis {
    /// Starts so many, each of which makes every write durable before it answers; or tells why there are none.
    pub fn start(dir: &Path, nodes: usize) -> Result<Redis> {
        let addresses = free_addresses(nodes)?;
        let mut servers = Vec::new();
        for (node, address) in addresses.iter().enumerate() {
            let dir = dir.join("redis").join(node.to_string());
            std::fs::create_dir_all(&dir)?;
            let (host, port) = address.rsplit_once(':').ok_or("an address without a port")?;
            let mut command = Command::new("redis-server");
            command.args(["--bind", host, "--port", port, "--appendonly", "yes", "--appendfsync", "always"]);
            command.arg("--dir").arg(dir);
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
            servers.push(Process(child));
        }
        let listens = |address: &String| TcpStream::connect(address).is_ok();
        wait_for("redis", || addresses.iter().all(listens).then_some(()))?;
        Ok(Redis { addresses, _servers: servers })
    }

    /// Where clients find them.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }
}
