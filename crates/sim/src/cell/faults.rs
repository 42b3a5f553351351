//! What goes wrong in a run, and how it is healed.

use super::client::Client;
use super::event::Event;
use super::swarm::{ClientFault, Swarm};
use super::world::World;
use crate::faults::{self, Fault, FaultyWorld};
use crate::network::Network;
use crate::random::Random;
use std::time::Duration;
use wombat_proto::ReplicaId;
use wombat_replica::Input;

impl World {
    pub(super) fn fault(&mut self) {
        if self.now() > self.faults_until {
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
        if let Some((fault, one)) = faults::draw(self) {
            self.strike(fault, one);
        }
    }

    fn strike(&mut self, fault: Fault<ClientFault>, one: ReplicaId) {
        self.tell(&format!("{fault:?} {one}"));
        faults::strike(self, fault, one);
    }

    /// Somebody who listens does not run while somebody else writes and writes.
    fn flood(&mut self) {
        let Some(victim) = self.clients.iter().position(Client::hears_of_writes) else { return };
        let others = (0..self.clients.len()).filter(|other| *other != victim);
        let Some(writer) = others.into_iter().find(|other| self.clients[*other].begin_flood()) else {
            return;
        };
        self.tell(&format!("client {writer} floods client {victim}"));
        let until = self.now() + self.random.millis(500, 3000);
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

    fn draw_client(&mut self) -> usize {
        self.random.below(self.clients.len() as u64) as usize
    }

    /// Until when something stops, or is cut off.
    fn draw_stop(&mut self) -> Duration {
        self.now() + self.random.duration(Duration::ZERO, self.swarm.stop)
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
        let until = self.now() + self.random.duration(Duration::ZERO, self.swarm.stop);
        self.tell(&format!("client {client} is stranded"));
        for id in self.machines.keys() {
            self.connections.cut(client, *id, until);
        }
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

impl FaultyWorld for World {
    type Other = ClientFault;

    fn draw_fault(&mut self) -> Option<Fault<ClientFault>> {
        self.swarm.faults.pick(&mut self.random)
    }

    fn network(&mut self) -> (&mut Network, &mut Random) {
        (&mut self.network, &mut self.random)
    }

    fn replicas(&self) -> Vec<ReplicaId> {
        self.machines.keys().copied().collect()
    }

    /// The replica that serves, or believes that it does.
    fn master(&self) -> Option<ReplicaId> {
        let masters = self.machines.values().filter_map(|machine| {
            let replica = &machine.running.as_ref()?.replica;
            replica.is_master().then(|| (replica.state().epoch(), machine.id))
        });
        masters.max().map(|(_, id)| id)
    }

    fn kill(&mut self, id: ReplicaId) {
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

    fn pause(&mut self, id: ReplicaId) {
        let until = self.draw_stop();
        let machine = self.machine(id);
        machine.stopped_until = until.max(machine.stopped_until);
    }

    fn transfer(&mut self, id: ReplicaId) {
        let to = ReplicaId(1 + self.random.below(self.machines.len() as u64) as u32);
        if self.machines[&id].stopped_until <= self.now() {
            self.step(id, Input::Transfer { to });
        }
    }

    fn snapshot(&mut self, id: ReplicaId) {
        self.write_snapshot(id);
    }

    fn has_slow_disk(&self, id: ReplicaId) -> bool {
        self.machines[&id].slow
    }

    fn set_slow_disk(&mut self, id: ReplicaId, slow: bool) {
        self.machine(id).slow = slow;
    }

    /// A copy of a disk is made, or put back. A majority keeps its disks.
    fn roll_back(&mut self, id: ReplicaId) {
        let whole = self.machines.values().filter(|machine| machine.id != id && !machine.is_copy).count();
        let can_lose = whole > self.machines.len() / 2;
        if self.machine(id).back_up() && can_lose {
            self.kill(id);
            self.machine(id).put_back();
            self.tally.count("disks rolled back");
        }
    }

    fn strike_other(&mut self, fault: ClientFault, id: ReplicaId) {
        match fault {
            ClientFault::Stop => {
                let (client, until) = (self.draw_client(), self.draw_stop());
                self.stop_client(client, until);
            }
            ClientFault::Kill => {
                let client = self.draw_client();
                if !self.clients[client].is_finished() {
                    self.clients[client].dead = true;
                    self.bury(client);
                    self.add_client();
                }
            }
            ClientFault::Cut => {
                let until = self.draw_stop();
                self.cut(id, until);
            }
            ClientFault::Break => {
                for connection in self.connections.ids() {
                    if self.random.chance(400) {
                        self.break_connection(connection);
                    }
                }
            }
            ClientFault::Slowness => self.connections.slowness_ms = self.random.below(3000),
        }
    }
}
