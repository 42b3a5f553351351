//! The world of a run: real time, a queue of events, one source of chance.

use super::host::{Applied, Host, Snapshot};
use super::network::Network;
use super::oracle::{Oracle, number_of};
use super::swarm::{self, Fault, Swarm};
use crate::random::Random;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;
use wombat_paxos::{Batch, Config, Configurations, Effects, Message, ReceivedChunk, WantedChunk};
use wombat_proto::{Error, Member, Members, ReplicaId, Slot};

/// The master lease.
const LEASE: Duration = Duration::from_secs(1);
/// How long all must be well after the healing before a master has to be there and everything ended.
const HEALED: Duration = Duration::from_secs(40);

/// Something that is about to happen.
enum Event {
    Arrive(ReplicaId, ReplicaId, Message),
    Tick(ReplicaId, u64),
    Synced(ReplicaId, u64),
    /// A snapshot that was received is on the disk.
    Installed(ReplicaId, u64, Snapshot),
    Start(ReplicaId),
    /// Clients propose.
    Propose,
    Fault,
    /// Whoever runs the cell looks after its members.
    Operate,
}

/// How a run ended; equal for equal seeds.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Outcome {
    pub(crate) events: u64,
    pub(crate) chosen: u64,
    hash: u64,
}

pub(crate) struct World {
    now: Duration,
    queue: BTreeMap<(Duration, u64), Event>,
    scheduled: u64,
    random: Random,
    hosts: BTreeMap<ReplicaId, Host>,
    network: Network,
    oracle: Oracle,
    swarm: Swarm,
    /// The numbers that replicas live by, but for their own.
    config: Config,
    slow_disks: bool,
    faults_until: Duration,
    /// The voters that the operator wants gone, each with the one that takes its place.
    replacing: Option<(ReplicaId, ReplicaId)>,
    proposed: u64,
    /// The numbers of what each replica has proposed in this life, by slot.
    outstanding: BTreeMap<(ReplicaId, Slot), Vec<u64>>,
    outcome: Outcome,
    trace: bool,
}

impl World {
    pub(crate) fn new(seed: u64, trace: bool, plant: Option<crate::Planted>) -> World {
        let mut random = Random(seed);
        let voters = [1, 3, 3, 5, 5, 5][random.below(6) as usize];
        let members = Members::founding((0..voters).map(|n| format!("host-{n}")));
        let founding = Configurations::founding(members.clone());
        let mut config = Config::new(ReplicaId(1), seed);
        config.lease = LEASE;
        config.heartbeat = LEASE / 4;
        config.resend = LEASE / 4;
        config.window = 2 + random.below(30);
        config.batch_bytes = 100 + random.below(1000) as usize;
        config.log_bytes_kept = random.below(4000) as usize;
        #[cfg(feature = "plant")]
        {
            config.plant = plant;
        }
        #[cfg(not(feature = "plant"))]
        let _there_are_none = plant;
        let hosts: BTreeMap<_, _> = members
            .voters
            .iter()
            .map(|member| (member.id, Host::new(member.id, founding.clone(), &mut random)))
            .collect();
        let mut world = World {
            now: Duration::ZERO,
            queue: BTreeMap::new(),
            scheduled: 0,
            oracle: Oracle::new(founding, config.window),
            network: Network::default(),
            swarm: Swarm::draw(&mut random),
            hosts,
            config,
            slow_disks: false,
            faults_until: Duration::from_secs(5 + random.below(20)),
            replacing: None,
            proposed: 0,
            outstanding: BTreeMap::new(),
            outcome: Outcome { events: 0, chosen: 0, hash: 0 },
            trace,
            random,
        };
        for id in world.hosts.keys().copied().collect::<Vec<_>>() {
            world.at(Duration::ZERO, Event::Start(id));
        }
        world.at(Duration::from_millis(10), Event::Propose);
        world.at(Duration::from_millis(500), Event::Fault);
        world.at(Duration::from_secs(1), Event::Operate);
        world
    }

    fn at(&mut self, time: Duration, event: Event) {
        self.scheduled += 1;
        self.queue.insert((time, self.scheduled), event);
    }

    fn after(&mut self, wait: Duration, event: Event) {
        self.at(self.now + wait, event);
    }

    /// Runs to the end: first faults, then healing, then everything must come to a good end.
    pub(crate) fn run(mut self) -> Outcome {
        while let Some(((time, number), event)) = self.queue.pop_first() {
            self.now = time;
            if let Some(until) = self.postponed(&event).filter(|until| *until > time) {
                self.queue.insert((until, number), event);
                continue;
            }
            self.note(&event);
            self.happen(event);
            self.oracle.check_leases(&self.hosts, self.now);
            if self.healed() && self.ended_well() {
                self.outcome.chosen = self.oracle.last().0;
                return self.outcome;
            }
            assert!(self.now < self.faults_until + HEALED, "liveness: {}", self.describe());
        }
        unreachable!("somebody always waits for something")
    }

    /// Until when the one whom an event concerns does not run.
    fn postponed(&self, event: &Event) -> Option<Duration> {
        let host = match event {
            Event::Arrive(_, to, _) => to,
            Event::Tick(id, _) | Event::Synced(id, _) | Event::Installed(id, ..) => id,
            Event::Start(_) | Event::Propose | Event::Fault | Event::Operate => return None,
        };
        self.hosts.get(host).map(|host| host.stopped_until)
    }

    fn note(&mut self, event: &Event) {
        let (kind, who) = match event {
            Event::Arrive(from, to, message) => {
                (number_of_kind(message), u64::from(from.0) << 8 | u64::from(to.0))
            }
            Event::Tick(id, _) => (20, u64::from(id.0)),
            Event::Synced(id, _) => (21, u64::from(id.0)),
            Event::Installed(id, ..) => (22, u64::from(id.0)),
            Event::Start(id) => (23, u64::from(id.0)),
            Event::Propose => (24, 0),
            Event::Fault => (25, 0),
            Event::Operate => (26, 0),
        };
        self.outcome.events += 1;
        let word = (self.now.as_nanos() as u64).rotate_left(13) ^ kind << 56 ^ who;
        self.outcome.hash = (self.outcome.hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(7);
        if self.trace {
            let time = self.now.as_secs_f64();
            match event {
                Event::Arrive(from, to, message) => eprintln!("{time:9.4} {from} → {to} {message:?}"),
                Event::Tick(id, _) => eprintln!("{time:9.4} {id} tick"),
                Event::Synced(id, _) => eprintln!("{time:9.4} {id} synced"),
                Event::Installed(id, _, snapshot) => {
                    eprintln!("{time:9.4} {id} has the snapshot of {}", snapshot.applied.slot);
                }
                Event::Start(id) => eprintln!("{time:9.4} {id} starts"),
                Event::Propose | Event::Fault | Event::Operate => {}
            }
        }
    }

    fn tell(&self, what: &str) {
        if self.trace {
            eprintln!("{:9.4} -- {what}", self.now.as_secs_f64());
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive(from, to, message) => self.with(to, |paxos, now| paxos.receive(now, from, message)),
            Event::Tick(id, life) if self.life(id) == life => {
                let Some(running) = self.hosts.get_mut(&id).and_then(|host| host.running.as_mut()) else {
                    return;
                };
                running.tick_at = None;
                self.with(id, |paxos, now| paxos.tick(now));
            }
            Event::Synced(id, life) if self.life(id) == life => {
                let now = self.now;
                self.host(id).end_sync(now);
                self.settle(id);
            }
            Event::Installed(id, life, snapshot) if self.life(id) == life => self.install(id, snapshot),
            Event::Tick(..) | Event::Synced(..) | Event::Installed(..) => {}
            Event::Start(id) => self.start(id),
            Event::Propose => self.propose(),
            Event::Fault => self.fault(),
            Event::Operate => self.operate(),
        }
    }

    fn host(&mut self, id: ReplicaId) -> &mut Host {
        self.hosts.get_mut(&id).expect("a host that was made")
    }

    fn life(&self, id: ReplicaId) -> u64 {
        self.hosts.get(&id).map_or(0, |host| host.life)
    }

    fn start(&mut self, id: ReplicaId) {
        let (mut config, now) = (self.config.clone(), self.now);
        (config.replica, config.seed) = (id, self.random.next());
        let host = self.host(id);
        if host.running.is_some() || host.lost {
            return;
        }
        host.start(config, now);
        let applied = host.running.as_ref().map(|running| running.applied).unwrap_or_default();
        self.oracle.applied(applied);
        self.settle(id);
    }

    /// Lets something happen to a replica, and carries out what follows.
    fn with(&mut self, id: ReplicaId, happen: impl FnOnce(&mut wombat_paxos::Paxos, wombat_proto::Instant)) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(&id) else { return };
        let reading = host.now(now);
        let Some(running) = &mut host.running else { return };
        happen(&mut running.paxos, reading);
        self.settle(id);
    }

    /// Carries out what follows from the last input; the replica may die in the middle of it.
    fn settle(&mut self, id: ReplicaId) {
        let Effects { send, chosen, ended, wanted_chunks, received_chunks, snapshot_wanted, .. } =
            self.host(id).flush();
        if self.random.chance(self.swarm.dies_in_step) && !self.healed() {
            return self.kill(id);
        }
        for (slot, value) in chosen.iter().flat_map(Batch::iter) {
            self.oracle.chosen(slot, value, &self.hosts);
            let Some(running) = &mut self.host(id).running else { return };
            assert_eq!(slot, running.applied.slot.next(), "chosen slots come in order without a gap");
            running.applied.apply(slot, value);
            let applied = running.applied;
            self.oracle.applied(applied);
            // Its proposer leads still, unless it is told below how the proposal has ended: it tells its client.
            let told = ended.iter().filter(|(ended, _)| *ended == slot).count();
            if let Some(numbers) = self.outstanding.get_mut(&(id, slot)).filter(|n| n.len() > told) {
                assert_eq!(numbers.pop(), number_of(value), "a proposer's slot {slot} holds another's value");
                self.oracle.acknowledged = self.oracle.acknowledged.max(slot);
            }
        }
        self.forget_if_deposed(id, &ended);
        for (to, message) in send {
            if self.random.chance(self.swarm.dies_in_step) && !self.healed() {
                return self.kill(id);
            }
            for delay in self.network.arrivals(id, to, &mut self.random) {
                self.after(delay, Event::Arrive(id, to, message.clone()));
            }
        }
        if snapshot_wanted {
            self.write_snapshot(id);
        }
        for wanted in wanted_chunks {
            self.send_chunk(id, &wanted);
        }
        for received in received_chunks {
            self.receive_chunk(id, received);
        }
        if self.host(id).begin_sync() {
            let most = if self.slow_disks { 3000 } else { 10 };
            let (wait, life) = (self.random.millis(0, most), self.life(id));
            self.after(wait, Event::Synced(id, life));
        }
        self.schedule_tick(id);
    }

    /// A proposer that leads no more tells its clients later, or never.
    fn forget_if_deposed(&mut self, id: ReplicaId, ended: &[(Slot, wombat_paxos::Outcome)]) {
        for (slot, outcome) in ended {
            if let Some(numbers) = self.outstanding.get_mut(&(id, *slot)).filter(|n| !n.is_empty()) {
                self.oracle.ended(*slot, numbers.remove(0), *outcome);
            }
        }
        self.outstanding.retain(|_, numbers| !numbers.is_empty());
    }

    fn schedule_tick(&mut self, id: ReplicaId) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(&id) else { return };
        let (clock, life) = (host.clock, host.life);
        let Some(running) = &mut host.running else { return };
        let Some(due) = running.paxos.next_deadline() else { return };
        if running.tick_at.is_some_and(|at| at <= due) {
            return;
        }
        running.tick_at = Some(due);
        let at = clock.when(due).max(now + Duration::from_micros(10));
        self.at(at, Event::Tick(id, life));
    }

    // ---- Snapshots ----

    fn snapshot(&mut self, id: ReplicaId) {
        self.write_snapshot(id);
        self.settle(id);
    }

    fn write_snapshot(&mut self, id: ReplicaId) {
        let chunks = 1 + self.random.below(4) as u32;
        let host = self.host(id);
        let Some(running) = &mut host.running else { return };
        let configurations = running.paxos.configurations().clone();
        let slot = running.applied.slot;
        host.disk.put_snapshot(Snapshot { applied: running.applied, configurations, chunks });
        running.paxos.snapshotted(slot);
    }

    fn send_chunk(&mut self, id: ReplicaId, wanted: &WantedChunk) {
        let Some(snapshot) = &self.host(id).disk.snapshot else { return };
        let slot = snapshot.applied.slot;
        let message = if slot == wanted.snapshot && wanted.index < snapshot.chunks {
            Message::Chunk {
                snapshot: slot,
                index: wanted.index,
                last: wanted.index + 1 == snapshot.chunks,
                bytes: Bytes::copy_from_slice(&snapshot.applied.hash.to_be_bytes()),
            }
        } else {
            Message::Truncated { snapshot: slot }
        };
        for delay in self.network.arrivals(id, wanted.to, &mut self.random) {
            self.after(delay, Event::Arrive(id, wanted.to, message.clone()));
        }
    }

    fn receive_chunk(&mut self, id: ReplicaId, received: ReceivedChunk) {
        let ReceivedChunk { snapshot, index, last, bytes } = received;
        if !last {
            return;
        }
        let hash = u64::from_be_bytes(bytes[..8].try_into().expect("eight bytes"));
        // What the chunks would say: whoever took a snapshot of that slot knew the same members.
        let configurations = self.oracle.configurations_after(snapshot);
        let arrived =
            Snapshot { applied: Applied { slot: snapshot, hash }, configurations, chunks: index + 1 };
        let (wait, life) = (self.random.millis(0, 50), self.life(id));
        self.after(wait, Event::Installed(id, life, arrived));
    }

    fn install(&mut self, id: ReplicaId, snapshot: Snapshot) {
        let now = self.now;
        let host = self.host(id);
        let reading = host.now(now);
        host.disk.put_snapshot(snapshot.clone());
        let Some(running) = &mut host.running else { return };
        if running.paxos.installed(reading, snapshot.applied.slot, snapshot.configurations) {
            running.applied = snapshot.applied;
            self.oracle.applied(snapshot.applied);
        }
        self.settle(id);
    }

    // ---- Clients ----

    fn propose(&mut self) {
        let wait = self.random.millis(1, 400);
        self.after(wait, Event::Propose);
        let burst = 1 + self.random.below(8);
        let ids: Vec<ReplicaId> = self.hosts.keys().copied().collect();
        let id = ids[self.random.below(ids.len() as u64) as usize];
        let leader = self.master().filter(|_| self.random.chance(800)).unwrap_or(id);
        if self.hosts[&leader].stopped_until > self.now {
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
                Err(Error::NotMaster { .. } | Error::Overloaded { .. }) => break,
                Err(error) => panic!("a proposal was refused with {error:?}"),
            }
        }
        self.settle(leader);
    }

    /// Whoever leads, if anyone.
    fn master(&self) -> Option<ReplicaId> {
        let leads =
            |host: &&Host| host.running.as_ref().is_some_and(|running| running.paxos.leads().is_some());
        self.hosts.values().rfind(leads).map(|host| host.id)
    }

    // ---- Faults ----

    fn healed(&self) -> bool {
        self.now > self.faults_until
    }

    fn fault(&mut self) {
        if self.healed() {
            return self.heal();
        }
        let wait = self.random.duration(Duration::from_millis(20), self.swarm.pause);
        self.after(wait, Event::Fault);
        let Some(fault) = self.swarm.next(&mut self.random) else { return };
        let ids: Vec<ReplicaId> = self.hosts.values().filter(|host| !host.lost).map(|host| host.id).collect();
        let some = ids[self.random.below(ids.len() as u64) as usize];
        // The master is worth more trouble than others.
        let one = self.master().filter(|_| self.random.chance(400)).unwrap_or(some);
        self.tell(&format!("{fault:?} {one}"));
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
            Fault::Pause => {
                let stop = self.random.duration(Duration::ZERO, LEASE * 4);
                let until = self.now + stop;
                self.host(one).stopped_until = until;
            }
            Fault::Partition => {
                let master = self.master();
                self.network.partition(&ids, master, &mut self.random);
            }
            Fault::Weather => self.network.weather = swarm::weather(&mut self.random),
            Fault::Wipe => self.wipe(one),
            Fault::Transfer => {
                let master = self.master();
                if let Some(master) = master {
                    self.with(master, |paxos, _| drop(paxos.transfer(one)));
                }
            }
            Fault::Snapshot => self.snapshot(one),
            Fault::SlowDisk => self.slow_disks = !self.slow_disks,
            Fault::Replace => {
                let votes = self.oracle.configurations().newest().is_voter(one);
                if self.replacing.is_none() && votes && self.hosts.len() < 12 {
                    self.begin_to_replace(one);
                }
            }
        }
    }

    fn kill(&mut self, id: ReplicaId) {
        let Some(host) = self.hosts.get_mut(&id) else { return };
        if host.running.is_none() {
            return;
        }
        host.die(&mut self.random);
        self.outstanding.retain(|(proposer, _), _| *proposer != id);
        let down = self.random.duration(Duration::ZERO, LEASE * 3);
        self.after(down, Event::Start(id));
    }

    /// A disk is gone. Not more at a time than a cell can bear: of every group of voters that still governs
    /// anything in anyone's eyes, a quorum keeps its disks.
    fn wipe(&mut self, id: ReplicaId) {
        if self.hosts.len() >= 12 {
            return;
        }
        let mut groups: Vec<Members> =
            self.oracle.configurations().entries().iter().map(|(_, members)| members.clone()).collect();
        groups.reverse();
        // Whoever knows the least decides how far back a group still counts.
        let intact = self.hosts.values().filter(|host| !host.lost && host.id != id);
        let known = intact.map(|host| {
            let running = host.running.as_ref().map(|running| running.applied.slot);
            running.unwrap_or_else(|| host.disk.snapshot_slot())
        });
        let least = known.min().unwrap_or_default();
        let entries = self.oracle.configurations().entries();
        for (place, (_, members)) in entries.iter().enumerate() {
            let over = entries.get(place + 1).is_some_and(|(next, _)| *next <= least);
            let gone = |id_: ReplicaId| id_ == id || self.hosts.get(&id_).is_some_and(|host| host.lost);
            if !over && !members.is_quorum(|voter| !gone(voter)) {
                return;
            }
        }
        if self.replacing.is_some() {
            return;
        }
        self.kill(id);
        let host = self.host(id);
        host.lost = true; // What its disk held still counts for what was chosen before.
        if self.oracle.configurations().newest().is_voter(id) {
            self.begin_to_replace(id);
        }
    }

    fn begin_to_replace(&mut self, old: ReplicaId) {
        let newest = self.oracle.configurations().newest();
        let id = ReplicaId(newest.next_id.max(self.hosts.keys().map_or_next()));
        let host = Host::new(id, Configurations::default(), &mut self.random);
        self.hosts.insert(id, host);
        self.replacing = Some((old, id));
        self.tell(&format!("{id} is to take the place of {old}"));
        self.after(Duration::ZERO, Event::Start(id));
    }

    /// What a person does who looks after the cell: the new replica learns first, then takes the vote.
    fn operate(&mut self) {
        self.after(Duration::from_millis(300), Event::Operate);
        let Some((old, new)) = self.replacing else { return };
        let Some(master) = self.master() else { return };
        if self.hosts[&master].stopped_until > self.now {
            return;
        }
        let Some(running) = &self.hosts[&master].running else { return };
        let status = running.paxos.status();
        let members = status.members;
        if !status.members_in_force {
            return;
        }
        if members.is_voter(new) {
            // Done, once another leads. A replaced replica that still runs is switched off.
            if master == old {
                return;
            }
            self.replacing = None;
            self.kill(old);
            self.host(old).lost = true;
            return;
        }
        let mut wanted = members.clone();
        if members.get(new).is_none() {
            wanted.learners.push(Member { id: new, address: format!("host-{new}") });
            wanted.next_id = new.0 + 1;
        } else {
            let joined_at = running.paxos.configurations().newest_from();
            if !status.peers.iter().any(|peer| peer.id == new && peer.chosen >= joined_at) {
                return;
            }
            wanted.learners.retain(|member| member.id != new);
            wanted.voters.retain(|member| member.id != old);
            wanted.voters.push(Member { id: new, address: format!("host-{new}") });
        }
        self.with(master, |paxos, _| drop(paxos.change_members(wanted)));
    }

    /// The end of all trouble. A minority may stay dead.
    fn heal(&mut self) {
        self.tell("healed");
        self.network.heal();
        self.slow_disks = false;
        let now = self.now;
        for host in self.hosts.values_mut() {
            host.stopped_until = host.stopped_until.min(now);
        }
        let dead = self.hosts.values().filter(|host| host.running.is_none() && !host.lost);
        for id in dead.map(|host| host.id).collect::<Vec<_>>() {
            if self.random.chance(700) || !self.can_do_without(id) {
                self.start(id);
            } else {
                self.host(id).lost = true;
            }
        }
    }

    /// Whether every group of voters has a quorum without this replica.
    fn can_do_without(&self, id: ReplicaId) -> bool {
        let there = |one: ReplicaId| one != id && self.hosts.get(&one).is_some_and(|host| !host.lost);
        let least = self.hosts.values().filter(|host| !host.lost).map(|host| host.disk.snapshot_slot()).min();
        let entries = self.oracle.configurations().entries();
        let groups = entries.iter().enumerate().filter(|(place, _)| {
            entries.get(place + 1).is_none_or(|(next, _)| *next > least.unwrap_or_default())
        });
        groups.into_iter().all(|(_, (_, members))| members.is_quorum(there))
            && self.replacing.is_none_or(|(_, new)| new != id)
    }

    // ---- The end ----

    /// One master, everyone alive at the same slot, and nothing open.
    fn ended_well(&self) -> bool {
        if self.now < self.faults_until + Duration::from_secs(5) || self.replacing.is_some() {
            return false;
        }
        let Some(master) = self.master().filter(|id| self.hosts[id].serves(self.now)) else { return false };
        let Some(running) = &self.hosts[&master].running else { return false };
        let slot = running.applied.slot;
        let settled = slot == self.oracle.last() && slot >= self.oracle.acknowledged;
        let newest = self.oracle.configurations().newest();
        let alive = self.hosts.values().filter(|host| !host.lost && newest.get(host.id).is_some());
        let equal = alive.into_iter().all(|host| {
            host.running.as_ref().is_some_and(|running| {
                slot.0.saturating_sub(running.applied.slot.0) <= self.config.window
                    && running.applied.slot.0 + 200 > slot.0
            })
        });
        settled && equal && self.outstanding.keys().all(|(id, _)| *id == master)
    }

    fn describe(&self) -> String {
        let one = |host: &Host| {
            let Some(running) = &host.running else { return format!("{}: dead; ", host.id) };
            let status = running.paxos.status();
            format!(
                "{}: {:?} {} chosen {} last {} of {}; ",
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
        format!("{hosts}replacing {:?}, {open} proposals open, last {}", self.replacing, self.oracle.last())
    }
}

trait OneMore {
    fn map_or_next(self) -> u32;
}

impl<'a, I: Iterator<Item = &'a ReplicaId>> OneMore for I {
    /// The id after all of these.
    fn map_or_next(self) -> u32 {
        self.map(|id| id.0).max().unwrap_or(0) + 1
    }
}

fn number_of_kind(message: &Message) -> u64 {
    match message {
        Message::Ask { .. } => 1,
        Message::Answer { .. } => 2,
        Message::Prepare { .. } => 3,
        Message::Promise { .. } => 4,
        Message::Accept { .. } => 5,
        Message::Accepted { .. } => 6,
        Message::Heartbeat { .. } => 7,
        Message::Granted { .. } => 8,
        Message::Refused { .. } => 9,
        Message::Fetch { .. } => 10,
        Message::Learn { .. } => 11,
        Message::Truncated { .. } => 12,
        Message::FetchChunk { .. } => 13,
        Message::Chunk { .. } => 14,
        Message::TakeOver { .. } => 15,
    }
}
