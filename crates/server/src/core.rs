//! The core's turn: take what has happened, step the replica, make its records durable, send its answers.

use crate::connection::Outbox;
use crate::disk::ReplicaDisk;
use crate::inbox::Inbox;
use crate::{Config, ServerError};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tracing::info;
use wombat_proto::clock;
use wombat_proto::wire::{Response, response};
use wombat_proto::{Members, ReplicaId, Slot};
use wombat_replica::{ConnectionId, Effects, Input, LONGEST_TICK, Moment, Recovered, Replica};
use wombat_storage::{Options, RealDisk, Store, Wanted};

/// The replica with its disk and the ways out to its clients.
pub(crate) struct Core {
    replica: Replica,
    disk: ReplicaDisk,
    outboxes: BTreeMap<ConnectionId, Rc<Outbox>>,
    effects: Effects,
}

impl Core {
    /// Opens the data directory, starts the replica from it, and brings it to where it can serve.
    pub(crate) fn start(config: &Config, address: String) -> Result<Core, ServerError> {
        config.check()?;
        let mut cell_id = [0; 8];
        let mut fresh_key = [0; 32];
        let mut seed = [0; 8];
        for random in [&mut cell_id[..], &mut fresh_key[..], &mut seed[..]] {
            getrandom::fill(random).map_err(|error| ServerError::System(std::io::Error::other(error)))?;
        }
        let wanted = Wanted {
            cell: config.cell.clone(),
            replica: config.replica,
            cell_id: cell_id.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        let (store, recovered) = Store::open(RealDisk::open(&config.dir)?, &wanted, Options::default())?;
        if recovered.dropped_tail_bytes > 0 {
            info!(bytes = recovered.dropped_tail_bytes, "dropped a torn tail that was never acknowledged");
        }
        let snapshot = recovered.snapshot.as_ref().map_or(Slot(0), |(slot, _)| *slot);
        let replica = Replica::new(
            wombat_replica::Config {
                cell: config.cell.clone(),
                replica: config.replica,
                founders: Members::founding([address.clone()]),
                address,
                master_lease: config.master_lease,
                seed: u64::from_ne_bytes(seed),
                lease: config.session_lease,
                version: env!("CARGO_PKG_VERSION").into(),
                fresh_key,
                activity: config.activity,
            },
            Recovered {
                starts: recovered.starts,
                promised: recovered.promised,
                lease_bound: recovered.lease_bound,
                chosen: recovered.chosen,
                snapshot: recovered.snapshot,
                accepted: recovered.accepted,
            },
            moment(),
        )?;
        let disk = ReplicaDisk::new(store, snapshot);
        let mut core = Core { replica, disk, outboxes: BTreeMap::new(), effects: Effects::default() };
        core.step(Input::Tick, moment());
        core.settle()?;
        Ok(core)
    }

    /// Takes a new connection in.
    pub(crate) fn connect(&mut self, connection: ConnectionId, outbox: Rc<Outbox>) {
        self.outboxes.insert(connection, outbox);
    }

    /// How many connections there are.
    pub(crate) fn connections(&self) -> usize {
        self.outboxes.len()
    }

    /// Steps the replica through everything that waits, and settles what follows.
    pub(crate) fn turn(&mut self, inbox: &Inbox) -> Result<(), ServerError> {
        let moment = moment();
        for input in inbox.take() {
            if let Input::Disconnected { connection } = &input {
                self.outboxes.remove(connection);
            }
            self.step(input, moment);
        }
        // After the requests: a KeepAlive that has arrived counts before the lease is looked at.
        self.step(Input::Tick, moment);
        self.settle()?;
        if let Some(slot) = self.disk.tend_snapshots(&self.replica)? {
            self.step(Input::Snapshotted { slot }, moment);
        }
        Ok(())
    }

    /// How long the core may sleep if nothing happens.
    pub(crate) fn idle_for(&self) -> Duration {
        let deadline = self.replica.next_deadline();
        deadline.map_or(LONGEST_TICK, |deadline| deadline.since(clock::now()).min(LONGEST_TICK))
    }

    /// Closes the log.
    pub(crate) fn close(self) -> Result<(), ServerError> {
        self.disk.close()
    }

    fn step(&mut self, input: Input, moment: Moment) {
        self.replica.step(moment, input, &mut self.effects);
    }

    /// Carries out effects until there are none: records become durable before anything that follows from
    /// them is sent.
    fn settle(&mut self) -> Result<(), ServerError> {
        loop {
            for line in self.effects.activity.drain(..) {
                info!(target: "wombat::activity", "{line}");
            }
            if self.effects.persist.is_empty() {
                break;
            }
            let records = std::mem::take(&mut self.effects.persist);
            let through = self.disk.persist(&records)?;
            self.step(Input::Persisted { through }, moment());
        }
        for (connection, mut response) in self.effects.replies.drain(..) {
            let Some(outbox) = self.outboxes.get(&connection) else { continue };
            complete_status(&mut response, &self.disk);
            outbox.push(&response);
        }
        for connection in self.effects.hang_up.drain(..) {
            if let Some(outbox) = self.outboxes.get(&connection) {
                outbox.close();
            }
        }
        Ok(())
    }
}

/// Adds to a status what only the shell knows.
fn complete_status(response: &mut Response, disk: &ReplicaDisk) {
    if let Some(response::Result::Status(status)) = &mut response.result {
        status.log_bytes = disk.log_bytes();
        status.snapshot_slot = disk.snapshot_slot().0;
        status.cell_id = disk.cell_id().into();
    }
}

fn moment() -> Moment {
    Moment { now: clock::now(), wall_ms: clock::wall_ms() }
}

/// Words for the log line of a server that is ready.
pub(crate) fn describe(config: &Config) -> String {
    let ReplicaId(replica) = config.replica;
    format!("replica {replica} of cell {} in {}", config.cell, config.dir.display())
}
