//! `wombat watch`: a line for each event, or a command that runs at each.

use super::reader::Reader;
use crate::duration;
use crate::exit::{Failure, TIMEOUT};
use crate::output;
use crate::settings::Settings;
use crate::supervise::{self, Job, Signals};
use crate::time_limit::pass;
use bytes::Bytes;
use clap::Args as ClapArgs;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::pin::pin;
use std::time::Duration;
use wombat_client::{Cell, Error, EventKind, Node, NodeEvents, OpenOptions, Stat};

#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  wombat watch /ls/local/config                 a line for each change, with the new contents
  wombat watch /ls/local/services --json        children that come and go, a JSON object a line
  wombat watch -r --values /ls/local            everything below it, too, with the contents
  wombat watch /ls/local/config --count 1       wait for the next change
  wombat watch --wait /ls/local/config          also while it does not exist
  wombat watch /ls/local/config -- ./reload.sh  run a command at each change

CMD runs once for each event, one after the other, and finds in its environment WOMBAT_EVENT (its
name), WOMBAT_PATH (of the node that has changed), WOMBAT_SLOT, and WOMBAT_ENDPOINTS and
WOMBAT_CELL. Its failure is reported and ends nothing; with --count the exit code is its last status.

It goes on over restarts of the cell, and ends when the node is deleted.")]
pub(crate) struct Watch {
    /// A file, or a directory whose children are watched
    path: String,
    /// Of a directory: everything below it
    #[arg(short, long)]
    recursive: bool,
    /// Of a directory: also the contents of the files that are added or change
    #[arg(long)]
    values: bool,
    /// Wait for it if it does not exist, and again when it is deleted
    #[arg(long)]
    wait: bool,
    /// End after so many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// How long to watch; then the exit code is 5 [default: until interrupted]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// What to run at each event, instead of printing it
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
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

pub(crate) async fn run(cell: &Cell, settings: &Settings, watch: &Watch, json: bool) -> Result<u8, Failure> {
    let mut signals = Signals::listen()?;
    let mut passed = pin!(pass(watch.timeout));
    let mut reader_gone = pin!(async {
        match watch.command.is_empty() {
            true => output::reader_gone().await,
            false => std::future::pending().await,
        }
    });
    let mut changes =
        Changes { cell, settings, watch, open: None, reader: None, was_absent: false, ended: false };
    let mut status = 0;
    for _ in 0..watch.count.unwrap_or(u64::MAX) {
        let handled = async {
            let Some(change) = changes.next().await? else { return Ok::<_, Failure>(None) };
            if watch.command.is_empty() {
                output::line(if json { change.object().to_string() } else { change.to_string() });
                output::flush().await?;
            }
            Ok(Some(change))
        };
        let change = tokio::select! {
            change = handled => change?,
            _ = signals.next() => return Ok(0),
            () = &mut reader_gone => return Err(Failure::output(ErrorKind::BrokenPipe.into())),
            () = &mut passed => {
                let text = format!("{}: the time allowed has passed", watch.path);
                return Err(Failure::new(TIMEOUT, "Timeout", text));
            }
        };
        let Some(change) = change else { break };
        if !watch.command.is_empty() {
            status = run_at(&change, cell, settings, &watch.command, &mut signals).await?;
            if signals.asked_to_end() {
                return Ok(0);
            }
        }
    }
    Ok(status)
}

/// Runs the command for a change. Returns its status.
async fn run_at(
    change: &Change,
    cell: &Cell,
    settings: &Settings,
    command: &[OsString],
    signals: &mut Signals,
) -> Result<u8, Failure> {
    let environment = vec![
        ("WOMBAT_ENDPOINTS", settings.endpoints.join(",").into()),
        ("WOMBAT_CELL", cell.name().as_str().into()),
        ("WOMBAT_EVENT", change.event.into()),
        ("WOMBAT_PATH", change.changed_path().into()),
        ("WOMBAT_SLOT", change.slot.to_string().into()),
    ];
    let status = supervise::run(Job { command, environment }, signals, None).await?;
    if status != 0 {
        let path = output::name(&change.changed_path());
        output::notice(format!("wombat: the command for {} {path} ended with status {status}", change.event));
    }
    Ok(status)
}

/// What happens to a node; with `--wait`, to each that gets this name.
struct Changes<'a> {
    cell: &'a Cell,
    settings: &'a Settings,
    watch: &'a Watch,
    /// The node that has the name now.
    open: Option<(Node, NodeEvents)>,
    /// Reads the files that change in a directory, from the first of them on.
    reader: Option<Reader<'a>>,
    /// Whether the name stood for nothing since the last event.
    was_absent: bool,
    ended: bool,
}

impl Changes<'_> {
    /// The next; `None` once the node is deleted.
    async fn next(&mut self) -> Result<Option<Change>, Failure> {
        if self.ended {
            return Ok(None);
        }
        if self.open.is_none() {
            let node = self.find().await?;
            output::notice(format!("watching {}", output::name(&node.path().to_string())));
            let events = node.events();
            let (node, _) = self.open.insert((node, events));
            if std::mem::take(&mut self.was_absent) {
                let contents = contents(node).await;
                return Ok(Some(Change::new("created", node, node.instance().0, None, contents)));
            }
        }
        let (node, events) = self.open.as_mut().expect("it was just opened");
        let event = events.recv().await;
        let event = event.ok_or_else(|| Failure::lost("the session was lost, and the watch with it"))?;
        let contents = match &event.child {
            None => contents_after(node, event.kind).await,
            Some(child) if self.watch.values && has_contents(event.kind) => {
                // Without opening it: a watch keeps no ephemeral node alive.
                contents_at(self.settings, &mut self.reader, &format!("{}/{child}", node.path())).await
            }
            Some(_) => None,
        };
        let change = Change::new(name_of(event.kind), node, event.slot.0, event.child, contents);
        if event.kind == EventKind::HandleInvalid {
            self.open = None;
            self.was_absent = true;
            self.ended = !self.watch.wait;
        }
        Ok(Some(change))
    }

    /// Opens the node, once there is one.
    async fn find(&mut self) -> Result<Node, Failure> {
        let about = |error: Error| Failure::from(error).about(&self.watch.path);
        let options = || {
            let options = OpenOptions::new().events(KINDS);
            if self.watch.recursive { options.recursive() } else { options }
        };
        let mut told = self.was_absent;
        let node = loop {
            match self.cell.open(&self.watch.path, options()).await {
                Err(Error::NotFound { .. }) if self.watch.wait => {
                    if !std::mem::replace(&mut told, true) {
                        output::notice(format!("waiting for {}", output::name(&self.watch.path)));
                    }
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                opened => break opened.map_err(about)?,
            }
        };
        if self.watch.recursive && !node.opened_stat().directory {
            return Err(about(Error::NotDirectory));
        }
        self.was_absent = told;
        Ok(node)
    }
}

/// The contents that belong to an event of the node itself, if there is reason to look: they are what is there now,
/// which may be newer. After a fail-over or a gap they stand for whatever was missed.
async fn contents_after(node: &Node, kind: EventKind) -> Option<(Bytes, Stat)> {
    match kind {
        EventKind::ContentsModified | EventKind::FailedOver | EventKind::Gap => contents(node).await,
        _ => None,
    }
}

/// Whether the child of such an event may be a file with contents.
fn has_contents(kind: EventKind) -> bool {
    matches!(kind, EventKind::ChildAdded | EventKind::ChildModified)
}

/// The contents of a file, read without opening it. `reader` is made for the first of them.
async fn contents_at<'a>(
    settings: &'a Settings,
    reader: &mut Option<Reader<'a>>,
    path: &str,
) -> Option<(Bytes, Stat)> {
    let reader = match reader {
        Some(reader) => reader,
        None => reader.insert(Reader::connect(settings, false).await.ok()?),
    };
    reader.contents(path).await.ok().map(|read| read.value)
}

async fn contents(node: &Node) -> Option<(Bytes, Stat)> {
    if node.opened_stat().directory { None } else { node.contents().await.ok() }
}

/// Something that has happened.
struct Change {
    event: &'static str,
    /// The node that is watched.
    path: String,
    slot: u64,
    /// What has changed below it.
    child: Option<String>,
    contents: Option<(Bytes, Stat)>,
}

impl Change {
    fn new(
        event: &'static str,
        node: &Node,
        slot: u64,
        child: Option<String>,
        contents: Option<(Bytes, Stat)>,
    ) -> Change {
        Change { event, path: node.path().to_string(), slot, child, contents }
    }

    fn changed_path(&self) -> String {
        match &self.child {
            Some(child) => format!("{}/{child}", self.path),
            None => self.path.clone(),
        }
    }

    fn object(&self) -> Value {
        let mut object = json!({ "event": self.event, "path": self.path, "slot": self.slot });
        if let Some(child) = &self.child {
            object["child"] = child.as_str().into();
        }
        if let Some((contents, stat)) = &self.contents {
            object["content_generation"] = stat.content_generation.0.into();
            output::add_contents(&mut object, contents);
        }
        object
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.event)?;
        if let Some(child) = &self.child {
            write!(f, " {}", output::name(child))?;
        }
        if let Some((contents, stat)) = &self.contents {
            write!(f, " generation {}: {}", stat.content_generation, output::preview(contents))?;
        }
        Ok(())
    }
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
