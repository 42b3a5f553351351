//! Locks on real processes (P§2.4): sixty-four of them contend for one lock of a cell of five, and write to a
//! store that checks tokens, while holders and waiters are killed with -9 or stand still for longer than their
//! lease, and masters are killed with -9. Nobody holds it beside another, and everybody has its turn.
//!
//! The long proof: `cargo test --release --test contenders -- --ignored --nocapture`

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "contenders/books.rs"]
mod books;
mod common;
#[path = "contenders/process.rs"]
mod process;

use books::{Books, Caught, Service};
use common::five::Five;
use common::{WOMBAT, is_stopped, signal, wait_for};
use process::Role;
use std::collections::BTreeSet;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use wombat_client::{LockMode, Token};

/// A contender's process, which the tests start and kill.
#[test]
#[ignore = "the other tests start it"]
fn a_contender() {
    process::live();
}

/// Who contends for what.
#[derive(Clone, Copy)]
struct Contest {
    writers: usize,
    readers: usize,
    permits: u32,
    /// How many turns they have from one fault to the next, all together.
    turns: usize,
    /// What happens meanwhile, one thing after the other.
    faults: &'static [Fault],
    /// How often all of that happens.
    rounds: usize,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    KillHolder,
    KillWaiter,
    FreezeHolder,
    FreezeWaiter,
    /// It comes back while the others elect, or after that.
    KillMaster {
        early: bool,
    },
    /// Those that stand still go on, once their sessions are over.
    Wake,
}

/// All that may happen. Some stand still while masters die.
const FAULTS: [Fault; 9] = [
    Fault::KillHolder,
    Fault::FreezeHolder,
    Fault::Wake,
    Fault::KillMaster { early: true },
    Fault::FreezeWaiter,
    Fault::KillWaiter,
    Fault::FreezeHolder,
    Fault::KillMaster { early: false },
    Fault::Wake,
];

/// The cell, the store and the contenders.
struct Crowd {
    five: Five,
    service: Arc<Service>,
    roles: Vec<Role>,
    children: Vec<Child>,
    frozen: Vec<Frozen>,
    /// The contender from which the next waiter is looked for.
    next_waiter: usize,
    /// How many stood still while they alone had the lock.
    zombies: usize,
}

/// Who stands still.
struct Frozen {
    number: usize,
    session: u64,
    /// What it holds, and is about to write with.
    held: Option<Caught>,
}

impl Crowd {
    fn start(five: Five, contest: Contest) -> Crowd {
        let contenders = contest.writers + contest.readers;
        let service = Service::start(contenders);
        let role = |number| Role {
            number,
            mode: if number < contest.writers { LockMode::Exclusive } else { LockMode::Shared },
            permits: contest.permits,
            endpoints: five.addresses().join(","),
            store: service.address.clone(),
        };
        let roles: Vec<Role> = (0..contenders).map(role).collect();
        let children = roles.iter().map(Role::play).collect();
        Crowd { five, service, roles, children, frozen: Vec::new(), next_waiter: 0, zombies: 0 }
    }

    /// Waits until there is something to see, while all goes well.
    fn until<T>(&mut self, what: &str, mut look: impl FnMut(&Books) -> Option<T>) -> T {
        let (service, children) = (&self.service, &mut self.children);
        wait_for(what, || {
            let books = service.books();
            assert!(books.wrong.is_empty(), "{:#?}", books.wrong);
            let ended = children.iter_mut().filter_map(|child| child.try_wait().unwrap());
            assert_eq!(ended.filter(|status| !status.success()).count(), 0, "a contender failed");
            look(&books)
        })
    }

    /// Waits for so many turns.
    fn go_on(&mut self, turns: usize) {
        let enough = self.service.books().begun + turns;
        self.until("the turns to go on", |books| (books.begun >= enough).then_some(()));
    }

    fn suffer(&mut self, fault: Fault) {
        match fault {
            Fault::KillHolder => {
                let caught = self.catch();
                self.kill(caught.number);
            }
            Fault::KillWaiter => {
                let waiter = self.waiter();
                self.kill(waiter);
            }
            Fault::FreezeHolder => {
                let caught = self.catch();
                self.zombies += usize::from(self.roles[caught.number].mode == LockMode::Exclusive);
                self.freeze(caught.number, Some(caught));
            }
            Fault::FreezeWaiter => {
                let waiter = self.waiter();
                self.freeze(waiter, None);
            }
            Fault::KillMaster { early } => {
                let master = self.five.master();
                self.five.kill(master);
                if !early {
                    self.five.master();
                }
                self.five.restart(master);
            }
            Fault::Wake => self.wake(),
        }
    }

    fn catch(&mut self) -> Caught {
        let caught = self.service.catch();
        self.until("somebody to begin a turn", |_| caught.try_recv().ok())
    }

    /// One that is about to take its turn, most likely.
    fn waiter(&mut self) -> usize {
        let still: Vec<usize> = self.frozen.iter().map(|frozen| frozen.number).collect();
        let from = self.next_waiter;
        let number = self.until("somebody who waits", |books| {
            let all = books.contenders.len();
            let mut numbers = (0..all).map(|step| (from + step) % all);
            numbers.find(|number| !books.contenders[*number].in_turn && !still.contains(number))
        });
        self.next_waiter = number + 7;
        number
    }

    /// `kill -9`; another comes in its place.
    fn kill(&mut self, number: usize) {
        let child = &mut self.children[number];
        self.service.books().note_kill(number, child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        *child = self.roles[number].play();
    }

    /// SIGSTOP; returns once the process stands still.
    fn freeze(&mut self, number: usize, held: Option<Caught>) {
        let pid = self.children[number].id();
        signal(pid, "STOP");
        wait_for("a contender to stand still", || is_stopped(pid).then_some(()));
        let mut books = self.service.books();
        let contender = &mut books.contenders[number];
        contender.hurt = true;
        self.frozen.push(Frozen { number, session: contender.session, held });
    }

    /// SIGCONT, when the cell has given them up and others have written after them.
    fn wake(&mut self) {
        let sessions: BTreeSet<u64> = self.frozen.iter().map(|frozen| frozen.session).collect();
        wait_for("the sessions of those who stand still to end", || {
            self.sessions().filter(|live| live.is_disjoint(&sessions))
        });
        let held = self.frozen.iter().filter_map(|frozen| Some(frozen.held.as_ref()?.token));
        let newest: Token = held.max().unwrap_or_default();
        self.until("a newer holder", |books| (books.newest() > newest).then_some(()));
        for frozen in self.frozen.drain(..) {
            signal(self.children[frozen.number].id(), "CONT");
        }
    }

    /// The sessions that live, if the cell can be asked.
    fn sessions(&self) -> Option<BTreeSet<u64>> {
        let mut command = Command::new(WOMBAT);
        command.args(["sessions", "--json", "--endpoints", &self.five.addresses().join(",")]);
        let output = command.env_remove("WOMBAT_CELL").output().unwrap();
        let sessions: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        sessions.as_array()?.iter().map(|session| session["session"].as_u64()).collect()
    }

    /// Says that it is enough. Everybody comes to hear it, and ends well: nobody waits for ever.
    fn ends(&mut self) {
        self.service.books().enough = true;
        for number in 0..self.children.len() {
            let child = &mut self.children[number];
            let status = wait_for("a contender to end", || child.try_wait().unwrap());
            assert!(status.success(), "contender {number}: {status}");
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _it_is_gone = child.kill();
            let _it_is_gone = child.wait();
        }
    }
}

/// Nobody believed to hold the lock while others did who exclude it. Returns how many held it at most.
fn most_at_once(books: &Books, permits: usize) -> usize {
    let turns = books.turns.iter().filter(|turn| turn.from < turn.until);
    let mut changes: Vec<_> =
        turns.flat_map(|turn| [(turn.from, true, turn), (turn.until, false, turn)]).collect();
    changes.sort_by_key(|(at, begins, _)| (*at, *begins));
    let mut holders = Vec::new();
    let mut most = 0;
    for (_, begins, turn) in changes {
        if begins {
            holders.push(turn);
        } else {
            holders.retain(|holder: &&books::Turn| holder.token != turn.token);
        }
        most = most.max(holders.len());
        let alone = holders.len() == 1 || holders.iter().all(|holder| holder.mode == LockMode::Shared);
        assert!(alone && holders.len() <= permits, "they believe that they hold it together: {holders:#?}");
    }
    most
}

/// The store took no write after that of a newer holder who excludes it.
fn check_taken(books: &Books) {
    let (mut any, mut exclusive) = (Token::default(), Token::default());
    for (token, mode) in &books.taken {
        let rival = if *mode == LockMode::Exclusive { any } else { exclusive };
        assert!(*token >= rival, "the store took a write with {token} after one with {rival}");
        any = any.max(*token);
        if *mode == LockMode::Exclusive {
            exclusive = *token;
        }
    }
}

/// First come, first served: who is never hurt has as many turns as the others, or nearly so. Returns the fewest
/// and the most.
fn check_fairness(books: &Books) -> (usize, usize) {
    assert!(books.contenders.iter().all(|contender| contender.turns > 0), "somebody had no turn at all");
    let unhurt = books.contenders.iter().filter(|contender| !contender.hurt).map(|contender| contender.turns);
    assert!(unhurt.clone().count() > books.contenders.len() / 2, "too few were left in peace to compare");
    let (fewest, most) = (unhurt.clone().min().unwrap(), unhurt.max().unwrap());
    assert!(most <= 2 * fewest, "some had {most} turns, some {fewest}");
    (fewest, most)
}

/// One contest at a time: each needs the machine for itself.
fn floor() -> MutexGuard<'static, ()> {
    static FLOOR: Mutex<()> = Mutex::new(());
    FLOOR.lock().unwrap_or_else(PoisonError::into_inner)
}

fn check(contest: Contest) {
    let _floor = floor();
    let begun = Instant::now();
    let dir = tempfile::tempdir().unwrap();
    let five = Five::start_with(dir.path(), 5, &["--session-lease", "3s"]);
    let mut crowd = Crowd::start(five, contest);
    crowd.go_on(contest.turns);
    for fault in contest.faults.iter().cycle().take(contest.faults.len() * contest.rounds) {
        crowd.suffer(*fault);
        crowd.go_on(contest.turns);
    }
    crowd.ends();

    let books = crowd.service.books();
    assert!(books.wrong.is_empty(), "{:#?}", books.wrong);
    check_taken(&books);
    assert!(books.refused >= crowd.zombies, "a zombie's write was taken");
    let permits = if contest.permits == 0 { usize::MAX } else { contest.permits as usize };
    let at_once = most_at_once(&books, permits);
    if contest.readers > 0 {
        assert!(at_once > 1 && (contest.permits == 0 || at_once == permits), "only {at_once} at once");
    }
    let (fewest, most) = check_fairness(&books);
    let hurt = books.contenders.iter().filter(|contender| contender.hurt).count();
    eprintln!(
        "{} contenders, {hurt} hurt: {} turns in {:?}, {at_once} at once, {} stale writes refused, {fewest} to \
         {most} turns for the unhurt",
        books.contenders.len(),
        books.begun,
        begun.elapsed(),
        books.refused,
    );
}

const ALONE: Contest =
    Contest { writers: 64, readers: 0, permits: 0, turns: 100, faults: &FAULTS, rounds: 1 };
const SEMAPHORE: Contest = Contest { writers: 0, readers: 64, permits: 5, ..ALONE };
const MIXED: Contest = Contest { writers: 8, readers: 24, ..ALONE };

#[test]
fn sixty_four_processes_have_one_lock_in_turn() {
    check(ALONE);
}

#[test]
fn sixty_four_processes_share_five_permits() {
    check(SEMAPHORE);
}

#[test]
fn writers_have_their_turns_among_readers() {
    // The second half is enough where each death costs everybody a lease.
    check(Contest { faults: &FAULTS[5..], ..MIXED });
}

#[test]
#[ignore = "minutes"]
fn every_contest_for_long() {
    check(Contest { turns: 300, rounds: 4, ..ALONE });
    check(Contest { turns: 300, rounds: 4, ..SEMAPHORE });
    check(Contest { turns: 300, rounds: 4, ..MIXED });
}
