//! The world at an instant, as the oracle sees it.

use super::history::Witness;
use crate::cell::client::Client;
use crate::cell::machine::Machine;
use std::collections::BTreeMap;
use std::time::Duration;
use wombat_proto::{ReplicaId, SessionId};

pub(in crate::cell) struct View<'a> {
    pub(in crate::cell) now: Duration,
    pub(in crate::cell) machines: &'a BTreeMap<ReplicaId, Machine>,
    pub(in crate::cell) clients: &'a [Client],
}

/// The clients, at an instant.
pub(in crate::cell) struct Clients<'a>(pub(in crate::cell) &'a [Client], pub(in crate::cell) Duration);

impl Witness for Clients<'_> {
    fn is_live(&self, session: SessionId) -> bool {
        self.0.iter().any(|client| client.id() == Some(session) && client.is_live(self.1))
    }

    fn has_asked_to_end(&self, session: SessionId) -> bool {
        self.0.iter().any(|client| client.id() == Some(session) && client.asked_to_end)
    }

    fn waits_for(&self, session: SessionId, number: u64) -> bool {
        self.0.iter().any(|client| client.id() == Some(session) && client.waits_for(number))
    }
}
