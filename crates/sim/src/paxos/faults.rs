//! What goes wrong in a run, how it is healed, and what a good end is.

use super::host::Host;
use super::operator::{Joins, MOST_HOSTS};
use super::swarm::Fault;
use super::world::{Event, LEASE, World};
use crate::network::Weather;
use std::time::Duration;
use wombat_proto::ReplicaId;

impl World {
    pub(super) fn healed(&self) -> bool {
        self.now > self.faults_until
    }

    pub(super) fn fault(&mut self) {
        if self.healed() {
            return self.heal();
        }
        let wait = self.random.duration(Duration::from_millis(20), self.swarm.pause);
        self.after(wait, Event::Fault);
        self.trouble();
    }

    /// Whatever the swarm comes up with.
    pub(super) fn trouble(&mut self) {
        if self.healed() {
            return;
        }
        let Some(fault) = self.swarm.next(&mut self.random) else { return };
        let ids: Vec<ReplicaId> = self.hosts.values().filter(|host| !host.lost).map(|host| host.id).collect();
        let some = ids[self.random.below(ids.len() as u64) as usize];
        // The master is worth more trouble than others.
        let one = self.master().filter(|_| self.random.chance(400)).unwrap_or(some);
        self.tell(&format!("{fault:?} {one}"));
        match fault {
            Fault::Kill => self.kill(one),
            Fault::KillMany => {
                let share = 300 + self.random.below(701);
                for id in ids {
                    if self.random.chance(share) {
                        self.kill(id);
                    }
                }
            }
            Fault::Pause => {
                let stop = self.random.duration(Duration::ZERO, LEASE * 4);
                let until = self.now + stop;
                self.host(one).stopped_until = until;
            }
            Fault::Partition => {
                let master = self.master();
                self.network.partition(&ids, master, &mut self.random);
            }
            Fault::Disconnect => self.lose(one),
            Fault::Weather => self.network.weather = Weather::draw(&mut self.random),
            Fault::Narrow => self.network.toggle_narrow(one),
            Fault::Wipe => self.wipe(one),
            Fault::Rollback => self.roll_back(one),
            Fault::Move => self.move_all(),
            Fault::Transfer => {
                let master = self.master();
                if let Some(master) = master {
                    self.with(master, |paxos, _| drop(paxos.transfer(one)));
                }
            }
            Fault::Snapshot => self.snapshot(one),
            Fault::SlowDisk => {
                let slow = !self.host(one).slow;
                let all = self.random.chance(300);
                for host in self.hosts.values_mut().filter(|host| all || host.id == one) {
                    host.slow = slow;
                }
            }
            Fault::Replace => self.begin(Some(one), Some(Joins::AsVoter)),
            Fault::Grow => self.begin(None, Some(Joins::AsVoter)),
            Fault::Shrink => self.begin(Some(one), None),
            Fault::Learner => self.begin(None, Some(Joins::ToLearn)),
        }
    }

    pub(super) fn kill(&mut self, id: ReplicaId) {
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

    /// The others see that a replica's connections are gone.
    fn lose(&mut self, id: ReplicaId) {
        let others: Vec<ReplicaId> = self.hosts.keys().copied().filter(|other| *other != id).collect();
        for other in others {
            self.with(other, |paxos, now| paxos.lost(now, id));
        }
    }

    /// A disk is gone.
    fn wipe(&mut self, id: ReplicaId) {
        if self.hosts.len() >= MOST_HOSTS || self.change.is_some() || !self.can_lose(Some(id)) {
            return;
        }
        self.kill(id);
        let host = self.host(id);
        host.lost = true; // What its disk held still counts for what was chosen before.
        if self.oracle.configurations().newest().is_voter(id) {
            self.begin(Some(id), Some(Joins::AsVoter));
        }
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
        let now = self.now;
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

    // ---- The end ----

    /// New proposals were acknowledged, all proposals of all times have ended, and then everyone who is there,
    /// voter or learner, gets to the same slot.
    pub(super) fn ended_well(&mut self) -> bool {
        let Some(healed_at) = self.healed_at else { return false };
        let Some(since) = self.quiet else {
            let ended = self.outstanding.keys().all(|(id, _)| self.hosts[id].apart);
            let proposed_anew = self.oracle.acknowledged > healed_at;
            // One whose large messages are lost notices that only when something is proposed, and makes way then.
            let well_led = self.master().is_some_and(|master| !self.hosts[&master].apart);
            if ended && proposed_anew && well_led && self.change.is_none() {
                self.quiet = Some(self.now);
            }
            return false;
        };
        let enough = self.now > (since + LEASE).max(self.faults_until + 4 * LEASE);
        let Some(master) = self.master().filter(|id| enough && self.hosts[id].serves(self.now)) else {
            return false;
        };
        let Some(running) = &self.hosts[&master].running else { return false };
        let slot = running.applied.slot;
        let newest = self.oracle.configurations().newest();
        let mut there = self.hosts.values().filter(|host| host.is_there() && newest.get(host.id).is_some());
        slot == self.oracle.last()
            && slot >= self.oracle.acknowledged
            && there.all(|host| host.running.as_ref().is_some_and(|running| running.applied.slot == slot))
    }

    pub(super) fn describe(&self) -> String {
        let one = |host: &Host| {
            let Some(running) = &host.running else { return format!("{}: dead; ", host.id) };
            let apart = if host.apart { " apart" } else { "" };
            let status = running.paxos.status();
            format!(
                "{}:{apart} {:?} {} chosen {} last {} of {}; ",
                host.id,
                status.standing,
                status.ballot,
                status.chosen,
                status.last,
                status.members.voters.len()
            )
        };
        let hosts: String = self.hosts.values().filter(|host| !host.lost).map(one).collect();
        let open = self.outstanding.len();
        let (change, last) = (&self.change, self.oracle.last());
        format!("{hosts}{change:?}, {open} proposals open, last {last}, quiet since {:?}", self.quiet)
    }
}
