//! How soon clients find the master (SPEC §12): a session has half of its lease left when it has found the next
//! master, and a new client begins a session 300 ms later than where all is well, at most.

use super::view::View;
use crate::cell::tally::Tally;
use std::time::Duration;
use wombat_proto::{ReplicaId, Rho};

/// What a silent minority may cost a new client.
const ALLOWED: Duration = Duration::from_millis(300);
/// What it takes a new client to begin a session where all is well, at most: four connections and round trips, and
/// a command in the log.
const USUAL: Duration = Duration::from_millis(250);

/// The record of a run about the search.
pub(in crate::cell) struct SearchBound {
    /// What every session has left of its lease, at least.
    least_left: Duration,
    /// Since when the present master serves; `None`: there is none.
    serves: Option<(ReplicaId, Duration)>,
    /// When each client began to look for a cell, and whether it has begun a session.
    clients: Vec<(Duration, bool)>,
    silent: Vec<ReplicaId>,
}

impl SearchBound {
    pub(in crate::cell) fn new(session_lease: Duration) -> SearchBound {
        let least_left = Rho::default().shorten(session_lease) / 2;
        SearchBound { least_left, serves: None, clients: Vec::new(), silent: Vec::new() }
    }

    /// The replica that serves as master, if it is not silent.
    pub(in crate::cell) fn master(&self) -> Option<ReplicaId> {
        self.serves.map(|(id, _)| id)
    }

    pub(in crate::cell) fn fell_silent(&mut self, id: ReplicaId) {
        self.silent.push(id);
    }

    /// A client begins to look for a cell.
    pub(in crate::cell) fn client_came(&mut self, now: Duration) {
        self.clients.push((now, false));
    }

    /// The bound holds, as long as not all is healed.
    pub(in crate::cell) fn check(&mut self, view: &View<'_>, healed: bool, tally: &mut Tally) {
        let now = view.now;
        let serving = view.machines.values().find(|machine| machine.serves(now)).map(|machine| machine.id);
        let serving = serving.filter(|id| !self.silent.contains(id));
        if self.serves.map(|(id, _)| id) != serving {
            self.serves = serving.map(|id| (id, now));
        }
        if healed {
            return;
        }
        for (client, (came, has_begun)) in view.clients.iter().zip(&mut self.clients) {
            if client.is_finished() || client.asked_to_end {
                continue;
            }
            let name = client.name;
            if client.id().is_none() {
                let Some((_, serves)) = self.serves.filter(|_| !*has_begun) else { continue };
                let took = now - serves.max(*came);
                assert!(took <= USUAL + ALLOWED, "SPEC §12: client {name} has no session after {took:?}");
                continue;
            }
            if !std::mem::replace(has_begun, true) {
                tally.count("sessions begun in time");
            }
            let left = client.session.safe_until().since(client.clock.read(now));
            assert!(left >= self.least_left, "SPEC §12: client {name} has {left:?} left, and no master");
        }
    }
}
