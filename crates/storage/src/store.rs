//! A replica's data directory as a whole.

use crate::disk::{Disk, DiskFile};
use crate::identity::{self, Identity};
use crate::log::Log;
use crate::snapshot::{self, SnapshotReader, SnapshotWriter};
use crate::{StorageError, fingerprint, nonce, segment};
use bytes::Bytes;
use std::time::Duration;
use wombat_proto::limits::COMMAND_BYTES;
use wombat_proto::{Accepted, Ballot, Durable, Record, Slot, Value};

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

/// What a data directory held when it was opened.
#[derive(Debug)]
pub struct Recovered {
    /// Whether there was nothing, and it was founded now.
    pub founded: bool,
    /// Whether the directory is a copy of the one that the replica wrote: what happened since it was made is not in
    /// it. It stays one until [`SnapshotReader::reinstate`].
    pub is_copy: bool,
    /// How often it has been opened, this time included. Durable.
    pub starts: u32,
    /// The highest ballot promised.
    pub promised: Ballot,
    /// The longest master lease that this replica may have granted; zero: none.
    pub lease_bound: Duration,
    /// Every slot up to here is known to be chosen.
    pub chosen: Slot,
    /// The newest snapshot: its slot and its chunks.
    pub snapshot: Option<(Slot, Vec<Bytes>)>,
    /// What was accepted above the snapshot, in slot order; of several ballots for a slot, the highest.
    pub accepted: Vec<Accepted>,
    /// Bytes of a torn tail that were dropped. Nobody had been told of them.
    pub dropped_tail_bytes: u64,
}

/// A replica's data directory: identity, log, snapshots.
pub struct Store<D: Disk> {
    disk: D,
    identity: Identity,
    /// `None` after a failure: a sync that failed is never tried again.
    log: Option<Log<D>>,
}

impl<D: Disk> Store<D> {
    /// Opens a data directory of the cell and the replica that are `wanted`, or founds it as theirs where there
    /// is nothing.
    ///
    /// Founding makes the log first and the identity last, so that a directory with an identity has a log.
    pub fn open(disk: D, wanted: &Identity, options: Options) -> Result<(Store<D>, Recovered), StorageError> {
        // Names that are seen may not be durable yet, if the process died before it had synced them.
        disk.sync_directory().map_err(|error| StorageError::io(disk.describe(""), "sync", error))?;
        let names = disk.list().map_err(|error| StorageError::io(disk.describe(""), "list", error))?;
        identity::check_not_condemned(&disk, &names)?;
        let founded = !names.iter().any(|name| name == identity::FILE);
        let Options { segment_bytes, step_bytes } = options;
        if founded {
            refuse_leftovers(&disk, &names)?;
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
        let Durable { promised, lease_bound, chosen, accepted } = contents.durable;
        let recovered = Recovered {
            founded,
            is_copy,
            starts,
            promised,
            lease_bound,
            chosen,
            snapshot,
            accepted: accepted.into_values().filter(|accepted| accepted.slot > above).collect(),
            dropped_tail_bytes: contents.dropped_tail_bytes,
        };
        Ok((Store { disk, identity, log: Some(log) }, recovered))
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

/// A directory without an identity may hold only what a crash leaves of founding it, and no record.
pub(crate) fn refuse_leftovers<D: Disk>(disk: &D, names: &[String]) -> Result<(), StorageError> {
    let missing = || {
        let identity = disk.describe(identity::FILE);
        StorageError::damaged(identity, 0, "the log is there, but the identity is missing")
    };
    if let Some(found) = names.iter().find(|name| !identity::is_of_founding(name)) {
        if names.iter().any(|name| segment::first_of(name).is_some_and(|first| first > 1)) {
            return Err(missing());
        }
        let directory = disk.describe("");
        return Err(StorageError::NotADataDirectory { directory, found: found.clone() });
    }
    let first = segment::name(1);
    if names.contains(&first) {
        let shown = disk.describe(&first);
        let file = disk.open(&first).map_err(|error| StorageError::io(&shown, "open", error))?;
        let bytes = file.read_all().map_err(|error| StorageError::io(&shown, "read", error))?;
        if segment::holds_anything(&bytes) {
            return Err(missing());
        }
    }
    Ok(())
}
