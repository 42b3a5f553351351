//! A replica of the agreement: its inputs, what each of them leads to, and what it can be asked.

use crate::batch::Batch;
use crate::config::Config;
use crate::configurations::Configurations;
use crate::effects::{Effects, WantedChunk};
use crate::learner::RECORD_CHOSEN_INTERVAL;
use crate::message::Message;
use crate::participant::Participant;
use crate::reports::ReportPart;
use crate::role::Role;
use crate::status::{PeerStatus, Standing, Status};
use bytes::Bytes;
use core::time::Duration;
use wombat_proto::{Ballot, Epoch, Error, Instant, Members, Recovered, ReplicaId, Result, Slot};

/// One replica's part in the agreement. `Clone + Hash`, so that a model checker can walk its states.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Paxos {
    participant: Participant,
    role: Role,
}

/// Inputs.
impl Paxos {
    /// Starts a replica from what its disk knew. `configurations` are those of its snapshot; the founding members if it
    /// has none. [`Paxos::flush`] then hands out what is known to be chosen above the snapshot.
    pub fn new(config: Config, configurations: Configurations, recovered: Recovered, now: Instant) -> Paxos {
        let participant = Participant::new(config, configurations, recovered, now);
        Paxos { participant, role: Role::Following }
    }

    /// What the wall clock shows, in milliseconds since 1970. It may jump; it decides nothing but how high the round
    /// of the next candidacy is at least.
    pub fn set_wall_clock(&mut self, wall_ms: u64) {
        self.participant.election.set_wall_clock(wall_ms);
    }

    /// A message has arrived.
    pub fn receive(&mut self, now: Instant, from: ReplicaId, message: Message) {
        self.participant.advance_clock(now);
        if !message.is_sane() {
            return;
        }
        let cx = &mut self.participant;
        match message {
            Message::Ask { round, chosen, everyone } => {
                cx.answer_pre_vote(from, round, chosen, everyone, self.role.is_leading());
                self.catch_up_if_behind(from, chosen);
            }
            Message::Answer { round, granted, promised, chosen } => {
                self.answered(from, round, granted, promised, chosen);
            }
            Message::Prepare { ballot, above, released, everyone } => {
                self.prepare(from, ballot, above, released, everyone);
            }
            Message::Promise { ballot, above, accepted, through, complete, restored } => {
                if ballot == cx.acceptor.promised() {
                    let (is_complete, is_restored) = (complete, restored);
                    let part = ReportPart { above, accepted, through, is_complete, is_restored };
                    self.role.report_arrived(cx, from, part);
                }
            }
            Message::Accept { ballot, base, first, values, chosen } => {
                self.accept(from, base, Batch { ballot, first, values }, chosen);
            }
            Message::Accepted { ballot, through } => {
                if let Role::Leading(leader) = &mut self.role {
                    leader.accepted(cx, from, ballot, through);
                    self.role.hand_over_if_ready(cx);
                }
            }
            Message::Heartbeat {
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
            } => {
                if cx.has_lost(acknowledged) {
                    self.lose_vote();
                }
                let cx = &mut self.participant;
                if !cx.trusts_master(ballot, barrier, reinstates) {
                    self.catch_up_if_behind(from, chosen);
                    self.participant.ask_for_reinstatement(from, reinstates);
                } else if self.follow(from, ballot, base, chosen) {
                    let cx = &mut self.participant;
                    cx.mark_returned(mark, chosen);
                    cx.grant(from, ballot, sequence, lease, base);
                    cx.acknowledge(from, ballot);
                    cx.catch_up_with_master(from, chosen, kept_after);
                    cx.record_chosen();
                    cx.reinstate_if_caught_up(None);
                }
            }
            Message::Granted { ballot, sequence, chosen, mark, received } => {
                if ballot == cx.acceptor.promised()
                    && let Role::Leading(leader) = &mut self.role
                {
                    leader.granted(cx, from, sequence, chosen, mark, received);
                    self.role.hand_over_if_ready(cx);
                }
            }
            Message::Refused { promised } => self.refused(from, promised),
            Message::Fetch { above } => cx.answer_fetch(from, above),
            Message::Learn { chosen, through } => {
                // A master learns from no other: if others choose, it is master no more, and they will refuse it.
                if !self.role.is_leading() {
                    cx.learn(from, chosen, through);
                }
            }
            Message::Truncated { snapshot } => cx.log_truncated(from, snapshot),
            Message::FetchChunk { snapshot, index } => {
                cx.outbox.effects.wanted_chunks.push(WantedChunk { to: from, snapshot, index });
            }
            Message::Chunk { snapshot, index, last, bytes } => {
                cx.take_chunk(from, snapshot, index, last, bytes);
            }
            Message::TakeOver { ballot, stalls } => self.take_over(from, ballot, stalls),
            Message::Restored { number } => self.reinstatement_asked(from, number),
        }
    }

    /// The first `through` records ever handed out are durable.
    pub fn persisted(&mut self, now: Instant, through: u64) {
        let cx = &mut self.participant;
        cx.advance_clock(now);
        cx.persisted(through);
        self.role.persisted(cx);
        self.role.hand_over_if_ready(cx);
        cx.reinstate_if_caught_up(self.role.leader().and_then(|leader| leader.proposals.barrier()));
    }

    /// Time has passed; due by [`Paxos::next_deadline`], welcome at any time.
    pub fn tick(&mut self, now: Instant) {
        self.participant.advance_clock(now);
        self.role.tick(&mut self.participant);
        self.participant.tick_catch_up();
    }

    /// The connection of a replica is gone. That proves nothing, so a lease that it has goes on; but if it was the
    /// master, there is no reason to wait for longer than that.
    pub fn lost(&mut self, now: Instant, replica: ReplicaId) {
        let cx = &mut self.participant;
        cx.advance_clock(now);
        let soon = cx.jitter(cx.config.heartbeat);
        if let Some(until) = cx.acceptor.granted_until()
            && cx.acceptor.granted_to() == Some(replica)
            && self.role.is_following()
        {
            cx.acceptor.connection_lost();
            cx.election.due_at = cx.election.due_at.min(until.max(cx.now) + soon);
        }
    }

    /// Another replica knows a later start of this one: its disk is an older copy, though it does not look like one.
    pub fn rolled_back(&mut self, now: Instant) {
        let cx = &mut self.participant;
        cx.advance_clock(now);
        self.lose_vote();
    }

    /// What this replica acknowledged is missing on its disk.
    fn lose_vote(&mut self) {
        let cx = &mut self.participant;
        if !cx.is_restored() && !cx.is_sole_voter() {
            self.role.step_down(cx);
            cx.lose_vote();
            cx.look_for_master_after_silence();
            cx.outbox.effects.rolled_back = true;
        }
    }

    /// A snapshot of every slot up to `slot` is durable: the log before it may go.
    pub fn snapshotted(&mut self, slot: Slot) {
        self.participant.learner.snapshotted(slot);
        self.participant.trim();
    }

    /// The snapshot that was received is durable. Returns whether the state has to be replaced by it: not if this
    /// replica has got further meanwhile. `configurations` are those that the snapshot was taken with.
    pub fn installed(&mut self, now: Instant, slot: Slot, configurations: Configurations) -> bool {
        let cx = &mut self.participant;
        cx.advance_clock(now);
        cx.catch_up = None;
        let installs = cx.rules().may_install(slot, cx.chosen()) && !self.role.is_leading();
        if installs {
            cx.install(slot, configurations);
        }
        installs
    }

    /// The snapshot that was received cannot be used.
    pub fn install_failed(&mut self) {
        self.participant.catch_up = None;
    }

    /// Proposes a command. Returns its slot. The proposal ends in [`Effects::chosen`] while this replica leads, or in
    /// [`Effects::ended`], or with this replica's life.
    ///
    /// Errors: [`Error::NotMaster`]; [`Error::Overloaded`] while too many proposals are in flight, or mastership is on
    /// its way to another.
    pub fn propose(&mut self, command: Bytes) -> Result<Slot> {
        match &mut self.role {
            Role::Leading(leader) => leader.propose(&mut self.participant, command),
            _ => Err(Error::NotMaster { hint: None }),
        }
    }

    /// Proposes other members: at most one voter may leave and one may come. They are in force α slots later.
    ///
    /// Errors: as [`Paxos::propose`]; [`Error::InvalidArgument`] for members that may not follow the present ones, or
    /// while an earlier change is not in force.
    pub fn change_members(&mut self, members: Members) -> Result<Slot> {
        match &mut self.role {
            Role::Leading(leader) => leader.change_members(&mut self.participant, members),
            _ => Err(Error::NotMaster { hint: None }),
        }
    }

    /// Hands mastership to another voter: this replica stops proposing, waits until `to` has everything, but not
    /// longer than its patience, and steps down.
    ///
    /// Errors: [`Error::NotMaster`]; [`Error::InvalidArgument`] if `to` has no vote.
    pub fn transfer(&mut self, to: ReplicaId) -> Result<()> {
        match &mut self.role {
            Role::Leading(leader) => leader.transfer(&mut self.participant, to)?,
            _ => return Err(Error::NotMaster { hint: None }),
        }
        self.role.hand_over_if_ready(&mut self.participant);
        Ok(())
    }

    /// Hands out all that follows from the inputs so far.
    pub fn flush(&mut self, effects: &mut Effects) {
        let cx = &mut self.participant;
        if let Role::Leading(leader) = &mut self.role {
            leader.seal(cx);
            leader.stream(cx);
        }
        // Now and then, with other records; a heartbeat does it as well.
        if cx.learner.is_record_due() && !cx.outbox.effects.persist.is_empty() {
            cx.record_chosen();
        }
        cx.outbox.effects.move_into(effects);
    }
}

/// Messages that can change the role.
impl Paxos {
    /// Begins to catch up from a replica that knows more. A master does not: it knows the most.
    fn catch_up_if_behind(&mut self, from: ReplicaId, chosen: Slot) {
        if chosen > self.participant.chosen() && !self.role.is_leading() {
            self.participant.catch_up_from(from);
        }
    }

    /// Another replica has answered a pre-vote, or refused a Prepare.
    fn answered(&mut self, from: ReplicaId, round: u64, granted: bool, promised: Ballot, chosen: Slot) {
        self.participant.election.note_round(promised.round);
        self.catch_up_if_behind(from, chosen);
        let cx = &mut self.participant;
        if granted {
            return self.role.pre_vote_granted(cx, from, round);
        }
        // It has promised, but what this replica asks for is not kept any more: this one has to learn it first. A late
        // answer to the pre-vote before is no refusal of the Prepare.
        let is_gone = promised == cx.acceptor.promised() && promised.round == round && chosen > cx.chosen();
        match &self.role {
            Role::Preparing(_) if is_gone => self.role.give_up(cx),
            // A master by former members that needs the report of others now.
            Role::Leading(leader) if is_gone && leader.lacks_promises(cx) => {
                self.role.step_down(cx);
                cx.catch_up_from(from);
            }
            _ => {}
        }
    }

    /// Phase 1: a candidate asks for a promise.
    fn prepare(&mut self, from: ReplicaId, ballot: Ballot, above: Slot, released: Ballot, everyone: bool) {
        let cx = &mut self.participant;
        if !cx.may_prepare(from, ballot, everyone)
            || self.role.leads_alone(cx)
            || cx.lease_forbids(ballot, released)
        {
            return;
        }
        if ballot > cx.acceptor.promised() {
            self.role.step_down(cx);
            cx.promise(ballot);
        }
        if everyone {
            cx.trust(ballot);
        }
        cx.report(from, ballot, above);
    }

    /// Follows the master of a ballot, if this replica may. Returns whether it does.
    fn follow(&mut self, from: ReplicaId, ballot: Ballot, base: Slot, chosen: Slot) -> bool {
        let cx = &mut self.participant;
        let leads_alone = self.role.leads_alone(cx);
        let follows = cx.may_follow(from, ballot, leads_alone);
        if follows {
            self.role.step_down(cx);
            cx.follow(ballot, base, chosen);
        }
        follows
    }

    /// Phase 2: a master asks to accept values.
    fn accept(&mut self, from: ReplicaId, base: Slot, batch: Batch, chosen: Slot) {
        if self.follow(from, batch.ballot, base, chosen) {
            self.participant.accept(from, batch, base, chosen);
        }
    }

    /// Another replica has promised a higher ballot. A member that did, learner or not, can never follow this master
    /// again: the master takes a higher ballot itself.
    fn refused(&mut self, from: ReplicaId, promised: Ballot) {
        let cx = &mut self.participant;
        cx.election.note_round(promised.round);
        let own = cx.acceptor.promised();
        match self.role {
            Role::PreVoting(_) | Role::Preparing(_) if promised.round > own.round => self.role.give_up(cx),
            Role::Leading(_) if promised > own && cx.configurations().knows(from) => self.role.lead_anew(cx),
            _ => {}
        }
    }

    /// The master hands over: it serves no longer, so its lease forbids nothing.
    fn take_over(&mut self, from: ReplicaId, ballot: Ballot, stalls: u32) {
        let cx = &mut self.participant;
        let follows = cx.acceptor.promised() == ballot
            && ballot.replica == from
            && from != cx.id()
            && self.role.is_following();
        if follows && cx.may_vote() && !cx.acceptor.is_silent(cx.now) && !cx.is_restored() {
            cx.acceptor.end_grant();
            cx.election.released = ballot;
            cx.election.count_stalls(stalls, cx.config.stall, cx.now);
            self.role.prepare_next(cx);
        }
    }

    /// A replica has come back with a copy of its disk. A master takes a ballot that rests on nothing that the replica
    /// has forgotten.
    fn reinstatement_asked(&mut self, from: ReplicaId, number: u64) {
        let cx = &mut self.participant;
        let configurations = cx.learner.configurations();
        let is_other_member = configurations.knows(from) && from != cx.config.replica;
        if is_other_member
            && self.role.is_leading()
            && cx.reinstatements.add(from, number, |id| configurations.knows(id))
            && cx.rules().reinstates_with_new_ballot()
        {
            self.role.lead_anew(cx);
        }
    }
}

/// Questions.
impl Paxos {
    /// The ballot that this replica leads with, or has promised.
    pub fn ballot(&self) -> Ballot {
        self.participant.acceptor.promised()
    }

    /// The epoch in which this replica may propose: it leads, and its own first value and all before it are chosen.
    /// `None` while it may not.
    pub fn leads(&self) -> Option<Epoch> {
        let leader = self.role.leader().filter(|leader| leader.is_settled(&self.participant));
        leader.map(|_| self.ballot().epoch())
    }

    /// Whether, at `now`, no other replica can be master, and this one knows everything that was chosen: what a read
    /// checks after it was done (P§2.2).
    pub fn lease_holds(&self, now: Instant) -> bool {
        self.role.leader().is_some_and(|leader| leader.lease_holds(&self.participant, now))
    }

    /// Whether this replica leads a cell that goes on from copies of its disks: what was chosen since they were made
    /// may be lost.
    pub fn leads_from_copies(&self) -> bool {
        self.role.leader().is_some_and(|leader| leader.from_copies)
    }

    /// The replica that this one takes for the master, if any.
    pub fn master(&self) -> Option<ReplicaId> {
        let cx = &self.participant;
        match &self.role {
            Role::Leading(leader) => leader.is_settled(cx).then_some(cx.id()),
            _ => cx.acceptor.reachable_master(cx.now),
        }
    }

    /// The replica whose lease this one has granted, while it lasts: no other is promised anything.
    pub fn bound_to(&self) -> Option<ReplicaId> {
        self.participant.acceptor.lease_holder(self.participant.now)
    }

    /// The replica that this one has handed its mastership over to, or is about to, until it knows of a later ballot.
    pub fn successor(&self) -> Option<ReplicaId> {
        self.participant.election.successor
    }

    /// The last slot that is known to be chosen.
    pub fn chosen(&self) -> Slot {
        self.participant.chosen()
    }

    /// The moment before which, by this replica's clock, whatever was completed in the cell is in the slots up to
    /// [`Paxos::chosen`]: what any master has told anyone. `None` if it has been sure of nothing since it started.
    pub fn complete_until(&self, now: Instant) -> Option<Instant> {
        let cx = &self.participant;
        let led = self.role.leader().and_then(|leader| leader.led_until(cx, now));
        cx.freshness.complete_until(cx.chosen()).max(led)
    }

    /// The members that vote on the slots after the last one handed out as chosen: what belongs into a snapshot of it.
    pub fn configurations(&self) -> &Configurations {
        self.participant.configurations()
    }

    /// When the next [`Paxos::tick`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let catch_up = self.participant.catch_up.as_ref().map(|catch_up| catch_up.retry_at);
        self.role.deadline(&self.participant).into_iter().chain(catch_up).min()
    }

    /// What this replica is doing, and what it knows.
    pub fn status(&self) -> Status {
        let cx = &self.participant;
        let leader = self.role.leader();
        let standing = match &self.role {
            Role::Leading(_) => Standing::Leading,
            _ if cx.is_restored() => Standing::Restored,
            Role::PreVoting(_) | Role::Preparing(_) => Standing::Campaigning,
            Role::Following if cx.may_vote() => Standing::Following,
            Role::Following => Standing::Learning,
        };
        let members_in_force = match leader {
            Some(leader) => leader.members_in_force(cx),
            None => cx.configurations().newest_from() <= cx.learner.durable().next(),
        };
        let peers = leader.into_iter().flat_map(|leader| leader.peers.iter()).map(|peer| PeerStatus {
            id: peer.id,
            accepted: peer.matched,
            chosen: peer.chosen,
            silent_for: cx.now.since(peer.last_message_at),
            round_trip: peer.round_trip,
            received: peer.arrived(),
        });
        Status {
            standing,
            master: self.master(),
            ballot: self.ballot(),
            chosen: cx.chosen(),
            last: cx.log.last().max(cx.chosen()),
            lease_left: leader.map_or(Duration::ZERO, |leader| leader.lease_until(cx).since(cx.now)),
            lease: leader.map_or(Duration::ZERO, |leader| leader.heartbeats.lease),
            lease_range: (cx.config.lease, cx.config.longest_lease),
            round_trip: leader.and_then(|leader| leader.round_trip(cx)),
            oldest_proposal: leader.and_then(|leader| leader.stall.oldest()).map(|at| cx.now.since(at)),
            members: cx.configurations().newest().clone(),
            members_in_force,
            peers: peers.collect(),
        }
    }

    /// How many messages wait for the disk.
    #[cfg(test)]
    pub(crate) fn waiting_messages(&self) -> usize {
        self.participant.outbox.waiting()
    }

    /// Checks what must hold of one replica between any two steps: for tests and the simulator.
    pub fn check(&self) {
        let cx = &self.participant;
        let (chosen, window) = (cx.chosen(), cx.config.window);
        assert!(cx.learner.snapshot() <= chosen, "a snapshot holds more than what is chosen");
        assert!(cx.log.first() <= chosen.next(), "the log begins behind what is chosen");
        cx.outbox.check();
        cx.acceptor.check();
        if let Some(leader) = self.role.leader() {
            leader.check(cx);
        }
        // Everything in memory is bounded (SPEC I20).
        let open = cx.log.last().0.saturating_sub(chosen.0);
        let unrecorded = 4 * RECORD_CHOSEN_INTERVAL; // After a restart less is known to be chosen.
        assert!(open <= 4 * window + unrecorded, "{open} open slots are kept");
        assert!(cx.orphans.len() as u64 <= 2 * window);
    }
}
