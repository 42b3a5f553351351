//! Multi-Paxos, sans-IO: which value stands in which slot, who may propose, and for how long nobody else may
//! (P§2.2, PML).
//!
//! A replica is told what happened ([`Paxos::receive`], [`Paxos::persisted`], [`Paxos::tick`],
//! [`Paxos::propose`]) and [`Paxos::flush`] says what follows: records to write, messages to send, values
//! that are chosen. What may only be said once it is durable is held back until [`Paxos::persisted`] says so:
//! whatever comes out in [`Effects::send`] may go at once.
//!
//! | file | what lives there |
//! |---|---|
//! | `acceptor.rs` | promises, acceptance, granted leases, silence after a restart |
//! | `candidate.rs` | pre-vote and phase 1 |
//! | `leader.rs` | phase 2, transfer of mastership, changes of members |
//! | `lease.rs` | the master lease: heartbeats and grants |
//! | `stall.rs` | a master whose proposals are not chosen makes way |
//! | `catch_up.rs` | learning what was chosen, by log or by snapshot |
//! | `log.rs` | what was accepted and is kept in memory |
//! | `batch.rs` | values that logs, messages and records share |
//! | `restored.rs` | a replica whose disk is a copy, until it may vote again |
//! | `configurations.rs` | who votes on which slot |
//! | `freshness.rs` | how old what a replica knows may be |
#![no_std]

extern crate alloc;

mod acceptor;
mod batch;
mod candidate;
mod catch_up;
mod config;
mod configurations;
mod freshness;
mod leader;
mod lease;
mod log;
mod message;
mod notice;
#[cfg(feature = "plant")]
mod plant;
mod restored;
mod stall;
mod status;
#[cfg(test)]
mod tests;

pub use batch::{Batch, Persist, Values};
pub use config::{Config, Recovered};
pub use configurations::Configurations;
pub use freshness::Mark;
pub use message::Message;
pub use notice::Notice;
#[cfg(feature = "plant")]
pub use plant::Plant;
pub use status::{PeerStatus, Standing, Status};

use acceptor::{Grant, Run};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use bytes::Bytes;
use candidate::{Asking, Candidacy, Reports};
use catch_up::CatchUp;
use core::time::Duration;
use freshness::Freshness;
use leader::Leadership;
use log::Log;
use restored::Restored;
use wombat_proto::limits::MAX_CLOCK_ROUND;
use wombat_proto::{Ballot, Epoch, Instant, Record, ReplicaId, Slot, SplitMix64, Value};

/// Whether this replica has a planted bug. Without the feature `plant` it has none, and the compiler knows.
macro_rules! planted {
    ($paxos:expr, $bug:ident) => {{
        #[cfg(feature = "plant")]
        let has_it = $paxos.config.plant == Some($crate::Plant::$bug);
        #[cfg(not(feature = "plant"))]
        let has_it = false;
        has_it
    }};
}
pub(crate) use planted;

/// What the caller has to do, in this order.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub struct Effects {
    /// Records to append to the log; [`Paxos::persisted`] says when they are durable.
    pub persist: Vec<Persist>,
    /// Messages to send, to whom. Any of them may be lost.
    pub send: Vec<(ReplicaId, Message)>,
    /// Values that are chosen from now on, in slot order without a gap.
    pub chosen: Vec<Batch>,
    /// Proposals of an earlier leadership whose fate is known now, or never will be.
    pub ended: Vec<(Slot, Outcome)>,
    /// Chunks of this replica's snapshot that others ask for; each is answered with a [`Message::Chunk`], or
    /// with [`Message::Truncated`] if there is a newer snapshot by now.
    pub wanted_chunks: Vec<WantedChunk>,
    /// Chunks of another replica's snapshot, in order; [`Paxos::installed`] says when all are in place.
    pub received_chunks: Vec<ReceivedChunk>,
    /// This replica's disk was a copy ([`Recovered::is_copy`]), and it votes again: its disk is its own from now on.
    pub reinstated: bool,
    /// Someone needs a snapshot of this replica that is newer than its newest one.
    pub snapshot_wanted: bool,
    /// What an operator should know.
    pub notices: Vec<Notice>,
}

/// How a proposal of an earlier leadership ended. One that is chosen while its proposer leads is only told in
/// [`Effects::chosen`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// Another master has brought it to its end.
    Chosen,
    /// Something else stands in its slot; it never takes effect.
    Lost,
    /// Nothing can be known about it.
    Unknown,
}

/// Somebody wants a chunk.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct WantedChunk {
    /// Who.
    pub to: ReplicaId,
    /// Of which snapshot.
    pub snapshot: Slot,
    /// Which, from 0.
    pub index: u32,
}

/// A chunk has arrived.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ReceivedChunk {
    /// Of which snapshot. The first chunk begins it anew.
    pub snapshot: Slot,
    /// Which, from 0; they come in order.
    pub index: u32,
    /// Whether it is the last.
    pub last: bool,
    /// The chunk.
    pub bytes: Bytes,
}

/// What a replica is doing.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[allow(clippy::large_enum_variant, reason = "a replica has one")]
enum Role {
    /// Nothing of its own.
    Following,
    /// It asks whether it would be elected.
    Asking(Asking),
    /// Phase 1.
    Preparing(Candidacy),
    /// Phase 2.
    Leading(Leadership),
}

impl Role {
    /// The reports that it gathers, and the last slot that it has proposed so far.
    fn gathering(&mut self) -> Option<(&mut Reports, Slot)> {
        match self {
            Role::Preparing(candidacy) => Some((&mut candidacy.reports, Slot(0))),
            Role::Leading(leadership) => {
                let proposed = leadership.last_proposed();
                Some((&mut leadership.reports, proposed))
            }
            Role::Following | Role::Asking(_) => None,
        }
    }
}

/// One replica's part in the agreement. `Clone + Hash`, so that a model checker can walk its states.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Paxos {
    config: Config,
    /// Tells this life's ballots from those of earlier ones.
    starts: u32,
    now: Instant,
    random: SplitMix64,

    // ---- The acceptor: durable once its records are ----
    promised: Ballot,
    log: Log,
    /// The longest lease that it may grant.
    lease_bound: Duration,

    // ---- The acceptor: memory ----
    /// How many records it has handed out, and how many of them are durable.
    records: u64,
    durable: u64,
    /// The record that makes `promised` durable, and the one that makes `lease_bound` durable.
    promise_record: u64,
    lease_record: u64,
    /// Messages that wait for a record to be durable, in the order of the records.
    waiting: VecDeque<(u64, ReplicaId, Message)>,
    /// What it has accepted under `promised`; `None` until its master has said where it begins.
    run: Option<Run>,
    grant: Option<Grant>,
    /// After a restart it takes no part in elections until then: it may have granted a lease.
    silent_until: Instant,

    // ---- The learner ----
    /// Every slot up to here is chosen and was handed out.
    chosen: Slot,
    /// The last slot that a record says is chosen, those records on their way to the disk, and the last one
    /// that is there.
    chosen_recorded: Slot,
    chosen_records: VecDeque<(u64, Slot)>,
    chosen_durable: Slot,
    /// The slot of the newest durable snapshot.
    snapshot: Slot,
    configurations: Configurations,
    catch_up: Option<CatchUp>,
    freshness: Freshness,
    /// While its disk is a copy, and it may have forgotten what it has said.
    restored: Option<Restored>,

    // ---- The proposer ----
    role: Role,
    highest_round: u64,
    /// The wall clock, as the least round of its next candidacy.
    clock_round: u64,
    /// The last ballot under which it led; it never does again.
    released: Ballot,
    /// To whom it hands over what it leads.
    successor: Option<ReplicaId>,
    /// How many masters in a row, as far as it knows, have made way because none of their proposals was chosen.
    stalls: u32,
    /// Until when a chosen slot does not end that series of masters.
    stalls_count_until: Instant,
    /// When it looks for a new master if it hears of none.
    election_at: Instant,
    /// How often in a row it was not elected though a quorum would have promised it.
    failed_campaigns: u32,
    /// Replicas with a copy of their disks, each with the number that it sent before this replica's present ballot.
    reinstates: BTreeMap<ReplicaId, u64>,
    /// What it proposed in earlier leaderships and has not seen the end of, by slot.
    orphans: VecDeque<(Slot, Bytes)>,

    out: Effects,
}

impl Paxos {
    /// Starts a replica from what its disk knew. [`Paxos::flush`] then hands out what is known to be chosen
    /// above the snapshot.
    pub fn new(config: Config, recovered: Recovered, now: Instant) -> Paxos {
        let begin = recovered.snapshot;
        let mut log = Log::after(begin);
        for accepted in recovered.accepted {
            if accepted.slot > begin {
                log.put(Batch::of(accepted));
            }
        }
        let mut paxos = Paxos {
            starts: recovered.starts,
            now,
            random: SplitMix64::new(
                config.seed ^ u64::from(config.replica.0) << 32 ^ u64::from(recovered.starts),
            ),
            promised: recovered.promised,
            log,
            lease_bound: recovered.lease_bound,
            records: 0,
            durable: 0,
            promise_record: 0,
            lease_record: 0,
            waiting: VecDeque::new(),
            run: None,
            grant: None,
            silent_until: now,
            chosen: begin,
            chosen_recorded: recovered.chosen.max(begin),
            chosen_records: VecDeque::new(),
            chosen_durable: recovered.chosen.max(begin),
            snapshot: recovered.snapshot,
            highest_round: recovered.promised.round.max(recovered.configurations.round()),
            clock_round: 0,
            configurations: recovered.configurations,
            catch_up: None,
            freshness: Freshness::new(recovered.starts),
            restored: None,
            role: Role::Following,
            released: Ballot::ZERO,
            successor: None,
            stalls: 0,
            stalls_count_until: Instant::default(),
            election_at: now,
            failed_campaigns: 0,
            reinstates: BTreeMap::new(),
            orphans: VecDeque::new(),
            out: Effects::default(),
            config,
        };
        paxos.hand_out_through(recovered.chosen);
        // What a sole voter has accepted is chosen.
        while paxos.is_sole_voter_on(paxos.chosen.next()) && paxos.log.last() > paxos.chosen {
            let before = paxos.chosen;
            paxos.hand_out_through(before.next());
            if paxos.chosen == before {
                break;
            }
        }
        if planted!(paxos, MarksRepeat) {
            paxos.freshness = Freshness::new(0);
        }
        // Also as a sole voter: it may have granted a lease to a master on its way out.
        if !planted!(paxos, NoSilence) {
            paxos.silent_until = now + paxos.config.rho.lengthen(paxos.lease_bound);
        }
        if recovered.is_copy && planted!(paxos, CopyVotes) {
            paxos.out.reinstated = true;
        } else if recovered.is_copy {
            paxos.lose_vote();
        }
        paxos.election_at = paxos.silent_until;
        if !paxos.is_sole_voter() {
            paxos.election_at = paxos.silent_until + paxos.jitter(paxos.config.heartbeat);
        }
        paxos
    }

    /// What the wall clock says, in milliseconds since 1970. It may jump; it decides nothing but how high the round
    /// of the next candidacy is at least.
    pub fn set_wall_clock(&mut self, wall_ms: u64) {
        self.clock_round = if wall_ms <= MAX_CLOCK_ROUND { wall_ms } else { 0 };
    }

    /// A message has arrived.
    pub fn receive(&mut self, now: Instant, from: ReplicaId, message: Message) {
        self.advance_clock(now);
        if !message.is_sane() {
            return;
        }
        match message {
            Message::Ask { round, chosen, everyone } => self.asked(from, round, chosen, everyone),
            Message::Answer { round, granted, promised, chosen } => {
                self.answered(from, round, granted, promised, chosen);
            }
            Message::Prepare { ballot, above, released, everyone } => {
                self.prepare(from, ballot, above, released, everyone);
            }
            Message::Promise { ballot, above, accepted, through, complete, restored } => {
                self.promise_arrived(from, ballot, above, accepted, through, complete, restored);
            }
            Message::Accept { ballot, base, first, values, chosen } => {
                self.accept(from, ballot, base, first, values, chosen);
            }
            Message::Accepted { ballot, through } => self.accepted(from, ballot, through),
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
            } => {
                if !self.heartbeat_while_restored(from, ballot, barrier, reinstates, chosen) {
                    return;
                }
                self.heartbeat(from, ballot, base, sequence, lease, chosen, kept_after, mark);
            }
            Message::Granted { ballot, sequence, chosen, mark, received } => {
                self.granted(from, ballot, sequence, chosen, mark, received);
            }
            Message::Refused { promised } => self.refused(from, promised),
            Message::Fetch { above } => self.fetch(from, above),
            Message::Learn { chosen, through } => self.learn(from, chosen, through),
            Message::Truncated { snapshot } => self.truncated(from, snapshot),
            Message::FetchChunk { snapshot, index } => {
                self.out.wanted_chunks.push(WantedChunk { to: from, snapshot, index });
            }
            Message::Chunk { snapshot, index, last, bytes } => self.chunk(from, snapshot, index, last, bytes),
            Message::TakeOver { ballot, stalls } => self.take_over(from, ballot, stalls),
            Message::Restored { number } => self.restored_arrived(from, number),
        }
    }

    /// The first `through` records ever handed out are durable.
    pub fn persisted(&mut self, now: Instant, through: u64) {
        self.advance_clock(now);
        assert!(through <= self.records, "a record is durable that was never handed out");
        self.durable = self.durable.max(through);
        while let Some((_, slot)) = self.chosen_records.pop_front_if(|(record, _)| *record <= through) {
            self.chosen_durable = self.chosen_durable.max(slot);
        }
        while let Some((_, to, message)) = self.waiting.pop_front_if(|(record, ..)| *record <= through) {
            // Of several in a row, the last says it all.
            if let (
                Message::Accepted { ballot, .. },
                Some((record, next, Message::Accepted { ballot: b, .. })),
            ) = (&message, self.waiting.front())
                && (record, next, b) == (record.min(&through), &to, ballot)
            {
                continue;
            }
            self.out.send.push((to, message));
        }
        match self.role {
            Role::Preparing(_) => self.own_promise_durable(),
            Role::Leading(_) => {
                self.own_promise_durable();
                self.own_slots_durable();
            }
            Role::Following | Role::Asking(_) => {}
        }
        self.reinstate_if_caught_up();
    }

    /// Time has passed; due by [`Paxos::next_deadline`], welcome at any time.
    pub fn tick(&mut self, now: Instant) {
        self.advance_clock(now);
        match self.role {
            Role::Following => self.look_for_master(),
            Role::Asking(_) | Role::Preparing(_) => self.tick_candidate(),
            Role::Leading(_) => self.tick_leader(),
        }
        self.tick_catch_up();
    }

    /// When the next [`Paxos::tick`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let own = match &self.role {
            Role::Following => self.follower_deadline(),
            Role::Asking(asking) => Some(asking.until.min(asking.again_at)),
            Role::Preparing(candidacy) => Some(candidacy.until.min(candidacy.resend_at)),
            Role::Leading(_) => self.leader_deadline(),
        };
        let catch_up = self.catch_up.as_ref().map(|catch_up| catch_up.again_at);
        own.into_iter().chain(catch_up).min()
    }

    /// Hands out all that follows from what it was told.
    pub fn flush(&mut self, effects: &mut Effects) {
        if matches!(self.role, Role::Leading(_)) {
            self.seal();
            self.stream();
        }
        // Now and then, beside others; a heartbeat does it as well.
        let behind = self.chosen.0.saturating_sub(self.chosen_recorded.0);
        if behind >= RECORD_CHOSEN_EVERY && !self.out.persist.is_empty() {
            self.record_chosen();
        }
        let out = &mut self.out;
        hand_over(&mut out.persist, &mut effects.persist);
        hand_over(&mut out.send, &mut effects.send);
        hand_over(&mut out.chosen, &mut effects.chosen);
        hand_over(&mut out.ended, &mut effects.ended);
        hand_over(&mut out.wanted_chunks, &mut effects.wanted_chunks);
        hand_over(&mut out.received_chunks, &mut effects.received_chunks);
        hand_over(&mut out.notices, &mut effects.notices);
        effects.reinstated |= core::mem::take(&mut out.reinstated);
        effects.snapshot_wanted |= core::mem::take(&mut out.snapshot_wanted);
    }

    /// A snapshot of every slot up to `slot` is durable: the log before it may go.
    pub fn snapshotted(&mut self, slot: Slot) {
        assert!(slot <= self.chosen, "a snapshot holds slots that are not chosen");
        self.snapshot = self.snapshot.max(slot);
        self.trim();
    }

    /// The ballot that this replica leads with, or has promised.
    pub fn ballot(&self) -> Ballot {
        self.promised
    }

    /// The epoch in which this replica may propose: it leads, and its own first value and all before it are
    /// chosen. `None` while it may not.
    pub fn leads(&self) -> Option<Epoch> {
        let Role::Leading(leadership) = &self.role else { return None };
        self.is_settled(leadership).then_some(self.promised.epoch())
    }

    /// The last slot that is known to be chosen.
    pub fn chosen(&self) -> Slot {
        self.chosen
    }

    /// Who governs the slots after the last one handed out as chosen: what belongs into a snapshot of it.
    pub fn configurations(&self) -> &Configurations {
        &self.configurations
    }

    /// Whom this replica takes for the master, if anyone.
    pub fn master(&self) -> Option<ReplicaId> {
        match &self.role {
            Role::Leading(leadership) => self.is_settled(leadership).then_some(self.config.replica),
            _ => self.grant.as_ref().and_then(|grant| grant.master(self.now)),
        }
    }

    /// Whose lease this replica has granted, while it lasts: it promises nothing to anyone else.
    pub fn bound_to(&self) -> Option<ReplicaId> {
        self.grant.as_ref().and_then(|grant| grant.holder(self.now))
    }

    /// Checks what must hold of one replica between any two steps: for tests and the simulator.
    pub fn check(&self) {
        assert!(self.snapshot <= self.chosen, "a snapshot holds more than what is chosen");
        assert!(self.log.first() <= self.chosen.next(), "the log begins behind what is chosen");
        assert!(self.durable <= self.records);
        if let Some(run) = &self.run {
            assert!(run.through >= run.base, "a run ends before it begins");
        }
        if let Role::Leading(leadership) = &self.role {
            assert!(leadership.next > self.chosen, "a master proposes behind what is chosen");
            assert!(
                leadership.last_proposed().0 <= self.chosen.0 + self.config.window,
                "a master proposes beyond its window"
            );
            assert!(self.promised.replica == self.config.replica, "a master leads under another's ballot");
        }
        // Everything in memory is bounded (SPEC I20).
        let open = self.log.last().0.saturating_sub(self.chosen.0);
        let unrecorded = 4 * RECORD_CHOSEN_EVERY; // After a restart less is known to be chosen.
        assert!(open <= 4 * self.config.window + unrecorded, "{open} open slots are kept");
        assert!(self.orphans.len() as u64 <= 2 * self.config.window);
    }

    /// When a follower looks for a master; one that knows nobody else never does.
    fn follower_deadline(&self) -> Option<Instant> {
        let leased = self.grant.as_ref().map_or(self.now, |grant| grant.until);
        let has_others = self.configurations.everyone().any(|member| member.id != self.config.replica);
        let due = self.election_at.max(self.silent_until).max(leased);
        (self.may_vote() || has_others).then_some(due)
    }

    fn advance_clock(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// Hands a record out to be written. Returns its number.
    fn record(&mut self, record: Record) -> u64 {
        self.out.persist.push(Persist::Record(record));
        self.records += 1;
        self.records
    }

    /// Takes values into the log, and hands their records out to be written.
    fn keep(&mut self, batch: Batch) {
        self.records += batch.values.len() as u64;
        self.log.put(batch.clone());
        self.out.persist.push(Persist::Batch(batch));
    }

    /// Sends a message once all records handed out so far are durable.
    fn send_when_durable(&mut self, to: ReplicaId, message: Message) {
        if self.durable >= self.records {
            self.out.send.push((to, message));
        } else if !self.is_waiting(to, &message) {
            self.waiting.push_back((self.records, to, message));
        }
    }

    /// Whether the same is to be said already when the disk is done, or more. So what waits is bounded by the
    /// records that are on their way, however often others ask meanwhile.
    fn is_waiting(&mut self, to: ReplicaId, message: &Message) -> bool {
        match message {
            Message::Accepted { ballot, .. } => {
                let latest = self.waiting.iter_mut().rev().take_while(|(record, ..)| *record == self.records);
                let mut same = latest.filter(|(_, who, waits)| {
                    *who == to && matches!(waits, Message::Accepted { ballot: b, .. } if b == ballot)
                });
                same.next().map(|(.., waits)| *waits = message.clone()).is_some()
            }
            // Only the report for its last ballot is of use to a candidate, and each part of it once.
            Message::Promise { ballot, above, .. } => {
                let mut known = false;
                self.waiting.retain(|(_, who, waits)| match waits {
                    Message::Promise { ballot: b, above: a, .. } if *who == to => {
                        known |= (b, a) == (ballot, above);
                        b == ballot && a == above
                    }
                    _ => true,
                });
                known
            }
            _ => false,
        }
    }

    fn send(&mut self, to: ReplicaId, message: Message) {
        self.out.send.push((to, message));
    }

    /// Hands out the values of the slots up to `slot`, which are chosen and in the log, as far as it reaches
    /// without a gap.
    fn hand_out_through(&mut self, slot: Slot) {
        while self.chosen < slot {
            let next = self.chosen.next();
            let batch = self.log.batch_at(next).and_then(|batch| batch.clone().part(next, slot));
            let Some(batch) = batch else { break };
            for (at, value) in batch.iter() {
                match (value, &mut self.role) {
                    (Value::Command(command), Role::Leading(leadership)) => leadership.bytes -= command.len(),
                    (Value::Members(members), _) => {
                        self.configurations.change(at, self.config.window, members.clone());
                    }
                    _ => {}
                }
                self.resolve_orphans(at, value);
            }
            self.chosen = batch.last();
            self.note_progress();
            self.configurations.note_round(batch.ballot.round);
            self.out.chosen.push(batch);
        }
        self.configurations.forget_through(self.chosen);
        if self.is_alone_here() {
            self.trim();
        }
    }

    /// Tells the fate of proposals of earlier leaderships, now that `slot` is chosen.
    fn resolve_orphans(&mut self, slot: Slot, value: &Value) {
        while let Some((at, command)) = self.orphans.pop_front_if(|(at, _)| *at <= slot) {
            let outcome = match value {
                _ if at < slot => Outcome::Unknown,
                Value::Command(chosen) if *chosen == command => Outcome::Chosen,
                _ => Outcome::Lost,
            };
            self.out.ended.push((at, outcome));
        }
    }

    /// Lets a record say how far the log is chosen: it spares work after a restart, and who has left the cell
    /// must not be needed to find out again what was chosen while it voted.
    fn record_chosen(&mut self) {
        if self.chosen > self.chosen_recorded {
            self.chosen_recorded = self.chosen;
            let record = self.record(Record::Chosen(self.chosen));
            self.chosen_records.push_back((record, self.chosen));
        }
    }

    /// Drops what a snapshot has from the log, but for what others may still fetch; without others, all that
    /// is chosen.
    fn trim(&mut self) {
        if self.is_alone_here() {
            self.log.drop_through(self.chosen);
        }
        while self.log.first() <= self.snapshot && self.log.bytes() > self.config.log_bytes_kept {
            self.log.drop_first();
        }
    }

    /// Whether the cell has no other replica.
    fn is_alone_here(&self) -> bool {
        self.configurations.everyone().all(|member| member.id == self.config.replica)
            && self.configurations.knows(self.config.replica)
    }

    /// Whether this replica alone decides, as far as anyone may propose.
    fn is_sole_voter(&self) -> bool {
        self.governing().all(|members| self.is_alone(members))
    }

    fn is_sole_voter_on(&self, slot: Slot) -> bool {
        self.is_alone(self.configurations.at(slot))
    }

    fn is_alone(&self, members: &wombat_proto::Members) -> bool {
        members.voters.len() == 1 && members.is_voter(self.config.replica)
    }

    /// Whether this replica votes on a slot that is not chosen yet.
    fn may_vote(&self) -> bool {
        self.governing().any(|members| members.is_voter(self.config.replica))
    }

    /// Those who vote on slots that are not chosen yet, as far as anyone may propose.
    fn governing(&self) -> impl Iterator<Item = &wombat_proto::Members> {
        self.configurations.governing(self.chosen.next(), Slot(self.chosen.0 + self.config.window))
    }

    /// The voters of all of them, but this replica itself, each once.
    fn other_voters(&self) -> Vec<ReplicaId> {
        let mut ids: Vec<ReplicaId> =
            self.governing().flat_map(|members| members.voters.iter().map(|member| member.id)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.retain(|id| *id != self.config.replica);
        ids
    }

    /// A random part of `most`.
    fn jitter(&mut self, most: Duration) -> Duration {
        self.random.part(most)
    }
}

/// Moves everything to where it is taken from.
fn hand_over<T>(from: &mut Vec<T>, to: &mut Vec<T>) {
    if from.is_empty() {
        return;
    }
    if to.is_empty() {
        core::mem::swap(from, to);
    } else {
        to.append(from);
    }
}

/// After so many more chosen slots, a record says so.
const RECORD_CHOSEN_EVERY: u64 = 256;
