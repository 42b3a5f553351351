//! The server of a simulated cell: replica and store, as they ship, on a simulated disk.

use crate::random::{Clock, Random};
use std::time::Duration;
use wombat_proto::{CellName, Members, Record, ReplicaId};
use wombat_replica::{Config, Effects, Input, Moment, Recovered, Replica};
use wombat_storage::{Identity, Options, SimulatedDisk, Store};

pub(crate) const LEASE: Duration = Duration::from_secs(4);

/// The machine, whether the server runs on it or not.
pub(crate) struct Machine {
    pub(crate) disk: SimulatedDisk,
    pub(crate) clock: Clock,
    pub(crate) running: Option<Running>,
    /// While it is stopped, nothing of it runs.
    pub(crate) stopped_until: Duration,
}

/// A server that runs.
pub(crate) struct Running {
    pub(crate) replica: Replica,
    store: Store<SimulatedDisk>,
    /// Records that wait for the sync that is under way to end.
    waiting: Vec<Record>,
    /// Records appended in all, and whether a sync is under way.
    appended: u64,
    pub(crate) syncing: bool,
}

impl Machine {
    /// Starts the server from what the disk holds.
    pub(crate) fn start(&mut self, real: Duration) -> Effects {
        let cell = CellName::parse("sim").expect("a good name");
        let wanted = Identity::alone(cell.clone(), "51".into());
        let options = Options { segment_bytes: 64 * 1024, step_bytes: 16 * 1024 };
        let (store, recovered) =
            Store::open(self.disk.clone(), &wanted, options).expect("a crash never looks like damage");
        let config = Config {
            cell,
            replica: ReplicaId(1),
            address: "sim:1".into(),
            founders: Members::founding(["sim:1".into()]),
            master_lease: Duration::from_secs(2),
            seed: 1,
            lease: LEASE,
            version: "sim".into(),
            fresh_key: [5; 32],
            activity: false,
        };
        let recovered = Recovered {
            starts: recovered.starts,
            promised: recovered.promised,
            lease_bound: recovered.lease_bound,
            chosen: recovered.chosen,
            snapshot: recovered.snapshot,
            accepted: recovered.accepted,
        };
        let moment = self.moment(real);
        let replica = Replica::new(config, recovered, moment).expect("what was written can be read");
        self.running = Some(Running { replica, store, waiting: Vec::new(), appended: 0, syncing: false });
        self.step(real, Input::Tick)
    }

    pub(crate) fn moment(&self, real: Duration) -> Moment {
        Moment { now: self.clock.read(real), wall_ms: real.as_millis() as u64 }
    }

    /// Steps the replica and hands its records to the disk. Returns the other effects.
    pub(crate) fn step(&mut self, real: Duration, input: Input) -> Effects {
        let moment = self.moment(real);
        let mut effects = Effects::default();
        if let Some(running) = &mut self.running {
            running.replica.step(moment, input, &mut effects);
            running.waiting.append(&mut effects.persist);
            running.replica.state().check();
        }
        effects
    }

    /// Begins to sync what waits. Returns whether there is anything.
    pub(crate) fn begin_sync(&mut self) -> bool {
        let Some(running) = &mut self.running else { return false };
        if running.syncing || running.waiting.is_empty() {
            return false;
        }
        let records = std::mem::take(&mut running.waiting);
        running.store.append(&records).expect("the disk has room");
        running.appended += records.len() as u64;
        running.syncing = true;
        true
    }

    /// The sync has ended.
    pub(crate) fn end_sync(&mut self, real: Duration) -> Effects {
        let Some(running) = &mut self.running else { return Effects::default() };
        running.store.sync().expect("the disk works");
        running.syncing = false;
        let through = running.appended;
        self.step(real, Input::Persisted { through })
    }

    /// Writes a snapshot and shortens the log behind it.
    pub(crate) fn snapshot(&mut self) {
        let Some(running) = &mut self.running else { return };
        let Some(snapshot) = running.replica.snapshot() else { return };
        let slot = snapshot.slot();
        let mut writer = running.store.begin_snapshot(slot).expect("the disk has room");
        for chunk in snapshot.chunks() {
            writer.write(&chunk).expect("the disk has room");
        }
        writer.finish().expect("the disk works");
        running.store.truncate_behind(slot).expect("the disk works");
    }

    /// The server dies; with the machine's power, or only as a process.
    pub(crate) fn die(&mut self, random: &mut Random) {
        self.running = None;
        if random.chance(500) {
            self.disk.crash(random.next());
        } else {
            self.disk.kill();
        }
    }
}
