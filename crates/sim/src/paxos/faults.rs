//! What goes wrong in a run, and how it is healed.

use super::change::{Joins, MAX_HOSTS};
use super::event::Event;
use super::host::Host;
use super::swarm::{CellFault, LEASE};
use super::world::World;
use crate::faults::{self, Fault, FaultyWorld};
use crate::network::Network;
use crate::random::Random;
use std::time::Duration;
use wombat_proto::ReplicaId;

impl World {
    pub(super) fn healed(&self) -> bool {
        self.now() > self.faults_until
    }

    pub(super) fn fault(&mut self) {
        if self.healed() {
            return self.heal();
        }
        let wait = self.random.duration(Duration::from_millis(20), self.swarm.pause);
        self.after(wait, Event::Fault);
        self.extra_fault();
    }

    /// Whatever fault the swarm comes up with.
    pub(super) fn extra_fault(&mut self) {
        if self.healed() {
            return;
        }
        if let Some((fault, one)) = faults::draw(self) {
            self.tell(&format!("{fault:?} {one}"));
            faults::strike(self, fault, one);
        }
    }

    /// The others see that a replica's connections are gone.
    fn lose(&mut self, id: ReplicaId) {
        let others: Vec<ReplicaId> = self.hosts.keys().copied().filter(|other| *other != id).collect();
        for other in others {
            self.with(other, |paxos, now| paxos.lost(now, id));
        }
    }

    /// A disk is gone.
    fn wipe(&mut self, id: ReplicaId) {
        if self.hosts.len() >= MAX_HOSTS || self.change.is_some() || !self.can_lose(Some(id)) {
            return;
        }
        self.kill(id);
        let host = self.host(id);
        host.lost = true; // What its disk held still counts for what was chosen before.
        if self.oracle.configurations().newest().is_voter(id) {
            self.begin(Some(id), Some(Joins::AsVoter));
        }
    }

    /// The whole cell moves: every disk is a copy, as it was when all had stopped. Nothing is lost, but until they
    /// have met nobody knows that.
    fn move_all(&mut self) {
        if self.change.is_some() || self.hosts.values().any(|host| host.lost) {
            return;
        }
        for id in self.hosts.keys().copied().collect::<Vec<_>>() {
            self.kill(id);
            self.host(id).put_back(false);
        }
    }

    /// Whether the cell can bear it that a disk is lost, or what was last written to it: of every group of voters
    /// that still governs anything in anyone's eyes, a quorum keeps its disks.
    fn can_lose(&self, id: Option<ReplicaId>) -> bool {
        let whole = |one: &&Host| one.is_whole() && Some(one.id) != id;
        // Whoever knows the least decides how far back a group still counts.
        let known = self.hosts.values().filter(whole).map(|host| {
            let running = host.running.as_ref().map(|running| running.applied.slot);
            running.unwrap_or_else(|| host.disk.snapshot_slot())
        });
        let least = known.min().unwrap_or_default();
        let entries = self.oracle.configurations().entries();
        let mut groups = entries
            .iter()
            .enumerate()
            .filter(|(place, _)| entries.get(place + 1).is_none_or(|(next, _)| *next > least));
        groups.all(|(_, (_, members))| {
            members.is_quorum(|voter| self.hosts.get(&voter).is_some_and(|host| whole(&host)))
        })
    }

    /// The end of all trouble. A minority may stay dead, or apart.
    fn heal(&mut self) {
        if self.healed_at.is_some() {
            return;
        }
        self.tell("healed");
        self.healed_at = Some(self.oracle.last());
        self.network.heal();
        let now = self.now();
        for host in self.hosts.values_mut() {
            host.stopped_until = host.stopped_until.min(now);
            host.slow = false;
        }
        let left: Vec<ReplicaId> =
            self.hosts.values().filter(|host| !host.lost).map(|host| host.id).collect();
        // Who was master draws the lot first, and more often.
        let master = self.master();
        for id in master.into_iter().chain(left) {
            let draws = if master == Some(id) { 250 } else { 100 };
            if self.host(id).running.is_none() {
                if self.random.chance(700) || !self.can_do_without(id) {
                    self.start(id);
                } else {
                    self.host(id).lost = true;
                }
            } else if self.random.chance(draws) && self.can_do_without(id) {
                self.tell(&format!("{id} is apart from now on"));
                self.host(id).apart = true;
                self.network.set_apart(id, &mut self.random);
            }
        }
    }

    /// Whether every group of voters has a quorum without this replica.
    fn can_do_without(&self, id: ReplicaId) -> bool {
        let votes = |host: &Host| host.is_there() && host.is_whole();
        let there = |one: ReplicaId| one != id && self.hosts.get(&one).is_some_and(votes);
        let least =
            self.hosts.values().filter(|host| host.is_there()).map(|host| host.disk.snapshot_slot()).min();
        let entries = self.oracle.configurations().entries();
        let groups = entries.iter().enumerate().filter(|(place, _)| {
            entries.get(place + 1).is_none_or(|(next, _)| *next > least.unwrap_or_default())
        });
        let to_be = self.voters_to_be();
        groups.into_iter().all(|(_, (_, members))| members.is_quorum(there))
            && to_be.iter().filter(|id| there(**id)).count() > to_be.len() / 2
            && self.change.as_ref().is_none_or(|change| change.joins.is_none_or(|(new, _)| new != id))
    }
}

impl FaultyWorld for World {
    type Other = CellFault;

    fn draw_fault(&mut self) -> Option<Fault<CellFault>> {
        self.swarm.faults.pick(&mut self.random)
    }

    fn network(&mut self) -> (&mut Network, &mut Random) {
        (&mut self.network, &mut self.random)
    }

    fn replicas(&self) -> Vec<ReplicaId> {
        self.hosts.values().filter(|host| !host.lost).map(|host| host.id).collect()
    }

    /// The replica that leads, if there is one.
    fn master(&self) -> Option<ReplicaId> {
        let leads =
            |host: &&Host| host.running.as_ref().is_some_and(|running| running.paxos.leads().is_some());
        self.hosts.values().rfind(leads).map(|host| host.id)
    }

    fn kill(&mut self, id: ReplicaId) {
        let Some(host) = self.hosts.get_mut(&id) else { return };
        if host.running.is_none() {
            return;
        }
        host.die(&mut self.random);
        if self.random.chance(self.swarm.deaths_noticed) {
            self.lose(id);
        }
        self.outstanding.retain(|(proposer, _), _| *proposer != id);
        let most = if self.random.chance(300) { LEASE / 10 } else { self.swarm.down };
        let down = self.random.duration(Duration::ZERO, most);
        self.after(down, Event::Start(id));
    }

    fn pause(&mut self, id: ReplicaId) {
        let until = self.now() + self.random.duration(Duration::ZERO, LEASE * 4);
        self.host(id).stopped_until = until;
    }

    fn transfer(&mut self, id: ReplicaId) {
        if let Some(master) = self.master() {
            self.with(master, |paxos, _| drop(paxos.transfer(id)));
        }
    }

    fn snapshot(&mut self, id: ReplicaId) {
        self.begin_snapshot(id);
    }

    fn has_slow_disk(&self, id: ReplicaId) -> bool {
        self.hosts[&id].slow
    }

    fn set_slow_disk(&mut self, id: ReplicaId, slow: bool) {
        self.host(id).slow = slow;
    }

    /// A copy of a disk is made, or put back. Not of a cell of one: a copy of it that is put back when there are others
    /// knows nobody to ask, and nobody can tell.
    fn roll_back(&mut self, id: ReplicaId) {
        if self.oracle.configurations().entries().iter().any(|(_, members)| members.voters.len() == 1) {
            return;
        }
        if self.host(id).back_up() && self.can_lose(Some(id)) {
            self.kill(id);
            self.host(id).put_back(true);
        }
    }

    fn strike_other(&mut self, fault: CellFault, id: ReplicaId) {
        match fault {
            CellFault::Disconnect => self.lose(id),
            CellFault::Wipe => self.wipe(id),
            CellFault::Move => self.move_all(),
            CellFault::Replace => self.begin(Some(id), Some(Joins::AsVoter)),
            CellFault::Grow => self.begin(None, Some(Joins::AsVoter)),
            CellFault::Shrink => self.begin(Some(id), None),
            CellFault::Learner => self.begin(None, Some(Joins::ToLearn)),
        }
    }
}
