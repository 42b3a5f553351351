//! The replicated log, as a replica uses it: Paxos, and the requests that wait for what was proposed. This is the
//! only module that proposes.

use crate::api::{Config, Effects, PeerMessage};
use crate::tables::proposals::{PendingOpen, PendingReply, Proposal, Proposals};
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use prost::Message;
use wombat_paxos::{Batch, Configurations, Message as PaxosMessage, Paxos, Persist};
use wombat_proto::limits::COMMAND_BYTES;
use wombat_proto::wire::log::{self, command::Op};
use wombat_proto::{CacheKey, Error, Instant, Members, Recovered, ReplicaId, Result, SessionId, Slot};

/// Paxos, and the proposals on their way into the log.
pub(crate) struct ReplicatedLog {
    paxos: Paxos,
    effects: wombat_paxos::Effects,
    proposals: Proposals,
}

/// A command to append.
pub(crate) struct Entry {
    pub(crate) reply: PendingReply,
    pub(crate) op: Op,
    pub(crate) wall_ms: u64,
    /// The lock-delays that have passed, of the nodes that the command is about.
    pub(crate) delays_over: Vec<u64>,
}

impl Entry {
    /// A command that the replica itself wants and that no lock-delay stands against.
    pub(crate) fn own(op: Op, wall_ms: u64) -> Entry {
        Entry { reply: PendingReply::Own, op, wall_ms, delays_over: Vec::new() }
    }
}

impl ReplicatedLog {
    pub(crate) fn new(
        config: &Config,
        configurations: Configurations,
        recovered: Recovered,
        now: Instant,
    ) -> ReplicatedLog {
        let usual = wombat_paxos::Config::new(config.replica, config.seed);
        let longest_lease = config.max_master_lease;
        let config = wombat_paxos::Config { longest_lease, ..usual }.with_lease(config.master_lease);
        let paxos = Paxos::new(config, configurations, recovered, now);
        ReplicatedLog { paxos, effects: wombat_paxos::Effects::default(), proposals: Proposals::default() }
    }

    /// Paxos, to read from.
    pub(crate) fn paxos(&self) -> &Paxos {
        &self.paxos
    }

    /// The proposals on their way into the log.
    pub(crate) fn proposals(&self) -> &Proposals {
        &self.proposals
    }

    /// Where a replica listens; empty if that is not known.
    pub(crate) fn address_of(&self, id: ReplicaId) -> String {
        let known = self.paxos.configurations().everyone().find(|member| member.id == id);
        known.map(|member| member.address.clone()).unwrap_or_default()
    }

    /// Proposes a command. `close` gets its slot and returns the keys that nobody may cache until it is applied.
    pub(crate) fn append(&mut self, entry: Entry, close: impl FnOnce(Slot) -> Vec<CacheKey>) -> Result<()> {
        let Entry { reply, op, wall_ms, delays_over } = entry;
        let request = reply.request();
        let opens = PendingOpen::of(&op);
        let command = log::Command {
            epoch: self.paxos.ballot().epoch().0,
            wall_ms,
            session: request.map_or(SessionId(0), |request| request.session).0,
            number: request.map_or(0, |request| request.number),
            acknowledged: reply.acknowledged(),
            delays_over,
            op: Some(op),
        };
        if command.encoded_len() > COMMAND_BYTES {
            let what = alloc::format!("a change of more than {COMMAND_BYTES} bytes");
            return Err(Error::TooLarge { what });
        }
        let slot = self.paxos.propose(Bytes::from(command.encode_to_vec()))?;
        self.proposals.push(Proposal { slot, reply, keys: close(slot), opens });
        Ok(())
    }

    /// Proposes other members. `reply` is answered when they are chosen.
    pub(crate) fn change_members(&mut self, members: Members, reply: Option<PendingReply>) -> Result<()> {
        let slot = self.paxos.change_members(members)?;
        if let Some(reply) = reply {
            self.proposals.push(Proposal { slot, reply, keys: Vec::new(), opens: None });
        }
        Ok(())
    }

    /// Adds what Paxos wants to be done to `out`. Returns the values that are chosen now, in slot order.
    pub(crate) fn next_committed(&mut self, out: &mut Effects) -> Vec<Batch> {
        self.paxos.flush(&mut self.effects);
        let effects = &mut self.effects;
        out.persist.extend(effects.persist.iter().flat_map(Persist::records));
        effects.persist.clear();
        let send = effects.send.drain(..).map(|(to, message)| (to, PeerMessage::Paxos(message)));
        out.send.extend(send);
        out.wanted_chunks.append(&mut effects.wanted_chunks);
        out.received_chunks.append(&mut effects.received_chunks);
        out.reinstated |= core::mem::take(&mut effects.reinstated);
        out.rolled_back |= core::mem::take(&mut effects.rolled_back);
        out.snapshot_wanted |= core::mem::take(&mut effects.snapshot_wanted);
        out.notices.append(&mut effects.notices);
        effects.ended.clear(); // Their clients repeat the requests at the next master.
        core::mem::take(&mut effects.chosen)
    }

    /// The values that were known to be chosen when the replica started.
    pub(crate) fn recovered(&mut self) -> Vec<Batch> {
        self.paxos.flush(&mut self.effects);
        core::mem::take(&mut self.effects.chosen)
    }

    /// Takes the proposal of a slot that is chosen now, if it is this replica's.
    pub(crate) fn take(&mut self, slot: Slot) -> Option<Proposal> {
        self.proposals.take(slot)
    }

    /// Forgets all proposals, as this replica leads no longer.
    pub(crate) fn forget_proposals(&mut self) {
        self.proposals.clear();
    }

    pub(crate) fn set_wall_clock(&mut self, wall_ms: u64) {
        self.paxos.set_wall_clock(wall_ms);
    }

    pub(crate) fn persisted(&mut self, now: Instant, through: u64) {
        self.paxos.persisted(now, through);
    }

    pub(crate) fn receive(&mut self, now: Instant, from: ReplicaId, message: PaxosMessage) {
        self.paxos.receive(now, from, message);
    }

    pub(crate) fn peer_lost(&mut self, now: Instant, peer: ReplicaId) {
        self.paxos.lost(now, peer);
    }

    pub(crate) fn snapshotted(&mut self, slot: Slot) {
        self.paxos.snapshotted(slot);
    }

    /// A snapshot of another replica is durable. Returns whether it is newer than this replica's state.
    pub(crate) fn installed(&mut self, now: Instant, slot: Slot, configurations: Configurations) -> bool {
        self.paxos.installed(now, slot, configurations)
    }

    pub(crate) fn install_failed(&mut self) {
        self.paxos.install_failed();
    }

    pub(crate) fn rolled_back(&mut self, now: Instant) {
        self.paxos.rolled_back(now);
    }

    pub(crate) fn tick(&mut self, now: Instant) {
        self.paxos.tick(now);
    }

    /// Hands mastership to another voter.
    pub(crate) fn transfer(&mut self, to: ReplicaId) -> Result<()> {
        self.paxos.transfer(to)
    }
}
