//! From the command line to the command: with or without a session, and for how long.

use crate::args::{Args, Command};
use crate::commands::admin::{self, Admin};
use crate::commands::lock::LockAction;
use crate::commands::sequencer::Sequencer;
use crate::commands::{
    break_lock, completions, dev, elect, get, lock, locks, ls, mkdir, multi, put, rm, semaphore, sequencer,
    serve, sessions, stat, status, tree, watch,
};
use crate::exit::{Failure, SIGNAL};
use crate::output;
use crate::settings::Settings;
use crate::supervise::Signals;
use crate::time_limit::{Effect, TimeLimit};
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
        Command::Completions(args) => return Ok(completions::run(&args, Args::command())),
        Command::Sequencer(Sequencer::Show { sequencer }) => return sequencer::show(&sequencer, json),
        // However long the input takes, no session waits for it.
        Command::Put(ref mut put) => put::read_value(put)?,
        Command::Multi(ref mut multi) => multi::read_steps(multi)?,
        _ => {}
    }
    let settings = Settings::load(&global)?;
    let Some(effect) = effect(&command) else {
        let cell = settings.connect(true, None).await?;
        let result = holding(&cell, &settings, command, json).await;
        return ended(cell, result).await;
    };
    let limit = TimeLimit::new(effect, settings.timeout);
    if effect == Effect::Reads || matches!(command, Command::Admin(_)) {
        let work = without_session(&settings, command, json, &limit);
        return limit.run(work).await.map(|()| 0);
    }
    let cell = settings.connect(false, Some(&limit)).await?;
    let result = changing(&cell, command, json, &limit).await;
    ended(cell, result).await
}

/// The session ends at once, and with it what it held; otherwise it would linger for its lease. A cell that is gone is
/// not waited for.
async fn ended(cell: Cell, result: Result<u8, Failure>) -> Result<u8, Failure> {
    let _gone_either_way = tokio::time::timeout(GOODBYE, cell.close()).await;
    result
}

/// What a command does that ends by itself. What waits by its nature (a lock, an election, a watch) has no limit.
fn effect(command: &Command) -> Option<Effect> {
    match command {
        Command::Lock(lock) => lock.action.as_ref().map(|LockAction::Break(_)| Effect::BreaksLock),
        Command::Dev(_)
        | Command::Serve(_)
        | Command::Watch(_)
        | Command::Semaphore(_)
        | Command::Elect(_)
        | Command::Completions(_) => None,
        Command::Put(_)
        | Command::Mkdir(_)
        | Command::Rm(_)
        | Command::Multi(_)
        | Command::Admin(Admin::Transfer(_)) => Some(Effect::Changes),
        Command::Get(_)
        | Command::Ls(_)
        | Command::Stat(_)
        | Command::Tree(_)
        | Command::Sequencer(_)
        | Command::Sessions
        | Command::Locks(_)
        | Command::Status
        | Command::Admin(Admin::Audit) => Some(Effect::Reads),
    }
}

/// Runs a command that takes no session: it leaves nothing in the log.
async fn without_session(
    settings: &Settings,
    command: Command,
    json: bool,
    limit: &TimeLimit,
) -> Result<(), Failure> {
    match command {
        Command::Get(get) => get::run(settings, &get, json).await,
        Command::Ls(ls) => ls::run(settings, &ls, json).await,
        Command::Stat(stat) => stat::run(settings, &stat, json).await,
        Command::Tree(tree) => tree::run(settings, &tree, json, limit).await,
        Command::Sequencer(Sequencer::Check { sequencer }) => {
            sequencer::check(settings, &sequencer, json).await
        }
        Command::Sessions => sessions::run(settings, json).await,
        Command::Locks(locks) => locks::run(settings, &locks, json).await,
        Command::Status => status::run(settings, json).await,
        Command::Admin(Admin::Audit) => admin::audit(settings, json).await,
        Command::Admin(Admin::Transfer(transfer)) => {
            settings.check_sequencers().await?;
            admin::transfer(settings, &transfer, json).await
        }
        _ => unreachable!("it has a session"),
    }
}

/// Runs a command that changes something and ends by itself.
async fn changing(cell: &Cell, command: Command, json: bool, limit: &TimeLimit) -> Result<u8, Failure> {
    let work = async {
        match command {
            Command::Put(put) => return put::run(cell, put, json, limit).await,
            Command::Lock(lock::Lock { action: Some(LockAction::Break(args)), .. }) => {
                return limit.run(break_lock::run(cell, &args, json)).await;
            }
            Command::Multi(multi) => limit.run(multi::run(cell, &multi, json)).await,
            Command::Mkdir(mkdir) => limit.run(mkdir::run(cell, &mkdir, json)).await,
            Command::Rm(rm) => limit.run(rm::run(cell, &rm, json, limit)).await,
            _ => unreachable!("it changes nothing, or goes on"),
        }
        .map(|()| 0)
    };
    work.await
}

/// Runs a command that goes on until something happens.
async fn holding(cell: &Cell, settings: &Settings, command: Command, json: bool) -> Result<u8, Failure> {
    match command {
        Command::Lock(lock) => lock::run(cell, settings, lock, json).await,
        Command::Semaphore(semaphore) => semaphore::run(cell, settings, semaphore, json).await,
        Command::Elect(elect) => elect::run(cell, settings, elect, json).await,
        Command::Watch(watch) => watch::run(cell, settings, &watch, json).await,
        _ => unreachable!("it ends by itself"),
    }
}
