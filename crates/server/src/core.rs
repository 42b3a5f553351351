//! The core's turn: take what has happened, step the replica, make its records durable, send what it says.

use crate::admission::{Admission, Kind};
use crate::chunks::{Incoming, Outgoing};
use crate::disk::{Done, ReplicaDisk};
use crate::inbox::Inbox;
use crate::outbox::Outbox;
use crate::peers::{Datagrams, Own, Peers, Start};
use crate::relay::Master;
use crate::steps::{self, StepTimes};
use crate::{Config, ServerError, founding};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tracing::{debug, info, warn};
use wombat_proto::clock;
use wombat_proto::wire::{self, Response, response};
use wombat_proto::{Epoch, Member, ReplicaId, Slot, SplitMix64};
use wombat_replica::{ConnectionId, Effects, Input, LONGEST_TICK, Replica, Stage, StepTime};
use wombat_storage::{Identity, Options, Origin, RealDisk, Store};

/// Most connections on which a turn sends its answers itself: each costs a call of the kernel, and the heartbeats
/// wait for the end of the turn. The tasks of the others send theirs, between the turns.
const SENT_AT_ONCE: usize = 256;

/// How far the wall clock may be behind the cell's last epoch without a warning: clocks of several machines differ.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(2);

/// The replica with its disk and the ways out to its clients and to the other replicas.
pub(crate) struct Core {
    replica: Replica,
    cell_id: String,
    log_lines_dropped: Arc<AtomicU64>,
    disk: ReplicaDisk,
    outboxes: BTreeMap<ConnectionId, Rc<Outbox>>,
    admission: Rc<Admission>,
    pub(crate) peers: Peers,
    /// The master, for those who relay to it.
    master: watch::Sender<Option<Master>>,
    /// What tells whether the members have changed.
    members: (Slot, usize),
    outgoing: Outgoing,
    incoming: Incoming,
    effects: Effects,
    step_times: StepTimes,
}

impl Core {
    /// Opens the data directory and starts the replica from it. A sole voter then serves.
    pub(crate) fn start(
        config: &Config,
        disk: RealDisk,
        identity: &Identity,
        address: String,
        admission: Rc<Admission>,
        datagrams: Option<Rc<Datagrams>>,
    ) -> Result<Core, ServerError> {
        let (store, recovered) = Store::open(disk, identity, Options::default())?;
        if store.dropped_tail_bytes() > 0 {
            info!(bytes = store.dropped_tail_bytes(), "dropped a torn tail that was never acknowledged");
        }
        if recovered.is_copy {
            warn!(
                "{} is a copy of a data directory: what this replica acknowledged after the copy was made may be \
                 missing. It does not vote until it has learned everything from a master whom the other replicas \
                 elected, or until every voter of the cell is there",
                config.dir.display()
            );
        }
        let identity = store.identity().clone();
        let snapshot = recovered.snapshot_slot();
        let own = own(&identity, &address, recovered.starts)?;
        let reached_at = address.clone();
        let replica = Replica::new(
            wombat_replica::Config {
                cell: config.cell.clone(),
                replica: identity.replica,
                founders: founding::founders(&identity, &address),
                address,
                master_lease: config.master_lease,
                max_master_lease: config.max_master_lease,
                seed: own.random.borrow_mut().draw(),
                lease: config.session_lease,
                cache_lease: config.cache_lease,
                version: env!("CARGO_PKG_VERSION").into(),
                fresh_key: founding::random()?,
                activity: config.activity,
            },
            recovered,
            moment(),
        )?;
        check_address(&replica, &identity, &reached_at)?;
        if identity.origin == Origin::Alone && config.founders(&reached_at).is_ok_and(|all| all.len() > 1) {
            warn!(
                "{} holds a cell of one, founded without peers: the peers that are named now are not in it",
                config.dir.display()
            );
        }
        let is_alone = replica.peers().next().is_none() && identity.origin == Origin::Alone;
        let disk = ReplicaDisk::new(store, snapshot, !is_alone)?;
        let mut core = Core {
            replica,
            cell_id: identity.cell_id,
            log_lines_dropped: Arc::clone(&config.log_lines_dropped),
            outgoing: Outgoing::new(disk.reader()),
            disk,
            outboxes: BTreeMap::new(),
            admission,
            peers: Peers::new(own, datagrams),
            master: watch::Sender::default(),
            members: (Slot(0), 0),
            incoming: Incoming::default(),
            effects: Effects::default(),
            step_times: StepTimes::new(),
        };
        core.step(Input::Tick, moment());
        core.settle()?;
        Ok(core)
    }

    /// Takes a new connection in.
    pub(crate) fn connect(&mut self, connection: ConnectionId, outbox: Rc<Outbox>) {
        self.outboxes.insert(connection, outbox);
    }

    pub(crate) fn admission(&self) -> &Rc<Admission> {
        &self.admission
    }

    /// The master that this replica knows of.
    pub(crate) fn master(&self) -> watch::Receiver<Option<Master>> {
        self.master.subscribe()
    }

    /// Whether a connection speaks for a session that lives.
    pub(crate) fn serves_session(&mut self, connection: ConnectionId) -> bool {
        self.replica.serves_session(connection)
    }

    /// Steps the replica through everything that waits, and settles what follows.
    pub(crate) fn turn(&mut self, inbox: &Inbox) -> Result<(), ServerError> {
        let moment = moment();
        self.peers.meet_callers();
        if self.peers.own().rolled_back.take() {
            warn!("another replica knows a later start of this one: the data directory has been put back");
            self.step(Input::RolledBack, moment);
        }
        let (inputs, heard) = inbox.take(moment.now);
        for input in inputs {
            if let Input::Disconnected { connection } = &input {
                self.outboxes.remove(connection);
            }
            self.step(input, moment);
        }
        // After the requests: a KeepAlive that has arrived counts before the lease is looked at.
        self.step(
            if heard < moment.now { Input::PartialTick { drained_through: heard } } else { Input::Tick },
            moment,
        );
        self.settle()?;
        if self.disk.is_snapshot_due() {
            self.disk.write_snapshot(self.replica.snapshot())?;
        }
        self.outgoing.forget_if_idle();
        Ok(())
    }

    /// Waits until the disk has done something.
    pub(crate) async fn disk_done(&mut self) -> Result<Done, ServerError> {
        self.disk.done().await
    }

    /// Goes on with what the disk has done.
    pub(crate) fn take_done(&mut self, done: Done) -> Result<(), ServerError> {
        self.step_done(done);
        self.settle()
    }

    /// Lets another replica be master, if this one is and there is another. Returns whether it has let go.
    pub(crate) fn hand_over(&mut self) -> Result<bool, ServerError> {
        if !self.replica.is_master() || self.replica.peers().next().is_none() {
            return Ok(false);
        }
        self.step(Input::Transfer { to: ReplicaId(0) }, moment());
        self.settle()?;
        Ok(!self.replica.is_master())
    }

    /// The epoch of the last master that is known to have begun.
    pub(crate) fn epoch(&self) -> Epoch {
        self.replica.state().epoch()
    }

    /// How long the core may sleep if nothing happens.
    pub(crate) fn idle_for(&self) -> Duration {
        let deadline = self.replica.next_deadline();
        deadline.map_or(LONGEST_TICK, |deadline| deadline.since(clock::now()).min(LONGEST_TICK))
    }

    /// Closes the log.
    pub(crate) fn close(self) -> Result<(), ServerError> {
        self.disk.close()
    }

    fn step(&mut self, input: Input, moment: StepTime) {
        let (name, began) = (steps::name(&input), self.step_times.begin());
        self.replica.step(moment, input, &mut self.effects);
        if let Some(took) = self.step_times.end(name, began) {
            debug!("a step took {} ms: {name}", took.as_millis());
        }
    }

    fn step_done(&mut self, done: Done) {
        let input = match done {
            Done::Persisted { through, .. } => Input::Persisted { through },
            Done::Snapshotted { slot, .. } => Input::Snapshotted { slot },
            Done::Arrived(snapshot) => Input::SnapshotArrived(*snapshot),
            Done::ArrivedInVain => Input::SnapshotFailed,
            Done::SnapshotFailed | Done::Failed(_) => return,
        };
        self.step(input, moment());
    }

    /// How this replica is.
    pub(crate) fn status(&self) -> wire::Status {
        let mut status = self.replica.report();
        self.complete_status(&mut status);
        status
    }

    /// Adds to an answer what only the shell knows.
    fn complete(&self, response: &mut Response) {
        match &mut response.result {
            Some(response::Result::Status(status)) => self.complete_status(status),
            Some(response::Result::Joined(joined)) => joined.cell_id = self.cell_id.clone(),
            _ => {}
        }
    }

    fn complete_status(&self, status: &mut wire::Status) {
        status.log_bytes = self.disk.log_bytes();
        // A place in the log: the stamp of an older slot would change with each epoch.
        status.snapshot_slot = self.disk.snapshot_slot().0;
        status.cell_id = self.cell_id.clone();
        for member in &mut status.members {
            member.connected |= self.peers.is_connected(ReplicaId(member.replica));
        }
        status.max_connections = self.admission.limits().clients as u64;
        status.relayed = self.admission.count(Kind::Relayed) as u64;
        let (longest, name) = self.step_times.longest();
        (status.longest_step_us, status.longest_step) = (longest, name.into());
        status.slow_steps = self.step_times.slow();
        status.log_lines_dropped = self.log_lines_dropped.load(Ordering::Relaxed);
    }

    /// Carries out effects until there are none: records become durable before anything that follows from
    /// them is said.
    fn settle(&mut self) -> Result<(), ServerError> {
        loop {
            for (epoch, stage) in self.effects.stages.drain(..) {
                if let Stage::Elected { epoch } = stage {
                    warn_of_clock(epoch, clock::wall_ms());
                }
                info!("epoch {epoch}, step {} of 9: {stage}", stage.number());
            }
            for line in self.effects.activity.drain(..) {
                info!(target: "wombat::activity", "{line}");
            }
            for notice in self.effects.notices.drain(..) {
                warn!("{notice}");
            }
            if let Some(slot) = self.effects.diverged.take() {
                self.disk
                    .condemn(&format!("the state after slot {slot} is not what the other replicas have"))?;
                return Err(ServerError::Diverged { slot });
            }
            if std::mem::take(&mut self.effects.rolled_back) {
                warn!(
                    "this replica has less than it once acknowledged to the others: its data directory has been put \
                     back. It does not vote until it has learned everything from a master whom the other replicas \
                     elected"
                );
                self.disk.disown()?;
            }
            if std::mem::take(&mut self.effects.reinstated) {
                self.disk.reinstate()?;
                info!("this replica knows everything again that the cell has chosen; from now on it votes");
            }
            // First, so that the others begin with it: what may only be said once it is durable is not among it.
            self.settle_peers()?;
            if !self.effects.persist.is_empty() {
                self.disk.persist(std::mem::take(&mut self.effects.persist))?;
            }
            let mut done_something = false;
            while let Some(done) = self.disk.done_now()? {
                self.step_done(done);
                done_something = true;
            }
            if !done_something && self.effects.persist.is_empty() {
                break;
            }
        }
        let mut filled = Vec::new();
        let mut replies = std::mem::take(&mut self.effects.replies);
        for (connection, mut response) in replies.drain(..) {
            let Some(outbox) = self.outboxes.get(&connection) else { continue };
            self.complete(&mut response);
            if outbox.push(&response) {
                filled.push(Rc::clone(outbox));
            }
        }
        self.effects.replies = replies;
        self.publish_master();
        let (first, others) = filled.split_at(filled.len().min(SENT_AT_ONCE));
        first.iter().for_each(|outbox| outbox.send());
        others.iter().for_each(|outbox| outbox.send_later());
        for connection in self.effects.hang_up.drain(..) {
            if let Some(outbox) = self.outboxes.get(&connection) {
                outbox.close();
            }
        }
        Ok(())
    }

    fn publish_master(&self) {
        let address = || Some(self.replica.master_address()).filter(|address| !address.is_empty());
        // A replica that has just joined knows who is master before it knows where.
        let master = self.replica.master().and_then(|replica| Some(Master { replica, address: address()? }));
        self.master.send_if_modified(|known| {
            let changed = *known != master;
            *known = master;
            changed
        });
    }

    /// Says to the other replicas what there is to say.
    fn settle_peers(&mut self) -> Result<(), ServerError> {
        let members = self.replica.members_version();
        if self.members != members {
            self.members = members;
            // An id that this replica had before may stand for its own address.
            let own = self.peers.own().address.clone();
            let others: Vec<Member> =
                self.replica.peers().filter(|member| member.address != own).cloned().collect();
            self.peers.meet(others);
        }
        for (to, message) in self.effects.send.drain(..) {
            self.peers.send(to, message);
        }
        for wanted in self.effects.wanted_chunks.drain(..) {
            if let Some(message) = self.outgoing.answer(&wanted) {
                self.peers.send(wanted.to, message);
            }
        }
        for received in self.effects.received_chunks.drain(..) {
            if let Some((slot, chunks)) = self.incoming.take(received) {
                self.disk.put_snapshot(slot, chunks)?;
            }
        }
        self.peers.flush();
        if std::mem::take(&mut self.effects.snapshot_wanted) {
            self.disk.write_snapshot(self.replica.snapshot())?;
        }
        Ok(())
    }
}

/// Refuses to run at an address where the others do not look for this replica.
fn check_address(replica: &Replica, identity: &Identity, address: &str) -> Result<(), ServerError> {
    let members = replica.standing().members;
    match members.get(identity.replica) {
        Some(known) if known.address != address && identity.origin != Origin::Alone => {
            Err(ServerError::Config(format!(
                "the others know replica {} by the address {}, and this one says that it is reached at \
                 {address}: listen there, or --advertise {} (addresses are for good)",
                identity.replica, known.address, known.address
            )))
        }
        _ => Ok(()),
    }
}

fn own(identity: &Identity, address: &str, starts: u32) -> Result<Own, ServerError> {
    let (nonce, founders) = match &identity.origin {
        Origin::Founder { founders, nonce } => (nonce.clone(), founders.clone()),
        Origin::Alone | Origin::Joined => (String::new(), Vec::new()),
    };
    Ok(Own {
        cell: identity.cell.clone(),
        cell_id: identity.cell_id.clone(),
        replica: identity.replica,
        nonce,
        founders,
        address: address.to_owned(),
        key: founding::random()?,
        start: Start { count: starts, life: u64::from_ne_bytes(founding::random()?) },
        known_starts: RefCell::default(),
        rolled_back: Cell::default(),
        random: RefCell::new(SplitMix64::new(u64::from_ne_bytes(founding::random()?))),
    })
}

/// Tokens grow over the restore of a backup because an epoch is never below the wall clock. A clock that is behind
/// the cell's last epoch takes that away.
fn warn_of_clock(epoch: Epoch, wall_ms: u64) {
    let behind = Duration::from_millis(epoch.0.saturating_sub(wall_ms));
    if behind > CLOCK_TOLERANCE {
        warn!(
            "the wall clock of this machine is {} s behind the last epoch of the cell, {epoch}: set it right. \
             Until it has caught up, a backup that is restored may issue tokens again that were issued before",
            behind.as_secs()
        );
    }
}

fn moment() -> StepTime {
    StepTime { now: clock::now(), wall_ms: clock::wall_ms() }
}
