//! How a master stays master, and how another takes its place: the lease (P§2.2), changes of members, transfer, and a
//! stall.

use crate::batch::Values;
use crate::leader::{Leader, Peer, SMALL_BATCH_BYTES};
use crate::message::{Mark, Message};
use crate::notice::Notice;
use crate::participant::Participant;
use core::time::Duration;
use wombat_proto::{Error, Instant, Members, ReplicaId, Result, Slot, Value};

/// After a message was lost on the way to a replica, messages to it are small for so many leases.
const LOSSY_LEASES: u32 = 4;

/// How many messages at most repeat what a replica lacks.
const MAX_REPEATED: usize = 8;

/// What a master does after time has passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    Lead,
    StepDown,
    /// Step down in favour of a replica that might do better.
    MakeWay,
}

impl Leader {
    // ---- The master lease ----

    /// Whether, at `now`, no other replica can be master, and this one knows everything that was chosen: what a read
    /// checks after it was done (P§2.2).
    pub(crate) fn lease_holds(&self, cx: &Participant, now: Instant) -> bool {
        self.is_settled(cx) && (cx.is_sole_voter() || now < self.lease_until(cx))
    }

    /// When the lease ends: a quorum of every active configuration has granted it until then, on the slowest of
    /// clocks.
    pub(crate) fn lease_until(&self, cx: &Participant) -> Instant {
        let (rules, newest) = (cx.rules(), cx.configurations().newest());
        let granting = cx.active_configurations().filter(|members| rules.must_grant(members, newest));
        let leased = |peer: &Peer| peer.leased_until.as_nanos();
        let until = granting.map(|members| self.peers.reached_by_quorum(members, leased)).min();
        Instant::from_nanos(until.unwrap_or(0))
    }

    /// Until when nobody else can have completed anything, while this master knows everything that was chosen before.
    pub(crate) fn led_until(&self, cx: &Participant, now: Instant) -> Option<Instant> {
        if !self.proposals.is_barrier_chosen(cx.chosen()) {
            return None;
        }
        let lease = if cx.is_sole_voter() { now } else { self.lease_until(cx) };
        Some(lease.min(now)).filter(|until| *until > Instant::default())
    }

    /// Asks all replicas to grant the lease, and grants it itself.
    pub(crate) fn send_heartbeats(&mut self, cx: &mut Participant) {
        let (now, ballot, chosen, rules) = (cx.now, cx.acceptor.promised(), cx.chosen(), cx.rules());
        let kept_after = Slot(cx.log.first().0 - 1);
        let returns_marks = rules.may_return_mark(self.lease_holds(cx, now));
        let lease = self.heartbeats.lease;
        let (base, barrier) = (self.proposals.base(), self.proposals.barrier());
        let sequence = self.heartbeats.send(now, cx.config.heartbeat, self.proposals.last());
        for peer in self.peers.iter_mut() {
            if peer.id == cx.id() {
                (peer.granted, peer.last_message_at, peer.chosen) = (sequence, now, cx.learner.durable());
                peer.leased_until = peer.leased_until.max(rules.lease_end(now, lease, cx.config.rho));
                peer.round_trip = Some(Duration::ZERO);
                continue;
            }
            let mark = peer.mark.filter(|_| returns_marks);
            let reinstates = cx.reinstatements.get(peer.id);
            let acknowledged = peer.acknowledged(base);
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
                acknowledged,
            };
            cx.outbox.send(peer.id, heartbeat);
        }
        cx.grant_lease(ballot, lease);
        if !cx.is_sole_voter() {
            cx.acceptor.allow_grants_of(lease, &mut cx.outbox);
        }
        cx.record_chosen();
    }

    /// A replica has granted the lease that a heartbeat asked for.
    pub(crate) fn granted(
        &mut self,
        cx: &mut Participant,
        from: ReplicaId,
        sequence: u64,
        chosen: Slot,
        mark: Mark,
        received: Slot,
    ) {
        let (now, rules) = (cx.now, cx.rules());
        let heartbeat = self.heartbeats.get(sequence);
        let before =
            self.heartbeats.get(sequence.saturating_sub(1)).map_or(Slot(0), |earlier| earlier.proposed);
        let Some(peer) = self.peers.get_mut(from) else { return };
        peer.last_message_at = now;
        peer.chosen = peer.chosen.max(chosen);
        peer.mark = peer.mark.max(Some(mark));
        let Some(heartbeat) = heartbeat else { return };
        let start = rules.lease_start(heartbeat.sent_at, now);
        peer.leased_until = peer.leased_until.max(rules.lease_end(start, heartbeat.lease, cx.config.rho));
        if sequence > peer.granted {
            peer.granted = sequence;
            // Less than before if it has restarted, and had not synced what had arrived.
            peer.received = received;
            let sample = now.since(heartbeat.sent_at);
            peer.round_trip = Some(peer.round_trip.map_or(sample, |known| (known * 7 + sample) / 8));
            // What was sent a heartbeat earlier has not arrived before this one.
            let was_sent = before.min(peer.sent);
            if peer.arrived() < was_sent && self.send_again(cx, from, was_sent) {
                self.send_only_small_messages(cx, from);
            }
            self.fit_lease(cx);
        }
    }

    /// Sends a replica the values that it lacks once more, unless it lacks many: those may still be on their way.
    /// Returns whether all were sent.
    fn send_again(&self, cx: &mut Participant, to: ReplicaId, last: Slot) -> bool {
        let Some(peer) = self.peers.get(to) else { return false };
        let (ballot, base, chosen) = (cx.acceptor.promised(), self.proposals.base(), cx.chosen());
        let mut through = peer.arrived().max(base);
        for _ in 0..MAX_REPEATED {
            let first = through.next();
            let is_kept = first >= cx.log.first();
            let values = is_kept.then(|| cx.log.values(first, last, SMALL_BATCH_BYTES)).flatten();
            let is_small =
                |values: &Values| values.iter().map(Value::weight).sum::<usize>() <= SMALL_BATCH_BYTES;
            let Some(values) = values.filter(is_small) else { return false };
            through = Slot(through.0 + values.len() as u64);
            cx.outbox.send(to, Message::Accept { ballot, base, first, values, chosen });
            if through >= last {
                return true;
            }
        }
        false
    }

    /// Sends a replica nothing that does not fit one packet, for a while.
    fn send_only_small_messages(&mut self, cx: &Participant, to: ReplicaId) {
        if let Some(peer) = self.peers.get_mut(to) {
            peer.lossy_until = cx.now + LOSSY_LEASES * cx.config.lease;
        }
    }

    /// The round trip to the quorum that answers fastest, itself included; `None` before a quorum has answered.
    pub(crate) fn round_trip(&self, cx: &Participant) -> Option<Duration> {
        // The shorter, the nearer.
        let nearness = |peer: &Peer| peer.round_trip.map_or(0, |it| u64::MAX - it.as_nanos() as u64);
        let quorums =
            cx.active_configurations().map(|members| self.peers.reached_by_quorum(members, nearness));
        let nearest = quorums.min().unwrap_or(0);
        (nearest > 0).then(|| Duration::from_nanos(u64::MAX - nearest))
    }

    /// Asks for a lease that outlasts the round trip, and for no longer one than that.
    fn fit_lease(&mut self, cx: &mut Participant) {
        let (shortest, longest) = (cx.config.lease, cx.config.longest_lease);
        let Some(round_trip) = self.round_trip(cx) else { return };
        let Some(lease) = self.heartbeats.fitting_lease(round_trip, shortest, longest) else { return };
        let is_longer = lease > self.heartbeats.lease;
        self.heartbeats.lease = lease;
        if is_longer {
            // It could not keep its lease so far; now it can. The next heartbeat is due at once.
            (self.elected_at, self.heartbeats.due_at) = (cx.now, cx.now);
            cx.outbox.effects.notices.push(Notice::LeaseLengthened { round_trip, lease, longest });
        }
    }

    // ---- Time ----

    pub(crate) fn tick(&mut self, cx: &mut Participant) -> Next {
        let now = cx.now;
        let is_handed_over = self.transfer.is_some_and(|(_, until)| now >= until);
        if is_handed_over || self.has_lapsed(cx) {
            return Next::StepDown;
        }
        if self.should_make_way(cx) {
            return Next::MakeWay;
        }
        for peer in self.peers.iter_mut().filter(|peer| now >= peer.resend_at) {
            peer.sent = peer.matched.max(self.proposals.base());
            peer.resend_at = now + cx.config.resend;
        }
        if now >= self.resend_prepares_at {
            self.resend_prepares_at = now + cx.config.resend;
            self.reports.ask_again(cx);
        }
        if now >= self.heartbeats.due_at {
            self.send_heartbeats(cx);
        }
        Next::Lead
    }

    /// Whether no quorum has granted the lease for so long that the master gives up. The lease itself may have ended
    /// before: the master serves nobody then, but may still be granted another.
    fn has_lapsed(&self, cx: &Participant) -> bool {
        let (lease, patience) = (cx.config.lease, cx.config.patience);
        let until = (self.lease_until(cx) + patience.saturating_sub(lease)).max(self.elected_at + patience);
        cx.now >= until && !cx.is_sole_voter() && cx.rules().steps_down_when_lapsed()
    }

    pub(crate) fn deadline(&self, cx: &Participant) -> Option<Instant> {
        if self.peers.iter().all(|peer| peer.id == cx.id()) {
            // It may have been about to hand over to a replica that is no member any more.
            return self.transfer.map(|(_, until)| until);
        }
        let unacknowledged = self.peers.iter().filter(|peer| peer.sent > peer.matched);
        let resend_at = unacknowledged.map(|peer| peer.resend_at).min();
        Some(resend_at.map_or(self.heartbeats.due_at, |at| at.min(self.heartbeats.due_at)))
    }

    // ---- Changes of members ----

    /// Proposes other members: at most one voter may leave and one may come.
    pub(crate) fn change_members(&mut self, cx: &mut Participant, members: Members) -> Result<Slot> {
        self.has_room(cx, 0)?;
        members.check()?;
        self.seal(cx);
        let mut open = cx.log.range(cx.chosen().next(), self.proposals.last());
        let is_changing = open.any(|(.., value)| matches!(value, Value::Members(_)));
        drop(open);
        if is_changing || !self.members_in_force(cx) {
            return Err(Error::invalid("the last change of the members is not in force yet"));
        }
        let before = cx.configurations().newest();
        let leave = before.voters.iter().filter(|voter| !members.is_voter(voter.id)).count();
        let come = members.voters.iter().filter(|voter| !before.is_voter(voter.id)).count();
        if leave > 1 || come > 1 || members.next_id < before.next_id {
            return Err(Error::invalid("one voter may leave and one may come at a time"));
        }
        Ok(self.append(cx, Value::Members(members)))
    }

    /// Whether the newest members are in force, and a quorum of them can do without those before: it knows, durably,
    /// everything that was chosen while those voted.
    pub(crate) fn members_in_force(&self, cx: &Participant) -> bool {
        let (newest, from) = (cx.configurations().newest(), cx.configurations().newest_from());
        let knows = |id| match self.peers.get(id) {
            _ if id == cx.id() => cx.learner.durable().next() >= from,
            peer => peer.is_some_and(|peer| peer.chosen.next() >= from),
        };
        from <= cx.chosen().next() && newest.is_quorum(knows)
    }

    // ---- Ways to another master ----

    /// Begins to hand mastership to another voter.
    pub(crate) fn transfer(&mut self, cx: &mut Participant, to: ReplicaId) -> Result<()> {
        if !cx.is_voter_of_all(to) || to == cx.id() {
            return Err(Error::invalid(alloc::format!("replica {to} is not another voter of this cell")));
        }
        self.transfer = Some((to, cx.now + cx.config.patience));
        cx.election.successor = Some(to);
        Ok(())
    }

    /// The replica that mastership is being transferred to, if it has everything.
    pub(crate) fn ready_successor(&self) -> Option<ReplicaId> {
        let (to, _) = self.transfer?;
        let peer = self.peers.get(to)?;
        (peer.matched == self.proposals.last()).then_some(to)
    }

    /// A master that has no vote any more hands over, once one of those that have knows that it has.
    pub(crate) fn leave_if_removed(&mut self, cx: &mut Participant) {
        let (newest, from) = (cx.configurations().newest(), cx.configurations().newest_from());
        if newest.is_voter(cx.id()) || from > cx.chosen().next() || self.transfer.is_some() {
            return;
        }
        let voters = newest.voters.iter().filter_map(|voter| self.peers.get(voter.id));
        let heirs = voters.filter(|peer| peer.chosen.next() >= from);
        if let Some(heir) = heirs.max_by_key(|peer| peer.matched).map(|peer| peer.id) {
            let _it_has_a_vote = self.transfer(cx, heir);
        }
    }

    /// For how long it has been held up, with nothing chosen meanwhile.
    pub(crate) fn stalled_for(&self, cx: &Participant) -> Duration {
        let is_held_up = self.stall.has_open()
            || self.proposals.is_disk_stalled(cx.config.window)
            || self.lacks_promises(cx);
        if is_held_up { self.stall.elapsed(cx.now) } else { Duration::ZERO }
    }

    /// Whether nothing has been chosen for so long that another should try.
    fn should_make_way(&self, cx: &Participant) -> bool {
        self.transfer.is_none()
            && self.stalled_for(cx) >= cx.election.stall_patience(cx.config.stall)
            && self.others_may_choose(cx)
            && cx.rules().makes_way()
    }

    /// Whether those that answer, and do not just wait for their disks, are a quorum.
    fn others_may_choose(&self, cx: &Participant) -> bool {
        let may_accept = |id| self.peers.get(id).is_some_and(|peer| self.may_accept(cx, peer));
        cx.active_configurations().all(|members| members.is_quorum(may_accept))
    }

    /// Whether a voter might accept the next slot at once if a master reached it.
    fn may_accept(&self, cx: &Participant, peer: &Peer) -> bool {
        let slot = cx.chosen().next();
        let (answers, has_it) = if peer.id == cx.id() {
            (true, cx.log.last() >= slot || self.proposals.is_disk_stalled(cx.config.window))
        } else {
            (cx.now.since(peer.last_message_at) < cx.config.patience, peer.received >= slot)
        };
        answers && (peer.matched >= slot || !has_it)
    }

    /// The voter that has got furthest, of those that might do better than a stalled master.
    pub(crate) fn heir(&self, cx: &Participant) -> Option<ReplicaId> {
        let others = self.peers.iter().filter(|peer| peer.id != cx.id() && cx.is_voter_of_all(peer.id));
        let able = others.filter(|peer| self.may_accept(cx, peer));
        able.max_by_key(|peer| (peer.matched, peer.received, peer.last_message_at)).map(|peer| peer.id)
    }

    /// Stops leading, for good under this ballot.
    pub(crate) fn step_down(mut self, cx: &mut Participant) {
        self.seal(cx);
        cx.freshness.led_until(self.led_until(cx, cx.now));
        cx.election.released = cx.acceptor.promised();
        cx.acceptor.end_grant();
        let open_from = self.proposals.first_own().max(cx.chosen().next());
        let open = cx.log.range(open_from, self.proposals.last());
        let commands = open.filter_map(|(slot, _, value)| match value {
            Value::Command(command) => Some((slot, command.clone())),
            _ => None,
        });
        cx.orphans.add(commands, 2 * cx.config.window, &mut cx.outbox.effects.ended);
        cx.postpone_election();
    }
}
