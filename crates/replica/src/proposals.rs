//! Commands on their way into the log, and who waits for each.

use crate::{Asker, Replica};
use alloc::collections::VecDeque;
use bytes::Bytes;
use prost::Message;
use wombat_proto::limits::COMMAND_BYTES;
use wombat_proto::wire::Handle;
use wombat_proto::wire::log::{self, command::Op};
use wombat_proto::{Error, Instance, Result, SessionId, Slot};

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
    fn asker(&self) -> Option<Asker> {
        match self {
            Origin::Own => None,
            Origin::Plain(asker)
            | Origin::CreateSession(asker)
            | Origin::Open(asker, _)
            | Origin::Join(asker, _)
            | Origin::Grant(asker, ..)
            | Origin::Release(asker, ..) => Some(*asker),
        }
    }
}

/// The proposals in flight, in slot order.
#[derive(Default)]
pub(crate) struct Proposals {
    waiting: VecDeque<(Slot, Origin)>,
}

impl Proposals {
    /// Who waits for `slot`, which is chosen now. Chosen slots come in order.
    pub(crate) fn take(&mut self, slot: Slot) -> Origin {
        match self.waiting.pop_front_if(|(first, _)| *first == slot) {
            Some((_, origin)) => origin,
            None => Origin::Own,
        }
    }

    /// Notes who waits for `slot`, which was proposed last.
    pub(crate) fn wait(&mut self, slot: Slot, origin: Origin) {
        self.waiting.push_back((slot, origin));
    }

    /// Whether what a request asked for is on its way into the log.
    pub(crate) fn is_waiting(&self, session: SessionId, number: u64) -> bool {
        let asks = |origin: &Origin| {
            origin.asker().is_some_and(|asker| (asker.session, asker.number) == (session, number))
        };
        self.waiting.iter().any(|(_, origin)| asks(origin))
    }

    /// Forgets all of them: this replica will not see them end as their proposer.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
    }
}

impl Replica {
    /// Proposes a change that a session's request asks for.
    pub(crate) fn propose(&mut self, origin: Origin, acknowledged: u64, op: Op) -> Result<Slot> {
        let asker = origin.asker();
        let delays_over = self.delays_over(&op);
        let command = log::Command {
            epoch: self.paxos.ballot().epoch().0,
            wall_ms: self.moment.wall_ms,
            session: asker.map_or(SessionId(0), |asker| asker.session).0,
            number: asker.map_or(0, |asker| asker.number),
            acknowledged,
            delays_over,
            op: Some(op),
        };
        if command.encoded_len() > COMMAND_BYTES {
            return Err(Error::TooLarge {
                what: alloc::format!("a change of more than {COMMAND_BYTES} bytes"),
            });
        }
        let slot = self.paxos.propose(Bytes::from(command.encode_to_vec()))?;
        self.proposals.wait(slot, origin);
        Ok(slot)
    }

    /// Proposes what the replica itself wants.
    pub(crate) fn propose_own(&mut self, op: Op) -> Result<Slot> {
        self.propose(Origin::Own, 0, op)
    }
}
