//! The cell: five replicas, five processes.

use crate::SESSION_LEASE;
use crate::process::{Process, Result};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;
use wombat_client::{CellName, replica_status};
use wombat_server::{Config, Server};

/// How long the others wait for a master that is gone.
const MASTER_LEASE: Duration = Duration::from_millis(500);

pub(crate) struct Replicas {
    all: Vec<Replica>,
}

struct Replica {
    address: String,
    /// `None` once it was killed.
    process: Option<Process>,
}

pub(crate) struct Master {
    pub(crate) replica: u32,
    pub(crate) epoch: u64,
    address: String,
}

/// The role of a replica.
pub(crate) async fn serve(address: &str, peers: &str, dir: &str) -> Result<()> {
    let mut config = Config::new(CellName::parse(CellName::LOCAL)?, dir);
    config.listen = address.into();
    config.peers = peers.split(',').map(str::to_owned).collect();
    config.session_lease = SESSION_LEASE;
    config.master_lease = MASTER_LEASE;
    let server = Server::start(config)?;
    Err(server.failed().await.into())
}

impl Replicas {
    pub(crate) fn start(dir: &Path) -> Result<Replicas> {
        // All at once, so that none is taken twice; they are free again when the replicas ask for them.
        let free = (0..5).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<Vec<_>>>()?;
        let addresses = free.iter().map(|listener| Ok(listener.local_addr()?.to_string()));
        let addresses = addresses.collect::<Result<Vec<String>>>()?;
        drop(free);
        let peers = addresses.join(",");
        let start = |(number, address): (usize, &String)| {
            let dir = dir.join(number.to_string()).display().to_string();
            let process = Process::start("a replica", &["replica", address, &peers, &dir])?;
            Ok(Replica { address: address.clone(), process: Some(process) })
        };
        Ok(Replicas { all: addresses.iter().enumerate().map(start).collect::<Result<_>>()? })
    }

    pub(crate) fn endpoints(&self) -> String {
        let addresses: Vec<&str> = self.all.iter().map(|replica| replica.address.as_str()).collect();
        addresses.join(",")
    }

    /// The processes that live.
    pub(crate) fn pids(&self) -> Vec<String> {
        let living = self.all.iter().filter_map(|replica| replica.process.as_ref());
        living.map(|process| process.pid().to_string()).collect()
    }

    /// The master, once there is one of a later epoch.
    pub(crate) async fn master_after(&self, epoch: u64) -> Result<Master> {
        loop {
            for Replica { address, .. } in self.all.iter().filter(|replica| replica.process.is_some()) {
                let status = replica_status(address, "", Duration::from_millis(200)).await;
                if let Some(status) = status.ok().filter(|it| it.standing == "master" && it.epoch > epoch) {
                    let (replica, epoch) = (status.replica, status.epoch);
                    return Ok(Master { replica, epoch, address: address.clone() });
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// `kill -9`. Returns which process it was.
    pub(crate) fn kill(&mut self, master: &Master) -> Result<u32> {
        let replica = self.all.iter_mut().find(|replica| replica.address == master.address);
        let process = replica.and_then(|replica| replica.process.take()).ok_or("it is dead already")?;
        Ok(process.pid())
    }
}
