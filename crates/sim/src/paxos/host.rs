//! A machine that a replica runs on: its disk, its clock, and what it has applied.

use crate::random::{Clock, Random};
use std::time::Duration;
use wombat_paxos::{Config, Configurations, Effects, Paxos, Persist};
use wombat_proto::{Accepted, Ballot, Durable, Instant, Record, ReplicaId, Slot, Value};

/// What stands for the state of a cell: a hash of everything applied so far, in order.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Applied {
    pub(super) slot: Slot,
    pub(super) hash: u64,
}

impl Applied {
    pub(super) fn apply(&mut self, slot: Slot, value: &Value) {
        let number = match value {
            Value::Noop => 1,
            Value::Command(command) => {
                command.iter().fold(2, |hash: u64, byte| hash.wrapping_mul(31) + u64::from(*byte))
            }
            Value::Members(members) => members
                .all()
                .fold(3, |hash: u64, member| hash.wrapping_mul(31).wrapping_add(u64::from(member.id.0))),
        };
        self.hash = (self.hash ^ number ^ slot.0.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.hash ^= self.hash >> 29;
        self.slot = slot;
    }
}

/// A snapshot: the state, and who governs what follows.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) applied: Applied,
    pub(super) configurations: Configurations,
    /// How many chunks it comes in.
    pub(super) chunks: u32,
}

/// A log that keeps a prefix of what was written after the last sync, as the real one makes sure of.
#[derive(Clone, Default)]
pub(super) struct Disk {
    pub(super) starts: u32,
    /// Whether it is a copy, whose replica has not been reinstated.
    pub(super) is_copy: bool,
    pub(super) kept: Durable,
    pub(super) snapshot: Option<Snapshot>,
    /// Written and not synced.
    pub(super) unsynced: Vec<Record>,
}

impl Disk {
    /// Makes the first records that wait durable.
    pub(super) fn sync(&mut self, records: usize) {
        for record in self.unsynced.drain(..records).collect::<Vec<_>>() {
            self.kept.take(record);
        }
    }

    pub(super) fn put_snapshot(&mut self, snapshot: Snapshot) {
        let slot = snapshot.applied.slot;
        if self.snapshot_slot() < slot {
            self.snapshot = Some(snapshot);
            self.kept.accepted.retain(|at, _| *at > slot);
        }
    }

    pub(super) fn snapshot_slot(&self) -> Slot {
        self.snapshot.as_ref().map_or(Slot(0), |snapshot| snapshot.applied.slot)
    }

    /// Whether it knows anything of a slot.
    pub(super) fn has(&self, slot: Slot) -> bool {
        self.snapshot_slot() >= slot || self.kept.accepted.contains_key(&slot)
    }
}

pub(super) struct Host {
    pub(super) id: ReplicaId,
    pub(super) clock: Clock,
    pub(super) disk: Disk,
    /// A copy of the disk that somebody has made.
    backup: Option<Disk>,
    /// What was on the disk before copies were put in its place: what was said of it was true.
    forgotten: Durable,
    /// The members that it was founded with; nobody for one that joins later.
    founding: Configurations,
    pub(super) running: Option<Running>,
    /// While it is stopped, nothing of it runs.
    pub(super) stopped_until: Duration,
    /// Counts its lives.
    pub(super) life: u64,
    /// When the last of them began.
    started: Duration,
    /// Its data is gone for good: it never comes back under this id.
    pub(super) lost: bool,
    /// It runs, but does not hear or is not heard, and nobody will repair that.
    pub(super) apart: bool,
    /// Its disk takes seconds.
    pub(super) slow: bool,
}

pub(super) struct Running {
    pub(super) paxos: Paxos,
    pub(super) applied: Applied,
    /// Records made durable in this life, and whether a sync is under way, of how many.
    durable: u64,
    pub(super) syncing: Option<usize>,
    pub(super) tick_at: Option<Instant>,
    /// Whether a snapshot is on its way to the disk.
    pub(super) writing: bool,
    /// The snapshot that arrives, and the chunk that comes next.
    pub(super) incoming: Option<(Slot, u32)>,
}

impl Host {
    pub(super) fn new(id: ReplicaId, founding: Configurations, clock: Clock) -> Host {
        Host {
            id,
            clock,
            disk: Disk::default(),
            backup: None,
            forgotten: Durable::default(),
            founding,
            running: None,
            stopped_until: Duration::ZERO,
            life: 0,
            started: Duration::ZERO,
            lost: false,
            apart: false,
            slow: false,
        }
    }

    /// Makes a copy of the disk, if there is none yet. Returns whether there was.
    pub(super) fn back_up(&mut self) -> bool {
        let had_one = self.backup.is_some();
        self.backup.get_or_insert_with(|| Disk { unsynced: Vec::new(), ..self.disk.clone() });
        had_one
    }

    /// Puts a copy in the place of the disk: the one that was made, or one of the disk as it is.
    pub(super) fn put_back(&mut self, older: bool) {
        let kept = self.disk.kept.clone();
        self.forgotten.take(Record::Promise(kept.promised));
        kept.accepted.into_values().for_each(|one| self.forgotten.take(Record::Accept(one)));
        if let Some(backup) = self.backup.as_ref().filter(|_| older) {
            self.disk = backup.clone();
        }
        self.disk.is_copy = true;
    }

    /// Whether it has promised a ballot, if it has forgotten that or not.
    pub(super) fn has_promised(&self, ballot: Ballot) -> bool {
        self.disk.kept.promised.max(self.forgotten.promised) >= ballot
    }

    /// Whether its disk is neither lost nor a copy.
    pub(super) fn is_whole(&self) -> bool {
        !self.lost && !self.disk.is_copy
    }

    /// What it has accepted for a slot, or had before a copy took the place of its disk.
    pub(super) fn has_accepted(&self, slot: Slot, is_it: impl Fn(&Accepted) -> bool) -> bool {
        let disks = [&self.disk.kept, &self.forgotten];
        disks.iter().any(|kept| kept.accepted.get(&slot).is_some_and(&is_it))
    }

    pub(super) fn now(&self, real: Duration) -> Instant {
        self.clock.read(real)
    }

    pub(super) fn start(&mut self, config: Config, real: Duration) {
        self.life += 1;
        self.started = real;
        self.disk.starts += 1;
        let disk = &self.disk;
        let (applied, configurations) = match &disk.snapshot {
            Some(snapshot) => (snapshot.applied, snapshot.configurations.clone()),
            None => (Applied::default(), self.founding.clone()),
        };
        let snapshot = disk.snapshot.as_ref().map(|snapshot| (snapshot.applied.slot, Vec::new()));
        let recovered = disk.kept.clone().recover(disk.starts, disk.is_copy, snapshot);
        let paxos = Paxos::new(config, configurations, recovered, self.clock.read(real));
        self.running = Some(Running {
            paxos,
            applied,
            durable: 0,
            syncing: None,
            tick_at: None,
            writing: false,
            incoming: None,
        });
    }

    /// The replica dies. Of what was written and not synced, a part may be on the disk.
    pub(super) fn die(&mut self, random: &mut Random) {
        self.running = None;
        self.life += 1;
        let waiting = self.disk.unsynced.len() as u64;
        let kept = match random.below(3) {
            0 => 0,
            1 => waiting,
            _ => random.below(waiting + 1),
        };
        self.disk.sync(kept as usize);
        self.disk.unsynced.clear();
    }

    /// What follows from the last input, if it runs.
    pub(super) fn flush(&mut self) -> Effects {
        let mut effects = Effects::default();
        if let Some(running) = &mut self.running {
            running.paxos.flush(&mut effects);
            running.paxos.check();
            assert!(!effects.rolled_back, "a replica that has lost nothing gives up its vote");
            self.disk.is_copy &= !effects.reinstated;
            self.disk.unsynced.extend(effects.persist.iter().flat_map(Persist::records));
        }
        effects
    }

    /// Begins to sync what waits. Returns whether there is anything.
    pub(super) fn begin_sync(&mut self) -> bool {
        let waiting = self.disk.unsynced.len();
        let Some(running) = &mut self.running else { return false };
        if running.syncing.is_some() || waiting == 0 {
            return false;
        }
        running.syncing = Some(waiting);
        true
    }

    pub(super) fn end_sync(&mut self, real: Duration) {
        let now = self.now(real);
        let Some(running) = &mut self.running else { return };
        let Some(records) = running.syncing.take() else { return };
        self.disk.sync(records);
        running.durable += records as u64;
        running.paxos.persisted(now, running.durable);
    }

    /// Whether it promises nothing to anyone else now: it has granted the lease, is dead, or keeps silent as
    /// it may have granted it before it died.
    pub(super) fn is_bound_to(&self, master: ReplicaId, real: Duration) -> bool {
        // One whose disk is a copy promises nothing that a lease stands against.
        let silent = self.started + self.disk.kept.lease_bound > real || self.disk.is_copy;
        self.running.as_ref().is_none_or(|running| silent || running.paxos.bound_to() == Some(master))
    }

    /// Whether the others can count on it.
    pub(super) fn is_there(&self) -> bool {
        !self.lost && !self.apart
    }

    /// Whether, by its own clock, it may answer reads now.
    pub(super) fn serves(&self, real: Duration) -> bool {
        self.running.as_ref().is_some_and(|running| running.paxos.lease_holds(self.now(real)))
    }
}
