//! `wombat status` for people.

use super::views::{self, Views, has_copy, is_reached, lag};
use crate::output;
use std::time::Duration;
use wombat_client::{CacheStatus, FailOver, HeldUpBy, KnownMaster, MemberStatus, Status};

pub(super) fn show(master: &KnownMaster<'_>, views: &Views) {
    match master {
        KnownMaster::Reached(status) => {
            show_master(status);
            output::line("");
            show_members(status, views);
        }
        KnownMaster::Named { address, epoch, by } => {
            let by: Vec<String> = by.iter().map(ToString::to_string).collect();
            let rows = [
                (
                    "master",
                    format!("{address}, epoch {epoch}, by replicas that follow it: {}", by.join(", ")),
                ),
                ("from here", "the master is not reached, so its own figures are not known".to_owned()),
                ("quorum", quorum_of_followers(views)),
            ];
            show_rows(&rows);
            output::line("");
            show_replicas(views);
        }
        KnownMaster::Unknown => show_replicas(views),
    }
    for view in views.values().flatten() {
        for warning in &view.warnings {
            output::line("");
            output::line(format_args!("warning of replica {}: {warning}", view.replica));
        }
    }
    let unreached: Vec<String> = views
        .iter()
        .filter_map(|(at, view)| Some(format!("{at} ({})", views::why(at, view.as_ref().err()?))))
        .collect();
    if !unreached.is_empty() {
        output::line("");
        output::line(format_args!("not reached from here: {}", unreached.join(", ")));
    }
}

/// A follower that is up to date hears a master that a quorum grants its lease.
fn quorum_of_followers(views: &Views) -> String {
    let youngest = views.values().flatten().filter(|view| !view.age_unknown).map(|view| view.age_ms).min();
    match youngest {
        Some(age) => format!("the master had one {} ago at most", span(age)),
        None => "not known here".to_owned(),
    }
}

fn show_rows(rows: &[(&str, String)]) {
    for (name, value) in rows {
        output::line(format_args!("{name:16}{value}"));
    }
}

fn show_master(status: &Status) {
    let voters: Vec<_> = status.members.iter().filter(|member| member.voter).collect();
    let alive = voters.iter().filter(|one| one.live).count();
    let spare = alive as i64 - (voters.len() / 2 + 1) as i64;
    let quorum = match spare {
        _ if voters.len() == 1 => "alone: nothing may fail".to_owned(),
        i64::MIN..=-1 => format!("{alive} of {} voters: lost", voters.len()),
        0 => format!("{alive} of {} voters; no more may fail", voters.len()),
        spare => format!("{alive} of {} voters; {spare} more may fail", voters.len()),
    };
    let lease = match voters.len() {
        1 => "alone, needs none".to_owned(),
        _ => format!(
            "{} of {} left, round trip to a quorum {}",
            span(status.master_lease_ms),
            span(status.master_lease_length_ms),
            round_trip(status.round_trip_us)
        ),
    };
    show_rows(&[
        ("cell", format!("{} ({})", status.cell, status.cell_id)),
        ("master", format!("{} (replica {}), epoch {}", status.master, status.replica, status.epoch)),
        ("fail-over", status.fail_over.as_ref().map(fail_over).unwrap_or_default()),
        ("quorum", quorum),
        ("ballot", status.ballot.clone()),
        ("master lease", lease),
        ("proposals", proposals(status)),
        ("applied", format!("slot {}", status.applied_slot)),
        ("log", format!("{} bytes behind the snapshot of slot {}", status.log_bytes, status.snapshot_slot)),
        ("nodes", status.nodes.to_string()),
        ("sessions", format!("{} on {} connections", status.sessions, status.connections)),
        ("locks", format!("{} held, {} requests waiting", status.locks_held, status.waiting)),
        ("caches", status.cache.as_ref().map(caches).unwrap_or_default()),
        ("session lease", span(status.lease_ms.into())),
        ("up", span(status.uptime_ms)),
        ("version", status.server.clone()),
    ]);
}

/// Whether a proposal waits to be chosen, and for how long.
fn proposals(status: &Status) -> String {
    match status.oldest_proposal_ms {
        0 => "none waits to be chosen".to_owned(),
        waits => format!("the oldest has waited for {} to be chosen", span(waits)),
    }
}

fn round_trip(micros: u64) -> String {
    match micros {
        0 => "not known".to_owned(),
        micros => output::span(Duration::from_micros(micros)),
    }
}

/// Who has something cached, and whether changes wait for them.
fn caches(it: &CacheStatus) -> String {
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
    let ago = span(it.begun_ms);
    match it.served_after_ms {
        0 => format!("step {} of 9, {ago} after it began: {} sessions awaited", it.step, it.awaited),
        after => format!("{ago} ago, everything allowed after {after} ms; step {} of 9", it.step),
    }
}

fn show_members(status: &Status, views: &Views) {
    let row = |member: &MemberStatus| {
        let standing = match (member.master, member.voter) {
            (true, _) => "master",
            (_, true) if has_copy(member, views) => "copy",
            (_, true) => "voter",
            (_, false) => "learner",
        };
        let seen = match member.silent_ms {
            0..1000 if member.live => "now".to_owned(),
            silent => format!("{} ago", span(silent)),
        };
        let chosen = match member.master {
            true => status.chosen_slot.to_string(),
            false => member.accepted_slot.max(member.chosen_slot).to_string(),
        };
        let lag = if member.master { "-".into() } else { lag(status, member).to_string() };
        let away = if member.master { "-".into() } else { round_trip(member.round_trip_us) };
        let from_here = if is_reached(member, views) { "reached" } else { "not reached" };
        let (replica, address) = (member.replica.to_string(), member.address.clone());
        vec![replica, address, standing.into(), chosen, lag, seen, away, from_here.into()]
    };
    let rows: Vec<_> = status.members.iter().map(row).collect();
    output::table(&["REPLICA", "ADDRESS", "IS", "SLOT", "LAG", "HEARD", "ROUND TRIP", "FROM HERE"], &rows);
    if status.members_changing {
        output::line("a change of the members is under way");
    }
}

/// What each replica says of itself, of the master, and of its connections to the others.
fn show_replicas(views: &Views) {
    let row = |(at, view): (&String, &Status)| {
        let voters = view.members.iter().filter(|member| member.voter);
        let connected = voters.clone().filter(|member| member.connected).count();
        vec![
            view.replica.to_string(),
            at.clone(),
            view.standing.clone(),
            if view.master.is_empty() { "none known".to_owned() } else { view.master.clone() },
            if view.age_unknown { "unknown".to_owned() } else { span(view.age_ms) },
            format!("{connected} of {}", voters.count()),
            view.ballot.clone(),
            view.chosen_slot.to_string(),
        ]
    };
    let reached = views.iter().filter_map(|(at, view)| Some((at, view.as_ref().ok()?)));
    let rows: Vec<_> = reached.map(row).collect();
    output::table(&["REPLICA", "ADDRESS", "IS", "MASTER", "AGE", "VOTERS", "BALLOT", "CHOSEN"], &rows);
}

fn span(millis: u64) -> String {
    output::span(Duration::from_millis(millis))
}
