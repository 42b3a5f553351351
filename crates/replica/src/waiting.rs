//! Requests that cannot be answered yet: a Hello to a replica that knows of no master, and what a master must
//! not answer while its lease has lapsed or its fail-over goes on. They wait here rather than send their clients
//! about.

use crate::master::Master;
use crate::{Answer, Asker, ConnectionId, Replica};
use alloc::collections::{BTreeMap, VecDeque};
use core::time::Duration;
use prost::Message;
use wombat_proto::limits::{CONNECTIONS, HELD_BYTES, HELLO_WAIT};
use wombat_proto::wire::{Hello, Request, request::Call};
use wombat_proto::{Error, Instant, Result};

/// What a held request costs beside its bytes.
const HELD_OVERHEAD: usize = 256;

/// What a request waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Gate {
    /// The master's lease.
    Lease,
    /// The end of the fail-over (SPEC I10).
    FailOver,
}

/// Requests that a master holds back, in the order in which they came.
#[derive(Default)]
pub(crate) struct Held {
    for_lease: VecDeque<(ConnectionId, Request)>,
    for_fail_over: VecDeque<(ConnectionId, Request)>,
    bytes: usize,
}

impl Held {
    fn is_empty(&self) -> bool {
        self.for_lease.is_empty() && self.for_fail_over.is_empty()
    }

    fn queue(&mut self, gate: Gate) -> &mut VecDeque<(ConnectionId, Request)> {
        match gate {
            Gate::Lease => &mut self.for_lease,
            Gate::FailOver => &mut self.for_fail_over,
        }
    }
}

/// Hellos whose answer waits for a master, by when it is due at the latest.
#[derive(Default)]
pub(crate) struct Greetings(BTreeMap<(Instant, ConnectionId), Asker>);

impl Greetings {
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.0.first_key_value().map(|((at, _), _)| *at)
    }
}

/// Roughly the memory that a request takes. The parts of a Multi take much more than they have bytes.
fn weight(request: &Request) -> usize {
    let parts = match &request.call {
        Some(Call::Multi(multi)) => multi.steps_size(),
        _ => 0,
    };
    request.encoded_len() + HELD_OVERHEAD + parts
}

impl Master {
    fn hold(&mut self, gate: Gate, connection: ConnectionId, request: Request) -> Result<()> {
        let bytes = weight(&request);
        if self.held.bytes + bytes > HELD_BYTES {
            return Err(Error::Overloaded { retry_after: Duration::from_millis(200) });
        }
        self.held.bytes += bytes;
        self.held.queue(gate).push_back((connection, request));
        Ok(())
    }
}

impl Replica {
    /// Whether this replica is surely master still (P§2.2).
    pub(crate) fn lease_holds(&self) -> bool {
        self.paxos.lease_holds(self.moment.now)
    }

    /// What stands between a call and its answer now, at a master.
    fn gate(&self, call: &Call) -> Option<Gate> {
        let master = self.master.as_ref()?;
        match call {
            // The log decides about these, or they say nothing that could be out of date.
            Call::Hello(_)
            | Call::GetStatus(_)
            | Call::ReadStale(_)
            | Call::CreateSession(_)
            | Call::Join(_)
            | Call::Transfer(_) => None,
            Call::KeepAlive(_) => None, // It is parked in any case.
            // It takes the session's ephemerals with it, which others may still have cached.
            Call::EndSession(_) => (!master.fail_over.is_over()).then_some(Gate::FailOver),
            _ if !self.lease_holds() => Some(Gate::Lease),
            Call::ResumeSession(_) | Call::ListSessions(_) | Call::ListLocks(_) | Call::ListAudit(_) => None,
            _ => (!master.fail_over.is_over()).then_some(Gate::FailOver),
        }
    }

    /// Holds a request back that must not be answered now, on a connection that has said Hello. Returns it if it
    /// may be.
    pub(crate) fn hold_back(
        &mut self,
        connection: ConnectionId,
        request: Request,
    ) -> Result<Option<Request>> {
        let known = self.connections.contains_key(&connection);
        let gate = request.call.as_ref().filter(|_| known).and_then(|call| self.gate(call));
        match (gate, &mut self.master) {
            (Some(gate), Some(master)) => master.hold(gate, connection, request).map(|()| None),
            _ => Ok(Some(request)),
        }
    }

    /// Takes up again what was held back, if nothing stands against it any more. Returns whether anything was.
    pub(crate) fn release_held(&mut self) -> bool {
        let anything = self.master.as_ref().is_some_and(|master| !master.held.is_empty());
        if !anything || !self.lease_holds() {
            return false;
        }
        let Some(master) = &mut self.master else { return false };
        let mut released = VecDeque::new();
        // Those have waited for longer: what waits for the lease is released whenever it is there.
        if master.fail_over.is_over() {
            released.append(&mut master.held.for_fail_over);
        }
        released.append(&mut master.held.for_lease);
        let any = !released.is_empty();
        for (connection, request) in released {
            if let Some(master) = &mut self.master {
                master.held.bytes -= weight(&request);
            }
            // Whoever has gone meanwhile asks again on another connection.
            if self.connections.contains_key(&connection) {
                self.request(connection, request);
            }
        }
        any
    }

    /// Lets a Hello wait until a master is known, if its client wants that. Returns whether it does.
    pub(crate) fn greet_later(&mut self, asker: Asker, hello: &Hello) -> bool {
        let wait = Duration::from_millis(hello.wait_ms.into()).min(HELLO_WAIT);
        if wait.is_zero() || self.knows_master() || self.greetings.0.len() >= CONNECTIONS {
            return false;
        }
        self.greetings.0.insert((self.moment.now + wait, asker.connection), asker);
        true
    }

    fn knows_master(&self) -> bool {
        self.is_master() || !self.master_address().is_empty()
    }

    /// Answers the Hellos that wait, once a master is known or they have waited for long enough.
    pub(crate) fn answer_greetings(&mut self) {
        let all = !self.greetings.0.is_empty() && self.knows_master();
        while let Some(first) = self.greetings.0.first_entry()
            && (all || first.key().0 <= self.moment.now)
        {
            let asker = first.remove();
            let welcome = self.welcome();
            self.send(asker.connection, asker, Ok(Answer::Welcome(welcome)), None);
        }
    }
}
