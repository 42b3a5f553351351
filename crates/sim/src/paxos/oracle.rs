//! What must hold of the agreement, seen by someone who sees everything (SPEC §11).

use super::host::{Applied, Host};
use std::collections::BTreeMap;
use std::time::Duration;
use wombat_paxos::{Configurations, Outcome};
use wombat_proto::{ReplicaId, Slot, Value};

#[derive(Default)]
pub(super) struct Oracle {
    /// What stands in each slot, as whoever came first had it.
    chosen: BTreeMap<Slot, Value>,
    /// The state after each slot.
    applied: BTreeMap<Slot, u64>,
    /// In which slot each command was proposed, which of them were told to be lost.
    lost: BTreeMap<u64, Slot>,
    /// The last slot of which a proposer was told that it is chosen.
    pub(super) acknowledged: Slot,
    /// Who governs what, as the log says.
    configurations: Configurations,
    window: u64,
}

pub(super) fn number_of(value: &Value) -> Option<u64> {
    match value {
        Value::Command(command) => Some(u64::from_be_bytes(command[..8].try_into().expect("eight bytes"))),
        Value::Noop | Value::Members(_) => None,
    }
}

impl Oracle {
    pub(super) fn new(configurations: Configurations, window: u64) -> Oracle {
        Oracle { configurations, window, ..Oracle::default() }
    }

    /// I1: one value per slot, and when it is chosen it is on a quorum of disks. Returns whether it is new.
    pub(super) fn chosen(&mut self, slot: Slot, value: &Value, hosts: &BTreeMap<ReplicaId, Host>) {
        if let Some(earlier) = self.chosen.get(&slot) {
            assert_eq!(earlier, value, "I1: slot {slot} holds two values");
            return;
        }
        let voters = self.configurations.at(slot);
        let on_disk = |id| hosts.get(&id).is_some_and(|host| host.disk.holds(slot, value));
        assert!(voters.is_quorum(on_disk), "I1: slot {slot} was chosen, but is on too few disks");
        if let Some(number) = number_of(value) {
            assert!(!self.lost.contains_key(&number), "command {number} was lost, and is chosen");
        }
        if let Value::Members(members) = value {
            self.configurations.change(slot, self.window, members.clone());
        }
        self.chosen.insert(slot, value.clone());
    }

    /// I19: the state after a slot is the same everywhere, live, replayed and out of a snapshot.
    pub(super) fn applied(&mut self, applied: Applied) {
        let earlier = *self.applied.entry(applied.slot).or_insert(applied.hash);
        assert_eq!(earlier, applied.hash, "I19: the states after slot {} differ", applied.slot);
    }

    /// A proposer was told how its proposal ended.
    pub(super) fn ended(&mut self, slot: Slot, number: u64, outcome: Outcome) {
        let stands = self.chosen.get(&slot).and_then(number_of);
        match outcome {
            Outcome::Chosen => assert_eq!(stands, Some(number), "a proposal was told to be chosen"),
            Outcome::Lost => {
                let elsewhere = self.chosen.values().any(|value| number_of(value) == Some(number));
                assert!(!elsewhere, "command {number} is chosen, and was told to be lost");
                self.lost.insert(number, slot);
            }
            Outcome::Unknown => {}
        }
    }

    /// I2: at any instant one lease at most, and its holder knows all that was acknowledged.
    pub(super) fn check_leases(&self, hosts: &BTreeMap<ReplicaId, Host>, real: Duration) {
        let mut holder: Option<ReplicaId> = None;
        for host in hosts.values().filter(|host| host.serves(real)) {
            assert!(holder.is_none(), "I2: {holder:?} and {} hold the lease", host.id);
            holder = Some(host.id);
            let applied = host.running.as_ref().map_or(Slot(0), |running| running.applied.slot);
            assert!(
                applied >= self.acknowledged,
                "replica {} serves at slot {applied}, but {} was acknowledged",
                host.id,
                self.acknowledged
            );
        }
    }

    pub(super) fn configurations(&self) -> &Configurations {
        &self.configurations
    }

    /// The members that a replica knows after `slot`: those that govern later slots and were agreed by then.
    pub(super) fn configurations_after(&self, slot: Slot) -> Configurations {
        let entries = self.configurations.entries();
        let agreed = |from: Slot| from == Slot(0) || from.0 <= slot.0 + self.window;
        let known: Vec<_> = entries.iter().filter(|(from, _)| agreed(*from)).cloned().collect();
        let first = known.iter().rposition(|(from, _)| from.0 <= slot.0 + 1).unwrap_or(0);
        Configurations::restore(known[first..].to_vec()).expect("a part of what is in order")
    }

    /// The last slot that anyone knows to be chosen.
    pub(super) fn last(&self) -> Slot {
        self.chosen.last_key_value().map_or(Slot(0), |(slot, _)| *slot)
    }
}
