//! The operator, who looks after the members of a cell.

use super::change::{Change, Joins, MAX_HOSTS};
use super::event::Event;
use super::world::World;
use crate::faults::FaultyWorld;
use std::time::Duration;
use wombat_paxos::Configurations;
use wombat_proto::{Member, ReplicaId};

impl World {
    /// Sets out to change the members, unless that makes no sense or another change is under way.
    pub(super) fn begin(&mut self, leaves: Option<ReplicaId>, joins: Option<Joins>) {
        let newest = self.oracle.configurations().newest();
        let (voters, all) = (newest.voters.len(), newest.voters.len() + newest.learners.len());
        let sensible = match (leaves, joins) {
            (Some(one), None) => newest.is_voter(one) && voters > 1,
            (Some(one), Some(_)) => newest.is_voter(one),
            (None, Some(Joins::AsVoter)) => voters < 7,
            (None, _) => all < 9,
        };
        // Whoever is gone already must not be a majority of those who stay.
        let gone = |id: ReplicaId| self.hosts.get(&id).is_some_and(|host| host.lost);
        let stays = |id: ReplicaId| leaves != Some(id);
        let staying = newest.voters.iter().filter(|voter| stays(voter.id)).count();
        let well = newest.voters.iter().filter(|voter| stays(voter.id) && !gone(voter.id)).count();
        let votes = staying + usize::from(joins == Some(Joins::AsVoter));
        let sensible = sensible && well + (votes - staying) > votes / 2;
        if self.change.is_some() || !sensible || (joins.is_some() && self.hosts.len() >= MAX_HOSTS) {
            return;
        }
        let highest = self.hosts.keys().map(|id| id.0).max().unwrap_or(0);
        let new = ReplicaId(newest.next_id.max(highest + 1));
        let joins = joins.map(|what| (new, what));
        if joins.is_some() {
            self.add_host(new, Configurations::default());
            self.after(Duration::ZERO, Event::Start(new));
        }
        self.change = Some(Change { leaves, joins });
        self.tell(&format!("to come about: {:?}", self.change));
    }

    /// The voters of the newest members, and after the change that is under way.
    pub(super) fn voters_to_be(&self) -> Vec<ReplicaId> {
        let newest = self.oracle.configurations().newest();
        let change = self.change.as_ref();
        let joins = change.and_then(|change| change.joins).filter(|(_, what)| *what == Joins::AsVoter);
        let leaves = change.and_then(|change| change.leaves);
        let stay = newest.voters.iter().map(|voter| voter.id).filter(|id| Some(*id) != leaves);
        let new = joins.map(|(id, _)| id).filter(|id| !newest.is_voter(*id));
        stay.chain(new).collect()
    }

    /// A look at the change that is under way: a new replica learns first, then it votes.
    pub(super) fn operate(&mut self) {
        self.after(Duration::from_millis(300), Event::Operate);
        let Some(change) = &self.change else { return };
        let (leaves, joins) = (change.leaves, change.joins);
        let Some(master) = self.master() else { return };
        if self.hosts[&master].stopped_until > self.now() {
            return;
        }
        let Some(running) = &self.hosts[&master].running else { return };
        let status = running.paxos.status();
        let members = status.members;
        if !status.members_in_force {
            return;
        }
        let has_come = joins.is_none_or(|(new, what)| match what {
            Joins::AsVoter => members.is_voter(new),
            Joins::ToLearn => members.get(new).is_some(),
        });
        if has_come && leaves.is_none_or(|old| !members.is_voter(old)) {
            // Done, once another leads. A voter that has left and still runs is switched off.
            if leaves != Some(master) {
                self.change = None;
                if let Some(old) = leaves {
                    self.kill(old);
                    self.host(old).lost = true;
                }
            }
            return;
        }
        let mut wanted = members.clone();
        let new = joins.map(|(id, what)| (Member { id, address: format!("host-{id}") }, what));
        match new {
            Some((new, _)) if members.get(new.id).is_none() => {
                wanted.next_id = new.id.0 + 1;
                wanted.learners.push(new);
            }
            _ => {
                if let Some((new, _)) = new {
                    let joined_at = running.paxos.configurations().newest_from();
                    if !status.peers.iter().any(|peer| peer.id == new.id && peer.chosen >= joined_at) {
                        return;
                    }
                    wanted.learners.retain(|member| member.id != new.id);
                    wanted.voters.push(new);
                }
                wanted.voters.retain(|member| Some(member.id) != leaves);
            }
        }
        let mut agreed = false;
        self.with(master, |paxos, _| agreed = paxos.change_members(wanted).is_ok());
        if agreed && self.random.chance(self.swarm.hits_changes) {
            let wait = self.random.millis(0, 30);
            let split = joins.filter(|_| self.random.chance(500));
            self.after(wait, split.map_or(Event::ExtraFault, |(new, _)| Event::Split(master, new)));
        }
    }
}
