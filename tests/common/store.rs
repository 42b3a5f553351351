//! A service that knows nothing of Wombat but tokens.

use std::collections::BTreeMap;
use wombat_client::{Sequencer, Token};

/// Of each lock it takes writes from the newest holder only (P§2.4).
#[derive(Default)]
pub(crate) struct Store {
    newest: BTreeMap<String, Token>,
}

impl Store {
    /// A write under a lock.
    ///
    /// Errors: the newest holder's token, if that is another's.
    pub(crate) fn write(&mut self, sequencer: &Sequencer) -> Result<(), Token> {
        let newest = self.newest.entry(sequencer.path.to_string()).or_default();
        if sequencer.token < *newest {
            return Err(*newest);
        }
        *newest = sequencer.token;
        Ok(())
    }

    /// The token of the last write under this lock.
    pub(crate) fn newest(&self, sequencer: &Sequencer) -> Token {
        self.newest.get(&sequencer.path.to_string()).copied().unwrap_or_default()
    }
}
