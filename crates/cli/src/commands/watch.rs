//! `wombat watch`: a line for each event.

use crate::duration;
use crate::exit::{Failure, TIMEOUT};
use crate::output;
use crate::supervise::Signals;
use crate::time_limit::pass;
use clap::Args as ClapArgs;
use serde_json::json;
use std::io::ErrorKind;
use std::time::Duration;
use wombat_client::{Cell, Error, EventKind, Node, OpenOptions};

#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  wombat watch /ls/local/config                 a line for each change, with the new contents
  wombat watch /ls/local/services --json        children that come and go, a JSON object a line
  wombat watch -r /ls/local                     everything below it, too
  wombat watch /ls/local/config --count 1       wait for the next change
  wombat watch --wait /ls/local/config          also while it does not exist

It goes on over restarts of the cell, and ends when the node is deleted.")]
pub(crate) struct Watch {
    /// A file, or a directory whose children are meant
    pub(crate) path: String,
    /// Of a directory: everything below it
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// Wait for it if it does not exist, and again when it is deleted
    #[arg(long)]
    pub(crate) wait: bool,
    /// End after so many events
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// How long to watch; then the exit code is 5 [default: until interrupted]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) timeout: Option<Duration>,
}

const KINDS: &[EventKind] = &[
    EventKind::ContentsModified,
    EventKind::ChildAdded,
    EventKind::ChildRemoved,
    EventKind::ChildModified,
    EventKind::HandleInvalid,
    EventKind::LockAcquired,
];

/// How often a node that does not exist is looked for. A client that caches knows it without asking.
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub(crate) async fn run(cell: &Cell, watch: &Watch, json: bool) -> Result<u8, Failure> {
    let mut signals = Signals::listen()?;
    tokio::select! {
        ended = follow(cell, watch, json) => ended,
        _ = signals.next() => Ok(0),
        () = output::reader_gone() => Err(Failure::output(ErrorKind::BrokenPipe.into())),
        () = pass(watch.timeout) => {
            let text = format!("{}: the time allowed has passed", watch.path);
            Err(Failure::new(TIMEOUT, "Timeout", text))
        }
    }
}

/// Prints the events of a node; with `--wait`, of each that gets this name.
async fn follow(cell: &Cell, watch: &Watch, json: bool) -> Result<u8, Failure> {
    let about = |error: Error| Failure::from(error).about(&watch.path);
    let mut options = OpenOptions::new().events(KINDS);
    if watch.recursive {
        options = options.recursive();
    }
    let mut left = watch.count.unwrap_or(u64::MAX);
    let mut was_absent = false;
    while left > 0 {
        let node = match cell.open(&watch.path, options.clone()).await {
            Err(Error::NotFound { .. }) if watch.wait => {
                if !was_absent {
                    output::notice(format!("waiting for {}", output::name(&watch.path)));
                }
                was_absent = true;
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            opened => opened.map_err(about)?,
        };
        if watch.recursive && !node.opened_stat().directory {
            return Err(about(Error::NotDirectory));
        }
        let mut events = node.events();
        output::notice(format!("watching {}", output::name(&node.path().to_string())));
        if was_absent {
            print(&node, "created", node.instance().0, None, true, json).await;
            output::flush().await?;
            left -= 1;
        }
        while left > 0 {
            let event = events.recv().await;
            let event = event.ok_or_else(|| Failure::lost("the session was lost, and the watch with it"))?;
            // After a fail-over or a gap the present contents stand for whatever was missed.
            let look =
                matches!(event.kind, EventKind::ContentsModified | EventKind::FailedOver | EventKind::Gap);
            let slot = event.slot.0;
            print(&node, name_of(event.kind), slot, event.child.as_deref(), look, json).await;
            output::flush().await?;
            left -= 1;
            if event.kind == EventKind::HandleInvalid {
                break;
            }
        }
        if !watch.wait {
            break;
        }
        was_absent = true;
    }
    Ok(0)
}

/// Prints an event; with the present contents, if there is reason to look.
async fn print(node: &Node, name: &str, slot: u64, child: Option<&str>, look: bool, json: bool) {
    let contents = if look && !node.opened_stat().directory { node.contents().await.ok() } else { None };
    if json {
        let mut object = json!({ "event": name, "path": node.path().to_string(), "slot": slot });
        if let Some(child) = child {
            object["child"] = child.into();
        }
        if let Some((contents, stat)) = &contents {
            object["content_generation"] = stat.content_generation.0.into();
            output::add_contents(&mut object, contents);
        }
        return output::line(object);
    }
    let detail = match (child, &contents) {
        (Some(child), _) => format!(" {}", output::name(child)),
        (None, Some((contents, stat))) => {
            format!(" generation {}: {}", stat.content_generation, output::preview(contents))
        }
        (None, None) => String::new(),
    };
    output::line(format!("{name}{detail}"));
}

fn name_of(kind: EventKind) -> &'static str {
    match kind {
        EventKind::ContentsModified => "modified",
        EventKind::ChildAdded => "child_added",
        EventKind::ChildRemoved => "child_removed",
        EventKind::ChildModified => "child_modified",
        EventKind::FailedOver => "failed_over",
        EventKind::HandleInvalid => "deleted",
        EventKind::LockAcquired => "locked",
        EventKind::LockConflict => "lock_conflict",
        EventKind::LockInvalid => "lock_invalid",
        EventKind::LockReleased => "lock_released",
        EventKind::Gap => "gap",
        EventKind::Unspecified => "unknown",
    }
}
