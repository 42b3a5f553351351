//! Reads by path that need no session (SPEC §7), with how old the answer may be at most.

use crate::context::View;
use crate::pages::page_of;
use crate::request::Answer;
use wombat_proto::wire::read_stale::What;
use wombat_proto::wire::{self, stale_read};
use wombat_proto::{Error, Result};

/// A read of the present, at the master. It comes here only while the master's lease holds and the fail-over is over.
pub(crate) fn read_path(view: View<'_>, read: wire::ReadPath) -> Result<Answer> {
    let wire::ReadPath { path, what, after, limit } = read;
    read_stale(view, &wire::ReadStale { path, what, after, limit })
}

/// A read that any replica answers from its state, with how old that may be.
pub(crate) fn read_stale(view: View<'_>, read: &wire::ReadStale) -> Result<Answer> {
    let what = What::try_from(read.what)
        .map_err(|_| Error::invalid("what is CONTENTS (0), STAT (1) or LIST (2)"))?;
    let name = view.config.parse_path(&read.path)?;
    let tree = view.state.tree();
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
    let age = view.age();
    Ok(Answer::StaleRead(wire::StaleRead {
        answer: Some(answer),
        applied_slot: view.state.stamp().0,
        // Rounded up: it is a bound.
        age_ms: age.map_or(0, |age| age.as_nanos().div_ceil(1_000_000) as u64),
        age_unknown: age.is_none(),
        replica: view.config.replica.0,
    }))
}
