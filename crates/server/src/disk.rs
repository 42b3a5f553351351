//! The replica's disk: the log that the core waits for, and snapshots that it does not.

use crate::ServerError;
use std::thread::JoinHandle;
use tracing::{info, warn};
use wombat_proto::{Record, Slot};
use wombat_replica::{Replica, Snapshot};
use wombat_storage::{RealDisk, SnapshotWriter, StorageError, Store};

/// A snapshot is due when the log has grown by this much, in bytes, or by twice the last snapshot.
const LOG_BYTES_PER_SNAPSHOT: u64 = 64 * 1024 * 1024;

/// The log and the snapshots of one replica.
///
/// A sole voter appends and syncs on the core's own thread: it has no peers whose heartbeats an fsync could
/// delay, and two thread switches cost half an fsync (docs/decisions/0003).
pub(crate) struct ReplicaDisk {
    store: Store<RealDisk>,
    /// How many records were ever appended.
    appended: u64,
    snapshot: Slot,
    /// The size of the log when the last snapshot began, and how large that snapshot was.
    log_bytes_at_snapshot: u64,
    snapshot_bytes: u64,
    writing: Option<JoinHandle<Result<(Slot, u64), StorageError>>>,
}

impl ReplicaDisk {
    pub(crate) fn new(store: Store<RealDisk>, snapshot: Slot) -> ReplicaDisk {
        ReplicaDisk {
            store,
            appended: 0,
            snapshot,
            log_bytes_at_snapshot: 0,
            snapshot_bytes: 0,
            writing: None,
        }
    }

    /// Makes records durable. Returns how many ever were.
    pub(crate) fn persist(&mut self, records: &[Record]) -> Result<u64, ServerError> {
        self.store.append(records)?;
        self.store.sync()?;
        self.appended += records.len() as u64;
        Ok(self.appended)
    }

    /// The slot of the last snapshot.
    pub(crate) fn snapshot_slot(&self) -> Slot {
        self.snapshot
    }

    /// The bytes of the log.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.store.log_bytes()
    }

    /// The random id that the cell got when it was founded.
    pub(crate) fn cell_id(&self) -> &str {
        &self.store.identity().cell_id
    }

    /// Begins a snapshot when one is due, and shortens the log behind one that is finished. Returns its slot
    /// then.
    pub(crate) fn tend_snapshots(&mut self, replica: &Replica) -> Result<Option<Slot>, ServerError> {
        let mut finished = None;
        if self.writing.as_ref().is_some_and(JoinHandle::is_finished) {
            let before = self.snapshot;
            self.finish_snapshot()?;
            finished = Some(self.snapshot).filter(|slot| *slot > before);
        }
        let grown = self.store.log_bytes().saturating_sub(self.log_bytes_at_snapshot);
        if self.writing.is_none() && grown >= LOG_BYTES_PER_SNAPSHOT.max(2 * self.snapshot_bytes) {
            self.begin_snapshot(replica)?;
        }
        Ok(finished)
    }

    /// Begins a snapshot, unless one is being written.
    pub(crate) fn begin_snapshot(&mut self, replica: &Replica) -> Result<(), ServerError> {
        if self.writing.is_some() {
            return Ok(());
        }
        let Some(snapshot) = replica.snapshot().filter(|snapshot| snapshot.slot() > self.snapshot) else {
            return Ok(());
        };
        self.log_bytes_at_snapshot = self.store.log_bytes();
        let writer = self.store.begin_snapshot(snapshot.slot())?;
        let thread = std::thread::Builder::new().name("wombat-snapshot".into());
        self.writing = Some(thread.spawn(move || write_snapshot(writer, &snapshot))?);
        Ok(())
    }

    fn finish_snapshot(&mut self) -> Result<(), ServerError> {
        let Some(writing) = self.writing.take() else { return Ok(()) };
        match writing.join().expect("writing a snapshot does not panic") {
            Ok((slot, bytes)) => {
                self.store.truncate_behind(slot)?;
                self.snapshot = slot;
                self.snapshot_bytes = bytes;
                self.log_bytes_at_snapshot = self.store.log_bytes();
                info!(%slot, bytes, "wrote a snapshot");
            }
            // The log still holds everything; it is tried again when the log has grown further.
            Err(error) => warn!("a snapshot failed: {error}"),
        }
        Ok(())
    }

    /// Closes the log cleanly.
    pub(crate) fn close(mut self) -> Result<(), ServerError> {
        self.finish_snapshot()?;
        Ok(self.store.close()?)
    }
}

fn write_snapshot(
    mut writer: SnapshotWriter<RealDisk>,
    snapshot: &Snapshot,
) -> Result<(Slot, u64), StorageError> {
    let mut bytes = 0;
    for chunk in snapshot.chunks() {
        bytes += chunk.len() as u64;
        writer.write(&chunk)?;
    }
    writer.finish()?;
    Ok((snapshot.slot(), bytes))
}
