//! A node's advisory reader/writer lock as the log knows it (P§2.4). The queue of those who wait is the
//! master's memory.

use crate::CowMap;
use core::ops::Bound;
use core::time::Duration;
use wombat_proto::limits::SHARED_HOLDERS;
use wombat_proto::{Error, Generation, HandleId, LockMode, Result, SessionId, Slot, Token};

/// A lock. Invariant (SPEC I3): one exclusive holder, or shared ones up to the permits, never both.
#[derive(Clone, Default, Debug)]
pub struct Lock {
    /// Rises when the lock goes from free to held; 0 if it never was.
    generation: Generation,
    holders: CowMap<(SessionId, HandleId), Holder>,
    /// The holders by their tokens.
    tokens: CowMap<Token, (SessionId, HandleId)>,
    /// Left by a holder whose session ended without a release. It stays, also after it has passed, until a
    /// grant that had to wait for it: only the master's clock knows when that is.
    delay: Option<Delay>,
}

/// Who holds a lock, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holder {
    /// In which mode.
    pub mode: LockMode,
    /// The fencing token: the stamp of the grant.
    pub token: Token,
    /// The lock-delay that its handle asked for.
    pub lock_delay: Duration,
    /// The number of the Acquire that was granted.
    pub acquire: u64,
    /// Since when, wall time, for people.
    pub since_wall_ms: u64,
    /// Whether the contents of the file are this holder's own, and are emptied when it holds the lock no more.
    pub clears_contents: bool,
}

/// A lock-delay (P§2.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delay {
    /// The stamp of the change that began it; its name.
    pub since: Slot,
    /// The mode in which the lock was held; only a conflicting grant has to wait.
    pub mode: LockMode,
    /// How long it lasts, from `since` or from when a new master began.
    pub length: Duration,
}

impl Lock {
    pub(crate) fn restore(generation: Generation, delay: Option<Delay>) -> Lock {
        Lock { generation, delay, ..Lock::default() }
    }

    /// The lock generation.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The running or past lock-delay.
    pub fn delay(&self) -> Option<Delay> {
        self.delay
    }

    /// The holders, by session and handle.
    pub fn holders(&self) -> impl Iterator<Item = ((SessionId, HandleId), &Holder)> {
        self.holders.iter().map(|(key, holder)| (*key, holder))
    }

    /// How many holders there are.
    pub fn holder_count(&self) -> usize {
        self.holders.len()
    }

    /// The mode that its holders share; `None` if nobody holds it.
    pub fn mode(&self) -> Option<LockMode> {
        self.holders.iter().next().map(|(_, holder)| holder.mode)
    }

    /// What a session holds, by handle.
    pub fn holders_of(&self, session: SessionId) -> impl Iterator<Item = (HandleId, &Holder)> {
        let all = self.holders.iter_from(Bound::Included(&(session, HandleId(0))));
        all.take_while(move |((other, _), _)| *other == session)
            .map(|((_, handle), holder)| (*handle, holder))
    }

    /// Whether somebody holds it.
    pub fn is_held(&self) -> bool {
        !self.holders.is_empty()
    }

    /// What `handle` of `session` holds.
    pub fn holder(&self, session: SessionId, handle: HandleId) -> Option<&Holder> {
        self.holders.get(&(session, handle))
    }

    /// The holder with that token, and its session and handle.
    pub fn holder_of_token(&self, token: Token) -> Option<((SessionId, HandleId), &Holder)> {
        let key = *self.tokens.get(&token)?;
        Some((key, self.holders.get(&key)?))
    }

    /// Whether anyone but `handle` of `session` holds it.
    pub fn held_by_another(&self, session: SessionId, handle: HandleId) -> bool {
        self.holders.len() > usize::from(self.holders.contains_key(&(session, handle)))
    }

    /// The delay that a grant in `mode` would have to wait for, if it has not passed.
    pub fn delay_against(&self, mode: LockMode) -> Option<Delay> {
        self.delay.filter(|delay| conflict(delay.mode, mode))
    }

    /// How many more holders in `mode` the present ones leave room for. `permits` 0: any number of shared ones.
    pub fn room(&self, mode: LockMode, permits: u32) -> usize {
        self.room_after(0, mode, permits)
    }

    /// The same, once `releases` of the present holders have released it.
    pub fn room_after(&self, releases: usize, mode: LockMode, permits: u32) -> usize {
        let staying = self.holders.len().saturating_sub(releases);
        let most = if permits == 0 { SHARED_HOLDERS } else { (permits as usize).min(SHARED_HOLDERS) };
        match (self.mode().filter(|_| staying > 0), mode) {
            (None, LockMode::Exclusive) => 1,
            (None, LockMode::Shared) => most,
            (Some(LockMode::Exclusive), _) | (_, LockMode::Exclusive) => 0,
            (Some(LockMode::Shared), LockMode::Shared) => most.saturating_sub(staying),
        }
    }

    /// Grants the lock, after checking that it can be granted. `delay_over` says that the present delay, if
    /// there is one, has passed; a generation that begins is `least_generation` at least.
    pub(crate) fn grant(
        &mut self,
        key: (SessionId, HandleId),
        holder: Holder,
        (permits, least_generation): (u32, Generation),
        delay_over: bool,
    ) -> Result<()> {
        if self.room(holder.mode, permits) == 0 {
            return Err(Error::LockHeld);
        }
        if let Some(delay) = self.delay_against(holder.mode) {
            if !delay_over {
                return Err(Error::LockDelayed { remaining: delay.length });
            }
            self.delay = None;
        }
        if self.holders.is_empty() {
            self.generation = self.generation.next().max(least_generation);
        }
        self.put_holder(key, holder);
        Ok(())
    }

    /// Adds a holder without any check: one that a snapshot names.
    pub(crate) fn put_holder(&mut self, key: (SessionId, HandleId), holder: Holder) {
        self.tokens.insert(holder.token, key);
        self.holders.insert(key, holder);
    }

    /// Takes the lock from one holder who gives it back.
    pub(crate) fn release(&mut self, session: SessionId, handle: HandleId) -> Option<Holder> {
        let holder = self.holders.remove(&(session, handle))?;
        self.tokens.remove(&holder.token);
        Some(holder)
    }

    /// Takes the lock from one holder whose session ended at `stamp`. Returns the delay that begins, if it asked
    /// for one. `delay_over` says that the present delay, if there is one, has passed.
    pub(crate) fn abandon(
        &mut self,
        (session, handle): (SessionId, HandleId),
        stamp: Slot,
        delay_over: bool,
    ) -> Option<Delay> {
        let holder = self.release(session, handle)?;
        if holder.lock_delay.is_zero() {
            return None;
        }
        // A second shared holder that dies while the delay of a first runs: one delay, beginning now and
        // lasting as long as the longer of them, covers both.
        let earlier = self.delay.filter(|_| !delay_over).map_or(Duration::ZERO, |delay| delay.length);
        let delay = Delay { since: stamp, mode: holder.mode, length: holder.lock_delay.max(earlier) };
        self.delay = Some(delay);
        Some(delay)
    }
}

/// Whether two holders cannot hold together.
fn conflict(a: LockMode, b: LockMode) -> bool {
    a == LockMode::Exclusive || b == LockMode::Exclusive
}
