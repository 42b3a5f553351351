//! The status of a replica, for operators.

use crate::context::View;
use crate::master::{Master, logged_lease, member_statuses};
use alloc::string::ToString;
use core::time::Duration;
use wombat_paxos::Standing;
use wombat_proto::wire;

/// The status of a replica, except what only the server knows.
pub(crate) fn report(
    view: View<'_>,
    master: Option<&Master>,
    connections: usize,
    uptime: Duration,
) -> wire::Status {
    let tree = view.state.tree();
    let standing = view.log.paxos().status();
    let age = view.age();
    let lease = master.map_or_else(|| logged_lease(view), |master| master.lease(view));
    wire::Status {
        members: member_statuses(view, &standing),
        ballot: standing.ballot.to_string(),
        chosen_slot: view.state.stamp_of(standing.chosen).0,
        master_lease_ms: standing.lease_left.as_millis() as u64,
        oldest_proposal_ms: standing.oldest_proposal.map_or(0, |age| age.as_millis() as u64),
        master_lease_length_ms: standing.lease.as_millis() as u64,
        round_trip_us: standing.round_trip.map_or(0, |it| it.as_micros() as u64),
        warnings: standing.warnings().map(|warning| warning.to_string()).collect(),
        standing: match standing.standing {
            Standing::Leading if view.is_master => "master",
            Standing::Leading | Standing::Campaigning => "campaigning",
            Standing::Following => "voter",
            Standing::Learning => "learner",
            Standing::Restored => "copy",
        }
        .into(),
        members_changing: !standing.members_in_force,
        cell: view.config.cell.to_string(),
        replica: view.config.replica.0,
        epoch: view.state.epoch().0,
        master: view.master_address(),
        applied_slot: view.state.stamp().0,
        nodes: tree.len() as u64,
        sessions: view.state.session_count() as u64,
        locks_held: tree.locks_held() as u64,
        waiting: master.map_or(0, Master::waiting) as u64,
        connections: connections as u64,
        uptime_ms: uptime.as_millis() as u64,
        lease_ms: lease.as_millis() as u32,
        cache: master.map(|master| master.cache_status(view)),
        fail_over: master.map(|master| master.fail_over_status(view)),
        server: view.config.version.clone(),
        age_ms: age.map_or(0, |age| age.as_millis() as u64),
        age_unknown: age.is_none(),
        ..wire::Status::default()
    }
}
