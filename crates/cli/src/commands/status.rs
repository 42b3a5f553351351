//! `wombat status` and `wombat admin transfer`: they ask replicas themselves, without a session, so that they work
//! also when nobody is master.

use crate::exit::Failure;
use crate::output;
use crate::settings::Settings;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use wombat_client::{
    CacheStatus, CellName, Error, FailOver, HeldUpBy, MemberStatus, Status, replica_status,
    transfer_mastership,
};

/// How long one replica may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// What replicas say, by their addresses.
type Views = BTreeMap<String, Result<Status, Error>>;

pub(crate) async fn status(settings: &Settings, json: bool) -> Result<u8, Failure> {
    let views = ask_all(settings).await;
    // Another cell is not asked a second time.
    for view in views.values() {
        if let Err(error @ Error::InvalidArgument { .. }) = view {
            return Err(error.clone().into());
        }
    }
    match master_of(&views) {
        Some(status) if json => output::line(status_object(status, &views)),
        Some(status) => {
            show(status, &views);
            output::line("");
            show_members(status, &views);
        }
        None => return Err(no_master(settings, &views, json)),
    }
    Ok(0)
}

pub(crate) async fn transfer(settings: &Settings, to: u32) -> Result<u8, Failure> {
    let views = ask_all(settings).await;
    let Some(before) = master_of(&views) else { return Err(no_master(settings, &views, false)) };
    transfer_mastership(&before.master, to, ANSWER_WITHIN).await?;
    let by = tokio::time::Instant::now() + settings.connect_timeout;
    while tokio::time::Instant::now() < by {
        let views = ask_all(settings).await;
        if let Some(now) = master_of(&views).filter(|now| now.epoch > before.epoch) {
            output::line(format!("replica {} at {} is master, epoch {}", now.replica, now.master, now.epoch));
            return Ok(0);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(Failure::new(crate::exit::TIMEOUT, "Timeout", "the master has let go, but no other has begun yet"))
}

/// Asks the endpoints, and every replica that they name.
async fn ask_all(settings: &Settings) -> Views {
    let mut views = Views::new();
    let mut to_ask = settings.endpoints.clone();
    let cell = settings.cell.clone().filter(|cell| cell != CellName::LOCAL).unwrap_or_default();
    while !to_ask.is_empty() {
        let asked: Vec<_> = to_ask
            .drain(..)
            .map(|at| {
                let cell = cell.clone();
                tokio::spawn(async move { (replica_status(&at, &cell, ANSWER_WITHIN).await, at) })
            })
            .collect();
        for answer in asked {
            if let Ok((view, at)) = answer.await {
                views.insert(at, view);
            }
        }
        let named = views.values().flatten().flat_map(|status| {
            let members = status.members.iter().map(|member| member.address.clone());
            members.chain(Some(status.master.clone()).filter(|at| !at.is_empty()))
        });
        to_ask = named.filter(|at| !views.contains_key(at)).collect();
        to_ask.sort_unstable();
        to_ask.dedup();
    }
    views
}

/// What the master says of itself; of two who think that they are, the later one.
fn master_of(views: &Views) -> Option<&Status> {
    views.values().flatten().filter(|status| status.standing == "master").max_by_key(|status| status.epoch)
}

fn no_master(settings: &Settings, views: &Views, json: bool) -> Failure {
    let reached: Vec<_> = views.iter().filter_map(|(at, view)| Some((at, view.as_ref().ok()?))).collect();
    if reached.is_empty() {
        let why: Vec<String> =
            views.values().filter_map(|view| Some(view.as_ref().err()?.to_string())).collect();
        let failure = Failure::unreachable(&format!("{}: {}", settings.endpoints.join(", "), why.join("; ")));
        return match outside(views).is_empty() {
            false => {
                failure.hint("a replica that is not in its cell yet answers nobody: are all founders up?")
            }
            true => failure,
        };
    }
    if json {
        output::line(Value::from(
            reached.iter().map(|(at, view)| replica_object(at, view)).collect::<Vec<_>>(),
        ));
    } else {
        let row = |(at, view): &(&String, &Status)| {
            vec![
                view.replica.to_string(),
                (*at).clone(),
                view.standing.clone(),
                view.ballot.clone(),
                view.chosen_slot.to_string(),
            ]
        };
        let rows: Vec<_> = reached.iter().map(row).collect();
        output::table(&["REPLICA", "ADDRESS", "IS", "BALLOT", "CHOSEN"], &rows);
    }
    let voters = reached.iter().map(|(_, view)| view.members.iter().filter(|one| one.voter).count()).max();
    let (reached, voters) = (reached.len(), voters.unwrap_or(0));
    let text = format!("the cell has no master: {reached} of its {voters} voters answer");
    let outside = outside(views);
    let hint = match reached > voters / 2 {
        true => "one should be elected within seconds; look again".to_owned(),
        false if outside.is_empty() => {
            format!("it takes {} to elect one: start those that are down", voters / 2 + 1)
        }
        false => format!(
            "it takes {} to elect one: start those that are down; {} runs, but is not in the cell yet: \
             it waits for the others, its log says for whom",
            voters / 2 + 1,
            outside.join(", ")
        ),
    };
    Failure::new(crate::exit::UNREACHABLE, "NoQuorum", text).hint(hint)
}

/// Who is there, and in no cell yet: whoever closes without an answer.
fn outside(views: &Views) -> Vec<&str> {
    let is_outside = |error: &Error| matches!(error, Error::NotFound { what } if what.contains("closed without an answer"));
    views.iter().filter(|(_, view)| view.as_ref().is_err_and(is_outside)).map(|(at, _)| at.as_str()).collect()
}

fn replica_object(at: &str, view: &Status) -> Value {
    json!({
        "address": at, "replica": view.replica, "standing": view.standing, "ballot": view.ballot,
        "chosen_slot": view.chosen_slot, "applied_slot": view.applied_slot, "epoch": view.epoch,
    })
}

fn status_object(status: &Status, views: &Views) -> Value {
    let member = |member: &MemberStatus| {
        json!({
            "replica": member.replica, "address": member.address, "voter": member.voter,
            "master": member.master, "accepted_slot": member.accepted_slot, "chosen_slot": member.chosen_slot,
            "lag": lag(status, member), "silent_ms": member.silent_ms,
            "reached": views.get(&member.address).is_some_and(Result::is_ok),
        })
    };
    json!({
        "cell": status.cell, "cell_id": status.cell_id, "replica": status.replica, "master": status.master,
        "epoch": status.epoch, "ballot": status.ballot, "master_lease_ms": status.master_lease_ms,
        "applied_slot": status.applied_slot, "chosen_slot": status.chosen_slot,
        "snapshot_slot": status.snapshot_slot, "log_bytes": status.log_bytes, "nodes": status.nodes,
        "sessions": status.sessions, "locks_held": status.locks_held, "waiting": status.waiting,
        "connections": status.connections, "uptime_ms": status.uptime_ms, "lease_ms": status.lease_ms,
        "version": status.server, "members": status.members.iter().map(member).collect::<Vec<_>>(),
        "members_changing": status.members_changing, "log_lines_dropped": status.log_lines_dropped,
        "fail_over": status.fail_over.as_ref().map(|it| json!({
            "step": it.step, "what": it.what, "awaited": it.awaited, "begun_ms": it.begun_ms,
            "served_after_ms": it.served_after_ms, "handles_recreated": it.handles_recreated,
            "orphans_closed": it.orphans_closed,
        })),
        "cache": status.cache.as_ref().map(|it| json!({
            "sessions": it.sessions, "entries": it.entries, "hits": it.hits, "lease_ms": it.lease_ms,
            "rounds": it.rounds, "invalidations": it.invalidations, "lapsed": it.lapsed, "waiting": it.waiting,
            "longest_ms": it.longest_ms,
            "held_up_by": it.held_up_by.iter().map(|by| json!({
                "session": by.session, "client": by.client, "path": by.path, "left_ms": by.left_ms,
            })).collect::<Vec<_>>(),
        })),
    })
}

fn show(status: &Status, views: &Views) {
    let voters: Vec<_> = status.members.iter().filter(|member| member.voter).collect();
    let alive = voters.iter().filter(|one| is_there(one, views)).count();
    let spare = alive as i64 - (voters.len() / 2 + 1) as i64;
    let quorum = match spare {
        _ if voters.len() == 1 => "alone: nothing may fail".to_owned(),
        i64::MIN..=-1 => format!("{alive} of {} voters: lost", voters.len()),
        0 => format!("{alive} of {} voters; no more may fail", voters.len()),
        spare => format!("{alive} of {} voters; {spare} more may fail", voters.len()),
    };
    let lease = match voters.len() {
        1 => "alone, needs none".to_owned(),
        _ => format!("{} left", output::span(Duration::from_millis(status.master_lease_ms))),
    };
    let rows = [
        ("cell", format!("{} ({})", status.cell, status.cell_id)),
        ("master", format!("{} (replica {}), epoch {}", status.master, status.replica, status.epoch)),
        ("fail-over", status.fail_over.as_ref().map(fail_over).unwrap_or_default()),
        ("quorum", quorum),
        ("ballot", status.ballot.clone()),
        ("master lease", lease),
        ("applied", format!("slot {}", status.applied_slot)),
        ("log", format!("{} bytes behind the snapshot of slot {}", status.log_bytes, status.snapshot_slot)),
        ("nodes", status.nodes.to_string()),
        ("sessions", format!("{} on {} connections", status.sessions, status.connections)),
        ("locks", format!("{} held, {} requests waiting", status.locks_held, status.waiting)),
        ("caches", status.cache.as_ref().map(caches).unwrap_or_default()),
        ("session lease", output::span(Duration::from_millis(status.lease_ms.into()))),
        ("up", output::span(Duration::from_millis(status.uptime_ms))),
        ("version", status.server.clone()),
    ];
    for (name, value) in rows {
        output::line(format!("{name:16}{value}"));
    }
}

/// Who has something cached, and whether changes wait for them.
fn caches(it: &CacheStatus) -> String {
    let span = |millis: u64| output::span(Duration::from_millis(millis));
    let mut said = format!(
        "{} entries, {} sessions read theirs, {} reads so far, lease {}",
        it.entries,
        it.sessions,
        it.hits,
        span(it.lease_ms.into())
    );
    if it.waiting > 0 {
        said += &format!("; {} changes wait, the first for {}", it.waiting, span(it.longest_ms));
    }
    if let Some(by) = it.held_up_by.first() {
        let more = match it.held_up_by.len() {
            1 => String::new(),
            several => format!(" and {} others", several - 1),
        };
        let HeldUpBy { session, client, path, left_ms } = by;
        said +=
            &format!(", until session {session} ({client}){more} drops {path}: {} at most", span(*left_ms));
    }
    said
}

/// How far the master has come with taking over.
fn fail_over(it: &FailOver) -> String {
    let ago = output::span(Duration::from_millis(it.begun_ms));
    match it.served_after_ms {
        0 => format!("step {} of 9, {ago} after it began: {} sessions awaited", it.step, it.awaited),
        after => format!("{ago} ago, everything allowed after {after} ms; step {} of 9", it.step),
    }
}

/// A replica whose place another has taken at the same address is not there any more.
fn is_there(member: &MemberStatus, views: &Views) -> bool {
    let view = views.get(&member.address).and_then(|view| view.as_ref().ok());
    view.is_some_and(|view| view.replica == member.replica)
}

/// By how many slots a replica is behind the master.
fn lag(status: &Status, member: &MemberStatus) -> u64 {
    status.chosen_slot.saturating_sub(member.accepted_slot.max(member.chosen_slot))
}

fn show_members(status: &Status, views: &Views) {
    let row = |member: &MemberStatus| {
        let standing = match (member.master, member.voter) {
            (true, _) => "master",
            (_, true) => "voter",
            (_, false) => "learner",
        };
        let seen = match is_there(member, views) {
            true if member.silent_ms < 1000 => "now".to_owned(),
            _ => format!("{} ago", output::span(Duration::from_millis(member.silent_ms))),
        };
        let chosen = match member.master {
            true => status.chosen_slot.to_string(),
            false => member.accepted_slot.max(member.chosen_slot).to_string(),
        };
        let lag = if member.master { "-".into() } else { lag(status, member).to_string() };
        vec![member.replica.to_string(), member.address.clone(), standing.into(), chosen, lag, seen]
    };
    let rows: Vec<_> = status.members.iter().map(row).collect();
    output::table(&["REPLICA", "ADDRESS", "IS", "SLOT", "LAG", "HEARD"], &rows);
    if status.members_changing {
        output::line("a change of the members is under way");
    }
}
