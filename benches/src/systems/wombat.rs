//! Wombat, by its own client library.

use super::{System, Writer, wait_for};
use crate::Result;
use crate::replicas::Replicas;
use std::path::Path;
use std::time::Duration;
use tokio::runtime::Runtime;
use wombat_client::{Cell, Create, Node, OpenOptions, Status, transfer_mastership};

/// Its replicas.
pub struct Wombat {
    replicas: Replicas,
    runtime: Runtime,
}

impl Wombat {
    /// Starts so many.
    pub fn start(wombat: &Path, dir: &Path, nodes: usize) -> Result<Wombat> {
        Ok(Wombat { replicas: Replicas::start(wombat, &dir.join("wombat"), nodes)?, runtime: runtime()? })
    }

    /// Lets the master hand over. Returns when another one serves.
    pub fn transfer(&mut self) -> Result<()> {
        let before = self.runtime.block_on(self.replicas.master());
        let within = Duration::from_secs(5);
        self.runtime.block_on(transfer_mastership(&before.master, 0, within))?;
        wait_for("another master", || {
            let master = self.runtime.block_on(self.replicas.master());
            (master.epoch > before.epoch).then_some(())
        })
    }
}

impl System for Wombat {
    fn name(&self) -> &'static str {
        "wombat"
    }

    fn addresses(&self) -> &[String] {
        self.replicas.addresses()
    }

    fn leader(&mut self) -> Option<usize> {
        let statuses: Option<Vec<Status>> = self.runtime.block_on(async {
            let mut all = Vec::new();
            for number in 0..self.replicas.addresses().len() {
                all.push(self.replicas.status(number).await?);
            }
            Some(all)
        });
        let statuses = statuses?;
        let master = statuses.iter().find(|status| status.standing == "master")?;
        let equal = statuses
            .iter()
            .all(|status| status.chosen_slot == master.chosen_slot && status.master == master.master);
        self.replicas.number_of(&master.master).filter(|_| equal)
    }

    fn kill(&mut self, node: usize) -> Result<()> {
        self.replicas.kill(node)
    }

    fn start(&mut self, node: usize) -> Result<()> {
        self.replicas.restart(node)
    }

    /// A session is always with the master.
    fn writer(&self, _node: usize) -> Result<Box<dyn Writer>> {
        writer(self.replicas.addresses())
    }
}

/// A client of a cell that writes.
pub fn writer(addresses: &[String]) -> Result<Box<dyn Writer>> {
    let runtime = runtime()?;
    let options = OpenOptions::new().write().create(Create::May);
    let (cell, node) = runtime.block_on(async {
        let cell = Cell::connect(addresses.iter().cloned()).await?;
        let node = cell.open("/ls/local/bench", options).await?;
        wombat_client::Result::Ok((cell, node))
    })?;
    Ok(Box::new(Client { runtime, cell, node }))
}

struct Client {
    runtime: Runtime,
    cell: Cell,
    node: Node,
}

impl Writer for Client {
    fn write(&mut self) -> Result<()> {
        self.runtime.block_on(self.node.set("value"))?;
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _best_effort = self.runtime.block_on(self.cell.clone().close());
    }
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
