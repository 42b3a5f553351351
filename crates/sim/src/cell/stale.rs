//! Reads at any replica (SPEC §7): somebody reads at replicas now and then, whatever they are just now. What they
//! see is the state as it was after the slot that they are told, and nothing is missing that was completed before
//! the age that they are told.

use super::history::History;
use super::world::{Event, World};
use std::collections::BTreeMap;
use std::time::Duration;
use wombat_proto::wire::read_stale::What;
use wombat_proto::wire::{self, Request, request::Call, response::Result as Answer, stale_read};
use wombat_proto::{Error, Instant, Path, ReplicaId, Result, Slot};
use wombat_replica::{ConnectionId, Input};
use wombat_state::{Node, State};

/// What is read: what is written, made, locked and deleted, and what cannot be read.
const PLACES: [(&str, What); 6] = [
    ("/ls/sim/file", What::Contents),
    ("/ls/sim/file", What::Stat),
    ("/ls/sim/common", What::Stat),
    ("/ls/sim/lock-0", What::Stat),
    ("/ls/sim", What::List),
    ("/ls/sim", What::Contents),
];

/// What is there to see.
type Sight = Result<stale_read::Answer>;

/// The books.
#[derive(Default)]
pub(super) struct Stale {
    /// For each place, what there was to see after a slot, until something else was.
    sights: [BTreeMap<Slot, Sight>; PLACES.len()],
    /// How far a master knew the log, and since when: from then on it may have told somebody.
    completed: BTreeMap<Slot, Duration>,
}

impl Stale {
    /// The state after a slot.
    pub(super) fn note(&mut self, state: &State) {
        for (place, sights) in PLACES.iter().zip(&mut self.sights) {
            let sight = see(state, place);
            if sights.last_key_value().is_none_or(|(_, last)| *last != sight) {
                sights.insert(state.stamp(), sight);
            }
        }
    }

    /// A master knows so much.
    pub(super) fn complete(&mut self, applied: Slot, now: Duration) {
        if self.completed.last_key_value().is_none_or(|(last, _)| *last < applied) {
            self.completed.insert(applied, now);
        }
    }

    fn sight(&self, place: usize, applied: Slot) -> Sight {
        let sight = self.sights[place].range(..=applied).next_back();
        sight.map_or(Err(Error::NoQuorum), |(_, sight)| sight.clone())
    }

    /// When the first thing was completed that is not in the slots up to `applied`.
    fn missed_since(&self, applied: Slot) -> Option<Duration> {
        self.completed.range(applied.next()..).next().map(|(_, at)| *at)
    }
}

fn see(state: &State, (path, what): &(&str, What)) -> Sight {
    let tree = state.tree();
    let path_of_node = Path::parse(path).expect("a good path").node;
    let Some(node) = tree.find(&path_of_node) else {
        return Err(if tree.root().is_some() { Error::not_found(*path) } else { Error::NoQuorum });
    };
    let stat = |node: &Node| Some(node.stat());
    match what {
        What::Stat => Ok(stale_read::Answer::Stat(node.stat())),
        What::Contents => {
            let contents = node.contents().ok_or(Error::IsDirectory)?.clone();
            Ok(stale_read::Answer::Contents(wire::Contents { contents, stat: stat(node) }))
        }
        What::List => {
            let children = node.children().ok_or(Error::NotDirectory)?.iter();
            let entries = children.map(|(name, child)| {
                let stat = tree.get(*child).and_then(stat);
                wire::Entry { name: name.as_str().into(), stat }
            });
            Ok(stale_read::Answer::Entries(wire::Entries { entries: entries.collect(), more: false }))
        }
    }
}

impl History {
    /// A replica says how old its state, that after `applied`, is at most: `age` at `now` of its clock.
    fn check_age(&self, applied: Slot, read: impl Fn(Duration) -> Instant, now: Instant, age: Duration) {
        let until = now.as_nanos().saturating_sub(age.as_nanos() as u64);
        if let Some(missed) = self.stale.missed_since(applied) {
            let is_old = read(missed).as_nanos() >= until;
            assert!(is_old, "what is {age:?} old lacks something after slot {applied} that is older");
        }
    }
}

impl World {
    /// Somebody reads at a replica that runs.
    pub(super) fn read_stale(&mut self) {
        let pause = self.random.duration(Duration::from_millis(1), self.swarm.stale_reads);
        self.after(pause, Event::ReadStale);
        let now = self.now;
        let awake = self.machines.values().filter(|one| one.running.is_some() && one.stopped_until <= now);
        let awake: Vec<ReplicaId> = awake.map(|machine| machine.id).collect();
        if !awake.is_empty() {
            let id = awake[self.random.below(awake.len() as u64) as usize];
            let place = self.random.below(PLACES.len() as u64) as usize;
            self.read_stale_at(id, place);
        }
    }

    fn read_stale_at(&mut self, id: ReplicaId, place: usize) {
        let connection = ConnectionId(u64::MAX - self.number());
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
    fn ask(&mut self, id: ReplicaId, connection: ConnectionId, input: Input) -> Option<(Slot, Answer)> {
        let now = self.now;
        let applied = self.machine(id).running.as_ref()?.replica.state().stamp();
        self.caches.begin_step();
        let mut effects = self.machine(id).step(now, input);
        let place = effects.replies.iter().position(|(to, _)| *to == connection);
        let answer = place.and_then(|place| effects.replies.remove(place).1.result);
        self.carry_on(id, effects);
        Some((applied, answer?))
    }

    fn check_stale_read(&mut self, id: ReplicaId, place: usize, applied: Slot, answer: Answer) {
        let clock = self.machines[&id].clock;
        let (now, tally) = (clock.read(self.now), &mut self.outcome.tally);
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
                    self.history.check_age(applied, |real| clock.read(real), now, age);
                }
                Ok(read.answer.expect("a read has an answer"))
            }
            Answer::Error(error) => Err(error.into()),
            other => panic!("{id} answers a stale read with {other:?}"),
        };
        let expected = self.history.stale.sight(place, applied);
        assert_eq!(sight, expected, "replica {id} at {applied} shows another {:?}", PLACES[place]);
    }
}
