//! What a replica knows of a client's connection. Sessions are not connections: a connection may speak for
//! many sessions, and a session for its whole life through many connections (SPEC §3).

use alloc::collections::BTreeSet;
use wombat_proto::SessionId;

/// A connection that has said Hello.
#[derive(Default, Debug)]
pub(crate) struct Connection {
    /// The sessions whose secret it has shown, or that it created.
    pub(crate) sessions: BTreeSet<SessionId>,
    /// Whether it is being closed. What its client had sent by then still arrives and is not answered: it asks
    /// again on another.
    pub(crate) closing: bool,
}
