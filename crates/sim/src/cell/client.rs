//! A client of a simulated cell: the session machine as it ships, and an application that opens, locks, reads
//! and writes.

use super::history::History;
use super::machine::address;
use super::oracle::Oracle;
use super::swarm::Swarm;
use super::tally::Tally;
use crate::random::{Clock, Random};
use std::collections::BTreeMap;
use std::time::Duration;
use wombat_proto::wire::{self, Handle, change, guard, request::Call, response::Result as Answer};
use wombat_proto::{Epoch, Error, HandleId, Instance, LockMode, Rho, Sequencer, SessionId, Token};
use wombat_session::{Config, Effects, Session};

pub(super) const GRACE: Duration = Duration::from_secs(12);
/// Most calls that a client has under way.
const CALLS: usize = 3;
/// The nodes that it knows: so many locks, then a file, a temporary file of its own, and one for all.
const LOCKS: usize = 2;
const FILE: usize = LOCKS;
const OWN: usize = LOCKS + 1;
const COMMON: usize = LOCKS + 2;
const PLACES: usize = LOCKS + 3;

/// What the application is waiting for.
#[derive(Clone, PartialEq, Debug)]
enum Doing {
    Opening(usize),
    Closing,
    Acquiring(usize, LockMode),
    Cancelling(usize, u64),
    Releasing(usize),
    Writing(String),
    /// To write if the contents are of a generation still.
    Swapping(String),
    /// To write while it holds a lock; with the sequencer that it believed in.
    Guarded(usize, String),
    /// Reading; when it began, somebody had been told of contents of this generation.
    Reading(u64),
    /// With a handle that was closed before.
    ReadingClosed,
    /// Whether a sequencer is valid; whether its lock had been freed when that was asked.
    Checking(Token, bool),
    Ending,
    /// Anything at all, after the session is lost.
    Lost,
}

/// How it ends when it has done what it wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leaving {
    /// It ends its session.
    Politely,
    /// It stays, with what it has open, and does nothing any more.
    Never,
    /// It dies, with what it holds.
    Suddenly,
}

pub(super) struct Client {
    pub(super) name: usize,
    pub(super) session: Session,
    pub(super) clock: Clock,
    pub(super) connection: Option<u64>,
    pub(super) stopped_until: Duration,
    pub(super) dead: bool,
    finished: bool,
    /// The replica that it tries next if nobody gives it a hint.
    next: u32,
    lock_delay_ms: u32,
    handles: [Option<Handle>; PLACES],
    closed: Option<Handle>,
    /// Which of the places have something under way.
    busy: [bool; PLACES],
    /// The locks that it believes to hold.
    holds: [Option<Sequencer>; LOCKS],
    calls: BTreeMap<u64, Doing>,
    /// How many more things it wants to do.
    pub(super) left: u64,
    leaving: Leaving,
    pub(super) asked_to_end: bool,
    caches: bool,
}

impl Client {
    pub(super) fn new(name: usize, real: Duration, swarm: &Swarm, random: &mut Random) -> Client {
        let clock = if swarm.worst_clocks { Clock::worst(random) } else { Clock::new(random) };
        let caches = random.chance(swarm.caching);
        let config = Config {
            cell: String::new(),
            client: format!("client {name}"),
            caches,
            grace: GRACE,
            rho: Rho::default(),
            seed: random.next(),
        };
        let leaving = match random.below(3) {
            0 => Leaving::Politely,
            1 => Leaving::Suddenly,
            _ => Leaving::Never,
        };
        Client {
            name,
            session: Session::new(config, clock.read(real)),
            clock,
            connection: None,
            stopped_until: Duration::ZERO,
            dead: false,
            finished: false,
            next: random.below(5) as u32,
            lock_delay_ms: if random.chance(400) { random.below(4000) as u32 } else { 0 },
            handles: [None; PLACES],
            closed: None,
            busy: [false; PLACES],
            holds: Default::default(),
            calls: BTreeMap::new(),
            left: 5 + random.below(60),
            leaving,
            asked_to_end: false,
            caches,
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.dead || self.finished
    }

    /// Whether its own view says that its session lives.
    pub(super) fn is_live(&self, real: Duration) -> bool {
        self.clock.read(real) < self.session.safe_until()
    }

    /// Whether it may still use what it cached under a master of an epoch before this one.
    pub(super) fn may_use_cache_of_before(&self, epoch: Epoch, real: Duration) -> bool {
        self.caches && !self.dead && self.is_live(real) && self.session.epoch() < epoch
    }

    /// How its own view says that it holds a lock (SPEC I3).
    pub(super) fn surely_holds(&self, lock: usize, real: Duration) -> Option<LockMode> {
        self.holds[lock].as_ref().filter(|_| self.is_live(real)).map(|sequencer| sequencer.mode)
    }

    pub(super) fn locks() -> std::ops::Range<usize> {
        0..LOCKS
    }

    /// Where to connect to: where the master was said to be, or to each in turn.
    pub(super) fn endpoint(&mut self, hint: Option<String>, replicas: u32) -> u32 {
        let hinted =
            hint.and_then(|hint| (1..=replicas).find(|id| address(wombat_proto::ReplicaId(*id)) == hint));
        hinted.unwrap_or_else(|| {
            self.next += 1;
            self.next % replicas + 1
        })
    }

    /// Does the next thing, unless it has enough to wait for.
    pub(super) fn act(
        &mut self,
        real: Duration,
        oracle: &Oracle,
        history: &History,
        random: &mut Random,
        effects: &mut Effects,
    ) {
        if self.dead || self.finished || self.calls.len() >= CALLS {
            return;
        }
        if self.session.is_expired() {
            self.submit(Call::EndSession(wire::EndSession {}), Doing::Lost, effects);
            self.finished = true;
            return;
        }
        if self.left == 0 {
            return self.leave(effects);
        }
        self.left -= 1;
        if let Some((call, doing)) = self.choose(real, oracle, history, random) {
            self.submit(call, doing, effects);
        }
    }

    fn submit(&mut self, call: Call, doing: Doing, effects: &mut Effects) {
        let number = self.session.submit(call, effects);
        self.calls.insert(number, doing);
    }

    /// Comes to its end: what it waits for ends first.
    fn leave(&mut self, effects: &mut Effects) {
        if self.leaving == Leaving::Suddenly {
            self.dead = true;
        }
        if self.dead || !self.calls.is_empty() {
            return;
        }
        let held = (0..LOCKS).find_map(|lock| self.holds[lock].is_some().then(|| (lock, self.handles[lock])));
        match (held, self.leaving) {
            (Some((lock, Some(handle))), Leaving::Never) => self.release(lock, handle, effects),
            (_, Leaving::Politely) if self.session.id().is_some() => {
                self.asked_to_end = true;
                self.submit(Call::EndSession(wire::EndSession {}), Doing::Ending, effects);
            }
            _ => self.finished = true,
        }
    }

    /// From the moment at which it asks to release, it believes in its lock no longer.
    fn release(&mut self, lock: usize, handle: Handle, effects: &mut Effects) {
        self.holds[lock] = None;
        self.busy[lock] = true;
        let release = wire::Release { handle: Some(handle) };
        self.submit(Call::Release(release), Doing::Releasing(lock), effects);
    }

    fn choose(
        &mut self,
        real: Duration,
        oracle: &Oracle,
        history: &History,
        random: &mut Random,
    ) -> Option<(Call, Doing)> {
        let place = random.below(PLACES as u64) as usize;
        if self.busy[place] {
            return self.cancel(random);
        }
        let Some(handle) = self.handles[place] else {
            self.busy[place] = true;
            return Some((self.open(place, random), Doing::Opening(place)));
        };
        if random.chance(if place >= OWN { 400 } else { 60 }) {
            return Some(self.close(place, handle));
        }
        match place {
            FILE => Some(self.use_file(handle, oracle, random)),
            OWN | COMMON => None,
            lock => self.use_lock(lock, handle, real, history, random),
        }
    }

    fn open(&self, place: usize, random: &mut Random) -> Call {
        let (path, ephemeral) = match place {
            FILE => ("/ls/sim/file".into(), false),
            OWN => (format!("/ls/sim/own-{}", self.name), true),
            COMMON => ("/ls/sim/common".into(), true),
            lock => (lock_path(lock), false),
        };
        let delays = place < LOCKS && random.chance(700);
        Call::Open(wire::Open {
            path,
            mode: 3,
            lock_delay_ms: if delays { self.lock_delay_ms } else { 0 },
            create: wire::open::Create::May.into(),
            node: Some(wire::NewNode { ephemeral, ..wire::NewNode::default() }),
            ..wire::Open::default()
        })
    }

    fn close(&mut self, place: usize, handle: Handle) -> (Call, Doing) {
        self.handles[place] = None;
        if place < LOCKS {
            self.holds[place] = None;
        }
        self.closed = Some(handle);
        (Call::Close(wire::Close { handle: Some(handle) }), Doing::Closing)
    }

    fn use_file(&mut self, handle: Handle, oracle: &Oracle, random: &mut Random) -> (Call, Doing) {
        let (file, handle) = (Instance(handle.instance), Some(handle));
        let text = random.next().to_string();
        let known = oracle.told(file);
        let set = |if_generation| {
            Call::SetContents(wire::SetContents { handle, contents: text.clone().into(), if_generation })
        };
        match random.below(10) {
            0..3 => (set(0), Doing::Writing(text)),
            3 => (set(known), Doing::Swapping(text)),
            4 => (Call::GetStat(wire::GetStat { handle }), Doing::Reading(known)),
            5 if self.closed.is_some() => {
                (Call::GetStat(wire::GetStat { handle: self.closed }), Doing::ReadingClosed)
            }
            _ => (Call::GetContents(wire::GetContents { handle }), Doing::Reading(known)),
        }
    }

    fn use_lock(
        &mut self,
        lock: usize,
        handle: Handle,
        real: Duration,
        history: &History,
        random: &mut Random,
    ) -> Option<(Call, Doing)> {
        let Some(held) = self.holds[lock].clone() else {
            let waits = self.calls.values().any(|doing| matches!(doing, Doing::Acquiring(..)));
            return (!waits).then(|| self.acquire(lock, handle, random));
        };
        match random.below(6) {
            0..3 => {
                self.holds[lock] = None;
                self.busy[lock] = true;
                let release = wire::Release { handle: Some(handle) };
                Some((Call::Release(release), Doing::Releasing(lock)))
            }
            3 => {
                let over = history.is_freed(held.token);
                let check = wire::CheckSequencer { sequencer: held.to_string() };
                Some((Call::CheckSequencer(check), Doing::Checking(held.token, over)))
            }
            _ if self.is_live(real) && self.handles[FILE].is_some() => {
                let text = random.next().to_string();
                let guard = wire::Guard { guard: Some(guard::Guard::LockHeld(lock_path(lock))) };
                let set = wire::SetNode { path: "/ls/sim/file".into(), contents: text.clone().into() };
                let change = wire::Change { change: Some(change::Change::Set(set)) };
                let multi = wire::Multi { guards: vec![guard], changes: vec![change] };
                self.busy[lock] = true;
                Some((Call::Multi(multi), Doing::Guarded(lock, text)))
            }
            _ => None,
        }
    }

    fn acquire(&mut self, lock: usize, handle: Handle, random: &mut Random) -> (Call, Doing) {
        self.busy[lock] = true;
        // Whoever holds a later lock does not wait for an earlier one for ever: two such clients would.
        let later = (lock + 1..LOCKS).any(|other| self.holds[other].is_some());
        let shared = random.chance(300);
        let r#try = random.chance(150);
        let hurries = !r#try && (later || random.chance(300));
        let timeout_ms = if hurries { 1 + random.below(6000) } else { 0 };
        let mode = if shared { LockMode::Shared } else { LockMode::Exclusive };
        let acquire = wire::Acquire { handle: Some(handle), shared, r#try, timeout_ms, waited_ms: 0 };
        (Call::Acquire(acquire), Doing::Acquiring(lock, mode))
    }

    /// Takes an Acquire back, or closes the handle that it waits on, perhaps.
    fn cancel(&mut self, random: &mut Random) -> Option<(Call, Doing)> {
        let acquires = self.calls.iter().find_map(|(number, doing)| match doing {
            Doing::Acquiring(lock, _) => Some((*number, *lock)),
            _ => None,
        });
        let cancelling = self.calls.values().any(|doing| matches!(doing, Doing::Cancelling(..)));
        let (number, lock) = acquires.filter(|_| !cancelling && random.chance(100))?;
        if random.chance(300) {
            let handle = self.handles[lock]?;
            let (call, _) = self.close(lock, handle);
            return Some((call, Doing::Cancelling(lock, number)));
        }
        let cancel = wire::CancelAcquire { handle: self.handles[lock], acquire: number };
        Some((Call::CancelAcquire(cancel), Doing::Cancelling(lock, number)))
    }

    fn is_cancelling(&self, acquire: u64) -> bool {
        self.calls.values().any(|doing| matches!(doing, Doing::Cancelling(_, one) if *one == acquire))
    }

    /// A call has ended. Tells the oracle what the application has learned.
    pub(super) fn done(
        &mut self,
        real: Duration,
        number: u64,
        result: Result<Answer, Error>,
        oracle: &mut Oracle,
        history: &History,
        tally: &mut Tally,
    ) {
        let Some(doing) = self.calls.remove(&number) else { return };
        if self.session.is_expired() && !self.asked_to_end {
            // I14: after the end of the session every call fails.
            let lost = matches!(result, Err(Error::SessionExpired | Error::Unknown));
            assert!(lost, "I14: {doing:?} ended with {result:?} though the session is lost");
            return;
        }
        match doing {
            // One that is being taken back is over when that is done.
            Doing::Acquiring(place, _) => self.busy[place] = self.is_cancelling(number),
            Doing::Opening(place)
            | Doing::Releasing(place)
            | Doing::Cancelling(place, _)
            | Doing::Guarded(place, _) => self.busy[place] = false,
            _ => {}
        }
        match (doing, result) {
            (Doing::Opening(place), Ok(Answer::Opened(opened))) => self.handles[place] = opened.handle,
            // It vanished while it was opened.
            (Doing::Opening(OWN | COMMON), Err(Error::StaleHandle)) => tally.count("files that vanished"),
            (Doing::Acquiring(lock, mode), Ok(Answer::Granted(granted))) => {
                let sequencer: Sequencer = granted.sequencer.parse().expect("a sequencer of the cell");
                assert_eq!(sequencer.mode, mode);
                oracle.granted(self.name, &sequencer);
                if !self.is_cancelling(number) {
                    self.holds[lock] = Some(sequencer);
                }
            }
            (Doing::Acquiring(..), Err(Error::Timeout)) => tally.count("timeouts"),
            (Doing::Acquiring(..), Err(Error::LockHeld | Error::LockDelayed { .. } | Error::Cancelled)) => {}
            (Doing::Cancelling(..) | Doing::Releasing(_) | Doing::Closing, Ok(Answer::Done(_))) => {}
            (Doing::Writing(text) | Doing::Swapping(text), Ok(Answer::Stat(stat))) => {
                tally.count("writes");
                oracle.wrote(history, &text, &stat);
            }
            // Its handle was closed before it came to be sent, or sent again.
            (Doing::Reading(_), Err(Error::StaleHandle)) => {}
            (Doing::Writing(text) | Doing::Swapping(text), Err(Error::StaleHandle)) => oracle.refused(text),
            (Doing::Swapping(text), Err(Error::GenerationMismatch { .. })) => oracle.refused(text),
            (Doing::Guarded(_, text), Ok(Answer::MultiDone(done))) => {
                oracle.wrote(history, &text, &done.stats[0]);
            }
            (Doing::Reading(at_least), Ok(Answer::Contents(contents))) => {
                tally.count("reads");
                let stat = contents.stat.expect("contents have a stat");
                oracle.read(history, &stat, Some(&contents.contents), at_least);
            }
            (Doing::Reading(at_least), Ok(Answer::Stat(stat))) => {
                oracle.read(history, &stat, None, at_least);
            }
            // In a later epoch it may be made again; in its own, the oracle sees to it that it is not.
            (Doing::ReadingClosed, Ok(_) | Err(Error::StaleHandle)) => {}
            (Doing::Checking(_, over), Ok(Answer::Done(_))) => {
                assert!(!over, "I4: a sequencer was valid after its lock had been freed");
            }
            (Doing::Checking(token, _), Err(Error::SequencerStale)) => {
                let held = self.holds.iter().flatten().any(|held| held.token == token);
                assert!(!held || !self.is_live(real), "I6: the sequencer of a lock that is held is stale");
            }
            // Nothing was asked of anybody: there was no cell to begin a session with, for longer than the grace.
            (_, Err(Error::NoQuorum)) if self.session.id().is_none() => tally.count("calls without a cell"),
            (Doing::Ending, Ok(_) | Err(Error::SessionExpired))
            | (Doing::Lost, Err(Error::SessionExpired)) => {}
            (doing, result) => panic!("client {}: {doing:?} ended with {result:?}", self.name),
        }
    }

    /// I5, I6: while its own view is live, its session lives, its locks are held and its temporary files are
    /// there.
    pub(super) fn check(&self, real: Duration, history: &History) {
        let Some(id) = self.session.id().filter(|_| self.is_live(real)) else { return };
        assert!(history.lives(id), "I5: client {} believes in session {id}, which has ended", self.name);
        let tree = history.state().tree();
        for held in self.holds.iter().flatten() {
            let lock = tree.get(held.instance).map(|node| &node.lock);
            let holder = lock.and_then(|lock| lock.holder_of_token(held.token));
            let holds = holder.is_some_and(|holder| holder.mode == held.mode);
            assert!(holds, "I6: client {} has lost the lock of token {}", self.name, held.token);
        }
        for handle in [OWN, COMMON].iter().filter_map(|place| self.handles[*place]) {
            let node = tree.get(Instance(handle.instance));
            let keeps = node.is_some_and(|node| node.openers.contains(&(id, HandleId(handle.id))));
            assert!(keeps, "I6: client {} has lost the temporary file {}", self.name, handle.instance);
        }
    }

    pub(super) fn id(&self) -> Option<SessionId> {
        self.session.id()
    }

    pub(super) fn describe(&self) -> String {
        let lost = if self.session.is_expired() { " (lost)" } else { "" };
        format!("client {}{lost} does {:?}, {} left; ", self.name, self.calls, self.left)
    }
}

fn lock_path(lock: usize) -> String {
    format!("/ls/sim/lock-{lock}")
}
