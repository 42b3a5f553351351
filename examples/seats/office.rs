//! A ticket office: under the lock it chooses a free seat, takes the money, and writes.

use crate::LOCK;
use crate::process::{Result, lines};
use crate::table::Table;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use wombat_client::{Cell, Config, Create, Error, LockMode, OpenOptions};

/// How long it looks for its cell before it gives its session up.
const GRACE: Duration = Duration::from_millis(500);

/// The role of an office. It says which seat it chose, and writes when it is told to.
pub(crate) async fn play(cell: &str, mut table: Table) -> Result<()> {
    let mut told = lines(std::io::stdin());
    let mut config = Config::new([cell]);
    config.grace = GRACE;
    loop {
        let cell = Cell::connect_with(config.clone()).await?;
        match sell(&cell, &mut table, &mut told).await {
            Err(error) if error.is::<Error>() => println!("lost {error}"),
            ended => return ended,
        }
    }
}

/// Sells until there is nothing left, or its session is lost.
async fn sell(cell: &Cell, table: &mut Table, told: &mut UnboundedReceiver<String>) -> Result<()> {
    let node = cell.open(LOCK, OpenOptions::new().write().create(Create::May)).await?;
    loop {
        let guard = node.acquire(LockMode::Exclusive).await?;
        let Some(seat) = table.choose(guard.sequencer())? else { return Ok(guard.release().await?) };
        println!("chose {seat} {}", guard.token());
        // Here the customer pays, and here it may freeze. A look at the guard would not help: it may freeze
        // after that.
        let _paid = told.recv().await.ok_or("nobody tells it anything any more")?;
        let token = guard.token();
        match table.sell(guard.sequencer(), seat) {
            Ok(()) => println!("wrote sold seat {seat} under token {token}"),
            Err(error) if error.is::<Error>() => println!("wrote refused token {token}: {error}"),
            Err(error) => return Err(error),
        }
        if !guard.is_safe() {
            return Err(Error::NotHeld.into());
        }
        guard.release().await?;
    }
}
