//! `wombat watch`: a line for each event.

use super::elect::pass;
use crate::args::Watch;
use crate::exit::{Failure, TIMEOUT};
use crate::output;
use crate::supervise::Signals;
use serde_json::json;
use std::io::ErrorKind;
use wombat_client::{Cell, Error, EventKind, Node, NodeEvent, NodeEvents, OpenOptions};

const KINDS: &[EventKind] = &[
    EventKind::ContentsModified,
    EventKind::ChildAdded,
    EventKind::ChildRemoved,
    EventKind::ChildModified,
    EventKind::HandleInvalid,
    EventKind::LockAcquired,
];

pub(crate) async fn run(cell: &Cell, watch: &Watch, json: bool) -> Result<u8, Failure> {
    let about = |error: Error| Failure::from(error).about(&watch.path);
    let mut options = OpenOptions::new().events(KINDS);
    if watch.recursive {
        options = options.recursive();
    }
    let node = cell.open(&watch.path, options).await.map_err(about)?;
    if watch.recursive && !node.opened_stat().directory {
        return Err(about(Error::NotDirectory));
    }
    let mut events = node.events();
    let mut signals = Signals::listen()?;
    let left = watch.count.unwrap_or(u64::MAX);
    if left == 0 {
        return Ok(0);
    }
    output::notice(format!("watching {}", node.path()));
    tokio::select! {
        ended = each(&node, &mut events, left, json) => ended,
        _ = signals.next() => Ok(0),
        () = output::reader_gone() => Err(Failure::output(ErrorKind::BrokenPipe.into())),
        () = pass(watch.timeout) => {
            let text = format!("{}: the time allowed has passed", watch.path);
            Err(Failure::new(TIMEOUT, "Timeout", text))
        }
    }
}

/// Prints events until there were so many, or the node is gone.
async fn each(node: &Node, events: &mut NodeEvents, mut left: u64, json: bool) -> Result<u8, Failure> {
    loop {
        let event = events.recv().await;
        let event = event.ok_or_else(|| Failure::lost("the session was lost, and the watch with it"))?;
        let deleted = event.kind == EventKind::HandleInvalid;
        print(node, &event, json).await;
        output::flush().await?;
        left -= 1;
        if left == 0 || deleted {
            return Ok(0);
        }
    }
}

async fn print(node: &Node, event: &NodeEvent, json: bool) {
    // After a fail-over or a gap the present contents stand for whatever was missed.
    let look = matches!(event.kind, EventKind::ContentsModified | EventKind::FailedOver | EventKind::Gap);
    let contents = if look && !node.opened_stat().directory { node.contents().await.ok() } else { None };
    let name = name_of(event.kind);
    if json {
        let mut object = json!({ "event": name, "path": node.path().to_string(), "slot": event.slot.0 });
        if let Some(child) = &event.child {
            object["child"] = child.as_str().into();
        }
        if let Some((contents, stat)) = &contents {
            object["content_generation"] = stat.content_generation.0.into();
            output::add_contents(&mut object, contents);
        }
        return output::line(object);
    }
    let detail = match (&event.child, &contents) {
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
