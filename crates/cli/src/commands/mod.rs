//! The commands, one a file.

mod dev;
mod elect;
mod files;
mod lock;
mod locks;
mod multi;
mod put;
mod sequencer;
mod serve;
mod sessions;
mod several;
mod status;
mod tree;
mod watch;

use crate::args::{Admin, Args, Command, LockAction};
use crate::exit::Failure;
use crate::settings::Settings;
use crate::supervise::Guardian;
use clap::CommandFactory;
use std::time::Duration;
use wombat_client::Cell;

/// How long the end of a session may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// Runs a command. Returns its exit code.
pub(crate) async fn run(args: Args, guardian: Option<Guardian>) -> Result<u8, Failure> {
    let Args { global, command } = args;
    let json = global.json;
    match command {
        Command::Dev(dev) => return dev::run(&global, dev).await,
        Command::Serve(serve) => return serve::run(&global, serve).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "wombat", &mut std::io::stdout());
            return Ok(0);
        }
        Command::Sequencer(crate::args::Sequencer::Show { sequencer }) => {
            return sequencer::show(&sequencer, json);
        }
        _ => {}
    }
    let settings = Settings::load(&global)?;
    match command {
        Command::Status => return status::status(&settings, json).await,
        Command::Admin(Admin::Transfer { to }) => return status::transfer(&settings, to.unwrap_or(0)).await,
        _ => {}
    }
    let cell = settings.connect(stays(&command)).await?;
    let result = on_cell(&cell, &settings, command, json, guardian).await;
    // The session ends at once, and with it what it held; otherwise it would linger for its lease. A cell that
    // is gone is not waited for.
    let _gone_either_way = tokio::time::timeout(GOODBYE, cell.close()).await;
    result
}

/// Whether a command goes on until something happens.
fn stays(command: &Command) -> bool {
    match command {
        Command::Lock(lock) => lock.action.is_none(),
        Command::Watch(_) | Command::Semaphore(_) | Command::Elect(_) => true,
        _ => false,
    }
}

async fn on_cell(
    cell: &Cell,
    settings: &Settings,
    command: Command,
    json: bool,
    guardian: Option<Guardian>,
) -> Result<u8, Failure> {
    match command {
        Command::Put(put) => return put::run(cell, put, json).await,
        Command::Lock(lock) => {
            if let Some(LockAction::Break(args)) = &lock.action {
                return locks::break_lock(cell, args, json).await;
            }
            return lock::run(cell, settings, lock.into(), json, guardian).await;
        }
        Command::Semaphore(semaphore) => {
            return lock::run(cell, settings, semaphore.into(), json, guardian).await;
        }
        Command::Multi(multi) => multi::run(cell, &multi, json).await?,
        Command::Elect(elect) => return elect::run(cell, settings, elect, json, guardian).await,
        Command::Get(get) => files::get(cell, &get.path, json).await?,
        Command::Ls(ls) => files::ls(cell, &ls, json).await?,
        Command::Mkdir(mkdir) => files::mkdir(cell, &mkdir).await?,
        Command::Rm(rm) => files::rm(cell, &rm).await?,
        Command::Stat(stat) => files::stat(cell, &stat.path, json).await?,
        Command::Tree(tree) => tree::run(cell, &tree.path, json).await?,
        Command::Watch(watch) => return watch::run(cell, &watch, json).await,
        Command::Sequencer(crate::args::Sequencer::Check { sequencer }) => {
            sequencer::check(cell, &sequencer, json).await?;
        }
        Command::Sessions => sessions::run(cell, json).await?,
        Command::Locks(locks) => locks::list(cell, locks.path.as_deref(), json).await?,
        Command::Admin(Admin::Audit) => locks::audit(cell, json).await?,
        Command::Dev(_)
        | Command::Serve(_)
        | Command::Status
        | Command::Admin(Admin::Transfer { .. })
        | Command::Completions { .. }
        | Command::Sequencer(crate::args::Sequencer::Show { .. }) => unreachable!("they need no cell"),
    }
    Ok(0)
}
