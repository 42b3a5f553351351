//! `wombat put`.

use super::files::make_directories;
use crate::args::{CreateFlag, Put};
use crate::exit::Failure;
use crate::output;
use crate::supervise::Signals;
use bytes::Bytes;
use serde_json::json;
use std::ffi::OsStr;
use std::io::{IsTerminal, Read};
use std::os::unix::ffi::OsStrExt;
use wombat_client::{Cell, Create, Error, Generation, Node, OpenOptions, Sequencer, Stat, limits};

pub(crate) async fn run(cell: &Cell, put: Put, json: bool) -> Result<u8, Failure> {
    let contents = contents(put.value.as_deref())?;
    let path = cell.resolve(&put.path)?;
    if put.parents
        && let Some((directory, _)) = path.node.split_last()
    {
        make_directories(cell, &directory).await?;
    }
    let (node, stat) = write(cell, &put, contents).await.map_err(|failure| failure.about(&put.path))?;
    let path = node.path();
    if put.sequential && !json {
        output::line(path);
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

async fn write(cell: &Cell, put: &Put, contents: Bytes) -> Result<(Node, Stat), Failure> {
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
    // Under a sequencer nothing may be written before the handle is tied to it, so the file is made empty.
    let sequencer = put.sequencer.as_deref().filter(|text| !text.is_empty());
    if sequencer.is_none() {
        options = options.contents(contents.clone());
    }
    let sequencer = sequencer.map(str::parse::<Sequencer>).transpose()?;
    if let Some(sequencer) = &sequencer {
        cell.check_sequencer(sequencer).await?;
    }
    let node = cell.open(&put.path, options).await?;
    if put.ephemeral && !node.opened_stat().ephemeral {
        let text = format!("{} exists and is permanent", put.path);
        return Err(Failure::new(crate::exit::REFUSED, "AlreadyExists", text).hint("delete it first"));
    }
    if let Some(sequencer) = &sequencer {
        node.set_sequencer(sequencer).await?;
    } else if node.created() {
        let stat = *node.opened_stat();
        return Ok((node, stat));
    }
    let stat = match put.if_generation {
        Some(generation) => node.set_if(Generation(generation), contents).await?,
        None => node.set(contents).await?,
    };
    Ok((node, stat))
}

/// The value of the command line, or what comes in.
fn contents(value: Option<&OsStr>) -> Result<Bytes, Failure> {
    let bytes = match value {
        Some(value) if value != "-" => value.as_bytes().to_vec(),
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
        return Err(Failure::from(Error::contents_too_large(bytes.len())));
    }
    Ok(bytes.into())
}

/// Keeps the session, and with it the node, until interrupted.
async fn stay(cell: &Cell) -> Result<u8, Failure> {
    let mut signals = Signals::listen()?;
    let mut events = cell.session_events();
    loop {
        tokio::select! {
            _ = signals.next() => return Ok(0),
            event = events.recv() => match event {
                None | Some(wombat_client::SessionEvent::Expired) => {
                    return Err(Failure::lost("the session was lost, and the file with it"));
                }
                Some(_) => {}
            }
        }
    }
}
