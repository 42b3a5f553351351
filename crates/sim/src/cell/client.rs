//! A client of a simulated cell: the session machine as it ships, and an application that opens, locks, reads,
//! writes, deletes, ties handles to sequencers and listens to events.

mod choices;
mod looks;
mod shelf;
mod sight;

use super::endpoint::Line;
use super::oracle::answers::Answers;
use super::oracle::history::History;
use super::swarm::Swarm;
use super::tally::Tally;
use crate::random::{Clock, Random};
use shelf::Shelf;
use sight::{Look, Sight};
use std::collections::BTreeMap;
use std::time::Duration;
use wombat_proto::limits::CLIENT_CACHE_BYTES;
use wombat_proto::wire::{self, Handle, event::Kind, request::Call, response::Result as Answer};
use wombat_proto::{Epoch, Error, HandleId, Instance, Instant, LockMode, Rho, Sequencer, SessionId, Token};
use wombat_session::{Config, Effects, LinkId, NodeEvent, Revoked, Session};

pub(super) const GRACE: Duration = Duration::from_secs(12);
/// Most calls that a client has under way.
const CALLS: usize = 3;
/// The nodes that it knows: so many locks, of which the last is a semaphore, then a file, a temporary file of its
/// own, one for all, the file by another handle that it ties to sequencers, and the directory of them all.
const LOCKS: usize = 3;
const SEMAPHORE: usize = LOCKS - 1;
const PERMITS: u32 = 2;
const FILE: usize = LOCKS;
const OWN: usize = LOCKS + 1;
const COMMON: usize = LOCKS + 2;
const FENCED: usize = LOCKS + 3;
const DIRECTORY: usize = LOCKS + 4;
const PLACES: usize = LOCKS + 5;
/// How many entries a flood has, and how many writes each: more events than a session keeps.
const FLOOD: u64 = 5;
const FLOOD_WRITES: usize = 125;

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
    /// A handle to a sequencer; the same.
    Tying(Token, bool),
    /// To write through that handle.
    Fenced(Token, String),
    /// To write many times at once.
    Flooding(String),
    /// The node of a lock.
    Deleting(usize),
    /// Whosoever it is.
    Breaking,
    /// What there is in the directory.
    Listing,
    /// At something that may be cached.
    Looking(Look),
    /// With the nest.
    Nesting,
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
    /// Its ends of connections.
    pub(super) lines: BTreeMap<LinkId, Line>,
    pub(super) stopped_until: Duration,
    pub(super) dead: bool,
    finished: bool,
    lock_delay_ms: u32,
    handles: [Option<Handle>; PLACES],
    closed: Option<Handle>,
    /// Which of the places have something under way.
    busy: [bool; PLACES],
    /// The locks that it believes to hold.
    holds: [Option<Sequencer>; LOCKS],
    /// Whether it holds what it holds until somebody else wants it, and which locks somebody does.
    keeps: bool,
    wanted: [bool; LOCKS],
    /// The grants that somebody breaks, and until when it may believe in each.
    revoked: BTreeMap<Token, Instant>,
    /// What [`FENCED`] is tied to.
    tied: Option<Token>,
    /// Whether it subscribes to events.
    listens: bool,
    /// How many entries of a flood are still to come.
    flood: u64,
    calls: BTreeMap<u64, Doing>,
    /// How many things it is about to do.
    intentions: usize,
    /// How many more things it wants to do.
    pub(super) left: u64,
    /// How often it looks at something, and makes something in the nest; and whether that vanishes when nobody has
    /// it open.
    looks: u64,
    nesting: u64,
    nest_vanishes: bool,
    leaving: Leaving,
    pub(super) asked_to_end: bool,
    caches: bool,
    /// What its threads read, what it has seen, and whether it wants to see anything just now.
    pub(super) shelf: Shelf,
    sight: Sight,
    reads: bool,
    /// Whether it looks at nothing any more when it has finished.
    pub(super) rests: bool,
    /// When its next tick is due.
    pub(super) tick_at: Option<Duration>,
}

impl Client {
    pub(super) fn new(
        name: usize,
        endpoints: Vec<String>,
        real: Duration,
        swarm: &Swarm,
        random: &mut Random,
    ) -> Client {
        let clock = Clock::draw(swarm.worst_clocks, random);
        let caches = random.chance(swarm.caching);
        let config = Config {
            endpoints,
            cell: "sim".into(),
            client: format!("client {name}"),
            sequencers: Vec::new(),
            cache_bytes: match caches {
                true if random.chance(swarm.small_caches) => 600 + random.below(3000) as usize,
                true => CLIENT_CACHE_BYTES,
                false => 0,
            },
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
            lines: BTreeMap::new(),
            stopped_until: Duration::ZERO,
            dead: false,
            finished: false,
            lock_delay_ms: if random.chance(400) { random.below(4000) as u32 } else { 0 },
            handles: [None; PLACES],
            closed: None,
            busy: [false; PLACES],
            holds: Default::default(),
            keeps: random.chance(250),
            revoked: BTreeMap::new(),
            wanted: [false; LOCKS],
            tied: None,
            listens: random.chance(600),
            flood: 0,
            calls: BTreeMap::new(),
            intentions: 0,
            left: 5 + random.below(60),
            looks: swarm.looks,
            nesting: swarm.nesting,
            nest_vanishes: swarm.nest_vanishes,
            leaving,
            asked_to_end: false,
            caches,
            shelf: Shelf::new(random),
            sight: Sight::default(),
            reads: true,
            rests: false,
            tick_at: None,
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.dead || self.finished
    }

    /// Whether its own view says that its session lives.
    pub(super) fn is_live(&self, real: Duration) -> bool {
        self.clock.read(real) < self.session.safe_until()
    }

    /// Whether it has asked for something and has no answer.
    pub(super) fn waits_for(&self, number: u64) -> bool {
        self.calls.contains_key(&number)
    }

    /// Whether nothing of what it has asked for is still to come.
    pub(super) fn is_done(&self) -> bool {
        self.dead || self.finished && self.calls.is_empty()
    }

    /// Whether it may still use what it cached under a master of an epoch before this one.
    pub(super) fn may_use_cache_of_before(&self, epoch: Epoch, real: Duration) -> bool {
        !self.dead && self.clock.read(real) < self.shelf.until() && self.session.epoch() < epoch
    }

    /// How its own view says that it holds a lock (SPEC I3).
    pub(super) fn surely_holds(&self, lock: usize, real: Duration) -> Option<LockMode> {
        self.believed(lock, real).filter(|_| self.is_live(real)).map(|sequencer| sequencer.mode)
    }

    /// What it holds, but for the notice of a break that has ended.
    fn believed(&self, lock: usize, real: Duration) -> Option<&Sequencer> {
        let now = self.clock.read(real);
        let is_over = |token| self.revoked.get(&token).is_some_and(|until| *until <= now);
        self.holds[lock].as_ref().filter(|held| !is_over(held.token))
    }

    pub(super) fn locks() -> std::ops::Range<usize> {
        0..LOCKS
    }

    /// How many may share a lock.
    pub(super) fn permits(lock: usize) -> usize {
        if lock == SEMAPHORE { PERMITS as usize } else { usize::MAX }
    }

    /// Whether it takes one more thing in mind.
    pub(super) fn intends(&mut self) -> bool {
        let more = self.intentions <= CALLS;
        self.intentions += usize::from(more);
        more
    }

    /// Does the next thing, unless it has enough to wait for.
    pub(super) fn act(
        &mut self,
        real: Duration,
        oracle: &Answers,
        history: &History,
        random: &mut Random,
        effects: &mut Effects,
    ) {
        self.intentions -= 1;
        if self.dead {
            return;
        }
        if !self.session.is_expired()
            && !self.asked_to_end
            && let Some((lock, handle)) = self.held_and_revoked().or_else(|| self.kept_and_wanted())
        {
            return self.release(lock, handle, effects);
        }
        if self.calls.len() >= CALLS {
            return;
        }
        if self.caches && random.chance(30) {
            self.reads = !self.reads;
        }
        if self.keeps_looking() && (self.finished || random.chance(self.looks)) {
            if let Some((call, doing)) = self.look(real, random) {
                self.submit(call, doing, effects);
            }
            return;
        }
        if self.finished {
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
            let (gives_up, nests) = (matches!(doing, Doing::Releasing(_)), doing == Doing::Nesting);
            self.submit(call, doing, effects);
            // What changes the same things soon after finds them changed by then, or not yet.
            if nests && random.chance(400) {
                let (call, doing) = self.nest(self.nest_vanishes, random);
                self.submit(call, doing, effects);
            }
            // What it writes through the handle that is tied to the lock now races with the end of it.
            if gives_up
                && random.chance(500)
                && let Some((call, doing)) = self.fenced_write(random)
            {
                self.submit(call, doing, effects);
            }
        }
    }

    /// Somebody breaks a lock of its. It believes in it no longer than the first who does so lets it.
    pub(super) fn is_revoked(&mut self, revoked: &Revoked) {
        self.revoked.entry(revoked.token).or_insert(revoked.until);
    }

    /// A lock that somebody breaks.
    fn held_and_revoked(&self) -> Option<(usize, Handle)> {
        let revoked = |lock: &usize| {
            let held = self.holds[*lock].as_ref().filter(|_| !self.busy[*lock]);
            held.is_some_and(|held| self.revoked.contains_key(&held.token))
        };
        let lock = (0..LOCKS).find(revoked)?;
        Some((lock, self.handles[lock]?))
    }

    /// A lock that it keeps, and that somebody else wants.
    fn kept_and_wanted(&self) -> Option<(usize, Handle)> {
        let kept = |lock: &usize| self.holds[*lock].is_some() && !self.busy[*lock];
        let lock = (0..LOCKS).find(|lock| self.keeps && self.wanted[*lock] && kept(lock))?;
        Some((lock, self.handles[lock]?))
    }

    /// It hears of something that happened to a node.
    pub(super) fn hears(&mut self, event: &NodeEvent) {
        let place =
            self.handles[..LOCKS].iter().position(|one| one.is_some_and(|one| one.id == event.handle.0));
        match event.kind {
            Kind::LockConflict => place.into_iter().for_each(|lock| self.wanted[lock] = true),
            // Somebody may have wanted something.
            Kind::Gap => self.wanted = [true; LOCKS],
            _ => {}
        }
    }

    /// Whether it hears of each write to the file twice.
    pub(super) fn hears_of_writes(&self) -> bool {
        let open = [FILE, FENCED, DIRECTORY].iter().filter(|place| self.handles[**place].is_some());
        self.listens && !self.is_finished() && open.count() > 1
    }

    /// Has a flood of writes to make, if it has the file open.
    pub(super) fn begin_flood(&mut self) -> bool {
        let can = !self.is_finished() && self.handles[FILE].is_some();
        if can {
            self.flood = FLOOD;
        }
        can
    }

    /// Whether it is in a hurry.
    pub(super) fn is_flooding(&self) -> bool {
        self.flood > 0
    }

    /// Whether it listens, and still has somebody who tells it.
    pub(super) fn is_told(&self, real: Duration) -> bool {
        !self.dead && self.is_live(real)
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
        let held = (0..LOCKS).find(|lock| self.holds[*lock].is_some() && !self.keeps);
        let held = held.map(|lock| (lock, self.handles[lock]));
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

    /// A call has ended. Tells the oracle what the application has learned.
    pub(super) fn done(
        &mut self,
        number: u64,
        result: Result<Answer, Error>,
        oracle: &mut Answers,
        history: &History,
        tally: &mut Tally,
    ) {
        let Some(doing) = self.calls.remove(&number) else { return };
        // The error of a Multi names its step. Each Multi here expects the same of all its steps.
        let result = result.map_err(|error| error.root().clone());
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
            | Doing::Deleting(place)
            | Doing::Guarded(place, _) => self.busy[place] = false,
            Doing::Tying(..) => self.busy[FENCED] = false,
            _ => {}
        }
        match (doing, result) {
            (Doing::Opening(place), Ok(Answer::Opened(opened))) => self.handles[place] = opened.handle,
            // It vanished while it was opened.
            (Doing::Opening(_), Err(Error::StaleHandle)) => {
                tally.count("files that vanished");
            }
            (Doing::Acquiring(lock, mode), Ok(Answer::Granted(granted))) => {
                let sequencer: Sequencer = granted.sequencer.parse().expect("a sequencer of the cell");
                assert_eq!(sequencer.mode, mode);
                oracle.granted(self.name, &sequencer);
                if !self.is_cancelling(number) {
                    self.holds[lock] = Some(sequencer);
                }
            }
            (Doing::Acquiring(..), Err(Error::Timeout)) => tally.count("timeouts"),
            // Somebody else has deleted it, or it has itself.
            (
                Doing::Acquiring(lock, _) | Doing::Deleting(lock) | Doing::Cancelling(lock, _),
                Err(Error::StaleHandle),
            )
            | (Doing::Deleting(lock), Ok(Answer::Done(_))) => self.handles[lock] = None,
            (Doing::Deleting(_), Err(Error::LockHeld | Error::LockDelayed { .. })) => {}
            (Doing::Acquiring(..), Err(Error::LockHeld | Error::LockDelayed { .. } | Error::Cancelled)) => {}
            (Doing::Cancelling(..) | Doing::Releasing(_) | Doing::Closing, Ok(Answer::Done(_))) => {}
            (Doing::Breaking, Ok(Answer::Done(_))) => tally.count("locks broken"),
            (Doing::Breaking, Err(Error::NotHeld | Error::NotFound { .. } | Error::StaleHandle)) => {}
            // It was broken before it could be given back, or used.
            (Doing::Releasing(_), Err(Error::NotHeld)) if !self.revoked.is_empty() => {}
            (Doing::Releasing(lock), Err(Error::StaleHandle)) if !self.revoked.is_empty() => {
                self.handles[lock] = None;
            }
            (Doing::Guarded(_, text), Err(Error::NotHeld | Error::NotFound { .. }))
                if !self.revoked.is_empty() =>
            {
                oracle.refused(text);
            }
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
                tally.count("stale sequencers refused");
                assert!(history.is_freed(token), "I6: the sequencer of a lock that is held is stale");
            }
            (Doing::Tying(token, over), Ok(Answer::Done(_))) => {
                assert!(!over, "I4: a handle was tied to a sequencer that was stale");
                self.tied = Some(token).filter(|_| self.handles[FENCED].is_some());
                tally.count("handles tied to a sequencer");
            }
            (Doing::Fenced(_, text), Ok(Answer::Stat(stat))) => {
                tally.count("writes through tied handles");
                oracle.wrote(history, &text, &stat);
            }
            (Doing::Fenced(token, text), Err(Error::SequencerStale)) => {
                tally.count("writes refused for a stale sequencer");
                assert!(history.is_freed(token), "I6: a handle's sequencer is stale, and its lock is held");
                oracle.refused(text);
            }
            (Doing::Fenced(_, text), Err(Error::StaleHandle)) => oracle.refused(text),
            (Doing::Tying(token, _), Err(Error::SequencerStale)) => {
                tally.count("stale sequencers refused");
                assert!(history.is_freed(token), "I6: the sequencer of a lock that is held is stale");
            }
            (Doing::Tying(..) | Doing::Listing, Err(Error::StaleHandle)) => {}
            (Doing::Flooding(text), Ok(Answer::MultiDone(done))) => {
                oracle.wrote(history, &text, done.stats.last().expect("it wrote"));
            }
            (Doing::Listing, Ok(Answer::Entries(_))) => {}
            (Doing::Looking(look), result) => self.looked(look, result, tally),
            (Doing::Nesting, result) => self.nested(result, tally),
            // Nothing was asked of anybody: there was no cell to begin a session with, for longer than the grace.
            (_, Err(Error::Unreachable { .. })) if self.session.id().is_none() => {
                tally.count("calls without a cell")
            }
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
        for held in (0..LOCKS).filter_map(|lock| self.believed(lock, real)) {
            let lock = tree.get(held.instance).map(|node| &node.lock);
            let holder = lock.and_then(|lock| lock.holder_of_token(held.token));
            let holds = holder.is_some_and(|(_, holder)| holder.mode == held.mode);
            assert!(holds, "I6: client {} has lost the lock of token {}", self.name, held.token);
        }
        for handle in [OWN, COMMON].iter().filter_map(|place| self.handles[*place]) {
            let node = tree.get(Instance(handle.instance));
            let keeps = node.is_some_and(|node| node.openers.contains_key(&(id, HandleId(handle.id))));
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
