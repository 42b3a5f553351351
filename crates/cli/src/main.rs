//! `wombat`: the tool that people use, and the server that they run.

mod args;
mod commands;
mod exit;
mod line_queue;
mod output;
mod settings;
mod supervise;

use args::{Args, Command};
use clap::Parser;
use exit::Failure;
use std::process::ExitCode;
use supervise::Guardian;

fn main() -> ExitCode {
    let args = Args::parse();
    let json = args.global.json;
    let code = match start(args) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.report(json),
    };
    output::flush();
    code
}

/// Starts the runtime, and before it whatever must be done while there is only one thread.
fn start(args: Args) -> Result<u8, Failure> {
    let runs_under_lock = match &args.command {
        Command::Lock(lock) => !lock.holding.command.is_empty(),
        Command::Elect(elect) => !elect.holding.command.is_empty(),
        _ => false,
    };
    let guardian = if runs_under_lock { Some(Guardian::fork()?) } else { None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(commands::run(args, guardian));
    // A thread that still waits for the terminal's input must not keep the process.
    runtime.shutdown_background();
    result
}
