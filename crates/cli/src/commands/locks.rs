//! `wombat locks`: who holds what, and why others wait.

use crate::exit::Failure;
use crate::output;
use crate::settings::Settings;
use clap::Args as ClapArgs;
use serde_json::{Value, json};
use std::time::Duration;
use wombat_client::{Error, Holder, LockInfo, WaiterInfo};

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  wombat locks\n  wombat locks /ls/local/backup")]
pub(crate) struct Locks {
    /// A node, with all below it [default: the whole cell]
    pub(crate) path: Option<String>,
}

pub(crate) async fn run(settings: &Settings, args: &Locks, json: bool) -> Result<(), Failure> {
    let path = args.path.as_deref();
    let about = |error: Error| Failure::from(error).about(path.unwrap_or("the cell"));
    let mut operator = settings.operator().await?;
    let locks = operator.locks(path).await.map_err(about)?;
    if json {
        output::line(Value::from(locks.iter().map(object).collect::<Vec<_>>()));
        return Ok(());
    }
    match path {
        None => table(&locks),
        Some(path) if locks.is_empty() => {
            output::line(format!("{}: no lock here or below is held or waited for", operator.resolve(path)?));
        }
        Some(_) => locks.iter().for_each(describe),
    }
    Ok(())
}

/// A line for each holder.
fn table(locks: &[LockInfo]) {
    let mut rows = Vec::new();
    for lock in locks {
        let waiting = lock.waiting.to_string();
        let more = lock.holding.saturating_sub(lock.holders.len() as u64);
        for holder in &lock.holders {
            rows.push(vec![
                output::name(&lock.path),
                mode(holder.shared).into(),
                holder.token.to_string(),
                output::ago(holder.since_wall_ms),
                waiting.clone(),
                named(&holder.client, holder.session),
            ]);
        }
        if more > 0 {
            let blank = || "-".to_owned();
            let row = [output::name(&lock.path), "shared".into(), blank(), blank(), waiting.clone()];
            rows.push(row.into_iter().chain([format!("and {more} more")]).collect());
        }
        if lock.holders.is_empty() {
            let left = Duration::from_millis(lock.delay_left_ms);
            let why =
                if left.is_zero() { "-".into() } else { format!("lock-delay, {} left", output::span(left)) };
            rows.push(vec![output::name(&lock.path), "free".into(), "-".into(), "-".into(), waiting, why]);
        }
    }
    output::table(&["PATH", "MODE", "TOKEN", "HELD", "WAITING", "HOLDER"], &rows);
}

/// All there is to know of one lock.
fn describe(lock: &LockInfo) {
    output::line(output::name(&lock.path));
    for holder in &lock.holders {
        let Holder { client, session, token, .. } = holder;
        let since =
            format!("{} ago, {}", output::ago(holder.since_wall_ms), output::time(holder.since_wall_ms));
        let lease = output::span(Duration::from_millis(holder.lease_left_ms));
        output::line(format!("  held     {}, by {}", mode(holder.shared), named(client, *session)));
        output::line(format!(
            "           since {since}; token {token}; its session's lease ends in {lease} at the latest"
        ));
    }
    if lock.holding > lock.holders.len() as u64 {
        output::line(format!("           and {} more", lock.holding - lock.holders.len() as u64));
    }
    for (place, waiter) in (1..).zip(&lock.waiters) {
        let WaiterInfo { client, session, shared, waited_ms, gives_up_in_ms } = waiter;
        let until = match gives_up_in_ms {
            0 => String::new(),
            left => format!(", gives up in {}", output::span(Duration::from_millis(*left))),
        };
        let waited = output::span(Duration::from_millis(*waited_ms));
        let who = named(client, *session);
        output::line(format!("  waits    {place}. {}, {who}, for {waited}{until}", mode(*shared)));
    }
    if lock.waiting > lock.waiters.len() as u64 {
        output::line(format!("           and {} more", lock.waiting - lock.waiters.len() as u64));
    }
    output::line(format!("  why      {}", why(lock)));
}

/// Why a lock cannot be had now, and when it can at the latest.
pub(super) fn why(lock: &LockInfo) -> String {
    let span = |ms: u64| output::span(Duration::from_millis(ms));
    let (exclusive, shared): (Vec<_>, Vec<_>) = lock.holders.iter().partition(|holder| !holder.shared);
    let mut why = match (exclusive.first(), shared.first()) {
        (Some(holder), _) => format!(
            "held by {} since {}",
            named(&holder.client, holder.session),
            output::ago(holder.since_wall_ms)
        ),
        (None, Some(_)) if lock.permits != 0 && lock.holding >= lock.permits.into() => {
            format!("all {} permits are taken", lock.permits)
        }
        (None, Some(_)) if lock.permits != 0 => {
            format!("{} of {} permits are taken", lock.holding, lock.permits)
        }
        (None, Some(holder)) => {
            let first = named(&holder.client, holder.session);
            let by = match lock.holding {
                1 => first,
                holding => format!("{holding} holders, the first of them {first}"),
            };
            format!("shared by {by}: only an exclusive request has to wait, and what came after it")
        }
        (None, None) if lock.delay_left_ms > 0 => {
            return format!(
                "in lock-delay: its last holder was lost without releasing it; free in {} at the latest",
                span(lock.delay_left_ms)
            );
        }
        (None, None) => return "free".into(),
    };
    let left = span(lock.free_within_ms);
    why += &match lock.breaking {
        true => format!("; it is being broken, and free in {left} at the latest"),
        false => {
            let (who, whom) = if lock.holding == 1 { ("it", "it") } else { ("they", "them") };
            format!(
                "; {who} may keep it; if no more KeepAlives come from {whom}, free in {left} at the latest"
            )
        }
    };
    why
}

fn mode(shared: bool) -> &'static str {
    if shared { "shared" } else { "exclusive" }
}

pub(super) fn named(client: &str, session: u64) -> String {
    format!("{client} (session {session})")
}

fn object(lock: &LockInfo) -> Value {
    let holder = |holder: &Holder| {
        json!({
            "session": holder.session, "client": holder.client, "token": holder.token,
            "mode": mode(holder.shared), "since": output::time(holder.since_wall_ms),
            "lock_delay_ms": holder.lock_delay_ms, "lease_left_ms": holder.lease_left_ms,
        })
    };
    let waiter = |waiter: &WaiterInfo| {
        json!({
            "session": waiter.session, "client": waiter.client, "mode": mode(waiter.shared),
            "waited_ms": waiter.waited_ms,
            "gives_up_in_ms": (waiter.gives_up_in_ms != 0).then_some(waiter.gives_up_in_ms),
        })
    };
    json!({
        "path": lock.path, "lock_generation": lock.generation, "permits": lock.permits,
        "holding": lock.holding, "holders": lock.holders.iter().map(holder).collect::<Vec<_>>(),
        "waiting": lock.waiting, "waiters": lock.waiters.iter().map(waiter).collect::<Vec<_>>(),
        "delay_left_ms": lock.delay_left_ms, "free_within_ms": lock.free_within_ms,
        "breaking": lock.breaking, "why": why(lock),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_counted_also_where_only_the_first_of_it_are_listed() {
        let holders = vec![Holder { shared: true, ..Holder::default() }; 256];
        let mut lock = LockInfo { holders, holding: 300, permits: 300, ..LockInfo::default() };
        assert!(why(&lock).starts_with("all 300 permits are taken"), "{}", why(&lock));
        lock.permits = 301;
        assert!(why(&lock).starts_with("300 of 301 permits are taken"), "{}", why(&lock));
        lock.permits = 0;
        assert!(why(&lock).starts_with("shared by 300 holders"), "{}", why(&lock));
    }
}
