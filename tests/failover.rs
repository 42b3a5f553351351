//! Sessions, locks and ephemerals over fail-overs (P§2.9): a cell of five real processes, many clients, each
//! with a session, a lock and an ephemeral of its own, who contend for a few more locks, while the master is
//! killed with -9 again and again, or hands over.
//!
//! The long proof, two hundred clients for ten minutes:
//! `cargo test --release --test failover -- --ignored --nocapture`

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::five::Five;
use common::store::Store;
use common::wait_for;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use wombat_client::{
    Cell, Config, Create, Error, LockGuard, LockMode, Node, OpenOptions, SessionEvent, transfer_mastership,
};

/// For so many clients there is one lock that they contend for.
const CLIENTS_A_SHARED_LOCK: usize = 20;

/// What the clients and the test tell each other.
struct Fleet {
    /// Where the cell is.
    endpoints: Vec<String>,
    /// How long a client rests between its rounds.
    rest: Duration,
    /// The service that what is done under the shared locks is done to.
    store: Mutex<Store>,
    /// All clients have what is theirs, or have finished their rounds.
    together: Barrier,
    stop: AtomicBool,
    /// For each client, the epoch in which it last found all that is its own.
    unharmed: Vec<AtomicU64>,
    /// How often a shared lock was held and given back.
    rounds: AtomicU64,
    jeopardies: AtomicU64,
}

/// Clients at work, all in one thread.
struct Clients {
    fleet: Arc<Fleet>,
    thread: JoinHandle<()>,
}

/// What a client has, and must not lose.
struct Belongings {
    guard: LockGuard,
    ephemeral: Node,
}

fn own_lock(number: usize) -> String {
    format!("/ls/local/own-{number}")
}

fn ephemeral(number: usize) -> String {
    format!("/ls/local/alive-{number}")
}

async fn open(cell: &Cell, path: &str) -> Node {
    cell.open(path, OpenOptions::new().write().create(Create::May).contents("0")).await.unwrap()
}

impl Belongings {
    async fn take(cell: &Cell, number: usize) -> Belongings {
        let lock = open(cell, &own_lock(number)).await;
        let guard = lock.acquire(LockMode::Exclusive).await.unwrap();
        let options = OpenOptions::new().write().create(Create::Must).ephemeral();
        let ephemeral = cell.open(&ephemeral(number), options).await.unwrap();
        Belongings { guard, ephemeral }
    }

    /// The cell says that all is there as it was.
    async fn check(&self, cell: &Cell, number: usize) {
        cell.check_sequencer(self.guard.sequencer()).await.unwrap();
        assert!(self.ephemeral.stat().await.unwrap().ephemeral);
        let there = cell.open(&ephemeral(number), OpenOptions::new()).await.unwrap();
        assert_eq!(there.instance(), self.ephemeral.instance(), "the ephemeral was lost and made again");
        there.close().await.unwrap();
    }

    async fn give_back(self) {
        self.guard.release().await.unwrap();
        self.ephemeral.close().await.unwrap();
    }
}

impl Fleet {
    /// The life of a client.
    async fn client(&self, number: usize) {
        let mut config = Config::new(self.endpoints.clone());
        config.connect_timeout = Duration::from_secs(60);
        let cell = Cell::connect_with(config).await.unwrap();
        let mut life = cell.session_events();
        let lives = async {
            while let Some(event) = life.recv().await {
                assert_ne!(event, SessionEvent::Expired, "client {number} lost its session");
                self.jeopardies.fetch_add(u64::from(event == SessionEvent::Jeopardy), SeqCst);
            }
        };
        tokio::select! {
            biased;
            () = lives => panic!("client {number} lost its session"),
            () = self.works(&cell, number) => {}
        }
        cell.close().await.unwrap();
    }

    async fn works(&self, cell: &Cell, number: usize) {
        let belongings = Belongings::take(cell, number).await;
        self.together.wait().await;
        let all = self.unharmed.len();
        let shared =
            open(cell, &format!("/ls/local/shared-{}", number % all.div_ceil(CLIENTS_A_SHARED_LOCK))).await;
        let neighbours = open(cell, &own_lock((number + 1) % all)).await;
        while !self.stop.load(SeqCst) {
            let epoch = cell.epoch();
            belongings.check(cell, number).await;
            assert_eq!(neighbours.try_acquire(LockMode::Exclusive).await.err(), Some(Error::LockHeld));
            self.unharmed[number].store(epoch.0, SeqCst);
            self.round(&shared).await;
            tokio::time::sleep(self.rest).await;
        }
        self.together.wait().await;
        belongings.check(cell, number).await;
        self.together.wait().await;
        belongings.give_back().await;
    }

    /// Counts one more in the file whose lock it takes, and in the store.
    async fn round(&self, shared: &Node) {
        let guard = shared.acquire(LockMode::Exclusive).await.unwrap();
        let (token, sequencer) = (guard.token(), guard.sequencer());
        {
            let mut store = self.store.lock().unwrap();
            assert!(store.newest(sequencer) < token, "tokens grow");
            store.write(sequencer).unwrap();
        }
        let (count, _) = shared.contents().await.unwrap();
        let count: u64 = std::str::from_utf8(&count).unwrap().parse().unwrap();
        shared.set((count + 1).to_string()).await.unwrap();
        {
            let mut store = self.store.lock().unwrap();
            assert_eq!(store.newest(sequencer), token, "two held {sequencer} at once");
            store.write(sequencer).unwrap();
        }
        guard.release().await.unwrap();
        self.rounds.fetch_add(1, SeqCst);
    }

    /// The epoch in which everybody has found all that is its own, or a later one.
    fn epoch(&self) -> u64 {
        self.unharmed.iter().map(|epoch| epoch.load(SeqCst)).min().unwrap()
    }
}

impl Clients {
    /// Starts as many clients; returns when each has what is its own and has been round once.
    fn start(five: &Five, clients: usize, rest: Duration) -> Clients {
        let fleet = Arc::new(Fleet {
            endpoints: five.addresses(),
            rest,
            store: Mutex::default(),
            together: Barrier::new(clients),
            stop: AtomicBool::default(),
            unharmed: (0..clients).map(|_| AtomicU64::default()).collect(),
            rounds: AtomicU64::default(),
            jeopardies: AtomicU64::default(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let shared = Arc::clone(&fleet);
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let mut all = JoinSet::new();
                for number in 0..clients {
                    let fleet = Arc::clone(&shared);
                    all.spawn(async move { fleet.client(number).await });
                }
                while let Some(ended) = all.join_next().await {
                    ended.unwrap();
                }
            });
        });
        let clients = Clients { fleet, thread };
        clients.unharmed_after(0);
        clients
    }

    /// Waits until everybody has found all that is its own in a later epoch; returns that.
    fn unharmed_after(&self, epoch: u64) -> u64 {
        wait_for("everybody to find what is its own", || {
            assert!(!self.thread.is_finished(), "a client has failed: see above");
            Some(self.fleet.epoch()).filter(|now| *now > epoch)
        })
    }

    /// Lets everybody end, and checks that nothing was lost. Returns how often the shared locks were held, and
    /// how often a session was in jeopardy.
    fn stop(self, five: &Five) -> (u64, u64) {
        self.fleet.stop.store(true, SeqCst);
        self.thread.join().unwrap();
        let fleet = self.fleet;
        let (rounds, jeopardies) = (fleet.rounds.load(SeqCst), fleet.jeopardies.load(SeqCst));
        let locks = fleet.unharmed.len().div_ceil(CLIENTS_A_SHARED_LOCK);
        common::run(async {
            let cell = Cell::connect(five.addresses()).await.unwrap();
            let mut counted = 0;
            for lock in 0..locks {
                let (count, _) =
                    open(&cell, &format!("/ls/local/shared-{lock}")).await.contents().await.unwrap();
                counted += std::str::from_utf8(&count).unwrap().parse::<u64>().unwrap();
            }
            assert_eq!(counted, rounds, "whoever counted under a lock counted alone");
            let gone = cell.open(&ephemeral(0), OpenOptions::new()).await.err();
            assert!(matches!(gone, Some(Error::NotFound { .. })), "an ephemeral outlived its client");
            cell.close().await.unwrap();
        });
        (rounds, jeopardies)
    }
}

/// Kills the master every so often, until so many kills are `enough`.
fn check_fail_overs(lease: &str, clients: usize, every: Duration, enough: impl Fn(usize) -> bool) {
    let dir = tempfile::tempdir().unwrap();
    let mut five = Five::start_with(dir.path(), 5, &["--session-lease", lease]);
    // Together they want some eighty rounds a second, however many they are.
    let fleet = Clients::start(&five, clients, Duration::from_millis(12) * clients as u32);
    let mut epoch = fleet.fleet.epoch();
    let mut took = Vec::new();
    while !enough(took.len()) {
        let master = five.master();
        let killed_at = Instant::now();
        five.kill(master);
        // It comes back while the others elect, or after that.
        let early = took.len() % 2 == 1;
        if early {
            five.restart(master);
        }
        epoch = fleet.unharmed_after(epoch);
        took.push(killed_at.elapsed());
        if !early {
            five.restart(master);
        }
        std::thread::sleep(every.saturating_sub(killed_at.elapsed())); // Between one fault and the next.
    }
    let (rounds, jeopardies) = fleet.stop(&five);
    took.sort();
    eprintln!(
        "{clients} clients, {} masters killed, {rounds} rounds, {jeopardies} jeopardies; until all had found \
         their own again: median {:?}, worst {:?}",
        took.len(),
        took[took.len() / 2],
        took[took.len() - 1],
    );
}

#[test]
fn nobody_loses_anything_when_masters_are_killed() {
    check_fail_overs("12s", 40, Duration::from_secs(5), |kills| kills == 5);
}

#[test]
#[ignore = "ten minutes, two hundred clients"]
fn nobody_loses_anything_when_masters_are_killed_for_ten_minutes() {
    let begun = Instant::now();
    check_fail_overs("6s", 200, Duration::from_secs(8), |_| begun.elapsed() > Duration::from_secs(600));
}

#[test]
fn a_handover_under_load_puts_nobody_in_jeopardy() {
    let dir = tempfile::tempdir().unwrap();
    let five = Five::start_with(dir.path(), 5, &["--session-lease", "12s"]);
    let fleet = Clients::start(&five, 40, Duration::ZERO);
    let mut epoch = fleet.fleet.epoch();
    for _ in 0..20 {
        let master = five.replicas[five.master()].address.clone();
        common::run(transfer_mastership(&master, 0, Duration::from_secs(10))).unwrap();
        epoch = fleet.unharmed_after(epoch);
    }
    let (rounds, jeopardies) = fleet.stop(&five);
    assert_eq!(jeopardies, 0);
    eprintln!("40 clients, 20 handovers, {rounds} rounds");
}

#[test]
fn a_master_that_is_told_to_stop_hands_over_before_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut five = Five::start_with(dir.path(), 5, &["--session-lease", "12s"]);
    let fleet = Clients::start(&five, 20, Duration::from_millis(100));
    let mut epoch = fleet.fleet.epoch();
    for _ in 0..5 {
        let master = five.master();
        five.stop(master);
        let others = (0..5).filter(|other| *other != master);
        let others: Vec<String> = others.map(|other| five.replicas[other].address.clone()).collect();
        let status = five.view(&others.join(",")).expect("when it has gone there is another");
        assert!(status["epoch"].as_u64().unwrap() > epoch);
        epoch = fleet.unharmed_after(epoch);
        five.restart(master);
        five.settled();
    }
    let (_, jeopardies) = fleet.stop(&five);
    assert_eq!(jeopardies, 0);
}
