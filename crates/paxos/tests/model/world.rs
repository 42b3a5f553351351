//! The world that the models walk: replicas as they ship, what their disks hold, and a network that is a set.
//!
//! What a replica does depends on nothing but itself and its input. So each situation of one replica is kept
//! once ([`Shared`]), each of its steps is computed once, and a state of the whole cell is little more than
//! a handful of numbers.
//!
//! Two situations of a replica that differ in nothing but its random number are the same situation, and so are
//! two of which one has the same message waiting twice for the same record. The random number decides only by how much an election is put off; the durations of the models leave it nothing to
//! decide, but for the pause after a candidacy that failed in a model with a lease of some nanoseconds. There
//! one of the possible pauses is taken.

use bytes::Bytes;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use wombat_paxos::{Batch, Config, Configurations, Effects, Message, Paxos, Persist, Standing};
use wombat_proto::{Ballot, Durable, Instant, Members, Record, ReplicaId, Slot, Value};

/// A value that is kept once and compared by its number.
pub(crate) struct Shared<T: 'static> {
    id: u32,
    value: &'static T,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Shared<T> {}
impl<T> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}
impl<T> Eq for Shared<T> {}
impl<T> PartialOrd for Shared<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Shared<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.id.cmp(&other.id)
    }
}
impl<T> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}
impl<T> std::ops::Deref for Shared<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.value
    }
}
impl<T: fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// All values of one kind that were ever met. They are never given back: a test ends soon.
struct Table<T: 'static> {
    known: Mutex<HashMap<u128, Shared<T>>>,
}

impl<T: fmt::Debug> Table<T> {
    fn new() -> Table<T> {
        Table { known: Mutex::default() }
    }

    /// By what it looks like, but for the random number.
    fn share(&self, value: T) -> Shared<T> {
        let text = essence(format!("{value:?}"));
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            (salt, &text).hash(&mut hasher);
            u128::from(hasher.finish())
        };
        let key = half(0) << 64 | half(1);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let id = known.len() as u32;
        *known.entry(key).or_insert_with(|| Shared { id, value: Box::leak(Box::new(value)) })
    }

    fn len(&self) -> usize {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// What of a replica, or of a message, makes a difference: a replica's random number does not, nor when it heard
/// of whom, nor what it knows of its own age, which decides nothing. Of equal messages that wait for the same
/// record only the first does, as the network is a set.
fn essence(mut text: String) -> String {
    for field in [", random: ", ", heard: ", ", freshness: ", ", mark: "] {
        drop_field(&mut text, field);
    }
    if let Some(at) = text.find(" waiting: [") {
        let list = at + " waiting: [".len();
        let (mut depth, mut begin, mut end, mut entries) = (0, list, list, Vec::new());
        for (place, byte) in text.bytes().enumerate().skip(list) {
            match byte {
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b'}' => depth -= 1,
                b']' if depth > 0 => depth -= 1,
                b']' => {
                    end = place;
                    break;
                }
                _ => {}
            }
            if depth == 0 && byte == b')' {
                let entry = text[begin..=place].trim_start_matches(", ").to_owned();
                if !entries.contains(&entry) {
                    entries.push(entry);
                }
                begin = place + 1;
            }
        }
        text.replace_range(list..end, &entries.join(", "));
    }
    text
}

/// Takes a field out, wherever it stands.
fn drop_field(text: &mut String, field: &str) {
    let mut from = 0;
    while let Some(at) = text[from..].find(field).map(|at| from + at) {
        let mut depth = 0;
        let ends = |byte: u8| {
            match byte {
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b']' | b'}' => depth -= 1,
                _ => {}
            }
            depth < 0 || depth == 0 && byte == b','
        };
        let value = at + field.len();
        let length = text[value..].bytes().position(ends);
        text.replace_range(at..length.map_or(text.len(), |length| value + length), "");
        from = at;
    }
}

/// What is durable.
#[derive(Clone, Default, Debug)]
pub(crate) struct Disk {
    starts: u32,
    pub(crate) kept: Durable,
}

/// A replica and its disk.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) id: ReplicaId,
    pub(crate) paxos: Paxos,
    pub(crate) disk: Disk,
    /// Records that are written and not durable.
    pub(crate) pending: Vec<Record>,
    /// Records made durable in this life.
    durable: u64,
    /// What its clock reads.
    pub(crate) clock: u64,
    pub(crate) standing: Standing,
    /// What it knows the others to have accepted, while it leads.
    matched: Vec<(ReplicaId, Slot)>,
}

impl Host {
    pub(crate) fn now(&self) -> Instant {
        Instant::from_nanos(self.clock)
    }

    /// Whether it still campaigns or leads under this ballot; once it does not, it never will again.
    fn lives_under(&self, ballot: Ballot) -> bool {
        self.paxos.ballot() == ballot && matches!(self.standing, Standing::Campaigning | Standing::Leading)
    }
}

/// A message on its way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Packet {
    pub(crate) from: ReplicaId,
    pub(crate) to: ReplicaId,
    pub(crate) message: Message,
}

/// What can happen to one replica.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Input {
    Tick,
    Receive(Shared<Packet>),
    /// So many more records are durable.
    Sync(usize),
    /// It dies, so many of the records that wait survive, and it starts again at once.
    Restart(usize),
    Propose(Bytes),
    Change(Members),
    Transfer(ReplicaId),
    /// Its clock goes on by so many nanoseconds.
    Pass(u64),
}

/// What followed from an input.
pub(crate) struct Step {
    pub(crate) host: Shared<Host>,
    pub(crate) sent: Vec<Shared<Packet>>,
    pub(crate) chosen: Vec<(Slot, Value)>,
    /// Whether what was asked for was done. Only proposals can be refused.
    done: bool,
    /// An assertion failed.
    panicked: bool,
}

/// What the models differ in.
#[derive(Clone)]
pub(crate) struct Setup {
    /// How many replicas there are, the ones of the founding members first.
    pub(crate) replicas: u32,
    pub(crate) founders: Members,
    pub(crate) config: Config,
    /// Which messages may ever arrive.
    pub(crate) carries: fn(&Packet) -> bool,
    /// Who campaigns in which round, round 1 first; there are no more.
    pub(crate) ballots: Vec<u32>,
    /// Heartbeats of one ballot.
    pub(crate) heartbeats: u64,
    /// Who may restart.
    pub(crate) mortals: Vec<u32>,
    /// Whether a question before an election and its answer arrive at once.
    pub(crate) polls_at_once: bool,
    /// Whether messages that can never matter again are taken off the network.
    pub(crate) prunes: bool,
}

/// The replicas and the network at one moment, and what was ever handed out as chosen.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct State {
    pub(crate) hosts: Vec<Shared<Host>>,
    pub(crate) wire: Vec<Shared<Packet>>,
    /// The first value handed out for each slot.
    pub(crate) chosen: Arc<BTreeMap<Slot, Value>>,
    pub(crate) proposed: Arc<BTreeSet<Bytes>>,
    /// Two values were handed out for one slot.
    pub(crate) disagreed: bool,
    pub(crate) panicked: bool,
    /// Restarts that may happen yet.
    pub(crate) restarts: u8,
    /// Real time, and by how much each clock goes on in a unit of it.
    pub(crate) time: u8,
    pub(crate) rates: Arc<[u64]>,
}

impl State {
    pub(crate) fn host(&self, id: ReplicaId) -> &Host {
        &self.hosts[id.0 as usize - 1]
    }
}

/// The steps of replicas that are known already.
type Steps = HashMap<(u32, Input), Arc<Step>>;

/// All that is known of the replicas of one model.
pub(crate) struct World {
    pub(crate) setup: Setup,
    hosts: Table<Host>,
    packets: Table<Packet>,
    steps: Mutex<Steps>,
}

impl World {
    pub(crate) fn new(setup: Setup) -> World {
        World { setup, hosts: Table::new(), packets: Table::new(), steps: Mutex::default() }
    }

    /// How many situations of one replica, and how many messages, were met.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.hosts.len(), self.packets.len())
    }

    /// All replicas start for the first time. Who first campaigns in a later round has heard of those before.
    pub(crate) fn begin(&self, restarts: u8) -> State {
        let start = |id| {
            let (mut host, _) = self.start(ReplicaId(id), Disk::default(), 0);
            let rounds = self.setup.ballots.iter().position(|candidate| *candidate == id);
            if let Some(round @ 1..) = rounds.map(|before| before as u64) {
                let promised = Ballot { round, replica: ReplicaId(self.setup.ballots[0]), incarnation: 1 };
                let answer = Message::Answer { round: 0, granted: false, promised, chosen: Slot(0) };
                host.paxos.receive(host.now(), promised.replica, answer);
            }
            host.standing = host.paxos.status().standing;
            self.hosts.share(host)
        };
        State {
            hosts: (1..=self.setup.replicas).map(start).collect(),
            wire: Vec::new(),
            chosen: Arc::default(),
            proposed: Arc::default(),
            disagreed: false,
            panicked: false,
            restarts,
            time: 0,
            rates: Arc::new([]),
        }
    }

    fn start(&self, id: ReplicaId, mut disk: Disk, clock: u64) -> (Host, Effects) {
        disk.starts += 1;
        let config = Config { replica: id, ..self.setup.config.clone() };
        let configurations = if self.setup.founders.is_voter(id) {
            Configurations::founding(self.setup.founders.clone())
        } else {
            Configurations::default()
        };
        let recovered = disk.kept.clone().recover(disk.starts, false, None);
        let mut paxos = Paxos::new(config, configurations, recovered, Instant::from_nanos(clock));
        let mut effects = Effects::default();
        paxos.flush(&mut effects);
        let (standing, matched) = (Standing::Following, Vec::new());
        (Host { id, paxos, disk, pending: Vec::new(), durable: 0, clock, standing, matched }, effects)
    }

    /// What follows when this happens to a replica.
    pub(crate) fn step(&self, host: Shared<Host>, input: Input) -> Arc<Step> {
        let lock = || self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(&(host.id_of_value(), input.clone())) {
            return known.clone();
        }
        let caught = catch_unwind(AssertUnwindSafe(|| self.take(&host, &input)));
        let step = caught.unwrap_or_else(|_| {
            let (sent, chosen) = (Vec::new(), Vec::new());
            Step { host, sent, chosen, done: true, panicked: true }
        });
        let step = Arc::new(step);
        lock().insert((host.id_of_value(), input), step.clone());
        step
    }

    fn take(&self, host: &Host, input: &Input) -> Step {
        let mut host = host.clone();
        let (mut effects, mut done) = (Effects::default(), true);
        let now = host.now();
        match input {
            Input::Tick => host.paxos.tick(now),
            Input::Receive(packet) => host.paxos.receive(now, packet.from, packet.message.clone()),
            Input::Sync(records) => {
                for record in host.pending.drain(..records) {
                    host.disk.kept.take(record);
                }
                host.durable += *records as u64;
                host.paxos.persisted(now, host.durable);
            }
            Input::Restart(kept) => {
                for record in host.pending.drain(..kept) {
                    host.disk.kept.take(record);
                }
                (host, effects) = self.start(host.id, host.disk, host.clock);
            }
            Input::Propose(command) => done = host.paxos.propose(command.clone()).is_ok(),
            Input::Change(members) => done = host.paxos.change_members(members.clone()).is_ok(),
            Input::Transfer(to) => done = host.paxos.transfer(*to).is_ok(),
            Input::Pass(nanos) => host.clock += nanos,
        }
        host.paxos.flush(&mut effects);
        host.paxos.check();
        host.pending.extend(effects.persist.iter().flat_map(Persist::records));
        let status = host.paxos.status();
        host.standing = status.standing;
        host.matched = status.peers.iter().map(|peer| (peer.id, peer.accepted)).collect();
        let from = host.id;
        let packets = effects.send.into_iter().map(|(to, message)| Packet { from, to, message });
        let carried = packets.filter(|packet| (self.setup.carries)(packet));
        let sent = carried.map(|packet| self.packets.share(packet)).collect();
        let chosen = effects.chosen.iter().flat_map(Batch::iter);
        let chosen = chosen.map(|(slot, value)| (slot, value.clone())).collect();
        Step { host: self.hosts.share(host), sent, chosen, done, panicked: false }
    }

    /// A message that is not on the network.
    pub(crate) fn packet(&self, from: ReplicaId, to: ReplicaId, message: Message) -> Shared<Packet> {
        self.packets.share(Packet { from, to, message })
    }

    /// Lets something happen to a replica. `None`: it changes nothing, or leads beyond the bounds.
    pub(crate) fn apply(&self, state: &State, who: ReplicaId, input: Input) -> Option<State> {
        let mut state = state.clone();
        let step = self.step(state.hosts[who.0 as usize - 1], input);
        let sent = step.sent.iter().filter(|packet| !self.polls(&packet.message));
        let changed = self.absorb(&mut state, who, &step, sent.copied());
        changed.then_some(())?;
        self.prune(&mut state);
        Some(state)
    }

    /// A replica asks `voters` whether it would be elected, and hears their answers, all at once. `None`
    /// unless that makes it a candidate within the bounds.
    pub(crate) fn poll(&self, state: &State, who: ReplicaId, voters: &[ReplicaId]) -> Option<State> {
        let before = state.host(who).paxos.ballot();
        let mut state = state.clone();
        let find = |step: &Step, to: ReplicaId| {
            step.sent.iter().find(|packet| packet.to == to && self.polls(&packet.message)).copied()
        };
        let mut take = |id: ReplicaId, input| {
            let step = self.step(state.hosts[id.0 as usize - 1], input);
            self.may_exist(step.host.paxos.ballot()).then_some(())?;
            let sent = step.sent.iter().filter(|packet| !self.polls(&packet.message));
            self.absorb(&mut state, id, &step, sent.copied());
            Some(step)
        };
        let asked = take(who, Input::Tick)?;
        for voter in voters {
            let question = find(&asked, *voter)?;
            let answer = find(&*take(*voter, Input::Receive(question))?, who)?;
            take(who, Input::Receive(answer))?;
        }
        (state.host(who).paxos.ballot() > before).then_some(())?;
        self.prune(&mut state);
        Some(state)
    }

    /// Whether a promise or a granted lease was heard already. What is heard of it a second time never matters:
    /// a report is told once, from one slot on, and those only go forward, as the numbers of heartbeats do.
    fn is_told(&self, packet: &Shared<Packet>, hosts: &[Shared<Host>]) -> bool {
        let to = hosts[packet.to.0 as usize - 1];
        matches!(packet.message, Message::Promise { .. } | Message::Granted { .. }) && {
            let step = self.step(to, Input::Receive(*packet));
            step.host == to && step.sent.is_empty() && !step.panicked
        }
    }

    /// Whether a replica may restart, so many restarts being left.
    pub(crate) fn may_restart(&self, restarts: u8, id: ReplicaId) -> bool {
        restarts > 0 && self.setup.mortals.contains(&id.0)
    }

    /// Whether a ballot is within the bounds.
    fn may_exist(&self, ballot: Ballot) -> bool {
        let candidate = ballot.round.checked_sub(1).map(|place| self.setup.ballots.get(place as usize));
        candidate.is_none_or(|candidate| candidate == Some(&ballot.replica.0))
    }

    /// Whether a message belongs to what happens at once before an election.
    fn polls(&self, message: &Message) -> bool {
        self.setup.polls_at_once
            && matches!(message, Message::Ask { .. } | Message::Answer { round: 1.., .. })
    }

    /// Takes what followed into the state. Returns whether that changed anything and is within the bounds.
    fn absorb(
        &self,
        state: &mut State,
        who: ReplicaId,
        step: &Step,
        sent: impl Iterator<Item = Shared<Packet>>,
    ) -> bool {
        let host = &mut state.hosts[who.0 as usize - 1];
        let mut changed = step.panicked || *host != step.host || !step.chosen.is_empty();
        if !step.done || !self.may_exist(step.host.paxos.ballot()) {
            return false;
        }
        *host = step.host;
        state.panicked |= step.panicked;
        for packet in sent {
            if matches!(packet.message, Message::Ask { round, .. }
                if !self.may_exist(Ballot { round, replica: packet.from, incarnation: 0 }))
            {
                return false;
            }
            if matches!(packet.message, Message::Heartbeat { sequence, .. } if sequence > self.setup.heartbeats)
            {
                return false;
            }
            if packet.to.0 > self.setup.replicas {
                continue;
            }
            if let Err(place) = state.wire.binary_search(&packet) {
                state.wire.insert(place, packet);
                changed = true;
            }
        }
        for (slot, value) in &step.chosen {
            match state.chosen.get(slot) {
                Some(known) => state.disagreed |= known != value,
                None => {
                    Arc::make_mut(&mut state.chosen).insert(*slot, value.clone());
                }
            }
        }
        changed
    }

    /// Takes what can never matter again off the network.
    fn prune(&self, state: &mut State) {
        if self.setup.prunes {
            let hosts = &state.hosts;
            let forgets = |id| self.may_restart(state.restarts, id);
            state.wire.retain(|packet| !is_dead(packet, hosts, forgets) && !self.is_told(packet, hosts));
            let outdated = |packet: &Packet| state.wire.iter().any(|newer| is_outdated(packet, newer));
            let keep: Vec<_> = state.wire.iter().filter(|packet| !outdated(packet)).copied().collect();
            state.wire = keep;
        }
    }
}

impl Shared<Host> {
    fn id_of_value(&self) -> u32 {
        self.id
    }
}

/// Whether a message can never matter again, refusals aside: what answers a ballot that is over, what a
/// master knows already, what is of a lower ballot than its addressee has promised durably, and lessons that
/// were learned and cannot be forgotten.
fn is_dead(packet: &Packet, hosts: &[Shared<Host>], forgets: impl Fn(ReplicaId) -> bool) -> bool {
    let to = &hosts[packet.to.0 as usize - 1];
    match &packet.message {
        Message::Promise { ballot, .. } | Message::Granted { ballot, .. } => !to.lives_under(*ballot),
        Message::Accepted { ballot, through } => {
            let known = |(id, matched): &(ReplicaId, Slot)| *id == packet.from && matched >= through;
            !to.lives_under(*ballot) || to.matched.iter().any(known)
        }
        Message::Prepare { ballot, .. }
        | Message::Accept { ballot, .. }
        | Message::Heartbeat { ballot, .. } => to.disk.kept.promised > *ballot,
        Message::Learn { through, .. } => !forgets(packet.to) && to.paxos.chosen() >= *through,
        Message::Refused { promised } => to.paxos.ballot() >= *promised,
        _ => false,
    }
}

/// Whether a newer message of the same ballot says all that this one says: a heartbeat, a granted lease, or how
/// much is accepted.
fn is_outdated(packet: &Packet, newer: &Packet) -> bool {
    if (packet.from, packet.to) != (newer.from, newer.to) {
        return false;
    }
    match (&packet.message, &newer.message) {
        (
            Message::Heartbeat { ballot, sequence, .. },
            Message::Heartbeat { ballot: of, sequence: later, .. },
        ) => ballot == of && later > sequence,
        (
            Message::Granted { ballot, sequence, chosen, received, .. },
            Message::Granted { ballot: of, sequence: later, chosen: known, received: has, .. },
        ) => ballot == of && later > sequence && known >= chosen && has >= received,
        (Message::Accepted { ballot, through }, Message::Accepted { ballot: of, through: later }) => {
            ballot == of && later > through
        }
        _ => false,
    }
}

/// Whether every slot that was handed out as chosen is on the durable disks of a quorum of those who govern
/// it.
pub(crate) fn chosen_are_durable(state: &State, governing: impl Fn(Slot) -> Members) -> bool {
    state.chosen.iter().all(|(slot, value)| {
        let holds = |id: ReplicaId| {
            state.host(id).disk.kept.accepted.get(slot).is_some_and(|accepted| accepted.value == *value)
        };
        governing(*slot).is_quorum(holds)
    })
}

/// Whether all commands that were handed out as chosen were proposed.
pub(crate) fn chosen_were_proposed(state: &State) -> bool {
    let mut commands = state.chosen.values().filter_map(|value| match value {
        Value::Command(command) => Some(command),
        _ => None,
    });
    commands.all(|command| state.proposed.contains(command))
}
