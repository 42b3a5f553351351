//! The surroundings of one step: the time, the state, the log, and the effects so far.

use crate::api::{Config, Effects, StepTime};
use crate::log::ReplicatedLog;
use crate::request::{Answer, ConnectionId, RequestContext};
use crate::tables::connections::Connections;
use crate::tables::digests::Digests;
use alloc::string::String;
use core::time::Duration;
use wombat_proto::{Error, Instant, ReplicaId, Result, wire};
use wombat_state::State;

/// What a role works with in one step.
pub(crate) struct Cx<'a> {
    pub(crate) time: StepTime,
    pub(crate) config: &'a Config,
    pub(crate) state: &'a State,
    pub(crate) log: &'a mut ReplicatedLog,
    pub(crate) connections: &'a mut Connections,
    pub(crate) digests: &'a mut Digests,
    /// Whether this replica serves as master.
    pub(crate) is_master: bool,
    pub(crate) out: &'a mut Effects,
}

/// The part of the surroundings that questions need.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) now: Instant,
    pub(crate) config: &'a Config,
    pub(crate) state: &'a State,
    pub(crate) log: &'a ReplicatedLog,
    /// Whether this replica serves as master.
    pub(crate) is_master: bool,
}

impl View<'_> {
    /// The master, as far as this replica knows.
    pub(crate) fn known_master(self) -> Option<ReplicaId> {
        let own = self.config.replica;
        if self.is_master { Some(own) } else { self.log.paxos().master().filter(|id| *id != own) }
    }

    /// Where the master listens, as far as this replica knows; empty if it does not.
    pub(crate) fn master_address(self) -> String {
        match self.known_master() {
            Some(id) if id == self.config.replica => self.config.address.clone(),
            Some(id) => self.log.address_of(id),
            None => String::new(),
        }
    }

    /// How old the state is at most: every change that was completed before is in it. `None` if the replica has been
    /// sure of nothing since it started.
    pub(crate) fn age(self) -> Option<Duration> {
        self.log.paxos().complete_until(self.now).map(|until| self.now.since(until))
    }
}

impl Cx<'_> {
    pub(crate) fn view(&self) -> View<'_> {
        let Cx { time, config, state, is_master, .. } = *self;
        View { now: time.now, config, state, log: self.log, is_master }
    }

    pub(crate) fn now(&self) -> Instant {
        self.time.now
    }

    /// Whether this replica is surely master still (P§2.2).
    pub(crate) fn lease_holds(&self) -> bool {
        self.log.paxos().lease_holds(self.time.now)
    }

    /// Sends an answer.
    pub(crate) fn respond(
        &mut self,
        connection: ConnectionId,
        request: RequestContext,
        result: Result<Answer>,
        cachable: Option<wire::Cachable>,
    ) {
        let result = result.unwrap_or_else(|error| match error {
            Error::NotMaster { hint: None } => {
                let hint = self.view().master_address();
                Answer::Error((&Error::NotMaster { hint: Some(hint).filter(|hint| !hint.is_empty()) }).into())
            }
            error => Answer::Error((&error).into()),
        });
        let (session, number) = (request.session.0, request.number);
        let response = wire::Response { session, number, cachable, result: Some(result) };
        self.out.replies.push((connection, response));
    }

    /// Lets a connection be closed, once the answers to it are sent.
    pub(crate) fn hang_up(&mut self, id: ConnectionId) {
        self.connections.close(id);
        self.out.hang_up.push(id);
    }
}
