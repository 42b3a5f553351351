//! Histories of locks made at random, their sequencers brought in any order, against what is true.

use crate::{Fence, Refused};
use proptest::prelude::*;
use wombat_proto::{Generation, Instance, LockMode, Path, Sequencer, Token};

const LOCKS: usize = 3;

/// Locks as a cell keeps them, with the number of each tenure, which no generation can roll back.
#[derive(Default)]
struct World {
    slot: u64,
    locks: [Lock; LOCKS],
    /// All that were ever granted: the lock's number, its tenure's, and what the holder got.
    granted: Vec<(usize, u64, Sequencer)>,
}

#[derive(Default, Clone, Copy)]
struct Lock {
    instance: u64,
    generation: u64,
    /// The mode and the number of the present holders.
    held: Option<(LockMode, u32)>,
    tenure: u64,
}

impl World {
    fn slot(&mut self) -> u64 {
        self.slot += 1;
        self.slot
    }

    fn grant(&mut self, number: usize, mode: LockMode) {
        let slot = self.slot();
        let lock = &mut self.locks[number];
        match (&mut lock.held, mode) {
            (Some((LockMode::Shared, holders)), LockMode::Shared) => *holders += 1,
            (Some(_), _) => return,
            (held @ None, _) => {
                *held = Some((mode, 1));
                lock.generation += 1;
                lock.tenure += 1;
            }
        }
        let path = Path::parse(&format!("/ls/foo/locks/{number}")).unwrap();
        let (instance, generation) = (Instance(lock.instance), Generation(lock.generation));
        let sequencer = Sequencer { path, instance, mode, generation, token: Token(slot) };
        self.granted.push((number, lock.tenure, sequencer));
    }

    fn step(&mut self, number: usize, what: u8) {
        match what {
            0 | 1 => self.grant(number, LockMode::Exclusive),
            2..=5 => self.grant(number, LockMode::Shared),
            6 | 7 => {
                let lock = &mut self.locks[number];
                lock.held = lock.held.and_then(|(mode, n)| (n > 1).then_some((mode, n - 1)));
            }
            8 => {
                let instance = self.slot();
                let tenure = self.locks[number].tenure;
                self.locks[number] = Lock { instance, tenure, ..Lock::default() };
            }
            // The cell is restored: it has forgotten its holders, and counts on from a stamp of a later epoch.
            _ => {
                self.slot += (1 << 20) + self.slot % 5;
                for lock in &mut self.locks {
                    lock.held = None;
                    lock.generation = lock.generation.saturating_sub(2).max(self.slot);
                }
            }
        }
    }
}

proptest! {
    /// Admitted is what is of the newest tenure that was admitted, or of a later one. A fence that forgets may
    /// refuse more, never less.
    #[test]
    fn no_tenure_is_admitted_after_a_later_one(
        steps in prop::collection::vec((0..LOCKS, 0_u8..30, any::<prop::sample::Index>()), 1..150),
        remembers in 1..=LOCKS,
    ) {
        let fence = Fence::of_cell("foo").unwrap().locks_below("locks").unwrap().remembering(remembers);
        let mut world = World::default();
        let mut newest = [0; LOCKS];
        for (number, what, which) in steps {
            if what < 10 {
                world.step(number, what);
            } else if !world.granted.is_empty() {
                let (number, tenure, sequencer) = which.get(&world.granted);
                match fence.check(sequencer) {
                    Ok(()) => {
                        prop_assert!(*tenure >= newest[*number], "{sequencer} was admitted, and is stale");
                        newest[*number] = *tenure;
                    }
                    Err(Refused::Stale { .. }) => {
                        prop_assert!(*tenure < newest[*number], "{sequencer} was refused, and is not stale")
                    }
                    Err(Refused::Forgotten { .. }) => prop_assert!(remembers < LOCKS, "it forgot"),
                    Err(refused) => prop_assert!(false, "{refused}"),
                }
            }
        }
    }
}
