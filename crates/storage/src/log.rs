//! The write-ahead log: a chain of segments, appended to at its end, cut off at its beginning.

use crate::StorageError;
use crate::disk::{Disk, DiskFile};
use crate::record::{self, Entry, Found, Placed};
use crate::segment::{self, FIRST_RECORD, Header, Segment};
use std::collections::{BTreeMap, VecDeque};
use wombat_proto::{Accepted, Ballot, Record, Slot};

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
    promised: Ballot,
    starts: u32,
    buffer: Vec<u8>,
}

/// What a log held.
#[derive(Default)]
pub(crate) struct Contents {
    pub(crate) promised: Ballot,
    pub(crate) starts: u32,
    pub(crate) accepted: BTreeMap<Slot, Accepted>,
    /// Whether the log begins with its first record ever.
    pub(crate) from_the_beginning: bool,
    pub(crate) dropped_tail_bytes: u64,
}

impl Contents {
    fn take(&mut self, entry: Entry) {
        match entry {
            Entry::Paxos(Record::Promise(ballot)) => self.promised = self.promised.max(ballot),
            Entry::Paxos(Record::Accept(accepted)) => {
                // To accept is to promise.
                self.promised = self.promised.max(accepted.ballot);
                let known = self.accepted.get(&accepted.slot);
                if known.is_none_or(|known| known.ballot <= accepted.ballot) {
                    self.accepted.insert(accepted.slot, accepted);
                }
            }
            Entry::Mark => {}
            Entry::Start(count) => self.starts = self.starts.max(count),
        }
    }
}

/// A segment as recovery has read it.
struct Scanned {
    header: Header,
    highest: Slot,
    /// Where its records end, and the number of the last.
    end: u64,
    last: u64,
    length: u64,
    /// Bytes behind the end that are not zero.
    leftover: u64,
    /// Where the records begin of which none proves that they had been synced, and their bytes.
    doubtful: (u64, Vec<u8>),
}

impl<D: Disk> Log<D> {
    /// Begins a new log.
    pub(crate) fn create(
        disk: D,
        cell_id: &str,
        segment_bytes: u64,
        step: u64,
    ) -> Result<Log<D>, StorageError> {
        let header = Header { cell_id: cell_id.into(), first: 1, promised: Ballot::ZERO, starts: 0, step };
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
            promised: contents.promised,
            starts: contents.starts,
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
        let mut names = segment_names(&disk)?;
        let mut contents = Contents::default();
        let mut scanned: Vec<Scanned> = Vec::new();
        drop_unfinished(&disk, &mut names)?;
        for (place, (first, name)) in names.iter().enumerate() {
            let is_last = place + 1 == names.len();
            let next = scanned.last().map(|before| before.last + 1);
            if next.is_some_and(|next| next != *first) {
                let next = next.unwrap_or_default();
                let what =
                    format!("it begins with record {first}, but the one before it ends with {}", next - 1);
                return Err(StorageError::damaged(disk.describe(name), 0, what));
            }
            let ends_before = names.get(place + 1).map(|(first, _)| *first);
            let segment = scan(&disk, name, *first, cell_id, ends_before, &mut contents)?;
            if is_last {
                contents.dropped_tail_bytes = segment.leftover;
            }
            scanned.push(segment);
        }
        let Some(last) = scanned.pop() else {
            let shown = disk.describe(&segment::name(1));
            return Err(StorageError::damaged(shown, 0, "no segment of the log is there"));
        };
        contents.from_the_beginning = names[0].0 == 1;
        let open = Segment::open(&disk, &last.header)?;
        let mut log = Log::at(disk, cell_id, segment_bytes, step, open, &contents);
        log.earlier = scanned.iter().map(|s| (s.header.first, s.highest, s.length)).collect();
        (log.first, log.highest) = (last.header.first, last.highest);
        (log.end, log.last, log.durable) = (last.end, last.last, last.last);
        log.clean_tail(last)?;
        Ok((log, contents))
    }

    /// Overwrites what stands behind the last record with zeros, so that it never comes back, and makes what
    /// is left durable: nobody was told of it, but from now on it counts.
    ///
    /// It is written again although it can be read: after a failed sync what can be read is in the kernel's
    /// cache but perhaps not on the disk, and a mere sync would not write it there.
    fn clean_tail(&mut self, last: Scanned) -> Result<(), StorageError> {
        let (from, mut bytes) = last.doubtful;
        bytes.resize((last.length - from) as usize, 0);
        self.segment.write(from, &bytes)?;
        self.segment.sync()
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
                Entry::Mark | Entry::Start(_) => {}
            }
            self.last += 1;
            let placed = Placed { sequence: self.last, durable: self.durable, entry };
            record::write(&placed, &mut self.buffer);
        }
        self.segment.allocate(self.end + self.buffer.len() as u64)?;
        self.segment.write(self.end, &self.buffer)?;
        self.end += self.buffer.len() as u64;
        Ok(())
    }

    /// Makes what was appended durable, and leaves the proof of it behind.
    pub(crate) fn sync(&mut self) -> Result<(), StorageError> {
        self.segment.sync()?;
        self.durable = self.last;
        self.write([Entry::Mark])
    }

    /// Makes the last proof durable as well.
    pub(crate) fn close(self) -> Result<(), StorageError> {
        self.segment.sync()
    }

    /// Goes on in a new segment. The old one is durable to its end before the new one has a name: damage in it
    /// is rot from then on.
    fn roll(&mut self) -> Result<(), StorageError> {
        self.segment.sync()?;
        self.durable = self.last;
        let first = self.last + 1;
        let header = Header {
            cell_id: self.cell_id.clone(),
            first,
            promised: self.promised,
            starts: self.starts,
            step: self.step,
        };
        let segment = Segment::create(&self.disk, &header)?;
        self.segment = segment;
        self.earlier.push_back((self.first, self.highest, self.end));
        (self.first, self.highest, self.end) = (first, Slot(0), FIRST_RECORD as u64);
        Ok(())
    }

    /// Removes the segments that hold nothing above `slot`, the oldest first.
    pub(crate) fn truncate_behind(&mut self, slot: Slot) -> Result<(), StorageError> {
        while let Some((first, highest, _)) = self.earlier.front().copied()
            && highest <= slot
        {
            let name = segment::name(first);
            let shown = self.disk.describe(&name);
            self.disk.remove(&name).map_err(|error| StorageError::io(&shown, "remove", error))?;
            // One at a time: a log that misses a middle segment would be taken for damaged.
            self.disk.sync_directory().map_err(|error| StorageError::io(&shown, "remove", error))?;
            self.earlier.pop_front();
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

/// Removes a last segment that a crash or a full disk caught while it was being made: its header cannot be
/// read or its first step is not allocated, no record is in it, and the log before it is there. The only
/// segment of a log is never taken for one: without it there would be no promise.
fn drop_unfinished<D: Disk>(disk: &D, names: &mut Vec<(u64, String)>) -> Result<(), StorageError> {
    if names.len() < 2 {
        return Ok(());
    }
    let Some((_, name)) = names.last() else { return Ok(()) };
    let bytes = read_file(disk, name)?;
    let finished = Header::read(&bytes).is_some_and(|header| bytes.len() as u64 >= header.step);
    if finished || record::holds_any(&bytes, 0) {
        return Ok(());
    }
    let shown = disk.describe(name);
    disk.remove(name).map_err(|error| StorageError::io(&shown, "remove", error))?;
    disk.sync_directory().map_err(|error| StorageError::io(&shown, "remove", error))?;
    names.pop();
    Ok(())
}

/// Reads one segment. `ends_before` is the first record of the next one; the last segment has none.
fn scan<D: Disk>(
    disk: &D,
    name: &str,
    first: u64,
    cell_id: &str,
    ends_before: Option<u64>,
    contents: &mut Contents,
) -> Result<Scanned, StorageError> {
    let bytes = read_file(disk, name)?;
    let damaged = |offset: usize, what: &str| StorageError::damaged(disk.describe(name), offset as u64, what);
    let header =
        Header::read(&bytes).ok_or_else(|| damaged(0, "the header of the segment cannot be read"))?;
    if header.first != first || header.cell_id != cell_id {
        return Err(damaged(16, "the segment is of another log"));
    }
    contents.promised = contents.promised.max(header.promised);
    contents.starts = contents.starts.max(header.starts);
    let mut at = FIRST_RECORD;
    let mut next = first;
    let mut highest = Slot(0);
    let mut doubtful = VecDeque::new();
    loop {
        match record::read(&bytes, at, next) {
            Found::Record(placed, length) => {
                if let Entry::Paxos(Record::Accept(accepted)) = &placed.entry {
                    highest = highest.max(accepted.slot);
                }
                doubtful.push_back((placed.sequence, at));
                while doubtful.front().is_some_and(|(sequence, _)| *sequence <= placed.durable) {
                    doubtful.pop_front();
                }
                contents.take(placed.entry);
                (at, next) = (at + length, next + 1);
            }
            Found::Rot(what) => return Err(damaged(at, what)),
            Found::Nothing | Found::PerhapsTorn => break,
        }
    }
    match ends_before {
        Some(end) if next != end => return Err(damaged(at, "a record is missing or cannot be read")),
        Some(_) => {}
        None if record::was_synced(&bytes, at, next) => {
            return Err(damaged(at, "a record that had been synced is missing or cannot be read"));
        }
        // Records are written only below the last whole step of the file, and the file never shrinks.
        None if at as u64 > bytes.len() as u64 / header.step * header.step => {
            return Err(damaged(bytes.len(), "the file was cut off"));
        }
        None => {}
    }
    let leftover = bytes[at..].iter().filter(|byte| **byte != 0).count() as u64;
    let from = doubtful.front().map_or(at, |(_, from)| *from);
    let doubtful = (from as u64, bytes[from..at].to_vec());
    let (end, length) = (at as u64, bytes.len() as u64);
    let length = if ends_before.is_some() { length.min(end) } else { length };
    Ok(Scanned { header, highest, end, last: next - 1, length, leftover, doubtful })
}
