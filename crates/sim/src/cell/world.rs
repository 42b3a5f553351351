//! The world of a run: a queue of events, one source of chance, and the replicas and clients that events happen to.

use super::client::Client;
use super::connections::Connections;
use super::event::Event;
use super::machine::Machine;
use super::oracle::Oracle;
use super::oracle::search::SearchBound;
use super::oracle::view::View;
use super::search_plan::SearchPlan;
use super::swarm::Swarm;
use super::tally::Tally;
use crate::network::Network;
use crate::random::{Clock, Random};
use crate::schedule::{Happened, Schedule};
use std::collections::BTreeMap;
use std::time::Duration;
use wombat_proto::ReplicaId;
use wombat_replica::{ConnectionId, Input};

/// By when, after the faults, everything must have ended well.
const HEALED: Duration = Duration::from_secs(120);

/// How a run ended; equal for equal seeds.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Outcome {
    happened: Happened,
    pub(crate) tally: Tally,
}

impl crate::runner::Outcome for Outcome {
    fn happened(&self) -> Happened {
        self.happened
    }
}

pub(crate) struct World {
    pub(super) schedule: Schedule<Event>,
    pub(super) random: Random,
    pub(super) machines: BTreeMap<ReplicaId, Machine>,
    pub(super) clients: Vec<Client>,
    /// Between replicas, and between clients and replicas.
    pub(super) network: Network,
    pub(super) connections: Connections,
    pub(super) oracle: Oracle,
    pub(super) swarm: Swarm,
    /// In a run about the search for the master: what clients are given.
    pub(super) search: Option<SearchPlan>,
    pub(super) faults_until: Duration,
    pub(super) healed: bool,
    pub(super) tally: Tally,
}

impl World {
    pub(crate) fn new(seed: u64, trace: bool) -> World {
        let mut random = Random::new(seed);
        let swarm = Swarm::draw(&mut random);
        let replicas = [1, 3, 3, 3, 5][random.below(5) as usize];
        World::with(swarm, replicas, None, random, trace)
    }

    /// A run about the search for the master: nothing else goes wrong.
    pub(crate) fn searching(seed: u64, trace: bool) -> World {
        let mut random = Random::new(seed);
        let swarm = Swarm::quiet(&mut random);
        let replicas = [3, 5][random.below(2) as usize];
        let plan = SearchPlan::draw(replicas, &mut random);
        World::with(swarm, replicas, Some(plan), random, trace)
    }

    fn with(
        swarm: Swarm,
        replicas: u32,
        search: Option<SearchPlan>,
        mut random: Random,
        trace: bool,
    ) -> World {
        let faults_until = Duration::from_secs(20 + random.below(50));
        let bound = search.as_ref().map(|_| SearchBound::new(swarm.terms.session_lease));
        let mut world = World {
            schedule: Schedule::new(trace),
            machines: BTreeMap::new(),
            clients: Vec::new(),
            network: Network::new(swarm.network),
            connections: Connections::default(),
            oracle: Oracle { search: bound, ..Oracle::default() },
            faults_until,
            search,
            healed: false,
            tally: Tally::default(),
            swarm,
            random,
        };
        for id in (1..=replicas).map(ReplicaId) {
            let clock = Clock::draw(world.swarm.worst_clocks, &mut world.random);
            world.machines.insert(id, Machine::new(id, replicas, clock, &mut world.random));
            world.at(Duration::ZERO, Event::Start(id));
        }
        for _ in 0..3 + world.random.below(6) {
            world.add_client();
        }
        let first_fault = match world.search {
            Some(_) => world.random.millis(5000, 20_000),
            None => world.random.millis(1, 5000),
        };
        world.at(first_fault, Event::Fault);
        world.at(Duration::ZERO, Event::ReadStale);
        world.at(Duration::ZERO, Event::Observe);
        world
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

    pub(super) fn machine(&mut self, id: ReplicaId) -> &mut Machine {
        self.machines.get_mut(&id).expect("a machine of the cell")
    }

    /// The world as the oracle sees it.
    pub(super) fn view(&self) -> View<'_> {
        View { now: self.now(), machines: &self.machines, clients: &self.clients }
    }

    /// Runs to the end: first faults, then healing, then everything must come to a good end.
    pub(crate) fn run(mut self) -> Outcome {
        let master_lease = self.swarm.terms.master_lease;
        while let Some((number, event)) = self.schedule.next() {
            let now = self.now();
            if let Some(until) = self.stopped_until(&event).filter(|until| *until > now) {
                // A process that goes on looks at what has arrived before it looks at the clock.
                let clock = matches!(event, Event::Tick(..) | Event::ClientTick(..));
                self.schedule.postpone(until + Duration::from_nanos(clock.into()), number, event);
                continue;
            }
            self.note(&event);
            let (client, last) = (self.client_of(&event), self.oracle.history.last());
            // A client that goes on after it was stopped reads before it processes anything.
            let some = self.random.below(self.clients.len() as u64) as usize;
            self.read_cached(client.unwrap_or(some));
            self.happen(event);
            self.read_cached(client.unwrap_or(some));
            // What clients believe can have become wrong only by what they have done, or by the log.
            let affects_clients = client.is_some() || self.oracle.history.last() != last;
            let World { schedule, machines, clients, oracle, faults_until, healed, tally, .. } = &mut self;
            let view = View { now: schedule.now(), machines, clients };
            oracle.check_master(&view);
            oracle.search.iter_mut().for_each(|bound| bound.check(&view, *healed, tally));
            if affects_clients {
                oracle.check_beliefs(&view);
            }
            if *healed && oracle.has_ended_well(&view, master_lease) {
                oracle.check_end(&view, tally);
                return Outcome { happened: schedule.happened(), tally: std::mem::take(tally) };
            }
            assert!(view.now < *faults_until + HEALED, "liveness: {}", oracle.describe(&view, master_lease));
        }
        unreachable!("an event is always due")
    }

    /// The client to whom an event happens.
    fn client_of(&self, event: &Event) -> Option<usize> {
        match event {
            Event::Response(connection, _) | Event::LostAtClient(connection) => {
                Some(self.connections.get(*connection)?.client)
            }
            Event::Connected(client, ..)
            | Event::Answered(client, ..)
            | Event::ClientTick(client, _)
            | Event::Act(client) => Some(*client),
            _ => None,
        }
    }

    /// Until when the process does not run to which an event happens.
    fn stopped_until(&self, event: &Event) -> Option<Duration> {
        if let Some(client) = self.client_of(event) {
            return Some(self.clients[client].stopped_until);
        }
        let machine = |id: &ReplicaId| Some(self.machines[id].stopped_until);
        match event {
            Event::Request(connection, _) | Event::LostAtReplica(connection) => {
                machine(&self.connections.get(*connection)?.replica)
            }
            Event::Arrive(_, id, _)
            | Event::PeerLost(id, _)
            | Event::Tick(id, ..)
            | Event::Synced(id, _)
            | Event::Written(id, ..) => machine(id),
            _ => None,
        }
    }

    fn note(&mut self, event: &Event) {
        let (kind, detail) = event.summary();
        self.schedule.note(kind, detail);
        match event {
            Event::Request(connection, request) => {
                if let Some(one) = self.connections.get(*connection) {
                    self.schedule.print(format_args!("client {} → {} {request:?}", one.client, one.replica));
                }
            }
            Event::Response(connection, response) => {
                if let Some(one) = self.connections.get(*connection) {
                    self.schedule.print(format_args!("{} → client {} {response:?}", one.replica, one.client));
                }
            }
            Event::Start(id) => self.schedule.print(format_args!("{id} starts")),
            Event::Connected(client, _, to) => {
                self.schedule.print(format_args!("client {client} connects to {to:?}"));
            }
            _ => {}
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Start(id) => self.start(id),
            Event::Request(id, request) => {
                if let Some(connection) = self.connections.get(id).filter(|one| one.at_replica) {
                    let (replica, connection) = (connection.replica, ConnectionId(id));
                    self.note_arrived(replica, &request);
                    self.step(replica, Input::Request { connection, request });
                }
            }
            Event::LostAtReplica(id) => {
                let Some(connection) = self.connections.get(id).filter(|one| one.at_replica) else { return };
                let replica = connection.replica;
                self.connections.leave(id, false);
                self.step(replica, Input::Disconnected { connection: ConnectionId(id) });
            }
            Event::Arrive(from, to, message) => self.step(to, Input::Peer { from, message }),
            Event::PeerLost(id, peer) => self.step(id, Input::PeerLost { peer }),
            Event::Tick(id, life, due) if self.machines[&id].life == life => {
                let running = self.machine(id).running.as_mut();
                if let Some(running) = running.filter(|running| running.tick_at == Some(due)) {
                    running.tick_at = None;
                    self.step(id, Input::Tick);
                }
            }
            Event::Synced(id, life) if self.machines[&id].life == life => {
                if let Some(input) = self.machine(id).end_sync() {
                    self.step(id, input);
                }
            }
            Event::Written(id, life, number) if self.machines[&id].life == life => {
                if let Some(input) = self.machine(id).end_snapshot(number) {
                    self.tally.count(match input {
                        Input::SnapshotArrived { .. } => "snapshots received",
                        _ => "snapshots written",
                    });
                    self.step(id, input);
                }
            }
            Event::Tick(..) | Event::Synced(..) | Event::Written(..) => {}
            Event::Response(id, response) => self.response(id, *response),
            Event::LostAtClient(id) => self.lost_at_client(id),
            Event::Connected(client, link, to) => self.connected(client, link, to),
            Event::Answered(client, link, response) => self.received(client, link, *response),
            Event::ClientTick(client, due) if self.clients[client].tick_at == Some(due) => {
                self.clients[client].tick_at = None;
                self.with_client(client, |client, now, effects| {
                    client.session.tick(client.clock.read(now), effects);
                });
            }
            Event::ClientTick(..) => {}
            Event::Act(client) => self.act(client),
            Event::Fault => self.fault(),
            Event::Hunt => self.hunt(),
            Event::ReadStale => self.read_stale(),
            Event::Observe => self.observe(),
        }
    }
}
