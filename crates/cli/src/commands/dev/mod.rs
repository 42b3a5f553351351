//! `wombat dev`: a cell for as long as a command or a person needs it.

mod environment;
mod one;
mod plan;
mod several;

use crate::duration;
use crate::exit::Failure;
use crate::global::Global;
use crate::output;
use clap::Args as ClapArgs;
use plan::Plan;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;
use wombat_client::CellName;

#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  wombat dev                             stay, and show what goes on
  wombat dev -- ./integration-test.sh    a fresh cell for the test, gone afterwards
  wombat dev --dir ./cell                keep the data
  wombat dev --replicas 5                five replicas, five processes; kill any two

CMD finds the cell through WOMBAT_ENDPOINTS and WOMBAT_CELL, and this very `wombat` on its PATH.
It is ended with all that it has started, as under `wombat lock`, when the cell ends.")]
pub(crate) struct Dev {
    /// How many replicas: more than one are processes of their own, which may be killed
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=9))]
    pub(crate) replicas: u32,
    /// Keep the data here [default: a temporary directory]
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Where to listen [default: any free port with CMD; else port 7480 if it is free]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
    /// The session lease
    #[arg(long, value_name = "DURATION", default_value = "12s", value_parser = duration::parse)]
    pub(crate) session_lease: Duration,
    /// Run this with the cell, and exit with its status
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

pub(crate) async fn run(global: &Global, dev: Dev) -> Result<u8, Failure> {
    // A paused terminal or pager must not stop the cell.
    let queues = output::queue_lines()?;
    let Dev { replicas, dir, listen, session_lease, command } = dev;
    let cell = global.cell.clone().unwrap_or_else(|| CellName::LOCAL.into());
    let plan = Plan { cell, replicas, dir, listen, session_lease, command };
    if let Some(dir) = &plan.dir
        && let Some(had) = several::replicas_in(dir).filter(|&had| had != plan.replicas as usize)
    {
        let text = format!("{} holds a cell of {had} replicas, not {}", dir.display(), plan.replicas);
        return Err(Failure::usage(text).hint(format!("say --replicas {had}, or take another --dir")));
    }
    match plan.replicas {
        1 => one::run(&plan, queues).await,
        _ => several::run(&plan).await,
    }
}
