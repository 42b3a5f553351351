//! A client's request while it is worked on: which connection and session it came from, and its answer.

use wombat_proto::SessionId;
use wombat_proto::wire::{Request, response};

/// A client's connection, named by the server; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// The answer to a request that succeeded.
pub(crate) type Answer = response::Result;

/// When the answer to a request is known.
#[expect(clippy::large_enum_variant, reason = "it is moved once, from the call to the answer")]
pub(crate) enum Reply {
    /// At once.
    Now(Answer),
    /// When the log has decided, or a lock, a session or a KeepAlive has its turn.
    Later,
}

/// Which request is worked on, and where its answer goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestContext {
    pub(crate) connection: ConnectionId,
    pub(crate) session: SessionId,
    pub(crate) number: u64,
    /// The client has the answers to all changes of its session up to this number.
    pub(crate) acknowledged: u64,
}

impl RequestContext {
    pub(crate) fn of(connection: ConnectionId, request: &Request) -> RequestContext {
        RequestContext {
            connection,
            session: SessionId(request.session),
            number: request.number,
            acknowledged: request.acknowledged,
        }
    }

    /// Whether both are the same request of the same session, perhaps sent twice.
    pub(crate) fn is_copy_of(&self, other: &RequestContext) -> bool {
        (self.session, self.number) == (other.session, other.number)
    }

    /// The same request as one whose client acknowledges nothing.
    pub(crate) fn without_acknowledgement(self) -> RequestContext {
        RequestContext { acknowledged: 0, ..self }
    }
}
