//! Real `wombat` processes of one cell on this machine.

use crate::Result;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use wombat_client::{Cell, Status, replica_status};

/// The name of their cell.
pub const CELL: &str = "bench";
/// How long a replica may take to say how it is.
const STATUS_WITHIN: Duration = Duration::from_secs(1);

/// The processes of a cell with default settings, killed when this is dropped.
pub struct Replicas {
    wombat: PathBuf,
    dir: PathBuf,
    addresses: Vec<String>,
    children: Vec<Option<Child>>,
}

impl Replicas {
    /// Starts so many, which keep their data in folders of `dir`.
    pub fn start(wombat: &Path, dir: &Path, replicas: usize) -> Result<Replicas> {
        let addresses = free_addresses(replicas)?;
        let children = (0..replicas).map(|_| None).collect();
        let mut all = Replicas { wombat: wombat.into(), dir: dir.into(), addresses, children };
        (0..replicas).try_for_each(|number| all.restart(number))?;
        Ok(all)
    }

    /// Starts one on what its folder holds.
    pub fn restart(&mut self, number: usize) -> Result<()> {
        let mut command = Command::new(&self.wombat);
        command.args(["serve", "--cell", CELL, "--listen", &self.addresses[number], "--log", "warn"]);
        if self.addresses.len() > 1 {
            command.args(["--peers", &self.addresses.join(",")]);
        }
        command.arg("--dir").arg(self.dir.join(number.to_string()));
        self.children[number] = Some(command.stderr(Stdio::null()).spawn()?);
        Ok(())
    }

    /// `kill -9`.
    pub fn kill(&mut self, number: usize) -> Result<()> {
        if let Some(mut child) = self.children[number].take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Where they listen.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// The process of one that runs.
    pub fn pid(&self, number: usize) -> Option<u32> {
        self.children[number].as_ref().map(Child::id)
    }

    /// Which of them listens there.
    pub fn number_of(&self, address: &str) -> Option<usize> {
        self.addresses.iter().position(|at| at == address)
    }

    /// What one says of itself.
    pub async fn status(&self, number: usize) -> Option<Status> {
        replica_status(&self.addresses[number], "", STATUS_WITHIN).await.ok()
    }

    /// What the master says, once there is one.
    pub async fn master(&self) -> Status {
        loop {
            for number in 0..self.addresses.len() {
                let status = self.status(number).await;
                if let Some(status) = status.filter(|status| status.standing == "master") {
                    return status;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// So many sessions with the cell.
    pub async fn connect(&self, clients: usize) -> Result<Vec<Cell>> {
        let mut cells = Vec::new();
        for _ in 0..clients {
            cells.push(Cell::connect(self.addresses.iter().cloned()).await?);
        }
        Ok(cells)
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        (0..self.children.len()).for_each(|number| drop(self.kill(number)));
    }
}

/// Addresses of this machine that nobody listens at.
pub fn free_addresses(count: usize) -> Result<Vec<String>> {
    let listeners: Vec<_> =
        (0..count).map(|_| std::net::TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<_>>()?;
    Ok(listeners.iter().map(|one| Ok(one.local_addr()?.to_string())).collect::<std::io::Result<_>>()?)
}

/// The release build of the tool, made now if it is not there. `target_tmpdir` is the bench's own
/// `CARGO_TARGET_TMPDIR`.
pub fn built(target_tmpdir: &str) -> Result<PathBuf> {
    let mut build = Command::new(env!("CARGO"));
    if !build.args(["build", "--release", "--quiet", "--package", "wombat"]).status()?.success() {
        return Err("cannot build the tool".into());
    }
    Ok(Path::new(target_tmpdir).join("../release/wombat"))
}
