//! A disk in memory that does to its files what real disks do at the worst moment: it loses and tears what
//! was not synced, forgets names, fills up, rots, and fails. The same seeds do the same.

use crate::disk::{Disk, DiskFile};
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, MutexGuard};
use wombat_proto::SplitMix64;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// A simulated disk. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimulatedDisk {
    inner: Arc<Mutex<Inner>>,
}

/// An open file of a simulated disk.
pub struct SimulatedFile {
    disk: SimulatedDisk,
    id: u64,
}

#[derive(Clone, Default)]
struct Inner {
    files: BTreeMap<u64, Content>,
    next_id: u64,
    /// A copy of a disk has another.
    number: u64,
    /// The directory as it is, and as it would be after a crash that loses all.
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// What was done to the directory since it was last synced.
    name_changes: Vec<NameChange>,
    capacity: Option<usize>,
    /// How many more syncs of files succeed before one fails.
    syncs_left: Option<u64>,
    /// How many more operations succeed.
    operations_left: Option<u64>,
    is_down: bool,
    operations: u64,
}

#[derive(Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    /// What was written since the last sync.
    unsynced: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone)]
enum NameChange {
    Create(String, u64),
    /// Both names change or neither does.
    Rename(String, String, u64),
    Remove(String),
}

impl SimulatedDisk {
    /// An empty disk without faults.
    pub fn new() -> SimulatedDisk {
        SimulatedDisk::default()
    }

    /// A copy of all files, as they are now, made by whoever looks after the machine: a backup, or one put back.
    pub fn copy(&self) -> SimulatedDisk {
        let mut inner = self.inner().clone();
        inner.number += 1;
        inner.durable_names = inner.names.clone();
        inner.name_changes.clear();
        for content in inner.files.values_mut() {
            content.durable.clone_from(&content.bytes);
            content.unsynced.clear();
        }
        let copy = SimulatedDisk { inner: Arc::new(Mutex::new(inner)) };
        copy.kill();
        copy
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nobody panics with it")
    }

    /// The machine loses power and comes back: of what was not synced, each sector survives or not; of the
    /// changes of names a first part, or any of them. Faults that were set are gone.
    pub fn crash(&self, seed: u64) {
        let mut random = SplitMix64::new(seed);
        let mut inner = self.inner();
        let changes: Vec<NameChange> = inner.name_changes.drain(..).collect();
        let in_order = random.below(2) == 0;
        let survive = random.below(changes.len() as u64 + 1) as usize;
        let mut names = inner.durable_names.clone();
        for (place, change) in changes.into_iter().enumerate() {
            if if in_order { place < survive } else { random.below(2) == 0 } {
                apply(&mut names, change);
            }
        }
        inner.names = names.clone();
        inner.durable_names = names;
        for content in inner.files.values_mut() {
            content.crash(&mut random);
        }
        drop(inner);
        self.kill();
    }

    /// The process dies and comes back, the machine does not: everything written is still there, synced or
    /// not. Faults that were set are gone.
    pub fn kill(&self) {
        let mut inner = self.inner();
        (inner.capacity, inner.syncs_left) = (None, None);
        (inner.operations_left, inner.is_down) = (None, false);
    }

    /// Changes one bit of a file, synced or not, behind everybody's back.
    pub fn flip(&self, name: &str, offset: u64, bit: u8) {
        let mut inner = self.inner();
        let id = inner.names[name];
        let content = inner.files.get_mut(&id).expect("a name has a file");
        for bytes in [&mut content.bytes, &mut content.durable] {
            if let Some(byte) = bytes.get_mut(offset as usize) {
                *byte ^= 1 << (bit % 8);
            }
        }
        for (begin, bytes) in &mut content.unsynced {
            if let Some(byte) = (offset as usize).checked_sub(*begin).and_then(|at| bytes.get_mut(at)) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// Cuts a file off, behind everybody's back.
    pub fn cut(&self, name: &str, length: u64) {
        let mut inner = self.inner();
        let id = inner.names[name];
        let content = inner.files.get_mut(&id).expect("a name has a file");
        content.bytes.truncate(length as usize);
        content.durable.truncate(length as usize);
    }

    /// The contents of a file as they are now.
    pub fn contents(&self, name: &str) -> Vec<u8> {
        let inner = self.inner();
        inner.files[&inner.names[name]].bytes.clone()
    }

    /// From now on all files together hold at most so many bytes; `None`: any number.
    pub fn limit(&self, capacity: Option<usize>) {
        self.inner().capacity = capacity;
    }

    /// The next sync of a file fails. What it should have made durable can still be read, but what of it has
    /// not reached the disk by then never will, whatever later syncs say, unless it is written again.
    pub fn fail_next_sync(&self) {
        self.fail_sync_after(0);
    }

    /// The same for the one after so many more syncs.
    pub fn fail_sync_after(&self, syncs: u64) {
        self.inner().syncs_left = Some(syncs);
    }

    /// After so many more operations every one fails, until the crash that this stands for. The first of
    /// these, if it is a write, is cut short.
    pub fn stop_after(&self, operations: u64) {
        self.inner().operations_left = Some(operations);
    }

    /// How many operations there were.
    pub fn operations(&self) -> u64 {
        self.inner().operations
    }
}

impl Inner {
    fn operate(&mut self) -> Result<()> {
        self.operations += 1;
        match &mut self.operations_left {
            Some(0) => {
                self.is_down = true;
                return Err(Error::other("the machine is down"));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(())
    }

    fn change_names(&mut self, change: NameChange) {
        apply(&mut self.names, change.clone());
        self.name_changes.push(change);
    }

    /// For how many bytes at `offset` of a file there is room.
    fn room(&self, id: u64, offset: usize) -> usize {
        let Some(capacity) = self.capacity else { return usize::MAX };
        let free = capacity.saturating_sub(self.used());
        (self.files[&id].bytes.len() + free).saturating_sub(offset)
    }

    fn used(&self) -> usize {
        self.names.values().map(|id| self.files[id].bytes.len()).sum()
    }
}

/// How many of `length` bytes at `offset` are written if a write is cut short: it ends with a sector.
fn whole_sectors(offset: usize, length: usize) -> usize {
    ((offset + length) / SECTOR * SECTOR).saturating_sub(offset)
}

fn apply(names: &mut BTreeMap<String, u64>, change: NameChange) {
    match change {
        NameChange::Create(name, id) => names.insert(name, id),
        NameChange::Rename(from, to, id) => {
            names.remove(&from);
            names.insert(to, id)
        }
        NameChange::Remove(name) => names.remove(&name),
    };
}

impl Content {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        put(&mut self.bytes, offset, bytes);
        self.unsynced.push((offset, bytes.to_vec()));
    }

    /// Only what is on the disk is left.
    fn crash(&mut self, random: &mut SplitMix64) {
        let length = self.bytes.len();
        self.tear(random);
        // The new length may be known though the bytes are not.
        if length > self.durable.len() && random.below(2) == 0 {
            self.durable.resize(length, 0);
        }
        self.bytes.clone_from(&self.durable);
    }

    /// Of what was not synced, each sector reaches the disk or not.
    fn tear(&mut self, random: &mut SplitMix64) {
        for (offset, written) in self.unsynced.drain(..) {
            let mut at = 0;
            while at < written.len() {
                let whole = SECTOR - (offset + at) % SECTOR;
                let end = (at + whole).min(written.len());
                if random.below(2) == 0 {
                    put(&mut self.durable, offset + at, &written[at..end]);
                }
                at = end;
            }
        }
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, written: &[u8]) {
    let end = offset + written.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(written);
}

impl Disk for SimulatedDisk {
    type File = SimulatedFile;

    fn list(&self) -> Result<Vec<String>> {
        Ok(self.inner().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> Result<SimulatedFile> {
        let id = self.inner().names.get(name).copied().ok_or(ErrorKind::NotFound)?;
        Ok(SimulatedFile { disk: self.clone(), id })
    }

    fn create(&self, name: &str) -> Result<SimulatedFile> {
        let mut inner = self.inner();
        inner.operate()?;
        inner.next_id += 1;
        let id = inner.next_id;
        inner.files.insert(id, Content::default());
        inner.change_names(NameChange::Create(name.into(), id));
        Ok(SimulatedFile { disk: self.clone(), id })
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let mut inner = self.inner();
        inner.operate()?;
        let id = inner.names.get(from).copied().ok_or(ErrorKind::NotFound)?;
        inner.change_names(NameChange::Rename(from.into(), to.into(), id));
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<()> {
        let mut inner = self.inner();
        inner.operate()?;
        if !inner.names.contains_key(name) {
            return Err(ErrorKind::NotFound.into());
        }
        inner.change_names(NameChange::Remove(name.into()));
        Ok(())
    }

    fn sync_directory(&self) -> Result<()> {
        let mut inner = self.inner();
        inner.operate()?;
        inner.durable_names = inner.names.clone();
        inner.name_changes.clear();
        Ok(())
    }

    fn describe(&self, name: &str) -> String {
        name.into()
    }
}

impl DiskFile for SimulatedFile {
    fn length(&self) -> Result<u64> {
        Ok(self.disk.inner().files[&self.id].bytes.len() as u64)
    }

    fn read_all(&self) -> Result<Vec<u8>> {
        Ok(self.disk.inner().files[&self.id].bytes.clone())
    }

    fn fingerprint(&self) -> Result<String> {
        Ok(format!("{} of disk {}", self.id, self.disk.inner().number))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut inner = self.disk.inner();
        let offset = offset as usize;
        let was_down = inner.is_down;
        let (written, result) = match inner.operate() {
            Ok(()) => match inner.room(self.id, offset) {
                room if room >= bytes.len() => (bytes.len(), Ok(())),
                room => (whole_sectors(offset, room), Err(ErrorKind::StorageFull.into())),
            },
            Err(error) if was_down => (0, Err(error)),
            Err(error) => (whole_sectors(offset, bytes.len() / 2), Err(error)),
        };
        if written > 0 {
            let content = inner.files.get_mut(&self.id).expect("an open file exists");
            content.write(offset, &bytes[..written]);
        }
        result
    }

    fn sync(&self) -> Result<()> {
        let mut inner = self.disk.inner();
        inner.operate()?;
        let left = inner.syncs_left;
        inner.syncs_left = left.and_then(|left| left.checked_sub(1));
        if left == Some(0) {
            let mut random = SplitMix64::new(inner.operations);
            inner.files.get_mut(&self.id).expect("an open file exists").tear(&mut random);
            return Err(Error::other("the disk reports an error (EIO)"));
        }
        let content = inner.files.get_mut(&self.id).expect("an open file exists");
        for (offset, bytes) in std::mem::take(&mut content.unsynced) {
            put(&mut content.durable, offset, &bytes);
        }
        Ok(())
    }
}
