//! STUB, to be replaced.
#![allow(missing_docs)]
use bytes::Bytes;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use wombat_proto::{Accepted, Ballot, CellName, Record, ReplicaId, Slot};

#[derive(Debug)]
pub enum StorageError {
    Io(std::io::Error),
}
impl std::fmt::Display for StorageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}
impl std::error::Error for StorageError {}
impl From<std::io::Error> for StorageError {
    fn from(e: std::io::Error) -> Self {
        StorageError::Io(e)
    }
}
#[derive(Clone)]
pub struct RealDisk {
    dir: PathBuf,
}
impl RealDisk {
    pub fn open(dir: &Path) -> Result<RealDisk, StorageError> {
        std::fs::create_dir_all(dir)?;
        Ok(RealDisk { dir: dir.into() })
    }
}
pub struct Wanted {
    pub cell: CellName,
    pub replica: ReplicaId,
    pub cell_id: String,
}
pub struct Identity {
    pub cell: CellName,
    pub cell_id: String,
    pub replica: ReplicaId,
}
#[derive(Default)]
pub struct Options;
pub struct Recovered {
    pub founded: bool,
    pub starts: u32,
    pub promised: Ballot,
    pub snapshot: Option<(Slot, Vec<Bytes>)>,
    pub accepted: Vec<Accepted>,
    pub dropped_tail_bytes: u64,
}
pub struct Store<D> {
    _disk: D,
    file: std::fs::File,
    identity: Identity,
    bytes: u64,
}
pub struct SnapshotWriter<D> {
    _disk: D,
}
impl<D> SnapshotWriter<D> {
    pub fn write(&mut self, _c: &[u8]) -> Result<(), StorageError> {
        Ok(())
    }
    pub fn finish(self) -> Result<(), StorageError> {
        Ok(())
    }
}
impl Store<RealDisk> {
    pub fn open(disk: RealDisk, wanted: &Wanted, _o: Options) -> Result<(Self, Recovered), StorageError> {
        let path = disk.dir.join("stub");
        let founded = !path.exists();
        let mut file =
            std::fs::OpenOptions::new().create(true).read(true).write(true).truncate(false).open(&path)?;
        if founded {
            file.write_all(&vec![0; 64 << 20])?;
            file.sync_all()?;
            file.rewind()?;
        }
        let mut b = Vec::new();
        file.read_to_end(&mut b)?;
        let mut at = 0;
        let mut promised = Ballot::ZERO;
        let mut accepted = Vec::new();
        let mut starts = 1;
        let u = |at: usize| u64::from_le_bytes(b[at..at + 8].try_into().expect("8"));
        while at + 32 < b.len() && u(at) != 0 {
            let len = u(at) as usize;
            let slot = u(at + 8);
            let round = u(at + 16);
            let r = u(at + 24);
            let ballot = Ballot { round, replica: ReplicaId((r >> 32) as u32), incarnation: r as u32 };
            if slot == 0 {
                promised = ballot;
                starts += 1;
            } else {
                accepted.push(Accepted {
                    slot: Slot(slot),
                    ballot,
                    command: Bytes::copy_from_slice(&b[at + 32..at + 32 + len - 1]),
                });
            }
            at += 32 + len - 1;
        }
        file.seek(std::io::SeekFrom::Start(at as u64))?;
        let identity =
            Identity { cell: wanted.cell.clone(), cell_id: wanted.cell_id.clone(), replica: wanted.replica };
        Ok((
            Store { _disk: disk, file, identity, bytes: at as u64 },
            Recovered { founded, starts, promised, snapshot: None, accepted, dropped_tail_bytes: 0 },
        ))
    }
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
    pub fn append(&mut self, records: &[Record]) -> Result<(), StorageError> {
        let mut out = Vec::new();
        for r in records {
            let (slot, ballot, body) = match r {
                Record::Promise(b) => (0, *b, Bytes::new()),
                Record::Accept(a) => (a.slot.0, a.ballot, a.command.clone()),
            };
            for w in [
                body.len() as u64 + 1,
                slot,
                ballot.round,
                ((ballot.replica.0 as u64) << 32) | ballot.incarnation as u64,
            ] {
                out.extend(w.to_le_bytes());
            }
            out.extend(&body);
        }
        self.bytes += out.len() as u64;
        self.file.write_all(&out)?;
        Ok(())
    }
    pub fn sync(&mut self) -> Result<(), StorageError> {
        self.file.sync_data()?;
        Ok(())
    }
    pub fn log_bytes(&self) -> u64 {
        self.bytes.min(1)
    }
    pub fn begin_snapshot(&self, _s: Slot) -> Result<SnapshotWriter<RealDisk>, StorageError> {
        Ok(SnapshotWriter { _disk: self._disk.clone() })
    }
    pub fn truncate_behind(&mut self, _s: Slot) -> Result<(), StorageError> {
        Ok(())
    }
    pub fn close(self) -> Result<(), StorageError> {
        Ok(())
    }
}
