//! What `lock`, `semaphore` and `elect` have in common: a lock is held while a command runs, and the command is
//! stopped before the lock can be lost.

use super::locks::why;
use super::parents::make_parents;
use crate::duration;
use crate::exit::{Failure, REFUSED, SIGNAL};
use crate::output;
use crate::settings::{OUTER_SEQUENCERS, SEQUENCER, Settings};
use crate::supervise::{self, Job, Signals, Under};
use clap::Args as ClapArgs;
use serde_json::json;
use std::ffi::OsString;
use std::time::Duration;
use wombat_client::{Cell, Create, Error, LockGuard, LockMode, Node, OpenOptions};

/// What becomes of the command, for the help of those commands.
pub(super) const SUPERVISION: &str = "\
CMD and all processes that it has started, daemons too, are stopped before the lock can be lost:
SIGTERM, then SIGKILL. They are killed if wombat is killed, and on time if wombat stands still.
What CMD leaves running gets SIGTERM when CMD ends, SIGKILL 2s later, and then the lock is
released. Not reached are processes that another service starts for CMD (systemd-run, at, docker,
ssh), and those of another user (sudo) unless wombat runs as root.

SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are forwarded; signals that wombat was
started to ignore (nohup) stay ignored. Three Ctrl-C in a row kill CMD. Ctrl-Z stops wombat as well: its lock then
ends with the session lease, and CMD is killed.";

/// What `lock`, `semaphore` and `elect` have in common: how to take the lock, and what to do with it.
#[derive(ClapArgs)]
pub(crate) struct Holding {
    /// How long to wait for the lock; 0s: not at all [default: without a limit]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) timeout: Option<Duration>,
    /// For how long nobody else may have it if this holder dies (at most 60s)
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration::parse)]
    pub(crate) lock_delay: Duration,
    /// Make the directories above the file
    #[arg(short, long)]
    pub(crate) parents: bool,
    /// What to run meanwhile
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// After how long a wait it is told who holds the lock.
const PATIENCE: Duration = Duration::from_secs(1);

/// Which lock to take, and how.
pub(super) struct Wanted {
    pub(super) path: String,
    pub(super) mode: LockMode,
    /// Of a semaphore; 0: it is none.
    pub(super) permits: u32,
    pub(super) holding: Holding,
}

pub(super) async fn take(cell: &Cell, settings: &Settings, lock: Wanted, json: bool) -> Result<u8, Failure> {
    let about = |error: Error| Failure::from(error).about(&lock.path);
    let mode = lock.mode;
    if lock.holding.parents {
        make_parents(cell, &lock.path).await?;
    }
    let options = OpenOptions::new().write().create(Create::May).lock_delay(lock.holding.lock_delay);
    let node = open(cell, &lock.path, options.permits(lock.permits)).await?;
    let permits = node.opened_stat().permits;
    if lock.permits != 0 && permits != lock.permits {
        let is = if permits == 0 { "no semaphore".into() } else { format!("a semaphore of {permits}") };
        let text = format!("{} exists, and is {is}, not one of {}", lock.path, lock.permits);
        return Err(Failure::new(REFUSED, "AlreadyExists", text).hint("name its permits, or another file"));
    }
    let mut signals = Signals::listen()?;
    let acquired = tokio::select! {
        acquired = acquire(&node, mode, lock.holding.timeout) => acquired,
        () = tell_who_holds(cell, &node) => unreachable!("it only tells"),
        signal = signals.next() => return Ok(SIGNAL + signal as u8),
    };
    let guard = acquired.map_err(about)?;
    let result = if lock.holding.command.is_empty() {
        output::line(match json {
            true => json!({ "path": node.path().to_string(), "token": guard.token().0, "sequencer": guard.sequencer().to_string() }).to_string(),
            false => guard.sequencer().to_string(),
        });
        hold(&guard, &mut signals).await
    } else {
        run_under(cell, settings, &guard, &lock.holding.command, &mut signals).await
    };
    if result.is_ok() {
        guard.release().await.map_err(about)?;
    }
    result
}

/// Opens the file of a lock. A directory has a lock, too.
async fn open(cell: &Cell, path: &str, options: OpenOptions) -> Result<Node, Failure> {
    match cell.open(path, options.clone()).await {
        Err(Error::IsDirectory) => cell.open(path, options.create(Create::Never)).await,
        opened => opened,
    }
    .map_err(|error| Failure::from(error).about(path))
}

async fn acquire(node: &Node, mode: LockMode, timeout: Option<Duration>) -> Result<LockGuard, Error> {
    match timeout {
        Some(timeout) => node.acquire_within(mode, timeout).await.map_err(|error| match error {
            // A wait of zero length has passed, too: one code for "not in the time allowed".
            Error::LockHeld => Error::Timeout,
            error => error,
        }),
        None => node.acquire(mode).await,
    }
}

/// Tells once who holds the lock that we wait for.
async fn tell_who_holds(cell: &Cell, node: &Node) {
    tokio::time::sleep(PATIENCE).await;
    let path = node.path().to_string();
    let locks = cell.locks(Some(&path)).await.unwrap_or_default();
    if let Some(lock) = locks.iter().find(|lock| lock.path == path) {
        output::notice(format!("waiting for {path}: {}", why(lock)));
    }
    std::future::pending().await
}

/// Writes what was printed, and holds the lock until interrupted.
pub(super) async fn hold(guard: &LockGuard, signals: &mut Signals) -> Result<u8, Failure> {
    tokio::select! {
        failure = output::flush_failed() => Err(failure),
        _ = signals.next() => Ok(0),
        () = guard.lost() => Err(lost(guard)),
    }
}

/// Why a lock is no longer surely held.
fn lost(guard: &LockGuard) -> Failure {
    match guard.is_revoked() {
        true => Failure::lost("an administrator broke the lock"),
        false => Failure::lost("the lock is no longer surely held"),
    }
}

/// Runs the command under the lock.
pub(super) async fn run_under(
    cell: &Cell,
    settings: &Settings,
    guard: &LockGuard,
    command: &[OsString],
    signals: &mut Signals,
) -> Result<u8, Failure> {
    let lease = Duration::from_millis(cell.status().await?.lease_ms.into());
    let outer: Vec<String> = settings.sequencers.iter().map(ToString::to_string).collect();
    let environment = vec![
        ("WOMBAT_ENDPOINTS", settings.endpoints.join(",").into()),
        ("WOMBAT_CELL", cell.name().as_str().into()),
        (SEQUENCER, guard.sequencer().to_string().into()),
        (OUTER_SEQUENCERS, outer.join(" ").into()),
        ("WOMBAT_TOKEN", guard.token().to_string().into()),
        ("WOMBAT_LOCK", guard.sequencer().path.to_string().into()),
    ];
    let job = Job { command, environment };
    supervise::run(job, signals, Some(Under { guard, lease })).await
}
