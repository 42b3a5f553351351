//! Who the cell's replicas are: joining, taking over a vote, handing over mastership.

use crate::proposals::Origin;
use crate::{Answer, Asker, Replica};
use core::time::Duration;
use wombat_proto::limits::{ADDRESS_BYTES, CELL_REPLICAS};
use wombat_proto::wire::{self, MemberStatus};
use wombat_proto::{Error, Member, Members, ReplicaId, Result, SessionId, Slot};

/// A voter that was silent for so many master leases has to be taken for gone before another may have its
/// vote.
const LEASES_UNTIL_GONE: u32 = 3;

/// A learner that was silent for so many master leases makes room for another, if the cell is full.
const LEASES_UNTIL_FORGOTTEN: u32 = 10;

impl Replica {
    /// Takes a replica in as a learner, under an id that nobody had.
    pub(super) fn join(&mut self, asker: Asker, join: wire::Join) -> Result<()> {
        if asker.session != SessionId(0) {
            return Err(Error::invalid("Join is sent with session 0"));
        }
        let address = join.address;
        if address.is_empty() || address.len() > ADDRESS_BYTES {
            return Err(Error::invalid("a replica joins with the address at which it listens"));
        }
        let mut members = self.paxos.configurations().newest().clone();
        let status = self.paxos.status();
        let silent_for = |learner: &Member| {
            let peer = status.peers.iter().find(|peer| peer.id == learner.id);
            peer.map_or(Duration::MAX, |peer| peer.silent_for)
        };
        let gone_after = self.config.master_lease * LEASES_UNTIL_GONE;
        let there = |learner: &&Member| learner.address == address && silent_for(learner) < gone_after;
        if let Some(there) = members.learners.iter().find(there) {
            return Err(Error::invalid(alloc::format!(
                "replica {} joined from there, and has not been silent for long enough to be gone",
                there.id
            )));
        }
        // Whoever joined from there before has lost that id, or never heard of it.
        members.learners.retain(|learner| learner.address != address);
        // Learners that are gone for good must not keep a voter that lost its disk from coming back.
        if members.all().count() >= CELL_REPLICAS
            && let Some(place) = (0..members.learners.len()).max_by_key(|n| silent_for(&members.learners[*n]))
            && silent_for(&members.learners[place]) >= self.config.master_lease * LEASES_UNTIL_FORGOTTEN
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
        let slot = self.paxos.change_members(members)?;
        self.proposals.wait(slot, Origin::Join(asker, id), [].into(), None);
        Ok(())
    }

    /// Gives the vote of a replica that is gone to the learner at its address, once that has learned enough.
    pub(crate) fn tend_members(&mut self) {
        if self.master.is_none() || self.paxos.configurations().newest().learners.is_empty() {
            return;
        }
        let status = self.paxos.status();
        if status.members_in_force
            && let Some(members) = self.with_vote_passed_on(&status)
        {
            let _again_at_the_next_tick = self.paxos.change_members(members);
        }
    }

    fn with_vote_passed_on(&self, status: &wombat_paxos::Status) -> Option<Members> {
        let peer = |id| status.peers.iter().find(|peer| peer.id == id);
        let joined_at = self.paxos.configurations().newest_from();
        let gone_after = self.config.master_lease * LEASES_UNTIL_GONE;
        let mut members = status.members.clone();
        let (learner, voter) = members.learners.iter().find_map(|learner| {
            let voter = members.voters.iter().find(|voter| voter.address == learner.address)?;
            let gone = peer(voter.id).is_none_or(|peer| peer.silent_for >= gone_after);
            let ready = peer(learner.id).is_some_and(|peer| peer.chosen.next() >= joined_at);
            (gone && ready && voter.id != self.config.replica).then(|| (learner.clone(), voter.id))
        })?;
        members.learners.retain(|one| one.id != learner.id);
        members.voters.retain(|one| one.id != voter);
        members.voters.push(learner);
        Some(members)
    }

    /// Hands mastership over.
    pub(crate) fn transfer(&mut self, transfer: &wire::Transfer) -> Result<Answer> {
        let status = self.paxos.status();
        let votes = |id: &ReplicaId| status.members.is_voter(*id) && *id != self.config.replica;
        let to = match transfer.replica {
            0 => {
                let others = status.peers.iter().filter(|peer| votes(&peer.id));
                let furthest = others.min_by_key(|peer| (peer.silent_for, core::cmp::Reverse(peer.accepted)));
                furthest.map(|peer| peer.id).ok_or_else(|| Error::invalid("there is no other voter"))?
            }
            id => ReplicaId(id),
        };
        self.paxos.transfer(to)?;
        Ok(Answer::Done(wire::Done {}))
    }

    /// What this replica knows of all of them.
    pub(super) fn member_statuses(&self, status: &wombat_paxos::Status) -> alloc::vec::Vec<MemberStatus> {
        let stamp = |slot| self.state.stamp_of(slot).0;
        let one = |member: &Member| {
            let peer = status.peers.iter().find(|peer| peer.id == member.id);
            let own = member.id == self.config.replica;
            MemberStatus {
                replica: member.id.0,
                address: member.address.clone(),
                voter: status.members.is_voter(member.id),
                master: status.master == Some(member.id),
                accepted_slot: stamp(if own {
                    status.last
                } else {
                    peer.map_or(Slot(0), |peer| peer.accepted)
                }),
                chosen_slot: stamp(if own {
                    status.chosen
                } else {
                    peer.map_or(Slot(0), |peer| peer.chosen)
                }),
                silent_ms: peer.map_or(0, |peer| peer.silent_for.as_millis() as u64),
                round_trip_us: peer.and_then(|peer| peer.round_trip).map_or(0, |it| it.as_micros() as u64),
                live: match peer {
                    Some(peer) => peer.silent_for < self.config.master_lease * LEASES_UNTIL_GONE,
                    None => own && self.is_master(),
                },
                connected: own,
            }
        };
        status.members.all().map(one).collect()
    }
}
