//! `wombat semaphore`: hold one of several permits while a command runs.

use super::holding::{Holding, SUPERVISION, Wanted, take};
use crate::exit::Failure;
use crate::settings::Settings;
use clap::Args as ClapArgs;
use wombat_client::{Cell, LockMode};

#[derive(ClapArgs)]
#[command(after_help = format!("\
Examples:
  wombat semaphore /ls/local/crawlers --permits 3 -- ./crawl.sh    at most three at a time, everywhere
  wombat semaphore /ls/local/crawlers --permits 3 --timeout 10s -- ./crawl.sh
  wombat semaphore /ls/local/crawlers --permits 3                  hold one until Ctrl-C

The first client creates the file with that many permits. A client that names another number is
refused. CMD gets WOMBAT_SEQUENCER, WOMBAT_TOKEN and WOMBAT_LOCK.

{SUPERVISION}"))]
pub(crate) struct Semaphore {
    /// The semaphore's file; made if it does not exist
    pub(crate) path: String,
    /// How many may hold it at a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) permits: u32,
    #[command(flatten)]
    pub(crate) holding: Holding,
}

pub(crate) async fn run(
    cell: &Cell,
    settings: &Settings,
    semaphore: Semaphore,
    json: bool,
) -> Result<u8, Failure> {
    let Semaphore { path, permits, holding } = semaphore;
    take(cell, settings, Wanted { path, mode: LockMode::Shared, permits, holding }, json).await
}
