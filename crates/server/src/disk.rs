//! The replica's disk: the log that the core waits for, and snapshots that it does not.
//!
//! A replica with peers has a thread that appends and syncs, so that no heartbeat waits for an fsync. A sole
//! voter does it on the core's own thread: it has no heartbeats, and two thread switches cost half an fsync
//! (docs/decisions/0003). Snapshots are written, and received ones put in place, by threads of their own.

use crate::ServerError;
use bytes::Bytes;
use std::sync::mpsc;
use std::thread::JoinHandle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::{info, warn};
use wombat_proto::{Record, Slot};
use wombat_replica::Snapshot;
use wombat_storage::{RealDisk, SnapshotReader, SnapshotWriter, StorageError, Store};

/// A snapshot is due when the log has grown by this much, in bytes, or by twice the last snapshot.
const LOG_BYTES_PER_SNAPSHOT: u64 = 64 * 1024 * 1024;

/// Something for the disk to do.
enum Job {
    Append(Vec<Record>),
    /// To write the state down.
    Snapshot(Snapshot),
    /// To put another replica's snapshot in place.
    Arrived(Slot, Vec<Bytes>),
    /// A snapshot is written; the log behind it may go.
    Written(Written),
    Close,
}

/// A snapshot that a thread has written.
struct Written {
    slot: Slot,
    /// How many bytes it has, and what it is if it came from another replica; or why there is none.
    result: Result<(u64, Option<Snapshot>), String>,
    /// What to say if there is none.
    in_vain: fn() -> Done,
}

/// What the disk has done.
pub(crate) enum Done {
    /// All records up to this number are durable.
    Persisted { through: u64, log_bytes: u64 },
    /// A snapshot of the replica's own is durable.
    Snapshotted { slot: Slot, bytes: u64, log_bytes: u64 },
    /// Another replica's snapshot is durable.
    Arrived(Box<Snapshot>),
    /// Writing a snapshot failed; the log still has everything.
    SnapshotFailed,
    /// Another replica's snapshot makes no sense, or could not be written; what was here is as it was.
    ArrivedInVain,
    /// The disk cannot go on.
    Failed(StorageError),
}

/// The store, and what writes to it.
struct Worker {
    store: Store<RealDisk>,
    appended: u64,
    /// Where threads that have written a snapshot say so.
    written: mpsc::Sender<Job>,
}

impl Worker {
    /// Does a job, but for the sync that appended records need.
    fn work(&mut self, job: Job) -> Result<Option<Done>, StorageError> {
        match job {
            Job::Append(records) => {
                self.store.append(&records)?;
                self.appended += records.len() as u64;
            }
            Job::Snapshot(snapshot) => {
                let slot = snapshot.slot();
                return self.write(
                    slot,
                    || Done::SnapshotFailed,
                    move |writer| Ok((write_chunks(writer, snapshot.chunks())?, None)),
                );
            }
            Job::Arrived(slot, chunks) => {
                return self.write(
                    slot,
                    || Done::ArrivedInVain,
                    move |writer| {
                        // What cannot be read must not take the place of what can.
                        let snapshot =
                            Snapshot::restore(slot, chunks.clone()).map_err(|error| error.to_string())?;
                        Ok((write_chunks(writer, chunks.into_iter())?, Some(snapshot)))
                    },
                );
            }
            Job::Written(written) => return self.written(written).map(Some),
            Job::Close => {}
        }
        Ok(None)
    }

    /// Lets a thread of its own write a snapshot.
    fn write(
        &mut self,
        slot: Slot,
        in_vain: fn() -> Done,
        write: impl FnOnce(Writer) -> Result<(u64, Option<Snapshot>), String> + Send + 'static,
    ) -> Result<Option<Done>, StorageError> {
        let writer = self.store.begin_snapshot(slot);
        let told = self.written.clone();
        let job = move || {
            let result = write(writer);
            let _nobody_listens_any_more = told.send(Job::Written(Written { slot, result, in_vain }));
        };
        let thread = std::thread::Builder::new().name("wombat-snapshot".into());
        match thread.spawn(job) {
            Ok(_) => Ok(None),
            Err(error) => {
                warn!("no thread to write a snapshot: {error}");
                Ok(Some(in_vain()))
            }
        }
    }

    fn written(&mut self, written: Written) -> Result<Done, StorageError> {
        let Written { slot, result, in_vain } = written;
        let (bytes, arrived) = match result {
            Ok(wrote) => wrote,
            Err(error) => {
                // The log still holds everything; it is tried again when the log has grown further.
                warn!("a snapshot failed: {error}");
                return Ok(in_vain());
            }
        };
        self.store.truncate_behind(slot)?;
        info!(%slot, bytes, "wrote a snapshot");
        Ok(match arrived {
            Some(snapshot) => Done::Arrived(Box::new(snapshot)),
            None => Done::Snapshotted { slot, bytes, log_bytes: self.store.log_bytes() },
        })
    }

    fn sync(&mut self) -> Result<Done, StorageError> {
        self.store.sync_unproven()?;
        Ok(Done::Persisted { through: self.appended, log_bytes: self.store.log_bytes() })
    }

    /// The next job. While there is none the log is left as it should be found.
    fn next(&mut self, jobs: &mpsc::Receiver<Job>) -> Option<Result<Job, StorageError>> {
        match jobs.try_recv() {
            Ok(job) => Some(Ok(job)),
            Err(_) => match self.store.prove() {
                Ok(()) => jobs.recv().ok().map(Ok),
                Err(error) => Some(Err(error)),
            },
        }
    }

    /// The life of the disk's thread: all that waits shares one sync.
    fn run(mut self, jobs: &mpsc::Receiver<Job>, done: &UnboundedSender<Done>) {
        while let Some(first) = self.next(jobs) {
            let first = match first {
                Ok(first) => first,
                Err(error) => return drop(done.send(Done::Failed(error))),
            };
            let mut closing = false;
            let mut appended = false;
            for job in std::iter::once(first).chain(std::iter::from_fn(|| jobs.try_recv().ok())) {
                closing |= matches!(job, Job::Close);
                appended |= matches!(job, Job::Append(_));
                match self.work(job) {
                    Ok(None) => {}
                    Ok(Some(told)) => drop(done.send(told)),
                    Err(error) => return drop(done.send(Done::Failed(error))),
                }
            }
            if appended {
                let told = self.sync().unwrap_or_else(Done::Failed);
                let failed = matches!(told, Done::Failed(_));
                if done.send(told).is_err() || failed {
                    return;
                }
            }
            if closing {
                if let Err(error) = self.store.close() {
                    let _nobody_listens_any_more = done.send(Done::Failed(error));
                }
                return;
            }
        }
    }
}

/// What writes a snapshot, or why nothing can.
type Writer = Result<SnapshotWriter<RealDisk>, StorageError>;

fn write_chunks(writer: Writer, chunks: impl Iterator<Item = Bytes>) -> Result<u64, String> {
    let mut writer = writer.map_err(|error| error.to_string())?;
    let mut bytes = 0;
    for chunk in chunks {
        bytes += chunk.len() as u64;
        writer.write(&chunk).map_err(|error| error.to_string())?;
    }
    writer.finish().map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// Who appends and syncs.
enum Way {
    /// The core's own thread; it also takes what snapshot threads say.
    Inline(Box<Worker>, mpsc::Receiver<Job>),
    Thread(mpsc::Sender<Job>, JoinHandle<()>),
}

/// The log and the snapshots of one replica, as the core sees them.
pub(crate) struct ReplicaDisk {
    way: Way,
    told: UnboundedSender<Done>,
    done: UnboundedReceiver<Done>,
    reader: SnapshotReader<RealDisk>,
    snapshot: Slot,
    log_bytes: u64,
    /// The size of the log when the last snapshot began.
    log_bytes_at_snapshot: u64,
    snapshot_bytes: u64,
    writing: bool,
}

impl ReplicaDisk {
    /// `with_thread`: whether heartbeats must not wait for the disk.
    pub(crate) fn new(
        store: Store<RealDisk>,
        snapshot: Slot,
        with_thread: bool,
    ) -> Result<ReplicaDisk, ServerError> {
        let (told, done) = unbounded_channel();
        let (sender, jobs) = mpsc::channel();
        let (reader, log_bytes) = (store.snapshot_reader(), store.log_bytes());
        let worker = Worker { store, appended: 0, written: sender.clone() };
        let way = if with_thread {
            let done = told.clone();
            let thread = std::thread::Builder::new().name("wombat-disk".into());
            Way::Thread(sender, thread.spawn(move || worker.run(&jobs, &done))?)
        } else {
            Way::Inline(Box::new(worker), jobs)
        };
        let disk = ReplicaDisk {
            way,
            told,
            done,
            reader,
            snapshot,
            log_bytes,
            log_bytes_at_snapshot: 0,
            snapshot_bytes: 0,
            writing: false,
        };
        Ok(disk)
    }

    /// Appends records; [`Done::Persisted`] says when they are durable. A sole voter waits for it here.
    pub(crate) fn persist(&mut self, records: Vec<Record>) -> Result<(), ServerError> {
        match &mut self.way {
            Way::Inline(worker, _) => {
                worker.work(Job::Append(records))?;
                let persisted = worker.sync()?;
                worker.store.prove()?;
                let _received_by_this_very_struct = self.told.send(persisted);
            }
            Way::Thread(jobs, _) => {
                let _it_has_said_why_it_ended = jobs.send(Job::Append(records));
            }
        }
        Ok(())
    }

    fn work(&mut self, job: Job) -> Result<(), ServerError> {
        match &mut self.way {
            Way::Inline(worker, _) => {
                if let Some(done) = worker.work(job)? {
                    let _received_by_this_very_struct = self.told.send(done);
                }
            }
            Way::Thread(jobs, _) => {
                let _it_has_said_why_it_ended = jobs.send(job);
            }
        }
        Ok(())
    }

    /// Writes the state down, unless a snapshot is being written or this one has nothing new.
    pub(crate) fn write_snapshot(&mut self, snapshot: Option<Snapshot>) -> Result<(), ServerError> {
        match snapshot {
            Some(snapshot) if !self.writing && snapshot.slot() > self.snapshot => {
                self.writing = true;
                self.log_bytes_at_snapshot = self.log_bytes;
                self.work(Job::Snapshot(snapshot))
            }
            _ => Ok(()),
        }
    }

    /// Puts another replica's snapshot in place.
    pub(crate) fn put_snapshot(&mut self, slot: Slot, chunks: Vec<Bytes>) -> Result<(), ServerError> {
        self.work(Job::Arrived(slot, chunks))
    }

    /// Whether the log has grown so much that a snapshot should shorten it.
    pub(crate) fn is_snapshot_due(&self) -> bool {
        let grown = self.log_bytes.saturating_sub(self.log_bytes_at_snapshot);
        !self.writing && grown >= LOG_BYTES_PER_SNAPSHOT.max(2 * self.snapshot_bytes)
    }

    /// Waits until something is done.
    pub(crate) async fn done(&mut self) -> Result<Done, ServerError> {
        let done = self.done.recv().await.ok_or(ServerError::Vanished)?;
        self.note(done)
    }

    /// What is done already.
    pub(crate) fn done_now(&mut self) -> Result<Option<Done>, ServerError> {
        if let Way::Inline(worker, jobs) = &mut self.way {
            while let Ok(job) = jobs.try_recv() {
                if let Some(done) = worker.work(job)? {
                    let _received_by_this_very_struct = self.told.send(done);
                }
            }
        }
        self.done.try_recv().ok().map(|done| self.note(done)).transpose()
    }

    fn note(&mut self, done: Done) -> Result<Done, ServerError> {
        match &done {
            Done::Persisted { log_bytes, .. } => self.log_bytes = *log_bytes,
            Done::Snapshotted { slot, bytes, log_bytes } => {
                self.snapshot_bytes = *bytes;
                (self.writing, self.log_bytes) = (false, *log_bytes);
                (self.snapshot, self.log_bytes_at_snapshot) = (*slot, *log_bytes);
            }
            Done::Arrived(snapshot) => self.snapshot = self.snapshot.max(snapshot.slot()),
            Done::SnapshotFailed => self.writing = false,
            Done::ArrivedInVain | Done::Failed(_) => {}
        }
        match done {
            Done::Failed(error) => Err(error.into()),
            done => Ok(done),
        }
    }

    /// Sees to it that this data is never used again.
    pub(crate) fn condemn(&self, why: &str) -> Result<(), ServerError> {
        Ok(self.reader.condemn(why)?)
    }

    /// The directory was a copy; from now on it is the original.
    pub(crate) fn reinstate(&self) -> Result<(), ServerError> {
        Ok(self.reader.reinstate()?)
    }

    /// The directory has turned out to be a copy.
    pub(crate) fn disown(&self) -> Result<(), ServerError> {
        Ok(self.reader.disown()?)
    }

    /// Reads this replica's snapshots.
    pub(crate) fn reader(&self) -> SnapshotReader<RealDisk> {
        self.reader.clone()
    }

    /// The slot of the last snapshot.
    pub(crate) fn snapshot_slot(&self) -> Slot {
        self.snapshot
    }

    /// The bytes of the log.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.log_bytes
    }

    /// Closes the log cleanly.
    pub(crate) fn close(mut self) -> Result<(), ServerError> {
        match self.way {
            Way::Inline(worker, _) => worker.store.close()?,
            Way::Thread(jobs, thread) => {
                let _it_has_said_why_it_ended = jobs.send(Job::Close);
                let _it_does_not_panic = thread.join();
                while let Ok(done) = self.done.try_recv() {
                    if let Done::Failed(error) = done {
                        return Err(error.into());
                    }
                }
            }
        }
        Ok(())
    }
}
