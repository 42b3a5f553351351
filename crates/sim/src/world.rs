//! The simulated world: one clock of real time, one queue of events, one source of chance.

use crate::client::{Client, GRACE};
use crate::network::Network;
use crate::oracle::Oracle;
use crate::random::{Clock, Random};
use crate::server::{LEASE, Machine};
use std::collections::BTreeMap;
use std::time::Duration;
use wombat_proto::wire::{Request, Response};
use wombat_replica::{ConnectionId, Input};
use wombat_storage::SimulatedDisk;

/// How long faults go on.
const FAULTS: Duration = Duration::from_secs(90);
/// By when, after that, everything must have ended well.
const HEALED: Duration = Duration::from_secs(400);

/// Something that is about to happen.
enum Event {
    /// A request arrives at the server.
    Request(u64, Request),
    /// A response arrives at the client.
    Response(u64, Response),
    /// A connection's end is noticed by the server, or by the client.
    LostAtServer(u64),
    LostAtClient(u64),
    /// A client's attempt to connect ends.
    Connected(usize),
    ServerTick(u64),
    ClientTick(usize),
    /// The application of a client does its next thing.
    Act(usize),
    /// A sync ends, of that life of the server.
    Synced(u64),
    Start,
    Fault,
}

/// How a run ended; equal for equal seeds.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Outcome {
    pub(crate) events: u64,
    hash: u64,
}

pub(crate) struct World {
    now: Duration,
    queue: BTreeMap<(Duration, u64), Event>,
    random: Random,
    machine: Machine,
    /// Counts the server's lives.
    life: u64,
    clients: Vec<Client>,
    network: Network,
    oracle: Oracle,
    /// How likely which fault is, chosen for the run: some runs have many of one kind (swarm).
    weights: [u64; 6],
    outcome: Outcome,
    scheduled: u64,
    trace: bool,
}

impl World {
    pub(crate) fn new(seed: u64, trace: bool) -> World {
        let mut random = Random(seed);
        let clock = Clock::new(&mut random);
        let machine =
            Machine { disk: SimulatedDisk::new(), clock, running: None, stopped_until: Duration::ZERO };
        let weights = std::array::from_fn(|_| if random.chance(500) { random.below(10) } else { 0 });
        let mut world = World {
            now: Duration::ZERO,
            queue: BTreeMap::new(),
            machine,
            life: 0,
            clients: Vec::new(),
            network: Network::default(),
            oracle: Oracle::default(),
            weights,
            outcome: Outcome { events: 0, hash: 0 },
            scheduled: 0,
            trace,
            random,
        };
        world.at(Duration::ZERO, Event::Start);
        for _ in 0..2 + world.random.below(4) {
            world.add_client();
        }
        world.at(Duration::from_secs(1), Event::Fault);
        world
    }

    fn add_client(&mut self) {
        let name = self.clients.len();
        let client = Client::new(name, self.now, &mut self.random);
        self.clients.push(client);
        self.at(self.now, Event::ClientTick(name));
        self.at(self.now, Event::Act(name));
    }

    fn at(&mut self, time: Duration, event: Event) {
        self.scheduled += 1;
        self.queue.insert((time, self.scheduled), event);
    }

    /// Runs to the end: first faults, then healing, then everything must have come to a good end.
    pub(crate) fn run(mut self) -> Outcome {
        while let Some(((time, number), event)) = self.queue.pop_first() {
            self.now = time;
            if let Some(until) = self.postponed(&event).filter(|until| *until > time) {
                self.queue.insert((until, number), event);
                continue;
            }
            self.note(&event);
            self.happen(event);
            self.check();
            if self.now > FAULTS && self.clients.iter().all(Client::is_finished) {
                return self.end();
            }
            assert!(self.now < FAULTS + HEALED, "liveness: {}", self.unfinished());
        }
        unreachable!("somebody always waits for something")
    }

    /// Until when the one whom an event concerns does not run.
    fn postponed(&self, event: &Event) -> Option<Duration> {
        match event {
            Event::Request(..) | Event::LostAtServer(_) | Event::ServerTick(_) | Event::Synced(_) => {
                Some(self.machine.stopped_until)
            }
            Event::Response(connection, _) | Event::LostAtClient(connection) => {
                Some(self.clients[self.network.get(*connection)?.client].stopped_until)
            }
            Event::Connected(client) | Event::ClientTick(client) | Event::Act(client) => {
                Some(self.clients[*client].stopped_until)
            }
            Event::Start | Event::Fault => None,
        }
    }

    fn note(&mut self, event: &Event) {
        let (kind, detail) = match event {
            Event::Request(connection, request) => (1, connection ^ request.number << 8),
            Event::Response(connection, response) => (2, connection ^ response.number << 8),
            Event::LostAtServer(connection) => (3, *connection),
            Event::LostAtClient(connection) => (4, *connection),
            Event::Connected(client) => (5, *client as u64),
            Event::ServerTick(life) => (6, *life),
            Event::ClientTick(client) => (7, *client as u64),
            Event::Act(client) => (8, *client as u64),
            Event::Synced(life) => (9, *life),
            Event::Start => (10, 0),
            Event::Fault => (11, 0),
        };
        self.outcome.events += 1;
        let mixed = self.outcome.hash ^ self.now.as_nanos() as u64 ^ (kind << 56) ^ detail;
        self.outcome.hash = mixed.wrapping_mul(0x100_0000_01b3).rotate_left(17);
        if self.trace {
            match event {
                Event::Request(connection, request) => {
                    println!("{:?} request on {connection}: {request:?}", self.now);
                }
                Event::Response(connection, response) => {
                    println!("{:?} response on {connection}: {response:?}", self.now);
                }
                _ => println!("{:?} event {kind} {detail}", self.now),
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Start => self.start_server(),
            Event::Request(connection, request) => {
                if self.network.get(connection).is_some_and(|c| c.at_server) {
                    let connection = ConnectionId(connection);
                    self.step_server(Input::Request { connection, request });
                }
            }
            Event::LostAtServer(id) => {
                if let Some(connection) = self.network.get_mut(id) {
                    connection.at_server = false;
                }
                self.step_server(Input::Disconnected { connection: ConnectionId(id) });
            }
            Event::ServerTick(life) if life == self.life => {
                self.step_server(Input::Tick);
                self.schedule_server_tick();
            }
            Event::Synced(life) if life == self.life => {
                let effects = self.machine.end_sync(self.now);
                self.carry_out(effects);
            }
            Event::ServerTick(_) | Event::Synced(_) => {}
            Event::Response(id, response) => self.response(id, response),
            Event::LostAtClient(id) => self.lost_at_client(id),
            Event::Connected(client) => self.connected(client),
            Event::ClientTick(client) => self.with_client(client, |client, now, effects| {
                client.session.tick(client.clock.read(now), effects);
            }),
            Event::Act(client) => self.act(client),
            Event::Fault => self.fault(),
        }
    }

    // ---- The server ----

    fn start_server(&mut self) {
        if self.machine.running.is_some() {
            return;
        }
        self.life += 1;
        let effects = self.machine.start(self.now);
        if let Some(running) = &self.machine.running {
            let state = running.replica.state();
            self.oracle.restarted_at(state.applied());
            self.oracle.applied(state.applied(), state.digest());
        }
        self.carry_out(effects);
        self.schedule_server_tick();
    }

    fn schedule_server_tick(&mut self) {
        let Some(running) = &self.machine.running else { return };
        let longest = self.now + wombat_replica::LONGEST_TICK;
        let due = running.replica.next_deadline().map_or(longest, |at| self.machine.clock.when(at));
        self.at(due.clamp(self.now + Duration::from_millis(1), longest), Event::ServerTick(self.life));
    }

    fn step_server(&mut self, input: Input) {
        let effects = self.machine.step(self.now, input);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: wombat_replica::Effects) {
        for (connection, response) in effects.replies {
            let open = self.network.get(connection.0).is_some_and(|c| c.at_client && c.at_server);
            let at = self.network.reaches_client(connection.0, self.now, &mut self.random);
            if let (true, Some(at)) = (open, at) {
                self.at(at, Event::Response(connection.0, response));
            }
        }
        for connection in effects.hang_up {
            self.break_connection(connection.0);
        }
        if self.machine.begin_sync() {
            let latency = self.random.millis(0, 20);
            self.at(self.now + latency, Event::Synced(self.life));
        }
        if let Some(running) = &self.machine.running {
            let state = running.replica.state();
            self.oracle.applied(state.applied(), state.digest());
        }
    }

    fn break_connection(&mut self, id: u64) {
        let (soon, later) = (self.random.millis(0, 50), self.random.millis(0, 3000));
        self.at(self.now + soon, Event::LostAtClient(id));
        self.at(self.now + later, Event::LostAtServer(id));
    }

    // ---- The clients ----

    /// Lets something happen to a client, and carries out what it wants.
    fn with_client(
        &mut self,
        name: usize,
        happen: impl FnOnce(&mut Client, Duration, &mut wombat_session::Effects),
    ) {
        let mut effects = wombat_session::Effects::default();
        let now = self.now;
        happen(&mut self.clients[name], now, &mut effects);
        let client = &mut self.clients[name];
        client.before_send();
        for (number, result) in effects.done {
            client.done(now, number, result, &mut self.oracle);
            let pause = self.random.millis(0, 300);
            self.scheduled += 1;
            self.queue.insert((now + pause, self.scheduled), Event::Act(name));
        }
        if effects.connect.is_some() {
            let after = self.random.millis(0, 20);
            self.at(self.now + after, Event::Connected(name));
        }
        let connection = self.clients[name].connection;
        for request in effects.send {
            let Some(id) = connection else { continue };
            if let Some(at) = self.network.reaches_server(id, self.now, &mut self.random) {
                self.at(at, Event::Request(id, request));
            }
        }
        if effects.disconnect
            && let Some(id) = self.clients[name].connection.take()
        {
            if let Some(connection) = self.network.get_mut(id) {
                connection.at_client = false;
            }
            self.at(self.now + Duration::from_millis(1), Event::LostAtServer(id));
        }
        let client = &self.clients[name];
        if let Some(deadline) = client.session.next_deadline() {
            let due = client.clock.when(deadline).max(self.now + Duration::from_millis(1));
            self.at(due, Event::ClientTick(name));
        }
    }

    fn connected(&mut self, name: usize) {
        // Nobody listens while the server is down.
        if self.machine.running.is_none() {
            return self
                .with_client(name, |client, now, _| client.session.disconnected(client.clock.read(now)));
        }
        self.clients[name].connection = Some(self.network.connect(name));
        self.with_client(name, |client, _, effects| client.session.connected(effects));
    }

    fn response(&mut self, id: u64, response: Response) {
        let Some(connection) = self.network.get(id).filter(|c| c.at_client) else { return };
        let name = connection.client;
        if self.clients[name].connection == Some(id) {
            self.with_client(name, |client, now, effects| {
                client.session.received(client.clock.read(now), response, effects);
                client.session.tick(client.clock.read(now), effects);
            });
        }
    }

    fn lost_at_client(&mut self, id: u64) {
        let Some(connection) = self.network.get_mut(id) else { return };
        let was_open = std::mem::replace(&mut connection.at_client, false);
        let name = connection.client;
        if was_open && self.clients[name].connection == Some(id) {
            self.clients[name].connection = None;
            self.with_client(name, |client, now, _| client.session.disconnected(client.clock.read(now)));
        }
    }

    fn act(&mut self, name: usize) {
        let mut effects = wombat_session::Effects::default();
        self.clients[name].act(&mut self.random, &self.oracle, &mut effects);
        if self.clients[name].is_finished() && self.now < FAULTS && self.clients.len() < 12 {
            self.add_client(); // There is always somebody who wants something.
        }
        self.with_client(name, |_, _, into| *into = effects);
    }

    // ---- Faults ----

    fn fault(&mut self) {
        if self.now > FAULTS {
            self.network.slowness_ms = 0;
            return self.start_server();
        }
        let wait = self.random.millis(100, 3000);
        self.at(self.now + wait, Event::Fault);
        let total: u64 = self.weights.iter().sum();
        if total == 0 {
            return;
        }
        let mut drawn = self.random.below(total);
        let kind = self.weights.iter().position(|weight| {
            let here = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            here
        });
        match kind {
            Some(0) => self.kill_server(),
            Some(1) => {
                let longest = LEASE * 3;
                let stop = self.random.duration(Duration::ZERO, longest);
                self.machine.stopped_until = self.now + stop;
            }
            Some(2) => {
                let name = self.random.below(self.clients.len() as u64) as usize;
                let stop = self.random.duration(Duration::ZERO, LEASE * 2 + GRACE);
                self.clients[name].stopped_until = self.now + stop;
            }
            Some(3) => {
                for id in self.network.at_server() {
                    if self.random.chance(400) {
                        self.break_connection(id);
                    }
                }
            }
            Some(4) => self.network.slowness_ms = self.random.below(3000),
            _ => {
                if self.machine.running.as_ref().is_some_and(|running| !running.syncing) {
                    self.machine.snapshot();
                }
            }
        }
    }

    fn kill_server(&mut self) {
        if self.machine.running.is_none() {
            return;
        }
        self.machine.die(&mut self.random);
        self.life += 1;
        for id in self.network.at_server() {
            if let Some(connection) = self.network.get_mut(id) {
                connection.at_server = false;
            }
            let soon = self.random.millis(0, 50);
            self.at(self.now + soon, Event::LostAtClient(id));
        }
        let down = self.random.duration(Duration::ZERO, LEASE * 2);
        self.at(self.now + down, Event::Start);
    }

    // ---- Oracles ----

    fn check(&self) {
        let now = self.now;
        let holders = self.clients.iter().filter_map(|client| Some((client.name, client.surely_holds(now)?)));
        self.oracle.check_holders(&holders.collect::<Vec<_>>());
        // I5: while the client's own view is live, the log has not ended its session.
        let Some(running) = &self.machine.running else { return };
        for client in &self.clients {
            let live = client.clock.read(now) < client.session.safe_until();
            if let (true, Some(id)) = (live, client.session.id()) {
                assert!(
                    running.replica.state().session(id).is_some(),
                    "I5: session {id} was ended under its client"
                );
            }
        }
    }

    fn end(self) -> Outcome {
        if let Some(running) = &self.machine.running {
            let path = wombat_proto::NodePath::parse("file").expect("a good path");
            let generation =
                running.replica.state().tree().find(&path).map_or(1, |node| node.stat().content_generation);
            self.oracle.check_end(generation);
        }
        self.outcome
    }

    fn unfinished(&self) -> String {
        let waiting = self.clients.iter().filter(|client| !client.is_finished());
        waiting.map(|client| format!("client {} is {:?}; ", client.name, client.doing)).collect()
    }
}
