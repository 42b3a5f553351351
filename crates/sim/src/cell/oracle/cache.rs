//! Books of what clients may have cached (SPEC I8 to I10): which answers were marked as such that may be cached,
//! what sessions were told to drop and have said is dropped, for how long each may use what it has, and how long
//! changes wait for that. They go by what clients and replicas say to each other and by the log, and know nothing
//! of the replica's own idea of it.

use super::history::History;
use crate::cell::tally::Tally;
use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Duration;
use wombat_proto::wire::{
    self, Request, Response, error::Code, log, log::command::Op, open::Create, request::Call,
    response::Result as Answer,
};
use wombat_proto::{CacheKey, Epoch, Facet, Instance, Name, Path, SessionId, Slot, Value};
use wombat_session::{Cached, Place};
use wombat_state::{CowMap, Node, State};

/// How much longer than the cache lease a change waits at most: a tick, and what comes of it.
const A_MOMENT: Duration = Duration::from_millis(20);

/// What a read asks for.
enum Read {
    Node(Instance),
    Page { directory: Instance, after: String },
    Path(String),
}

/// An answer was marked as one that may be cached, and what it told has not changed since.
struct Marked {
    at: u64,
    digest: u64,
}

/// A change was asked for.
struct Arrival {
    epoch: Epoch,
    at: u64,
    time: Duration,
    /// It need not wait any more. A copy of it may go into the log once more.
    proposed: bool,
}

/// What is known of a session's cache.
#[derive(Default)]
struct Known {
    /// The last epoch in which a master has heard of it.
    heard_in: Epoch,
    /// What it was told to drop in that epoch and has not acknowledged, by number.
    unacknowledged: BTreeMap<u64, Option<CacheKey>>,
    /// The epoch of the last cache lease that it was granted, and when that ends at the earliest, by the fastest of
    /// clocks.
    granted_in: Epoch,
    until: Duration,
}

#[derive(Default)]
pub(in crate::cell) struct Caches {
    /// Counts the steps of replicas, and so tells what came before what.
    steps: u64,
    reads: BTreeMap<(u64, u64), Read>,
    marked: BTreeMap<CacheKey, Marked>,
    /// What was told, and when, in this epoch.
    told: BTreeMap<CacheKey, Vec<u64>>,
    /// Who has entered what into his log first, and when.
    proposed: BTreeMap<Slot, Vec<(Value, u64)>>,
    arrived: BTreeMap<(u64, u64), Arrival>,
    /// When a master last was without its lease.
    unserved: Duration,
    sessions: BTreeMap<u64, Known>,
    /// The epoch that this is about, the longest cache lease granted in it, and whether everything is allowed in it.
    epoch: Epoch,
    longest: Duration,
    serves: bool,
    /// The longest that the log says may be in force.
    in_force: Duration,
}

impl Caches {
    /// A replica takes a step. Of what follows from one step nobody can tell what came first.
    pub(in crate::cell) fn begin_step(&mut self) {
        self.steps += 1;
    }

    fn begin_epoch(&mut self, epoch: Epoch) {
        if epoch <= self.epoch {
            return;
        }
        (self.epoch, self.longest, self.serves) = (epoch, Duration::ZERO, false);
        self.told.clear();
    }

    /// The master of an epoch allows everything.
    pub(in crate::cell) fn serves(&mut self, epoch: Epoch) {
        self.begin_epoch(epoch);
        self.serves |= epoch == self.epoch;
    }

    // ---- What clients say ----

    /// A client asks for something.
    pub(in crate::cell) fn asks(&mut self, request: &Request) {
        let instance = |handle: &Option<wire::Handle>| Instance(handle.map_or(0, |handle| handle.instance));
        let read = match &request.call {
            Some(Call::GetContents(get)) => Read::Node(instance(&get.handle)),
            Some(Call::GetStat(get)) => Read::Node(instance(&get.handle)),
            Some(Call::ReadDir(read)) => {
                Read::Page { directory: instance(&read.handle), after: read.after.clone() }
            }
            Some(Call::Open(open)) if open.create() == Create::Never && open.directory.is_none() => {
                Read::Path(open.path.clone())
            }
            _ => return,
        };
        self.reads.insert((request.session, request.number), read);
    }

    /// A master has not its own lease: it answers no KeepAlive, and so tells nobody what is to change. What has
    /// arrived before may wait for longer than those whom it waits for can use their caches.
    pub(in crate::cell) fn cannot_serve(&mut self, now: Duration) {
        self.unserved = now;
    }

    /// A request arrives at the master of an epoch, who takes it up at once if he may answer.
    pub(in crate::cell) fn arrives(
        &mut self,
        (epoch, answers): (Epoch, bool),
        now: Duration,
        request: &Request,
    ) {
        if request.epoch != epoch.0 {
            return;
        }
        self.begin_epoch(epoch);
        let at = self.steps;
        match &request.call {
            Some(Call::KeepAlive(keep_alive)) => {
                let known = self.sessions.entry(request.session).or_default();
                if known.heard_in < epoch {
                    known.unacknowledged.clear();
                    known.heard_in = epoch;
                }
                let acknowledged = keep_alive.invalidations_acknowledged;
                known.unacknowledged.retain(|number, _| *number > acknowledged);
            }
            Some(Call::SetContents(_) | Call::Delete(_) | Call::Open(_) | Call::Multi(_))
                if self.serves && answers =>
            {
                let asked = (request.session, request.number);
                let again = self.arrived.get(&asked).is_some_and(|arrival| arrival.epoch == epoch);
                if !again {
                    self.arrived.insert(asked, Arrival { epoch, at, time: now, proposed: false });
                }
            }
            _ => {}
        }
    }

    // ---- What the master says ----

    /// A master that has applied all that is chosen answers. I8: what it says of a node is so. I9: what is about
    /// to change is not said to be such that it may be cached.
    pub(in crate::cell) fn answers(
        &mut self,
        (epoch, now): (Epoch, Duration),
        response: &Response,
        history: &History,
        tally: &mut Tally,
    ) {
        self.begin_epoch(epoch);
        if let Some(Answer::KeptAlive(kept)) = &response.result {
            return self.keeps_alive((epoch, now), response.session, kept, history, tally);
        }
        let asked = (response.session, response.number);
        self.arrived.remove(&asked);
        let read = self.reads.get(&asked);
        let key = read.and_then(|read| check_answer(history.state(), read, response));
        let Some(cachable) = &response.cachable else { return };
        assert_eq!(cachable.epoch, epoch.0, "I8: an answer is marked with another epoch than the master's");
        let key = key.unwrap_or_else(|| panic!("I8: {response:?} is marked as one that may be cached"));
        if let Facet::Absence(name) = &key.facet {
            let marked = (Instance(cachable.directory), cachable.name.as_str());
            assert_eq!(marked, (key.instance, name.as_str()), "I8: another name is missing");
        }
        tally.count("answers to be cached");
        let digest = digest(history.state(), &key);
        let at = self.steps;
        self.marked.insert(key, Marked { at, digest });
    }

    fn keeps_alive(
        &mut self,
        (epoch, now): (Epoch, Duration),
        session: u64,
        kept: &wire::KeptAlive,
        history: &History,
        tally: &mut Tally,
    ) {
        let at = self.steps;
        let known = self.sessions.entry(session).or_default();
        let cache_lease = Duration::from_millis(kept.cache_lease_ms.into());
        for (number, invalidation) in (kept.first_invalidation..).zip(&kept.invalidations) {
            let key = invalidation.key();
            if known.unacknowledged.insert(number, key.clone()).is_none() {
                tally.count("invalidations");
            }
            let Some(key) = key else { continue };
            let told = self.told.entry(key.clone()).or_default();
            let marked = self.marked.get(&key).map_or(0, |marked| marked.at);
            if told.last().is_none_or(|last| *last < marked) {
                tally.count("rounds");
            }
            told.push(at);
        }
        if cache_lease.is_zero() {
            return;
        }
        tally.count("cache leases");
        assert!(kept.cache_lease_ms <= kept.lease_ms, "a cache lease is longer than the session lease");
        let in_log = history.state().cache_lease();
        assert!(
            cache_lease <= in_log,
            "I10: a cache lease of {cache_lease:?} is granted, and no other master knows"
        );
        let last = kept.first_invalidation + kept.invalidations.len() as u64;
        let everything = kept.invalidations.first().is_some_and(|first| first.key().is_none());
        let first = if everything { 0 } else { kept.first_invalidation };
        let untold = known.unacknowledged.keys().find(|number| !(first..last).contains(*number));
        assert_eq!(
            untold, None,
            "I8: session {session} is granted a cache lease, and not told of everything"
        );
        // A lease is no shorter by the master's clock than by the fastest of clocks.
        (known.granted_in, known.until) = (epoch, known.until.max(now + fast(cache_lease)));
        self.longest = self.longest.max(cache_lease);
    }

    /// I10: no general operation is answered in an epoch before everybody who may use what is cached from before it
    /// has acknowledged it, or has ended, or may not use it any more.
    pub(in crate::cell) fn check_fail_over(&self, epoch: Epoch, now: Duration, history: &History) {
        for (session, known) in &self.sessions {
            let may_use = known.granted_in < epoch && now < known.until && known.heard_in < epoch;
            assert!(
                !may_use || !history.lives(SessionId(*session)),
                "I10: an operation of epoch {epoch} is answered, and session {session} was not waited for"
            );
        }
    }

    // ---- What goes into the log ----

    /// A replica has entered something into its log; as the master of an epoch, if so. A change does not wait for
    /// those who have it cached for longer than their leases last.
    pub(in crate::cell) fn proposed(
        &mut self,
        slot: Slot,
        value: &Value,
        master: Option<(Epoch, Duration)>,
        (now, tally): (Duration, &mut Tally),
    ) {
        let at = self.steps;
        let first = self.proposed.entry(slot).or_default();
        if first.iter().all(|(other, _)| other != value) {
            first.push((value.clone(), at));
        }
        let (Some((epoch, stopped)), Value::Command(command)) = (master, value) else { return };
        let command: log::Command = prost::Message::decode(command.clone()).expect("a command can be read");
        let Some(arrival) = self.arrived.get_mut(&(command.session, command.number)) else { return };
        let again = std::mem::replace(&mut arrival.proposed, true);
        let stopped = stopped.max(self.unserved);
        if again || arrival.epoch != epoch || command.epoch != epoch.0 || arrival.time <= stopped {
            return;
        }
        let waited = now - arrival.time;
        if waited > A_MOMENT {
            tally.count("changes that waited");
        }
        // Where the names lead of a change by path may be another place when the round is over.
        let rounds = if matches!(command.op, Some(Op::Multi(_))) { 2 } else { 1 };
        let most = self.longest * rounds * 1000 / 990 + A_MOMENT;
        assert!(
            waited <= most,
            "liveness: {command:?} has waited for {waited:?}, and no cache lease for longer than {most:?}"
        );
    }

    /// A slot is applied for the first time. Returns whether anything changed that somebody may have cached.
    /// I9: nobody was allowed to cache it since it was proposed, nor since anybody was told to drop it for that.
    pub(in crate::cell) fn applied(
        &mut self,
        slot: Slot,
        value: &Value,
        history: &History,
        tally: &mut Tally,
    ) -> bool {
        let state = history.state();
        let before = std::mem::replace(&mut self.in_force, state.cache_lease());
        if !before.is_zero() && before != self.in_force {
            tally.count(if before < self.in_force { "longer cache leases" } else { "shorter cache leases" });
        }
        let changes = self.marked.extract_if(.., |key, marked| digest(state, key) != marked.digest);
        let changes: Vec<(CacheKey, Marked)> = changes.collect();
        let proposed = self.proposed.remove(&slot).unwrap_or_default();
        self.proposed = self.proposed.split_off(&slot);
        let proposed = proposed.iter().find(|(one, _)| one == value).map_or(0, |(_, at)| *at);
        let asked = match value {
            Value::Command(command) if !changes.is_empty() => self.asked_for(command.clone()),
            _ => None,
        };
        for (key, marked) in &changes {
            let early = marked.at > proposed;
            assert!(
                !early,
                "I9: {key:?} was said to be cachable when its change in slot {slot} was on its way"
            );
            let told = asked.and_then(|asked| self.told_after(key, asked));
            let between = told.is_some_and(|told| marked.at > told);
            assert!(!between, "I9: {key:?} was said to be cachable when sessions were being told to drop it");
            let silent = |known: &&Known| {
                known.unacknowledged.values().any(|told| told.as_ref().is_some_and(|told| told.covers(key)))
            };
            if self.sessions.values().any(|known| silent(&known)) {
                tally.count("changes that went ahead of somebody silent");
            }
        }
        !changes.is_empty()
    }

    /// When the change was asked for that a command makes.
    fn asked_for(&self, command: bytes::Bytes) -> Option<u64> {
        let command: log::Command = prost::Message::decode(command).expect("a command can be read");
        if matches!(command.op, Some(Op::Grant(_))) {
            return None; // It may have waited for its turn.
        }
        let arrival = self.arrived.get(&(command.session, command.number))?;
        (arrival.epoch.0 == command.epoch).then_some(arrival.at)
    }

    /// When somebody was first told to drop something, after that.
    fn told_after(&self, key: &CacheKey, after: u64) -> Option<u64> {
        let any = matches!(key.facet, Facet::Absence(_)).then(|| CacheKey::any_absence(key.instance));
        let told = [Some(key), any.as_ref()].into_iter().flatten().filter_map(|key| self.told.get(key));
        told.flatten().copied().filter(|told| *told > after).min()
    }
}

/// Whether something that is cached is what the state says.
pub(in crate::cell) fn is_current(state: &State, place: &Place, cached: &Cached) -> bool {
    let tree = state.tree();
    match (place, cached) {
        (Place::Node(instance), Cached::Node(node)) => {
            let is_so = |contents| tree.get(*instance).and_then(Node::contents) == Some(contents);
            stat(state, *instance) == Some(node.stat) && node.contents.as_ref().is_none_or(is_so)
        }
        (Place::Listing(directory), Cached::Listing(listing)) => {
            is_page(state, *directory, "", &listing.entries) == Some(false)
        }
        (Place::Absence(path), Cached::Absence(_)) => {
            let path = Path::parse(path).expect("a good path");
            tree.find(&path.node).is_none()
        }
        _ => false,
    }
}

fn stat(state: &State, instance: Instance) -> Option<wire::Stat> {
    state.tree().get(instance).map(Node::stat)
}

/// Whether these are the children of a directory that follow `after`; and if so, whether there are more.
fn is_page(state: &State, directory: Instance, after: &str, entries: &[wire::Entry]) -> Option<bool> {
    let children = state.tree().get(directory)?.children()?;
    let mut rest = children.iter().filter(|(name, _)| name.as_str() > after);
    let is_next = |entry: &wire::Entry| {
        let next = rest.next();
        next.is_some_and(|(name, child)| entry.name == name.as_str() && entry.stat == stat(state, *child))
    };
    entries.iter().all(is_next).then(|| rest.next().is_some())
}

/// Why a path leads nowhere.
fn absence(state: &State, path: &str) -> Option<CacheKey> {
    let mut node = state.tree().root()?;
    for name in Path::parse(path).ok()?.node.names() {
        match state.tree().child(node, name) {
            Some(child) => node = child,
            None => return node.is_directory().then(|| CacheKey::absence(node.instance, name.clone())),
        }
    }
    None
}

/// An answer to a read is what the state says. Returns what it could be cached as.
fn check_answer(state: &State, read: &Read, response: &Response) -> Option<CacheKey> {
    match (read, response.result.as_ref()?) {
        (Read::Node(instance), Answer::Contents(contents)) => {
            let node = state.tree().get(*instance);
            let is_so = node.and_then(Node::contents) == Some(&contents.contents);
            assert!(is_so && contents.stat == stat(state, *instance), "I8: {response:?} is not so");
            Some(CacheKey::node(*instance))
        }
        (Read::Node(instance), Answer::Stat(told)) => {
            assert_eq!(Some(*told), stat(state, *instance), "I8: {response:?} is not so");
            Some(CacheKey::node(*instance))
        }
        (Read::Page { directory, after }, Answer::Entries(page)) => {
            let more = is_page(state, *directory, after, &page.entries);
            assert_eq!(more, Some(page.more), "I8: {response:?} is not so");
            Some(CacheKey::listing(*directory))
        }
        (Read::Path(path), Answer::Error(error)) if error.code() == Code::NotFound => {
            let leads = state.tree().find(&Path::parse(path).ok()?.node);
            assert!(leads.is_none(), "I8: {path} is not to be found, and is there");
            absence(state, path)
        }
        _ => None,
    }
}

/// Differs, surely enough, whenever what is cached under a key would.
fn digest(state: &State, key: &CacheKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    let node = state.tree().get(key.instance);
    match &key.facet {
        Facet::Node => node.map(Node::stat).hash(&mut hasher),
        Facet::Listing => {
            for (name, child) in node.and_then(Node::children).into_iter().flatten() {
                (name.as_str(), stat(state, *child)).hash(&mut hasher);
            }
            node.is_some().hash(&mut hasher);
        }
        Facet::Absence(name) => {
            let lacks = |children: &CowMap<Name, Instance>| !children.contains_key(name);
            node.and_then(Node::children).is_some_and(lacks).hash(&mut hasher);
        }
        Facet::AnyAbsence => unreachable!("nobody caches all that a directory lacks"),
    }
    hasher.finish()
}

/// How long a clock that is as fast as it may be takes for it.
fn fast(length: Duration) -> Duration {
    length * 1000 / 1010
}
