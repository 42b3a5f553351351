//! The clients of the agreement: they propose commands.

use super::event::Event;
use super::world::World;
use crate::faults::FaultyWorld;
use std::time::Duration;
use wombat_proto::{Error, ReplicaId};

impl World {
    pub(super) fn propose(&mut self) {
        let (pause, most) = self.swarm.proposing;
        let wait = self.random.duration(Duration::from_millis(1), pause);
        self.after(wait, Event::Propose);
        if self.quiet.is_some() {
            return;
        }
        let burst = 1 + self.random.below(most);
        let ids: Vec<ReplicaId> = self.hosts.keys().copied().collect();
        let id = ids[self.random.below(ids.len() as u64) as usize];
        let leader = self.master().filter(|_| self.random.chance(800)).unwrap_or(id);
        if self.hosts[&leader].stopped_until > self.now() {
            return;
        }
        for _ in 0..burst {
            self.proposed += 1;
            let number = self.proposed;
            let mut command = number.to_be_bytes().to_vec();
            command.resize(8 + self.random.below(40) as usize, 0);
            let Some(running) = &mut self.host(leader).running else { return };
            match running.paxos.propose(command.into()) {
                Ok(slot) => self.outstanding.entry((leader, slot)).or_default().push(number),
                Err(error @ (Error::NotMaster { .. } | Error::Overloaded { .. })) => {
                    self.tell(&format!("{leader} refuses a proposal: {error}"));
                    break;
                }
                Err(error) => panic!("a proposal was refused with {error:?}"),
            }
        }
        self.settle(leader);
    }
}
