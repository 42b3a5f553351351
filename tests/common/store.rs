//! A service that knows nothing of Wombat but tokens.

use std::collections::BTreeMap;
use wombat_client::{LockMode, Sequencer, Token};

/// Of each lock it takes writes only from holders that no newer one excludes (P§2.4).
#[derive(Default)]
pub(crate) struct Store {
    newest: BTreeMap<String, Newest>,
}

/// The newest tokens of a lock.
#[derive(Clone, Copy, Default)]
struct Newest {
    any: Token,
    exclusive: Token,
}

impl Store {
    /// A write under a lock.
    ///
    /// Errors: the newest holder's token, if that is another's and the two cannot hold together.
    pub(crate) fn write(&mut self, sequencer: &Sequencer) -> Result<(), Token> {
        let newest = self.newest.entry(sequencer.path.to_string()).or_default();
        let (alone, token) = (sequencer.mode == LockMode::Exclusive, sequencer.token);
        let rival = if alone { newest.any } else { newest.exclusive };
        if token < rival {
            return Err(rival);
        }
        newest.any = newest.any.max(token);
        if alone {
            newest.exclusive = token;
        }
        Ok(())
    }

    /// The newest token with which something was written under this lock.
    pub(crate) fn newest(&self, sequencer: &Sequencer) -> Token {
        self.newest.get(&sequencer.path.to_string()).copied().unwrap_or_default().any
    }
}
