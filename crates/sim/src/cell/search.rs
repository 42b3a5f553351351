//! Runs in which clients have to find the master: some replicas, and some endpoints of the list, are silent, refuse,
//! or are of another cell, in every order, but for a minority.

use super::event::Event;
use super::oracle::search::SearchBound;
use super::world::World;
use crate::faults::FaultyWorld;
use wombat_proto::ReplicaId;

/// How a replica is made silent.
#[derive(Clone, Copy, Debug)]
enum Silence {
    /// Its process stands still: the kernel takes connections.
    Stopped,
    /// Its host is gone: packets are dropped.
    Gone,
    /// Its process is dead: connections are refused.
    Dead,
}

impl World {
    /// The next thing that goes wrong in such a run: first a minority falls silent, then clients come.
    pub(super) fn search_fault(&mut self) {
        let wait = self.random.millis(100, 2000);
        self.after(wait, Event::Fault);
        let Some(plan) = &mut self.search else { return };
        if plan.silences() {
            self.silence_minority();
        }
        self.add_client_if_room();
    }

    fn silence_minority(&mut self) {
        let mut ids: Vec<ReplicaId> = self.machines.keys().copied().collect();
        self.random.shuffle(&mut ids);
        // Mostly the master is among them.
        let master = self.oracle.search.as_ref().and_then(SearchBound::master);
        if self.random.chance(800) {
            ids.sort_by_key(|id| Some(*id) != master);
        }
        let most = (ids.len() - 1) / 2;
        ids.truncate(1 + self.random.below(most as u64) as usize);
        for id in ids {
            let how = [Silence::Stopped, Silence::Gone, Silence::Dead][self.random.below(3) as usize];
            self.tell(&format!("{id} is {how:?}"));
            let until = self.faults_until;
            match how {
                Silence::Stopped => self.machine(id).stopped_until = until,
                Silence::Gone => {
                    self.network.silence(id);
                    self.connections.silence(id, until);
                }
                Silence::Dead => self.kill(id),
            }
            self.oracle.search.iter_mut().for_each(|bound| bound.fell_silent(id));
        }
    }
}
