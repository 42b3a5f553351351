//! The commands on their way into the log, and which request waits for each.

use crate::request::RequestContext;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use wombat_proto::wire::Handle;
use wombat_proto::wire::log::command::Op;
use wombat_proto::{CacheKey, HandleId, Instance, Name, ReplicaId, SessionId, Slot};

/// Which request waits for a proposal, and what remains to be done when it is chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PendingReply {
    /// None: the replica itself proposed it.
    Own,
    /// A request whose answer is nothing but the outcome.
    Plain(RequestContext),
    /// A request for a session.
    CreateSession(RequestContext),
    /// A request for a handle, whose instance and check digits are still missing.
    Open(RequestContext, Handle),
    /// A replica that joins, with the id that it gets.
    Join(RequestContext, ReplicaId),
    /// A waiter in the queue of a lock.
    Grant(RequestContext, Instance, HandleId),
    /// A request after which a handle holds a lock no longer. The answer is nothing but the outcome.
    Release(RequestContext, Instance, HandleId),
}

impl PendingReply {
    pub(crate) fn request(&self) -> Option<RequestContext> {
        self.clone().request_mut().copied()
    }

    /// The client's acknowledgement, where the command carries it into the log.
    pub(crate) fn acknowledged(&self) -> u64 {
        match self {
            // A grant may follow its Acquire much later.
            PendingReply::Own | PendingReply::Grant(..) => 0,
            _ => self.request().map_or(0, |request| request.acknowledged),
        }
    }

    /// The request has come again: the answer goes to the connection of its newest copy.
    pub(crate) fn redirect(&mut self, copy: RequestContext) {
        if let Some(request) = self.request_mut() {
            request.connection = copy.connection;
        }
    }

    fn request_mut(&mut self) -> Option<&mut RequestContext> {
        match self {
            PendingReply::Own => None,
            PendingReply::Plain(request)
            | PendingReply::CreateSession(request)
            | PendingReply::Open(request, _)
            | PendingReply::Join(request, _)
            | PendingReply::Grant(request, ..)
            | PendingReply::Release(request, ..) => Some(request),
        }
    }
}

/// The proposals on their way into the log, in slot order.
#[derive(Default)]
pub(crate) struct Proposals {
    waiting: VecDeque<Proposal>,
    /// Which session asked for which of them.
    by_session: BTreeSet<(SessionId, Slot)>,
}

/// A command on its way into the log.
pub(crate) struct Proposal {
    pub(crate) slot: Slot,
    pub(crate) reply: PendingReply,
    /// The keys that nobody may cache until it is applied.
    pub(crate) keys: Vec<CacheKey>,
    pub(crate) opens: Option<PendingOpen>,
}

/// What a command on its way into the log may come to keep alive, so that its session's end takes that away again.
#[derive(Clone, Debug)]
pub(crate) enum PendingOpen {
    /// A node.
    Node(Instance),
    /// The node of this name in a directory.
    Child(Instance, Name),
    /// The contents of a file, which end with the grant.
    Contents(Instance),
}

impl PendingOpen {
    /// What a command may come to keep alive.
    pub(crate) fn of(op: &Op) -> Option<PendingOpen> {
        match op {
            Op::Open(open) if open.instance == 0 => {
                Some(PendingOpen::Child(Instance(open.parent), Name::parse(&open.name).ok()?))
            }
            Op::Open(open) => Some(PendingOpen::Node(Instance(open.instance))),
            Op::Grant(grant) if grant.clears_contents => {
                Some(PendingOpen::Contents(Instance(grant.instance)))
            }
            _ => None,
        }
    }
}

impl Proposals {
    /// Takes the proposal of `slot`, which is chosen now. Chosen slots come in order.
    pub(crate) fn take(&mut self, slot: Slot) -> Option<Proposal> {
        let proposal = self.waiting.pop_front_if(|first| first.slot == slot)?;
        if let Some(request) = proposal.reply.request() {
            self.by_session.remove(&(request.session, slot));
        }
        Some(proposal)
    }

    /// Adds the newest proposal.
    pub(crate) fn push(&mut self, proposal: Proposal) {
        if let Some(request) = proposal.reply.request() {
            self.by_session.insert((request.session, proposal.slot));
        }
        self.waiting.push_back(proposal);
    }

    /// What these sessions have asked to open.
    pub(crate) fn opened_by(&self, sessions: &[u64]) -> impl Iterator<Item = &PendingOpen> {
        let proposals = sessions.iter().flat_map(|session| self.of_session(SessionId(*session)));
        proposals.filter_map(|proposal| proposal.opens.as_ref())
    }

    /// Whether what a request asked for is on its way into the log.
    pub(crate) fn contains(&self, request: RequestContext) -> bool {
        let mut proposals = self.of_session(request.session);
        proposals.any(|one| one.reply.request().is_some_and(|pending| pending.number == request.number))
    }

    fn of_session(&self, session: SessionId) -> impl Iterator<Item = &Proposal> {
        let slots = self.by_session.range((session, Slot(0))..=(session, Slot(u64::MAX)));
        slots.filter_map(|(_, slot)| {
            let place = self.waiting.binary_search_by_key(slot, |proposal| proposal.slot).ok()?;
            self.waiting.get(place)
        })
    }

    /// Forgets all proposals: this replica will not see them end as their proposer.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
        self.by_session.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::ConnectionId;

    fn request(session: u64, number: u64) -> RequestContext {
        RequestContext { connection: ConnectionId(1), session: SessionId(session), number, acknowledged: 3 }
    }

    fn proposal(slot: u64, reply: PendingReply) -> Proposal {
        let opens = Some(PendingOpen::Node(Instance(slot)));
        Proposal { slot: Slot(slot), reply, keys: Vec::new(), opens }
    }

    #[test]
    fn proposals_are_taken_by_slot_and_found_by_request() {
        let mut proposals = Proposals::default();
        proposals.push(proposal(4, PendingReply::Own));
        proposals.push(proposal(6, PendingReply::Plain(request(1, 9))));
        assert!(proposals.contains(request(1, 9)) && !proposals.contains(request(1, 8)));
        assert!(proposals.take(Slot(5)).is_none(), "another replica's");
        assert!(proposals.take(Slot(4)).is_some());
        assert_eq!(proposals.opened_by(&[2, 1]).count(), 1);
        assert!(proposals.take(Slot(6)).is_some());
        assert!(!proposals.contains(request(1, 9)));
        assert_eq!(proposals.opened_by(&[1]).count(), 0);
    }

    #[test]
    fn grant_carries_no_acknowledgement_into_the_log() {
        assert_eq!(PendingReply::Plain(request(1, 9)).acknowledged(), 3);
        assert_eq!(PendingReply::Grant(request(1, 9), Instance(1), HandleId(1)).acknowledged(), 0);
    }

    #[test]
    fn copy_of_a_request_moves_the_answer_to_its_connection() {
        let mut reply = PendingReply::Plain(request(1, 9));
        reply.redirect(RequestContext { connection: ConnectionId(2), acknowledged: 7, ..request(1, 9) });
        let redirected = reply.request().expect("it has a request");
        assert_eq!((redirected.connection, redirected.acknowledged), (ConnectionId(2), 3));
    }
}
