//! The write-ahead log: a chain of segments, appended to at its end, cut off at its beginning.

use crate::StorageError;
use crate::disk::{Disk, DiskFile};
use crate::record::{self, Entry, Found, Placed};
use crate::segment::{self, FIRST_RECORD, Header, Segment};
use std::collections::VecDeque;
use std::time::Duration;
use wombat_proto::{Ballot, Durable, Record, Slot};

/// The log of a replica.
pub(crate) struct Log<D: Disk> {
    disk: D,
    cell_id: String,
    segment_bytes: u64,
    step: u64,
    /// The segments before the last: the first record of each, the highest slot in it, its bytes.
    earlier: VecDeque<(u64, Slot, u64)>,
    /// The last segment, its first record, its highest slot, and where the next record goes.
    segment: Segment<D>,
    first: u64,
    highest: Slot,
    end: u64,
    /// The number of the last record, and of the last one known to be synced.
    last: u64,
    durable: u64,
    /// Whether no record says yet that what was synced last is.
    unproven: bool,
    promised: Ballot,
    lease_bound: Duration,
    starts: u32,
    /// The log was cut behind this slot's snapshot, and then began with this record.
    behind: Slot,
    begins: u64,
    buffer: Vec<u8>,
}

/// What a log held.
#[derive(Default)]
pub(crate) struct Contents {
    pub(crate) durable: Durable,
    pub(crate) starts: u32,
    /// A snapshot of this slot or a later one is what the log was cut for,
    pub(crate) behind: Slot,
    /// and this is the first record that was kept.
    begins: u64,
    pub(crate) dropped_tail_bytes: u64,
}

impl Contents {
    fn take(&mut self, entry: Entry) {
        match entry {
            Entry::Paxos(record) => self.durable.take(record),
            Entry::Mark | Entry::Seal => {}
            Entry::Start(count) => self.starts = self.starts.max(count),
            Entry::Cut { behind, begins } => {
                (self.behind, self.begins) = (self.behind.max(behind), self.begins.max(begins));
            }
        }
    }
}

/// A segment as recovery has read it.
struct Scanned {
    header: Header,
    bytes: Vec<u8>,
    highest: Slot,
    /// Where its records end, and the number of the last.
    end: usize,
    last: u64,
    /// Its records say that every record up to this one had been synced.
    durable: u64,
    /// Whether its last record is a seal.
    sealed: bool,
    /// Where the records begin that nothing in it proves to have been synced.
    doubtful: usize,
}

impl<D: Disk> Log<D> {
    /// Begins a new log.
    pub(crate) fn create(
        disk: D,
        cell_id: &str,
        segment_bytes: u64,
        step: u64,
    ) -> Result<Log<D>, StorageError> {
        let header = Header {
            cell_id: cell_id.into(),
            first: 1,
            promised: Ballot::ZERO,
            lease_bound: Duration::ZERO,
            starts: 0,
            step,
            behind: Slot(0),
            begins: 1,
            salt: segment::new_salt(),
        };
        let segment = Segment::create(&disk, &header)?;
        Ok(Log::at(disk, cell_id, segment_bytes, step, segment, &Contents::default()))
    }

    fn at(
        disk: D,
        cell_id: &str,
        segment_bytes: u64,
        step: u64,
        segment: Segment<D>,
        contents: &Contents,
    ) -> Log<D> {
        Log {
            disk,
            cell_id: cell_id.into(),
            segment_bytes,
            step,
            earlier: VecDeque::new(),
            segment,
            first: 1,
            highest: Slot(0),
            end: FIRST_RECORD as u64,
            last: 0,
            durable: 0,
            unproven: false,
            promised: contents.durable.promised,
            lease_bound: contents.durable.lease_bound,
            starts: contents.starts,
            behind: contents.behind,
            begins: contents.begins,
            buffer: Vec::new(),
        }
    }

    /// Reads a log back, drops a torn tail for good, and refuses rot.
    pub(crate) fn recover(
        disk: D,
        cell_id: &str,
        segment_bytes: u64,
        step: u64,
    ) -> Result<(Log<D>, Contents), StorageError> {
        let names = segment_names(&disk)?;
        let mut contents = Contents::default();
        let mut scanned: Vec<Scanned> = Vec::new();
        for (first, name) in &names {
            match scanned.last_mut() {
                Some(before) if !before.sealed => remove_unbegun(&disk, before, name)?,
                Some(before) if before.last + 1 != *first => return Err(missing(&disk, before.last + 1)),
                before => {
                    let segment = scan(&disk, name, *first, cell_id, &mut contents)?;
                    if let Some(before) = before {
                        if before.last > segment.durable {
                            before.write_again(&Segment::open(&disk, &before.header)?)?;
                        }
                        // A log may be longer than the memory.
                        before.bytes = Vec::new();
                    }
                    scanned.push(segment);
                }
            }
        }
        let Some(last) = scanned.pop() else { return Err(missing(&disk, 1)) };
        if names[0].0 > contents.begins {
            return Err(missing(&disk, contents.begins));
        }
        if last.sealed {
            return Err(missing(&disk, last.last + 1));
        }
        last.check_tail(&disk)?;
        contents.dropped_tail_bytes = last.leftover();
        let open = Segment::open(&disk, &last.header)?;
        let mut log = Log::at(disk, cell_id, segment_bytes, step, open, &contents);
        log.earlier = scanned.iter().map(|s| (s.header.first, s.highest, s.end as u64)).collect();
        (log.first, log.highest) = (last.header.first, last.highest);
        (log.end, log.last, log.durable) = (last.end as u64, last.last, last.last);
        last.write_again(&log.segment)?;
        Ok((log, contents))
    }

    /// Writes that the directory was opened once more. Returns how often it was.
    pub(crate) fn start(&mut self) -> Result<u32, StorageError> {
        self.starts += 1;
        self.write([Entry::Start(self.starts)])?;
        self.sync()?;
        Ok(self.starts)
    }

    /// Writes records, not yet durable, with one write.
    pub(crate) fn append(&mut self, records: &[Record]) -> Result<(), StorageError> {
        if self.end >= self.segment_bytes {
            self.roll()?;
        }
        self.write(records.iter().cloned().map(Entry::Paxos))
    }

    fn write(&mut self, entries: impl IntoIterator<Item = Entry>) -> Result<(), StorageError> {
        self.buffer.clear();
        for entry in entries {
            match &entry {
                Entry::Paxos(Record::Promise(ballot)) => self.promised = self.promised.max(*ballot),
                Entry::Paxos(Record::Accept(accepted)) => {
                    self.promised = self.promised.max(accepted.ballot);
                    self.highest = self.highest.max(accepted.slot);
                }
                Entry::Paxos(Record::LeaseBound(bound)) => self.lease_bound = self.lease_bound.max(*bound),
                Entry::Paxos(Record::Chosen(_))
                | Entry::Mark
                | Entry::Start(_)
                | Entry::Seal
                | Entry::Cut { .. } => {}
            }
            self.last += 1;
            let placed = Placed { sequence: self.last, durable: self.durable, entry };
            record::write(&placed, self.segment.salt, &mut self.buffer);
        }
        self.segment.allocate(self.end + self.buffer.len() as u64)?;
        self.segment.write(self.end, &self.buffer)?;
        self.end += self.buffer.len() as u64;
        self.unproven = false;
        Ok(())
    }

    /// Makes what was appended durable, and leaves the proof of it behind.
    pub(crate) fn sync(&mut self) -> Result<(), StorageError> {
        self.sync_unproven()?;
        self.prove()
    }

    /// Makes what was appended durable.
    pub(crate) fn sync_unproven(&mut self) -> Result<(), StorageError> {
        self.segment.sync()?;
        self.durable = self.last;
        self.unproven = true;
        Ok(())
    }

    /// Leaves the proof of the last sync behind, unless a later record is one.
    pub(crate) fn prove(&mut self) -> Result<(), StorageError> {
        if self.unproven { self.write([Entry::Mark]) } else { Ok(()) }
    }

    /// Makes the last proof durable as well.
    pub(crate) fn close(mut self) -> Result<(), StorageError> {
        self.prove()?;
        self.segment.sync()
    }

    /// Goes on in a new segment.
    ///
    /// The new one is durable with its name before the old one is sealed, and the seal is durable before a
    /// record goes into the new one. So a segment after an unsealed one has no records and may be removed; one
    /// after a sealed one must be there and whole, or something has taken it away.
    fn roll(&mut self) -> Result<(), StorageError> {
        // The seal comes before it.
        let first = self.last + 2;
        let header = Header {
            cell_id: self.cell_id.clone(),
            first,
            promised: self.promised,
            lease_bound: self.lease_bound,
            starts: self.starts,
            step: self.step,
            behind: self.behind,
            begins: self.begins,
            salt: segment::new_salt(),
        };
        let segment = Segment::create(&self.disk, &header)?;
        self.write([Entry::Seal])?;
        self.segment.sync()?;
        self.durable = self.last;
        self.segment = segment;
        self.earlier.push_back((self.first, self.highest, self.end));
        (self.first, self.highest, self.end) = (first, Slot(0), FIRST_RECORD as u64);
        Ok(())
    }

    /// Removes the segments that hold nothing above `slot`, the oldest first.
    ///
    /// That the log lacks them, and why, is durable before: so the loss of the snapshot, or of a segment that
    /// is kept, is found out.
    pub(crate) fn truncate_behind(&mut self, slot: Slot) -> Result<(), StorageError> {
        let dispensable = self.earlier.iter().take_while(|(_, highest, _)| *highest <= slot).count();
        if dispensable == 0 {
            return Ok(());
        }
        self.behind = self.behind.max(slot);
        self.begins = self.earlier.get(dispensable).map_or(self.first, |next| next.0);
        self.write([Entry::Cut { behind: self.behind, begins: self.begins }])?;
        self.sync()?;
        for (first, ..) in self.earlier.drain(..dispensable) {
            let name = segment::name(first);
            let shown = self.disk.describe(&name);
            self.disk.remove(&name).map_err(|error| StorageError::io(&shown, "remove", error))?;
            // One at a time: a log that misses a middle segment would be taken for damaged.
            self.disk.sync_directory().map_err(|error| StorageError::io(&shown, "remove", error))?;
        }
        Ok(())
    }

    /// The bytes of all records.
    pub(crate) fn bytes(&self) -> u64 {
        self.earlier.iter().map(|(_, _, bytes)| bytes).sum::<u64>() + self.end
    }
}

/// The segments by their first records.
fn segment_names<D: Disk>(disk: &D) -> Result<Vec<(u64, String)>, StorageError> {
    let names = disk.list().map_err(|error| StorageError::io(disk.describe(""), "list", error))?;
    let mut found: Vec<_> =
        names.into_iter().filter_map(|name| Some((segment::first_of(&name)?, name))).collect();
    found.sort_unstable();
    Ok(found)
}

fn read_file<D: Disk>(disk: &D, name: &str) -> Result<Vec<u8>, StorageError> {
    let file = disk.open(name).map_err(|error| StorageError::io(disk.describe(name), "open", error))?;
    file.read_all().map_err(|error| StorageError::io(disk.describe(name), "read", error))
}

/// Removes a segment whose predecessor was never sealed: a crash, a full disk or a failure caught it while it
/// was being made, and it holds no record.
fn remove_unbegun<D: Disk>(disk: &D, before: &Scanned, name: &str) -> Result<(), StorageError> {
    before.check_tail(disk)?;
    if segment::holds_anything(&read_file(disk, name)?) {
        return Err(before.damaged(disk, before.end, "a record is missing or cannot be read"));
    }
    let shown = disk.describe(name);
    disk.remove(name).map_err(|error| StorageError::io(&shown, "remove", error))?;
    disk.sync_directory().map_err(|error| StorageError::io(&shown, "remove", error))
}

fn missing<D: Disk>(disk: &D, first: u64) -> StorageError {
    StorageError::damaged(disk.describe(&segment::name(first)), 0, "this segment of the log is missing")
}

/// Reads the segment that begins with the record `first`, as far as it can be read.
fn scan<D: Disk>(
    disk: &D,
    name: &str,
    first: u64,
    cell_id: &str,
    contents: &mut Contents,
) -> Result<Scanned, StorageError> {
    let bytes = read_file(disk, name)?;
    let damaged = |offset: usize, what: &str| StorageError::damaged(disk.describe(name), offset as u64, what);
    let header =
        Header::read(&bytes).ok_or_else(|| damaged(0, "the header of the segment cannot be read"))?;
    if header.first != first || header.cell_id != cell_id {
        return Err(damaged(16, "the segment is of another log"));
    }
    contents.durable.take(Record::Promise(header.promised));
    contents.durable.take(Record::LeaseBound(header.lease_bound));
    contents.starts = contents.starts.max(header.starts);
    contents.take(Entry::Cut { behind: header.behind, begins: header.begins });
    let (mut end, mut last, mut highest) = (FIRST_RECORD, first - 1, Slot(0));
    let (mut durable, mut sealed) = (0, false);
    let mut doubtful = VecDeque::new();
    while !sealed {
        match record::read(&bytes, end, last + 1, header.salt) {
            Found::Record(placed, length) => {
                if let Entry::Paxos(Record::Accept(accepted)) = &placed.entry {
                    highest = highest.max(accepted.slot);
                }
                doubtful.push_back((placed.sequence, end));
                while doubtful.front().is_some_and(|(sequence, _)| *sequence <= placed.durable) {
                    doubtful.pop_front();
                }
                (end, last) = (end + length, last + 1);
                durable = durable.max(placed.durable);
                sealed = placed.entry == Entry::Seal;
                contents.take(placed.entry);
            }
            Found::Rot(what) => return Err(damaged(end, what)),
            Found::Nothing | Found::PerhapsTorn => break,
        }
    }
    let doubtful = doubtful.front().map_or(end, |(_, from)| *from);
    Ok(Scanned { header, bytes, highest, end, last, durable, sealed, doubtful })
}

impl Scanned {
    fn damaged<D: Disk>(&self, disk: &D, offset: usize, what: &str) -> StorageError {
        StorageError::damaged(disk.describe(&segment::name(self.header.first)), offset as u64, what)
    }

    /// What cannot be read behind the last record must be a crash's doing.
    fn check_tail<D: Disk>(&self, disk: &D) -> Result<(), StorageError> {
        if record::was_synced(&self.bytes, self.end, self.last + 1, self.header.salt) {
            let what = "a record that had been synced is missing or cannot be read";
            return Err(self.damaged(disk, self.end, what));
        }
        // Records are written only below the last whole step of the file, and the file never shrinks.
        let length = self.bytes.len() as u64;
        if self.end as u64 > length - length % self.header.step {
            return Err(self.damaged(disk, self.bytes.len(), "the file was cut off"));
        }
        Ok(())
    }

    /// Bytes behind the end that are not zero.
    fn leftover(&self) -> u64 {
        self.bytes[self.end..].iter().filter(|byte| **byte != 0).count() as u64
    }

    /// Overwrites what stands behind the last record with zeros, so that it never comes back, and makes what
    /// is left durable: nobody was told of it, but from now on it counts.
    ///
    /// It is written again although it can be read: after a failed sync what can be read is in the kernel's
    /// cache but perhaps not on the disk, and a mere sync would not write it there.
    fn write_again<D: Disk>(&self, segment: &Segment<D>) -> Result<(), StorageError> {
        let mut bytes = self.bytes[self.doubtful..self.end].to_vec();
        bytes.resize(self.bytes.len() - self.doubtful, 0);
        segment.write(self.doubtful as u64, &bytes)?;
        segment.sync()
    }
}
