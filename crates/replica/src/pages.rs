//! Listings, page by page.

use alloc::vec::Vec;
use core::ops::Bound;
use prost::Message;
use wombat_proto::limits::{PAGE_BYTES, PAGE_ENTRIES};
use wombat_proto::{Error, Name, Result, wire};
use wombat_state::{Node, Tree};

/// As many of `rest` as a page holds, the first in any case; and whether there are more.
pub(crate) fn fill_page<T: Message>(limit: u32, rest: impl Iterator<Item = T>) -> (Vec<T>, bool) {
    let (mut entries, mut bytes) = (Vec::new(), 0);
    for entry in rest {
        bytes += entry.encoded_len() + 8;
        if entries.len() >= page(limit) || bytes > PAGE_BYTES && !entries.is_empty() {
            return (entries, true);
        }
        entries.push(entry);
    }
    (entries, false)
}

/// How many entries a page has at most.
pub(crate) fn page(limit: u32) -> usize {
    match limit as usize {
        0 => PAGE_ENTRIES,
        limit => limit.min(PAGE_ENTRIES),
    }
}

/// A page of a directory: its children after a name, the first ones if that is empty.
pub(crate) fn page_of(tree: &Tree, directory: &Node, after: &str, limit: u32) -> Result<wire::Entries> {
    let children = directory.children().ok_or(Error::NotDirectory)?;
    let after = match after {
        "" => None,
        after => Some(Name::parse(after)?),
    };
    let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    let rest = children.iter_from(from).map(|(name, child)| {
        let stat = tree.get(*child).map(Node::stat);
        wire::Entry { name: name.as_str().into(), stat }
    });
    let (entries, more) = fill_page(limit, rest);
    Ok(wire::Entries { entries, more })
}
