//! Locks that are being broken while a live session holds them (SPEC §4). Each holder is asked first, and the lock
//! is taken only when no holder believes in it any more, or their sessions have ended.

use crate::request::RequestContext;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use core::time::Duration;
use wombat_proto::limits::{BREAKS, REVOCATIONS};
use wombat_proto::{Error, HandleId, Instance, Instant, Result, SessionId, Token, wire};
use wombat_state::{Lock, State};

/// Holders, and whether each has said that it knows of the revocation.
pub(crate) type Holders = BTreeMap<(SessionId, HandleId, Token), bool>;

/// A lock that is being broken.
pub(crate) struct Revocation {
    pub(crate) request: RequestContext,
    pub(crate) instance: Instance,
    /// The entry of the audit.
    pub(crate) what: String,
    /// The grants to be taken.
    pub(crate) tokens: Vec<Token>,
    /// The holders that may still believe in them.
    pub(crate) awaited: Holders,
    /// The session leases of these holders are not extended beyond this.
    pub(crate) until: Instant,
}

/// The keys of one session. A lock may have tens of thousands of holders, so each session is looked up alone.
fn all_of(session: SessionId) -> RangeInclusive<(SessionId, HandleId, Token)> {
    (session, HandleId(0), Token(0))..=(session, HandleId(u64::MAX), Token(u64::MAX))
}

/// All locks that are being broken.
#[derive(Default)]
pub(crate) struct Revocations(Vec<Revocation>);

impl Revocations {
    /// Whether a lock is being broken.
    pub(crate) fn is_breaking(&self, instance: Instance) -> bool {
        self.0.iter().any(|one| one.instance == instance)
    }

    /// A BreakLock has come again, perhaps on another connection. Returns whether it is one of these.
    pub(crate) fn redirect(&mut self, copy: RequestContext) -> bool {
        let one = self.0.iter_mut().find(|one| one.request.is_copy_of(&copy));
        one.map(|one| one.request.connection = copy.connection).is_some()
    }

    /// Refuses another revocation if there are too many.
    pub(crate) fn check_room(&self) -> Result<()> {
        if self.0.len() >= BREAKS {
            return Err(Error::Overloaded { retry_after: Duration::from_secs(1) });
        }
        Ok(())
    }

    pub(crate) fn begin(&mut self, revocation: Revocation) {
        self.0.push(revocation);
    }

    /// The end that the lease of a session is not extended beyond while it has a lock to give up.
    pub(crate) fn lease_bound(&self, session: SessionId) -> Option<Instant> {
        let awaits = |one: &&Revocation| one.awaited.range(all_of(session)).next().is_some();
        self.0.iter().filter(awaits).map(|one| one.until).min()
    }

    /// The revocations that a session is sent with its KeepAlive.
    pub(crate) fn of(&self, session: SessionId) -> Vec<wire::Revocation> {
        let awaited = self.0.iter().flat_map(|one| one.awaited.range(all_of(session)));
        awaited
            .take(REVOCATIONS)
            .map(|((_, handle, token), _)| wire::Revocation { handle: handle.0, token: token.0 })
            .collect()
    }

    /// Takes a session's acknowledgements. Returns whether there is a revocation that it does not know of.
    pub(crate) fn acknowledge(&mut self, session: SessionId, keep_alive: &wire::KeepAlive) -> bool {
        let obeyed: BTreeSet<u64> = keep_alive.revocations_obeyed.iter().copied().collect();
        let known: BTreeSet<u64> = keep_alive.revocations_heard.iter().copied().collect();
        for one in &mut self.0 {
            let has_obeyed = |(.., token): &(_, _, Token), _: &mut bool| obeyed.contains(&token.0);
            one.awaited.extract_if(all_of(session), has_obeyed).for_each(drop);
            for ((.., token), is_known) in one.awaited.range_mut(all_of(session)) {
                *is_known = known.contains(&token.0);
            }
        }
        let awaited = self.0.iter().flat_map(|one| one.awaited.range(all_of(session)));
        awaited.take(REVOCATIONS).any(|(_, is_known)| !is_known)
    }

    /// A session is not asked any more for the locks that it has given back.
    pub(crate) fn forget_released(&mut self, session: SessionId, state: &State) {
        for one in &mut self.0 {
            let lock = state.tree().get(one.instance).map(|node| &node.lock);
            one.awaited.extract_if(all_of(session), |key, _| !is_held(lock, key)).for_each(drop);
        }
    }

    /// Takes the revocations whose holders have all obeyed, released, or ended.
    pub(crate) fn take_ready(&mut self, state: &State) -> Vec<Revocation> {
        for one in &mut self.0 {
            // This runs after every step, so it goes no further than to the first who still holds the lock.
            let lock = state.tree().get(one.instance).map(|node| &node.lock);
            while let Some(first) = one.awaited.first_entry().filter(|first| !is_held(lock, first.key())) {
                first.remove();
            }
        }
        self.0.extract_if(.., |one| one.awaited.is_empty()).collect()
    }
}

/// Whether a handle still has the lock by that very grant.
fn is_held(lock: Option<&Lock>, (session, handle, token): &(SessionId, HandleId, Token)) -> bool {
    let holder = lock.and_then(|lock| lock.holder(*session, *handle));
    holder.is_some_and(|holder| holder.token == *token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::ConnectionId;

    const HOLDER: (SessionId, HandleId, Token) = (SessionId(2), HandleId(3), Token(4));

    fn request(number: u64) -> RequestContext {
        RequestContext { connection: ConnectionId(1), session: SessionId(1), number, acknowledged: 0 }
    }

    fn breaking() -> Revocations {
        let mut revocations = Revocations::default();
        revocations.begin(Revocation {
            request: request(1),
            instance: Instance(9),
            what: String::new(),
            tokens: [HOLDER.2].into(),
            awaited: [(HOLDER, false)].into(),
            until: Instant::from_nanos(5),
        });
        revocations
    }

    #[test]
    fn holder_is_asked_until_it_obeys() {
        let mut revocations = breaking();
        assert_eq!(revocations.of(SessionId(2)), [wire::Revocation { handle: 3, token: 4 }]);
        assert_eq!(revocations.of(SessionId(1)), []);
        let silent = wire::KeepAlive::default();
        assert!(revocations.acknowledge(SessionId(2), &silent), "it does not know yet");
        let knows = wire::KeepAlive { revocations_heard: [4].into(), ..wire::KeepAlive::default() };
        assert!(!revocations.acknowledge(SessionId(2), &knows));
        assert_eq!(revocations.lease_bound(SessionId(2)), Some(Instant::from_nanos(5)));
        let obeys = wire::KeepAlive { revocations_obeyed: [4].into(), ..wire::KeepAlive::default() };
        assert!(!revocations.acknowledge(SessionId(2), &obeys));
        assert_eq!((revocations.of(SessionId(2)), revocations.lease_bound(SessionId(2))), ([].into(), None));
        assert_eq!(revocations.take_ready(&State::new()).len(), 1);
        assert!(!revocations.is_breaking(Instance(9)));
    }

    #[test]
    fn lock_that_is_gone_is_awaited_from_no_session() {
        let mut revocations = breaking();
        revocations.forget_released(SessionId(2), &State::new());
        assert_eq!(revocations.of(SessionId(2)), []);
    }

    #[test]
    fn copy_of_a_break_is_no_second_break() {
        let mut revocations = breaking();
        assert!(revocations.redirect(request(1)) && !revocations.redirect(request(2)));
    }
}
