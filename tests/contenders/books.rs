//! The store that all contenders write to, and the books that it keeps of their turns.

use crate::common::store::Store;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use wombat_client::{Instant, LockMode, Sequencer, Token, now};

/// The store as a service.
pub(crate) struct Service {
    pub(crate) address: String,
    books: Mutex<Books>,
    /// Somebody has come for the first time.
    arrival: Condvar,
    /// Who wants the next that begins a turn.
    trap: Mutex<Option<Sender<Caught>>>,
}

/// Who has begun a turn, and waits for the store's answer for as long as this lives.
pub(crate) struct Caught {
    pub(crate) number: usize,
    pub(crate) token: Token,
    _let_go: Sender<()>,
}

/// What the store knows.
pub(crate) struct Books {
    store: Store,
    /// Whether there have been turns enough.
    pub(crate) enough: bool,
    /// The turns that were begun before.
    pub(crate) begun: usize,
    pub(crate) contenders: Vec<Contender>,
    pub(crate) turns: Vec<Turn>,
    /// The writes that it took, in their order.
    pub(crate) taken: Vec<(Token, LockMode)>,
    /// The writes that it did not take.
    pub(crate) refused: usize,
    tokens: BTreeSet<Token>,
    /// When processes were killed.
    killed: BTreeMap<u32, Instant>,
    /// What must not be.
    pub(crate) wrong: Vec<String>,
}

/// A contender, over all its processes.
#[derive(Clone, Default)]
pub(crate) struct Contender {
    pub(crate) session: u64,
    pub(crate) turns: usize,
    pub(crate) in_turn: bool,
    /// Whether it was killed, stood still, or lost its session: it has lost turns by that.
    pub(crate) hurt: bool,
    last: Token,
}

/// For how long a holder believed, by its guard, that it held the lock. All processes read the same clock.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) number: usize,
    pub(crate) token: Token,
    pub(crate) mode: LockMode,
    pub(crate) from: Instant,
    pub(crate) until: Instant,
}

/// What a holder says with a write.
struct Claim {
    sequencer: Sequencer,
    now: Instant,
    /// Until when its guard is safe.
    until: Instant,
}

impl Service {
    /// Opens the store for so many contenders.
    pub(crate) fn start(contenders: usize) -> Arc<Service> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let books = Books {
            store: Store::default(),
            enough: false,
            begun: 0,
            contenders: vec![Contender::default(); contenders],
            turns: Vec::new(),
            taken: Vec::new(),
            refused: 0,
            tokens: BTreeSet::new(),
            killed: BTreeMap::new(),
            wrong: Vec::new(),
        };
        let address = listener.local_addr().unwrap().to_string();
        let (arrival, trap) = (Condvar::new(), Mutex::default());
        let service = Arc::new(Service { address, books: Mutex::new(books), arrival, trap });
        let shared = Arc::clone(&service);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let service = Arc::clone(&shared);
                std::thread::spawn(move || service.serve(stream));
            }
        });
        service
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        // Who fails with the books in hand says enough about that.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Catches the next that begins a turn.
    pub(crate) fn catch(&self) -> Receiver<Caught> {
        let (sender, caught) = channel();
        *self.trap.lock().unwrap() = Some(sender);
        caught
    }

    /// Hears one contender's process, until it ends.
    fn serve(&self, stream: TcpStream) {
        let mut answers = stream.try_clone().unwrap();
        let (mut number, mut pid, mut turn) = (0, 0, None);
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let words: Vec<&str> = line.split(' ').collect();
            let answer = match words[..] {
                ["hello", who, process, session] => {
                    (number, pid) = (who.parse().unwrap(), process.parse().unwrap());
                    self.greet(number, session.parse().unwrap());
                    "welcome"
                }
                ["begin", ..] => {
                    let (answer, begun) = self.books().begin(number, &Claim::parse(&words));
                    turn = begun;
                    if let Some(turn) = &turn {
                        self.hold_if_caught(turn);
                    }
                    answer
                }
                ["end", ..] => self.books().end(turn.take().unwrap(), &Claim::parse(&words)),
                _ => panic!("a contender said {line:?}"),
            };
            if answers.write_all(format!("{answer}\n").as_bytes()).is_err() {
                break;
            }
        }
        let mut books = self.books();
        if let Some(turn) = turn {
            let end = books.killed.get(&pid).copied().unwrap_or_else(now);
            books.close(turn, end);
        }
    }

    /// Notes a contender's session; all begin together, that nobody has more turns than others by coming early.
    fn greet(&self, number: usize, session: u64) {
        let mut books = self.books();
        let contender = &mut books.contenders[number];
        contender.hurt |= contender.session != 0;
        contender.session = session;
        self.arrival.notify_all();
        let alone = |books: &mut Books| books.contenders.iter().any(|contender| contender.session == 0);
        drop(self.arrival.wait_while(books, alone).unwrap_or_else(PoisonError::into_inner));
    }

    fn hold_if_caught(&self, turn: &Turn) {
        let Some(trap) = self.trap.lock().unwrap().take() else { return };
        let (let_go, go) = channel();
        let _nobody_waits = trap.send(Caught { number: turn.number, token: turn.token, _let_go: let_go });
        let _it_was_let_go = go.recv();
    }
}

impl Books {
    /// A turn begins; unless there have been enough, or its token is stale.
    fn begin(&mut self, number: usize, claim: &Claim) -> (&'static str, Option<Turn>) {
        let (token, mode) = (claim.sequencer.token, claim.sequencer.mode);
        if !self.tokens.insert(token) || token <= self.contenders[number].last {
            self.wrong
                .push(format!("contender {number} began a turn with token {token}, which does not grow"));
        }
        self.contenders[number].last = token;
        if !self.write(number, claim) {
            return ("refused", None);
        }
        if self.enough {
            return ("enough", None);
        }
        self.begun += 1;
        let contender = &mut self.contenders[number];
        contender.turns += 1;
        contender.in_turn = true;
        ("took", Some(Turn { number, token, mode, from: claim.now, until: claim.until }))
    }

    fn end(&mut self, turn: Turn, claim: &Claim) -> &'static str {
        let taken = self.write(turn.number, claim);
        // What it believed at the beginning it did believe, also if it knows better by now.
        let until = turn.until.max(claim.until);
        self.close(Turn { until, ..turn }, claim.now);
        if taken { "took" } else { "refused" }
    }

    /// Notes a turn that ended at `end`, or before that by its guard.
    fn close(&mut self, turn: Turn, end: Instant) {
        self.contenders[turn.number].in_turn = false;
        self.turns.push(Turn { until: turn.until.min(end), ..turn });
    }

    /// A write. Nobody's is refused who can know that it still has the lock.
    fn write(&mut self, number: usize, claim: &Claim) -> bool {
        let token = claim.sequencer.token;
        match self.store.write(&claim.sequencer) {
            Ok(()) => self.taken.push((token, claim.sequencer.mode)),
            Err(newest) => {
                self.refused += 1;
                if now() < claim.until {
                    let wrong = format!("contender {number} has {token} and is safe, but {newest} was there");
                    self.wrong.push(wrong);
                }
                return false;
            }
        }
        true
    }

    /// The newest token that was written with.
    pub(crate) fn newest(&self) -> Token {
        self.taken.iter().map(|(token, _)| *token).max().unwrap_or_default()
    }

    /// Notes that a process is about to be killed.
    pub(crate) fn note_kill(&mut self, number: usize, pid: u32) {
        self.killed.insert(pid, now());
        self.contenders[number].hurt = true;
    }
}

impl Claim {
    fn parse(words: &[&str]) -> Claim {
        let instant = |word: &str| Instant::from_nanos(word.parse().unwrap());
        Claim { sequencer: words[1].parse().unwrap(), now: instant(words[2]), until: instant(words[3]) }
    }
}
