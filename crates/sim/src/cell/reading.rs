//! When the threads of clients read what is cached, and what is noted for the books of caches.

use super::world::World;
use wombat_proto::ReplicaId;
use wombat_proto::wire::Request;
use wombat_session::CacheChange;

impl World {
    /// The threads of a client, if they run, read what it has cached.
    pub(super) fn read_cached(&mut self, name: usize) {
        let World { schedule, clients, oracle, tally, random, .. } = self;
        let (client, now) = (&mut clients[name], schedule.now());
        if client.stopped_until <= now {
            client.read_cached(now, oracle.history.state(), tally, random);
        }
    }

    /// The shell of a client lets its threads see what is cached now, while they go on reading.
    pub(super) fn show_cached(&mut self, name: usize, changes: Vec<CacheChange>) {
        let World { schedule, clients, oracle, random, .. } = self;
        let (client, now) = (&mut clients[name], schedule.now());
        let until = client.session.cache_until();
        if changes.is_empty() && until == client.shelf.until() {
            return;
        }
        let (clock, state) = (client.clock.read(now), oracle.history.state());
        client.shelf.carry_out(changes, until, |shelf| {
            for _ in 0..random.below(6) {
                shelf.glance(clock, state, random);
            }
        });
        client.check_cached(now, state);
    }

    /// A request arrives at a replica, perhaps the master.
    pub(super) fn note_arrived(&mut self, id: ReplicaId, request: &Request) {
        let machine = &self.machines[&id];
        let master = machine.running.as_ref().filter(|running| running.replica.is_master());
        if let Some(running) = master {
            let (epoch, answers) = (running.replica.state().epoch(), machine.serves(self.now()));
            self.oracle.caches.arrives((epoch, answers), self.now(), request);
        }
    }

    /// What a replica has just entered into its log, as a master or not.
    pub(super) fn note_entered(&mut self, id: ReplicaId) {
        let now = self.now();
        let machine = self.machines.get_mut(&id).expect("a machine of the cell");
        let serves = machine.serves(now);
        let Some(running) = &mut machine.running else { return };
        if running.replica.is_master() && !serves {
            self.oracle.caches.cannot_serve(now);
        }
        let epoch = running.replica.state().epoch();
        let master = running.replica.is_master().then_some((epoch, machine.stopped_until));
        for slot in running.entered.drain(..) {
            if let Some(value) = running.accepted.get(&slot) {
                self.oracle.caches.proposed(slot, value, master, (now, &mut self.tally));
            }
        }
    }
}
