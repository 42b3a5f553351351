//! `wombat status --json`.

use super::views::{Views, has_copy, is_reached, lag};
use serde_json::{Value, json};
use wombat_client::{CacheStatus, Error, FailOver, KnownMaster, MemberStatus, Status};

/// One object with the same fields, whether there is a master or not. Those of the master's own status are null if it
/// was not reached.
pub(super) fn object(master: &KnownMaster<'_>, views: &Views) -> Value {
    let mut object = match master {
        KnownMaster::Reached(status) => of_master(status, views),
        KnownMaster::Named { .. } | KnownMaster::Unknown => {
            let mut object = of_master(&Status::default(), views);
            object.as_object_mut().into_iter().flatten().for_each(|(_, value)| *value = Value::Null);
            object
        }
    };
    if let KnownMaster::Named { address, epoch, .. } = master {
        object["master"] = (*address).into();
        object["epoch"] = (*epoch).into();
    }
    object["master_reached"] = matches!(master, KnownMaster::Reached(_)).into();
    if let Some(any) = views.values().flatten().next() {
        object["cell"] = any.cell.clone().into();
        object["cell_id"] = any.cell_id.clone().into();
    }
    object["replicas"] = views.iter().map(|(at, view)| of_replica(at, view)).collect();
    object
}

/// What a replica says, or why it could not be asked.
fn of_replica(at: &str, view: &Result<Status, Error>) -> Value {
    let view = match view {
        Ok(view) => view,
        Err(error) => return json!({ "address": at, "reached": false, "error": error.to_string() }),
    };
    let connected = view.members.iter().filter(|member| member.voter && member.connected).count();
    json!({
        "address": at, "reached": true, "replica": view.replica, "standing": view.standing,
        "master": Some(&view.master).filter(|master| !master.is_empty()),
        "age_ms": (!view.age_unknown).then_some(view.age_ms),
        "voters": view.members.iter().filter(|member| member.voter).count(), "voters_connected": connected,
        "ballot": view.ballot, "chosen_slot": view.chosen_slot, "applied_slot": view.applied_slot,
        "epoch": view.epoch, "relayed": view.relayed, "log_lines_dropped": view.log_lines_dropped,
        "warnings": view.warnings,
    })
}

fn of_master(status: &Status, views: &Views) -> Value {
    let member = |member: &MemberStatus| {
        json!({
            "replica": member.replica, "address": member.address, "voter": member.voter,
            "master": member.master, "accepted_slot": member.accepted_slot, "chosen_slot": member.chosen_slot,
            "lag": lag(status, member), "silent_ms": member.silent_ms, "round_trip_us": member.round_trip_us, "live": member.live,
            "reached": is_reached(member, views), "copy": has_copy(member, views),
        })
    };
    let mut object = json!({
        "replica": status.replica, "master": status.master,
        "epoch": status.epoch, "ballot": status.ballot, "master_lease_ms": status.master_lease_ms,
        "applied_slot": status.applied_slot, "chosen_slot": status.chosen_slot,
        "snapshot_slot": status.snapshot_slot, "log_bytes": status.log_bytes, "nodes": status.nodes,
        "sessions": status.sessions, "locks_held": status.locks_held, "waiting": status.waiting,
        "uptime_ms": status.uptime_ms, "lease_ms": status.lease_ms, "version": status.server,
        "members": status.members.iter().map(member).collect::<Vec<_>>(),
        "members_changing": status.members_changing,
    });
    object["connections"] = status.connections.into();
    object["oldest_proposal_ms"] = status.oldest_proposal_ms.into();
    object["master_lease_length_ms"] = status.master_lease_length_ms.into();
    object["round_trip_us"] = status.round_trip_us.into();
    object["max_connections"] = status.max_connections.into();
    object["log_lines_dropped"] = status.log_lines_dropped.into();
    object["longest_step_us"] = status.longest_step_us.into();
    object["longest_step"] = status.longest_step.clone().into();
    object["slow_steps"] = status.slow_steps.into();
    object["fail_over"] = status.fail_over.as_ref().map(fail_over).into();
    object["cache"] = status.cache.as_ref().map(cache).into();
    object
}

fn fail_over(it: &FailOver) -> Value {
    json!({
        "step": it.step, "what": it.what, "awaited": it.awaited, "begun_ms": it.begun_ms,
        "served_after_ms": it.served_after_ms, "handles_recreated": it.handles_recreated,
        "orphans_closed": it.orphans_closed,
    })
}

fn cache(it: &CacheStatus) -> Value {
    json!({
        "sessions": it.sessions, "entries": it.entries, "hits": it.hits, "lease_ms": it.lease_ms,
        "rounds": it.rounds, "invalidations": it.invalidations, "lapsed": it.lapsed, "waiting": it.waiting,
        "longest_ms": it.longest_ms,
        "held_up_by": it.held_up_by.iter().map(|by| json!({
            "session": by.session, "client": by.client, "path": by.path, "left_ms": by.left_ms,
        })).collect::<Vec<_>>(),
    })
}
