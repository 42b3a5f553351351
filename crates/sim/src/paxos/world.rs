//! The world of a run: real time, a queue of events, one source of chance.

use super::change::Change;
use super::event::Event;
use super::host::Host;
use super::oracle::{Oracle, number_of};
use super::planted::Planted;
use super::swarm::{LEASE, Swarm};
use crate::faults::FaultyWorld;
use crate::network::{Network, is_large, kind_of};
use crate::random::{Clock, Random};
use crate::schedule::{Happened, Schedule};
use std::collections::BTreeMap;
use std::time::Duration;
use wombat_paxos::{Batch, Config, Configurations, Effects, Message};
use wombat_proto::{Members, ReplicaId, Slot};

/// How long after the healing a master has to be there, all be at the same slot and everything ended.
const HEALED: Duration = Duration::from_secs(40);

/// How a run ended; equal for equal seeds.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Outcome {
    happened: Happened,
    chosen: u64,
}

impl crate::runner::Outcome for Outcome {
    fn happened(&self) -> Happened {
        self.happened
    }
}

pub(crate) struct World {
    pub(super) schedule: Schedule<Event>,
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
}

impl World {
    pub(crate) fn new(seed: u64, trace: bool, plant: Option<Planted>) -> World {
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
            schedule: Schedule::new(trace),
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
        let clock = Clock::draw(self.swarm.worst_clocks, &mut self.random);
        self.hosts.insert(id, Host::new(id, founding, clock));
    }

    pub(super) fn now(&self) -> Duration {
        self.schedule.now()
    }

    pub(super) fn at(&mut self, time: Duration, event: Event) {
        self.schedule.at(time, event);
    }

    pub(super) fn after(&mut self, wait: Duration, event: Event) {
        self.at(self.now() + wait, event);
    }

    /// Says what happens, if that is wanted.
    pub(super) fn tell(&self, what: &str) {
        self.schedule.print(format_args!("-- {what}"));
    }

    /// Runs to the end: first faults, then healing, then everything must come to a good end.
    pub(crate) fn run(mut self) -> Outcome {
        while let Some((number, event)) = self.schedule.next() {
            let now = self.now();
            let host = event.replica().and_then(|id| self.hosts.get(&id));
            if let Some(until) = host.map(|host| host.stopped_until).filter(|until| *until > now) {
                self.schedule.postpone(until, number, event);
                continue;
            }
            let (kind, detail) = event.summary();
            self.schedule.note(kind, detail);
            self.schedule.print(format_args!("{event}"));
            self.happen(event);
            self.oracle.check_leases(&self.hosts, now);
            self.oracle.check_ages(&self.hosts, now);
            if self.healed() && self.ended_well() {
                return Outcome { happened: self.schedule.happened(), chosen: self.oracle.last().0 };
            }
            assert!(now < self.faults_until + HEALED, "liveness: {}", self.describe());
        }
        unreachable!("an event is always due")
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
                let now = self.now();
                self.host(id).end_sync(now);
                self.settle(id);
            }
            Event::Installed(id, life, snapshot) if self.life(id) == life => self.install(id, snapshot),
            Event::Written(id, life, snapshot) if self.life(id) == life => self.written(id, snapshot),
            Event::Tick(..) | Event::Synced(..) | Event::Installed(..) | Event::Written(..) => {}
            Event::Start(id) => self.start(id),
            Event::Propose => self.propose(),
            Event::Fault => self.fault(),
            Event::ExtraFault => self.extra_fault(),
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
        let (mut config, now) = (self.config.clone(), self.now());
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
        let now = self.now();
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
        self.oracle.leads(&self.hosts[&id], self.now());
        for (to, message) in send {
            if self.random.chance(self.swarm.dies_in_step) && !self.healed() {
                return self.kill(id);
            }
            let elected = self.oracle.said(&self.hosts[&id], &message, &self.hosts);
            if elected && self.random.chance(self.swarm.hits_elections) {
                let wait = self.random.millis(0, 20);
                self.after(wait, Event::ExtraFault);
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
    pub(super) fn carry(&mut self, from: ReplicaId, to: ReplicaId, message: Message) {
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
        let now = self.now();
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
}
