//! Reads by path that need no session (SPEC §7): what any replica knows, master or not, with how old that may be; and
//! what is so now, at the master.

use super::nodes::page_of;
use crate::{Answer, Replica};
use wombat_proto::wire::read_stale::What;
use wombat_proto::wire::{self, stale_read};
use wombat_proto::{Error, Result};

impl Replica {
    /// Only a master comes here, and only while its lease holds and nothing of its fail-over is left to do.
    pub(super) fn read_path(&self, read: wire::ReadPath) -> Result<Answer> {
        let wire::ReadPath { path, what, after, limit } = read;
        self.read_stale(&wire::ReadStale { path, what, after, limit })
    }

    pub(super) fn read_stale(&self, read: &wire::ReadStale) -> Result<Answer> {
        let what = What::try_from(read.what)
            .map_err(|_| Error::invalid("what is CONTENTS (0), STAT (1) or LIST (2)"))?;
        let name = self.parse(&read.path)?;
        let tree = self.state.tree();
        let root = tree.root().ok_or(Error::NoQuorum)?;
        let node = tree.descend(root, &name).ok_or_else(|| Error::not_found(&read.path))?;
        let answer = match what {
            What::Contents => {
                let contents = node.contents().ok_or(Error::IsDirectory)?.clone();
                stale_read::Answer::Contents(wire::Contents { contents, stat: Some(node.stat()) })
            }
            What::Stat => stale_read::Answer::Stat(node.stat()),
            What::List => stale_read::Answer::Entries(page_of(tree, node, &read.after, read.limit)?),
        };
        let age = self.age_at(self.moment.now);
        Ok(Answer::StaleRead(wire::StaleRead {
            answer: Some(answer),
            applied_slot: self.state.stamp().0,
            // Rounded up: it is a bound.
            age_ms: age.map_or(0, |age| age.as_nanos().div_ceil(1_000_000) as u64),
            age_unknown: age.is_none(),
            replica: self.config.replica.0,
        }))
    }
}
