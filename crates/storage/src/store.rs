//! A replica's data directory as a whole.

use crate::disk::Disk;
use crate::identity::{self, Identity};
use crate::log::Log;
use crate::snapshot::{self, SnapshotReader, SnapshotWriter};
use crate::{StorageError, condemned, fingerprint, founding, nonce};
use wombat_proto::limits::COMMAND_BYTES;
use wombat_proto::{Accepted, Record, Recovered, Slot, Value};

/// Sizes; the default is for real disks, tests take smaller ones.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A segment that has grown to this many bytes is the last one no longer.
    pub segment_bytes: u64,
    /// By how many bytes a segment is allocated at a time.
    pub step_bytes: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { segment_bytes: 16 * 1024 * 1024, step_bytes: 1024 * 1024 }
    }
}

/// A replica's data directory: identity, log, snapshots.
pub struct Store<D: Disk> {
    disk: D,
    identity: Identity,
    /// `None` after a failure: a sync that failed is never tried again.
    log: Option<Log<D>>,
    founded: bool,
    dropped_tail_bytes: u64,
}

impl<D: Disk> Store<D> {
    /// Opens a data directory of the cell and the replica that are `wanted`, or founds it as theirs where there
    /// is nothing.
    ///
    /// Founding makes the log first and the identity last, so that a directory with an identity has a log. A directory
    /// that is a copy remains one until [`crate::SnapshotReader::reinstate`].
    pub fn open(disk: D, wanted: &Identity, options: Options) -> Result<(Store<D>, Recovered), StorageError> {
        // Names that are seen may not be durable yet, if the process died before it had synced them.
        disk.sync_directory().map_err(|error| StorageError::io(disk.describe(""), "sync", error))?;
        let names = disk.list().map_err(|error| StorageError::io(disk.describe(""), "list", error))?;
        condemned::check(&disk, &names)?;
        let founded = !names.iter().any(|name| name == identity::FILE);
        let Options { segment_bytes, step_bytes } = options;
        if founded {
            founding::refuse_leftovers(&disk, &names)?;
            Log::create(disk.clone(), &wanted.cell_id, segment_bytes, step_bytes)?;
            fingerprint::write(&disk)?;
            wanted.write(&disk)?;
        }
        let identity = Identity::read(&disk)?;
        identity.check(&disk, wanted)?;
        nonce::remove(&disk, &names)?;
        let (mut log, contents) = Log::recover(disk.clone(), &identity.cell_id, segment_bytes, step_bytes)?;
        snapshot::remove_unfinished(&disk)?;
        let newest = snapshot::list(&disk)?.last().copied();
        let above = newest.unwrap_or(Slot(0));
        if above < contents.behind {
            let shown = disk.describe(&snapshot::name(contents.behind));
            return Err(StorageError::damaged(
                shown,
                0,
                "the snapshot that the log begins behind is missing",
            ));
        }
        let snapshot = match newest {
            None => None,
            Some(slot) => Some((slot, snapshot::read(&disk, slot, &identity.cell_id)?)),
        };
        let is_copy = !founded && fingerprint::is_copy(&disk, &names)?;
        if !is_copy && !founded {
            fingerprint::write(&disk)?;
        }
        let starts = log.start()?;
        let recovered = contents.durable.recover(starts, is_copy, snapshot);
        let dropped_tail_bytes = contents.dropped_tail_bytes;
        Ok((Store { disk, identity, log: Some(log), founded, dropped_tail_bytes }, recovered))
    }

    /// Whether [`Store::open`] has founded the directory: there was nothing before.
    pub fn was_founded(&self) -> bool {
        self.founded
    }

    /// The bytes of a torn tail that [`Store::open`] has dropped. Nothing that follows from them was ever sent.
    pub fn dropped_tail_bytes(&self) -> u64 {
        self.dropped_tail_bytes
    }

    /// Whose data it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Writes records, with one write. They are durable after the next [`Store::sync`].
    ///
    /// Errors: [`StorageError::TooLong`] if a command is longer than what recovery takes for one; nothing was
    /// written, and the store goes on.
    pub fn append(&mut self, records: &[Record]) -> Result<(), StorageError> {
        let too_long = records.iter().find_map(|record| match record {
            Record::Accept(Accepted { value: Value::Command(command), .. }) => {
                Some(command.len()).filter(|bytes| *bytes > COMMAND_BYTES)
            }
            _ => None,
        });
        if let Some(bytes) = too_long {
            return Err(StorageError::TooLong { bytes, limit: COMMAND_BYTES });
        }
        self.with_log(|log| log.append(records))
    }

    /// Makes everything that was appended durable: group commit.
    pub fn sync(&mut self) -> Result<(), StorageError> {
        self.with_log(Log::sync)
    }

    /// The same for whoever has something better to do first than to leave the proof of it behind. The next
    /// record is one; who has none to write soon calls [`Store::prove`].
    pub fn sync_unproven(&mut self) -> Result<(), StorageError> {
        self.with_log(Log::sync_unproven)
    }

    /// Leaves the proof of the last sync behind: that a record is durable, and so was not torn if it cannot be
    /// read.
    pub fn prove(&mut self) -> Result<(), StorageError> {
        self.with_log(Log::prove)
    }

    fn with_log<R>(
        &mut self,
        operate: impl FnOnce(&mut Log<D>) -> Result<R, StorageError>,
    ) -> Result<R, StorageError> {
        let mut log = self.log.take().ok_or(StorageError::Stopped)?;
        let result = operate(&mut log)?;
        self.log = Some(log);
        Ok(result)
    }

    /// The bytes of the log.
    pub fn log_bytes(&self) -> u64 {
        self.log.as_ref().map_or(0, Log::bytes)
    }

    /// Begins a snapshot of the state after `slot`. The writer may go to another thread.
    ///
    /// Errors: while another snapshot of the same slot is being written, and after a failure of the log.
    pub fn begin_snapshot(&self, slot: Slot) -> Result<SnapshotWriter<D>, StorageError> {
        self.log.as_ref().ok_or(StorageError::Stopped)?;
        SnapshotWriter::begin(self.disk.clone(), slot, &self.identity.cell_id)
    }

    /// After the snapshot of `slot` is finished: removes older ones and what the log no longer needs.
    pub fn truncate_behind(&mut self, slot: Slot) -> Result<(), StorageError> {
        self.log.as_ref().ok_or(StorageError::Stopped)?;
        snapshot::remove_before(&self.disk, slot)?;
        self.with_log(|log| log.truncate_behind(slot))
    }

    /// Reads snapshots, from any thread.
    pub fn snapshot_reader(&self) -> SnapshotReader<D> {
        SnapshotReader::new(self.disk.clone(), &self.identity.cell_id)
    }

    /// Closes the log: the proof that its last records were synced becomes durable, too.
    pub fn close(mut self) -> Result<(), StorageError> {
        self.log.take().ok_or(StorageError::Stopped)?.close()
    }
}
