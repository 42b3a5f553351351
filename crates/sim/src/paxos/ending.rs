//! The end of a run: everything that was begun has ended, and all replicas are at the same slot.

use super::host::Host;
use super::swarm::LEASE;
use super::world::World;
use crate::faults::FaultyWorld;

impl World {
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
                self.quiet = Some(self.now());
            }
            return false;
        };
        let enough = self.now() > (since + LEASE).max(self.faults_until + 4 * LEASE);
        let Some(master) = self.master().filter(|id| enough && self.hosts[id].serves(self.now())) else {
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
