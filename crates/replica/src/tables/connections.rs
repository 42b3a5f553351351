//! The clients' connections. Sessions are not connections: a connection may speak for many sessions, and a
//! session for its whole life through many connections (SPEC §3).

use crate::request::ConnectionId;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use wombat_proto::SessionId;

/// A connection that has said Hello.
#[derive(Default, Debug)]
pub(crate) struct Connection {
    /// The sessions whose secret it has shown, or that it created.
    pub(crate) sessions: BTreeSet<SessionId>,
    /// Whether it is being closed. Requests that still arrive on it are not answered: the client repeats them on
    /// another connection.
    pub(crate) closing: bool,
}

/// All connections that have said Hello.
#[derive(Default)]
pub(crate) struct Connections(BTreeMap<ConnectionId, Connection>);

impl Connections {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.0.get(&id)
    }

    pub(crate) fn ids(&self) -> Vec<ConnectionId> {
        self.0.keys().copied().collect()
    }

    /// Whether a connection may speak for a session.
    pub(crate) fn is_attached(&self, id: ConnectionId, session: SessionId) -> bool {
        self.get(id).is_some_and(|connection| connection.sessions.contains(&session))
    }

    /// A connection has said Hello.
    pub(crate) fn greet(&mut self, id: ConnectionId) {
        self.0.entry(id).or_default();
    }

    /// A connection speaks for a session from now on.
    pub(crate) fn attach(&mut self, id: ConnectionId, session: SessionId) {
        if let Some(connection) = self.0.get_mut(&id) {
            connection.sessions.insert(session);
        }
    }

    /// A connection speaks for a session no longer.
    pub(crate) fn detach(&mut self, id: ConnectionId, session: SessionId) {
        if let Some(connection) = self.0.get_mut(&id) {
            connection.sessions.remove(&session);
        }
    }

    /// Keeps only those sessions of a connection that `lives` accepts, and returns them.
    pub(crate) fn retain(
        &mut self,
        id: ConnectionId,
        lives: impl Fn(SessionId) -> bool,
    ) -> Option<&BTreeSet<SessionId>> {
        let connection = self.0.get_mut(&id)?;
        connection.sessions.retain(|session| lives(*session));
        Some(&connection.sessions)
    }

    /// A connection is being closed.
    pub(crate) fn close(&mut self, id: ConnectionId) {
        self.0.insert(id, Connection { closing: true, ..Connection::default() });
    }

    pub(crate) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        self.0.remove(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: ConnectionId = ConnectionId(1);

    #[test]
    fn closing_connection_speaks_for_no_session() {
        let mut connections = Connections::default();
        connections.greet(ONE);
        connections.attach(ONE, SessionId(5));
        assert!(connections.is_attached(ONE, SessionId(5)));
        connections.close(ONE);
        assert!(!connections.is_attached(ONE, SessionId(5)));
        assert!(connections.get(ONE).is_some_and(|one| one.closing));
    }

    #[test]
    fn connection_without_hello_attaches_nothing() {
        let mut connections = Connections::default();
        connections.attach(ONE, SessionId(5));
        assert!(connections.get(ONE).is_none() && !connections.is_attached(ONE, SessionId(5)));
    }

    #[test]
    fn retain_drops_the_sessions_that_have_ended() {
        let mut connections = Connections::default();
        connections.greet(ONE);
        connections.attach(ONE, SessionId(5));
        connections.attach(ONE, SessionId(6));
        let kept = connections.retain(ONE, |session| session == SessionId(6));
        assert_eq!(kept, Some(&[SessionId(6)].into()));
    }
}
