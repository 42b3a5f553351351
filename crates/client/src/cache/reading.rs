//! Contents that were read.

use crate::Stat;
use arc_swap::Guard;
use bytes::Bytes;
use std::ops::Deref;
use std::sync::Arc;
use wombat_proto::wire;
use wombat_session::CachedNode;

/// The contents of a file and the metadata that belongs to them, as they were when they were read; to be looked at
/// soon, and let go. One that comes from the cache is not copied, and not even counted: threads that read the same
/// file all the time do not get in each other's way.
///
/// It is what its bytes are: `&reading[..]`, `reading.len()`, `str::from_utf8(&reading)`.
pub struct Reading(Source);

enum Source {
    Cached(Guard<Option<Arc<CachedNode>>>),
    /// In a box: most readings come from the cache, and are moved about.
    Answered(Box<(Bytes, wire::Stat)>),
}

impl Reading {
    /// Of an entry with contents.
    pub(super) fn cached(node: Guard<Option<Arc<CachedNode>>>) -> Reading {
        Reading(Source::Cached(node))
    }

    pub(crate) fn answered(contents: Bytes, stat: wire::Stat) -> Reading {
        Reading(Source::Answered(Box::new((contents, stat))))
    }

    /// The metadata that belongs to the contents.
    pub fn stat(&self) -> Stat {
        match &self.0 {
            Source::Cached(node) => node.as_ref().map_or_else(wire::Stat::default, |node| node.stat).into(),
            Source::Answered(answer) => answer.1.into(),
        }
    }

    /// The contents, to keep.
    pub fn bytes(&self) -> Bytes {
        self.contents().cloned().unwrap_or_default()
    }

    fn contents(&self) -> Option<&Bytes> {
        match &self.0 {
            Source::Cached(node) => node.as_ref()?.contents.as_ref(),
            Source::Answered(answer) => Some(&answer.0),
        }
    }
}

impl Deref for Reading {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.contents().map_or(&[], |contents| contents)
    }
}

impl AsRef<[u8]> for Reading {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Reading").field(&&**self).finish()
    }
}
