//! What goes wrong in a run, and how it is healed.

use super::client::Client;
use super::swarm::{Fault, Swarm};
use super::world::{Event, World};
use crate::network::Weather;
use std::time::Duration;
use wombat_proto::ReplicaId;
use wombat_replica::Input;

impl World {
    pub(super) fn fault(&mut self) {
        if self.now > self.faults_until {
            return self.heal();
        }
        if self.search.is_some() {
            return self.search_fault();
        }
        let wait = self.random.duration(Duration::from_millis(20), self.swarm.pause);
        self.after(wait, Event::Fault);
        if self.random.chance(self.swarm.floods) {
            self.flood();
        }
        let Some(fault) = self.swarm.next(&mut self.random) else { return };
        let some = ReplicaId(1 + self.random.below(self.machines.len() as u64) as u32);
        // The master is worth more trouble than others.
        let one = self.master().filter(|_| self.random.chance(400)).unwrap_or(some);
        self.strike(fault, one);
    }

    /// Somebody who listens does not run while somebody else writes and writes.
    fn flood(&mut self) {
        let Some(victim) = self.clients.iter().position(Client::hears_of_writes) else { return };
        let others = (0..self.clients.len()).filter(|other| *other != victim);
        let Some(writer) = others.into_iter().find(|other| self.clients[*other].begin_flood()) else {
            return;
        };
        self.tell(&format!("client {writer} floods client {victim}"));
        let until = self.now + self.random.millis(500, 3000);
        self.stop_client(victim, until);
        self.will_act(writer, Duration::ZERO);
    }

    fn stop_client(&mut self, client: usize, until: Duration) {
        let stopped_until = &mut self.clients[client].stopped_until;
        *stopped_until = until.max(*stopped_until);
    }

    /// A master that has just begun is not to be for long.
    pub(super) fn hunt(&mut self) {
        if let Some(master) = self.master().filter(|_| !self.healed) {
            let fault = Swarm::deposing(&mut self.random);
            self.strike(fault, master);
        }
    }

    /// Whoever serves, or thinks that it does.
    fn master(&self) -> Option<ReplicaId> {
        let masters = self.machines.values().filter_map(|machine| {
            let replica = &machine.running.as_ref()?.replica;
            replica.is_master().then(|| (replica.state().epoch(), machine.id))
        });
        masters.max().map(|(_, id)| id)
    }

    fn strike(&mut self, fault: Fault, one: ReplicaId) {
        self.tell(&format!("{fault:?} {one}"));
        let ids: Vec<ReplicaId> = self.machines.keys().copied().collect();
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
            // What was put off until then already does not come earlier.
            Fault::Pause => {
                let until = self.draw_stop();
                self.machine(one).stopped_until = until.max(self.machines[&one].stopped_until);
            }
            Fault::Partition => {
                let master = self.master();
                self.network.partition(&ids, master, &mut self.random);
            }
            Fault::Weather => self.network.weather = Weather::draw(&mut self.random),
            Fault::Narrow => self.network.toggle_narrow(one),
            Fault::Transfer => {
                let to = ids[self.random.below(ids.len() as u64) as usize];
                if self.machines[&one].stopped_until <= self.now {
                    self.step(one, Input::Transfer { to });
                }
            }
            Fault::Snapshot => self.snapshot(one),
            Fault::SlowDisk => {
                let slow = !self.machines[&one].slow;
                let all = self.random.chance(300);
                for machine in self.machines.values_mut().filter(|machine| all || machine.id == one) {
                    machine.slow = slow;
                }
            }
            Fault::Rollback => self.roll_back(one),
            Fault::StopClient => {
                let (client, until) = (self.draw_client(), self.draw_stop());
                self.stop_client(client, until);
            }
            Fault::KillClient => {
                let client = self.draw_client();
                if !self.clients[client].is_finished() {
                    self.clients[client].dead = true;
                    self.bury(client);
                    self.add_client();
                }
            }
            Fault::Cut => {
                let until = self.draw_stop();
                self.cut(one, until);
            }
            Fault::Break => {
                for id in self.connections.ids() {
                    if self.random.chance(400) {
                        self.break_connection(id);
                    }
                }
            }
            Fault::Slowness => self.connections.slowness_ms = self.random.below(3000),
        }
    }

    fn draw_client(&mut self) -> usize {
        self.random.below(self.clients.len() as u64) as usize
    }

    /// Until when something stops, or is cut off.
    fn draw_stop(&mut self) -> Duration {
        self.now + self.random.duration(Duration::ZERO, self.swarm.stop)
    }

    /// A copy of a disk is made, or put back. A majority keeps its disks.
    fn roll_back(&mut self, one: ReplicaId) {
        let whole = self.machines.values().filter(|machine| machine.id != one && !machine.is_copy).count();
        let can_lose = whole > self.machines.len() / 2;
        if self.machine(one).back_up() && can_lose {
            self.kill(one);
            self.machine(one).put_back();
            self.outcome.tally.count("disks rolled back");
        }
    }

    /// Some clients do not reach some replicas: one of them, or several.
    fn cut(&mut self, one: ReplicaId, until: Duration) {
        let clients = self.random.below(1001);
        let replicas = if self.random.chance(500) { 0 } else { self.random.below(1001) };
        for client in 0..self.clients.len() {
            if !self.random.chance(clients) {
                continue;
            }
            for id in self.machines.keys().copied().collect::<Vec<_>>() {
                if id == one || self.random.chance(replicas) {
                    self.connections.cut(client, id, until);
                }
            }
        }
    }

    /// What is on its way to a client still arrives; from now on it reaches nobody.
    pub(super) fn strand(&mut self, connection: u64) {
        let Some(client) = self.connections.get(connection).map(|one| one.client) else { return };
        let until = self.now + self.random.duration(Duration::ZERO, self.swarm.stop);
        self.tell(&format!("client {client} is stranded"));
        for id in self.machines.keys() {
            self.connections.cut(client, *id, until);
        }
    }

    pub(super) fn kill(&mut self, id: ReplicaId) {
        let (machines, random) = (&mut self.machines, &mut self.random);
        let Some(machine) = machines.get_mut(&id).filter(|machine| machine.running.is_some()) else { return };
        let power = random.chance(500);
        machine.die(power, random);
        for connection in self.connections.at_replica(id) {
            self.connections.leave(connection, false);
            // A process leaves word that it is gone; a machine does not.
            let soon = if power { self.random.millis(0, 15_000) } else { self.random.millis(0, 50) };
            self.after(soon, Event::LostAtClient(connection));
        }
        let others: Vec<ReplicaId> = self.machines.keys().copied().filter(|other| *other != id).collect();
        for other in others.into_iter().filter(|_| !power) {
            let soon = self.random.millis(0, 50);
            self.after(soon, Event::PeerLost(other, id));
        }
        let down = self.random.duration(Duration::ZERO, self.swarm.down);
        self.after(down, Event::Start(id));
    }

    /// The end of all trouble. The dead among the clients stay dead; who is stopped goes on when it was to.
    fn heal(&mut self) {
        self.tell("healed");
        self.healed = true;
        self.network.heal();
        self.connections.heal();
        for machine in self.machines.values_mut() {
            machine.slow = false;
        }
        for client in &mut self.clients {
            client.left = client.left.min(4);
            client.rests = true;
        }
        for id in self.machines.keys().copied().collect::<Vec<_>>() {
            self.start(id);
        }
    }
}
