//! What happens to replicas, and what they do.

use super::event::Event;
use super::oracle::Oracle;
use super::oracle::view::{Clients, View};
use super::world::World;
use crate::faults::FaultyWorld;
use crate::network;
use std::time::Duration;
use wombat_proto::ReplicaId;
use wombat_proto::wire::{Response, response::Result as Answer};
use wombat_replica::{Input, Notice, PeerMessage, Stage};

impl World {
    pub(super) fn start(&mut self, id: ReplicaId) {
        let (now, activity) = (self.now(), self.schedule.is_traced());
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
        let now = self.now();
        self.oracle.caches.begin_step();
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

    /// The oracle records the slots that this replica is the first to apply.
    fn learn(&mut self, id: ReplicaId) {
        let World { schedule, machines, clients, oracle, tally, .. } = self;
        let (now, Oracle { history, caches, .. }) = (schedule.now(), oracle);
        let Some(running) = machines.get_mut(&id).and_then(|machine| machine.running.as_mut()) else {
            return;
        };
        let state = running.replica.state();
        let (epoch, last) = (history.epoch(), history.last());
        let mut changed = false;
        while history.last() < state.applied() {
            let value = running.accepted.get(&history.last().next());
            let value = value.expect("what a replica applies is in its log");
            history.chosen(value, now, &Clients(clients, now), tally);
            changed |= caches.applied(history.last(), value, history, tally);
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
            self.oracle.check_cached(&self.view());
        }
        if self.oracle.history.last() > last {
            (0..self.clients.len()).for_each(|client| self.read_cached(client));
        }
        let began = self.oracle.history.epoch() > epoch;
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
            self.oracle.caches.serves(*epoch);
        }
        for notice in &effects.notices {
            self.tell(&format!("{id}: {notice}"));
            match notice {
                Notice::MadeWay { .. } => self.tally.count("masters that made way"),
                Notice::LeaseLengthened { .. } => self.tally.count("longer master leases"),
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
            let number = self.schedule.number();
            match self.machine(id).take_chunk(number, received) {
                Some(true) => self.schedule_written(id, number),
                Some(false) => self.step(id, Input::SnapshotFailed),
                None => {}
            }
        }
        if effects.snapshot_wanted {
            self.write_snapshot(id);
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
        let now = self.now();
        let World { schedule, machines, clients, oracle, tally, .. } = self;
        let view = View { now: schedule.now(), machines, clients };
        oracle.check_reply(&view, id, &response, tally);
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
        let now = self.now();
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

    pub(super) fn write_snapshot(&mut self, id: ReplicaId) {
        let number = self.schedule.number();
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
}
