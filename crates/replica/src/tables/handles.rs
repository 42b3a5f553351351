//! The open handles of a session (P§2.6). They live in the master's memory only. A new master makes them again
//! from what the client presents, because the check digits prove what they were.

use alloc::collections::{BTreeMap, BTreeSet};
use wombat_proto::limits::HANDLES_PER_SESSION;
use wombat_proto::wire::{Handle, event::Kind, mode};
use wombat_proto::{Epoch, Error, HandleId, Instance, Result};

/// The handles of one session.
#[derive(Default)]
pub(crate) struct Handles {
    open: BTreeMap<HandleId, OpenHandle>,
    /// Handles of earlier epochs that were closed in this one: they are never made again (SPEC I16).
    closed: BTreeSet<HandleId>,
    /// Handles of this epoch that were closed before the client acknowledged that they were opened. A delayed
    /// copy of the Open must not make them again. All are greater than `acknowledged`.
    closed_early: BTreeSet<HandleId>,
    /// The client has the answers to all Opens up to this number.
    acknowledged: u64,
}

/// An open handle.
#[derive(Clone, Debug)]
pub(crate) struct OpenHandle {
    /// What the client presents.
    pub(crate) token: Handle,
    /// Acquires up to this number are over: refused, given up, or followed by a release. A delayed copy of one
    /// must not take a lock that its client no longer asks for.
    ended_acquires: u64,
    /// The error that refused the last of them, if it was refused: a retry gets the same answer.
    last_refusal: Option<Error>,
}

/// A handle that a client presented.
pub(crate) enum Presented {
    /// It was open at this master.
    Open(OpenHandle),
    /// It is of an earlier epoch and was made again.
    Recreated(OpenHandle),
}

impl OpenHandle {
    pub(crate) fn instance(&self) -> Instance {
        Instance(self.token.instance)
    }

    pub(crate) fn id(&self) -> HandleId {
        HandleId(self.token.id)
    }

    /// Refuses a handle that was not opened for `wanted` use.
    pub(crate) fn check_mode(&self, wanted: u32) -> Result<()> {
        if self.token.mode & wanted == wanted {
            return Ok(());
        }
        let use_name = if wanted == mode::READ { "reading" } else { "writing and locking" };
        Err(Error::bad_handle(alloc::format!("it was not opened for {use_name}")))
    }

    /// Notes that Acquires up to this number are over, and why the last was refused.
    pub(crate) fn end_acquires(&mut self, number: u64, refusal: Option<Error>) {
        if number > self.ended_acquires {
            self.ended_acquires = number;
            self.last_refusal = refusal;
        }
    }

    /// Whether an Acquire is over. The lock that it was granted, if any, is on its way back.
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

    /// Refuses an Open whose handle was closed already: this is a delayed copy of it.
    pub(crate) fn check_not_closed(&self, id: HandleId) -> Result<()> {
        let was_closed = id.0 <= self.acknowledged || self.closed_early.contains(&id);
        if was_closed { Err(Error::StaleHandle) } else { Ok(()) }
    }

    /// Whether a handle subscribed to that kind of event.
    pub(crate) fn wants(&self, id: HandleId, kind: Kind) -> bool {
        self.open.get(&id).is_some_and(|handle| handle.token.events & kind.bit() != 0)
    }

    pub(crate) fn has_room(&self) -> bool {
        self.open.len() + self.closed_early.len() < HANDLES_PER_SESSION
    }

    /// Opens a handle. If a copy of its Open has opened it already, what it knows of its Acquires stays.
    pub(crate) fn insert(&mut self, token: Handle) -> OpenHandle {
        let handle = OpenHandle { token, ended_acquires: 0, last_refusal: None };
        self.open.entry(HandleId(token.id)).or_insert(handle).clone()
    }

    /// The handle that a client presents, made again if it is of an earlier epoch (P§2.9 step 8).
    pub(crate) fn present(
        &mut self,
        token: &Handle,
        epoch: Epoch,
        is_genuine: impl FnOnce() -> bool,
    ) -> Result<Presented> {
        let id = HandleId(token.id);
        if let Some(handle) = self.get(id) {
            return if handle.token == *token {
                Ok(Presented::Open(handle.clone()))
            } else {
                Err(not_genuine())
            };
        }
        if token.epoch == epoch.0 || self.closed.contains(&id) {
            return Err(Error::StaleHandle);
        }
        if self.closed.len() >= HANDLES_PER_SESSION || !self.has_room() {
            return Err(Error::QuotaExceeded { what: "handles of one session".into() });
        }
        if token.epoch > epoch.0 || !is_genuine() {
            return Err(not_genuine());
        }
        Ok(Presented::Recreated(self.insert(*token)))
    }

    /// Closes a handle, and remembers that it is closed for as long as a copy could open it again.
    pub(crate) fn close(&mut self, token: &Handle, epoch: Epoch) -> Option<OpenHandle> {
        let id = HandleId(token.id);
        let open = self.open.remove(&id);
        if token.epoch == epoch.0 && id.0 > self.acknowledged {
            self.closed_early.insert(id);
        } else if token.epoch != epoch.0 {
            self.forget(id);
        }
        open
    }

    /// A handle of an earlier epoch is closed for good, whether it was presented or not.
    pub(crate) fn forget(&mut self, id: HandleId) {
        if self.closed.len() < HANDLES_PER_SESSION {
            self.closed.insert(id);
        }
    }
}

fn not_genuine() -> Error {
    Error::bad_handle("this cell did not make it for this session")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Epoch = Epoch(5);

    fn token(id: u64, epoch: u64) -> Handle {
        Handle { id, instance: 1, mode: 1, epoch, ..Handle::default() }
    }

    /// Presents a handle, with check digits that are right or not. Returns whether it had to be made again.
    fn present(handles: &mut Handles, token: Handle, genuine: bool) -> Result<bool> {
        let presented = handles.present(&token, EPOCH, || genuine)?;
        Ok(matches!(presented, Presented::Recreated(_)))
    }

    #[test]
    fn handle_of_an_earlier_epoch_is_made_again_once() {
        let mut handles = Handles::default();
        assert_eq!(present(&mut handles, token(9, 4), true), Ok(true));
        assert_eq!(present(&mut handles, token(9, 4), true), Ok(false));
    }

    #[test]
    fn handle_that_is_no_earlier_masters_is_refused() {
        let mut handles = Handles::default();
        let forged = Err(not_genuine());
        assert_eq!(present(&mut handles, token(9, 4), false), forged, "wrong check digits");
        assert_eq!(present(&mut handles, token(9, 6), true), forged, "of an epoch to come");
        assert_eq!(present(&mut handles, token(9, 5), true), Err(Error::StaleHandle), "this master has none");
    }

    #[test]
    fn closed_handle_of_an_earlier_epoch_stays_closed() {
        let mut handles = Handles::default();
        handles.close(&token(9, 4), EPOCH);
        assert_eq!(present(&mut handles, token(9, 4), true), Err(Error::StaleHandle));
    }

    #[test]
    fn delayed_copy_of_an_open_is_refused_after_its_close() {
        let mut handles = Handles::default();
        handles.insert(token(9, 5));
        assert_eq!(handles.check_not_closed(HandleId(9)), Ok(()));
        handles.close(&token(9, 5), EPOCH);
        assert_eq!(handles.check_not_closed(HandleId(9)), Err(Error::StaleHandle));
        handles.acknowledge(9);
        assert!(handles.closed_early.is_empty(), "the number says enough now");
        assert_eq!(handles.check_not_closed(HandleId(9)), Err(Error::StaleHandle));
        assert_eq!(handles.check_not_closed(HandleId(10)), Ok(()));
    }

    #[test]
    fn retried_acquire_gets_the_same_refusal() {
        let mut handles = Handles::default();
        let mut handle = handles.insert(token(9, 5));
        handle.end_acquires(12, Some(Error::Timeout));
        assert_eq!(handle.check_acquire(12), Err(Error::Timeout));
        assert_eq!(handle.check_acquire(11), Err(Error::Cancelled), "an older one is over");
        assert_eq!(handle.check_acquire(13), Ok(()));
    }

    #[test]
    fn second_copy_of_an_open_keeps_what_is_known_of_acquires() {
        let mut handles = Handles::default();
        handles.insert(token(9, 5));
        if let Some(open) = handles.get_mut(HandleId(9)) {
            open.end_acquires(12, None);
        }
        assert!(handles.insert(token(9, 5)).has_ended(12));
    }
}
