//! What a client has looked at.

use wombat_proto::wire::Handle;

/// What it asks the master for.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Look {
    Node,
    Page(Handle),
    Path,
}

/// What a client has seen, and has open besides its places.
#[derive(Default)]
pub(super) struct Sight {
    /// The handle of what it has looked at by its path.
    pub(super) peeked: Option<Handle>,
    /// The directory of which it has read a page that was not the last one, and the last name there.
    pub(super) paging: Option<(Handle, String)>,
    pub(super) nest: Vec<Handle>,
    /// Whether what it had in the cache was of no use when that was looked at last.
    pub(super) lapsed: bool,
}
