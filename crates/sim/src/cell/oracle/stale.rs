//! Reads at any replica (SPEC §7): an answer is what the state was after the slot that it names, and lacks nothing that
//! was completed before the age that it names.

use std::collections::BTreeMap;
use std::time::Duration;
use wombat_proto::wire::read_stale::What;
use wombat_proto::wire::{self, stale_read};
use wombat_proto::{Error, Instant, Path, Result, Slot};
use wombat_state::{Node, State};

/// What is read: what is written, made, locked and deleted, and what cannot be read.
pub(in crate::cell) const PLACES: [(&str, What); 6] = [
    ("/ls/sim/file", What::Contents),
    ("/ls/sim/file", What::Stat),
    ("/ls/sim/common", What::Stat),
    ("/ls/sim/lock-0", What::Stat),
    ("/ls/sim", What::List),
    ("/ls/sim", What::Contents),
];

/// What is there to see.
pub(in crate::cell) type Sight = Result<stale_read::Answer>;

/// The books.
#[derive(Default)]
pub(in crate::cell) struct Stale {
    /// For each place, what there was to see after a slot, until something else was.
    sights: [BTreeMap<Slot, Sight>; PLACES.len()],
    /// How far a master knew the log, and since when: from then on it may have told somebody.
    completed: BTreeMap<Slot, Duration>,
}

impl Stale {
    /// The state after a slot.
    pub(in crate::cell) fn note(&mut self, state: &State) {
        for (place, sights) in PLACES.iter().zip(&mut self.sights) {
            let sight = see(state, place);
            if sights.last_key_value().is_none_or(|(_, last)| *last != sight) {
                sights.insert(state.stamp(), sight);
            }
        }
    }

    /// A master knows so much.
    pub(in crate::cell) fn complete(&mut self, applied: Slot, now: Duration) {
        if self.completed.last_key_value().is_none_or(|(last, _)| *last < applied) {
            self.completed.insert(applied, now);
        }
    }

    pub(in crate::cell) fn sight(&self, place: usize, applied: Slot) -> Sight {
        let sight = self.sights[place].range(..=applied).next_back();
        sight.map_or(Err(Error::NoQuorum), |(_, sight)| sight.clone())
    }

    /// A replica says how old its state, that after `applied`, is at most: `age` at `now` of its clock.
    pub(in crate::cell) fn check_age(
        &self,
        applied: Slot,
        read: impl Fn(Duration) -> Instant,
        now: Instant,
        age: Duration,
    ) {
        let until = now.as_nanos().saturating_sub(age.as_nanos() as u64);
        if let Some(missed) = self.missed_since(applied) {
            let is_old = read(missed).as_nanos() >= until;
            assert!(is_old, "what is {age:?} old lacks something after slot {applied} that is older");
        }
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
