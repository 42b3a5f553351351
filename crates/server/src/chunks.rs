//! Snapshots on their way from one replica to another, chunk by chunk.

use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use tokio::time::{Duration, Instant};
use tracing::warn;
use wombat_proto::Slot;
use wombat_replica::{PaxosMessage, PeerMessage, ReceivedChunk, WantedChunk};
use wombat_storage::{RealDisk, SnapshotReader};

/// How long a snapshot that nobody asks for stays in memory.
const KEEP: Duration = Duration::from_secs(30);

/// The snapshot that others are fetching. While they do, it stays in memory, even if a newer one replaces it
/// on the disk: otherwise a slow replica would begin anew for ever.
pub(crate) struct Outgoing {
    reader: SnapshotReader<RealDisk>,
    loaded: Rc<RefCell<Option<Loaded>>>,
    loading: Rc<Cell<bool>>,
}

struct Loaded {
    slot: Slot,
    chunks: Vec<Bytes>,
    used: Instant,
}

impl Outgoing {
    pub(crate) fn new(reader: SnapshotReader<RealDisk>) -> Outgoing {
        Outgoing { reader, loaded: Rc::default(), loading: Rc::default() }
    }

    /// What to say to whoever wants a chunk; `None` until the snapshot is read: it will ask again.
    pub(crate) fn answer(&self, wanted: &WantedChunk) -> Option<PeerMessage> {
        self.forget_if_idle();
        let mut loaded = self.loaded.borrow_mut();
        let Some(loaded) = loaded.as_mut().filter(|loaded| loaded.slot >= wanted.snapshot) else {
            self.load();
            return None;
        };
        loaded.used = Instant::now();
        let index = wanted.index as usize;
        Some(PeerMessage::Paxos(match loaded.chunks.get(index) {
            Some(chunk) if loaded.slot == wanted.snapshot => PaxosMessage::Chunk {
                snapshot: loaded.slot,
                index: wanted.index,
                last: index + 1 == loaded.chunks.len(),
                bytes: chunk.clone(),
            },
            _ => PaxosMessage::Truncated { snapshot: loaded.slot },
        }))
    }

    /// Reads the newest snapshot, beside everything else.
    fn load(&self) {
        if self.loading.replace(true) {
            return;
        }
        let (reader, loaded, loading) =
            (self.reader.clone(), Rc::clone(&self.loaded), Rc::clone(&self.loading));
        tokio::task::spawn_local(async move {
            match tokio::task::spawn_blocking(move || reader.newest()).await {
                Ok(Ok(Some((slot, chunks)))) => {
                    *loaded.borrow_mut() = Some(Loaded { slot, chunks, used: Instant::now() });
                }
                Ok(Ok(None)) | Err(_) => {}
                Ok(Err(error)) => warn!("cannot read a snapshot that another replica needs: {error}"),
            }
            loading.set(false);
        });
    }

    /// Gives the memory back when nobody has asked for a while.
    pub(crate) fn forget_if_idle(&self) {
        let mut loaded = self.loaded.borrow_mut();
        if loaded.as_ref().is_some_and(|loaded| loaded.used.elapsed() > KEEP) {
            *loaded = None;
        }
    }
}

/// The snapshot that this replica is fetching.
#[derive(Default)]
pub(crate) struct Incoming {
    slot: Slot,
    chunks: Vec<Bytes>,
}

impl Incoming {
    /// Takes the next chunk. Returns the whole when it was the last.
    pub(crate) fn take(&mut self, received: ReceivedChunk) -> Option<(Slot, Vec<Bytes>)> {
        let ReceivedChunk { snapshot, index, last, bytes } = received;
        if index == 0 {
            (self.slot, self.chunks) = (snapshot, Vec::new());
        }
        if self.slot != snapshot || self.chunks.len() != index as usize {
            return None;
        }
        self.chunks.push(bytes);
        last.then(|| (self.slot, std::mem::take(&mut self.chunks)))
    }
}
