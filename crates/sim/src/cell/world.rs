//! The world of a run: real time, a queue of events, one source of chance.

use super::cache::Caches;
use super::client::Client;
use super::connections::Connections;
use super::history::{History, Witness};
use super::links::Endpoint;
use super::machine::Machine;
use super::oracle::Oracle;
use super::search::Watch;
use super::swarm::Swarm;
use super::tally::Tally;
use crate::network::{self, Network};
use crate::random::{Clock, Random};
use std::collections::BTreeMap;
use std::time::Duration;
use wombat_proto::wire::{Opened, Request, Response, error::Code, event::Kind, response::Result as Answer};
use wombat_proto::{HandleId, Instant, ReplicaId, SessionId, Slot};
use wombat_replica::{ConnectionId, Input, Notice, PeerMessage, Stage};
use wombat_session::{LinkId, NodeEvent, SessionEvent};

/// By when, after the faults, everything must have ended well.
const HEALED: Duration = Duration::from_secs(120);
/// Most clients of a run.
const CLIENTS: usize = 16;
/// Something that is about to happen.
pub(super) enum Event {
    /// A request arrives at the replica's end of a connection, a response at the client's.
    Request(u64, Request),
    Response(u64, Box<Response>),
    /// A connection's end is noticed by the replica, or by the client.
    LostAtReplica(u64),
    LostAtClient(u64),
    /// A client's attempt to connect ends.
    Connected(usize, LinkId, Endpoint),
    /// A replica of another cell refuses a client's request of that number.
    Refused(usize, LinkId, u64),
    /// A replica hears of another.
    Arrive(ReplicaId, ReplicaId, PeerMessage),
    /// A replica notices that its connection to another is gone.
    PeerLost(ReplicaId, ReplicaId),
    /// A tick is due at that time of its clock, unless another is due by now.
    Tick(ReplicaId, u64, Instant),
    Synced(ReplicaId, u64),
    /// A snapshot is on the disk.
    Written(ReplicaId, u64, u64),
    Start(ReplicaId),
    /// A client's tick is due at that time, unless another is due by now.
    ClientTick(usize, Duration),
    /// The application of a client does its next thing.
    Act(usize),
    Fault,
    /// The master of an epoch, if it is master still, has trouble.
    Hunt,
    /// Somebody reads what a replica knows.
    ReadStale,
}

/// How a run ended; equal for equal seeds.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Outcome {
    pub(crate) events: u64,
    pub(crate) tally: Tally,
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
    queue: BTreeMap<(Duration, u64), Event>,
    scheduled: u64,
    pub(super) random: Random,
    pub(super) machines: BTreeMap<ReplicaId, Machine>,
    pub(super) clients: Vec<Client>,
    /// Between replicas, and between clients and replicas.
    pub(super) network: Network,
    pub(super) connections: Connections,
    pub(super) oracle: Oracle,
    pub(super) history: History,
    pub(super) caches: Caches,
    pub(super) swarm: Swarm,
    /// In a run about the search for the master: what must hold of it.
    pub(super) search: Option<Watch>,
    pub(super) faults_until: Duration,
    pub(super) healed: bool,
    pub(super) outcome: Outcome,
    pub(super) trace: bool,
}

/// The clients, at an instant.
struct Clients<'a>(&'a [Client], Duration);

impl Witness for Clients<'_> {
    fn is_live(&self, session: SessionId) -> bool {
        self.0.iter().any(|client| client.id() == Some(session) && client.is_live(self.1))
    }

    fn has_asked_to_end(&self, session: SessionId) -> bool {
        self.0.iter().any(|client| client.id() == Some(session) && client.asked_to_end)
    }

    fn waits_for(&self, session: SessionId, number: u64) -> bool {
        self.0.iter().any(|client| client.id() == Some(session) && client.waits_for(number))
    }
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
        let watch = Watch::new(replicas, &mut random);
        World::with(swarm, replicas, Some(watch), random, trace)
    }

    fn with(swarm: Swarm, replicas: u32, search: Option<Watch>, mut random: Random, trace: bool) -> World {
        let faults_until = Duration::from_secs(20 + random.below(50));
        let mut world = World {
            now: Duration::ZERO,
            queue: BTreeMap::new(),
            scheduled: 0,
            machines: BTreeMap::new(),
            clients: Vec::new(),
            network: Network::new(swarm.network),
            connections: Connections::default(),
            oracle: Oracle::default(),
            history: History::default(),
            caches: Caches::default(),
            faults_until,
            search,
            healed: false,
            outcome: Outcome { events: 0, tally: Tally::default(), hash: 0 },
            trace,
            swarm,
            random,
        };
        for id in (1..=replicas).map(ReplicaId) {
            let random = &mut world.random;
            let clock = if world.swarm.worst_clocks { Clock::worst(random) } else { Clock::new(random) };
            world.machines.insert(id, Machine::new(id, replicas, clock, random));
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
        world
    }

    pub(super) fn add_client(&mut self) {
        let name = self.clients.len();
        let endpoints = self.endpoints();
        let client = Client::new(name, endpoints, self.now, &self.swarm, &mut self.random);
        self.watch_client();
        self.clients.push(client);
        self.schedule_client_tick(name, self.now);
        self.will_act(name, Duration::ZERO);
    }

    /// Adds a client, unless there are enough.
    pub(super) fn add_client_if_room(&mut self) {
        if self.clients.len() < CLIENTS {
            self.add_client();
        }
    }

    /// The endpoints that a client is given: all replicas in some order, and perhaps some that lead nowhere.
    fn endpoints(&mut self) -> Vec<String> {
        let random = &mut self.random;
        if let Some(watch) = &self.search {
            return watch.endpoints(random);
        }
        let mut endpoints: Vec<Endpoint> = self.machines.keys().map(|id| Endpoint::Replica(*id)).collect();
        while random.chance(200) {
            endpoints.push(Endpoint::BAD[random.below(4) as usize]);
        }
        let first = random.below(endpoints.len() as u64) as usize;
        endpoints.rotate_left(first);
        endpoints.iter().enumerate().map(|(number, endpoint)| endpoint.address(number)).collect()
    }

    /// A client does something soon, unless it has enough in mind.
    pub(super) fn will_act(&mut self, name: usize, wait: Duration) {
        if self.clients[name].intends() {
            self.after(wait, Event::Act(name));
        }
    }

    pub(super) fn at(&mut self, time: Duration, event: Event) {
        self.scheduled += 1;
        self.queue.insert((time, self.scheduled), event);
    }

    pub(super) fn after(&mut self, wait: Duration, event: Event) {
        self.at(self.now + wait, event);
    }

    /// A number that nobody had before.
    pub(super) fn number(&mut self) -> u64 {
        self.scheduled += 1;
        self.scheduled
    }

    /// Runs to the end: first faults, then healing, then everything must come to a good end.
    pub(crate) fn run(mut self) -> Outcome {
        while let Some(((time, number), event)) = self.queue.pop_first() {
            self.now = time;
            if let Some(until) = self.postponed(&event).filter(|until| *until > time) {
                // Whoever goes on looks at what has arrived before it looks at the clock.
                let clock = matches!(event, Event::Tick(..) | Event::ClientTick(..));
                self.queue.insert((until + Duration::from_nanos(clock.into()), number), event);
                continue;
            }
            self.note(&event);
            let (client, last) = (self.client_of(&event), self.history.last());
            // Whoever goes on after it was stopped reads before it hears of anything.
            let some = self.random.below(self.clients.len() as u64) as usize;
            self.read_cached(client.unwrap_or(some));
            self.happen(event);
            self.read_cached(client.unwrap_or(some));
            self.check_master();
            self.check_search();
            // What clients believe can have become wrong only by what they have done, or by the log.
            if client.is_some() || self.history.last() != last {
                self.check_clients();
            }
            if self.healed && self.ended_well() {
                return self.end();
            }
            assert!(self.now < self.faults_until + HEALED, "liveness: {}", self.describe());
        }
        unreachable!("somebody always waits for something")
    }

    /// The client to whom an event happens.
    fn client_of(&self, event: &Event) -> Option<usize> {
        match event {
            Event::Response(connection, _) | Event::LostAtClient(connection) => {
                Some(self.connections.get(*connection)?.client)
            }
            Event::Connected(client, ..)
            | Event::Refused(client, ..)
            | Event::ClientTick(client, _)
            | Event::Act(client) => Some(*client),
            _ => None,
        }
    }

    /// Until when the one whom an event concerns does not run.
    fn postponed(&self, event: &Event) -> Option<Duration> {
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
        let (kind, detail) = match event {
            Event::Request(connection, request) => (1, connection ^ request.number << 8),
            Event::Response(connection, response) => (2, connection ^ response.number << 8),
            Event::LostAtReplica(connection) => (3, *connection),
            Event::LostAtClient(connection) => (4, *connection),
            Event::Connected(client, link, _) => (5, *client as u64 ^ link.0 << 8),
            Event::Refused(client, link, _) => (17, *client as u64 ^ link.0 << 8),
            Event::Arrive(from, to, _) => (6, u64::from(from.0) << 8 | u64::from(to.0)),
            Event::Tick(id, ..) => (7, u64::from(id.0)),
            Event::Synced(id, life) => (8, u64::from(id.0) | life << 8),
            Event::Written(id, ..) => (9, u64::from(id.0)),
            Event::Start(id) => (10, u64::from(id.0)),
            Event::ClientTick(client, _) => (11, *client as u64),
            Event::Act(client) => (12, *client as u64),
            Event::Fault => (13, 0),
            Event::Hunt => (14, 0),
            Event::ReadStale => (16, 0),
            Event::PeerLost(id, peer) => (15, u64::from(id.0) << 8 | u64::from(peer.0)),
        };
        self.outcome.events += 1;
        let mixed = self.outcome.hash ^ self.now.as_nanos() as u64 ^ (kind << 56) ^ detail;
        self.outcome.hash = mixed.wrapping_mul(0x100_0000_01b3).rotate_left(17);
        if !self.trace {
            return;
        }
        let time = self.now.as_secs_f64();
        match event {
            Event::Request(connection, request) => {
                if let Some(one) = self.connections.get(*connection) {
                    eprintln!("{time:9.4} client {} → {} {request:?}", one.client, one.replica);
                }
            }
            Event::Response(connection, response) => {
                if let Some(one) = self.connections.get(*connection) {
                    eprintln!("{time:9.4} {} → client {} {response:?}", one.replica, one.client);
                }
            }
            Event::Start(id) => eprintln!("{time:9.4} {id} starts"),
            Event::Connected(client, _, to) => eprintln!("{time:9.4} client {client} connects to {to:?}"),
            _ => {}
        }
    }

    pub(super) fn tell(&self, what: &str) {
        if self.trace {
            eprintln!("{:9.4} -- {what}", self.now.as_secs_f64());
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
                    self.outcome.tally.count(match input {
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
            Event::Refused(client, link, number) => self.refused(client, link, number),
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
        }
    }

    pub(super) fn machine(&mut self, id: ReplicaId) -> &mut Machine {
        self.machines.get_mut(&id).expect("a machine of the cell")
    }

    // ---- Replicas ----

    pub(super) fn start(&mut self, id: ReplicaId) {
        let (now, activity) = (self.now, self.trace);
        let World { machines, swarm, random, .. } = self;
        let machine = machines.get_mut(&id).expect("a machine of the cell");
        if machine.running.is_some() {
            return;
        }
        machine.start(now, &swarm.terms, random, activity);
        self.learn(id);
        self.step(id, Input::Tick);
    }

    pub(super) fn step(&mut self, id: ReplicaId, input: Input) {
        let now = self.now;
        self.caches.begin_step();
        let effects = self.machine(id).step(now, input);
        self.carry_on(id, effects);
    }

    /// Does all that follows from a step.
    pub(super) fn carry_on(&mut self, id: ReplicaId, effects: wombat_replica::Effects) {
        self.note_entered(id);
        self.learn(id);
        self.carry_out(id, effects);
        self.schedule_tick(id);
    }

    /// What a replica has applied that nobody had before goes down in history.
    fn learn(&mut self, id: ReplicaId) {
        let World { now, machines, clients, history, caches, outcome, .. } = self;
        let Some(running) = machines.get_mut(&id).and_then(|machine| machine.running.as_mut()) else {
            return;
        };
        let state = running.replica.state();
        let (epoch, last) = (history.epoch(), history.last());
        let mut changed = false;
        while history.last() < state.applied() {
            let value = running.accepted.get(&history.last().next());
            let value = value.expect("what a replica applies is in its log");
            history.chosen(value, *now, &Clients(clients, *now), &mut outcome.tally);
            changed |= caches.applied(history.last(), value, history, &mut outcome.tally);
        }
        if running.compared < state.applied() {
            running.compared = state.applied();
            state.check();
            history.compare(state);
        }
        while running.accepted.first_key_value().is_some_and(|(slot, _)| *slot <= state.applied()) {
            running.accepted.pop_first();
        }
        if changed {
            self.check_cached();
        }
        if self.history.last() > last {
            (0..self.clients.len()).for_each(|client| self.read_cached(client));
        }
        let began = self.history.epoch() > epoch;
        if began && self.random.chance(self.swarm.hunts) {
            let wait = self.random.duration(Duration::ZERO, self.swarm.hunted_within);
            self.after(wait, Event::Hunt);
        }
    }

    /// Carries out what follows from a step; the replica may die in the middle of it.
    fn carry_out(&mut self, id: ReplicaId, effects: wombat_replica::Effects) {
        for line in &effects.activity {
            self.tell(&format!("{id}: {line}"));
        }
        for (epoch, _) in effects.stages.iter().filter(|(_, stage)| matches!(stage, Stage::Serves { .. })) {
            self.caches.serves(*epoch);
        }
        for notice in &effects.notices {
            self.tell(&format!("{id}: {notice}"));
            match notice {
                Notice::MadeWay { .. } => self.outcome.tally.count("masters that made way"),
                Notice::LeaseLengthened { .. } => self.outcome.tally.count("longer master leases"),
                Notice::NothingChosen { .. } => {}
            }
        }
        assert_eq!(effects.diverged, None, "I19: replica {id} thinks that it has gone wrong");
        for (to, message) in effects.send {
            if self.dies_now(id) {
                return;
            }
            self.carry(id, to, message);
        }
        for wanted in effects.wanted_chunks {
            if let Some(message) = self.machine(id).chunk(&wanted) {
                self.carry(id, wanted.to, message);
            }
        }
        for received in effects.received_chunks {
            let number = self.number();
            match self.machine(id).take_chunk(number, received) {
                Some(true) => self.schedule_written(id, number),
                Some(false) => self.step(id, Input::SnapshotFailed),
                None => {}
            }
        }
        if effects.snapshot_wanted {
            self.snapshot(id);
        }
        for (connection, response) in effects.replies {
            if self.dies_now(id) {
                return;
            }
            self.reply(id, connection.0, response);
        }
        for connection in effects.hang_up {
            self.break_connection(connection.0);
        }
        if self.machine(id).begin_sync() {
            let most = if self.machine(id).slow { Duration::from_secs(3) } else { self.swarm.disk };
            let (wait, life) = (self.random.duration(Duration::ZERO, most), self.machine(id).life);
            self.after(wait, Event::Synced(id, life));
        }
    }

    fn dies_now(&mut self, id: ReplicaId) -> bool {
        let dies = self.swarm.dies_in_step > 0 && !self.healed && self.random.chance(self.swarm.dies_in_step);
        if dies {
            self.kill(id);
        }
        dies
    }

    /// Sends a message to another replica on its way.
    fn carry(&mut self, from: ReplicaId, to: ReplicaId, message: PeerMessage) {
        let (kind, is_large) = match &message {
            PeerMessage::Paxos(message) => (network::kind_of(message), network::is_large(message)),
            PeerMessage::Digest { .. } => (1, false),
        };
        for delay in self.network.arrivals(from, to, kind, is_large, &mut self.random) {
            self.after(delay, Event::Arrive(from, to, message.clone()));
        }
    }

    fn reply(&mut self, id: ReplicaId, connection: u64, response: Response) {
        let now = self.now;
        self.check_reply(id, &response);
        let open = self.connections.get(connection).is_some_and(|one| one.at_client && one.at_replica);
        let at = self.connections.reaches_client(connection, now, &mut self.random);
        if let (true, Some(at)) = (open, at) {
            let promised = matches!(response.result, Some(Answer::KeptAlive(_)));
            self.at(at, Event::Response(connection, Box::new(response)));
            if promised && !self.healed && self.random.chance(self.swarm.strands) {
                self.strand(connection);
            }
        }
    }

    fn schedule_tick(&mut self, id: ReplicaId) {
        let now = self.now;
        let machine = self.machine(id);
        let (clock, life) = (machine.clock, machine.life);
        let Some(running) = &mut machine.running else { return };
        let longest = clock.read(now) + wombat_replica::LONGEST_TICK;
        let due = running.replica.next_deadline().map_or(longest, |at| at.min(longest));
        if running.tick_at.is_some_and(|at| at <= due) {
            return;
        }
        running.tick_at = Some(due);
        let at = clock.when(due).max(now + Duration::from_micros(100));
        self.at(at, Event::Tick(id, life, due));
    }

    pub(super) fn snapshot(&mut self, id: ReplicaId) {
        let number = self.number();
        if self.machine(id).begin_snapshot(number) {
            self.schedule_written(id, number);
        }
    }

    fn schedule_written(&mut self, id: ReplicaId, number: u64) {
        let most = if self.machine(id).slow { 3000 } else { 100 };
        let (wait, life) = (self.random.millis(0, most), self.machine(id).life);
        self.after(wait, Event::Written(id, life, number));
    }

    pub(super) fn break_connection(&mut self, id: u64) {
        let (soon, later) = (self.random.millis(0, 50), self.random.millis(0, 3000));
        self.after(soon, Event::LostAtClient(id));
        self.after(later, Event::LostAtReplica(id));
    }

    // ---- Clients ----

    /// Lets something happen to a client, and carries out what it wants.
    pub(super) fn with_client(
        &mut self,
        name: usize,
        happen: impl FnOnce(&mut Client, Duration, &mut wombat_session::Effects),
    ) {
        let now = self.now;
        let client = &mut self.clients[name];
        if client.dead {
            return;
        }
        let mut effects = wombat_session::Effects::default();
        let (was_live, was_lost) = (client.is_live(now), client.session.is_expired());
        happen(client, now, &mut effects);
        if client.session.is_expired() && !was_lost {
            let rightly = client.asked_to_end || !was_live;
            assert!(rightly, "I5: client {name} lost its session while its own view was live");
            self.history.events.forget(name);
        }
        self.show_cached(name, effects.cache);
        for event in &effects.session_events {
            self.outcome.tally.count(match event {
                SessionEvent::Jeopardy => "jeopardies",
                SessionEvent::Safe => "safes",
                SessionEvent::Expired => "sessions over at their clients",
                SessionEvent::FailedOver { .. } => "fail-overs seen",
            });
            if self.trace {
                eprintln!("{:9.4} -- client {name}: {event:?}", now.as_secs_f64());
            }
        }
        for event in &effects.node_events {
            self.hear(name, event);
        }
        for revoked in &effects.revoked {
            self.outcome.tally.count("revocations");
            self.clients[name].is_revoked(revoked);
            let wait = self.random.millis(0, 6000);
            self.will_act(name, wait);
        }
        for (number, result) in effects.done {
            let (oracle, tally) = (&mut self.oracle, &mut self.outcome.tally);
            self.clients[name].done(number, result, oracle, &self.history, tally);
            let pause = self.random.duration(Duration::ZERO, self.swarm.thinking);
            self.will_act(name, pause);
        }
        for (link, address) in effects.connect {
            self.connect(name, link, &address);
        }
        self.send(name, effects.send);
        for link in effects.disconnect {
            self.close(name, link);
        }
        let client = &self.clients[name];
        if let Some(deadline) = client.session.next_deadline() {
            let due = client.clock.when(deadline).max(now + Duration::from_millis(1));
            self.schedule_client_tick(name, due);
        }
    }

    fn schedule_client_tick(&mut self, name: usize, due: Duration) {
        let client = &mut self.clients[name];
        if client.tick_at.is_none_or(|at| at > due) {
            client.tick_at = Some(due);
            self.at(due, Event::ClientTick(name, due));
        }
    }

    /// A client hears of something that happened.
    fn hear(&mut self, name: usize, event: &NodeEvent) {
        let tally = &mut self.outcome.tally;
        match event.kind {
            Kind::FailedOver => {}
            Kind::Gap => tally.count("gaps"),
            Kind::LockConflict => tally.count("conflicts told"),
            _ => tally.count("events delivered"),
        }
        if let Some((instance, slot)) = self.history.events.heard(name, event)
            && let Some(generation) = self.history.generation_of(instance, slot)
        {
            // Whoever reads from now on sees it.
            self.oracle.tell(instance, generation);
        }
        if matches!(event.kind, Kind::LockConflict | Kind::Gap) {
            self.will_act(name, Duration::from_millis(1));
        }
        self.clients[name].hears(event);
    }

    fn act(&mut self, name: usize) {
        let mut effects = wombat_session::Effects::default();
        let World { now, clients, oracle, history, random, .. } = self;
        let was_finished = clients[name].is_finished();
        clients[name].act(*now, oracle, history, random, &mut effects);
        if clients[name].dead && !was_finished {
            self.bury(name);
        }
        let is_finished = self.clients[name].is_finished();
        if is_finished && !was_finished && !self.healed {
            self.add_client_if_room(); // There is always somebody who wants something.
        }
        if !is_finished || self.clients[name].keeps_looking() {
            let thinks =
                if self.clients[name].is_flooding() { 1 } else { 2 * self.swarm.thinking.as_millis() };
            let pause = self.random.millis(0, thinks as u64);
            self.will_act(name, pause + Duration::from_millis(1));
        }
        self.with_client(name, |_, _, into| *into = effects);
    }

    // ---- What must hold at every instant ----

    /// Only the holder of the master lease answers, and it knows everything that was ever chosen (I2).
    fn check_reply(&mut self, id: ReplicaId, response: &Response) {
        let machine = &self.machines[&id];
        let alone = match &response.result {
            Some(Answer::Contents(_) | Answer::KeptAlive(_)) => true,
            Some(Answer::SessionOpened(_)) => response.session != 0, // It was there before.
            Some(Answer::Error(error)) => match error.code() {
                Code::SessionUnknown => true,
                Code::SequencerStale => response.session == 0, // The log may have said so of a write.
                _ => false,
            },
            _ => false,
        };
        assert!(!alone || machine.serves(self.now), "I2: replica {id} answers without the master lease");
        let Some(running) = &machine.running else { return };
        let epoch = running.replica.state().epoch();
        let applied = running.replica.state().stamp();
        if running.replica.is_master() {
            self.history.stale.complete(applied, self.now);
        }
        self.oracle.answers(epoch, response);
        self.caches.answers((epoch, self.now), response, &self.history, &mut self.outcome.tally);
        // A deposed master may still answer for what the log had done before: its handles are not the new master's.
        if epoch == self.history.state().epoch() {
            self.note_subscription(applied, response);
        }
        self.check_events(applied, response);
        let general = matches!(
            &response.result,
            Some(
                Answer::Opened(_)
                    | Answer::Contents(_)
                    | Answer::Stat(_)
                    | Answer::Entries(_)
                    | Answer::Granted(_)
                    | Answer::MultiDone(_)
                    | Answer::Done(_)
            )
        );
        if general {
            self.caches.check_fail_over(epoch, self.now, &self.history);
        }
        let knows_not = |client: &&Client| general && client.may_use_cache_of_before(epoch, self.now);
        if let Some(client) = self.clients.iter().find(knows_not) {
            panic!("I10: client {} has not heard of epoch {epoch}, in which {id} answers", client.name);
        }
    }

    /// An answer shows that the master knows a handle, and so what it is subscribed to.
    fn note_subscription(&mut self, applied: Slot, response: &Response) {
        let Some((client, handle)) = self.oracle.asker(response) else { return };
        match &response.result {
            // A handle that is tied to a stale sequencer is there, and good for nothing.
            Some(Answer::Error(error)) if error.code() != Code::SequencerStale => {}
            None => {}
            Some(Answer::Opened(Opened { handle: Some(handle), .. })) => {
                self.history.events.opened(client, handle, applied);
            }
            Some(_) => self.history.events.presented(client, handle, applied),
        }
    }

    /// I12: no event is told before what it tells of can be seen; a conflict is told to who holds the lock.
    fn check_events(&self, applied: Slot, response: &Response) {
        let Some(Answer::KeptAlive(kept)) = &response.result else { return };
        for event in &kept.events {
            assert!(event.slot <= applied.0, "I12: {event:?} is told by a master that has applied {applied}");
            let (session, handle) = (SessionId(response.session), HandleId(event.handle));
            let holds =
                event.kind() != Kind::LockConflict || self.history.held_at(session, handle, Slot(event.slot));
            assert!(holds, "{event:?} is told to session {session}, which does not hold the lock");
        }
    }

    fn check_master(&mut self) {
        let now = self.now;
        let mut master: Option<(ReplicaId, Slot)> = None;
        for machine in self.machines.values().filter(|machine| machine.serves(now)) {
            let applied = machine.running.as_ref().map(|running| running.replica.state().stamp());
            assert!(master.is_none(), "I2: {master:?} and {} hold the lease", machine.id);
            master = applied.map(|applied| (machine.id, applied));
        }
        if let Some((id, applied)) = master {
            let last = self.history.state().stamp();
            assert!(applied >= last, "I2: {id} serves at {applied}, but {last} was applied elsewhere");
            self.history.stale.complete(applied, now);
        }
    }

    fn check_clients(&mut self) {
        let now = self.now;
        for lock in Client::locks() {
            let holds = |client: &Client| Some((client.name, client.surely_holds(lock, now)?));
            let holders: Vec<_> = self.clients.iter().filter_map(holds).collect();
            self.oracle.check_holders(&holders, Client::permits(lock));
        }
        for client in &self.clients {
            client.check(now, &self.history);
        }
    }

    // ---- The end ----

    /// Every call of a client that lives has ended, one master serves, the sessions of those who died have
    /// ended, and all replicas are where the last one is, and know it.
    fn ended_well(&self) -> bool {
        let last = self.history.last();
        let there = |machine: &Machine| {
            machine.running.as_ref().is_some_and(|running| {
                let age = running.replica.age_at(machine.clock.read(self.now));
                running.replica.state().applied() == last
                    && age.is_some_and(|age| age < self.swarm.terms.master_lease)
            })
        };
        let living = |session: SessionId| {
            self.clients.iter().any(|client| client.id() == Some(session) && client.is_live(self.now))
        };
        self.clients.iter().all(Client::is_done)
            && self.machines.values().any(|machine| machine.serves(self.now))
            && self.machines.values().all(there)
            && self.history.state().sessions_after(SessionId(0)).all(|(id, _)| living(id))
            && !self.clients.iter().any(|client| self.waits_for_events(client))
    }

    /// Whether a client that lives has not been told yet of an event that it subscribed to.
    fn waits_for_events(&self, client: &Client) -> bool {
        client.is_told(self.now) && self.history.events.outstanding(client.name)
    }

    fn end(mut self) -> Outcome {
        let expected = self.history.state().digest();
        for machine in self.machines.values() {
            let digest = machine.running.as_ref().map(|running| running.replica.state().digest());
            assert_eq!(digest, Some(expected), "I19: replica {} ends in another state", machine.id);
        }
        self.oracle.check_refused(&self.history);
        self.count_cached();
        let masters = self.outcome.tally.of("masters");
        if masters > 3 {
            self.outcome.tally.count("runs with three fail-overs or more");
        }
        self.outcome
    }

    fn describe(&self) -> String {
        let waiting = self.clients.iter().filter(|client| !client.is_done());
        let clients: String = waiting.map(Client::describe).collect();
        let machine = |machine: &Machine| match &machine.running {
            None => format!("{} is down; ", machine.id),
            Some(running) => {
                let (standing, applied) = (running.replica.standing(), running.replica.state().applied());
                let age = running.replica.age_at(machine.clock.read(self.now));
                format!("{}: {:?} at {applied}, {age:?} old; ", machine.id, standing.standing)
            }
        };
        let machines: String = self.machines.values().map(machine).collect();
        let sessions = self.history.state().session_count();
        let untold =
            self.clients.iter().filter(|client| self.waits_for_events(client)).map(|client| client.name);
        let untold: Vec<usize> = untold.collect();
        let (last, lease) = (self.history.last(), self.swarm.terms.master_lease);
        format!(
            "{clients}{machines}{sessions} sessions, last {last}, master lease {lease:?}, events to come for {untold:?}"
        )
    }
}
