//! `wombat lock`: hold a lock while a command runs.

use super::break_lock::Break;
use super::holding::{Holding, SUPERVISION, Wanted, take};
use crate::exit::Failure;
use crate::settings::Settings;
use clap::{Args as ClapArgs, Subcommand};
use wombat_client::{Cell, LockMode};

#[derive(ClapArgs)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = format!("\
Examples:
  wombat lock /ls/local/backup -- ./backup.sh
  wombat lock /ls/local/report --timeout 30s -- make report    give up after 30 s, with code 5
  wombat lock /ls/local/report --timeout 0s -- make report     only if it is free now
  wombat lock /ls/local/db --shared -- pg_dump                 beside other shared holders
  wombat lock /ls/local/maintenance                            hold it until Ctrl-C
  wombat lock break /ls/local/backup --reason 'its host hangs' take it from whoever holds it

CMD gets WOMBAT_SEQUENCER (for the services that it talks to: they can check it),
WOMBAT_TOKEN (a number that grows with each grant) and WOMBAT_LOCK (the path). Once the lock is
lost, the cell refuses what CMD changes with wombat. If this command itself runs under another
lock, the same holds for that lock.

{SUPERVISION}"))]
pub(crate) struct Lock {
    #[command(subcommand)]
    pub(crate) action: Option<LockAction>,
    /// The file whose lock to take; made if it does not exist
    #[arg(required = true)]
    pub(crate) path: Option<String>,
    /// Share it with other shared holders
    #[arg(long)]
    pub(crate) shared: bool,
    #[command(flatten)]
    pub(crate) holding: Holding,
}

#[derive(Subcommand)]
pub(crate) enum LockAction {
    /// Take a lock from its holder, which is warned first; its lock-delay is kept
    Break(Break),
}

pub(crate) async fn run(cell: &Cell, settings: &Settings, lock: Lock, json: bool) -> Result<u8, Failure> {
    let mode = if lock.shared { LockMode::Shared } else { LockMode::Exclusive };
    let path = lock.path.expect("clap sees to a path");
    take(cell, settings, Wanted { path, mode, permits: 0, holding: lock.holding }, json).await
}
