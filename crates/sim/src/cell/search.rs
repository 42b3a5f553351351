//! Runs in which clients have to find the master: some replicas, and some endpoints of the list, are silent, refuse,
//! or are of another cell, in every order, but for a minority. What must hold is the bound of SPEC §12: a session
//! has half of its lease left when it has found the next master, and a new client begins a session as soon as it
//! does where all is well, and 300 ms.

use super::links::Endpoint;
use super::world::{Event, World};
use crate::random::Random;
use std::time::Duration;
use wombat_proto::{ReplicaId, Rho};

/// What a silent minority may cost a new client.
const ALLOWED: Duration = Duration::from_millis(300);
/// What it takes a new client to begin a session where all is well, at most: four connections and round trips, and
/// a command in the log.
const USUAL: Duration = Duration::from_millis(250);

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

/// What a run of this kind knows.
pub(super) struct Watch {
    /// Since when the present master serves; `None`: there is none.
    serves: Option<(ReplicaId, Duration)>,
    /// When each client began to look for a cell, and whether it has begun a session.
    clients: Vec<(Duration, bool)>,
    /// Which endpoints clients have: replicas that are there, and others.
    endpoints: Vec<Endpoint>,
    /// Who is silent.
    silent: Vec<ReplicaId>,
    began: bool,
}

impl Watch {
    pub(super) fn new(replicas: u32, random: &mut Random) -> Watch {
        let mut endpoints: Vec<Endpoint> =
            (1..=replicas).map(|id| Endpoint::Replica(ReplicaId(id))).collect();
        // Either replicas fail, or a minority of the list never was of use.
        if random.chance(500) {
            shuffle(&mut endpoints, random);
            for bad in &mut endpoints[..(replicas as usize - 1) / 2] {
                *bad = Endpoint::BAD[random.below(4) as usize];
            }
        }
        Watch { serves: None, clients: Vec::new(), endpoints, silent: Vec::new(), began: false }
    }

    /// The list of a client, in an order of its own.
    pub(super) fn endpoints(&self, random: &mut Random) -> Vec<String> {
        let mut endpoints: Vec<(usize, Endpoint)> = self.endpoints.iter().copied().enumerate().collect();
        shuffle(&mut endpoints, random);
        endpoints.into_iter().map(|(number, endpoint)| endpoint.address(number)).collect()
    }

    fn is_reliable(&self) -> bool {
        self.endpoints.iter().all(|endpoint| matches!(endpoint, Endpoint::Replica(_)))
    }
}

fn shuffle<T>(all: &mut [T], random: &mut Random) {
    for place in (1..all.len()).rev() {
        all.swap(place, random.below(place as u64 + 1) as usize);
    }
}

impl World {
    /// The next thing that goes wrong in such a run: first a minority falls silent, then clients come.
    pub(super) fn search_fault(&mut self) {
        let wait = self.random.millis(100, 2000);
        self.after(wait, Event::Fault);
        let Some(watch) = &mut self.search else { return };
        if !std::mem::replace(&mut watch.began, true) {
            self.silence_minority();
        }
        self.add_client_if_room();
    }

    fn silence_minority(&mut self) {
        if self.search.as_ref().is_none_or(|watch| !watch.is_reliable()) {
            return;
        }
        let mut ids: Vec<ReplicaId> = self.machines.keys().copied().collect();
        shuffle(&mut ids, &mut self.random);
        // Mostly the master is among them.
        let master = self.search.as_ref().and_then(|watch| watch.serves).map(|(id, _)| id);
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
            self.search.iter_mut().for_each(|watch| watch.silent.push(id));
        }
    }

    /// A client begins to look for a cell.
    pub(super) fn watch_client(&mut self) {
        let now = self.now;
        self.search.iter_mut().for_each(|watch| watch.clients.push((now, false)));
    }

    /// The bound of SPEC §12.
    pub(super) fn check_search(&mut self) {
        let now = self.now;
        let serving = self.machines.values().find(|machine| machine.serves(now)).map(|machine| machine.id);
        let Some(watch) = &mut self.search else { return };
        let serving = serving.filter(|id| !watch.silent.contains(id));
        if watch.serves.map(|(id, _)| id) != serving {
            watch.serves = serving.map(|id| (id, now));
        }
        if self.healed {
            return;
        }
        let half = Rho::default().shorten(self.swarm.terms.session_lease) / 2;
        for (client, (came, has_begun)) in self.clients.iter().zip(&mut watch.clients) {
            if client.is_finished() || client.asked_to_end {
                continue;
            }
            let name = client.name;
            if client.id().is_none() {
                let Some((_, serves)) = watch.serves.filter(|_| !*has_begun) else { continue };
                let took = now - serves.max(*came);
                assert!(took <= USUAL + ALLOWED, "SPEC §12: client {name} has no session after {took:?}");
                continue;
            }
            if !std::mem::replace(has_begun, true) {
                self.outcome.tally.count("sessions begun in time");
            }
            let left = client.session.safe_until().since(client.clock.read(now));
            assert!(left >= half, "SPEC §12: client {name} has {left:?} left, and no master");
        }
    }
}
