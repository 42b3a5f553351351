//! The master: phase 2, pipelined in a bounded window, and its lease.

use crate::candidate::Reports;
use crate::lease::Heartbeats;
use crate::{Batch, Config, Mark, Message, Outcome, Paxos, Role, Values, planted};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bytes::Bytes;
use core::time::Duration;
use wombat_proto::limits::CELL_REPLICAS;
use wombat_proto::{Ballot, Error, Instant, Members, ReplicaId, Result, Slot, Value};

/// Most bytes of values in one message to a replica on whose way messages are lost: it fits one packet.
pub(crate) const SMALL_BATCH_BYTES: usize = 1000;

/// What a replica knows while it leads.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Leadership {
    /// Chosen when it was elected. It proposes every slot after it anew, under its own ballot.
    pub(crate) base: Slot,
    /// The slot of the next proposal.
    pub(crate) next: Slot,
    /// What phase 1 found for the slots from `next` on: it has to be proposed there.
    pub(crate) reports: Reports,
    /// Whether it had to be elected with copies of disks: what was chosen since they were made may be lost.
    pub(crate) from_copies: bool,
    /// The slot of its first own value; once that is chosen, it knows all that was ever chosen before.
    pub(crate) barrier: Option<Slot>,
    /// Everyone that it talks to, itself among them, by id. They are few, so they are found by looking.
    pub(crate) peers: Vec<Peer>,
    /// What it has proposed since it was last sealed: the values of the slots before `next`.
    pub(crate) gathered: Vec<Value>,
    /// Its own acceptances on their way to the disk: record and slot.
    pub(crate) own: VecDeque<(u64, Slot)>,
    /// Its proposals that are not chosen, oldest first: the last slot of those that were sealed together, and
    /// when that was.
    pub(crate) open: VecDeque<(Slot, Instant)>,
    /// When a proposal was chosen last, or the first of those that are open was made, if that was later. While
    /// its disk is too far behind, this stands still.
    pub(crate) progress_at: Instant,
    /// The bytes of commands that are proposed and not chosen.
    pub(crate) bytes: usize,
    pub(crate) heartbeats: Heartbeats,
    resend_prepares_at: Instant,
    pub(crate) elected_at: Instant,
    /// To whom mastership is being transferred, and until when that may take.
    pub(crate) transfer: Option<(ReplicaId, Instant)>,
}

/// What a master knows of a replica.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Peer {
    pub(crate) id: ReplicaId,
    /// Every slot from the base to here is accepted there under this ballot, durably.
    pub(crate) matched: Slot,
    /// The last slot sent to it.
    pub(crate) sent: Slot,
    resend_at: Instant,
    /// The newest heartbeat that it has granted; 0: none.
    pub(crate) granted: u64,
    /// Until when it has granted the lease at least, by this replica's clock.
    pub(crate) leased_until: Instant,
    /// How long a heartbeat and its answer take, smoothed; unknown before the first.
    pub(crate) round_trip: Option<Duration>,
    /// Until when it is sent small messages only, because some were lost on the way.
    pub(crate) lossy_until: Instant,
    /// The newest mark on its grants.
    pub(crate) mark: Option<Mark>,
    /// Every slot from the base to here had arrived there, durable or not, when it granted that heartbeat.
    pub(crate) received: Slot,
    /// What it knows to be chosen, durably.
    pub(crate) chosen: Slot,
    /// When it was heard of last.
    pub(crate) heard: Instant,
}

impl Leadership {
    pub(crate) fn new(
        base: Slot,
        reports: Reports,
        from_copies: bool,
        lease: Duration,
        now: Instant,
    ) -> Leadership {
        Leadership {
            base,
            next: base.next(),
            reports,
            from_copies,
            barrier: None,
            peers: Vec::new(),
            gathered: Vec::new(),
            own: VecDeque::new(),
            open: VecDeque::new(),
            progress_at: now,
            bytes: 0,
            heartbeats: Heartbeats::new(lease, now),
            resend_prepares_at: now,
            elected_at: now,
            transfer: None,
        }
    }

    pub(crate) fn last_proposed(&self) -> Slot {
        Slot(self.next.0 - 1)
    }

    fn first_gathered(&self) -> Slot {
        Slot(self.next.0 - self.gathered.len() as u64)
    }

    pub(crate) fn peer(&self, id: ReplicaId) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.id == id)
    }

    pub(crate) fn peer_mut(&mut self, id: ReplicaId) -> Option<&mut Peer> {
        self.peers.iter_mut().find(|peer| peer.id == id)
    }
}

/// The greatest number that a quorum of voters has reached.
pub(crate) fn reached_by_quorum(members: &Members, of: impl Fn(ReplicaId) -> u64) -> u64 {
    // Greatest first.
    let mut reached = [0; CELL_REPLICAS];
    let voters = members.voters.len().min(CELL_REPLICAS);
    for (known, member) in members.voters.iter().take(voters).enumerate() {
        let number = of(member.id);
        let mut place = known;
        while place > 0 && reached[place - 1] < number {
            reached[place] = reached[place - 1];
            place -= 1;
        }
        reached[place] = number;
    }
    reached[members.quorum() - 1]
}

impl Paxos {
    /// Proposes a command and tells its slot. It ends in [`crate::Effects::chosen`] while this replica leads,
    /// or in [`crate::Effects::ended`], or with this replica's life.
    ///
    /// Errors: [`Error::NotMaster`]; [`Error::Overloaded`] while too many proposals are in flight, or
    /// mastership is on its way to another.
    pub fn propose(&mut self, command: Bytes) -> Result<Slot> {
        self.has_room(command.len())?;
        self.append(Value::Command(command))
    }

    /// Proposes other members: at most one voter may leave and one may come. They are in force α slots later.
    ///
    /// Errors: as [`Paxos::propose`]; [`Error::InvalidArgument`] for members that may not follow the present
    /// ones, or while an earlier change is not in force.
    pub fn change_members(&mut self, members: Members) -> Result<Slot> {
        self.has_room(0)?;
        members.check()?;
        self.seal();
        let Role::Leading(leadership) = &self.role else { return Err(Error::NotMaster { hint: None }) };
        let mut open = self.log.range(self.chosen.next(), leadership.last_proposed());
        let changing = open.any(|(.., value)| matches!(value, Value::Members(_)));
        drop(open);
        if changing || !self.members_in_force() {
            return Err(Error::invalid("the last change of the members is not in force yet"));
        }
        let before = self.configurations.newest();
        let leave = before.voters.iter().filter(|voter| !members.is_voter(voter.id)).count();
        let come = members.voters.iter().filter(|voter| !before.is_voter(voter.id)).count();
        if leave > 1 || come > 1 || members.next_id < before.next_id {
            return Err(Error::invalid("one voter may leave and one may come at a time"));
        }
        self.append(Value::Members(members))
    }

    /// Whether the newest members are in force, and a quorum of them can do without those before: it knows,
    /// durably, everything that was chosen while those voted.
    pub(crate) fn members_in_force(&self) -> bool {
        let (newest, from) = (self.configurations.newest(), self.configurations.newest_from());
        let Role::Leading(leadership) = &self.role else { return from <= self.chosen_durable.next() };
        let knows = |id| match leadership.peer(id) {
            _ if id == self.config.replica => self.chosen_durable.next() >= from,
            peer => peer.is_some_and(|peer| peer.chosen.next() >= from),
        };
        from <= self.chosen.next() && newest.is_quorum(knows)
    }

    /// Hands mastership to another voter: it stops proposing, waits until `to` has everything, but not longer
    /// than its patience, and steps down.
    ///
    /// Errors: [`Error::NotMaster`]; [`Error::InvalidArgument`] if `to` has no vote.
    pub fn transfer(&mut self, to: ReplicaId) -> Result<()> {
        let until = self.now + self.config.patience;
        let votes = self.governing().all(|members| members.is_voter(to));
        let Role::Leading(leadership) = &mut self.role else { return Err(Error::NotMaster { hint: None }) };
        if !votes || to == self.config.replica {
            return Err(Error::invalid(alloc::format!("replica {to} is not another voter of this cell")));
        }
        leadership.transfer = Some((to, until));
        self.successor = Some(to);
        self.continue_transfer();
        Ok(())
    }

    /// To whom it has handed mastership over, or is about to, as long as it has heard of no later ballot.
    pub fn successor(&self) -> Option<ReplicaId> {
        self.successor
    }

    /// Whether this replica leads a cell that goes on from copies of its disks: what was chosen since they were made
    /// may be lost.
    pub fn leads_from_copies(&self) -> bool {
        matches!(&self.role, Role::Leading(leadership) if leadership.from_copies)
    }

    /// Whether its first own value is chosen, and it is not on its way out.
    pub(crate) fn is_settled(&self, leadership: &Leadership) -> bool {
        let barrier_chosen = leadership.barrier.is_some_and(|barrier| self.chosen >= barrier);
        (barrier_chosen || planted!(self, BarrierIgnored)) && leadership.transfer.is_none()
    }

    /// Refuses when there is no room for a proposal of so many bytes.
    fn has_room(&self, bytes: usize) -> Result<()> {
        let Role::Leading(leadership) = &self.role else { return Err(Error::NotMaster { hint: None }) };
        let overloaded = Err(Error::Overloaded { retry_after: Duration::from_millis(20) });
        if leadership.transfer.is_some() {
            return overloaded;
        }
        if leadership.barrier.is_none_or(|barrier| self.chosen < barrier) && !planted!(self, BarrierIgnored) {
            return Err(Error::NotMaster { hint: None });
        }
        let full = leadership.next.0 > self.chosen.0 + self.config.window
            || leadership.bytes + bytes > self.config.bytes_in_flight
            || self.is_disk_stalled(leadership)
            || !leadership.reports.values.is_empty()
            || !self.may_propose(leadership, leadership.next);
        if full { overloaded } else { Ok(()) }
    }

    /// Whether those who vote on a slot have promised it to this ballot.
    fn may_propose(&self, leadership: &Leadership, slot: Slot) -> bool {
        self.configurations.at(slot).is_quorum(|id| leadership.reports.is_complete(id))
            || planted!(self, NewVotersUnprepared)
    }

    /// Whether a master cannot go on before more voters have told what they have accepted.
    pub(crate) fn lacks_reports(&self) -> bool {
        let Role::Leading(leadership) = &self.role else { return false };
        !self.may_propose(leadership, leadership.next)
    }

    fn append(&mut self, value: Value) -> Result<Slot> {
        self.note_proposal();
        let Role::Leading(leadership) = &mut self.role else { return Err(Error::NotMaster { hint: None }) };
        let slot = leadership.next;
        leadership.next = slot.next();
        if let Value::Command(command) = &value {
            leadership.bytes += command.len();
        }
        leadership.gathered.push(value);
        Ok(slot)
    }

    /// Accepts what has been proposed since the last time, all at once.
    pub(crate) fn seal(&mut self) {
        let ballot = self.promised;
        let Role::Leading(leadership) = &mut self.role else { return };
        if leadership.gathered.is_empty() {
            return;
        }
        let (first, last) = (leadership.first_gathered(), leadership.last_proposed());
        let values = leadership.gathered.drain(..).collect();
        self.keep(Batch { ballot, first, values });
        let (record, now) = (self.records, self.now);
        if let Role::Leading(leadership) = &mut self.role {
            leadership.own.push_back((record, last));
            leadership.open.push_back((last, now));
        }
    }

    /// Proposes what has to be proposed before anything new may be: what phase 1 found, no-ops for the gaps,
    /// its own first value, and what brings a change of members into force.
    pub(crate) fn pump(&mut self) {
        loop {
            let Role::Leading(leadership) = &self.role else { return };
            let slot = leadership.next;
            let changing = self.configurations.newest_from() > slot;
            if leadership.reports.values.is_empty() && leadership.barrier.is_some() && !changing {
                return;
            }
            if slot.0 > self.chosen.0 + self.config.window || !self.may_propose(leadership, slot) {
                return;
            }
            let Role::Leading(leadership) = &mut self.role else { return };
            let values = &mut leadership.reports.values;
            while values.first_key_value().is_some_and(|(found, _)| *found < slot) {
                values.pop_first();
            }
            let skips = !values.is_empty();
            let value = match values.remove(&slot) {
                Some((_, value)) => value,
                None if skips => {
                    #[cfg(feature = "plant")]
                    if self.config.plant == Some(crate::Plant::GapSkipped) {
                        self.seal();
                        if let Role::Leading(leadership) = &mut self.role {
                            leadership.next = slot.next();
                        }
                        continue;
                    }
                    Value::Noop
                }
                None if leadership.barrier.is_none() => {
                    leadership.barrier = Some(slot);
                    Value::Noop
                }
                None if changing => Value::Noop,
                None => return,
            };
            if self.append(value).is_err() {
                return;
            }
        }
    }

    /// What this replica has accepted itself counts once it is durable.
    pub(crate) fn own_slots_durable(&mut self) {
        let (durable, own) = (self.durable, self.config.replica);
        let Role::Leading(leadership) = &mut self.role else { return };
        let mut matched = None;
        while let Some((_, slot)) = leadership.own.pop_front_if(|(record, _)| *record <= durable) {
            matched = Some(slot);
        }
        if let (Some(matched), Some(peer)) = (matched, leadership.peer_mut(own)) {
            peer.matched = matched;
            self.choose();
        }
    }

    pub(crate) fn accepted(&mut self, from: ReplicaId, ballot: Ballot, through: Slot) {
        if ballot != self.promised && !planted!(self, OldAcceptCounted) {
            return;
        }
        let (now, resend) = (self.now, self.config.resend);
        let Role::Leading(leadership) = &mut self.role else { return };
        let last = leadership.last_proposed();
        let Some(peer) = leadership.peer_mut(from) else { return };
        peer.heard = now;
        if through > peer.matched {
            peer.matched = through.min(last);
            peer.resend_at = now + resend;
            if peer.matched > self.chosen {
                self.choose();
            }
            self.continue_transfer();
        }
    }

    /// Finds out what is chosen now: what a quorum of those who vote on the slot has accepted.
    fn choose(&mut self) {
        let before = self.chosen;
        loop {
            let Role::Leading(leadership) = &self.role else { return };
            let slot = self.chosen.next();
            let matched = |id| leadership.peer(id).map_or(0, |peer| peer.matched.0);
            let (voters, last) = if planted!(self, OldQuorumCounted) {
                (&self.configurations.entries()[0].1, leadership.last_proposed())
            } else {
                (self.configurations.at(slot), self.configurations.last_like(slot))
            };
            let mut reached = reached_by_quorum(voters, matched);
            if planted!(self, MinorityChooses) {
                reached = leadership.peers.iter().map(|peer| peer.matched.0).max().unwrap_or(0);
            }
            let through = Slot(reached).min(last).min(leadership.last_proposed());
            if through < slot {
                break;
            }
            let known = |configurations: &crate::Configurations| {
                (configurations.newest_from(), configurations.entries().len())
            };
            let before = known(&self.configurations);
            self.hand_out_through(through);
            assert!(self.chosen >= slot, "a master has everything that it has proposed");
            if known(&self.configurations) != before {
                self.meet_peers();
                self.ask_for_reports();
                self.record_chosen(); // Who is alone now sends no heartbeat that would do it.
            } else if through < last {
                break;
            }
        }
        if self.chosen == before {
            return;
        }
        // Of new members that are in force, this has to be durable before the next change, and no heartbeat may
        // be due: a sole voter without a learner sends none.
        let in_force_from = self.configurations.newest_from();
        if self.chosen_recorded.next() < in_force_from && in_force_from <= self.chosen.next() {
            self.record_chosen();
        }
        if self.is_restored() {
            self.record_chosen(); // What it is reinstated by; likewise.
        }
        self.pump();
        self.leave_if_removed();
    }

    /// A master that has no vote any more hands over, once one of those who have knows that it has.
    pub(crate) fn leave_if_removed(&mut self) {
        let (newest, from) = (self.configurations.newest(), self.configurations.newest_from());
        let Role::Leading(leadership) = &self.role else { return };
        if newest.is_voter(self.config.replica) || from > self.chosen.next() || leadership.transfer.is_some()
        {
            return;
        }
        let peers = newest.voters.iter().filter_map(|voter| Some((voter.id, leadership.peer(voter.id)?)));
        let heirs = peers.filter(|(_, peer)| peer.chosen.next() >= from);
        if let Some((heir, _)) = heirs.max_by_key(|(_, peer)| peer.matched) {
            let _it_has_a_vote = self.transfer(heir);
        }
    }

    fn continue_transfer(&mut self) {
        let Role::Leading(leadership) = &self.role else { return };
        let Some((to, _)) = leadership.transfer else { return };
        let last = leadership.last_proposed();
        if leadership.peer(to).is_some_and(|peer| peer.matched == last) {
            let ballot = self.promised;
            self.step_down();
            self.send(to, Message::TakeOver { ballot, stalls: 0 });
        }
    }

    /// Gets to know everyone who governs an open slot or learns, and forgets those who do not.
    pub(crate) fn meet_peers(&mut self) {
        let ids: Vec<ReplicaId> = self.configurations.everyone().map(|member| member.id).collect();
        let (now, resend_at) = (self.now, self.now + self.config.resend);
        let Role::Leading(leadership) = &mut self.role else { return };
        let base = leadership.base;
        leadership.peers.retain(|peer| ids.contains(&peer.id));
        for id in ids {
            if leadership.peer(id).is_none() {
                leadership.peers.push(Peer {
                    id,
                    matched: Slot(0),
                    sent: base,
                    resend_at,
                    granted: 0,
                    leased_until: Instant::default(),
                    round_trip: None,
                    lossy_until: Instant::default(),
                    mark: None,
                    received: Slot(0),
                    chosen: Slot(0),
                    heard: now,
                });
            }
        }
        leadership.peers.sort_unstable_by_key(|peer| peer.id);
    }

    /// Someone has promised a higher ballot. A member that did, learner or not, can never follow this master
    /// again: it takes a higher ballot itself.
    pub(crate) fn refused(&mut self, from: ReplicaId, promised: Ballot) {
        self.highest_round = self.highest_round.max(promised.round);
        if promised <= self.promised {
            return;
        }
        match self.role {
            Role::Asking(_) | Role::Preparing(_) if promised.round > self.promised.round => self.give_up(),
            Role::Leading(_) if self.configurations.knows(from) => {
                self.step_down();
                if self.may_vote() {
                    self.start_preparing(self.next_round());
                }
            }
            _ => {}
        }
    }

    pub(crate) fn tick_leader(&mut self) {
        let now = self.now;
        let sole = self.is_sole_voter();
        let Role::Leading(leadership) = &self.role else { return };
        let Config { lease, patience, .. } = self.config;
        // The lease itself may have lapsed before: it serves nobody then, but may still be granted another.
        let lapsed = now
            >= (self.lease_until(leadership) + patience.saturating_sub(lease))
                .max(leadership.elected_at + patience);
        let handed_over = leadership.transfer.is_some_and(|(_, until)| now >= until);
        if handed_over || (lapsed && !sole && !planted!(self, LapseIgnored)) {
            return self.step_down();
        }
        if self.should_make_way(leadership) {
            return self.make_way();
        }
        let Role::Leading(leadership) = &mut self.role else { return };
        let base = leadership.base;
        for peer in &mut leadership.peers {
            if now >= peer.resend_at {
                peer.sent = peer.matched.max(base);
                peer.resend_at = now + self.config.resend;
            }
        }
        if now >= leadership.resend_prepares_at {
            leadership.resend_prepares_at = now + self.config.resend;
            self.resend_prepares();
        }
        let Role::Leading(leadership) = &self.role else { return };
        if now >= leadership.heartbeats.due_at {
            self.send_heartbeats();
        }
    }

    pub(crate) fn leader_deadline(&self) -> Option<Instant> {
        let Role::Leading(leadership) = &self.role else { return None };
        if leadership.peers.iter().all(|peer| peer.id == self.config.replica) {
            // It may have been about to hand over to one that is no member any more.
            return leadership.transfer.map(|(_, until)| until);
        }
        let mut due = leadership.heartbeats.due_at;
        for peer in &leadership.peers {
            if peer.sent > peer.matched {
                due = due.min(peer.resend_at);
            }
        }
        Some(due)
    }

    /// Sends every replica what it does not have yet, as far ahead of what it has acknowledged as the window
    /// allows.
    pub(crate) fn stream(&mut self) {
        let (own, ballot, chosen, now) = (self.config.replica, self.promised, self.chosen, self.now);
        let Role::Leading(leadership) = &mut self.role else { return };
        let (base, last) = (leadership.base, leadership.last_proposed());
        // Those who are equally far share the values.
        let mut shared: Option<(Slot, Slot, Values)> = None;
        for peer in &mut leadership.peers {
            if peer.id == own {
                continue;
            }
            let known = peer.matched.max(base);
            let until = last.min(Slot(known.0 + self.config.window));
            peer.sent = peer.sent.max(known);
            let is_lossy = now < peer.lossy_until;
            let most_bytes = if is_lossy { SMALL_BATCH_BYTES } else { self.config.batch_bytes };
            while peer.sent < until && peer.sent.next() >= self.log.first() {
                let first = peer.sent.next();
                let values = match &shared {
                    Some((from, to, values)) if (*from, *to) == (first, until) && !is_lossy => values.clone(),
                    _ => match self.log.values(first, until, most_bytes) {
                        Some(values) if is_lossy => values,
                        Some(values) => shared.insert((first, until, values)).2.clone(),
                        None => break,
                    },
                };
                peer.sent = Slot(peer.sent.0 + values.len() as u64);
                self.out.send.push((peer.id, Message::Accept { ballot, base, first, values, chosen }));
            }
        }
    }

    /// Stops leading or campaigning, for good under this ballot.
    pub(crate) fn step_down(&mut self) {
        if matches!(self.role, Role::Following) {
            return;
        }
        self.seal();
        self.led();
        let Role::Leading(leadership) = core::mem::replace(&mut self.role, Role::Following) else { return };
        self.released = self.promised;
        self.grant = None;
        let own_from = leadership.barrier.map_or(leadership.next, Slot::next).max(self.chosen.next());
        let open = self.log.range(own_from, leadership.last_proposed());
        let commands = open.filter_map(|(slot, _, value)| match value {
            Value::Command(command) => Some((slot, command.clone())),
            _ => None,
        });
        self.orphans.extend(commands);
        self.orphans.make_contiguous().sort_by_key(|(slot, _)| *slot);
        while self.orphans.len() as u64 > 2 * self.config.window {
            if let Some((slot, _)) = self.orphans.pop_front() {
                self.out.ended.push((slot, Outcome::Unknown));
            }
        }
        self.postpone_election();
    }
}
