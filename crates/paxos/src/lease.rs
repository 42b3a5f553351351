//! The master lease (P§2.2): heartbeats ask for it, grants extend it, and it is as long as round trips need.
//!
//! The lease is timed at the sending of a heartbeat, so of a lease that is shorter than the round trip nothing is
//! left when the grant arrives. A master that measures such round trips asks for a longer lease, within
//! [`crate::Config::longest_lease`].

use crate::acceptor::Grant;
use crate::leader::{Leadership, SMALL_BATCH_BYTES, reached_by_quorum};
use crate::{Mark, Message, Notice, Paxos, Role, Values, planted};
use alloc::collections::VecDeque;
use core::time::Duration;
use wombat_proto::{Ballot, Instant, Record, ReplicaId, Slot, Value};

/// How many heartbeats a master remembers.
const HEARTBEATS_KEPT: usize = 256;

/// A master asks for a lease of so many round trips when the one that it has is shorter than [`TOO_SHORT`] of
/// them, or longer than [`TOO_LONG`].
const ENOUGH: u32 = 3;
const TOO_SHORT: u32 = 2;
const TOO_LONG: u32 = 8;

/// After a message was lost on the way to a replica, messages to it are small for so many leases.
const LOSSY_FOR: u32 = 4;

/// How many messages at most repeat what a replica lacks.
const SENT_AGAIN: usize = 8;

/// The heartbeats of one master.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Heartbeats {
    /// The number of the last one.
    sequence: u64,
    /// The latest ones, oldest first.
    sent: VecDeque<Heartbeat>,
    pub(crate) due_at: Instant,
    /// The lease that the next one asks for.
    pub(crate) lease: Duration,
}

/// A heartbeat that was sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Heartbeat {
    at: Instant,
    /// The lease that it asked for.
    lease: Duration,
    /// The last slot that was proposed by then.
    proposed: Slot,
}

impl Heartbeats {
    pub(crate) fn new(lease: Duration, now: Instant) -> Heartbeats {
        Heartbeats { sequence: 0, sent: VecDeque::new(), due_at: now, lease }
    }

    /// The heartbeat of that number, if it is remembered.
    fn get(&self, sequence: u64) -> Option<Heartbeat> {
        let ago = self.sequence.checked_sub(sequence)? as usize;
        self.sent.len().checked_sub(1 + ago).map(|place| self.sent[place])
    }
}

impl Paxos {
    /// Whether, at `now`, no other replica can be master, and this one knows everything that was chosen: what
    /// a read checks after it was done (P§2.2).
    pub fn lease_holds(&self, now: Instant) -> bool {
        match &self.role {
            Role::Leading(leadership) => {
                self.is_settled(leadership) && (self.is_sole_voter() || now < self.lease_until(leadership))
            }
            _ => false,
        }
    }

    /// When the lease ends: a quorum of everyone who governs an open slot has granted it until then, on the
    /// slowest of clocks.
    pub(crate) fn lease_until(&self, leadership: &Leadership) -> Instant {
        let until = |id| leadership.peer(id).map_or(0, |peer| peer.leased_until.as_nanos());
        let until = if planted!(self, OneConfigurationLeased) {
            reached_by_quorum(self.configurations.newest(), until)
        } else {
            self.governing().map(|members| reached_by_quorum(members, until)).min().unwrap_or(0)
        };
        Instant::from_nanos(until)
    }

    /// When a lease ends that was asked for at `sent`.
    fn end_of_lease(&self, sent: Instant, lease: Duration) -> Instant {
        if planted!(self, DriftIgnored) { sent + lease } else { sent + self.config.rho.shorten(lease) }
    }

    pub(crate) fn send_heartbeats(&mut self) {
        let (now, own, ballot) = (self.now, self.config.replica, self.promised);
        let (chosen, chosen_durable) = (self.chosen, self.chosen_durable);
        let kept_after = Slot(self.log.first().0 - 1);
        let vouches = self.lease_holds(now) || planted!(self, VouchedUnleased);
        let Role::Leading(leadership) = &self.role else { return };
        let lease = leadership.heartbeats.lease;
        let own_until = self.end_of_lease(now, lease);
        let Role::Leading(leadership) = &mut self.role else { return };
        let (base, proposed, barrier) = (leadership.base, leadership.last_proposed(), leadership.barrier);
        let heartbeats = &mut leadership.heartbeats;
        heartbeats.due_at = now + self.config.heartbeat;
        heartbeats.sequence += 1;
        heartbeats.sent.push_back(Heartbeat { at: now, lease, proposed });
        if heartbeats.sent.len() > HEARTBEATS_KEPT {
            heartbeats.sent.pop_front();
        }
        let sequence = heartbeats.sequence;
        for peer in &mut leadership.peers {
            if peer.id == own {
                (peer.granted, peer.heard, peer.chosen) = (sequence, now, chosen_durable);
                peer.leased_until = peer.leased_until.max(own_until);
                peer.round_trip = Some(Duration::ZERO);
                continue;
            }
            let mark = peer.mark.filter(|_| vouches);
            let reinstates = self.reinstates.get(&peer.id).copied();
            let heartbeat = Message::Heartbeat {
                ballot,
                base,
                sequence,
                lease,
                chosen,
                kept_after,
                mark,
                barrier,
                reinstates,
            };
            self.out.send.push((peer.id, heartbeat));
        }
        self.grant_lease(ballot, lease);
        if !self.is_sole_voter() {
            self.record_lease_bound(lease);
        }
        self.record_chosen();
    }

    /// Grants the lease from now on; never for less than it was granted to the same ballot before, as the master
    /// counts on the longest grant that it knows of.
    pub(crate) fn grant_lease(&mut self, ballot: Ballot, lease: Duration) {
        let until = self.now + lease;
        let before = self.grant.as_ref().filter(|grant| grant.ballot == ballot).map(|grant| grant.until);
        let before = before.filter(|_| !planted!(self, ShorterGrantReplaces));
        self.grant = Some(Grant::new(ballot, before.map_or(until, |before| before.max(until))));
    }

    /// Remembers over restarts for how long it may have granted a lease.
    pub(crate) fn record_lease_bound(&mut self, lease: Duration) {
        if lease > self.lease_bound {
            self.lease_bound = lease;
            self.lease_record = self.record(Record::LeaseBound(lease));
        }
    }

    pub(crate) fn granted(
        &mut self,
        from: ReplicaId,
        ballot: Ballot,
        sequence: u64,
        chosen: Slot,
        mark: Mark,
        received: Slot,
    ) {
        let now = self.now;
        if ballot != self.promised {
            return;
        }
        let Role::Leading(leadership) = &self.role else { return };
        let heartbeat = leadership.heartbeats.get(sequence);
        let until = heartbeat.map_or(Instant::default(), |heartbeat| {
            let from_receipt = planted!(self, LeaseFromReceipt);
            self.end_of_lease(if from_receipt { now } else { heartbeat.at }, heartbeat.lease)
        });
        let before =
            leadership.heartbeats.get(sequence.saturating_sub(1)).map_or(Slot(0), |earlier| earlier.proposed);
        let Role::Leading(leadership) = &mut self.role else { return };
        let Some(peer) = leadership.peer_mut(from) else { return };
        peer.heard = now;
        peer.leased_until = peer.leased_until.max(until);
        peer.chosen = peer.chosen.max(chosen);
        peer.mark = peer.mark.max(Some(mark));
        if let Some(heartbeat) = heartbeat.filter(|_| sequence > peer.granted) {
            peer.granted = sequence;
            // Less than before if it has restarted, and had not synced what had arrived.
            peer.received = received;
            let sample = now.since(heartbeat.at);
            peer.round_trip = Some(peer.round_trip.map_or(sample, |known| (known * 7 + sample) / 8));
            // What was sent a heartbeat earlier has not arrived before this one.
            let was_sent = before.min(peer.sent);
            if peer.received.max(peer.matched) < was_sent && self.send_again(from, was_sent) {
                self.small_messages_only(from);
            }
            self.fit_lease();
        }
        self.leave_if_removed();
    }

    /// Sends a replica the values that it lacks once more, unless there is much that it lacks: that may still be under
    /// way. Returns whether all were sent.
    fn send_again(&mut self, to: ReplicaId, last: Slot) -> bool {
        let Role::Leading(leadership) = &self.role else { return false };
        let Some(peer) = leadership.peer(to) else { return false };
        let (ballot, base, chosen) = (self.promised, leadership.base, self.chosen);
        let mut through = peer.matched.max(peer.received).max(base);
        for _ in 0..SENT_AGAIN {
            let first = through.next();
            let is_kept = first >= self.log.first();
            let values = is_kept.then(|| self.log.values(first, last, SMALL_BATCH_BYTES)).flatten();
            let is_small =
                |values: &Values| values.iter().map(Value::weight).sum::<usize>() <= SMALL_BATCH_BYTES;
            let Some(values) = values.filter(is_small) else { return false };
            through = Slot(through.0 + values.len() as u64);
            self.out.send.push((to, Message::Accept { ballot, base, first, values, chosen }));
            if through >= last {
                return true;
            }
        }
        false
    }

    /// Sends a replica nothing that does not fit one packet, for a while.
    fn small_messages_only(&mut self, to: ReplicaId) {
        let until = self.now + LOSSY_FOR * self.config.lease;
        if let Role::Leading(leadership) = &mut self.role
            && let Some(peer) = leadership.peer_mut(to)
        {
            peer.lossy_until = until;
        }
    }

    /// The round trip to the quorum that answers fastest, itself included; `None` before a quorum has answered.
    pub(crate) fn round_trip(&self, leadership: &Leadership) -> Option<Duration> {
        // The shorter, the further.
        let nearness = |id| {
            let round_trip = leadership.peer(id).and_then(|peer| peer.round_trip);
            round_trip.map_or(0, |it| u64::MAX - it.as_nanos() as u64)
        };
        let nearest = self.governing().map(|members| reached_by_quorum(members, nearness)).min().unwrap_or(0);
        (nearest > 0).then(|| Duration::from_nanos(u64::MAX - nearest))
    }

    /// Asks for a lease that outlasts the round trip, and for no longer one than that.
    fn fit_lease(&mut self) {
        let (shortest, longest) = (self.config.lease, self.config.longest_lease);
        let Role::Leading(leadership) = &self.role else { return };
        let Some(round_trip) = self.round_trip(leadership) else { return };
        let before = leadership.heartbeats.lease;
        let fits =
            before >= TOO_SHORT * round_trip && (before <= TOO_LONG * round_trip || before <= shortest);
        if fits || (before >= longest && before < TOO_SHORT * round_trip) {
            return;
        }
        let units = (ENOUGH * round_trip).as_nanos().div_ceil(shortest.as_nanos().max(1));
        let wanted = shortest.saturating_mul(units.min(u128::from(u32::MAX)) as u32);
        let lease = wanted.min(longest).max(shortest);
        let now = self.now;
        if let Role::Leading(leadership) = &mut self.role {
            leadership.heartbeats.lease = lease;
        }
        if lease > before {
            // It could not keep its lease so far; now it can. The next heartbeat is due at once.
            if let Role::Leading(leadership) = &mut self.role {
                (leadership.elected_at, leadership.heartbeats.due_at) = (now, now);
            }
            self.out.notices.push(Notice::LeaseLengthened { round_trip, lease, longest });
        }
    }
}
