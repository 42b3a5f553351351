//! A few replicas, and a script that decides what happens to each of them and when.
//!
//! Nothing happens by itself: the script moves the clocks, delivers, drops, repeats and delays messages, and
//! says when a disk has written. After each step the world checks what must hold at any time.

use crate::{Batch, Config, Configurations, Effects, Message, Outcome, Paxos, Persist};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};
use bytes::Bytes;
use core::time::Duration;
use wombat_proto::{
    Ballot, Durable, Epoch, Instant, Member, Members, Record, ReplicaId, Result, Slot, Value,
};

/// The master lease of all scripts.
pub(crate) const M: Duration = Duration::from_secs(2);

/// How long a master of all scripts hopes for a choice before it makes way.
pub(crate) const STALL: Duration = Duration::from_secs(8);

/// A disk: what is on it, and what is written and not yet durable.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    starts: u32,
    is_copy: bool,
    kept: Durable,
    snapshot: Option<(Slot, Configurations)>,
    unsynced: Vec<Record>,
}

impl Disk {
    pub(crate) fn is_copy(&self) -> bool {
        self.is_copy
    }

    fn sync(&mut self) -> u64 {
        let records = core::mem::take(&mut self.unsynced);
        let count = records.len() as u64;
        for record in records {
            self.kept.take(record);
        }
        count
    }
}

/// A replica and its machine.
pub(crate) struct Host {
    pub(crate) disk: Disk,
    founding: Configurations,
    /// None while it is down.
    paxos: Option<Paxos>,
    durable: u64,
    /// How many nanoseconds its clock counts in a thousand.
    rate: u64,
    /// A stuck disk makes nothing durable unless the script says so.
    stuck: bool,
    /// What it has applied in this life.
    pub(crate) applied: BTreeMap<Slot, Value>,
    /// What it was told of its own proposals.
    pub(crate) ended: Vec<(Slot, Outcome)>,
}

impl Host {
    /// How many records are not durable.
    pub(crate) fn disk_waits(&self) -> usize {
        self.disk.unsynced.len()
    }
}

/// All of it.
pub(crate) struct World {
    pub(crate) config: Config,
    /// Real time.
    now: Duration,
    hosts: BTreeMap<u32, Host>,
    /// What is under way, oldest first.
    wires: Vec<(u32, u32, Message)>,
    /// From whom to whom nothing goes.
    cut: BTreeSet<(u32, u32)>,
    /// From whom to whom no values go, as if large packets were lost.
    narrow: BTreeSet<(u32, u32)>,
    /// What is lost on any way.
    lost: fn(&Message) -> bool,
    snapshots: BTreeMap<Slot, Configurations>,
    /// Whether those outside of the world tell the truth.
    pub(crate) trusting: bool,
    // What has been seen so far.
    pub(crate) chosen: BTreeMap<Slot, Value>,
    /// How far any master knew what is chosen, and since when: what it may have told clients.
    completed: BTreeMap<Slot, Duration>,
    epochs: BTreeMap<Epoch, Ballot>,
}

/// A member, as scripts name it.
pub(crate) fn member(id: u32) -> Member {
    Member { id: ReplicaId(id), address: format!("host-{id}") }
}

/// Members by their ids.
pub(crate) fn members(voters: &[u32], learners: &[u32]) -> Members {
    let list = |ids: &[u32]| ids.iter().map(|id| member(*id)).collect::<Vec<_>>();
    let next_id = voters.iter().chain(learners).max().unwrap_or(&0) + 1;
    Members { voters: list(voters), learners: list(learners), next_id }
}

/// A command, as scripts name it.
pub(crate) fn command(text: &str) -> Value {
    Value::Command(Bytes::copy_from_slice(text.as_bytes()))
}

impl World {
    /// A cell of so many voters, all started, nobody elected.
    pub(crate) fn new(voters: u32) -> World {
        World::with(voters, |_| {})
    }

    /// The same with other numbers than usual.
    pub(crate) fn with(voters: u32, change: impl FnOnce(&mut Config)) -> World {
        let mut config = Config::new(ReplicaId(1), 7);
        (config.lease, config.patience, config.heartbeat, config.resend) = (M, M, M / 8, M / 4);
        config.stall = STALL;
        config.window = 8;
        change(&mut config);
        let mut world = World {
            config,
            now: Duration::from_secs(1000),
            hosts: BTreeMap::new(),
            wires: Vec::new(),
            cut: BTreeSet::new(),
            narrow: BTreeSet::new(),
            lost: |_| false,
            snapshots: BTreeMap::new(),
            trusting: true,
            chosen: BTreeMap::new(),
            completed: BTreeMap::new(),
            epochs: BTreeMap::new(),
        };
        let ids: Vec<u32> = (1..=voters).collect();
        let founding = Configurations::founding(members(&ids, &[]));
        for id in ids {
            world.add(id, founding.clone());
        }
        world
    }

    fn add(&mut self, id: u32, founding: Configurations) {
        let host = Host {
            disk: Disk::default(),
            founding,
            paxos: None,
            durable: 0,
            rate: 1000,
            stuck: false,
            applied: BTreeMap::new(),
            ended: Vec::new(),
        };
        self.hosts.insert(id, host);
        self.start(id);
    }

    /// A new machine that knows of nobody.
    pub(crate) fn join(&mut self, id: u32) {
        self.add(id, Configurations::default());
    }

    pub(crate) fn host(&mut self, id: u32) -> &mut Host {
        self.hosts.get_mut(&id).unwrap()
    }

    /// A replica that is up.
    pub(crate) fn paxos(&self, id: u32) -> &Paxos {
        self.hosts[&id].paxos.as_ref().unwrap()
    }

    /// What a replica's clock shows.
    pub(crate) fn clock(&self, id: u32) -> Instant {
        self.clock_at(id, self.now)
    }

    fn clock_at(&self, id: u32, real: Duration) -> Instant {
        Instant::from_nanos(real.as_nanos() as u64 / 1000 * self.hosts[&id].rate)
    }

    /// How old what a replica knows is at most, as far as it can tell.
    pub(crate) fn age(&self, id: u32) -> Option<Duration> {
        let now = self.clock(id);
        self.paxos(id).complete_until(now).map(|until| now.since(until))
    }

    /// Lets a replica's clock count so many nanoseconds in a thousand.
    pub(crate) fn skew(&mut self, id: u32, rate: u64) {
        self.kill(id);
        self.host(id).rate = rate;
        self.start(id);
    }

    // ---- Life and death ----

    /// A replica dies; what is not durable is gone.
    pub(crate) fn kill(&mut self, id: u32) {
        let host = self.host(id);
        host.paxos = None;
        host.disk.unsynced.clear();
        host.applied.clear();
        host.ended.clear();
    }

    /// A replica starts from its disk.
    pub(crate) fn start(&mut self, id: u32) {
        let now = self.clock(id);
        let mut config = self.config.clone();
        config.replica = ReplicaId(id);
        let host = self.host(id);
        host.disk.starts += 1;
        host.durable = 0;
        let disk = &host.disk;
        let configurations =
            disk.snapshot.as_ref().map_or(&host.founding, |(_, configurations)| configurations);
        let snapshot = disk.snapshot.as_ref().map(|(slot, _)| (*slot, Vec::new()));
        let recovered = disk.kept.clone().recover(disk.starts, disk.is_copy, snapshot);
        host.paxos = Some(Paxos::new(config, configurations.clone(), recovered, now));
        self.flush(id);
    }

    /// A replica dies and starts again at once.
    pub(crate) fn restart(&mut self, id: u32) {
        self.kill(id);
        self.start(id);
    }

    /// A copy of a replica's disk, as it is now: what is not durable may be on it or not, and is not.
    pub(crate) fn backup(&mut self, id: u32) -> Disk {
        let disk = &self.host(id).disk;
        Disk { is_copy: true, unsynced: Vec::new(), ..disk.clone() }
    }

    /// The same, by what leaves no trace on the disk, such as a snapshot of the file system.
    pub(crate) fn unmarked_backup(&mut self, id: u32) -> Disk {
        Disk { is_copy: false, ..self.backup(id) }
    }

    /// A replica dies and starts again from a copy of its disk.
    pub(crate) fn put_back(&mut self, id: u32, copy: &Disk) {
        self.kill(id);
        self.host(id).disk = copy.clone();
        self.start(id);
    }

    // ---- What happens to one replica ----

    /// Lets something happen to a replica that is up, and takes what follows.
    pub(crate) fn with_paxos<T>(&mut self, id: u32, happen: impl FnOnce(&mut Paxos, Instant) -> T) -> T {
        let now = self.clock(id);
        let answer = happen(self.host(id).paxos.as_mut().unwrap(), now);
        self.flush(id);
        answer
    }

    pub(crate) fn tick(&mut self, id: u32) {
        self.with_paxos(id, |paxos, now| paxos.tick(now));
    }

    /// Everything that a replica has written becomes durable.
    pub(crate) fn sync(&mut self, id: u32) {
        let host = self.host(id);
        host.durable += host.disk.sync();
        let durable = host.durable;
        self.with_paxos(id, |paxos, now| paxos.persisted(now, durable));
    }

    pub(crate) fn stick(&mut self, id: u32, stuck: bool) {
        self.host(id).stuck = stuck;
    }

    pub(crate) fn propose(&mut self, id: u32, text: &str) -> Result<Slot> {
        self.with_paxos(id, |paxos, _| paxos.propose(Bytes::copy_from_slice(text.as_bytes())))
    }

    pub(crate) fn change(&mut self, id: u32, members: Members) -> Result<Slot> {
        self.with_paxos(id, |paxos, _| paxos.change_members(members))
    }

    /// A replica writes a snapshot of all that it has applied.
    pub(crate) fn snapshot(&mut self, id: u32) {
        let (slot, configurations) = (self.paxos(id).chosen(), self.paxos(id).configurations().clone());
        self.snapshots.insert(slot, configurations.clone());
        let host = self.host(id);
        host.disk.snapshot = Some((slot, configurations));
        host.disk.kept.accepted.retain(|at, _| *at > slot);
        self.with_paxos(id, |paxos, _| paxos.snapshotted(slot));
    }

    // ---- The network ----

    /// Delivers what is under way from one replica to another, in order.
    pub(crate) fn deliver(&mut self, from: u32, to: u32) {
        for message in self.take(from, to) {
            self.inject(from, to, message);
        }
    }

    /// Takes what is under way from one replica to another off the wire: to lose it, or to have it late.
    pub(crate) fn take(&mut self, from: u32, to: u32) -> Vec<Message> {
        let taken = self.wires.iter().filter(|(a, b, _)| (*a, *b) == (from, to));
        let taken = taken.map(|(_, _, message)| message.clone()).collect();
        self.wires.retain(|(a, b, _)| (*a, *b) != (from, to));
        taken
    }

    /// A message arrives, now or again.
    pub(crate) fn inject(&mut self, from: u32, to: u32, message: Message) {
        if self.hosts.get(&to).is_some_and(|host| host.paxos.is_some()) {
            self.with_paxos(to, |paxos, now| paxos.receive(now, ReplicaId(from), message));
        }
    }

    /// From now on messages of some kind are lost, whoever sends them.
    pub(crate) fn lose(&mut self, lost: fn(&Message) -> bool) {
        self.lost = lost;
    }

    /// Loses everything under way.
    pub(crate) fn lose_all(&mut self) {
        self.wires.clear();
    }

    /// Everything under way.
    pub(crate) fn wires(&self) -> &[(u32, u32, Message)] {
        &self.wires
    }

    /// Nothing goes from one replica to another any more.
    pub(crate) fn cut_way(&mut self, from: u32, to: u32) {
        self.cut.insert((from, to));
        self.take(from, to);
    }

    /// Two replicas do not hear each other any more.
    pub(crate) fn cut(&mut self, a: u32, b: u32) {
        self.cut_way(a, b);
        self.cut_way(b, a);
    }

    /// Only these pairs hear each other.
    pub(crate) fn connect_only(&mut self, pairs: &[(u32, u32)]) {
        let ids: Vec<u32> = self.hosts.keys().copied().collect();
        self.cut.clear();
        for (a, b) in ids.iter().flat_map(|a| ids.iter().map(move |b| (*a, *b))) {
            if !pairs.contains(&(a, b)) && !pairs.contains(&(b, a)) {
                self.cut_way(a, b);
            }
        }
    }

    /// Values that one replica sends to some others are lost from now on, and nothing else is.
    pub(crate) fn lose_values(&mut self, from: u32, to: &[u32]) {
        self.narrow.extend(to.iter().map(|to| (from, *to)));
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
        self.narrow.clear();
        self.lost = |_| false;
    }

    // ---- Many things at once ----

    /// Only time passes.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.check();
    }

    /// All disks write and all messages arrive until nothing is left to do.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
            let up = self.hosts.iter().filter(|(_, host)| host.paxos.is_some() && !host.stuck);
            let dirty = up.filter(|(_, host)| !host.disk.unsynced.is_empty()).map(|(id, _)| *id);
            for id in dirty.collect::<Vec<_>>() {
                self.sync(id);
            }
            if !self.wires.is_empty() {
                let (from, to, message) = self.wires.remove(0);
                self.inject(from, to, message);
            } else if !self
                .hosts
                .values()
                .any(|host| host.paxos.is_some() && !host.stuck && !host.disk.unsynced.is_empty())
            {
                return;
            }
        }
        panic!("the replicas never come to rest");
    }

    /// Time passes, everybody is awake, nothing is late.
    pub(crate) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.pass(Duration::from_millis(5));
            for id in self.up() {
                let now = self.clock(id);
                if self.paxos(id).next_deadline().is_some_and(|due| due <= now) {
                    self.tick(id);
                }
            }
            self.settle();
        }
    }

    /// Enough time passes for every lease to end, while nobody is awake; then a replica seeks election.
    pub(crate) fn elect(&mut self, id: u32) {
        self.pass(3 * M);
        self.tick(id);
        self.settle();
        assert!(self.paxos(id).leads().is_some(), "{id} was to be elected: {:?}", self.paxos(id).status());
    }

    /// Those that run.
    pub(crate) fn up(&self) -> Vec<u32> {
        self.hosts.iter().filter(|(_, host)| host.paxos.is_some()).map(|(id, _)| *id).collect()
    }

    /// Those that may propose.
    pub(crate) fn masters(&self) -> Vec<u32> {
        self.up().into_iter().filter(|id| self.paxos(*id).leads().is_some()).collect()
    }

    /// Those that may answer reads.
    pub(crate) fn holders(&self) -> Vec<u32> {
        self.up().into_iter().filter(|id| self.paxos(*id).lease_holds(self.clock(*id))).collect()
    }

    /// The commands that a replica has applied in this life.
    pub(crate) fn commands(&self, id: u32) -> Vec<String> {
        let commands = self.hosts[&id].applied.values().filter_map(|value| match value {
            Value::Command(command) => Some(String::from_utf8_lossy(command).into_owned()),
            _ => None,
        });
        commands.collect()
    }

    // ---- What follows ----

    fn flush(&mut self, id: u32) {
        let mut effects = Effects::default();
        let host = self.hosts.get_mut(&id).unwrap();
        host.paxos.as_mut().unwrap().flush(&mut effects);
        host.disk.unsynced.extend(effects.persist.iter().flat_map(Persist::records));
        host.disk.is_copy |= effects.rolled_back;
        host.disk.is_copy &= !effects.reinstated;
        host.ended.append(&mut effects.ended);
        for (slot, value) in effects.chosen.iter().flat_map(Batch::iter) {
            let earlier = self.chosen.entry(slot).or_insert_with(|| value.clone());
            assert!(earlier == value || !self.trusting, "I1: slot {slot} holds two values");
            assert!(host.applied.insert(slot, value.clone()).is_none(), "slot {slot} comes twice");
        }
        for (to, message) in effects.send {
            let is_narrow = self.narrow.contains(&(id, to.0)) && carries_values(&message);
            if !self.cut.contains(&(id, to.0)) && !is_narrow && !(self.lost)(&message) {
                self.wires.push((id, to.0, message));
            }
        }
        if effects.snapshot_wanted {
            self.snapshot(id);
        }
        for wanted in effects.wanted_chunks {
            let newest = self.hosts[&id].disk.snapshot.as_ref().map_or(Slot(0), |(slot, _)| *slot);
            let message = if newest == wanted.snapshot && wanted.index < 2 {
                let (index, last) = (wanted.index, wanted.index == 1);
                Message::Chunk { snapshot: newest, index, last, bytes: Bytes::from_static(b"part") }
            } else {
                Message::Truncated { snapshot: newest }
            };
            if !self.cut.contains(&(id, wanted.to.0)) {
                self.wires.push((id, wanted.to.0, message));
            }
        }
        for received in effects.received_chunks.into_iter().filter(|chunk| chunk.last) {
            let (slot, configurations) = (received.snapshot, self.snapshots[&received.snapshot].clone());
            let host = self.hosts.get_mut(&id).unwrap();
            host.disk.snapshot = Some((slot, configurations.clone()));
            host.disk.kept.accepted.retain(|at, _| *at > slot);
            self.with_paxos(id, |paxos, now| paxos.installed(now, slot, configurations));
        }
        self.check();
    }

    /// What must hold at any time: I1 is checked where values come out.
    pub(crate) fn check(&mut self) {
        for id in self.up() {
            let paxos = self.paxos(id);
            paxos.check();
            if let Some(epoch) = paxos.leads() {
                let (ballot, chosen) = (paxos.ballot(), paxos.chosen());
                if self.completed.last_key_value().is_none_or(|(last, _)| *last < chosen) {
                    self.completed.insert(chosen, self.now);
                }
                let first = *self.epochs.entry(epoch).or_insert(ballot);
                assert!(first == ballot || !self.trusting, "two masters share the epoch {epoch}");
            }
        }
        self.up().into_iter().for_each(|id| self.check_freshness(id));
        let holders = self.holders();
        assert!(holders.len() < 2 || !self.trusting, "I2: {holders:?} hold the lease at once");
    }

    /// Until when a replica takes itself for complete, it lacks nothing that was completed.
    fn check_freshness(&self, id: u32) {
        let paxos = self.paxos(id);
        let Some(until) = paxos.complete_until(self.clock(id)).filter(|_| self.trusting) else { return };
        if let Some((slot, at)) = self.completed.range(paxos.chosen().next()..).next() {
            let late = self.clock_at(id, *at) < until;
            assert!(!late, "{id} takes itself for complete until {until:?}, and lacks slot {slot}");
        }
    }
}

/// Whether a message may be larger than one packet.
fn carries_values(message: &Message) -> bool {
    match message {
        Message::Accept { values, .. } => !values.is_empty(),
        Message::Promise { accepted, .. } => !accepted.is_empty(),
        Message::Learn { .. } | Message::Chunk { .. } => true,
        _ => false,
    }
}

/// All pairs among these.
pub(crate) fn among(ids: &[u32]) -> Vec<(u32, u32)> {
    let mut pairs = vec![];
    for a in ids {
        pairs.extend(ids.iter().filter(|b| a < b).map(|b| (*a, *b)));
    }
    pairs
}
