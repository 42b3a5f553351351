//! A machine of the cell: replica and store as they ship, a simulated disk, and a clock of its own.

use super::swarm::Terms;
use crate::random::{Clock, Random};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;
use wombat_proto::{CellName, Instant, Members, Record, ReplicaId, Slot, Value};
use wombat_replica::{
    Config, Effects, Input, PaxosMessage, PeerMessage, ReceivedChunk, Replica, Snapshot, StepTime,
    WantedChunk,
};
use wombat_storage::{Identity, Options, Origin, SimulatedDisk, SnapshotWriter, Store};

/// Where a replica is reached.
pub(super) fn address(id: ReplicaId) -> String {
    format!("host-{id}")
}

/// The machine, whether its replica runs or not.
pub(super) struct Machine {
    pub(super) id: ReplicaId,
    disk: SimulatedDisk,
    /// A copy of the disk that somebody has made.
    backup: Option<SimulatedDisk>,
    /// Whether the disk is a copy, whose replica has not been reinstated.
    pub(super) is_copy: bool,
    pub(super) clock: Clock,
    /// By how much its wall clock is wrong. It decides nothing.
    wall_offset: Duration,
    /// How many replicas founded the cell.
    founders: u32,
    pub(super) running: Option<Running>,
    /// While it is stopped, nothing of it runs.
    pub(super) stopped_until: Duration,
    /// When its replica started last.
    pub(super) started: Duration,
    /// Counts the beginnings and ends of its replica's lives.
    pub(super) life: u64,
    /// Its disk takes seconds.
    pub(super) slow: bool,
}

/// A replica that runs.
pub(super) struct Running {
    pub(super) replica: Replica,
    store: Store<SimulatedDisk>,
    /// Records that wait for the sync that is under way to end.
    waiting: Vec<Record>,
    /// Records appended in all, and whether a sync is under way.
    appended: u64,
    syncing: bool,
    /// When the next tick is due, by its clock.
    pub(super) tick_at: Option<Instant>,
    /// Snapshots that are being written, by a number of their own.
    writing: BTreeMap<u64, Writing>,
    /// The snapshot that it is fetching, and the one that others fetch from it.
    incoming: (Slot, Vec<Bytes>),
    outgoing: Option<(Slot, Vec<Bytes>)>,
    /// What its log holds and it has not applied yet, as far as anyone can see from outside.
    pub(super) accepted: BTreeMap<Slot, Value>,
    /// The slots of which it has entered a value into its log since this was last looked at.
    pub(super) entered: Vec<Slot>,
    /// As of which slot its state was last looked at and compared with everyone's.
    pub(super) compared: Slot,
}

/// A snapshot on its way to the disk.
struct Writing {
    slot: Slot,
    writer: SnapshotWriter<SimulatedDisk>,
    /// The chunks, if it is another replica's.
    arrived: Option<Snapshot>,
}

impl Machine {
    pub(super) fn new(id: ReplicaId, founders: u32, clock: Clock, random: &mut Random) -> Machine {
        Machine {
            id,
            disk: SimulatedDisk::new(),
            backup: None,
            is_copy: false,
            clock,
            wall_offset: random.millis(0, 100_000),
            founders,
            running: None,
            stopped_until: Duration::ZERO,
            started: Duration::ZERO,
            life: 0,
            slow: false,
        }
    }

    /// Starts the replica from what the disk holds. The first step is up to the caller.
    pub(super) fn start(&mut self, real: Duration, terms: &Terms, random: &mut Random, activity: bool) {
        let cell = CellName::parse("sim").expect("a good name");
        let addresses: Vec<String> = (1..=self.founders).map(|id| address(ReplicaId(id))).collect();
        let origin = match self.founders {
            1 => Origin::Alone,
            _ => Origin::Founder { founders: addresses.clone(), nonce: format!("{}", self.id) },
        };
        let wanted = Identity { cell: cell.clone(), cell_id: "51".into(), replica: self.id, origin };
        let options = Options { segment_bytes: terms.segment_bytes, step_bytes: 4 * 1024 };
        let (store, recovered) =
            Store::open(self.disk.clone(), &wanted, options).expect("a crash never looks like damage");
        assert_eq!(recovered.is_copy, self.is_copy, "a copy shows, and nothing else looks like one");
        let config = Config {
            cell,
            replica: self.id,
            address: address(self.id),
            founders: Members::founding(addresses),
            master_lease: terms.master_lease,
            max_master_lease: terms.max_master_lease(),
            seed: random.next(),
            lease: terms.lease(random),
            cache_lease: terms.cache_lease(random),
            version: "sim".into(),
            fresh_key: [self.id.0 as u8; 32],
            activity,
        };
        let accepted = recovered.accepted.iter().map(|one| (one.slot, one.value.clone())).collect();
        let replica =
            Replica::new(config, recovered, self.moment(real)).expect("what was written can be read");
        (self.life, self.started) = (self.life + 1, real);
        self.running = Some(Running {
            replica,
            store,
            waiting: Vec::new(),
            appended: 0,
            syncing: false,
            tick_at: None,
            writing: BTreeMap::new(),
            incoming: Default::default(),
            outgoing: None,
            accepted,
            entered: Vec::new(),
            compared: Slot(0),
        });
    }

    /// Makes a copy of the disk, if there is none yet. Returns whether there was.
    pub(super) fn back_up(&mut self) -> bool {
        let had_one = self.backup.is_some();
        let is_founded = self.running.is_some();
        self.backup = self.backup.take().or_else(|| is_founded.then(|| self.disk.copy()));
        had_one
    }

    /// Puts the copy in the place of the disk of a replica that is dead.
    pub(super) fn put_back(&mut self) {
        if let Some(backup) = &self.backup {
            self.disk = backup.copy();
            self.is_copy = true;
        }
    }

    fn moment(&self, real: Duration) -> StepTime {
        let wall_ms = (real + self.wall_offset).as_millis() as u64;
        StepTime { now: self.clock.read(real), wall_ms }
    }

    /// Whether its replica may answer as master at that instant, by its own clock.
    pub(super) fn serves(&self, real: Duration) -> bool {
        self.running.as_ref().is_some_and(|running| running.replica.serves_at(self.clock.read(real)))
    }

    /// Steps the replica, and hands its records on to the disk. Returns the other effects.
    pub(super) fn step(&mut self, real: Duration, input: Input) -> Effects {
        let moment = self.moment(real);
        let mut effects = Effects::default();
        if let Some(running) = &mut self.running {
            running.replica.step(moment, input, &mut effects);
            for record in &effects.persist {
                if let Record::Accept(accepted) = record {
                    running.accepted.insert(accepted.slot, accepted.value.clone());
                    running.entered.push(accepted.slot);
                }
            }
            running.waiting.append(&mut effects.persist);
            assert!(!effects.rolled_back, "a replica that has lost nothing gives up its vote");
            if effects.reinstated {
                running.store.snapshot_reader().reinstate().expect("the disk works");
                self.is_copy = false;
            }
        }
        effects
    }

    /// Begins to sync what waits. Returns whether there is anything.
    pub(super) fn begin_sync(&mut self) -> bool {
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
    pub(super) fn end_sync(&mut self) -> Option<Input> {
        let running = self.running.as_mut()?;
        running.store.sync().expect("the disk works");
        running.syncing = false;
        Some(Input::Persisted { through: running.appended })
    }

    // ---- Snapshots ----

    /// Begins to write the state down, unless that is under way or there is nothing new. Returns whether it
    /// did.
    pub(super) fn begin_snapshot(&mut self, number: u64) -> bool {
        let Some(running) = &mut self.running else { return false };
        let Some(snapshot) = running.replica.snapshot() else { return false };
        let newest = running.store.snapshot_reader().newest().expect("a snapshot can be read");
        let known = newest.map_or(Slot(0), |(slot, _)| slot);
        if running.writing.values().any(|writing| writing.arrived.is_none()) || snapshot.slot() <= known {
            return false;
        }
        running.write(number, snapshot.slot(), snapshot.chunks(), None)
    }

    /// A snapshot is on the disk, and the log behind it may go.
    pub(super) fn end_snapshot(&mut self, number: u64) -> Option<Input> {
        let running = self.running.as_mut()?;
        let Writing { slot, writer, arrived } = running.writing.remove(&number)?;
        writer.finish().expect("the disk works");
        running.store.truncate_behind(slot).expect("the disk works");
        Some(match arrived {
            Some(snapshot) => Input::SnapshotArrived(snapshot),
            None => Input::Snapshotted { slot },
        })
    }

    /// What to say to whoever wants a chunk of this replica's snapshot; nothing until it is read: it will ask
    /// again.
    pub(super) fn chunk(&mut self, wanted: &WantedChunk) -> Option<PeerMessage> {
        let running = self.running.as_mut()?;
        let loaded = running.outgoing.as_ref().filter(|(slot, _)| *slot >= wanted.snapshot);
        let Some((slot, chunks)) = loaded else {
            running.outgoing = running.store.snapshot_reader().newest().expect("a snapshot can be read");
            return None;
        };
        let index = wanted.index as usize;
        Some(PeerMessage::Paxos(match chunks.get(index) {
            Some(chunk) if *slot == wanted.snapshot => PaxosMessage::Chunk {
                snapshot: *slot,
                index: wanted.index,
                last: index + 1 == chunks.len(),
                bytes: chunk.clone(),
            },
            _ => PaxosMessage::Truncated { snapshot: *slot },
        }))
    }

    /// Takes a chunk of another replica's snapshot. With the last one, begins to write the whole: returns
    /// whether that can be done.
    pub(super) fn take_chunk(&mut self, number: u64, received: ReceivedChunk) -> Option<bool> {
        let running = self.running.as_mut()?;
        let ReceivedChunk { snapshot, index, last, bytes } = received;
        if index == 0 {
            running.incoming = (snapshot, Vec::new());
        }
        if running.incoming.0 != snapshot || running.incoming.1.len() != index as usize {
            return None;
        }
        running.incoming.1.push(bytes);
        if !last {
            return None;
        }
        let chunks = std::mem::take(&mut running.incoming.1);
        let arrived = Snapshot::restore(snapshot, chunks.clone()).expect("a snapshot arrives as it was sent");
        Some(running.write(number, snapshot, chunks.into_iter(), Some(arrived)))
    }

    /// The replica dies; with the machine's power, or only as a process.
    pub(super) fn die(&mut self, power: bool, random: &mut Random) {
        self.running = None;
        self.life += 1;
        if power {
            self.disk.crash(random.next());
        } else {
            self.disk.kill();
        }
    }
}

impl Running {
    /// Writes a snapshot but for its end. Returns whether it can: not while the same one is being written.
    fn write(
        &mut self,
        number: u64,
        slot: Slot,
        chunks: impl Iterator<Item = Bytes>,
        arrived: Option<Snapshot>,
    ) -> bool {
        let Ok(mut writer) = self.store.begin_snapshot(slot) else { return false };
        for chunk in chunks {
            writer.write(&chunk).expect("the disk has room");
        }
        self.writing.insert(number, Writing { slot, writer, arrived });
        true
    }
}
