//! Snapshots: one file each, complete or not there.
//!
//! A file is a header (magic `WOMBATSN`, format, CRC, slot, the cell's id), chunks (length, CRC, bytes), and a
//! footer (length `ffffffff`, CRC of the number of chunks, that number).

use crate::disk::{Disk, DiskFile};
use crate::{StorageError, condemned, fingerprint};
use bytes::Bytes;
use wombat_proto::Slot;

const PREFIX: &str = "snapshot-";
const UNFINISHED: &str = ".new";
const MAGIC: &[u8; 8] = b"WOMBATSN";
const FORMAT: u32 = 1;
const HEADER: usize = 48;
const FOOTER: u32 = u32::MAX;
/// Longest chunk, in bytes.
const CHUNK_BYTES: usize = 16 * 1024 * 1024;

/// A snapshot that is being written, on any thread, while the log goes on. Dropped unfinished, it is removed.
pub struct SnapshotWriter<D: Disk> {
    disk: D,
    file: D::File,
    name: String,
    end: u64,
    chunks: u32,
    /// Whether it has its name, or may have.
    finished: bool,
}

/// The file name of a snapshot.
pub(crate) fn name(slot: Slot) -> String {
    format!("{PREFIX}{:016x}", slot.0)
}

/// The slot that a file name speaks of, if it is a finished snapshot's.
fn slot_of(file: &str) -> Option<Slot> {
    let slot = Slot(u64::from_str_radix(file.strip_prefix(PREFIX)?, 16).ok()?);
    (name(slot) == file).then_some(slot)
}

/// Reads the newest snapshot, while others are written and removed.
#[derive(Clone)]
pub struct SnapshotReader<D: Disk> {
    disk: D,
    cell_id: String,
}

impl<D: Disk> SnapshotReader<D> {
    pub(crate) fn new(disk: D, cell_id: &str) -> SnapshotReader<D> {
        SnapshotReader { disk, cell_id: cell_id.into() }
    }

    /// Sees to it that the directory is never opened again, saying why.
    pub fn condemn(&self, why: &str) -> Result<(), StorageError> {
        condemned::mark(&self.disk, why)
    }

    /// Makes a copy of a data directory the original from now on.
    pub fn reinstate(&self) -> Result<(), StorageError> {
        fingerprint::write(&self.disk)
    }

    /// The directory has turned out to be a copy, and is one at the next start as well.
    pub fn disown(&self) -> Result<(), StorageError> {
        fingerprint::remove(&self.disk)
    }

    /// The newest snapshot: its slot and its chunks.
    pub fn newest(&self) -> Result<Option<(Slot, Vec<Bytes>)>, StorageError> {
        let Some(slot) = list(&self.disk)?.last().copied() else { return Ok(None) };
        Ok(Some((slot, read(&self.disk, slot, &self.cell_id)?)))
    }
}

fn header(slot: Slot, cell_id: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER);
    bytes.extend(MAGIC);
    bytes.extend(FORMAT.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(slot.0.to_le_bytes());
    bytes.extend(cell_id.as_bytes());
    bytes.resize(HEADER, 0);
    let crc = crc32fast::hash(&bytes[16..]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn footer(chunks: u32) -> Vec<u8> {
    let count = chunks.to_le_bytes();
    let crc = crc32fast::hash(&count);
    [&FOOTER.to_le_bytes()[..], &crc.to_le_bytes(), &count].concat()
}

impl<D: Disk> SnapshotWriter<D> {
    pub(crate) fn begin(disk: D, slot: Slot, cell_id: &str) -> Result<SnapshotWriter<D>, StorageError> {
        let name = name(slot);
        let unfinished = format!("{name}{UNFINISHED}");
        let shown = disk.describe(&unfinished);
        // What a crash had left was removed when the store was opened.
        if names(&disk)?.contains(&unfinished) {
            return Err(StorageError::io(shown, "make", std::io::ErrorKind::AlreadyExists.into()));
        }
        let file = disk.create(&unfinished).map_err(|error| StorageError::io(shown, "make", error))?;
        let mut writer = SnapshotWriter { disk, file, name, end: 0, chunks: 0, finished: false };
        writer.put(&header(slot, cell_id))?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let shown = || self.disk.describe(&self.name);
        self.file.write_at(self.end, bytes).map_err(|error| StorageError::io(shown(), "write", error))?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Writes one more chunk, of at most 16 MiB.
    pub fn write(&mut self, chunk: &[u8]) -> Result<(), StorageError> {
        assert!(chunk.len() <= CHUNK_BYTES, "a chunk is at most {CHUNK_BYTES} bytes long");
        let head = [(chunk.len() as u32).to_le_bytes(), crc32fast::hash(chunk).to_le_bytes()].concat();
        self.put(&head)?;
        self.put(chunk)?;
        self.chunks += 1;
        Ok(())
    }

    /// Makes the snapshot durable and gives it its name.
    pub fn finish(mut self) -> Result<(), StorageError> {
        self.put(&footer(self.chunks))?;
        let shown = self.disk.describe(&self.name);
        let failed = |operation| {
            let shown = shown.clone();
            move |error| StorageError::io(shown, operation, error)
        };
        self.file.sync().map_err(failed("sync"))?;
        self.disk.rename(&format!("{}{UNFINISHED}", self.name), &self.name).map_err(failed("name"))?;
        self.finished = true;
        self.disk.sync_directory().map_err(failed("name"))
    }
}

impl<D: Disk> Drop for SnapshotWriter<D> {
    fn drop(&mut self) {
        if !self.finished {
            // A full disk needs the room now; what cannot be removed is removed when the store is next opened.
            let _best_effort = self.disk.remove(&format!("{}{UNFINISHED}", self.name));
        }
    }
}

fn names<D: Disk>(disk: &D) -> Result<Vec<String>, StorageError> {
    disk.list().map_err(|error| StorageError::io(disk.describe(""), "list", error))
}

/// The slots of all finished snapshots, in order.
pub(crate) fn list<D: Disk>(disk: &D) -> Result<Vec<Slot>, StorageError> {
    let mut slots: Vec<Slot> = names(disk)?.iter().filter_map(|file| slot_of(file)).collect();
    slots.sort_unstable();
    Ok(slots)
}

/// Removes what a crash left of snapshots that were being written.
pub(crate) fn remove_unfinished<D: Disk>(disk: &D) -> Result<(), StorageError> {
    for file in names(disk)? {
        if file.strip_suffix(UNFINISHED).is_some_and(|rest| slot_of(rest).is_some()) {
            disk.remove(&file).map_err(|error| StorageError::io(disk.describe(&file), "remove", error))?;
        }
    }
    Ok(())
}

/// Removes the snapshots before `slot`, which must be there itself: only it makes them dispensable.
pub(crate) fn remove_before<D: Disk>(disk: &D, slot: Slot) -> Result<(), StorageError> {
    let slots = list(disk)?;
    if !slots.contains(&slot) {
        let shown = disk.describe(&name(slot));
        return Err(StorageError::io(shown, "find the snapshot", std::io::ErrorKind::NotFound.into()));
    }
    for older in slots.into_iter().filter(|older| *older < slot) {
        let shown = disk.describe(&name(older));
        disk.remove(&name(older)).map_err(|error| StorageError::io(shown, "remove", error))?;
    }
    Ok(())
}

/// Reads the chunks of a snapshot.
pub(crate) fn read<D: Disk>(disk: &D, slot: Slot, cell_id: &str) -> Result<Vec<Bytes>, StorageError> {
    let name = name(slot);
    let shown = disk.describe(&name);
    let file = disk.open(&name).map_err(|error| StorageError::io(&shown, "open", error))?;
    let bytes = Bytes::from(file.read_all().map_err(|error| StorageError::io(&shown, "read", error))?);
    let damaged = |offset: usize, what: &str| StorageError::damaged(&shown, offset as u64, what);
    if bytes.get(..HEADER) != Some(&header(slot, cell_id)[..]) {
        return Err(damaged(0, "the header of the snapshot is not as it was written"));
    }
    let mut chunks = Vec::new();
    let mut at = HEADER;
    loop {
        let head = bytes.get(at..at + 8).ok_or_else(|| damaged(at, "the snapshot is cut off"))?;
        let four = |from: usize| u32::from_le_bytes(head[from..from + 4].try_into().expect("four bytes"));
        if four(0) == FOOTER {
            return match bytes[at..] == footer(chunks.len() as u32)[..] {
                true => Ok(chunks),
                false => Err(damaged(at, "the end of the snapshot is not as it was written")),
            };
        }
        let (begin, end) = (at + 8, at + 8 + four(0) as usize);
        let chunk = bytes.get(begin..end).ok_or_else(|| damaged(at, "a chunk is cut off"))?;
        if crc32fast::hash(chunk) != four(4) {
            return Err(damaged(at, "a chunk fails its checksum"));
        }
        chunks.push(bytes.slice(begin..end));
        at = end;
    }
}
