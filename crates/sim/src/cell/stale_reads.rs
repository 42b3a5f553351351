//! Reads at any replica (SPEC §7), whatever role it has at the moment.

use super::event::Event;
use super::oracle::stale::PLACES;
use super::world::World;
use std::time::Duration;
use wombat_proto::wire::{self, Request, request::Call, response::Result as Answer};
use wombat_proto::{ReplicaId, Slot};
use wombat_replica::{ConnectionId, Input};

impl World {
    /// Somebody reads at a replica that runs.
    pub(super) fn read_stale(&mut self) {
        let pause = self.random.duration(Duration::from_millis(1), self.swarm.stale_reads);
        self.after(pause, Event::ReadStale);
        let now = self.now();
        let awake = self.machines.values().filter(|one| one.running.is_some() && one.stopped_until <= now);
        let awake: Vec<ReplicaId> = awake.map(|machine| machine.id).collect();
        if !awake.is_empty() {
            let id = awake[self.random.below(awake.len() as u64) as usize];
            let place = self.random.below(PLACES.len() as u64) as usize;
            self.read_stale_at(id, place);
        }
    }

    fn read_stale_at(&mut self, id: ReplicaId, place: usize) {
        let connection = ConnectionId(u64::MAX - self.schedule.number());
        let (path, what) = PLACES[place];
        let read = wire::ReadStale { path: path.into(), what: what.into(), ..wire::ReadStale::default() };
        let hello = wire::Hello { version: wire::VERSION, ..wire::Hello::default() };
        let (life, mut seen) = (self.machines[&id].life, None);
        for (number, call) in [(1, Call::Hello(hello)), (2, Call::ReadStale(read))] {
            let request = Request { number, call: Some(call), ..Request::default() };
            seen = self.ask(id, connection, Input::Request { connection, request });
        }
        self.ask(id, connection, Input::Disconnected { connection });
        match seen {
            Some((applied, answer)) => self.check_stale_read(id, place, applied, answer),
            None => assert_ne!(self.machines[&id].life, life, "replica {id} does not say what it knows"),
        }
    }

    /// Lets a replica answer at once, unless it has died. With the answer comes the last slot that it had applied.
    pub(super) fn ask(
        &mut self,
        id: ReplicaId,
        connection: ConnectionId,
        input: Input,
    ) -> Option<(Slot, Answer)> {
        let now = self.now();
        let applied = self.machine(id).running.as_ref()?.replica.state().stamp();
        self.oracle.caches.begin_step();
        let mut effects = self.machine(id).step(now, input);
        let place = effects.replies.iter().position(|(to, _)| *to == connection);
        let answer = place.and_then(|place| effects.replies.remove(place).1.result);
        self.carry_on(id, effects);
        Some((applied, answer?))
    }

    fn check_stale_read(&mut self, id: ReplicaId, place: usize, applied: Slot, answer: Answer) {
        let clock = self.machines[&id].clock;
        let (now, tally) = (clock.read(self.now()), &mut self.tally);
        let sight = match answer {
            Answer::StaleRead(read) => {
                assert_eq!((read.replica, read.applied_slot), (id.0, applied.0));
                let age = Duration::from_millis(read.age_ms);
                tally.count(match () {
                    () if read.age_unknown => "stale reads of unknown age",
                    () if age.is_zero() => "stale reads that are current",
                    () if age < Duration::from_secs(1) => "stale reads",
                    () => "stale reads older than a second",
                });
                if !read.age_unknown {
                    self.oracle.history.stale.check_age(applied, |real| clock.read(real), now, age);
                }
                Ok(read.answer.expect("a read has an answer"))
            }
            Answer::Error(error) => Err(error.into()),
            other => panic!("{id} answers a stale read with {other:?}"),
        };
        let expected = self.oracle.history.stale.sight(place, applied);
        assert_eq!(sight, expected, "replica {id} at {applied} shows another {:?}", PLACES[place]);
    }
}
