//! `wombat dev`: a cell in this process, for as long as a command or a person needs it.

use super::several;
use crate::args::{Dev, Global};
use crate::exit::Failure;
use crate::output::{self, Queues};
use crate::settings::SEQUENCER;
use crate::supervise::{self, Job, Signals};
use std::ffi::OsString;
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::uptime;
use wombat_client::CellName;
use wombat_server::{Config, DEFAULT_PORT, Server, ServerError};

pub(crate) async fn run(global: &Global, dev: Dev) -> Result<u8, Failure> {
    // A paused terminal or pager must not stop the cell.
    let queues = output::queue_lines()?;
    if let Some(dir) = &dev.dir
        && let Some(had) = several::replicas_in(dir).filter(|&had| had != dev.replicas as usize)
    {
        let text = format!("{} holds a cell of {had} replicas, not {}", dir.display(), dev.replicas);
        return Err(Failure::usage(text).hint(format!("say --replicas {had}, or take another --dir")));
    }
    if dev.replicas > 1 {
        return several::run(global, dev).await;
    }
    let stays = dev.command.is_empty();
    if stays {
        show_activity(queues);
    }
    // Dropped, and so deleted, after the server has stopped.
    let temporary = if dev.dir.is_none() { Some(tempfile::tempdir()?) } else { None };
    let dir = dev.dir.clone().or_else(|| temporary.as_ref().map(|dir| dir.path().to_owned()));
    let server = start(global, &dev, dir.unwrap_or_default())?;
    let mut signals = Signals::listen()?;
    let result = if stays {
        stay(&server, &mut signals).await
    } else {
        run_with(global, &server, &dev, &mut signals).await
    };
    server.stop()?;
    result
}

/// Starts the server where the flags say; without any, at the usual port if it is free.
fn start(global: &Global, dev: &Dev, dir: PathBuf) -> Result<Server, Failure> {
    let mut config = Config::new(CellName::parse(cell_name(global))?, dir);
    config.session_lease = dev.session_lease;
    config.activity = dev.command.is_empty();
    let any = || "127.0.0.1:0".to_owned();
    config.listen = match &dev.listen {
        Some(listen) => listen.clone(),
        None if !dev.command.is_empty() => any(),
        None => format!("127.0.0.1:{DEFAULT_PORT}"),
    };
    match Server::start(config.clone()) {
        Err(ServerError::Listen { .. }) if dev.listen.is_none() => {
            config.listen = any();
            Ok(Server::start(config)?)
        }
        started => Ok(started?),
    }
}

pub(super) fn cell_name(global: &Global) -> &str {
    global.cell.as_deref().unwrap_or(CellName::LOCAL)
}

/// The environment in which a command finds the cell and the tool.
pub(super) fn environment(global: &Global, endpoints: String) -> Vec<(&'static str, OsString)> {
    let mut environment = vec![("WOMBAT_ENDPOINTS", endpoints.into())];
    environment.push(("WOMBAT_CELL", cell_name(global).into()));
    // A lock of another cell that this command runs under.
    environment.push((SEQUENCER, OsString::new()));
    if let Some(path) = path_with_this_program() {
        environment.push(("PATH", path));
    }
    environment
}

/// Runs the command with the cell in its environment.
async fn run_with(global: &Global, server: &Server, dev: &Dev, signals: &mut Signals) -> Result<u8, Failure> {
    let environment = environment(global, server.address().to_string());
    let job = Job { command: &dev.command, environment };
    tokio::select! {
        status = supervise::run(job, signals, None) => status,
        error = server.failed() => Err(error.into()),
    }
}

/// PATH with the directory of this very program in front, so that `wombat` works in the command.
fn path_with_this_program() -> Option<OsString> {
    let own = std::env::current_exe().ok()?.parent()?.to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(own).chain(std::env::split_paths(&path))).ok()
}

/// Tells how to use the cell, and stays until interrupted.
async fn stay(server: &Server, signals: &mut Signals) -> Result<u8, Failure> {
    let address = server.address();
    output::line(format_args!("A cell of one is ready at {address}. In another terminal:"));
    output::line("");
    if address.port() != DEFAULT_PORT {
        output::line(format_args!("  export WOMBAT_ENDPOINTS={address}"));
    }
    output::line("  wombat put /ls/local/greeting hello");
    output::line("  wombat lock /ls/local/lock -- sh -c 'echo I hold token $WOMBAT_TOKEN'");
    output::line("");
    output::line("What goes on (Ctrl-C stops):");
    tokio::select! {
        _ = signals.next() => Ok(0),
        error = server.failed() => Err(error.into()),
    }
}

/// Shows applied changes as they happen, and the server's warnings.
fn show_activity(queues: Queues) {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("warn,wombat::activity=info"))
        .with_timer(uptime())
        .with_target(false)
        .with_level(false)
        .with_ansi(false)
        .with_writer(move || queues.out.clone())
        .init();
}
