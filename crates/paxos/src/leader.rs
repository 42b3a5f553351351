//! The master: phase 2, pipelined in a bounded window.
//!
//! `leader/*` own the parts of its state, and know nothing of each other. Their joins are here: proposals and what is
//! chosen of them. `mastership.rs` has the rest: the lease, changes of members, and the ways to another master.

mod heartbeats;
mod peers;
mod proposals;
mod stall;

use crate::batch::{Batch, Values};
use crate::message::Message;
use crate::participant::Participant;
use crate::reports::Reports;
use alloc::vec::Vec;
use bytes::Bytes;
use core::time::Duration;
pub(crate) use heartbeats::Heartbeats;
pub(crate) use peers::{Peer, Peers};
pub(crate) use proposals::Proposals;
pub(crate) use stall::StallClock;
use wombat_proto::{Ballot, Error, Instant, ReplicaId, Result, Slot, Value};

/// Most bytes of values in one message to a replica on whose way messages are lost: it fits one packet.
pub(crate) const SMALL_BATCH_BYTES: usize = 1000;

/// For how long a client waits before it repeats a request that a master had no room for.
const OVERLOAD_RETRY: Duration = Duration::from_millis(20);

/// A master.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Leader {
    pub(crate) proposals: Proposals,
    /// What phase 1 found for the slots that are not proposed yet: it has to be proposed there.
    pub(crate) reports: Reports,
    /// Whether it had to be elected with copies of disks: what was chosen since they were made may be lost.
    pub(crate) from_copies: bool,
    pub(crate) peers: Peers,
    pub(crate) stall: StallClock,
    pub(crate) heartbeats: Heartbeats,
    pub(crate) resend_prepares_at: Instant,
    pub(crate) elected_at: Instant,
    /// The replica that mastership is being transferred to, and until when that may take.
    pub(crate) transfer: Option<(ReplicaId, Instant)>,
}

impl Leader {
    /// A candidate is elected with these reports.
    pub(crate) fn new(cx: &Participant, reports: Reports) -> Leader {
        let has_originals = cx.active_configurations().all(|members| reports.has_originals_of(members));
        Leader {
            proposals: Proposals::after(cx.chosen()),
            reports,
            from_copies: !has_originals,
            peers: Peers::default(),
            stall: StallClock::new(cx.now),
            heartbeats: Heartbeats::new(cx.config.lease, cx.now),
            resend_prepares_at: cx.now,
            elected_at: cx.now,
            transfer: None,
        }
    }

    /// Whether its first own value is chosen, and it is not on its way out.
    pub(crate) fn is_settled(&self, cx: &Participant) -> bool {
        let is_barrier_chosen = self.proposals.is_barrier_chosen(cx.chosen());
        cx.rules().may_serve(is_barrier_chosen) && self.transfer.is_none()
    }

    // ---- To propose ----

    /// Proposes a command. Returns its slot.
    pub(crate) fn propose(&mut self, cx: &mut Participant, command: Bytes) -> Result<Slot> {
        self.has_room(cx, command.len())?;
        Ok(self.append(cx, Value::Command(command)))
    }

    /// Refuses when there is no room for a proposal of so many bytes.
    pub(crate) fn has_room(&self, cx: &Participant, bytes: usize) -> Result<()> {
        let overloaded = Err(Error::Overloaded { retry_after: OVERLOAD_RETRY });
        if self.transfer.is_some() {
            return overloaded;
        }
        if !self.is_settled(cx) {
            return Err(Error::NotMaster { hint: None });
        }
        let is_full = self.is_window_full(cx)
            || self.proposals.bytes() + bytes > cx.config.bytes_in_flight
            || self.proposals.is_disk_stalled(cx.config.window)
            || !self.reports.is_empty()
            || self.lacks_promises(cx);
        if is_full { overloaded } else { Ok(()) }
    }

    fn is_window_full(&self, cx: &Participant) -> bool {
        self.proposals.next().0 > cx.chosen().0 + cx.config.window
    }

    /// Whether too few of those that vote on the next slot have promised, and reported what they have accepted.
    pub(crate) fn lacks_promises(&self, cx: &Participant) -> bool {
        let voters = cx.configurations().at(self.proposals.next());
        let is_promised = voters.is_quorum(|id| self.reports.is_complete(id));
        !cx.rules().may_propose(is_promised)
    }

    pub(crate) fn append(&mut self, cx: &Participant, value: Value) -> Slot {
        if !self.stall.has_open() && !self.proposals.has_unsealed() {
            self.restart_stall_clock(cx);
        }
        self.proposals.append(value)
    }

    pub(crate) fn restart_stall_clock(&mut self, cx: &Participant) {
        if !self.proposals.is_disk_stalled(cx.config.window) {
            self.stall.restart(cx.now);
        }
    }

    /// Proposes what has to be proposed before anything new may be: what phase 1 found, no-ops for the gaps, the
    /// master's first own value, and no-ops until changed members are in force.
    pub(crate) fn repropose_recovered(&mut self, cx: &mut Participant) {
        loop {
            let is_changing = cx.configurations().newest_from() > self.proposals.next();
            let has_barrier = self.proposals.barrier().is_some();
            if self.reports.is_empty() && has_barrier && !is_changing {
                return;
            }
            if self.is_window_full(cx) || self.lacks_promises(cx) {
                return;
            }
            let value = match self.reports.take(self.proposals.next()) {
                Some(value) => value,
                None if !self.reports.is_empty() && !cx.rules().fills_gaps() => {
                    self.seal(cx);
                    self.proposals.skip();
                    continue;
                }
                None if !self.reports.is_empty() => Value::Noop,
                None if !has_barrier => {
                    self.proposals.set_barrier();
                    Value::Noop
                }
                None if is_changing => Value::Noop,
                None => return,
            };
            self.append(cx, value);
        }
    }

    /// Accepts what has been proposed since the last time, all at once.
    pub(crate) fn seal(&mut self, cx: &mut Participant) {
        if !self.proposals.has_unsealed() {
            return;
        }
        let (first, values) = self.proposals.seal();
        let batch = Batch { ballot: cx.acceptor.promised(), first, values: values.into() };
        let record = cx.log.write(batch, &mut cx.outbox);
        self.proposals.accepted_by_master(record);
        self.stall.sealed(self.proposals.last(), cx.now);
    }

    /// Sends every replica what it does not have yet, as far ahead of what it has acknowledged as the window allows.
    pub(crate) fn stream(&mut self, cx: &mut Participant) {
        let (ballot, chosen, window) = (cx.acceptor.promised(), cx.chosen(), cx.config.window);
        let (base, last) = (self.proposals.base(), self.proposals.last());
        // Replicas that are equally far share the values.
        let mut shared: Option<(Slot, Slot, Values)> = None;
        for peer in self.peers.iter_mut().filter(|peer| peer.id != cx.config.replica) {
            let known = peer.matched.max(base);
            let until = last.min(Slot(known.0 + window));
            peer.sent = peer.sent.max(known);
            let is_lossy = cx.now < peer.lossy_until;
            let most_bytes = if is_lossy { SMALL_BATCH_BYTES } else { cx.config.batch_bytes };
            while peer.sent < until && peer.sent.next() >= cx.log.first() {
                let first = peer.sent.next();
                let values = match &shared {
                    Some((from, to, values)) if (*from, *to) == (first, until) && !is_lossy => values.clone(),
                    _ => match cx.log.values(first, until, most_bytes) {
                        Some(values) if is_lossy => values,
                        Some(values) => shared.insert((first, until, values)).2.clone(),
                        None => break,
                    },
                };
                peer.sent = Slot(peer.sent.0 + values.len() as u64);
                cx.outbox.send(peer.id, Message::Accept { ballot, base, first, values, chosen });
            }
        }
    }

    // ---- What becomes of proposals ----

    /// A replica has accepted every slot up to `through`, durably.
    pub(crate) fn accepted(&mut self, cx: &mut Participant, from: ReplicaId, ballot: Ballot, through: Slot) {
        if !cx.rules().counts_for(ballot, cx.acceptor.promised()) {
            return;
        }
        let last = self.proposals.last();
        let Some(peer) = self.peers.get_mut(from) else { return };
        peer.last_message_at = cx.now;
        if through > peer.matched {
            peer.matched = through.min(last);
            peer.resend_at = cx.now + cx.config.resend;
            if peer.matched > cx.chosen() {
                self.choose(cx);
            }
        }
    }

    /// What this replica has accepted itself counts once it is durable.
    pub(crate) fn persisted(&mut self, cx: &mut Participant) {
        if let Some(synced) = self.proposals.take_synced(&cx.outbox)
            && let Some(own) = self.peers.get_mut(cx.id())
        {
            own.matched = synced;
            self.choose(cx);
        }
    }

    /// Finds out what is chosen now: what a quorum of those that vote on a slot has accepted.
    fn choose(&mut self, cx: &mut Participant) {
        let before = cx.chosen();
        loop {
            let slot = cx.chosen().next();
            let configurations = cx.configurations();
            let (voters, last) = cx.rules().voters(
                (configurations.at(slot), configurations.last_like(slot)),
                (&configurations.entries()[0].1, self.proposals.last()),
            );
            let accepted = self.peers.accepted_by_quorum(voters, cx.rules());
            let through = accepted.min(last).min(self.proposals.last());
            if through < slot {
                break;
            }
            if self.advance_chosen(cx, through) {
                self.members_changed(cx);
            } else if through < last {
                break;
            }
        }
        if cx.chosen() == before {
            return;
        }
        // New members that are in force have to be durable before the next change, and no heartbeat may be due: a sole
        // voter without a learner sends none. Likewise what a copy is reinstated by.
        if cx.learner.has_unrecorded_members() || cx.is_restored() {
            cx.record_chosen();
        }
        self.repropose_recovered(cx);
    }

    /// The slots up to `through` are chosen. Returns whether the members that vote have changed by that.
    fn advance_chosen(&mut self, cx: &mut Participant, through: Slot) -> bool {
        let known =
            |cx: &Participant| (cx.configurations().newest_from(), cx.configurations().entries().len());
        let (before, handed_out) = (known(cx), cx.outbox.effects.chosen.len());
        cx.advance_chosen(through);
        assert!(cx.outbox.effects.chosen.len() > handed_out, "a master has everything that it has proposed");
        let batches = &cx.outbox.effects.chosen[handed_out..];
        batches.iter().flat_map(|batch| &*batch.values).for_each(|value| self.proposals.value_chosen(value));
        self.stall.chosen(cx.chosen());
        self.restart_stall_clock(cx);
        known(cx) != before
    }

    fn members_changed(&mut self, cx: &mut Participant) {
        self.meet_members(cx);
        self.reports.ask_new_voters(cx);
        cx.record_chosen(); // A replica that is alone now sends no heartbeat that would do it.
    }

    /// Adds every member that votes on an open slot or learns, and removes those that do not.
    pub(crate) fn meet_members(&mut self, cx: &Participant) {
        let ids: Vec<ReplicaId> = cx.configurations().everyone().map(|member| member.id).collect();
        self.peers.set_members(&ids, self.proposals.base(), cx.now + cx.config.resend, cx.now);
    }

    /// Checks what must hold between any two steps.
    pub(crate) fn check(&self, cx: &Participant) {
        let (next, last) = (self.proposals.next(), self.proposals.last());
        assert!(next > cx.chosen(), "a master proposes behind what is chosen");
        assert!(last.0 <= cx.chosen().0 + cx.config.window, "a master proposes beyond its window");
        assert!(cx.acceptor.promised().replica == cx.id(), "a master leads under another's ballot");
    }
}
