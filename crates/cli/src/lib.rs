//! `wombat`: the tool that people use, and the server that they run.
// A closed or full descriptor makes these macros panic; `output` prints.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod commands;
mod config_file;
mod dispatch;
mod duration;
mod exit;
mod global;
mod line_queue;
mod output;
mod settings;
mod supervise;
mod time_limit;

use args::Args;
use clap::Parser;
use exit::Failure;
use std::io::IsTerminal;
use std::process::ExitCode;

/// Runs the command of this process's command line. Returns its exit code.
pub fn main() -> ExitCode {
    supervise::expect_children();
    if let Some(code) = supervise::run_guardian_if_asked() {
        return code;
    }
    let (result, json) = match Args::try_parse() {
        Ok(args) => {
            let json = args.global.json;
            (start(args), json)
        }
        Err(error) => (without_command(&error), wants_json()),
    };
    let code = match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            output::failure(&failure, json);
            failure.code()
        }
    };
    output::finish();
    code
}

fn start(args: Args) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(dispatch::run(args));
    // A thread that still waits for the terminal's input must not keep the process.
    runtime.shutdown_background();
    result
}

/// The command line asks for help, or is wrong.
fn without_command(error: &clap::Error) -> Result<u8, Failure> {
    if error.use_stderr() && wants_json() {
        let text = error.render().to_string();
        return Err(Failure::usage(text.trim_start_matches("error: ").trim_end()));
    }
    if error.use_stderr() {
        output::error_text(&styled(&error.render(), &std::io::stderr()));
        return Ok(exit::USAGE);
    }
    output::bytes(styled(&error.render(), &std::io::stdout()).as_bytes());
    output::flush_blocking().map(|()| 0)
}

/// With colors for a terminal.
fn styled(text: &clap::builder::StyledStr, out: &impl IsTerminal) -> String {
    let colors = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if colors { text.ansi().to_string() } else { text.to_string() }
}

/// Whether the command line, which could not be parsed, asks for JSON.
fn wants_json() -> bool {
    std::env::args_os().take_while(|argument| argument != "--").any(|argument| argument == "--json")
}
