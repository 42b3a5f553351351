//! `wombat dev` with one replica: a cell in this process.

use super::environment::environment;
use super::plan::Plan;
use crate::exit::Failure;
use crate::output::{self, Queues};
use crate::supervise::{self, Job, Signals};
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::uptime;
use wombat_client::CellName;
use wombat_server::{Config, DEFAULT_PORT, Server, ServerError};

pub(super) async fn run(plan: &Plan, queues: Queues) -> Result<u8, Failure> {
    let stays = plan.command.is_empty();
    if stays {
        show_activity(queues);
    }
    // Dropped, and so deleted, after the server has stopped.
    let temporary = if plan.dir.is_none() { Some(tempfile::tempdir()?) } else { None };
    let dir = plan.dir.clone().or_else(|| temporary.as_ref().map(|dir| dir.path().to_owned()));
    let server = start(plan, dir.unwrap_or_default())?;
    let mut signals = Signals::listen()?;
    let result =
        if stays { stay(&server, &mut signals).await } else { run_with(&server, plan, &mut signals).await };
    server.stop()?;
    result
}

/// Starts the server where the flags say; without any, at the usual port if it is free.
fn start(plan: &Plan, dir: PathBuf) -> Result<Server, Failure> {
    let mut config = Config::new(CellName::parse(&plan.cell)?, dir);
    config.session_lease = plan.session_lease;
    config.activity = plan.command.is_empty();
    let any = || "127.0.0.1:0".to_owned();
    config.listen = match &plan.listen {
        Some(listen) => listen.clone(),
        None if !plan.command.is_empty() => any(),
        None => format!("127.0.0.1:{DEFAULT_PORT}"),
    };
    match Server::start(config.clone()) {
        Err(ServerError::Listen { .. }) if plan.listen.is_none() => {
            config.listen = any();
            Ok(Server::start(config)?)
        }
        started => Ok(started?),
    }
}

/// Runs the command with the cell in its environment.
async fn run_with(server: &Server, plan: &Plan, signals: &mut Signals) -> Result<u8, Failure> {
    let environment = environment(&plan.cell, server.address().to_string());
    let job = Job { command: &plan.command, environment };
    tokio::select! {
        status = supervise::run(job, signals, None) => status,
        error = server.failed() => Err(error.into()),
    }
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
