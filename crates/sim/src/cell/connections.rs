//! Connections between clients and replicas: in order and without loss while they last, and gone without a
//! word when they break. What was sent on one may arrive long after its client has left it.

use crate::random::Random;
use std::collections::BTreeMap;
use std::time::Duration;
use wombat_proto::ReplicaId;

/// A connection.
pub(super) struct Connection {
    pub(super) client: usize,
    pub(super) replica: ReplicaId,
    /// Whether either side still thinks that it is there.
    pub(super) at_replica: bool,
    pub(super) at_client: bool,
    /// When the last message of either direction arrives: none overtakes it.
    last_to_replica: Duration,
    last_to_client: Duration,
}

/// All connections that anyone still thinks of.
#[derive(Default)]
pub(super) struct Connections {
    all: BTreeMap<u64, Connection>,
    last: u64,
    /// How slow the network is just now, in milliseconds at most.
    pub(super) slowness_ms: u64,
    /// Between whom nothing passes, until when. What is sent meanwhile arrives later.
    cuts: BTreeMap<(usize, ReplicaId), Duration>,
    /// The same between any client and a replica.
    silent: BTreeMap<ReplicaId, Duration>,
}

impl Connections {
    pub(super) fn connect(&mut self, client: usize, replica: ReplicaId) -> u64 {
        self.last += 1;
        let connection = Connection {
            client,
            replica,
            at_replica: true,
            at_client: true,
            last_to_replica: Duration::ZERO,
            last_to_client: Duration::ZERO,
        };
        self.all.insert(self.last, connection);
        self.last
    }

    pub(super) fn get(&self, id: u64) -> Option<&Connection> {
        self.all.get(&id)
    }

    /// One side gives it up, or hears that it is gone.
    pub(super) fn leave(&mut self, id: u64, client: bool) {
        let Some(connection) = self.all.get_mut(&id) else { return };
        *if client { &mut connection.at_client } else { &mut connection.at_replica } = false;
        if !connection.at_client && !connection.at_replica {
            self.all.remove(&id);
        }
    }

    /// Until `until` nothing passes between a client and a replica.
    pub(super) fn cut(&mut self, client: usize, replica: ReplicaId, until: Duration) {
        self.cuts.insert((client, replica), until);
    }

    /// Until `until` nothing passes between any client and a replica.
    pub(super) fn silence(&mut self, replica: ReplicaId, until: Duration) {
        self.silent.insert(replica, until);
    }

    pub(super) fn is_cut(&self, client: usize, replica: ReplicaId, now: Duration) -> bool {
        self.passes_at(client, replica, now) > now
    }

    /// When what is sent now passes.
    fn passes_at(&self, client: usize, replica: ReplicaId, now: Duration) -> Duration {
        let cuts = [self.cuts.get(&(client, replica)), self.silent.get(&replica)];
        cuts.into_iter().flatten().fold(now, |at, until| at.max(*until))
    }

    pub(super) fn heal(&mut self) {
        self.slowness_ms = 0;
        self.cuts.clear();
        self.silent.clear();
    }

    /// When a message that is sent now arrives at the replica; `None`: there is no connection.
    pub(super) fn reaches_replica(
        &mut self,
        id: u64,
        now: Duration,
        random: &mut Random,
    ) -> Option<Duration> {
        let delay = random.millis(0, 1 + self.slowness_ms);
        let passes = self.get(id).map(|one| self.passes_at(one.client, one.replica, now))?;
        let connection = self.all.get_mut(&id)?;
        connection.last_to_replica = connection.last_to_replica.max(passes + delay);
        Some(connection.last_to_replica)
    }

    /// When a message that is sent now arrives at the client.
    pub(super) fn reaches_client(&mut self, id: u64, now: Duration, random: &mut Random) -> Option<Duration> {
        let delay = random.millis(0, 1 + self.slowness_ms);
        let passes = self.get(id).map(|one| self.passes_at(one.client, one.replica, now))?;
        let connection = self.all.get_mut(&id)?;
        connection.last_to_client = connection.last_to_client.max(passes + delay);
        Some(connection.last_to_client)
    }

    /// The connections that a replica still holds.
    pub(super) fn at_replica(&self, replica: ReplicaId) -> Vec<u64> {
        let held = self.all.iter().filter(|(_, one)| one.at_replica && one.replica == replica);
        held.map(|(id, _)| *id).collect()
    }

    /// All that either side still holds.
    pub(super) fn ids(&self) -> Vec<u64> {
        self.all.keys().copied().collect()
    }
}
