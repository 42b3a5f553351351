//! One replica of a cell, sans-IO: `step(moment, input) -> effects`.
//!
//! A replica is the log's agreement (`paxos`), the state that the log makes (`state`) and, while it is
//! master, the memory of a master: session leases, plain handles, lock queues, lock-delay clocks, events.
//! What must survive a fail-over is a command in the log; the memory is rebuilt conservatively.
//!
//! A request's way: `request` → `calls` checks session, epoch and handle → a read is answered from the
//! state, a change is proposed → `chosen` applies it → the answer, events and grants that follow from it.
#![no_std]

extern crate alloc;

mod activity;
mod breaks;
mod cache;
mod calls;
mod chosen;
mod connection;
mod digests;
mod events;
mod fail_over;
mod handles;
mod leases;
mod lock_queue;
mod locks;
mod master;
mod proposals;
mod seal;
mod snapshot;
mod timers;
mod waiting;

pub use chosen::LONGEST_TICK;
pub use fail_over::Stage;
pub use snapshot::Snapshot;
pub use wombat_paxos::{Mark, Message as PaxosMessage, Notice, ReceivedChunk, Standing, WantedChunk};
pub use wombat_state::State;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use cache::Wanted;
use connection::Connection;
use core::ops::Bound;
use core::time::Duration;
use digests::Digests;
use master::Master;
use proposals::Proposals;
use prost::Message;
use waiting::Greetings;
use wombat_paxos::{Batch, Configurations, Paxos, Persist};
use wombat_proto::wire::log::{self, command::Op};
use wombat_proto::wire::{self, request::Call, response};
use wombat_proto::{
    Accepted, Ballot, CellName, Epoch, Error, Instant, Members, Record, ReplicaId, Result, SessionId, Slot,
    Value,
};
use wombat_state::{KEY_BYTES, SnapshotError};

/// What a replica is, and how it serves.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cell's name.
    pub cell: CellName,
    /// This replica's id.
    pub replica: ReplicaId,
    /// Where clients reach it, `host:port`.
    pub address: String,
    /// The members that the cell was founded with; nobody's, for a replica that joined it later.
    pub founders: Members,
    /// The master lease M (P§2.2).
    pub master_lease: Duration,
    /// The longest one that it asks for as master where round trips are too long for that.
    pub max_master_lease: Duration,
    /// Makes this replica's choices its own.
    pub seed: u64,
    /// The session lease L that it grants as master (P§2.8).
    pub lease: Duration,
    /// The cache lease C that it grants as master (SPEC §6), if L is not shorter.
    pub cache_lease: Duration,
    /// The server's version, for people.
    pub version: String,
    /// Random bytes for the key of a cell that is founded now; unused for one that exists.
    pub fresh_key: [u8; KEY_BYTES],
    /// Whether to describe each applied change in [`Effects::activity`].
    pub activity: bool,
}

/// What the disk knew when the replica started.
#[derive(Clone, Default, Debug)]
pub struct Recovered {
    /// How often this replica has started, this time included.
    pub starts: u32,
    /// Whether the disk is a copy: what this replica has said since the copy was made is not on it.
    pub is_copy: bool,
    /// The highest ballot that it promised to take part in.
    pub promised: Ballot,
    /// The longest master lease that it may have granted.
    pub lease_bound: Duration,
    /// Every slot up to here is known to be chosen.
    pub chosen: Slot,
    /// The chunks of its snapshot and the slot that they stand for.
    pub snapshot: Option<(Slot, Vec<Bytes>)>,
    /// What it accepted above that, in slot order.
    pub accepted: Vec<Accepted>,
}

/// The world's time at one step.
#[derive(Clone, Copy, Default, Debug)]
pub struct Moment {
    /// The monotonic clock; never earlier than at the last step.
    pub now: Instant,
    /// Wall time in milliseconds since 1970, for people, and the least epoch of a new master.
    pub wall_ms: u64,
}

/// A client's connection, named by the shell; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// What replicas say to each other.
#[derive(Clone, Debug)]
pub enum PeerMessage {
    /// Of the agreement.
    Paxos(PaxosMessage),
    /// What the sender made of a part of the state.
    Digest {
        /// The slot that asked for it.
        slot: Slot,
        /// The hash.
        digest: u64,
    },
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// A request arrived.
    Request {
        /// On which connection.
        connection: ConnectionId,
        /// What it says.
        request: wire::Request,
    },
    /// A connection is gone. This ends no session (SPEC §3).
    Disconnected {
        /// Which.
        connection: ConnectionId,
    },
    /// The first `through` records ever handed out in [`Effects::persist`] are durable.
    Persisted {
        /// How many.
        through: u64,
    },
    /// Another replica says something.
    Peer {
        /// Which.
        from: ReplicaId,
        /// What.
        message: PeerMessage,
    },
    /// The connection of another replica is gone: it may be dead.
    PeerLost {
        /// Which.
        peer: ReplicaId,
    },
    /// A snapshot of this replica's own is durable.
    Snapshotted {
        /// Of which slot.
        slot: Slot,
    },
    /// Another replica's snapshot has arrived whole, and is durable.
    SnapshotArrived(Snapshot),
    /// Another replica's snapshot has arrived, and cannot be used.
    SnapshotFailed,
    /// Hand mastership to another voter.
    Transfer {
        /// Which; 0: the one that is furthest.
        to: ReplicaId,
    },
    /// Another replica knows a later start of this one: its disk is an older copy.
    RolledBack,
    /// Time has passed; due by [`Replica::next_deadline`], welcome at any time.
    Tick,
    /// Time has passed, but KeepAlives that have arrived are still to come: nobody's lease has ended that lasted
    /// longer than this.
    Pulse {
        /// All that arrived before was handed in.
        heard: Instant,
    },
}

/// What the shell has to do.
#[derive(Default, Debug)]
pub struct Effects {
    /// Records to append to the log, in order.
    pub persist: Vec<Record>,
    /// Messages to other replicas. Any of them may be lost.
    pub send: Vec<(ReplicaId, PeerMessage)>,
    /// Chunks of this replica's snapshot that others ask for.
    pub wanted_chunks: Vec<WantedChunk>,
    /// Chunks of another replica's snapshot, in order; all of one snapshot become
    /// [`Input::SnapshotArrived`].
    pub received_chunks: Vec<ReceivedChunk>,
    /// This replica's disk was a copy, and it votes again: its disk is its own from now on.
    pub reinstated: bool,
    /// What this replica acknowledged is missing on its disk: the data directory is a copy from now on.
    pub rolled_back: bool,
    /// Another replica needs a snapshot that is newer than this replica's newest one.
    pub snapshot_wanted: bool,
    /// The state is not what a quorum of replicas has, as of this slot (SPEC I19): this replica must stop, and
    /// its data must never be used again.
    pub diverged: Option<Slot>,
    /// Answers to send. One for a connection that is gone is dropped.
    pub replies: Vec<(ConnectionId, wire::Response)>,
    /// Connections to close once their answers are sent.
    pub hang_up: Vec<ConnectionId>,
    /// The steps that a new master has taken, with its epoch (P§2.9).
    pub stages: Vec<(Epoch, Stage)>,
    /// Applied changes, in words, if the configuration asks for them.
    pub activity: Vec<String>,
    /// What an operator should know of the agreement.
    pub notices: Vec<Notice>,
}

/// Why a replica cannot start from what its disk knew.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StartError {
    /// The snapshot cannot be read.
    Snapshot(SnapshotError),
    /// A command of the log cannot be read.
    Command(Slot),
}

impl core::fmt::Display for StartError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            StartError::Snapshot(error) => error.fmt(f),
            StartError::Command(slot) => {
                write!(f, "the command of slot {slot} cannot be read; was it written by a newer version?")
            }
        }
    }
}

impl core::error::Error for StartError {}

/// The answer to a request that succeeded.
type Answer = response::Result;

/// Who asked, and how the answer finds back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Asker {
    connection: ConnectionId,
    session: SessionId,
    number: u64,
}

/// One replica of a cell.
pub struct Replica {
    config: Config,
    paxos: Paxos,
    paxos_effects: wombat_paxos::Effects,
    state: State,
    connections: BTreeMap<ConnectionId, Connection>,
    proposals: Proposals,
    digests: Digests,
    /// Who waits to hear of a master.
    greetings: Greetings,
    /// The master's memory, while this replica is master.
    master: Option<Master>,
    /// The epoch for which the command that makes this replica master has been proposed.
    begun: Option<Epoch>,
    /// The moment of the present step, or the last one.
    moment: Moment,
    started: Instant,
    /// What the present step has to do.
    effects: Effects,
}

impl Replica {
    /// Starts a replica from what its disk knew. The first effects come with the first step.
    pub fn new(
        config: Config,
        recovered: Recovered,
        moment: Moment,
    ) -> core::result::Result<Replica, StartError> {
        let founding = || Configurations::founding(config.founders.clone());
        let Snapshot { configurations, state } = match recovered.snapshot {
            None => Snapshot { configurations: founding(), state: State::new() },
            Some((slot, chunks)) => Snapshot::restore(slot, chunks).map_err(StartError::Snapshot)?,
        };
        let recovered = wombat_paxos::Recovered {
            starts: recovered.starts,
            is_copy: recovered.is_copy,
            promised: recovered.promised,
            lease_bound: recovered.lease_bound,
            chosen: recovered.chosen,
            snapshot: state.applied(),
            configurations,
            accepted: recovered.accepted,
        };
        let paxos = Paxos::new(paxos_config(&config), recovered, moment.now);
        let mut replica = Replica {
            config,
            paxos,
            paxos_effects: wombat_paxos::Effects::default(),
            state,
            connections: BTreeMap::new(),
            proposals: Proposals::default(),
            digests: Digests::default(),
            greetings: Greetings::default(),
            master: None,
            begun: None,
            moment,
            started: moment.now,
            effects: Effects::default(),
        };
        replica.paxos.flush(&mut replica.paxos_effects);
        let chosen = core::mem::take(&mut replica.paxos_effects.chosen);
        for (slot, value) in chosen.iter().flat_map(Batch::iter) {
            match value {
                Value::Command(command) => {
                    let command =
                        log::Command::decode(command.clone()).map_err(|_| StartError::Command(slot))?;
                    replica.state.apply(slot, &command);
                }
                Value::Noop | Value::Members(_) => replica.state.skip(slot),
            }
        }
        Ok(replica)
    }

    /// Takes one thing that happened and adds to `effects` what follows from it.
    pub fn step(&mut self, moment: Moment, input: Input, effects: &mut Effects) {
        core::mem::swap(&mut self.effects, effects);
        let stalled = moment.now.since(self.moment.now);
        self.moment = Moment { now: self.moment.now.max(moment.now), ..moment };
        self.forgive_stall(stalled);
        self.paxos.set_wall_clock(self.moment.wall_ms);
        match input {
            Input::Request { connection, request } => self.request(connection, request),
            Input::Disconnected { connection } => self.disconnected(connection),
            Input::Persisted { through } => self.paxos.persisted(self.moment.now, through),
            Input::Peer { from, message: PeerMessage::Paxos(message) } => {
                self.paxos.receive(self.moment.now, from, message);
            }
            Input::Peer { from, message: PeerMessage::Digest { slot, digest } } => {
                self.digest_told(from, slot, digest);
            }
            Input::PeerLost { peer } => self.paxos.lost(self.moment.now, peer),
            Input::Snapshotted { slot } => self.paxos.snapshotted(slot),
            Input::SnapshotArrived(snapshot) => self.install(snapshot),
            Input::SnapshotFailed => self.paxos.install_failed(),
            Input::Transfer { to } => {
                let _only_a_master_can = self.transfer(&wire::Transfer { replica: to.0 });
            }
            Input::RolledBack => self.paxos.rolled_back(self.moment.now),
            Input::Pulse { heard } => self.tick(heard.min(self.moment.now)),
            Input::Tick => self.tick(self.moment.now),
        }
        self.advance();
        self.finish_fail_over();
        loop {
            self.tell_holders();
            if !(self.release_held() | self.finish_breaks() | self.finish_rounds() | self.log_cache_leases())
            {
                break;
            }
            self.advance();
        }
        self.deliver_events();
        self.answer_greetings();
        core::mem::swap(&mut self.effects, effects);
    }

    fn tick(&mut self, heard: Instant) {
        self.paxos.tick(self.moment.now);
        self.run_timers(heard);
        if let Some(master) = &mut self.master {
            master.crowd_waits = false;
            master.publish_more();
            master.cache.tick(self.moment.now);
        }
        self.tend_leases();
        self.tend_members();
        self.tend_digests();
    }

    /// When the next [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let now = self.moment.now;
        let own = self.master.as_ref().map(|master| [master.timers.next(), master.cache.next_due(now)]);
        let others = [self.paxos.next_deadline(), self.greetings.next_due(), self.crowd_due()];
        own.into_iter().flatten().chain(others).flatten().min()
    }

    /// Everything up to the last slot applied; `None` before the cell is founded.
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.state.cell_name()?;
        let configurations = self.paxos.configurations().clone();
        Some(Snapshot { configurations, state: self.state.clone() })
    }

    /// Where this replica stands in the agreement.
    pub fn standing(&self) -> wombat_paxos::Status {
        self.paxos.status()
    }

    /// Differs whenever [`Replica::peers`] does.
    pub fn members_version(&self) -> (Slot, usize) {
        let configurations = self.paxos.configurations();
        (configurations.newest_from(), configurations.entries().len())
    }

    /// The other replicas that this one may have to talk to.
    pub fn peers(&self) -> impl Iterator<Item = &wombat_proto::Member> {
        let own = self.config.replica;
        self.paxos.configurations().everyone().filter(move |member| member.id != own)
    }

    /// The replicated state, to write a snapshot from a clone of it, or to look at.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether this replica serves as master.
    pub fn is_master(&self) -> bool {
        self.master.is_some()
    }

    /// Whether this replica may answer as master at `now`, a reading of its own clock (SPEC I2).
    pub fn serves_at(&self, now: Instant) -> bool {
        self.master.is_some() && self.paxos.lease_holds(now)
    }

    /// How old the state is at `now`, a reading of its own clock, at most: everything that was completed before is
    /// in it. `None` if the replica has been sure of nothing since it started.
    pub fn age_at(&self, now: Instant) -> Option<Duration> {
        self.paxos.complete_until(now).map(|until| now.since(until))
    }

    fn request(&mut self, connection: ConnectionId, request: wire::Request) {
        let asker = Asker { connection, session: SessionId(request.session), number: request.number };
        // Who has not shown the session's secret hears only on its own connection.
        let known = self.connections.get(&connection);
        if known.is_some_and(|known| known.closing) {
            return;
        }
        let attached = known.is_some_and(|known| known.sessions.contains(&asker.session));
        let (result, wanted) = match self.hold_back(connection, request) {
            Ok(Some(request)) => {
                let wanted = request.call.as_ref().filter(|_| attached).and_then(Wanted::of);
                (self.call(asker, request), wanted)
            }
            Ok(None) => return,
            Err(error) => (Err(error), None),
        };
        let Some(result) = result.transpose() else { return };
        let cachable = wanted.and_then(|wanted| self.cachable(asker, wanted, &result));
        let to = if attached { self.connection_of(asker) } else { connection };
        self.send(to, asker, result, cachable);
    }

    /// Lets a connection be closed, once what was answered on it is sent.
    fn hang_up(&mut self, id: ConnectionId) {
        self.connections.insert(id, Connection { closing: true, ..Connection::default() });
        self.effects.hang_up.push(id);
    }

    /// Answers to where the session was attached last: a copy of a request that was delayed on a connection
    /// which its client has left must not draw the answer there.
    fn reply(&mut self, asker: Asker, result: Result<Answer>) {
        self.send(self.connection_of(asker), asker, result, None);
    }

    fn connection_of(&self, asker: Asker) -> ConnectionId {
        let live = self.master.as_ref().and_then(|master| master.sessions.get(&asker.session));
        live.and_then(|live| live.connection).unwrap_or(asker.connection)
    }

    fn send(
        &mut self,
        connection: ConnectionId,
        asker: Asker,
        result: Result<Answer>,
        cachable: Option<wire::Cachable>,
    ) {
        let result = result.unwrap_or_else(|error| match error {
            Error::NotMaster { hint: None } => {
                let hint = Some(self.master_address()).filter(|hint| !hint.is_empty());
                Answer::Error((&Error::NotMaster { hint }).into())
            }
            error => Answer::Error((&error).into()),
        });
        let response =
            wire::Response { session: asker.session.0, number: asker.number, cachable, result: Some(result) };
        self.effects.replies.push((connection, response));
    }

    /// Carries on with whatever the agreement has decided, until there is nothing more.
    fn advance(&mut self) {
        loop {
            self.paxos.flush(&mut self.paxos_effects);
            let effects = &mut self.paxos_effects;
            self.effects.persist.extend(effects.persist.iter().flat_map(Persist::records));
            effects.persist.clear();
            let send = effects.send.drain(..).map(|(to, message)| (to, PeerMessage::Paxos(message)));
            self.effects.send.extend(send);
            self.effects.wanted_chunks.append(&mut effects.wanted_chunks);
            self.effects.received_chunks.append(&mut effects.received_chunks);
            self.effects.reinstated |= core::mem::take(&mut effects.reinstated);
            self.effects.rolled_back |= core::mem::take(&mut effects.rolled_back);
            self.effects.snapshot_wanted |= core::mem::take(&mut effects.snapshot_wanted);
            self.effects.notices.append(&mut effects.notices);
            effects.ended.clear(); // Whoever asked was told to ask the next master.
            let chosen = core::mem::take(&mut effects.chosen);
            self.resign_if_deposed();
            let none = chosen.is_empty();
            for (slot, value) in chosen.iter().flat_map(Batch::iter) {
                match value {
                    Value::Command(command) => self.chosen(slot, command.clone()),
                    Value::Noop | Value::Members(_) => self.chosen_no_command(slot),
                }
            }
            let leads = self.paxos.leads();
            if leads.is_some() && self.begun != leads {
                self.begun = leads;
                self.begin();
            } else if none {
                return;
            }
        }
    }

    /// Puts another replica's snapshot in the place of the state, if it is newer.
    fn install(&mut self, snapshot: Snapshot) {
        let Snapshot { configurations, state } = snapshot;
        if self.paxos.installed(self.moment.now, state.applied(), configurations) {
            self.state = state;
        }
    }

    /// The first proposals of a master: the cell itself if it is new, then its epoch.
    fn begin(&mut self) {
        let Some(epoch) = self.paxos.leads() else { return };
        self.effects.stages.extend([(epoch, Stage::Elected { epoch }), (epoch, Stage::Locates)]);
        let lease_ms = self.config.lease.as_millis() as u32;
        let cache_lease_ms = self.config.cache_lease.as_millis() as u32;
        let restored = self.paxos.leads_from_copies();
        let begin_epoch = Op::BeginEpoch(log::BeginEpoch { lease_ms, cache_lease_ms, restored });
        let found_cell = self.state.cell_name().is_none().then(|| {
            let key = Bytes::copy_from_slice(&self.config.fresh_key);
            Op::FoundCell(log::FoundCell { cell: self.config.cell.as_str().into(), key })
        });
        for op in found_cell.into_iter().chain([begin_epoch]) {
            self.propose_own(op).unwrap_or_else(|_| panic!("epoch {epoch} begins with room for proposals"));
        }
    }
}

/// How this replica takes part in the agreement.
fn paxos_config(config: &Config) -> wombat_paxos::Config {
    let longest_lease = config.max_master_lease;
    let usual = wombat_paxos::Config::new(config.replica, config.seed);
    wombat_paxos::Config { longest_lease, ..usual }.with_lease(config.master_lease)
}

/// The calls that a replica answers whether it is master or not.
fn needs_master(call: &Call) -> bool {
    !matches!(call, Call::Hello(_) | Call::GetStatus(_) | Call::ReadStale(_))
}

/// Whose turn it is behind `last`, from the beginning again after the end.
fn next_in_turn<'a, K: Ord>(all: &'a BTreeSet<K>, last: Option<&K>) -> Option<&'a K> {
    let after = (last.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
    all.range(after).next().or_else(|| all.first())
}
