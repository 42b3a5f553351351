//! The memory of a master: whatever it need not take from an earlier one, or rebuilds conservatively.

use crate::events::EventQueue;
use crate::handles::Handles;
use crate::leases::Lease;
use crate::locks::Locks;
use crate::seal::Seal;
use crate::timers::Timers;
use crate::{ConnectionId, Replica};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::wire::event::Kind;
use wombat_proto::{Epoch, Error, HandleId, Instance, Result, SessionId};

/// A master's memory.
pub(crate) struct Master {
    /// The epoch in which it serves.
    pub(crate) epoch: Epoch,
    pub(crate) seal: Seal,
    /// One for each session in the state.
    pub(crate) sessions: BTreeMap<SessionId, LiveSession>,
    pub(crate) locks: Locks,
    /// Which handles want events of which node.
    pub(crate) subscribers: BTreeMap<Instance, BTreeSet<(SessionId, HandleId)>>,
    /// Sessions with events that have not gone out yet.
    pub(crate) to_notify: BTreeSet<SessionId>,
    pub(crate) timers: Timers,
}

/// What the master knows of a session beyond the state.
pub(crate) struct LiveSession {
    pub(crate) lease: Lease,
    pub(crate) handles: Handles,
    pub(crate) events: EventQueue,
    /// The connection that spoke for it last.
    pub(crate) connection: Option<ConnectionId>,
}

impl Master {
    pub(crate) fn session(&mut self, session: SessionId) -> Result<&mut LiveSession> {
        self.sessions.get_mut(&session).ok_or(Error::SessionExpired)
    }
}

impl Replica {
    /// Begins to serve, once the command that says so is applied (P§2.9): every session of the state gets
    /// the longest lease that any master may have promised it, every lock-delay runs anew, and every session
    /// is told that the master failed over.
    pub(crate) fn become_master(&mut self, longest_lease: Duration) {
        let key = self.state.key().expect("a cell that has an epoch is founded");
        let mut master = Master {
            epoch: self.state.epoch(),
            seal: Seal::new(key),
            sessions: BTreeMap::new(),
            locks: Locks::default(),
            subscribers: BTreeMap::new(),
            to_notify: BTreeSet::new(),
            timers: Timers::default(),
        };
        let now = self.moment.now;
        for (id, _) in self.state.sessions_after(SessionId(0)) {
            master.admit(id, now + longest_lease);
            master.notify(id, Kind::FailedOver, None);
        }
        let delayed = self.state.tree().nodes().filter_map(|node| Some((node.instance, node.lock.delay()?)));
        for (instance, delay) in delayed.collect::<Vec<_>>() {
            master.start_delay(instance, delay.since, now + delay.length);
        }
        self.master = Some(master);
    }

    /// Drops the memory of a master that is none any more. Its clients are sent away: they find the next
    /// master and ask it again.
    pub(crate) fn resign_if_deposed(&mut self) {
        let Some(begun) = self.begun else { return };
        if self.paxos.leads() == Some(begun) {
            return;
        }
        self.begun = None;
        self.master = None;
        self.proposals.clear();
        for (id, connection) in &mut self.connections {
            connection.sessions.clear();
            connection.closing = true;
            self.effects.hang_up.push(*id);
        }
    }

    pub(crate) fn serving(&mut self) -> Result<&mut Master> {
        self.master.as_mut().ok_or(Error::NotMaster { hint: None })
    }
}
