//! A client of a simulated cell: the session machine as it ships, and an application that locks and counts.

use crate::oracle::Oracle;
use crate::random::{Clock, Random};
use std::time::Duration;
use wombat_proto::wire::{self, Handle, request::Call, response::Result as Answer};
use wombat_proto::{Error, LockMode, Rho, Sequencer};
use wombat_session::{Config, Effects, Session};

pub(crate) const GRACE: Duration = Duration::from_secs(15);
const LOCK: &str = "/ls/sim/lock";
const FILE: &str = "/ls/sim/file";

/// What the application is waiting for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Doing {
    Nothing,
    OpeningLock,
    OpeningFile,
    Acquiring(LockMode),
    Writing(u64),
    /// Reading; when it began, contents of this generation had been acknowledged.
    Reading(u64),
    Releasing,
    Finished,
}

pub(crate) struct Client {
    pub(crate) name: usize,
    pub(crate) session: Session,
    pub(crate) clock: Clock,
    pub(crate) connection: Option<u64>,
    pub(crate) stopped_until: Duration,
    lock_delay_ms: u32,
    lock: Option<Handle>,
    file: Option<Handle>,
    /// The lock that it believes to hold.
    pub(crate) holds: Option<Sequencer>,
    pub(crate) doing: (u64, Doing),
    /// How many more things it wants to do.
    left: u64,
}

impl Client {
    pub(crate) fn new(name: usize, real: Duration, random: &mut Random) -> Client {
        let clock = Clock::new(random);
        let config = Config {
            cell: String::new(),
            client: format!("client {name}"),
            grace: GRACE,
            rho: Rho::default(),
            seed: random.next(),
        };
        Client {
            name,
            session: Session::new(config, clock.read(real)),
            clock,
            connection: None,
            stopped_until: Duration::ZERO,
            lock_delay_ms: if random.chance(300) { random.below(3000) as u32 } else { 0 },
            lock: None,
            file: None,
            holds: None,
            doing: (0, Doing::Nothing),
            left: 5 + random.below(40),
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.doing.1 == Doing::Finished
    }

    /// Whether its own view says that its lock is surely held (SPEC I3).
    pub(crate) fn surely_holds(&self, real: Duration) -> Option<LockMode> {
        let safe = self.clock.read(real) < self.session.safe_until();
        self.holds.as_ref().filter(|_| safe).map(|sequencer| sequencer.mode)
    }

    /// Does the next thing, if it is not waiting for one.
    pub(crate) fn act(&mut self, random: &mut Random, oracle: &Oracle, effects: &mut Effects) {
        if self.doing.1 != Doing::Nothing {
            return;
        }
        if self.session.is_expired() {
            self.doing.1 = Doing::Finished;
            return;
        }
        let (doing, call) = self.choose(random, oracle);
        if let Some(call) = call {
            let number = self.session.submit(call, effects);
            self.doing = (number, doing);
        } else {
            self.doing.1 = doing;
        }
    }

    fn choose(&mut self, random: &mut Random, oracle: &Oracle) -> (Doing, Option<Call>) {
        let Some(lock) = self.lock else {
            return (Doing::OpeningLock, Some(open(LOCK, self.lock_delay_ms)));
        };
        let Some(file) = self.file else { return (Doing::OpeningFile, Some(open(FILE, 0))) };
        if self.left == 0 {
            return match self.holds {
                Some(_) => (Doing::Releasing, Some(release(lock))),
                None => (Doing::Finished, None),
            };
        }
        self.left -= 1;
        match random.below(10) {
            0..3 if self.holds.is_none() => {
                let shared = random.chance(300);
                let timeout_ms = if random.chance(300) { 1 + random.below(5000) } else { 0 };
                let mode = if shared { LockMode::Shared } else { LockMode::Exclusive };
                let acquire =
                    wire::Acquire { handle: Some(lock), shared, r#try: false, timeout_ms, waited_ms: 0 };
                (Doing::Acquiring(mode), Some(Call::Acquire(acquire)))
            }
            0..2 if self.holds.is_some() => (Doing::Releasing, Some(release(lock))),
            0..6 => {
                let text = random.next();
                let contents = text.to_string().into();
                let set = wire::SetContents { handle: Some(file), contents, if_generation: 0 };
                (Doing::Writing(text), Some(Call::SetContents(set)))
            }
            _ => {
                let get = wire::GetContents { handle: Some(file) };
                (Doing::Reading(oracle.acknowledged()), Some(Call::GetContents(get)))
            }
        }
    }

    /// A call has ended. Tells the oracle what the application has learned.
    pub(crate) fn done(
        &mut self,
        real: Duration,
        number: u64,
        result: Result<Answer, Error>,
        oracle: &mut Oracle,
    ) {
        if number != self.doing.0 {
            return;
        }
        let doing = std::mem::replace(&mut self.doing.1, Doing::Nothing);
        match (doing, result) {
            (Doing::OpeningLock, Ok(Answer::Opened(opened))) => self.lock = opened.handle,
            (Doing::OpeningFile, Ok(Answer::Opened(opened))) => self.file = opened.handle,
            (Doing::Acquiring(mode), Ok(Answer::Granted(granted))) => {
                let sequencer: Sequencer = granted.sequencer.parse().expect("a sequencer of the cell");
                assert_eq!(sequencer.mode, mode);
                oracle.granted(self.name, &sequencer);
                self.holds = Some(sequencer);
            }
            (Doing::Releasing, _) => {}
            (Doing::Writing(text), Ok(Answer::Stat(stat))) => {
                oracle.wrote(text, stat.content_generation);
            }
            (Doing::Writing(_), Err(Error::Unknown)) => oracle.unknown_write(),
            (Doing::Reading(at_least), Ok(Answer::Contents(contents))) => {
                let generation = contents.stat.expect("contents have a stat").content_generation;
                oracle.read(&contents.contents, generation, at_least);
            }
            (Doing::Acquiring(_), Err(Error::Timeout | Error::SessionExpired)) => {}
            (_, Err(Error::SessionExpired | Error::Unknown)) => {
                let view = self.clock.read(real);
                assert!(view >= self.session.safe_until(), "I5: a lost session looks alive");
            }
            (doing, result) => panic!("client {}: {doing:?} ended with {result:?}", self.name),
        }
    }

    /// From the moment at which it asks to release, it believes in its lock no longer.
    pub(crate) fn before_send(&mut self) {
        if self.doing.1 == Doing::Releasing {
            self.holds = None;
        }
    }
}

fn open(path: &str, lock_delay_ms: u32) -> Call {
    Call::Open(wire::Open {
        path: path.into(),
        mode: 3,
        lock_delay_ms,
        create: wire::open::Create::May.into(),
        node: Some(wire::NewNode::default()),
        ..wire::Open::default()
    })
}

fn release(handle: Handle) -> Call {
    Call::Release(wire::Release { handle: Some(handle) })
}
