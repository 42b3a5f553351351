//! The state itself, and what can be read from it. What changes it is in [`crate::apply`].

use crate::cow_map::CowMap;
use crate::node::Node;
use crate::session::{Fence, Session};
use crate::tree::Tree;
use alloc::string::String;
use alloc::sync::Arc;
use core::ops::Bound;
use core::time::Duration;
use wombat_proto::limits::AUDIT_ENTRIES;
use wombat_proto::wire::AuditEntry;
use wombat_proto::{CellName, Epoch, Error, HandleId, Instance, Path, Result, Sequencer, SessionId, Slot};

/// The length of a cell's key, in bytes.
pub const KEY_BYTES: usize = 32;

/// The state of a cell after some slot of its log. A clone shares with its original whatever neither has changed
/// since, so that it costs next to nothing.
#[derive(Clone, Debug)]
pub struct State {
    /// The last slot applied. Before the first command: [`Slot`] 0.
    pub(crate) applied: Slot,
    /// By how much stamps run ahead of slots; it grows with each epoch, so that stamps grow over restores, too.
    pub(crate) lead: u64,
    /// Generations and numbers in names that are given from now on are at least this: the stamp at which the
    /// cell was last restored. What the original cell gave out after the backup is below.
    pub(crate) restored_at: Slot,
    /// The epoch of the last master that began. Commands of earlier ones do nothing.
    pub(crate) epoch: Epoch,
    /// The longest session lease that may be in force.
    pub(crate) lease: Duration,
    /// The longest cache lease that may be in force.
    pub(crate) cache_lease: Duration,
    /// What the cell is; `None` until its first command has founded it.
    pub(crate) cell: Option<Cell>,
    /// The greatest instance that any node has had.
    pub(crate) last_instance: Instance,
    pub(crate) tree: Tree,
    pub(crate) sessions: CowMap<SessionId, Arc<Session>>,
    /// What administrators did, the oldest first; bounded.
    pub(crate) audit: CowMap<Slot, AuditEntry>,
}

#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) name: CellName,
    pub(crate) key: [u8; KEY_BYTES],
}

impl Default for State {
    fn default() -> State {
        State::new()
    }
}

impl State {
    /// The state before the first command.
    pub const fn new() -> State {
        State {
            applied: Slot(0),
            lead: 0,
            restored_at: Slot(0),
            epoch: Epoch::NONE,
            lease: Duration::ZERO,
            cache_lease: Duration::ZERO,
            cell: None,
            last_instance: Instance(0),
            tree: Tree::new(),
            sessions: CowMap::new(),
            audit: CowMap::new(),
        }
    }

    /// Passes a slot that holds no command.
    pub fn skip(&mut self, slot: Slot) {
        assert!(slot > self.applied, "slot {slot} was applied already: {}", self.applied);
        self.applied = slot;
    }

    /// The last slot applied.
    pub fn applied(&self) -> Slot {
        self.applied
    }

    /// The last slot applied, as clients know it: what is made in a slot is named by its stamp (tokens, instances,
    /// sessions). Stamps grow with the slots and, at the beginning of each epoch, to [`Epoch::first_stamp`].
    pub fn stamp(&self) -> Slot {
        self.stamp_of(self.applied)
    }

    /// The stamp of any slot, as far as the present epoch goes: for distances between slots.
    pub fn stamp_of(&self, slot: Slot) -> Slot {
        Slot(slot.0.saturating_add(self.lead))
    }

    /// The epoch of the last master that began.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The longest session lease that may be in force, of any master's; zero before the first.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// The longest cache lease that may be in force, of any master's (SPEC §6).
    pub fn cache_lease(&self) -> Duration {
        self.cache_lease
    }

    /// The greatest instance that any node has had.
    pub fn last_instance(&self) -> Instance {
        self.last_instance
    }

    /// The cell's name, once it is founded.
    pub fn cell_name(&self) -> Option<&CellName> {
        self.cell.as_ref().map(|cell| &cell.name)
    }

    /// The key of handles' check digits and sessions' secrets, once the cell is founded.
    pub fn key(&self) -> Option<&[u8; KEY_BYTES]> {
        self.cell.as_ref().map(|cell| &cell.key)
    }

    /// The nodes.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// A live session.
    pub fn session(&self, session: SessionId) -> Option<&Session> {
        self.sessions.get(&session).map(|session| &**session)
    }

    /// The live sessions in the order of their ids, those after `after`.
    pub fn sessions_after(&self, after: SessionId) -> impl Iterator<Item = (SessionId, &Session)> {
        let later = self.sessions.iter_from(Bound::Excluded(&after));
        later.map(|(id, session)| (*id, &**session))
    }

    /// A live session, to be changed.
    pub(crate) fn session_mut(&mut self, session: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(&session).map(Arc::make_mut)
    }

    /// How many sessions live.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Adds an entry to the audit, which keeps the newest ones.
    pub(crate) fn note_audit(&mut self, stamp: Slot, wall_ms: u64, session: SessionId, what: String) {
        let oldest = self.audit.keys().next().copied();
        if let Some(oldest) = oldest.filter(|_| self.audit.len() >= AUDIT_ENTRIES) {
            self.audit.remove(&oldest);
        }
        let client = self.session(session).map_or_else(String::new, |session| session.client.clone());
        self.audit.insert(stamp, AuditEntry { slot: stamp.0, wall_ms, session: session.0, client, what });
    }

    /// What administrators did, by stamps after `after`, the oldest first.
    pub fn audit_after(&self, after: Slot) -> impl Iterator<Item = &AuditEntry> {
        self.audit.iter_from(Bound::Excluded(&after)).map(|(_, entry)| entry)
    }

    /// Whether the lock that `sequencer` speaks of is still held as it says (P§2.4).
    ///
    /// Errors: [`Error::SequencerStale`]; [`Error::InvalidArgument`] for a sequencer of another cell.
    pub fn check_sequencer(&self, sequencer: &Sequencer) -> Result<()> {
        if self.cell_name() != Some(&sequencer.path.cell) {
            return Err(Error::invalid(alloc::format!(
                "the sequencer is of the cell {}, not of this one",
                sequencer.path.cell
            )));
        }
        let node = self.tree.find(&sequencer.path.node).ok_or(Error::SequencerStale)?;
        let held = node.instance == sequencer.instance
            && node.lock.generation() == sequencer.generation
            && node
                .lock
                .holder_of_token(sequencer.token)
                .is_some_and(|(_, holder)| holder.mode == sequencer.mode);
        if held { Ok(()) } else { Err(Error::SequencerStale) }
    }

    /// Whether the lock that a handle was tied to by SetSequencer is still held as it was granted (P§2.4). A
    /// handle that was not tied passes.
    ///
    /// Errors: [`Error::SequencerStale`].
    pub fn check_fence(&self, session: SessionId, handle: HandleId) -> Result<()> {
        let fence = self.session(session).and_then(|session| session.fence(handle));
        fence.map_or(Ok(()), |fence| self.check_held(fence))
    }

    /// Whether the locks that all changes of a session depend on are still held as they were granted.
    ///
    /// Errors: [`Error::SequencerStale`].
    pub fn check_session_fences(&self, session: SessionId) -> Result<()> {
        let fences = self.session(session).map_or(&[][..], |session| &session.session_fences);
        fences.iter().try_for_each(|fence| self.check_held(*fence))
    }

    fn check_held(&self, fence: Fence) -> Result<()> {
        let node = self.tree.get(fence.instance).ok_or(Error::SequencerStale)?;
        node.lock.holder_of_token(fence.token).map(drop).ok_or(Error::SequencerStale)
    }

    /// The whole name of a node of this cell.
    pub fn path_of(&self, node: &Node) -> Option<Path> {
        Some(Path::new(self.cell_name()?.clone(), self.tree.path_of(node)))
    }
}
