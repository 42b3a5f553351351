//! The format of a log record, and what a damaged one proves.
//!
//! All numbers are little-endian; records begin at multiples of eight bytes.
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | magic, `WREC` |
//! | 4..8 | CRC-32 of bytes 8..64, begun with the segment's salt |
//! | 8..12 | length of the body |
//! | 12..16 | CRC-32 of the body |
//! | 16..24 | sequence number: one more than that of the record before |
//! | 24..32 | durable: when this was written, every record up to this number had been synced |
//! | 32..36 | kind: 1 promise, 2 accept a command, 3 mark, 4 start, 5 seal, 6 cut, 7 chosen, 8 lease bound, |
//! | | 9 accept a no-op, 10 accept members |
//! | 36..40 | ballot: replica |
//! | 40..48 | ballot: round; in a cut the first record that is kept |
//! | 48..52 | ballot: incarnation |
//! | 52..56 | zero |
//! | 56..64 | slot (accept, cut, chosen), count (start), nanoseconds (lease bound) |
//! | 64.. | body (the command, or members as protobuf), then zeros up to a multiple of eight |
//!
//! The identifiers in the header have a checksum of their own, so that a damaged body still says what it was.
//!
//! A crash tears only what was not synced. So a record that cannot be read is *rot* if anything proves that it
//! had been synced: a later record whose `durable` covers it. After each sync a *mark*, a record without a
//! body, is written to carry that proof for the last batch; it is not synced itself, but outlives the
//! process. A *seal* ends a segment: it is synced before the next segment gets its first record.
//!
//! And since records are written only over synced zeros, in sectors that a disk writes whole, a torn
//! record has some sector's part that is still zero; one that has none is rot, too.
//!
//! The proof is looked for among bytes that a client may have chosen: the command of a torn record. A client
//! that could write what passes for a record there could make a crash look like rot. So every segment's
//! checksums begin with a number of its own that nobody outside can know, its salt.

use bytes::Bytes;
use prost::Message;
use std::time::Duration;
use wombat_proto::limits::COMMAND_BYTES;
use wombat_proto::wire::log;
use wombat_proto::{Accepted, Ballot, Members, Record, ReplicaId, Slot, Value};

/// Bytes of a record before its body.
pub const HEADER: usize = 64;
/// Records begin at multiples of this.
pub const ALIGNMENT: usize = 8;
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
const MAGIC: [u8; 4] = *b"WREC";

/// What a record says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    /// Something of Paxos.
    Paxos(Record),
    /// Nothing but how far the log was synced.
    Mark,
    /// The directory was opened for the n-th time.
    Start(u32),
    /// The segment ends here, and the next one is durable.
    Seal,
    /// The log may begin with the record `begins`, because a snapshot of `behind` or later is there.
    Cut {
        /// The slot of the snapshot.
        behind: Slot,
        /// The first record of the oldest segment that is kept.
        begins: u64,
    },
}

/// A record with its place in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Placed {
    pub(crate) sequence: u64,
    /// Every record up to this one had been synced.
    pub(crate) durable: u64,
    pub(crate) entry: Entry,
}

/// What stands at a place in the log.
#[derive(Debug)]
pub(crate) enum Found {
    /// A record, so many bytes long.
    Record(Placed, usize),
    /// Zeros where a header would be.
    Nothing,
    /// Something that cannot be read; a crash can have left it.
    PerhapsTorn,
    /// Something that cannot be read and that no crash can have left.
    Rot(&'static str),
}

/// Appends a record to `buffer`.
pub(crate) fn write(placed: &Placed, salt: u32, buffer: &mut Vec<u8>) {
    let members_body;
    let (kind, ballot, number, body) = match &placed.entry {
        Entry::Paxos(Record::Promise(ballot)) => (1u32, *ballot, 0, &[][..]),
        Entry::Paxos(Record::Accept(Accepted { slot, ballot, value })) => match value {
            Value::Command(command) => (2, *ballot, slot.0, &command[..]),
            Value::Noop => (9, *ballot, slot.0, &[][..]),
            Value::Members(members) => {
                members_body = log::Members::from(members).encode_to_vec();
                (10, *ballot, slot.0, &members_body[..])
            }
        },
        Entry::Paxos(Record::Chosen(slot)) => (7, Ballot::ZERO, slot.0, &[][..]),
        Entry::Paxos(Record::LeaseBound(bound)) => (8, Ballot::ZERO, bound.as_nanos() as u64, &[][..]),
        Entry::Mark => (3, Ballot::ZERO, 0, &[][..]),
        Entry::Start(count) => (4, Ballot::ZERO, u64::from(*count), &[][..]),
        Entry::Seal => (5, Ballot::ZERO, 0, &[][..]),
        Entry::Cut { behind, begins } => (6, Ballot { round: *begins, ..Ballot::ZERO }, behind.0, &[][..]),
    };
    let begin = buffer.len();
    buffer.extend(MAGIC);
    buffer.extend([0; 4]);
    buffer.extend((body.len() as u32).to_le_bytes());
    buffer.extend(crc32fast::hash(body).to_le_bytes());
    buffer.extend(placed.sequence.to_le_bytes());
    buffer.extend(placed.durable.to_le_bytes());
    buffer.extend(kind.to_le_bytes());
    buffer.extend(ballot.replica.0.to_le_bytes());
    buffer.extend(ballot.round.to_le_bytes());
    buffer.extend(ballot.incarnation.to_le_bytes());
    buffer.extend([0; 4]);
    buffer.extend(number.to_le_bytes());
    let crc = checksum(&buffer[begin + 8..begin + HEADER], salt);
    buffer[begin + 4..begin + 8].copy_from_slice(&crc.to_le_bytes());
    buffer.extend(body);
    buffer.resize(begin + whole(body.len()), 0);
}

/// The CRC-32 of a header.
fn checksum(bytes: &[u8], salt: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(bytes);
    hasher.finalize()
}

/// The bytes of a record with a body of that length.
fn whole(body: usize) -> usize {
    (HEADER + body).next_multiple_of(ALIGNMENT)
}

/// Reads what stands at `offset` of a segment, where the record `sequence` would be.
pub(crate) fn read(segment: &[u8], offset: usize, sequence: u64, salt: u32) -> Found {
    let Some(header) = segment.get(offset..offset + HEADER) else {
        let rest = &segment[offset.min(segment.len())..];
        return if rest.iter().all(|byte| *byte == 0) { Found::Nothing } else { Found::Rot("it is cut off") };
    };
    if header.iter().all(|byte| *byte == 0) {
        return Found::Nothing;
    }
    let Some((placed, body)) = read_header(header, salt) else {
        return match some_sector_is_zero(segment, offset, offset + HEADER) {
            true => Found::PerhapsTorn,
            false => Found::Rot("the header of a record fails its checksum"),
        };
    };
    if placed.sequence != sequence {
        return Found::Rot("a record has another sequence number than its place");
    }
    let end = offset + whole(body.length);
    let Some(bytes) = segment.get(offset + HEADER..end) else {
        return Found::Rot("a record is cut off by the end of the file");
    };
    let (bytes, padding) = bytes.split_at(body.length);
    if crc32fast::hash(bytes) != body.crc || padding.iter().any(|byte| *byte != 0) {
        return match some_sector_is_zero(segment, offset + HEADER, end) {
            true => Found::PerhapsTorn,
            false => Found::Rot("the body of a record fails its checksum"),
        };
    }
    match placed.entry(bytes) {
        Some(entry) => {
            let Header { sequence, durable, .. } = placed;
            Found::Record(Placed { sequence, durable, entry }, end - offset)
        }
        None => Found::Rot("a record is of a kind that this version does not know"),
    }
}

/// Whether any record at or after `offset`, wherever it stands, proves that `sequence` had been synced.
pub(crate) fn was_synced(segment: &[u8], offset: usize, sequence: u64, salt: u32) -> bool {
    let mut at = offset.next_multiple_of(ALIGNMENT);
    while at + HEADER <= segment.len() {
        if segment[at..at + 4] == MAGIC
            && let Some((header, _)) = read_header(&segment[at..at + HEADER], salt)
            && header.durable >= sequence
        {
            return true;
        }
        at += ALIGNMENT;
    }
    false
}

#[derive(Clone, Copy)]
struct Header {
    sequence: u64,
    durable: u64,
    kind: u32,
    ballot: Ballot,
    number: u64,
}

#[derive(Clone, Copy)]
struct Body {
    length: usize,
    crc: u32,
}

fn read_header(bytes: &[u8], salt: u32) -> Option<(Header, Body)> {
    let four = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let eight = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    if bytes[..4] != MAGIC || four(4) != checksum(&bytes[8..HEADER], salt) {
        return None;
    }
    let length = four(8) as usize;
    if length > COMMAND_BYTES {
        return None;
    }
    let ballot = Ballot { round: eight(40), replica: ReplicaId(four(36)), incarnation: four(48) };
    let header =
        Header { sequence: eight(16), durable: eight(24), kind: four(32), ballot, number: eight(56) };
    Some((header, Body { length, crc: four(12) }))
}

impl Header {
    fn entry(&self, body: &[u8]) -> Option<Entry> {
        let accept = |value| {
            Entry::Paxos(Record::Accept(Accepted { slot: Slot(self.number), ballot: self.ballot, value }))
        };
        Some(match self.kind {
            1 => Entry::Paxos(Record::Promise(self.ballot)),
            2 => accept(Value::Command(Bytes::copy_from_slice(body))),
            7 => Entry::Paxos(Record::Chosen(Slot(self.number))),
            8 => Entry::Paxos(Record::LeaseBound(Duration::from_nanos(self.number))),
            9 => accept(Value::Noop),
            10 => accept(Value::Members(Members::try_from(log::Members::decode(body).ok()?).ok()?)),
            3 => Entry::Mark,
            4 => Entry::Start(u32::try_from(self.number).ok()?),
            5 => Entry::Seal,
            6 => Entry::Cut { behind: Slot(self.number), begins: self.ballot.round },
            _ => return None,
        })
    }
}

/// Whether the part of `from..to` in some sector is all zero, as a torn write over zeros leaves it.
fn some_sector_is_zero(segment: &[u8], from: usize, to: usize) -> bool {
    let mut at = from;
    while at < to {
        let end = (at + 1).next_multiple_of(SECTOR).min(to);
        if segment[at..end].iter().all(|byte| *byte == 0) {
            return true;
        }
        at = end;
    }
    false
}
