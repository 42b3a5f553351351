//! Commands on their way into the log, and who waits for each.

use crate::cache::Change;
use crate::{Asker, Replica};
use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use bytes::Bytes;
use prost::Message;
use wombat_proto::limits::COMMAND_BYTES;
use wombat_proto::wire::Handle;
use wombat_proto::wire::log::{self, command::Op};
use wombat_proto::{CacheKey, Error, Instance, Name, Result, SessionId, Slot};

/// Who waits for a proposal, and what is left to do when it is chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin {
    /// The replica itself.
    Own,
    /// Somebody, for an answer that is nothing but the outcome.
    Plain(Asker),
    /// Somebody who gets a session.
    CreateSession(Asker),
    /// Somebody who gets a handle; its instance and check digits are still missing.
    Open(Asker, Handle),
    /// A replica that joins, with the id that it gets.
    Join(Asker, wombat_proto::ReplicaId),
    /// A waiter in the queue of a lock.
    Grant(Asker, Instance, wombat_proto::HandleId),
    /// Somebody whose handle holds a lock no more, for an answer that is nothing but the outcome.
    Release(Asker, Instance, wombat_proto::HandleId),
}

impl Origin {
    pub(crate) fn asker(&self) -> Option<Asker> {
        self.clone().asker_mut().copied()
    }

    /// The request has come again, perhaps on another connection.
    pub(crate) fn comes_again(&mut self, again: Asker) {
        if let Some(asker) = self.asker_mut() {
            *asker = again;
        }
    }

    fn asker_mut(&mut self) -> Option<&mut Asker> {
        match self {
            Origin::Own => None,
            Origin::Plain(asker)
            | Origin::CreateSession(asker)
            | Origin::Open(asker, _)
            | Origin::Join(asker, _)
            | Origin::Grant(asker, ..)
            | Origin::Release(asker, ..) => Some(asker),
        }
    }
}

/// The proposals in flight, in slot order.
#[derive(Default)]
pub(crate) struct Proposals {
    waiting: VecDeque<Proposal>,
    /// Who asked for which of them.
    asked: BTreeSet<(SessionId, Slot)>,
}

struct Proposal {
    slot: Slot,
    origin: Origin,
    /// What it touches of what can be cached.
    keys: Vec<CacheKey>,
    opens: Option<Opens>,
}

/// What an Open on its way into the log may come to keep alive.
#[derive(Clone)]
pub(crate) enum Opens {
    Node(Instance),
    /// What has this name in a directory by then.
    Child(Instance, Name),
    /// Not an Open: a grant with which the contents of this file end.
    Grant(Instance),
}

impl Opens {
    fn of(op: &Op) -> Option<Opens> {
        match op {
            Op::Open(open) if open.instance == 0 => {
                Some(Opens::Child(Instance(open.parent), Name::parse(&open.name).ok()?))
            }
            Op::Open(open) => Some(Opens::Node(Instance(open.instance))),
            Op::Grant(grant) if grant.clears_contents => Some(Opens::Grant(Instance(grant.instance))),
            _ => None,
        }
    }
}

impl Proposals {
    /// Who waits for `slot`, which is chosen now, and what it touches. Chosen slots come in order.
    pub(crate) fn take(&mut self, slot: Slot) -> (Origin, Vec<CacheKey>) {
        let Some(proposal) = self.waiting.pop_front_if(|first| first.slot == slot) else {
            return (Origin::Own, Vec::new());
        };
        if let Some(asker) = proposal.origin.asker() {
            self.asked.remove(&(asker.session, slot));
        }
        (proposal.origin, proposal.keys)
    }

    /// Notes who waits for `slot`, which was proposed last.
    pub(crate) fn wait(&mut self, slot: Slot, origin: Origin, keys: Vec<CacheKey>, opens: Option<Opens>) {
        if let Some(asker) = origin.asker() {
            self.asked.insert((asker.session, slot));
        }
        self.waiting.push_back(Proposal { slot, origin, keys, opens });
    }

    /// What these sessions have asked to open.
    pub(crate) fn opened_by(&self, sessions: &[u64]) -> impl Iterator<Item = &Opens> {
        let proposals = sessions.iter().flat_map(|session| self.asked_by(SessionId(*session)));
        proposals.filter_map(|proposal| proposal.opens.as_ref())
    }

    /// Whether what a request asked for is on its way into the log.
    pub(crate) fn is_waiting(&self, session: SessionId, number: u64) -> bool {
        let mut proposals = self.asked_by(session);
        proposals.any(|proposal| proposal.origin.asker().is_some_and(|asker| asker.number == number))
    }

    fn asked_by(&self, session: SessionId) -> impl Iterator<Item = &Proposal> {
        let asked = self.asked.range((session, Slot(0))..=(session, Slot(u64::MAX)));
        asked.filter_map(|(_, slot)| {
            let place = self.waiting.binary_search_by_key(slot, |proposal| proposal.slot).ok()?;
            self.waiting.get(place)
        })
    }

    /// Forgets all of them: this replica will not see them end as their proposer.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
        self.asked.clear();
    }
}

impl Replica {
    /// Proposes a change that nothing stands against; `keys` is what it touches of what can be cached.
    pub(crate) fn enter(&mut self, change: Change, keys: Vec<CacheKey>) -> Result<()> {
        let Change { origin, acknowledged, op } = change;
        let asker = origin.asker();
        let young = Replica::reaches_young(&op).then(|| self.state.last_instance());
        let opens = Opens::of(&op);
        let command = log::Command {
            epoch: self.paxos.ballot().epoch().0,
            wall_ms: self.moment.wall_ms,
            session: asker.map_or(SessionId(0), |asker| asker.session).0,
            number: asker.map_or(0, |asker| asker.number),
            acknowledged,
            delays_over: self.delays_over(&op),
            op: Some(op),
        };
        if command.encoded_len() > COMMAND_BYTES {
            return Err(Error::TooLarge {
                what: alloc::format!("a change of more than {COMMAND_BYTES} bytes"),
            });
        }
        let slot = self.paxos.propose(Bytes::from(command.encode_to_vec()))?;
        let keys = match &mut self.master {
            Some(master) => master.note_proposed(slot, keys, young),
            None => keys,
        };
        self.proposals.wait(slot, origin, keys, opens);
        if let Origin::Release(asker, instance, handle) = origin {
            self.leaves(asker.session, instance, handle);
        }
        Ok(())
    }

    /// Proposes what the replica itself wants.
    pub(crate) fn propose_own(&mut self, op: Op) -> Result<()> {
        self.propose(Origin::Own, 0, op)
    }
}
