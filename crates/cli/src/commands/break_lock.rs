//! `wombat lock break`: taking a lock away.

use super::locks::why;
use crate::exit::{Failure, REFUSED, SIGNAL};
use crate::output;
use crate::supervise::Signals;
use clap::Args as ClapArgs;
use serde_json::json;
use std::time::Duration;
use wombat_client::{Cell, Error, Token};

#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  wombat lock break /ls/local/backup --reason 'its host hangs'
  wombat lock break /ls/local/db --token 4711                     only that holder of a shared lock

The holder hears of it and has a few seconds to stop what it does under the lock; `wombat lock`
stops its CMD. Only then the lock goes to the next in line, or after the holder's lock-delay if
it asked for one. A holder that cannot be reached is waited for until its session's lease has
ended. `wombat admin audit` shows the break.")]
pub(crate) struct Break {
    /// The locked node
    pub(crate) path: String,
    /// Only the holder with that token, as `wombat locks` shows it [default: all holders]
    #[arg(long, value_name = "TOKEN", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) token: Option<u64>,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

/// Takes a lock from its holders.
pub(crate) async fn run(cell: &Cell, args: &Break, json: bool) -> Result<u8, Failure> {
    let about = |error: Error| match error {
        Error::NotHeld => {
            let by = args.token.map_or_else(String::new, |token| format!(" by the token {token}"));
            Failure::new(REFUSED, "NotHeld", format!("nobody holds the lock of {}{by}", args.path))
                .hint("wombat locks PATH shows who does")
        }
        error => Failure::from(error).about(&args.path),
    };
    let mut signals = Signals::listen()?;
    let reason = args.reason.as_deref().unwrap_or_default();
    let broken = tokio::select! {
        broken = cell.break_lock(&args.path, args.token.map(Token), reason) => broken,
        () = tell_progress(cell, &args.path) => unreachable!("it only tells"),
        signal = signals.next() => return Ok(SIGNAL + signal as u8),
    };
    broken.map_err(about)?;
    let path = cell.resolve(&args.path)?.to_string();
    let after = cell.locks(Some(&path)).await?.into_iter().find(|lock| lock.path == path);
    let now = after.as_ref().map_or("free".into(), why);
    match json {
        true => output::line(json!({ "path": path, "broken": true, "now": now })),
        false => output::line(format!("broke the lock of {path}; now: {now}")),
    }
    Ok(0)
}

/// Tells once, if it takes long, that the holder is waited for.
async fn tell_progress(cell: &Cell, path: &str) {
    tokio::time::sleep(Duration::from_secs(1)).await;
    let locks = cell.locks(Some(path)).await.unwrap_or_default();
    if let Some(left) = locks.first().map(|lock| lock.free_within_ms) {
        let left = output::span(Duration::from_millis(left));
        output::notice(format!(
            "its holder has been told, and has a little time to stop; {left} at the latest"
        ));
    }
    std::future::pending().await
}
