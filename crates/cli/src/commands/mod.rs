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
mod stale;
mod status;
mod tree;
mod watch;

use crate::args::{Admin, Args, Command, Lock, LockAction};
use crate::exit::{Failure, SIGNAL};
use crate::output;
use crate::settings::Settings;
use crate::supervise::Signals;
use crate::time_limit::TimeLimit;
use clap::CommandFactory;
use nix::sys::signal::Signal;
use std::time::Duration;
use wombat_client::Cell;

/// How long the end of a session may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// Runs a command. Returns its exit code.
pub(crate) async fn run(args: Args) -> Result<u8, Failure> {
    let result = run_unflushed(args).await;
    // By now the session has ended: nothing is held while a reader takes its time.
    let written = tokio::select! {
        written = output::flush() => written,
        signal = interrupted() => return Ok(SIGNAL + signal as u8),
    };
    result.and_then(|code| written.map(|()| code))
}

/// A signal that would end this process, if a command has begun to catch them.
async fn interrupted() -> Signal {
    match Signals::listen() {
        Ok(mut signals) => signals.next().await,
        Err(_) => std::future::pending().await,
    }
}

/// The same, but what is printed may not be written yet.
async fn run_unflushed(args: Args) -> Result<u8, Failure> {
    let Args { global, mut command } = args;
    let json = global.json;
    match command {
        Command::Dev(dev) => return dev::run(&global, dev).await,
        Command::Serve(serve) => return serve::run(&global, serve).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "wombat", &mut script);
            output::bytes(&script);
            return Ok(0);
        }
        Command::Sequencer(crate::args::Sequencer::Show { sequencer }) => {
            return sequencer::show(&sequencer, json);
        }
        // However long the input takes, no session waits for it.
        Command::Put(ref mut put) => put::read_value(put)?,
        Command::Multi(ref mut multi) => multi::read_steps(multi)?,
        _ => {}
    }
    let settings = Settings::load(&global)?;
    let limit = TimeLimit::of(&command, settings.timeout);
    let stays = stays(&command);
    let without_session = async {
        Ok(Some(match &command {
            Command::Status => status::status(&settings, json).await?,
            Command::Admin(Admin::Transfer { to }) => {
                settings.check_sequencers(limit.as_ref()).await?;
                status::transfer(&settings, to.unwrap_or(0)).await?
            }
            Command::Sessions => sessions::run(&settings, json).await?,
            Command::Locks(locks) => locks::list(&settings, locks.path.as_deref(), json).await?,
            Command::Admin(Admin::Audit) => locks::audit(&settings, json).await?,
            Command::Get(get) if get.stale => stale::get(&settings, &get.path, json).await?,
            Command::Ls(ls) if ls.stale => stale::ls(&settings, ls, json).await?,
            Command::Stat(stat) if stat.stale => stale::stat(&settings, &stat.path, json).await?,
            _ => return Ok(None),
        }))
    };
    let done = match &limit {
        Some(limit) => limit.run(without_session).await?,
        None => without_session.await?,
    };
    if let Some(code) = done {
        return Ok(code);
    }
    let cell = settings.connect(stays, limit.as_ref()).await?;
    let result = on_cell(&cell, &settings, command, json, limit).await;
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

/// Runs a command that has a session.
async fn on_cell(
    cell: &Cell,
    settings: &Settings,
    command: Command,
    json: bool,
    limit: Option<TimeLimit>,
) -> Result<u8, Failure> {
    let Some(limit) = limit else {
        return match command {
            Command::Lock(lock) => lock::run(cell, settings, lock.into(), json).await,
            Command::Semaphore(semaphore) => lock::run(cell, settings, semaphore.into(), json).await,
            Command::Elect(elect) => elect::run(cell, settings, elect, json).await,
            Command::Watch(watch) => watch::run(cell, &watch, json).await,
            _ => unreachable!("it has a limit, or needs no session"),
        };
    };
    match command {
        Command::Put(put) => put::run(cell, put, json, &limit).await,
        Command::Lock(Lock { action: Some(LockAction::Break(args)), .. }) => {
            limit.run(locks::break_lock(cell, &args, json)).await
        }
        command => limit.run(short(cell, command, json, &limit)).await.map(|()| 0),
    }
}

/// Runs a command that ends by itself and has no other exit code than that of its failure.
async fn short(cell: &Cell, command: Command, json: bool, limit: &TimeLimit) -> Result<(), Failure> {
    match command {
        Command::Multi(multi) => multi::run(cell, &multi, json).await,
        Command::Get(get) => files::get(cell, &get.path, json).await,
        Command::Ls(ls) => files::ls(cell, &ls, json).await,
        Command::Mkdir(mkdir) => files::mkdir(cell, &mkdir, json).await,
        Command::Rm(rm) => files::rm(cell, &rm, json, limit).await,
        Command::Stat(stat) => files::stat(cell, &stat.path, json).await,
        Command::Tree(tree) => tree::run(cell, &tree.path, json, limit).await,
        Command::Sequencer(crate::args::Sequencer::Check { sequencer }) => {
            sequencer::check(cell, &sequencer, json).await
        }
        _ => unreachable!("it has another exit code, or needs no session"),
    }
}
