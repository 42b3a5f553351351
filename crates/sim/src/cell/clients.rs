//! What happens to clients, and what they do.

use super::client::Client;
use super::endpoint::Endpoint;
use super::event::Event;
use super::world::World;
use std::time::Duration;
use wombat_proto::wire::event::Kind;
use wombat_session::{NodeEvent, SessionEvent};

/// Most clients of a run.
const MAX_CLIENTS: usize = 16;

impl World {
    pub(super) fn add_client(&mut self) {
        let name = self.clients.len();
        let endpoints = self.endpoints();
        let now = self.now();
        let client = Client::new(name, endpoints, now, &self.swarm, &mut self.random);
        self.oracle.search.iter_mut().for_each(|bound| bound.client_came(now));
        self.clients.push(client);
        self.schedule_client_tick(name, now);
        self.will_act(name, Duration::ZERO);
    }

    /// Adds a client, unless there are enough.
    pub(super) fn add_client_if_room(&mut self) {
        if self.clients.len() < MAX_CLIENTS {
            self.add_client();
        }
    }

    /// The endpoints that a client is given: all replicas in some order, and perhaps some that lead nowhere.
    fn endpoints(&mut self) -> Vec<String> {
        let random = &mut self.random;
        if let Some(plan) = &self.search {
            return plan.endpoints(random);
        }
        let mut endpoints: Vec<Endpoint> = self.machines.keys().map(|id| Endpoint::Replica(*id)).collect();
        while random.chance(200) {
            endpoints.push(Endpoint::BAD[random.below(5) as usize]);
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

    /// Lets something happen to a client, and carries out what it wants.
    pub(super) fn with_client(
        &mut self,
        name: usize,
        happen: impl FnOnce(&mut Client, Duration, &mut wombat_session::Effects),
    ) {
        let now = self.now();
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
            self.oracle.history.events.forget(name);
        }
        self.show_cached(name, effects.cache);
        for event in &effects.session_events {
            self.tally.count(match event {
                SessionEvent::Jeopardy => "jeopardies",
                SessionEvent::Safe => "safes",
                SessionEvent::Expired => "sessions over at their clients",
                SessionEvent::FailedOver { .. } => "fail-overs seen",
            });
            self.schedule.print(format_args!("-- client {name}: {event:?}"));
        }
        for event in &effects.node_events {
            self.hear(name, event);
        }
        for revoked in &effects.revoked {
            self.tally.count("revocations");
            self.clients[name].is_revoked(revoked);
            let wait = self.random.millis(0, 6000);
            self.will_act(name, wait);
        }
        for (number, result) in effects.done {
            let (oracle, tally) = (&mut self.oracle, &mut self.tally);
            self.clients[name].done(number, result, &mut oracle.answers, &oracle.history, tally);
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
        let tally = &mut self.tally;
        match event.kind {
            Kind::FailedOver => {}
            Kind::Gap => tally.count("gaps"),
            Kind::LockConflict => tally.count("conflicts told"),
            _ => tally.count("events delivered"),
        }
        if let Some((instance, slot)) = self.oracle.history.events.heard(name, event)
            && let Some(generation) = self.oracle.history.generation_of(instance, slot)
        {
            // Whoever reads from now on sees it.
            self.oracle.answers.tell(instance, generation);
        }
        if matches!(event.kind, Kind::LockConflict | Kind::Gap) {
            self.will_act(name, Duration::from_millis(1));
        }
        self.clients[name].hears(event);
    }

    pub(super) fn act(&mut self, name: usize) {
        let mut effects = wombat_session::Effects::default();
        let World { schedule, clients, oracle, random, .. } = self;
        let was_finished = clients[name].is_finished();
        clients[name].act(schedule.now(), &oracle.answers, &oracle.history, random, &mut effects);
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
}
