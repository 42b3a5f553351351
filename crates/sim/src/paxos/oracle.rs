//! What must hold of the agreement, seen by someone who sees everything (SPEC §11).

use super::host::{Applied, Host};
use std::collections::BTreeMap;
use std::time::Duration;
use wombat_paxos::{Configurations, Message, Outcome, Standing};
use wombat_proto::{Ballot, Epoch, ReplicaId, Slot, Value};

#[derive(Default)]
pub(super) struct Oracle {
    /// What stands in each slot, as whoever came first had it.
    chosen: BTreeMap<Slot, Value>,
    /// How far any master knew what is chosen, and since when: what it may have told clients.
    completed: BTreeMap<Slot, Duration>,
    /// The state after each slot.
    applied: BTreeMap<Slot, u64>,
    /// In which slot each command was proposed, which of them were told to be lost.
    lost: BTreeMap<u64, Slot>,
    /// The last slot of which a proposer was told that it is chosen.
    pub(super) acknowledged: Slot,
    /// Who governs what, as the log says.
    configurations: Configurations,
    window: u64,
    /// Up to which slot each ballot has proposed.
    proposed: BTreeMap<Ballot, Slot>,
    /// The lease that each ballot has asked for, and the slot that it begins after.
    ballots: BTreeMap<Ballot, Slot>,
    /// The lease that each heartbeat has asked for.
    leases: BTreeMap<(Ballot, u64), Duration>,
    /// Who led in each epoch.
    epochs: BTreeMap<Epoch, Ballot>,
    /// The newest epoch in which anyone held the lease.
    epoch: Epoch,
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

    /// I1: one value per slot, and when it is chosen it is on a quorum of disks; if a master says so, it is
    /// there under the master's ballot, or a higher one.
    pub(super) fn chosen(
        &mut self,
        who: &Host,
        slot: Slot,
        value: &Value,
        hosts: &BTreeMap<ReplicaId, Host>,
    ) {
        if let Some(earlier) = self.chosen.get(&slot) {
            assert_eq!(earlier, value, "I1: slot {slot} holds two values");
            return;
        }
        let voters = self.configurations.at(slot);
        let paxos = who.running.as_ref().map(|running| &running.paxos);
        let leading = paxos.filter(|paxos| paxos.status().standing == Standing::Leading);
        let ballot = leading.map_or(Ballot::ZERO, |paxos| paxos.ballot());
        let on_disk = |id| {
            hosts.get(&id).is_some_and(|host| {
                host.disk.snapshot_slot() >= slot
                    || host.has_accepted(slot, |one| one.value == *value && one.ballot >= ballot)
            })
        };
        assert!(voters.is_quorum(on_disk), "I1: slot {slot} was chosen, but is on too few disks");
        if let Some(number) = number_of(value) {
            assert!(!self.lost.contains_key(&number), "command {number} was lost, and is chosen");
        }
        if let Value::Members(members) = value {
            self.configurations.change(slot, self.window, members.clone());
        }
        self.chosen.insert(slot, value.clone());
    }

    /// SPEC §7: a replica that takes itself for complete until a moment lacks nothing that was completed before.
    pub(super) fn check_ages(&self, hosts: &BTreeMap<ReplicaId, Host>, real: Duration) {
        for host in hosts.values() {
            let Some(running) = &host.running else { continue };
            let paxos = &running.paxos;
            let Some(until) = paxos.complete_until(host.now(real)) else { continue };
            if let Some((slot, at)) = self.completed.range(paxos.chosen().next()..).next() {
                let lacks = host.now(*at) < until;
                assert!(!lacks, "replica {} takes itself for complete, and lacks slot {slot}", host.id);
            }
        }
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
    pub(super) fn check_leases(&mut self, hosts: &BTreeMap<ReplicaId, Host>, real: Duration) {
        let mut holder: Option<ReplicaId> = None;
        for host in hosts.values().filter(|host| host.serves(real)) {
            assert!(holder.is_none(), "I2: {holder:?} and {} hold the lease", host.id);
            holder = Some(host.id);
            let Some(running) = &host.running else { continue };
            let bound = |id: ReplicaId| {
                id == host.id || hosts.get(&id).is_some_and(|other| other.is_bound_to(host.id, real))
            };
            for (_, members) in running.paxos.configurations().entries() {
                assert!(members.is_quorum(bound), "I2: replica {} serves without all grants", host.id);
            }
            let (applied, epoch) = (running.applied.slot, running.paxos.leads().unwrap_or_default());
            assert!(epoch >= self.epoch, "replica {} serves in {epoch}, after {}", host.id, self.epoch);
            self.epoch = epoch;
            assert!(
                applied >= self.acknowledged,
                "replica {} serves at slot {applied}, but {} was acknowledged",
                host.id,
                self.acknowledged
            );
        }
    }

    /// An epoch has one master. What it knows may be told from now on.
    pub(super) fn leads(&mut self, host: &Host, real: Duration) {
        let Some(running) = &host.running else { return };
        let Some(epoch) = running.paxos.leads() else { return };
        let ballot = running.paxos.ballot();
        let first = *self.epochs.entry(epoch).or_insert(ballot);
        assert_eq!(first, ballot, "two masters in epoch {epoch}");
        let chosen = running.paxos.chosen();
        if self.completed.last_key_value().is_none_or(|(last, _)| *last < chosen) {
            self.completed.insert(chosen, real);
        }
    }

    /// I1: what a master takes for accepted under its ballot is on those disks, or chosen.
    pub(super) fn counts(&self, host: &Host, hosts: &BTreeMap<ReplicaId, Host>) {
        let Some(running) = &host.running else { return };
        let status = running.paxos.status();
        let base = self.ballots.get(&status.ballot).copied().unwrap_or_default();
        for peer in status.peers.iter().filter(|peer| peer.accepted > base) {
            // What a disk that was put back has lost, it had when it was counted.
            let Some(peer_host) = hosts.get(&peer.id).filter(|host| !host.disk.is_copy) else { continue };
            let is_so = peer_host.disk.snapshot_slot() >= peer.accepted
                || peer_host.has_accepted(peer.accepted, |held| {
                    held.ballot >= status.ballot || self.chosen.get(&peer.accepted) == Some(&held.value)
                });
            assert!(is_so, "replica {} counts on {} for slot {}", host.id, peer.id, peer.accepted);
        }
    }

    /// I1: what a replica says is so, on its own disk and on the others', before it is said. Returns whether
    /// it is the first proposal of a master.
    pub(super) fn said(&mut self, host: &Host, message: &Message, hosts: &BTreeMap<ReplicaId, Host>) -> bool {
        let (id, disk) = (host.id, &host.disk);
        let promised =
            |id: ReplicaId, ballot: Ballot| hosts.get(&id).is_some_and(|host| host.has_promised(ballot));
        match message {
            Message::Promise { ballot, accepted, .. } => {
                assert!(disk.kept.promised >= *ballot, "replica {id} tells a promise that is not durable");
                for one in accepted {
                    assert!(disk.has(one.slot), "replica {id} reports slot {}, not durable", one.slot);
                }
            }
            Message::Granted { ballot, sequence, .. } => {
                let lease = self.leases.get(&(*ballot, *sequence)).copied().unwrap_or_default();
                assert!(
                    disk.kept.promised >= *ballot,
                    "replica {id} grants a lease without a durable promise"
                );
                assert!(disk.kept.lease_bound >= lease, "replica {id} grants a lease that it would forget");
            }
            Message::Accepted { ballot, through } => {
                let base = self.ballots.get(ballot).copied().unwrap_or_default();
                let long_ago = Slot(through.0.saturating_sub(self.window));
                let first = base.max(long_ago).max(disk.snapshot_slot()).next();
                for slot in (first.0..=through.0).map(Slot) {
                    let is_so = disk.kept.accepted.get(&slot).is_some_and(|held| {
                        held.ballot >= *ballot || self.chosen.get(&slot) == Some(&held.value)
                    });
                    assert!(is_so, "replica {id} says that it has accepted slot {slot}");
                }
            }
            Message::Heartbeat { ballot, base, sequence, lease, chosen, .. } => {
                self.leases.insert((*ballot, *sequence), *lease);
                assert!(*chosen <= self.last(), "replica {id} says that slot {chosen} is chosen");
                if self.ballots.insert(*ballot, *base).is_none() {
                    for (_, members) in self.configurations_after(*base).entries() {
                        assert!(
                            members.is_quorum(|id| promised(id, *ballot)),
                            "replica {id} leads without the promises of all who vote"
                        );
                    }
                }
            }
            Message::Accept { ballot, first, values, chosen, .. } => {
                assert!(*chosen <= self.last(), "replica {id} says that slot {chosen} is chosen");
                let before = self.proposed.get(ballot).copied();
                let last = Slot(first.0 + values.len() as u64 - 1);
                for slot in (before.unwrap_or_default().next().max(*first).0..=last.0).map(Slot) {
                    let promised = |id| promised(id, *ballot);
                    let voters = self.configurations.at(slot);
                    assert!(
                        voters.is_quorum(promised),
                        "slot {slot} is proposed without a quorum's promises"
                    );
                }
                self.proposed.insert(*ballot, last.max(before.unwrap_or_default()));
                return before.is_none();
            }
            _ => {}
        }
        false
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
        Configurations::restore(known[first..].to_vec(), 0).expect("a part of what is in order")
    }

    /// The last slot that anyone knows to be chosen.
    pub(super) fn last(&self) -> Slot {
        self.chosen.last_key_value().map_or(Slot(0), |(slot, _)| *slot)
    }
}
