//! Connections: in order and without loss while they last, and gone without a word when they break.

use crate::random::Random;
use std::collections::BTreeMap;
use std::time::Duration;

/// A connection between a client and the server.
pub(crate) struct Connection {
    pub(crate) client: usize,
    /// Whether either side still thinks that it is there.
    pub(crate) at_server: bool,
    pub(crate) at_client: bool,
    /// When the last message of either direction arrives: none overtakes it.
    last_to_server: Duration,
    last_to_client: Duration,
}

/// All connections that ever were.
#[derive(Default)]
pub(crate) struct Network {
    connections: BTreeMap<u64, Connection>,
    next: u64,
    /// How slow it is just now, in milliseconds at most.
    pub(crate) slowness_ms: u64,
}

impl Network {
    pub(crate) fn connect(&mut self, client: usize) -> u64 {
        self.next += 1;
        let connection = Connection {
            client,
            at_server: true,
            at_client: true,
            last_to_server: Duration::ZERO,
            last_to_client: Duration::ZERO,
        };
        self.connections.insert(self.next, connection);
        self.next
    }

    pub(crate) fn get(&self, id: u64) -> Option<&Connection> {
        self.connections.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut Connection> {
        self.connections.get_mut(&id)
    }

    /// When a message that is sent now arrives at the server; `None`: the connection is gone.
    pub(crate) fn reaches_server(&mut self, id: u64, now: Duration, random: &mut Random) -> Option<Duration> {
        let delay = random.millis(0, 1 + self.slowness_ms);
        let connection = self.connections.get_mut(&id)?;
        connection.last_to_server = connection.last_to_server.max(now + delay);
        Some(connection.last_to_server)
    }

    /// When a message that is sent now arrives at the client.
    pub(crate) fn reaches_client(&mut self, id: u64, now: Duration, random: &mut Random) -> Option<Duration> {
        let delay = random.millis(0, 1 + self.slowness_ms);
        let connection = self.connections.get_mut(&id)?;
        connection.last_to_client = connection.last_to_client.max(now + delay);
        Some(connection.last_to_client)
    }

    /// The connections that the server still holds.
    pub(crate) fn at_server(&self) -> Vec<u64> {
        self.connections.iter().filter(|(_, c)| c.at_server).map(|(id, _)| *id).collect()
    }
}
