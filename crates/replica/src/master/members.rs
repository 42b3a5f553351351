//! The replicas of the cell: joining, taking over a vote, handing over mastership, and comparing their states.

use super::Master;
use crate::context::{Cx, View};
use crate::request::{Answer, RequestContext};
use crate::tables::proposals::PendingReply;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::limits::{ADDRESS_BYTES, CELL_REPLICAS};
use wombat_proto::wire::log::command::Op;
use wombat_proto::wire::{self, MemberStatus};
use wombat_proto::{Error, Member, Members, ReplicaId, Result, SessionId, Slot};

/// A voter that was silent for so many master leases counts as gone, and another replica may get its vote.
const LEASES_UNTIL_GONE: u32 = 3;

/// A learner that was silent for so many master leases gives up its place to another one, if the cell is full.
const LEASES_UNTIL_FORGOTTEN: u32 = 10;

impl Master {
    /// Takes a replica in as a learner, under an id that no replica has had.
    pub(super) fn join(cx: &mut Cx<'_>, request: RequestContext, join: wire::Join) -> Result<()> {
        if request.session != SessionId(0) {
            return Err(Error::invalid("Join is sent with session 0"));
        }
        let address = join.address;
        if address.is_empty() || address.len() > ADDRESS_BYTES {
            return Err(Error::invalid("a replica joins with the address at which it listens"));
        }
        let mut members = cx.log.paxos().configurations().newest().clone();
        let status = cx.log.paxos().status();
        let silent_for = |learner: &Member| {
            let peer = status.peers.iter().find(|peer| peer.id == learner.id);
            peer.map_or(Duration::MAX, |peer| peer.silent_for)
        };
        let gone_after = cx.config.master_lease * LEASES_UNTIL_GONE;
        let there = |learner: &&Member| learner.address == address && silent_for(learner) < gone_after;
        if let Some(there) = members.learners.iter().find(there) {
            return Err(Error::invalid(alloc::format!(
                "replica {} joined from there, and has not been silent for long enough to be gone",
                there.id
            )));
        }
        // A replica that joined from that address before has lost that id, or never got it.
        members.learners.retain(|learner| learner.address != address);
        // Learners that are gone for good must not keep a voter that lost its disk from coming back.
        if members.all().count() >= CELL_REPLICAS
            && let Some(place) = (0..members.learners.len()).max_by_key(|n| silent_for(&members.learners[*n]))
            && silent_for(&members.learners[place]) >= cx.config.master_lease * LEASES_UNTIL_FORGOTTEN
        {
            members.learners.remove(place);
        }
        if members.all().count() >= CELL_REPLICAS {
            return Err(Error::QuotaExceeded {
                what: alloc::format!("{CELL_REPLICAS} replicas in one cell"),
            });
        }
        let id = ReplicaId(members.next_id);
        members.next_id += 1;
        members.learners.push(Member { id, address });
        cx.log.change_members(members, Some(PendingReply::Join(request, id)))
    }

    /// The members with a replica that joins are chosen.
    pub(super) fn joined(&self, cx: &mut Cx<'_>, request: RequestContext, replica: ReplicaId) {
        let joined = wire::Joined { replica: replica.0, cell_id: String::new() };
        self.reply(cx, request, Ok(Answer::Joined(joined)));
    }

    /// Gives the vote of a replica that is gone to the learner at its address, once that has learned enough.
    pub(super) fn maintain_members(&self, cx: &mut Cx<'_>) {
        if cx.log.paxos().configurations().newest().learners.is_empty() {
            return;
        }
        let status = cx.log.paxos().status();
        if status.members_in_force
            && let Some(members) = with_vote_passed_on(cx.view(), &status)
        {
            let _again_at_the_next_tick = cx.log.change_members(members, None);
        }
    }

    /// Asks for a digest of a part of the state when it is time.
    pub(super) fn maintain_digests(&mut self, cx: &mut Cx<'_>) {
        if cx.log.paxos().configurations().newest().voters.len() < 2 {
            return cx.digests.pause();
        }
        if let Some(take) = cx.digests.next_due(cx.time.now, cx.state.applied()) {
            let _again_later = self.propose_own(cx, Op::TakeDigest(take));
        }
    }

    /// A replica has sent its digest. The one that a quorum agrees on goes into the log.
    pub(crate) fn digest_received(&mut self, cx: &mut Cx<'_>, from: ReplicaId, digest: (Slot, u64)) {
        let members = cx.log.paxos().configurations().newest();
        if let Some(compare) = cx.digests.received(from, digest, members)
            && self.propose_own(cx, Op::CompareDigest(compare)).is_ok()
        {
            cx.digests.compare_proposed(digest.0);
        }
    }
}

fn with_vote_passed_on(view: View<'_>, status: &wombat_paxos::Status) -> Option<Members> {
    let peer = |id| status.peers.iter().find(|peer| peer.id == id);
    let joined_at = view.log.paxos().configurations().newest_from();
    let gone_after = view.config.master_lease * LEASES_UNTIL_GONE;
    let mut members = status.members.clone();
    let (learner, voter) = members.learners.iter().find_map(|learner| {
        let voter = members.voters.iter().find(|voter| voter.address == learner.address)?;
        let gone = peer(voter.id).is_none_or(|peer| peer.silent_for >= gone_after);
        let ready = peer(learner.id).is_some_and(|peer| peer.chosen.next() >= joined_at);
        (gone && ready && voter.id != view.config.replica).then(|| (learner.clone(), voter.id))
    })?;
    members.learners.retain(|one| one.id != learner.id);
    members.voters.retain(|one| one.id != voter);
    members.voters.push(learner);
    Some(members)
}

/// Hands mastership over, if this replica has it.
pub(crate) fn transfer(cx: &mut Cx<'_>, transfer: &wire::Transfer) -> Result<Answer> {
    let status = cx.log.paxos().status();
    let votes = |id: &ReplicaId| status.members.is_voter(*id) && *id != cx.config.replica;
    let to = match transfer.replica {
        0 => {
            let others = status.peers.iter().filter(|peer| votes(&peer.id));
            let furthest = others.min_by_key(|peer| (peer.silent_for, core::cmp::Reverse(peer.accepted)));
            furthest.map(|peer| peer.id).ok_or_else(|| Error::invalid("there is no other voter"))?
        }
        id => ReplicaId(id),
    };
    cx.log.transfer(to)?;
    Ok(Answer::Done(wire::Done {}))
}

/// What this replica knows of all replicas.
pub(crate) fn member_statuses(view: View<'_>, status: &wombat_paxos::Status) -> Vec<MemberStatus> {
    let stamp = |slot| view.state.stamp_of(slot).0;
    let one = |member: &Member| {
        let peer = status.peers.iter().find(|peer| peer.id == member.id);
        let own = member.id == view.config.replica;
        MemberStatus {
            replica: member.id.0,
            address: member.address.clone(),
            voter: status.members.is_voter(member.id),
            master: status.master == Some(member.id),
            accepted_slot: stamp(if own { status.last } else { peer.map_or(Slot(0), |peer| peer.accepted) }),
            chosen_slot: stamp(if own { status.chosen } else { peer.map_or(Slot(0), |peer| peer.chosen) }),
            silent_ms: peer.map_or(0, |peer| peer.silent_for.as_millis() as u64),
            round_trip_us: peer.and_then(|peer| peer.round_trip).map_or(0, |it| it.as_micros() as u64),
            live: match peer {
                Some(peer) => peer.silent_for < view.config.master_lease * LEASES_UNTIL_GONE,
                None => own && view.is_master,
            },
            connected: own,
        }
    };
    status.members.all().map(one).collect()
}
