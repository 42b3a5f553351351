//! The world of a run: real time, a queue of events, one source of chance.

use super::host::{Applied, Host, Snapshot};
use super::operator::Change;
use super::oracle::{Oracle, number_of};
use super::swarm::Swarm;
use crate::network::{Network, is_large, kind_of};
use crate::random::{Clock, Random};
use std::collections::BTreeMap;
use std::time::Duration;
use wombat_paxos::{Batch, Config, Configurations, Effects, Message, ReceivedChunk, WantedChunk};
use wombat_proto::{Error, Instant, Members, ReplicaId, Slot};

/// The master lease.
pub(super) const LEASE: Duration = Duration::from_secs(1);
/// How long after the healing a master has to be there, all be at the same slot and everything ended.
const HEALED: Duration = Duration::from_secs(40);

/// Something that is about to happen.
pub(super) enum Event {
    Arrive(ReplicaId, ReplicaId, Message),
    /// A tick is due at that time of its clock, unless another is due by now.
    Tick(ReplicaId, u64, Instant),
    Synced(ReplicaId, u64),
    /// A snapshot that was received is on the disk.
    Installed(ReplicaId, u64, Snapshot),
    /// A snapshot that was taken is on the disk.
    Written(ReplicaId, u64, Snapshot),
    Start(ReplicaId),
    /// Clients propose.
    Propose,
    Fault,
    /// A fault out of turn.
    Trouble,
    /// The network falls apart while the members change: the master and a new member are on one side.
    Split(ReplicaId, ReplicaId),
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

impl crate::runner::Outcome for Outcome {
    fn events(&self) -> u64 {
        self.events
    }

    fn hash(&self) -> u64 {
        self.hash
    }
}

pub(crate) struct World {
    pub(super) now: Duration,
    pub(super) queue: BTreeMap<(Duration, u64), Event>,
    pub(super) scheduled: u64,
    pub(super) random: Random,
    pub(super) hosts: BTreeMap<ReplicaId, Host>,
    pub(super) network: Network,
    pub(super) oracle: Oracle,
    pub(super) swarm: Swarm,
    /// The numbers that replicas live by, but for their own.
    pub(super) config: Config,
    pub(super) faults_until: Duration,
    /// The last slot that anyone knew when the faults ended.
    pub(super) healed_at: Option<Slot>,
    /// Since when nothing is open, and nobody proposes any more.
    pub(super) quiet: Option<Duration>,
    /// What the operator is about to do with the members.
    pub(super) change: Option<Change>,
    pub(super) proposed: u64,
    /// The numbers of what each replica has proposed in this life, by slot.
    pub(super) outstanding: BTreeMap<(ReplicaId, Slot), Vec<u64>>,
    pub(super) outcome: Outcome,
    pub(super) trace: bool,
}

impl World {
    pub(crate) fn new(seed: u64, trace: bool, plant: Option<crate::Planted>) -> World {
        let mut random = Random::new(seed);
        let voters = [1, 3, 3, 5, 5, 5][random.below(6) as usize];
        let members = Members::founding((0..voters).map(|n| format!("host-{n}")));
        let founding = Configurations::founding(members.clone());
        let mut config = Config::new(ReplicaId(1), seed);
        let swarm = Swarm::draw(&mut random);
        config.lease = LEASE;
        config.patience = LEASE * swarm.patience;
        config.stall = LEASE * 2;
        config.longest_lease = LEASE * 4;
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
        let mut world = World {
            now: Duration::ZERO,
            queue: BTreeMap::new(),
            scheduled: 0,
            oracle: Oracle::new(founding.clone(), config.window),
            network: Network::new(swarm.network),
            swarm,
            hosts: BTreeMap::new(),
            config,
            faults_until: Duration::from_secs(5 + random.below(20)),
            healed_at: None,
            quiet: None,
            change: None,
            proposed: 0,
            outstanding: BTreeMap::new(),
            outcome: Outcome { events: 0, chosen: 0, hash: 0 },
            trace,
            random,
        };
        for member in &members.voters {
            world.add_host(member.id, founding.clone());
            world.at(Duration::ZERO, Event::Start(member.id));
        }
        world.at(Duration::from_millis(10), Event::Propose);
        let first_fault = world.random.millis(1, 1000);
        world.at(first_fault, Event::Fault);
        world.at(Duration::from_secs(1), Event::Operate);
        world
    }

    pub(super) fn add_host(&mut self, id: ReplicaId, founding: Configurations) {
        let random = &mut self.random;
        let clock = if self.swarm.worst_clocks { Clock::worst(random) } else { Clock::new(random) };
        self.hosts.insert(id, Host::new(id, founding, clock));
    }

    fn at(&mut self, time: Duration, event: Event) {
        self.scheduled += 1;
        self.queue.insert((time, self.scheduled), event);
    }

    pub(super) fn after(&mut self, wait: Duration, event: Event) {
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
            self.oracle.check_ages(&self.hosts, self.now);
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
            Event::Tick(id, ..) | Event::Synced(id, _) | Event::Installed(id, ..) => id,
            Event::Written(id, ..) => id,
            Event::Start(_) | Event::Propose | Event::Operate => return None,
            Event::Fault | Event::Trouble | Event::Split(..) => return None,
        };
        self.hosts.get(host).map(|host| host.stopped_until)
    }

    fn note(&mut self, event: &Event) {
        let (kind, who) = match event {
            Event::Arrive(from, to, message) => (kind_of(message), u64::from(from.0) << 8 | u64::from(to.0)),
            Event::Tick(id, ..) => (20, u64::from(id.0)),
            Event::Synced(id, _) => (21, u64::from(id.0)),
            Event::Installed(id, ..) => (22, u64::from(id.0)),
            Event::Start(id) => (23, u64::from(id.0)),
            Event::Propose => (24, 0),
            Event::Fault => (25, 0),
            Event::Operate => (26, 0),
            Event::Trouble => (27, 0),
            Event::Split(master, new) => (29, u64::from(master.0) << 8 | u64::from(new.0)),
            Event::Written(id, ..) => (28, u64::from(id.0)),
        };
        self.outcome.events += 1;
        let mixed = self.outcome.hash ^ self.now.as_nanos() as u64 ^ (kind << 56) ^ who;
        self.outcome.hash = mixed.wrapping_mul(0x100_0000_01b3).rotate_left(17);
        if self.trace {
            let time = self.now.as_secs_f64();
            match event {
                Event::Arrive(from, to, message) => eprintln!("{time:9.4} {from} → {to} {message:?}"),
                Event::Tick(id, ..) => eprintln!("{time:9.4} {id} tick"),
                Event::Synced(id, _) => eprintln!("{time:9.4} {id} synced"),
                Event::Installed(id, _, snapshot) => {
                    eprintln!("{time:9.4} {id} has the snapshot of {}", snapshot.applied.slot);
                }
                Event::Written(id, _, snapshot) => {
                    eprintln!("{time:9.4} {id} has written its snapshot of {}", snapshot.applied.slot);
                }
                Event::Start(id) => eprintln!("{time:9.4} {id} starts"),
                Event::Propose | Event::Fault | Event::Trouble | Event::Split(..) | Event::Operate => {}
            }
        }
    }

    pub(super) fn tell(&self, what: &str) {
        if self.trace {
            eprintln!("{:9.4} -- {what}", self.now.as_secs_f64());
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive(from, to, message) => {
                let counts = matches!(message, Message::Accepted { .. });
                self.with(to, |paxos, now| paxos.receive(now, from, message));
                if let Some(host) = self.hosts.get(&to).filter(|_| counts) {
                    self.oracle.counts(host, &self.hosts);
                }
            }
            Event::Tick(id, life, due) if self.life(id) == life => {
                let Some(running) = self.hosts.get_mut(&id).and_then(|host| host.running.as_mut()) else {
                    return;
                };
                if running.tick_at != Some(due) {
                    return;
                }
                running.tick_at = None;
                self.with(id, |paxos, now| paxos.tick(now));
            }
            Event::Synced(id, life) if self.life(id) == life => {
                let now = self.now;
                self.host(id).end_sync(now);
                self.settle(id);
            }
            Event::Installed(id, life, snapshot) if self.life(id) == life => self.install(id, snapshot),
            Event::Written(id, life, snapshot) if self.life(id) == life => self.written(id, snapshot),
            Event::Tick(..) | Event::Synced(..) | Event::Installed(..) | Event::Written(..) => {}
            Event::Start(id) => self.start(id),
            Event::Propose => self.propose(),
            Event::Fault => self.fault(),
            Event::Trouble => self.trouble(),
            Event::Split(master, new) if !self.healed() => {
                let ids: Vec<ReplicaId> = self.hosts.keys().copied().collect();
                self.tell(&format!("{master} and {new} are split off"));
                self.network.split(&ids, master, new, &mut self.random);
            }
            Event::Split(..) => {}
            Event::Operate => self.operate(),
        }
    }

    pub(super) fn host(&mut self, id: ReplicaId) -> &mut Host {
        self.hosts.get_mut(&id).expect("a host that was made")
    }

    pub(super) fn life(&self, id: ReplicaId) -> u64 {
        self.hosts.get(&id).map_or(0, |host| host.life)
    }

    pub(super) fn start(&mut self, id: ReplicaId) {
        let (mut config, now) = (self.config.clone(), self.now);
        (config.replica, config.seed) = (id, self.random.next());
        if self.swarm.leases_vary {
            config.lease = [LEASE / 2, LEASE * 3 / 4, LEASE][self.random.below(3) as usize];
        }
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
    pub(super) fn with(
        &mut self,
        id: ReplicaId,
        happen: impl FnOnce(&mut wombat_paxos::Paxos, wombat_proto::Instant),
    ) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(&id) else { return };
        let reading = host.now(now);
        let Some(running) = &mut host.running else { return };
        happen(&mut running.paxos, reading);
        self.settle(id);
    }

    /// Carries out what follows from the last input; the replica may die in the middle of it.
    pub(super) fn settle(&mut self, id: ReplicaId) {
        let Effects { send, chosen, ended, wanted_chunks, received_chunks, snapshot_wanted, .. } =
            self.host(id).flush();
        if self.random.chance(self.swarm.dies_in_step) && !self.healed() {
            return self.kill(id);
        }
        for (slot, value) in chosen.iter().flat_map(Batch::iter) {
            self.oracle.chosen(&self.hosts[&id], slot, value, &self.hosts);
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
        self.oracle.leads(&self.hosts[&id], self.now);
        for (to, message) in send {
            if self.random.chance(self.swarm.dies_in_step) && !self.healed() {
                return self.kill(id);
            }
            let elected = self.oracle.said(&self.hosts[&id], &message, &self.hosts);
            if elected && self.random.chance(self.swarm.hits_elections) {
                let wait = self.random.millis(0, 20);
                self.after(wait, Event::Trouble);
            }
            self.carry(id, to, message);
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
            let most = if self.host(id).slow { Duration::from_secs(3) } else { self.swarm.disk };
            let (wait, life) = (self.random.duration(Duration::ZERO, most), self.life(id));
            self.after(wait, Event::Synced(id, life));
        }
        self.schedule_tick(id);
    }

    /// Sends a message on its way.
    fn carry(&mut self, from: ReplicaId, to: ReplicaId, message: Message) {
        for delay in self.network.arrivals(from, to, kind_of(&message), is_large(&message), &mut self.random)
        {
            self.after(delay, Event::Arrive(from, to, message.clone()));
        }
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
        self.at(at, Event::Tick(id, life, due));
    }

    // ---- Snapshots ----

    pub(super) fn snapshot(&mut self, id: ReplicaId) {
        self.write_snapshot(id);
        self.settle(id);
    }

    fn write_snapshot(&mut self, id: ReplicaId) {
        let chunks = 1 + self.random.below(4) as u32;
        let host = self.host(id);
        let most = if host.slow { 3000 } else { 50 };
        let Some(running) = host.running.as_mut().filter(|running| !running.writing) else { return };
        running.writing = true;
        let configurations = running.paxos.configurations().clone();
        let snapshot = Snapshot { applied: running.applied, configurations, chunks };
        let (wait, life) = (self.random.millis(0, most), self.life(id));
        self.after(wait, Event::Written(id, life, snapshot));
    }

    fn written(&mut self, id: ReplicaId, snapshot: Snapshot) {
        let host = self.host(id);
        let slot = snapshot.applied.slot;
        host.disk.put_snapshot(snapshot);
        let Some(running) = &mut host.running else { return };
        running.writing = false;
        running.paxos.snapshotted(slot);
        self.settle(id);
    }

    fn send_chunk(&mut self, id: ReplicaId, wanted: &WantedChunk) {
        let Some(snapshot) = &self.host(id).disk.snapshot else { return };
        let slot = snapshot.applied.slot;
        let message = if slot == wanted.snapshot && wanted.index < snapshot.chunks {
            Message::Chunk {
                snapshot: slot,
                index: wanted.index,
                last: wanted.index + 1 == snapshot.chunks,
                bytes: [snapshot.applied.hash, snapshot.configurations.round()]
                    .map(u64::to_be_bytes)
                    .concat()
                    .into(),
            }
        } else {
            Message::Truncated { snapshot: slot }
        };
        self.carry(id, wanted.to, message);
    }

    fn receive_chunk(&mut self, id: ReplicaId, received: ReceivedChunk) {
        let ReceivedChunk { snapshot, index, last, bytes } = received;
        let Some(running) = &mut self.host(id).running else { return };
        let follows = index == 0 || running.incoming == Some((snapshot, index));
        assert!(follows, "chunk {index} of the snapshot of {snapshot} comes out of order");
        running.incoming = (!last).then_some((snapshot, index + 1));
        if !last {
            return;
        }
        let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let hash = number(0);
        // What the chunks would say: whoever took a snapshot of that slot knew the same members.
        let members = self.oracle.configurations_after(snapshot).entries().to_vec();
        let configurations = Configurations::restore(members, number(8)).expect("they were in order");
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
            let (old, new) = (running.applied.slot, snapshot.applied.slot);
            assert!(new > old, "I19: the snapshot of {new} was put over the state after {old}");
            running.applied = snapshot.applied;
            self.oracle.applied(snapshot.applied);
        }
        self.settle(id);
    }

    // ---- Clients ----

    fn propose(&mut self) {
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
                Err(error @ (Error::NotMaster { .. } | Error::Overloaded { .. })) => {
                    self.tell(&format!("{leader} refuses a proposal: {error}"));
                    break;
                }
                Err(error) => panic!("a proposal was refused with {error:?}"),
            }
        }
        self.settle(leader);
    }

    /// Whoever leads, if anyone.
    pub(super) fn master(&self) -> Option<ReplicaId> {
        let leads =
            |host: &&Host| host.running.as_ref().is_some_and(|running| running.paxos.leads().is_some());
        self.hosts.values().rfind(leads).map(|host| host.id)
    }
}
