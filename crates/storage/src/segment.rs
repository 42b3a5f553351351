//! A segment: one file of the log, its header and its allocation.

use crate::StorageError;
use crate::disk::{Disk, DiskFile};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;
use wombat_proto::{Ballot, ReplicaId, Slot};

/// Where the records of a segment begin.
pub(crate) const FIRST_RECORD: usize = 4096;
const MAGIC: &[u8; 8] = b"WOMBATLG";
const FORMAT: u32 = 1;
const PREFIX: &str = "log-";
/// Bytes of the header that mean something.
const HEADER: usize = 104;
/// Longest id of a cell, in bytes.
const CELL_ID_BYTES: usize = 24;

/// Whether a file holds anything where records would be.
pub(crate) fn holds_anything(segment: &[u8]) -> bool {
    segment.iter().skip(FIRST_RECORD).any(|byte| *byte != 0)
}

/// A salt for a new segment: its bits come from the operating system's randomness.
pub(crate) fn new_salt() -> u32 {
    RandomState::new().build_hasher().finish() as u32
}

/// What a segment's header says: enough for the log to begin with it once the segments before it are gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) cell_id: String,
    /// The sequence number of its first record.
    pub(crate) first: u64,
    /// The promise that held when the segment began.
    pub(crate) promised: Ballot,
    /// The longest master lease that the replica may have granted.
    pub(crate) lease_bound: Duration,
    /// How often the directory had been opened.
    pub(crate) starts: u32,
    /// By how many bytes it is allocated at a time; the file outlives the setting.
    pub(crate) step: u64,
    /// The log was cut because a snapshot of this slot or a later one is there.
    pub(crate) behind: Slot,
    /// The first record that was kept then: the oldest segment begins with it or before it.
    pub(crate) begins: u64,
    /// What the checksums of its records begin with.
    pub(crate) salt: u32,
}

/// The file name of the segment that begins with that record.
pub(crate) fn name(first: u64) -> String {
    format!("{PREFIX}{first:016x}")
}

/// The first record that a file name speaks of, if it is a segment's.
pub(crate) fn first_of(file: &str) -> Option<u64> {
    let first = u64::from_str_radix(file.strip_prefix(PREFIX)?, 16).ok()?;
    (name(first) == file).then_some(first)
}

impl Header {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIRST_RECORD);
        bytes.extend(MAGIC);
        bytes.extend([0; 4]);
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend(self.first.to_le_bytes());
        bytes.extend(self.promised.round.to_le_bytes());
        bytes.extend(self.promised.replica.0.to_le_bytes());
        bytes.extend(self.promised.incarnation.to_le_bytes());
        bytes.extend(self.starts.to_le_bytes());
        bytes.extend(self.salt.to_le_bytes());
        let mut id = self.cell_id.clone().into_bytes();
        id.resize(CELL_ID_BYTES, 0);
        bytes.extend(id);
        bytes.extend(self.step.to_le_bytes());
        bytes.extend(self.behind.0.to_le_bytes());
        bytes.extend(self.begins.to_le_bytes());
        bytes.extend((self.lease_bound.as_nanos() as u64).to_le_bytes());
        let crc = crc32fast::hash(&bytes[12..HEADER]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        bytes.resize(FIRST_RECORD, 0);
        bytes
    }

    /// The header of a segment; `None` if it cannot be read.
    pub(crate) fn read(segment: &[u8]) -> Option<Header> {
        let bytes = segment.get(..FIRST_RECORD)?;
        let four = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let eight = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let ballot = Ballot { round: eight(24), replica: ReplicaId(four(32)), incarnation: four(36) };
        let id = std::str::from_utf8(&bytes[48..48 + CELL_ID_BYTES]).ok()?.trim_end_matches('\0');
        let header = Header {
            cell_id: id.into(),
            first: eight(16),
            promised: ballot,
            lease_bound: Duration::from_nanos(eight(96)),
            starts: four(40),
            step: eight(72),
            behind: Slot(eight(80)),
            begins: eight(88),
            salt: four(44),
        };
        // Comparing the whole of it leaves no byte unchecked.
        (header.to_bytes() == bytes && header.step > 0).then_some(header)
    }
}

/// The segment that the log is appended to.
pub(crate) struct Segment<D: Disk> {
    file: D::File,
    shown: String,
    /// Up to here the file holds synced zeros or records: records are written only below, so that a sync of
    /// them touches no metadata, and a tear shows.
    allocated: u64,
    /// By how much it is allocated at a time.
    step: u64,
    pub(crate) salt: u32,
}

impl<D: Disk> Segment<D> {
    /// Makes a segment, durable with its name before the first record goes in.
    pub(crate) fn create(disk: &D, header: &Header) -> Result<Segment<D>, StorageError> {
        let name = name(header.first);
        let shown = disk.describe(&name);
        let file = disk.create(&name).map_err(|error| StorageError::io(&shown, "make", error))?;
        let mut segment = Segment { file, shown, allocated: 0, step: header.step, salt: header.salt };
        segment.write(0, &header.to_bytes())?;
        segment.allocated = FIRST_RECORD as u64;
        segment.allocate(FIRST_RECORD as u64 + 1)?;
        disk.sync_directory().map_err(|error| StorageError::io(&segment.shown, "name", error))?;
        Ok(segment)
    }

    /// Opens the last segment of a log to go on with it.
    pub(crate) fn open(disk: &D, header: &Header) -> Result<Segment<D>, StorageError> {
        let name = name(header.first);
        let step = header.step;
        let shown = disk.describe(&name);
        let file = disk.open(&name).map_err(|error| StorageError::io(&shown, "open", error))?;
        let length = file.length().map_err(|error| StorageError::io(&shown, "measure", error))?;
        // A crash may have caught the file growing; only whole steps count.
        let allocated = length - length % step;
        Ok(Segment { file, shown, allocated, step, salt: header.salt })
    }

    /// Sees to it that records may be written up to `end`.
    pub(crate) fn allocate(&mut self, end: u64) -> Result<(), StorageError> {
        if end <= self.allocated {
            return Ok(());
        }
        let target = end.next_multiple_of(self.step);
        self.write(self.allocated, &vec![0; (target - self.allocated) as usize])?;
        self.sync()?;
        self.allocated = target;
        Ok(())
    }

    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.file.write_at(offset, bytes).map_err(|error| StorageError::io(&self.shown, "write", error))
    }

    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        self.file.sync().map_err(|error| StorageError::io(&self.shown, "sync", error))
    }
}
