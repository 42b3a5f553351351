//! Changes that wait until no session has their keys cached any more, or until earlier changes of their sessions
//! are proposed.

use super::invalidations::{EndedRound, Ticket};
use super::proposals::PendingReply;
use crate::request::RequestContext;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use wombat_proto::limits::{WAITING_BYTES, WAITING_CHANGES};
use wombat_proto::wire::log::command::Op;
use wombat_proto::{CacheKey, Instance, Instant, SessionId};

/// A change that a request or the master itself asks for.
pub(crate) struct Change {
    pub(crate) reply: PendingReply,
    pub(crate) op: Op,
    /// The sessions that asked for it; of the break of a lock: the holders.
    pub(crate) sessions: Vec<SessionId>,
    /// Whether a lock may be given up with it: it follows all earlier changes of its sessions, which they may have
    /// asked for under the lock.
    pub(crate) yields_lock: bool,
    /// Its place among the waiting changes, if it has waited already.
    pub(crate) place: Option<Place>,
}

/// Where and since when a change waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) ticket: Ticket,
    pub(crate) since: Instant,
}

/// What goes on when nothing has to be waited for any more.
pub(crate) enum Continuation {
    /// A change is proposed.
    Propose(Box<Change>),
    /// The next waiter of a lock is granted it. Which one that is, is decided then.
    GrantNext(Instance),
}

/// What waits.
pub(crate) struct Waiting {
    pub(crate) then: Continuation,
    /// The keys that it affects, which stay closed meanwhile.
    pub(crate) keys: Vec<CacheKey>,
    /// The rounds of invalidations that it waits for.
    pub(crate) rounds: BTreeSet<CacheKey>,
    pub(crate) place: Place,
}

impl Waiting {
    fn change(&self) -> Option<&Change> {
        match &self.then {
            Continuation::Propose(change) => Some(change),
            Continuation::GrantNext(_) => None,
        }
    }

    fn request(&self) -> Option<RequestContext> {
        self.change()?.reply.request()
    }

    fn sessions(&self) -> &[SessionId] {
        self.change().map_or(&[], |change| &change.sessions)
    }
}

/// All changes that wait.
#[derive(Default)]
pub(crate) struct WaitingChanges {
    waiting: BTreeMap<Ticket, Waiting>,
    /// The same by their sessions.
    by_session: BTreeSet<(SessionId, Ticket)>,
    by_request: BTreeMap<(SessionId, u64), Ticket>,
    /// Locks whose next grant waits.
    grants: BTreeSet<Instance>,
    /// Those that perhaps need not wait any more.
    ready: BTreeSet<Ticket>,
    last_ticket: Ticket,
    /// Memory of the changes.
    bytes: usize,
}

impl WaitingChanges {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Since when the first of them waits.
    pub(crate) fn first_since(&self) -> Option<Instant> {
        self.waiting.values().map(|waiting| waiting.place.since).min()
    }

    /// Whether there is no room for another change.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_CHANGES || self.bytes >= WAITING_BYTES
    }

    /// Whether the change that a request asks for waits here.
    pub(crate) fn contains(&self, request: RequestContext) -> bool {
        self.by_request.contains_key(&(request.session, request.number))
    }

    /// A request has come again, perhaps on another connection. Returns whether its change waits here.
    pub(crate) fn redirect(&mut self, copy: RequestContext) -> bool {
        let ticket = self.by_request.get(&(copy.session, copy.number));
        let waiting = ticket.and_then(|ticket| self.waiting.get_mut(ticket));
        match waiting.map(|waiting| &mut waiting.then) {
            Some(Continuation::Propose(change)) => {
                change.reply.redirect(copy);
                true
            }
            _ => false,
        }
    }

    /// Whether a change of a session waits.
    pub(crate) fn has_session(&self, session: SessionId) -> bool {
        self.has_earlier(session, Ticket::MAX)
    }

    /// Whether the next grant of a lock waits.
    pub(crate) fn has_grant(&self, instance: Instance) -> bool {
        self.grants.contains(&instance)
    }

    /// Whether a change of a session waits that came before `ticket`.
    fn has_earlier(&self, session: SessionId, ticket: Ticket) -> bool {
        self.by_session.range((session, 0)..(session, ticket)).next().is_some()
    }

    /// The place of the next change that waits.
    pub(crate) fn next_place(&mut self, now: Instant) -> Place {
        self.last_ticket += 1;
        Place { ticket: self.last_ticket, since: now }
    }

    pub(crate) fn push(&mut self, waiting: Waiting) {
        let ticket = waiting.place.ticket;
        self.by_session.extend(waiting.sessions().iter().map(|session| (*session, ticket)));
        if let Some(request) = waiting.request() {
            self.by_request.insert((request.session, request.number), ticket);
        }
        match &waiting.then {
            Continuation::GrantNext(instance) => drop(self.grants.insert(*instance)),
            Continuation::Propose(change) => self.bytes += change.op.encoded_len(),
        }
        self.waiting.insert(ticket, waiting);
    }

    /// A round of invalidations has ended.
    pub(crate) fn round_ended(&mut self, ended: EndedRound) {
        for ticket in ended.changes {
            if let Some(waiting) = self.waiting.get_mut(&ticket) {
                waiting.rounds.remove(&ended.key);
            }
            self.mark_if_ready(ticket);
        }
    }

    /// The next that perhaps need not wait any more.
    pub(crate) fn next_ready(&mut self) -> Option<Ticket> {
        self.ready.pop_first()
    }

    /// Takes what need not wait any more; `None` if it has to, because of what was proposed meanwhile.
    pub(crate) fn take(&mut self, ticket: Ticket) -> Option<Waiting> {
        if !self.is_ready(ticket) {
            return None;
        }
        let waiting = self.waiting.remove(&ticket)?;
        for session in waiting.sessions() {
            self.by_session.remove(&(*session, ticket));
        }
        if let Some(request) = waiting.request() {
            self.by_request.remove(&(request.session, request.number));
        }
        match &waiting.then {
            Continuation::GrantNext(instance) => drop(self.grants.remove(instance)),
            Continuation::Propose(change) => self.bytes -= change.op.encoded_len(),
        }
        for session in waiting.sessions() {
            // A change that waits for the earlier ones of its session can go on only if it is the first now.
            let first = self.by_session.range((*session, 0)..=(*session, Ticket::MAX)).next();
            if let Some((_, first)) = first.copied() {
                self.mark_if_ready(first);
            }
        }
        Some(waiting)
    }

    fn mark_if_ready(&mut self, ticket: Ticket) {
        if self.is_ready(ticket) {
            self.ready.insert(ticket);
        }
    }

    fn is_ready(&self, ticket: Ticket) -> bool {
        let Some(waiting) = self.waiting.get(&ticket) else { return false };
        let yields_lock = waiting.change().is_some_and(|change| change.yields_lock);
        let has_earlier = || waiting.sessions().iter().any(|session| self.has_earlier(*session, ticket));
        waiting.rounds.is_empty() && !(yields_lock && has_earlier())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::ConnectionId;
    use wombat_proto::wire::log;

    fn request(number: u64) -> RequestContext {
        RequestContext { connection: ConnectionId(1), session: SessionId(1), number, acknowledged: 0 }
    }

    fn key(instance: u64) -> CacheKey {
        CacheKey::node(Instance(instance))
    }

    /// Adds a change of session 1 that waits for the round of a key, if any. Returns its ticket.
    fn push(changes: &mut WaitingChanges, number: u64, round: Option<u64>, yields_lock: bool) -> Ticket {
        let place = changes.next_place(Instant::from_nanos(number));
        let op = Op::Delete(log::Delete::default());
        let (reply, sessions) = (PendingReply::Plain(request(number)), [SessionId(1)].into());
        let change = Change { reply, op, sessions, yields_lock, place: None };
        let then = Continuation::Propose(change.into());
        let rounds = round.map(key).into_iter().collect();
        changes.push(Waiting { then, keys: Vec::new(), rounds, place });
        place.ticket
    }

    fn end(changes: &mut WaitingChanges, instance: u64, waited: &[Ticket]) {
        changes.round_ended(EndedRound { key: key(instance), changes: waited.iter().copied().collect() });
    }

    /// Takes everything that is ready, in order.
    fn ready(changes: &mut WaitingChanges) -> Vec<Ticket> {
        let mut taken = Vec::new();
        while let Some(ticket) = changes.next_ready() {
            taken.extend(changes.take(ticket).map(|waiting| waiting.place.ticket));
        }
        taken
    }

    #[test]
    fn change_is_ready_when_all_its_rounds_have_ended() {
        let mut changes = WaitingChanges::default();
        let one = push(&mut changes, 1, Some(1), false);
        let two = push(&mut changes, 2, Some(2), false);
        end(&mut changes, 2, &[two]);
        assert_eq!(ready(&mut changes), [two]);
        end(&mut changes, 1, &[one]);
        assert_eq!(ready(&mut changes), [one]);
        assert_eq!((changes.len(), changes.bytes), (0, 0));
    }

    #[test]
    fn change_that_yields_a_lock_follows_earlier_changes_of_its_session() {
        let mut changes = WaitingChanges::default();
        let write = push(&mut changes, 1, Some(1), false);
        let release = push(&mut changes, 2, None, true);
        changes.mark_if_ready(release);
        assert_eq!(ready(&mut changes), []);
        end(&mut changes, 1, &[write]);
        assert_eq!(ready(&mut changes), [write, release]);
        assert!(!changes.has_session(SessionId(1)));
    }

    #[test]
    fn copy_of_a_waiting_request_moves_its_answer() {
        let mut changes = WaitingChanges::default();
        push(&mut changes, 1, Some(1), false);
        assert!(changes.redirect(RequestContext { connection: ConnectionId(2), ..request(1) }));
        assert!(!changes.redirect(request(2)) && changes.contains(request(1)));
    }

    #[test]
    fn waiting_grant_is_found_by_its_lock() {
        let mut changes = WaitingChanges::default();
        let place = changes.next_place(Instant::from_nanos(1));
        let then = Continuation::GrantNext(Instance(4));
        changes.push(Waiting { then, keys: Vec::new(), rounds: [key(4)].into(), place });
        assert!(changes.has_grant(Instance(4)));
        end(&mut changes, 4, &[place.ticket]);
        assert_eq!(ready(&mut changes), [place.ticket]);
        assert!(!changes.has_grant(Instance(4)));
    }
}
