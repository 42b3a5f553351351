//! What a fence has seen: the newest grant of each lock, and the rule by which another one is stale.

use crate::Refused;
use std::collections::HashMap;
use wombat_proto::{Generation, Instance, LockMode, Path, Sequencer, Token};

/// The newest grants of some locks of one cell. Invariant: after one of a later tenure it never admits one of an
/// earlier, whatever it forgets in between.
pub(crate) struct Memory {
    /// By path, as text.
    newest: HashMap<Box<str>, Grant>,
    /// Of a lock that is not in `newest`, nothing that was granted before this is admitted: it may have been
    /// seen, and a newer one too. Tokens are stamps of the cell's one log, so those of different locks compare.
    floor: Token,
    /// How many locks it remembers.
    most: usize,
}

/// What is remembered of a sequencer.
#[derive(Clone, Copy, PartialEq)]
struct Grant {
    token: Token,
    instance: Instance,
    mode: LockMode,
    generation: Generation,
}

/// What a sequencer that may pass is to the memory.
#[derive(PartialEq, Debug)]
pub(crate) enum Seen {
    /// As new as the newest: nothing is to be remembered.
    AsNew,
    /// Newer than all of its lock before: to be remembered before it is admitted.
    Newer,
}

impl Memory {
    pub(crate) fn new(most: usize) -> Memory {
        Memory { newest: HashMap::new(), floor: Token(0), most }
    }

    /// Judges a sequencer by what was seen before it.
    pub(crate) fn judge(&self, sequencer: &Sequencer) -> Result<Seen, Refused> {
        let (path, grant) = (sequencer.path.to_string(), Grant::of(sequencer));
        match self.newest.get(path.as_str()) {
            Some(newest) if grant.token > newest.token => Ok(Seen::Newer),
            Some(newest) if grant.holds_beside(newest) => Ok(Seen::AsNew),
            Some(newest) => Err(Refused::Stale { path, token: grant.token, newest: newest.token }),
            None if grant.token < self.floor => {
                Err(Refused::Forgotten { path, token: grant.token, floor: self.floor })
            }
            None => Ok(Seen::Newer),
        }
    }

    /// Remembers a sequencer that it has judged to be newer; forgets the oldest if there is no room.
    pub(crate) fn remember(&mut self, sequencer: &Sequencer) {
        self.newest.insert(sequencer.path.to_string().into(), Grant::of(sequencer));
        if self.newest.len() > self.most {
            self.forget_the_oldest();
        }
    }

    /// Forgets an eighth at once, so that a crowd of locks costs each of them little.
    fn forget_the_oldest(&mut self) {
        let mut tokens: Vec<Token> = self.newest.values().map(|grant| grant.token).collect();
        let (_, oldest, _) = tokens.select_nth_unstable(self.most / 8);
        self.floor = self.floor.max(*oldest);
        self.newest.retain(|_, grant| grant.token > self.floor);
        assert!(self.newest.len() <= self.most, "there is room again");
    }

    pub(crate) fn floor(&self) -> Token {
        self.floor
    }

    pub(crate) fn raise_floor(&mut self, floor: Token) {
        self.floor = self.floor.max(floor);
    }

    /// The newest sequencer of each lock that it remembers, in no order.
    pub(crate) fn newest(&self) -> impl Iterator<Item = Sequencer> {
        self.newest.iter().map(|(path, grant)| {
            let path = Path::parse(path).expect("it was a path's text");
            let Grant { token, instance, mode, generation } = *grant;
            Sequencer { path, instance, mode, generation, token }
        })
    }
}

impl Grant {
    fn of(sequencer: &Sequencer) -> Grant {
        let Sequencer { token, instance, mode, generation, .. } = *sequencer;
        Grant { token, instance, mode, generation }
    }

    /// Whether it can be held while `newest` is: it is the same grant, or both are shares of one tenure.
    fn holds_beside(&self, newest: &Grant) -> bool {
        *self == *newest || (self.mode == LockMode::Shared && self.tenure() == newest.tenure())
    }

    fn tenure(&self) -> (Instance, Generation, LockMode) {
        (self.instance, self.generation, self.mode)
    }
}
