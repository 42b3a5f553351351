//! The state as bytes and back: chunks of length-delimited records, a header first, then the nodes with
//! parents before children, then the sessions, then the audit. The same state always gives the same bytes.

use crate::lock::{Delay, Holder, Lock};
use crate::node::{Body, Node};
use crate::outcome::{from_record, to_record};
use crate::session::{Fence, Session, names_in};
use crate::state::{Cell, KEY_BYTES, State};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::{Bytes, BytesMut};
use core::fmt;
use core::time::Duration;
use prost::Message;
use wombat_proto::wire::AuditEntry;
use wombat_proto::wire::log::{self, snapshot_record::Record};
use wombat_proto::{CellName, Epoch, Generation, HandleId, Instance, LockMode, Name, SessionId, Slot, Token};
use xxhash_rust::xxh3::Xxh3;

/// A chunk is closed when it has so many bytes; it may be longer by one record.
const CHUNK_BYTES: usize = 256 * 1024;

/// About how many bytes one digest covers.
const DIGEST_PART_BYTES: usize = 1024 * 1024;

/// Chunks that are no snapshot, though their checksums may be right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotError(&'static str);

impl SnapshotError {
    /// Chunks that make no sense for that reason.
    pub const fn new(what: &'static str) -> SnapshotError {
        SnapshotError(what)
    }
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the snapshot makes no sense: {}", self.0)
    }
}

impl core::error::Error for SnapshotError {}

impl State {
    /// The state as chunks of bytes.
    pub fn snapshot(&self) -> impl Iterator<Item = Bytes> + '_ {
        let mut records = self.records().peekable();
        core::iter::from_fn(move || {
            records.peek()?;
            let mut chunk = BytesMut::new();
            while chunk.len() < CHUNK_BYTES
                && let Some(record) = records.next()
            {
                let record = log::SnapshotRecord { record: Some(record) };
                record.encode_length_delimited(&mut chunk).expect("a buffer grows");
            }
            Some(chunk.freeze())
        })
    }

    /// A hash of the whole state: equal on all replicas at equal slots (SPEC I19).
    pub fn digest(&self) -> u64 {
        let mut hasher = Xxh3::new();
        self.snapshot().for_each(|chunk| hasher.update(&chunk));
        hasher.digest()
    }

    /// A hash of the part of the state that begins after a node and then after a session, and where the next
    /// part begins; after the last part that is the beginning. A part has a bounded size, so that no step of a
    /// replica takes long, however large the state.
    pub fn digest_part(&self, after: (Instance, SessionId)) -> (u64, (Instance, SessionId)) {
        let mut hasher = Xxh3::new();
        let mut bytes = Vec::new();
        let (mut hashed, mut next) = (0, after);
        let mut hash = |record: Record| {
            bytes.clear();
            log::SnapshotRecord { record: Some(record) }
                .encode_length_delimited(&mut bytes)
                .expect("a buffer grows");
            hasher.update(&bytes);
            hashed += bytes.len();
            hashed < DIGEST_PART_BYTES
        };
        let mut room = self.cell_record().is_none_or(&mut hash);
        let mut nodes = self.tree.nodes_after(after.0).peekable();
        while room && let Some(node) = nodes.next() {
            next.0 = node.instance;
            room = hash(Record::Node(node_record(node)));
        }
        let mut sessions = self.sessions_after(after.1).peekable();
        while room && let Some((id, session)) = sessions.next() {
            next.1 = id;
            room = hash(Record::Session(session_record(id, session)));
        }
        let finished = nodes.peek().is_none() && sessions.peek().is_none();
        (hasher.digest(), if finished { Default::default() } else { next })
    }

    /// The state that [`State::snapshot`] gave as chunks.
    pub fn restore(chunks: impl IntoIterator<Item = Bytes>) -> Result<State, SnapshotError> {
        let mut state = State::new();
        let mut expected = None;
        for mut chunk in chunks {
            while !chunk.is_empty() {
                let record = log::SnapshotRecord::decode_length_delimited(&mut chunk)
                    .map_err(|_| SnapshotError("a record cannot be read"))?;
                match record.record.ok_or(SnapshotError("a record is empty"))? {
                    Record::Cell(cell) if expected.is_none() => {
                        expected = Some((cell.nodes, cell.sessions, cell.audit));
                        state.restore_cell(cell)?;
                    }
                    _ if expected.is_none() => return Err(SnapshotError("it has no header")),
                    Record::Cell(_) => return Err(SnapshotError("it has two headers")),
                    Record::Node(node) => state.restore_node(node)?,
                    Record::Session(session) => state.restore_session(session)?,
                    Record::Audit(entry) => state.restore_audit(entry)?,
                }
            }
        }
        let restored = (state.tree.len() as u64, state.sessions.len() as u64, state.audit.len() as u64);
        if expected != Some(restored) {
            return Err(SnapshotError("it does not hold as many records as it says"));
        }
        state.link_sessions()?;
        Ok(state)
    }

    fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let cell = self.cell_record();
        // A child is younger than its parent, so the order of instances puts parents first.
        let nodes = self.tree.nodes().map(|node| Record::Node(node_record(node)));
        let sessions =
            self.sessions.iter().map(|(id, session)| Record::Session(session_record(*id, session)));
        let audit = self.audit.values().cloned().map(Record::Audit);
        cell.into_iter().chain(nodes).chain(sessions).chain(audit)
    }

    fn cell_record(&self) -> Option<Record> {
        self.cell.as_ref().map(|cell| {
            Record::Cell(log::CellRecord {
                slot: self.applied.0,
                epoch: self.epoch.0,
                cell: cell.name.as_str().into(),
                key: Bytes::copy_from_slice(&cell.key),
                nodes: self.tree.len() as u64,
                sessions: self.sessions.len() as u64,
                audit: self.audit.len() as u64,
                last_instance: self.last_instance.0,
                lease_ms: self.lease.as_millis() as u32,
                cache_lease_ms: self.cache_lease.as_millis() as u32,
                lead: self.lead,
                restored_at: self.restored_at.0,
            })
        })
    }

    fn restore_cell(&mut self, record: log::CellRecord) -> Result<(), SnapshotError> {
        let name = CellName::parse(&record.cell).map_err(|_| SnapshotError("the cell's name is none"))?;
        let key = <[u8; KEY_BYTES]>::try_from(&record.key[..])
            .map_err(|_| SnapshotError("the key's length is wrong"))?;
        self.cell = Some(Cell { name, key });
        self.applied = Slot(record.slot);
        self.lead = record.lead;
        self.restored_at = Slot(record.restored_at);
        self.epoch = Epoch(record.epoch);
        self.last_instance = Instance(record.last_instance);
        self.lease = Duration::from_millis(record.lease_ms.into());
        self.cache_lease = Duration::from_millis(record.cache_lease_ms.into());
        Ok(())
    }

    fn restore_node(&mut self, record: log::NodeRecord) -> Result<(), SnapshotError> {
        let node = node_of(record)?;
        match &node.place {
            None if !self.tree.is_empty() => return Err(SnapshotError("it has two roots")),
            None => {}
            Some((parent, name)) => {
                let siblings = self.tree.get(*parent).and_then(Node::children);
                if siblings.ok_or(SnapshotError("a node has no parent"))?.contains_key(name) {
                    return Err(SnapshotError("two nodes have one name"));
                }
            }
        }
        if self.tree.get(node.instance).is_some() {
            return Err(SnapshotError("two nodes have one instance"));
        }
        self.tree.insert(node);
        Ok(())
    }

    fn restore_session(&mut self, record: log::SessionRecord) -> Result<(), SnapshotError> {
        let outcomes = record.outcomes.into_iter().map(from_record).collect::<Option<_>>();
        let outcomes = outcomes.ok_or(SnapshotError("a kept answer is empty"))?;
        let fences = record.fences.iter().map(|fence| {
            let held = Fence { instance: Instance(fence.instance), token: Token(fence.token) };
            (HandleId(fence.handle), held)
        });
        let fence =
            |fence: &log::Fence| Fence { instance: Instance(fence.instance), token: Token(fence.token) };
        let session = Session {
            client: record.client,
            created_wall_ms: record.created_wall_ms,
            caches: record.caches,
            has_cache_lease: record.has_cache_lease,
            acknowledged: record.acknowledged,
            names: names_in(&outcomes),
            outcomes,
            fences: fences.collect(),
            session_fences: record.session_fences.iter().map(fence).collect(),
            ..Session::default()
        };
        match self.sessions.insert(SessionId(record.session), Arc::new(session)) {
            None => Ok(()),
            Some(_) => Err(SnapshotError("two sessions have one id")),
        }
    }

    fn restore_audit(&mut self, entry: AuditEntry) -> Result<(), SnapshotError> {
        match self.audit.insert(Slot(entry.slot), entry) {
            None => Ok(()),
            Some(_) => Err(SnapshotError("two entries of the audit have one slot")),
        }
    }

    /// Tells each session what its handles hold; the nodes know it.
    fn link_sessions(&mut self) -> Result<(), SnapshotError> {
        for node in self.tree.nodes() {
            for ((session, handle), _) in node.lock.holders() {
                let session = self.sessions.get_mut(&session).ok_or(SnapshotError("a dead session holds"))?;
                Arc::make_mut(session).locks.insert((node.instance, handle));
            }
            for (session, handle) in node.openers.keys() {
                let session = self.sessions.get_mut(session).ok_or(SnapshotError("a dead session keeps"))?;
                Arc::make_mut(session).ephemerals.insert((node.instance, *handle));
            }
        }
        Ok(())
    }
}

fn node_record(node: &Node) -> log::NodeRecord {
    let (parent, name) = match &node.place {
        None => (0, ""),
        Some((parent, name)) => (parent.0, name.as_str()),
    };
    let (contents, content_generation, numbered) = match &node.body {
        Body::File { contents, generation, .. } => (contents.clone(), generation.0, 0),
        Body::Directory { numbered, .. } => (Bytes::new(), 0, *numbered),
    };
    log::NodeRecord {
        instance: node.instance.0,
        parent,
        name: name.into(),
        directory: node.is_directory(),
        ephemeral: node.ephemeral,
        contents,
        permits: node.permits,
        content_generation,
        lock_generation: node.lock.generation().0,
        acl_generation: node.acl_generation.0,
        acls: node.acls.to_vec(),
        created_wall_ms: node.created_wall_ms,
        modified_wall_ms: node.modified_wall_ms,
        modified_slot: node.modified_slot.0,
        numbered,
        holders: node.lock.holders().map(holder_record).collect(),
        delay: node.lock.delay().map(|delay| log::DelayRecord {
            since: delay.since.0,
            shared: delay.mode == LockMode::Shared,
            length_ms: delay.length.as_millis() as u32,
        }),
        openers: node
            .openers
            .keys()
            .map(|(session, handle)| log::OpenerRecord { session: session.0, handle: handle.0 })
            .collect(),
    }
}

fn holder_record(((session, handle), holder): ((SessionId, HandleId), &Holder)) -> log::HolderRecord {
    log::HolderRecord {
        session: session.0,
        handle: handle.0,
        shared: holder.mode == LockMode::Shared,
        token: holder.token.0,
        lock_delay_ms: holder.lock_delay.as_millis() as u32,
        acquire: holder.acquire,
        since_wall_ms: holder.since_wall_ms,
        clears_contents: holder.clears_contents,
    }
}

fn node_of(record: log::NodeRecord) -> Result<Node, SnapshotError> {
    let place = match record.parent {
        0 => None,
        parent => {
            let name = Name::parse(&record.name).map_err(|_| SnapshotError("a node's name is none"))?;
            Some((Instance(parent), name))
        }
    };
    let delay = record.delay.map(|delay| Delay {
        since: Slot(delay.since),
        mode: mode(delay.shared),
        length: Duration::from_millis(delay.length_ms.into()),
    });
    let mut lock = Lock::restore(Generation(record.lock_generation), delay);
    for holder in record.holders {
        let key = (SessionId(holder.session), HandleId(holder.handle));
        lock.put_holder(
            key,
            Holder {
                mode: mode(holder.shared),
                token: Token(holder.token),
                lock_delay: Duration::from_millis(holder.lock_delay_ms.into()),
                acquire: holder.acquire,
                since_wall_ms: holder.since_wall_ms,
                clears_contents: holder.clears_contents,
            },
        );
    }
    Ok(Node {
        instance: Instance(record.instance),
        place,
        body: if record.directory {
            Body::directory(record.numbered)
        } else {
            Body::file(record.contents, Generation(record.content_generation))
        },
        ephemeral: record.ephemeral,
        permits: record.permits,
        acls: record.acls.try_into().map_err(|_| SnapshotError("a node has not three ACL names"))?,
        acl_generation: Generation(record.acl_generation),
        lock,
        openers: record.openers.iter().map(|o| ((SessionId(o.session), HandleId(o.handle)), ())).collect(),
        created_wall_ms: record.created_wall_ms,
        modified_wall_ms: record.modified_wall_ms,
        modified_slot: Slot(record.modified_slot),
    })
}

fn mode(shared: bool) -> LockMode {
    if shared { LockMode::Shared } else { LockMode::Exclusive }
}

fn session_record(id: SessionId, session: &Session) -> log::SessionRecord {
    log::SessionRecord {
        session: id.0,
        client: session.client.clone(),
        created_wall_ms: session.created_wall_ms,
        caches: session.caches,
        has_cache_lease: session.has_cache_lease,
        acknowledged: session.acknowledged,
        outcomes: session.outcomes.iter().map(|(number, result)| to_record(*number, result)).collect(),
        fences: session
            .fences
            .iter()
            .map(|(handle, fence)| log::SetSequencer {
                handle: handle.0,
                instance: fence.instance.0,
                token: fence.token.0,
            })
            .collect(),
        session_fences: session
            .session_fences
            .iter()
            .map(|fence| log::Fence { instance: fence.instance.0, token: fence.token.0 })
            .collect(),
    }
}
