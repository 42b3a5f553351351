//! `wombat put`.

use super::parents::make_parents;
use crate::exit::{Failure, USAGE};
use crate::output;
use crate::supervise::Signals;
use crate::time_limit::TimeLimit;
use bytes::Bytes;
use clap::{Args as ClapArgs, ValueEnum};
use serde_json::json;
use std::ffi::OsString;
use std::io::{IsTerminal, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use wombat_client::{Cell, Create, Generation, Node, OpenOptions, SessionEvent, Stat, limits};

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum CreateFlag {
    /// The file must exist
    Never,
    /// The file is made if it does not exist
    May,
    /// The file must not exist
    Must,
}

#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  wombat put /ls/local/greeting hello
  wombat put -p /ls/local/a/b/config - < config.toml
  wombat put /ls/local/counter 42 --if-generation 7    only if nobody wrote since
  wombat put /ls/local/alive/$(hostname) up --ephemeral
  wombat put /ls/local/jobs/job- work --sequential     makes job-0000000001, …2, and prints its path

Under `wombat lock … -- CMD` the environment holds WOMBAT_SEQUENCER, so that each change that CMD
makes with wombat is refused once the lock is lost, even if CMD was frozen and does not know.")]
pub(crate) struct Put {
    /// The file, /ls/CELL/…
    pub(crate) path: String,
    /// What to write; `-` or nothing: what comes in on standard input
    #[arg(allow_hyphen_values = true)]
    pub(crate) value: Option<OsString>,
    /// Write only if the contents are of this generation
    #[arg(long, value_name = "G", value_parser = clap::value_parser!(u64).range(1..), conflicts_with_all = ["create", "ephemeral"])]
    pub(crate) if_generation: Option<u64>,
    /// Whether to make the file
    #[arg(long, value_name = "WHEN", value_enum, default_value = "may")]
    pub(crate) create: CreateFlag,
    /// Make a file that vanishes when this command ends; stay until interrupted
    #[arg(long)]
    pub(crate) ephemeral: bool,
    /// Make a new file, its name completed by a number that rises with each; print its path
    #[arg(long, conflicts_with_all = ["create", "if_generation"])]
    pub(crate) sequential: bool,
    /// Make the directories above it
    #[arg(short, long)]
    pub(crate) parents: bool,
}

pub(crate) async fn run(cell: &Cell, put: Put, json: bool, limit: &TimeLimit) -> Result<u8, Failure> {
    let (node, stat) = limit.run(write(cell, &put)).await.map_err(|failure| failure.about(&put.path))?;
    let path = node.path();
    if put.sequential && !json {
        output::line(output::name(&path.to_string()));
    }
    if json {
        output::line(
            json!({ "path": path.to_string(), "created": node.created(), "stat": output::stat(&stat) }),
        );
    }
    if put.ephemeral {
        output::notice(format!("{path} exists until this command ends (Ctrl-C)"));
        return stay(cell).await;
    }
    Ok(0)
}

async fn write(cell: &Cell, put: &Put) -> Result<(Node, Stat), Failure> {
    let contents = Bytes::copy_from_slice(put.value.as_deref().unwrap_or_default().as_bytes());
    if put.parents {
        make_parents(cell, &put.path).await?;
    }
    let create = match put.create {
        _ if put.if_generation.is_some() => Create::Never,
        CreateFlag::Never => Create::Never,
        CreateFlag::May => Create::May,
        CreateFlag::Must => Create::Must,
    };
    let mut options = OpenOptions::new().write().create(create);
    if put.ephemeral {
        options = options.ephemeral();
    }
    if put.sequential {
        options = options.sequential();
    }
    options = options.contents(contents.clone());
    let node = cell.open(&put.path, options).await?;
    if put.ephemeral && !node.opened_stat().ephemeral {
        let text = format!("{} exists and is permanent", put.path);
        return Err(Failure::new(crate::exit::REFUSED, "AlreadyExists", text).hint("delete it first"));
    }
    if node.created() {
        let stat = *node.opened_stat();
        return Ok((node, stat));
    }
    let stat = match put.if_generation {
        Some(generation) => node.set_if(Generation(generation), contents).await?,
        None => node.set(contents).await?,
    };
    Ok((node, stat))
}

/// Reads the value that does not stand on the command line.
pub(crate) fn read_value(put: &mut Put) -> Result<(), Failure> {
    let bytes = match put.value.take() {
        Some(value) if value != "-" => value.into_vec(),
        None if std::io::stdin().is_terminal() => {
            let text = "say what to write: a VALUE, or - for what you type until Ctrl-D";
            return Err(Failure::usage(text));
        }
        _ => {
            let mut bytes = Vec::new();
            std::io::stdin().take(limits::CONTENTS_BYTES as u64 + 1).read_to_end(&mut bytes)?;
            bytes
        }
    };
    if bytes.len() > limits::CONTENTS_BYTES {
        let text =
            format!("a value of more than {} bytes, the most that a file holds", limits::CONTENTS_BYTES);
        return Err(Failure::new(USAGE, "TooLarge", text).hint("keep it elsewhere, and its address here"));
    }
    put.value = Some(OsString::from_vec(bytes));
    Ok(())
}

/// Keeps the session, and with it the node, until interrupted.
async fn stay(cell: &Cell) -> Result<u8, Failure> {
    let mut signals = Signals::listen()?;
    let mut events = cell.session_events();
    let expired = async { while !matches!(events.recv().await, None | Some(SessionEvent::Expired)) {} };
    tokio::select! {
        failure = output::flush_failed() => Err(failure),
        _ = signals.next() => Ok(0),
        () = expired => Err(Failure::lost("the session was lost, and the file with it")),
    }
}
