//! Open handles (P§2.6). They live in the master's memory only; a new master makes them again from what the
//! client presents, because the check digits prove what they were.

use crate::master::Master;
use alloc::collections::{BTreeMap, BTreeSet};
use wombat_proto::limits::HANDLES_PER_SESSION;
use wombat_proto::wire::{Handle, event::Kind, mode};
use wombat_proto::{Error, HandleId, Instance, Result, SessionId};

/// The handles of one session.
#[derive(Default)]
pub(crate) struct Handles {
    open: BTreeMap<HandleId, OpenHandle>,
    /// Handles of earlier epochs that were closed in this one: they are never made again (SPEC I16).
    closed: BTreeSet<HandleId>,
    /// Handles of this epoch whose client may not know yet that they were opened: a delayed copy of the Open
    /// must not make them again. All are greater than `acknowledged`.
    closed_early: BTreeSet<HandleId>,
    /// Opens up to this number were answered, as the client has said.
    acknowledged: u64,
}

/// An open handle.
#[derive(Clone, Debug)]
pub(crate) struct OpenHandle {
    /// What the client presents.
    pub(crate) token: Handle,
    /// Acquires up to this number are over: refused, given up, or followed by a release. A copy of one that
    /// was delayed on its way must not take a lock that its client no longer asks for.
    ended_acquires: u64,
    /// What the last of them was told, if it was refused: a retry gets the same answer.
    last_refusal: Option<Error>,
}

impl OpenHandle {
    pub(crate) fn instance(&self) -> Instance {
        Instance(self.token.instance)
    }

    /// Notes that Acquires up to this number are over, and what the last was told.
    pub(crate) fn end_acquires(&mut self, number: u64, refusal: Option<Error>) {
        if number > self.ended_acquires {
            self.ended_acquires = number;
            self.last_refusal = refusal;
        }
    }

    /// Whether an Acquire is over: what it was granted, if anything, is on its way back.
    pub(crate) fn has_ended(&self, number: u64) -> bool {
        number <= self.ended_acquires
    }

    /// Refuses an Acquire that is over.
    pub(crate) fn check_acquire(&self, number: u64) -> Result<()> {
        match &self.last_refusal {
            _ if number > self.ended_acquires => Ok(()),
            Some(error) if number == self.ended_acquires => Err(error.clone()),
            _ => Err(Error::Cancelled),
        }
    }
}

impl Handles {
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn get(&self, id: HandleId) -> Option<&OpenHandle> {
        self.open.get(&id)
    }

    pub(crate) fn is_open(&self, id: HandleId) -> bool {
        self.open.contains_key(&id)
    }

    pub(crate) fn get_mut(&mut self, id: HandleId) -> Option<&mut OpenHandle> {
        self.open.get_mut(&id)
    }

    pub(crate) fn open(&self) -> impl Iterator<Item = &OpenHandle> {
        self.open.values()
    }

    /// The client has the answers to all changes up to this number.
    pub(crate) fn acknowledge(&mut self, number: u64) {
        if number > self.acknowledged {
            self.acknowledged = number;
            self.closed_early = self.closed_early.split_off(&HandleId(number + 1));
        }
    }

    /// Whether an Open of that number is a delayed copy of one that was answered and closed.
    pub(crate) fn was_closed(&self, id: HandleId) -> bool {
        id.0 <= self.acknowledged || self.closed_early.contains(&id)
    }

    /// Whether a handle subscribed to that kind of event.
    pub(crate) fn wants(&self, id: HandleId, kind: Kind) -> bool {
        self.open.get(&id).is_some_and(|handle| handle.token.events & kind.bit() != 0)
    }

    pub(crate) fn has_room(&self) -> bool {
        self.open.len() + self.closed_early.len() < HANDLES_PER_SESSION
    }

    /// A handle of an earlier epoch is closed for good, whether it is presented yet or not.
    pub(crate) fn forget(&mut self, id: HandleId) {
        if self.closed.len() < HANDLES_PER_SESSION {
            self.closed.insert(id);
        }
    }

    fn insert(&mut self, token: Handle) -> OpenHandle {
        // A second copy of its Open may make it once more; what it knows of its Acquires stays.
        let handle = OpenHandle { token, ended_acquires: 0, last_refusal: None };
        self.open.entry(HandleId(token.id)).or_insert(handle).clone()
    }
}

impl Master {
    /// Makes a handle in this epoch and seals it.
    pub(crate) fn open_handle(&mut self, session: SessionId, unsealed: Handle) -> Result<Handle> {
        let token = self.seal.seal(session, Handle { epoch: self.epoch.0, ..unsealed });
        self.session(session)?.handles.insert(token);
        self.subscribers.add(session, &token);
        Ok(token)
    }

    /// The handle that a session presents, made again if it is of an earlier epoch (P§2.9 step 8).
    pub(crate) fn handle(&mut self, session: SessionId, token: Option<&Handle>) -> Result<OpenHandle> {
        let token = token.ok_or_else(|| Error::invalid("the call names no handle"))?;
        let id = HandleId(token.id);
        let epoch = self.epoch.0;
        let handles = &mut self.session(session)?.handles;
        if let Some(handle) = handles.get(id) {
            return if handle.token == *token { Ok(handle.clone()) } else { Err(not_genuine()) };
        }
        if token.epoch == epoch || handles.closed.contains(&id) {
            return Err(Error::StaleHandle);
        }
        if handles.closed.len() >= HANDLES_PER_SESSION || !handles.has_room() {
            return Err(Error::QuotaExceeded { what: "handles of one session".into() });
        }
        if token.epoch > epoch || !self.seal.is_genuine(session, token) {
            return Err(not_genuine());
        }
        let handle = self.session(session)?.handles.insert(*token);
        self.subscribers.add(session, token);
        self.recreated(session, token);
        Ok(handle)
    }

    /// The handle that a session presents, if it was opened for `wanted` use.
    pub(crate) fn handle_for(
        &mut self,
        session: SessionId,
        token: Option<&Handle>,
        wanted: u32,
    ) -> Result<OpenHandle> {
        let handle = self.handle(session, token)?;
        if handle.token.mode & wanted == wanted {
            return Ok(handle);
        }
        let use_name = if wanted == mode::READ { "reading" } else { "writing and locking" };
        Err(Error::bad_handle(alloc::format!("it was not opened for {use_name}")))
    }

    /// Closes a handle, and remembers that it is closed for as long as it could come back.
    pub(crate) fn close_handle(&mut self, session: SessionId, token: &Handle) {
        let id = HandleId(token.id);
        let epoch = self.epoch.0;
        let Ok(live) = self.session(session) else { return };
        let open = live.handles.open.remove(&id);
        if token.epoch == epoch && id.0 > live.handles.acknowledged {
            live.handles.closed_early.insert(id);
        } else if token.epoch != epoch {
            live.handles.forget(id);
        }
        if let Some(open) = open {
            self.subscribers.remove(session, &open.token);
        }
    }
}

fn not_genuine() -> Error {
    Error::bad_handle("this cell did not make it for this session")
}
