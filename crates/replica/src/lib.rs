//! One replica of a cell, sans-IO: `step(time, input) -> effects`.
//!
//! A replica is the replicated log (`log`), the state that the log makes (`wombat_state`) and, while it is master, a
//! master's memory: session leases, handles, lock queues, invalidations, events. What must survive a fail-over is a
//! command in the log; a new master rebuilds the memory conservatively.
//!
//! A request: `request` → `master/admit` checks session, epoch and number → a read is answered from the state, a change
//! goes through `master/propose` to the log → when it is chosen, `master/committed` sends the answer, the events and
//! the grants that follow from it.
#![no_std]

extern crate alloc;

mod activity;
mod affected_keys;
mod api;
mod context;
mod follower;
mod log;
mod master;
mod pages;
mod path_reads;
mod request;
mod snapshot;
mod stage;
mod status;
mod tables;

pub use api::{Config, Effects, Input, LONGEST_TICK, PeerMessage, StartError, StepTime};
pub use request::ConnectionId;
pub use snapshot::Snapshot;
pub use stage::Stage;
pub use wombat_paxos::{Mark, Message as PaxosMessage, Notice, ReceivedChunk, Standing, WantedChunk};
pub use wombat_proto::Recovered;
pub use wombat_state::State;

use alloc::string::String;
use bytes::Bytes;
use context::{Cx, View};
use core::time::Duration;
use log::{Entry, ReplicatedLog};
use master::Master;
use prost::Message;
use request::{Answer, Reply, RequestContext};
use tables::connections::Connections;
use tables::digests::Digests;
use tables::pending_hellos::PendingHellos;
use wombat_paxos::{Batch, Configurations};
use wombat_proto::wire::log::command::Op;
use wombat_proto::wire::{self, log as wire_log, request::Call};
use wombat_proto::{Epoch, Error, Instant, ReplicaId, Slot, Value};
use wombat_state::Outcome;

/// What a replica does besides keeping the log.
enum Role {
    /// It follows the master, or looks for one.
    Follower,
    /// It leads in this epoch, and serves as soon as the command that says so is applied.
    Elected(Epoch),
    /// It serves.
    Master(alloc::boxed::Box<Master>),
}

impl Role {
    /// The epoch in which it leads.
    fn epoch(&self) -> Option<Epoch> {
        match self {
            Role::Follower => None,
            Role::Elected(epoch) => Some(*epoch),
            Role::Master(master) => Some(master.epoch()),
        }
    }

    fn master(&self) -> Option<&Master> {
        match self {
            Role::Master(master) => Some(master),
            Role::Follower | Role::Elected(_) => None,
        }
    }
}

/// One replica of a cell.
pub struct Replica {
    config: Config,
    log: ReplicatedLog,
    state: State,
    connections: Connections,
    /// Hellos that wait until a master is known.
    pending_hellos: PendingHellos,
    digests: Digests,
    role: Role,
    /// The time of the present step, or the last one.
    time: StepTime,
    started: Instant,
}

impl Replica {
    /// Starts a replica from what was read from its disk. The first effects come with the first step.
    pub fn new(
        config: Config,
        recovered: Recovered,
        time: StepTime,
    ) -> core::result::Result<Replica, StartError> {
        let founding = || Configurations::founding(config.founders.clone());
        let Snapshot { configurations, mut state } = match &recovered.snapshot {
            None => Snapshot { configurations: founding(), state: State::new() },
            Some((slot, chunks)) => Snapshot::restore(*slot, chunks.clone()).map_err(StartError::Snapshot)?,
        };
        let mut log = ReplicatedLog::new(&config, configurations, recovered, time.now);
        for (slot, value) in log.recovered().iter().flat_map(Batch::iter) {
            match value {
                Value::Command(command) => {
                    let command = wire_log::Command::decode(command.clone());
                    state.apply(slot, &command.map_err(|_| StartError::Command(slot))?);
                }
                Value::Noop | Value::Members(_) => state.skip(slot),
            }
        }
        Ok(Replica {
            config,
            log,
            state,
            connections: Connections::default(),
            pending_hellos: PendingHellos::default(),
            digests: Digests::default(),
            role: Role::Follower,
            time,
            started: time.now,
        })
    }

    /// Takes one input, and adds to `out` what follows from it.
    pub fn step(&mut self, time: StepTime, input: Input, out: &mut Effects) {
        let stalled = time.now.since(self.time.now);
        self.time = StepTime { now: self.time.now.max(time.now), ..time };
        let now = self.time.now;
        self.log.set_wall_clock(time.wall_ms);
        if let Some((master, cx)) = self.master_mut(out) {
            master.forgive_stall(&cx, stalled);
        }
        match input {
            Input::Request { connection, request } => self.request(connection, request, out),
            Input::Disconnected { connection } => self.disconnected(connection),
            Input::Persisted { through } => self.log.persisted(now, through),
            Input::Peer { from, message: PeerMessage::Paxos(message) } => {
                self.log.receive(now, from, message);
            }
            Input::Peer { from, message: PeerMessage::Digest { slot, digest } } => {
                if let Some((master, mut cx)) = self.master_mut(out) {
                    master.digest_received(&mut cx, from, (slot, digest));
                }
            }
            Input::PeerLost { peer } => self.log.peer_lost(now, peer),
            Input::Snapshotted { slot } => self.log.snapshotted(slot),
            Input::SnapshotArrived(snapshot) => self.install(snapshot),
            Input::SnapshotFailed => self.log.install_failed(),
            Input::Transfer { to } => {
                let (_, _, mut cx) = self.parts(out);
                let _only_a_master_can = master::transfer(&mut cx, &wire::Transfer { replica: to.0 });
            }
            Input::RolledBack => self.log.rolled_back(now),
            Input::PartialTick { drained_through } => self.tick(drained_through.min(now), out),
            Input::Tick => self.tick(now, out),
        }
        self.apply_committed(out);
        if let Some((master, mut cx)) = self.master_mut(out) {
            master.finish_fail_over(&mut cx);
        }
        while let Some((master, mut cx)) = self.master_mut(out)
            && master.progress(&mut cx)
        {
            self.apply_committed(out);
        }
        if let Some((master, mut cx)) = self.master_mut(out) {
            master.answer_keep_alives(&mut cx);
        }
        let epoch = self.role.master().map(Master::epoch);
        let (_, hellos, mut cx) = self.parts(out);
        follower::answer_hellos(&mut cx, hellos, epoch);
    }

    fn tick(&mut self, drained_through: Instant, out: &mut Effects) {
        self.log.tick(self.time.now);
        match self.master_mut(out) {
            Some((master, mut cx)) => master.tick(&mut cx, drained_through),
            None => self.digests.pause(),
        }
    }

    /// The role, the waiting Hellos, and the surroundings that both work with.
    fn parts<'a>(&'a mut self, out: &'a mut Effects) -> (&'a mut Role, &'a mut PendingHellos, Cx<'a>) {
        let cx = Cx {
            time: self.time,
            config: &self.config,
            state: &self.state,
            log: &mut self.log,
            connections: &mut self.connections,
            digests: &mut self.digests,
            is_master: matches!(self.role, Role::Master(_)),
            out,
        };
        (&mut self.role, &mut self.pending_hellos, cx)
    }

    /// The master, if this replica serves as one, and its surroundings.
    fn master_mut<'a>(&'a mut self, out: &'a mut Effects) -> Option<(&'a mut Master, Cx<'a>)> {
        match self.parts(out) {
            (Role::Master(master), _, cx) => Some((master, cx)),
            (Role::Follower | Role::Elected(_), ..) => None,
        }
    }

    fn request(&mut self, connection: ConnectionId, request: wire::Request, out: &mut Effects) {
        let context = RequestContext::of(connection, &request);
        let known = self.connections.get(connection);
        if known.is_some_and(|known| known.closing) {
            return;
        }
        let is_known = known.is_some();
        let result = match &request.call {
            None => Err(Error::invalid("the request names no call")),
            Some(Call::Hello(hello)) => {
                let epoch = self.role.master().map(Master::epoch);
                let (_, hellos, mut cx) = self.parts(out);
                follower::hello(&mut cx, hellos, epoch, context, hello)
            }
            Some(_) if !is_known => {
                self.parts(out).2.hang_up(connection);
                Err(Error::invalid("the first request of a connection is Hello"))
            }
            Some(Call::GetStatus(_)) => Ok(Reply::Now(Answer::Status(self.report()))),
            Some(Call::ReadStale(read)) => path_reads::read_stale(self.view(), read).map(Reply::Now),
            Some(_) => match self.master_mut(out) {
                Some((master, mut cx)) => return master.request(&mut cx, context, request),
                None => Err(Error::NotMaster { hint: None }),
            },
        };
        let result = match result {
            Ok(Reply::Later) => return,
            Ok(Reply::Now(answer)) => Ok(answer),
            Err(error) => Err(error),
        };
        self.parts(out).2.respond(connection, context, result, None);
    }

    /// A connection is gone. That ends no session (SPEC §3).
    fn disconnected(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.remove(id)
            && let Role::Master(master) = &mut self.role
        {
            master.disconnected(id, connection);
        }
    }

    /// Applies what the log has decided, until there is nothing more.
    fn apply_committed(&mut self, out: &mut Effects) {
        loop {
            let chosen = self.log.next_committed(out);
            self.resign_if_deposed(out);
            for (slot, value) in chosen.iter().flat_map(Batch::iter) {
                match value {
                    Value::Command(command) => self.apply(slot, command.clone(), out),
                    Value::Noop | Value::Members(_) => self.skip(slot, out),
                }
            }
            let leads = self.log.paxos().leads();
            match leads {
                Some(epoch) if self.role.epoch() != leads => self.begin(epoch, out),
                _ if chosen.is_empty() => return,
                _ => {}
            }
        }
    }

    fn apply(&mut self, slot: Slot, command: Bytes, out: &mut Effects) {
        let command = wire_log::Command::decode(command).expect("this replica encoded the command itself");
        let applied = self.state.apply(slot, &command);
        if self.config.activity {
            out.activity.extend(activity::describe(&self.state, &command, &applied));
        }
        match (&command.op, &applied.result) {
            (_, Ok(Outcome::Digest { digest, next })) => self.digest_taken(slot, *digest, *next, out),
            (Some(Op::CompareDigest(compare)), Ok(_)) => {
                out.diverged = self.digests.compare(compare).or(out.diverged);
            }
            (Some(Op::BeginEpoch(_)), _) => self.serve_if_elected(out),
            _ => {}
        }
        let proposal = self.log.take(slot);
        if let Some((master, mut cx)) = self.master_mut(out) {
            master.committed(&mut cx, slot, command.op.as_ref(), applied, proposal);
        }
    }

    /// A slot without a command is chosen: a no-op, or other members.
    fn skip(&mut self, slot: Slot, out: &mut Effects) {
        self.state.skip(slot);
        let proposal = self.log.take(slot);
        if let Some((master, mut cx)) = self.master_mut(out) {
            master.members_chosen(&mut cx, proposal);
        }
    }

    /// This replica has made a digest, and the master has to know it.
    fn digest_taken(
        &mut self,
        slot: Slot,
        digest: u64,
        next: (wombat_proto::Instance, wombat_proto::SessionId),
        out: &mut Effects,
    ) {
        self.digests.taken(slot, digest, next);
        if !self.is_master()
            && let Some(master) = self.log.paxos().master()
        {
            out.send.push((master, PeerMessage::Digest { slot, digest }));
        }
    }

    /// Puts another replica's snapshot in the place of the state, if it is newer.
    fn install(&mut self, snapshot: Snapshot) {
        let Snapshot { configurations, state } = snapshot;
        if self.log.installed(self.time.now, state.applied(), configurations) {
            self.state = state;
        }
    }

    /// This replica was elected. It proposes the cell itself if it is new, then its epoch.
    fn begin(&mut self, epoch: Epoch, out: &mut Effects) {
        self.role = Role::Elected(epoch);
        out.stages.extend([(epoch, Stage::Elected { epoch }), (epoch, Stage::Locates)]);
        let lease_ms = self.config.lease.as_millis() as u32;
        let cache_lease_ms = self.config.cache_lease.as_millis() as u32;
        let restored = self.log.paxos().leads_from_copies();
        let begin_epoch = Op::BeginEpoch(wire_log::BeginEpoch { lease_ms, cache_lease_ms, restored });
        let found_cell = self.state.cell_name().is_none().then(|| {
            let key = Bytes::copy_from_slice(&self.config.fresh_key);
            Op::FoundCell(wire_log::FoundCell { cell: self.config.cell.as_str().into(), key })
        });
        for op in found_cell.into_iter().chain([begin_epoch]) {
            let appended = self.log.append(Entry::own(op, self.time.wall_ms), |_| [].into());
            appended.unwrap_or_else(|_| panic!("epoch {epoch} begins with room for proposals"));
        }
    }

    /// The epoch of this replica has begun, unless the command was another's.
    fn serve_if_elected(&mut self, out: &mut Effects) {
        let epoch = self.state.epoch();
        if matches!(self.role, Role::Elected(_)) && self.log.paxos().leads() == Some(epoch) {
            let (role, _, mut cx) = self.parts(out);
            *role = Role::Master(Master::new(&mut cx).into());
        }
    }

    /// Drops the memory of a master that leads no longer. Its clients find the next master and repeat their requests.
    fn resign_if_deposed(&mut self, out: &mut Effects) {
        if self.role.epoch().is_none() || self.log.paxos().leads() == self.role.epoch() {
            return;
        }
        let role = core::mem::replace(&mut self.role, Role::Follower);
        self.log.forget_proposals();
        let next = self.log.paxos().successor().map(|next| self.log.address_of(next));
        let next: Option<String> = next.filter(|address| !address.is_empty());
        let (_, _, mut cx) = self.parts(out);
        if let Role::Master(master) = role {
            master.resign(&mut cx, next);
        }
        for id in cx.connections.ids() {
            cx.hang_up(id);
        }
    }

    fn view(&self) -> View<'_> {
        View {
            now: self.time.now,
            config: &self.config,
            state: &self.state,
            log: &self.log,
            is_master: self.is_master(),
        }
    }

    /// When the next [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let now = self.time.now;
        let lease_holds = || self.log.paxos().lease_holds(now);
        let master = self.role.master().and_then(|master| master.next_due(now, lease_holds()));
        [master, self.log.paxos().next_deadline(), self.pending_hellos.next_due()].into_iter().flatten().min()
    }

    /// Everything up to the last slot applied; `None` before the cell is founded.
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.state.cell_name()?;
        let configurations = self.log.paxos().configurations().clone();
        Some(Snapshot { configurations, state: self.state.clone() })
    }

    /// The status of this replica, except what only the server knows.
    pub fn report(&self) -> wire::Status {
        let uptime = self.time.now.since(self.started);
        status::report(self.view(), self.role.master(), self.connections.len(), uptime)
    }

    /// The status of Paxos at this replica.
    pub fn standing(&self) -> wombat_paxos::Status {
        self.log.paxos().status()
    }

    /// Differs whenever [`Replica::peers`] does.
    pub fn members_version(&self) -> (Slot, usize) {
        let configurations = self.log.paxos().configurations();
        (configurations.newest_from(), configurations.entries().len())
    }

    /// The other replicas that this one may have to talk to.
    pub fn peers(&self) -> impl Iterator<Item = &wombat_proto::Member> {
        let own = self.config.replica;
        self.log.paxos().configurations().everyone().filter(move |member| member.id != own)
    }

    /// The replicated state, to write a snapshot from a clone of it, or to look at.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether this replica serves as master.
    pub fn is_master(&self) -> bool {
        self.role.master().is_some()
    }

    /// The master, as far as this replica knows.
    pub fn master(&self) -> Option<ReplicaId> {
        self.view().known_master()
    }

    /// Where the master listens, as far as this replica knows; empty if it does not.
    pub fn master_address(&self) -> String {
        self.view().master_address()
    }

    /// Whether this replica may answer as master at `now`, a reading of its own clock (SPEC I2).
    pub fn serves_at(&self, now: Instant) -> bool {
        self.is_master() && self.log.paxos().lease_holds(now)
    }

    /// How old the state is at most at `now`, a reading of its own clock: every change that was completed before is in
    /// it. `None` if the replica has been sure of nothing since it started.
    pub fn age_at(&self, now: Instant) -> Option<Duration> {
        View { now, ..self.view() }.age()
    }

    /// Whether a connection speaks for a session that lives, and that was attached to no other connection since.
    pub fn serves_session(&mut self, id: ConnectionId) -> bool {
        let Role::Master(master) = &self.role else { return false };
        master.serves_session(&mut self.connections, id)
    }
}
