//! The coherent cache (P§2.7): what a cached read costs, and what a write costs that many have cached.
//! `cargo bench -p wombat-benches --bench cache
//!  [-- only <measure> rounds <n> seconds <n> sessions <n> writes <n> watchers <n> crowd <n> connections <n>]`
//!
//! Everything runs on this machine with default settings, five nodes of each system; peers that are not installed
//! are left out (`without` says which are not wanted). The clients of the crowds are light ones, of
//! [`wombat_benches::load`], on one thread: each drops what it is told to before it says so, keeps nothing that was
//! overtaken on its way, and uses nothing when its cache lease has ended. After each write everybody's cache is
//! looked into for something older.
//!
//! - `write`: a file that 10,000 live sessions have cached is written. How long the writer waits; beside it the
//!   same when nobody has it cached, each time just afterwards, with the same sessions and their KeepAlives. Every
//!   tenth time there is one more session, which is stopped, as by SIGSTOP, just before the write, and goes on
//!   after it: first with the others, then alone still to be waited for.
//! - `watched`: 15,000 clients watch a file, as many as one process here may have connections, and have it cached.
//!   From the sending of a write until the last of them has read what was written. Those of etcd are told what it
//!   is, those of ZooKeeper ask for it, those of Wombat drop what they have, are told, and ask for it. Each
//!   has a connection of its own, those of etcd and ZooKeeper to all nodes in turn.
//! - `crowd`: the same with 90,000 clients over 128 connections; ZooKeeper has no such clients.
//!
//! Rounds of `watched` and `crowd` give every system its turn. A master that others may depose for its silence
//! must not be silent for long: meanwhile a probe sees how long it takes to answer, and how much of its master
//! lease (300 ms) there always was.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;
use wombat_benches::arguments::{number, word};
use wombat_benches::clients::{self, Service, Writer};
use wombat_benches::load::{CachedFile, Load, Plan};
use wombat_benches::measures::{Figure, Measure, Results};
use wombat_benches::probe::{Probe, Seen};
use wombat_benches::replicas::{Replicas, built};
use wombat_benches::systems::{System, Systems, begin_at};
use wombat_benches::watching::{QUIET, watched};
use wombat_benches::{Result, median, percentile, until};
use wombat_proto::clock;

const NODES: usize = 5;
const ROUNDS: usize = 3;
/// How often the file is written that many have cached, and at which of these times one of them is stopped.
const WRITES: usize = 200;
const STOPPED_EVERY: usize = 10;
const SESSIONS: usize = 10_000;
const WATCHERS: usize = 15_000;
const CROWD: usize = 90_000;
const CONNECTIONS: usize = 128;
/// How often the file is written in each round that many watch.
const WATCHED_WRITES: usize = 5;
/// How long a round may take.
const PATIENCE: Duration = Duration::from_secs(600);

const WATCHED: [Measure; 2] = [
    Measure { name: "watched", what: "watchers of one file, each with a connection", figures: &FIGURES },
    Measure { name: "crowd", what: "watchers of one file, over 128 connections", figures: &FIGURES },
];

const FIGURES: [Figure; 2] = [
    Figure {
        name: "until the last has read, ms",
        digits: 0,
        more_is_better: false,
        ratio: Some(1.0),
        goal: "",
    },
    Figure { name: "for each watcher, µs", digits: 1, more_is_better: false, ratio: None, goal: "" },
];

fn main() -> Result<()> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let only = word("only");
    let wanted = |name: &str| only.as_ref().is_none_or(|only| only == name);
    if wanted("write") {
        LocalSet::new().block_on(&runtime, write(dir.path()))?;
    }
    let measures: Vec<Measure> = WATCHED.into_iter().filter(|measure| wanted(measure.name)).collect();
    if measures.is_empty() {
        return Ok(());
    }
    let mut systems = Systems::start(env!("CARGO_TARGET_TMPDIR"), dir.path(), NODES)?;
    for measure in measures {
        let mut results = Results::default();
        for _ in 0..number("rounds", ROUNDS) {
            round(&measure, &mut systems, &runtime, &mut results)?;
        }
        results.print(&measure);
    }
    Ok(())
}

/// The clients of a cell whose file is written and cached.
struct Cached {
    addresses: Vec<String>,
    writer: Box<dyn Writer>,
    /// The generation that the last write has made.
    written: u64,
}

impl Cached {
    async fn new(addresses: &[String], master: &str) -> Result<Cached> {
        let writer = clients::wombat::Wombat::new(master, 1).writer().await?;
        Ok(Cached { addresses: addresses.into(), writer, written: 0 })
    }

    /// Sessions that have it cached.
    async fn crowd(&mut self, sessions: usize, connections: usize, watched: bool) -> Result<Rc<Load>> {
        let cached = Some(CachedFile { path: clients::wombat::Wombat::watched(), watched });
        let crowd = Load::start(&self.addresses, Plan { sessions, connections, cached });
        crowd.cached().await?;
        self.written = crowd.tally().newest;
        Ok(crowd)
    }

    /// Writes it. Returns how long that took, in milliseconds, unless one of these sees something older after it.
    async fn write(&mut self, crowds: &[&Load]) -> Result<f64> {
        let begun = clock::now();
        self.writer.write().await?;
        let took = milliseconds(clock::now().since(begun));
        self.written += 1;
        match crowds.iter().map(|crowd| crowd.older_than(self.written)).sum() {
            0 => Ok(took),
            stale => Err(format!("{stale} sessions may still read what was there before the write").into()),
        }
    }
}

async fn write(dir: &Path) -> Result<()> {
    let cell = Replicas::start(&built(env!("CARGO_TARGET_TMPDIR"))?, &dir.join("written"), NODES)?;
    let status = cell.master().await;
    let mut file = Cached::new(cell.addresses(), &status.master).await?;
    let sessions = number("sessions", SESSIONS);
    let crowd = file.crowd(sessions, number("connections", CONNECTIONS), false).await?;
    let one = file.crowd(1, 1, false).await?;
    let (epoch, probe) = (crowd.epoch(), Probe::start(&status.master));
    let (mut by_all, mut by_nobody, mut by_stopped, mut by_gone) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for write in 0..number("writes", WRITES) {
        cached_again(&[&crowd, &one]).await?;
        by_all.push(file.write(&[&crowd, &one]).await?);
        tokio::time::sleep(QUIET).await;
        by_nobody.push(file.write(&[&crowd, &one]).await?);
        if write % STOPPED_EVERY == 0 {
            cached_again(&[&crowd, &one]).await?;
            one.stop();
            by_stopped.push(file.write(&[&crowd, &one]).await?);
            cached_again(&[&crowd]).await?;
            by_gone.push(file.write(&[&crowd, &one]).await?);
            one.go_on();
        }
    }
    println!("a write of a file that {sessions} sessions may have cached, ms");
    println!("  {:44}{:>10}{:>10}{:>10}", "", "median", "99th", "most");
    tell("all have it cached", &mut by_all);
    tell("nobody has it cached", &mut by_nobody);
    tell("one of them has just been stopped", &mut by_stopped);
    tell("one of them was stopped before the last write", &mut by_gone);
    tell_calm(&crowd, epoch, probe.stop()?);
    Ok(())
}

/// Waits until all have it cached again, and the cell has come to rest.
async fn cached_again(crowds: &[&Load]) -> Result<()> {
    for crowd in crowds {
        crowd.cached().await?;
    }
    tokio::time::sleep(QUIET).await;
    Ok(())
}

/// Whether the crowd had its leases in time, and the master its own.
fn tell_calm(crowd: &Load, epoch: u64, seen: Seen) {
    let tally = crowd.tally();
    let (late, longest_answer) = (tally.late + crowd.overdue(), seen.longest_answer);
    println!("  cache lease granted: {:.1} s at most", tally.cache_lease.as_secs_f64());
    println!("  late: {late}; lost: {}; fail-overs: {} (goals 0)", tally.expired, crowd.epoch() - epoch);
    println!("  longest answer of the master: {longest_answer:.0} ms");
    println!("  least left of the master lease: {} ms", seen.least_master_lease);
}

fn tell(what: &str, took: &mut [f64]) {
    let (median, most) = (percentile(took, 50), took.last().copied().unwrap_or_default());
    let all = [median, percentile(took, 99), most];
    print!("  {what:44}");
    all.iter().for_each(|one| print!("{one:>10.2}"));
    println!();
}

/// Lets every system take its turn.
fn round(measure: &Measure, systems: &mut Systems, runtime: &Runtime, results: &mut Results) -> Result<()> {
    let shared = measure.name == "crowd";
    let watchers = if shared { number("crowd", CROWD) } else { number("watchers", WATCHERS) };
    let connections = if shared { number("connections", CONNECTIONS) } else { watchers };
    let mut note = |name: &str, took: f64| {
        results.add(name, &[took, took * 1000.0 / watchers as f64]);
    };
    let master = begin_at(&mut systems.wombat, false)?.remove(0);
    let addresses = systems.wombat.addresses();
    let own = told_and_cached(addresses, &master, watchers, connections);
    note("wombat", run(runtime, "wombat", own)?);
    let mut peers: Vec<Rc<dyn Service>> = Vec::new();
    if let Some(etcd) = &mut systems.etcd {
        let each = watchers.div_ceil(connections);
        peers.push(Rc::new(clients::etcd::Etcd::new(&begin_at(etcd, true)?, each)));
    }
    if let Some(zookeeper) = systems.zookeeper.as_mut().filter(|_| !shared) {
        peers.push(Rc::new(clients::zookeeper::ZooKeeper::new(&begin_at(zookeeper, true)?)));
    }
    for peer in peers {
        let watched = watched(Rc::clone(&peer), watchers, number("writes", WATCHED_WRITES));
        let known = run(runtime, peer.name(), watched)?;
        note(peer.name(), median(known.iter().map(|known| known.read).collect()));
    }
    Ok(())
}

fn run<T>(runtime: &Runtime, name: &str, round: impl Future<Output = Result<T>>) -> Result<T> {
    let within = async { tokio::time::timeout(PATIENCE, round).await };
    LocalSet::new().block_on(runtime, within).map_err(|_| format!("{name} took too long"))?
}

/// Returns the median time until the last of so many sessions has read what was written, in milliseconds.
async fn told_and_cached(
    addresses: &[String],
    master: &str,
    sessions: usize,
    connections: usize,
) -> Result<f64> {
    let mut file = Cached::new(addresses, master).await?;
    let crowd = file.crowd(sessions, connections, true).await?;
    let (epoch, probe) = (crowd.epoch(), Probe::start(master));
    let (mut answered, mut read) = (Vec::new(), Vec::new());
    for _ in 0..number("writes", WATCHED_WRITES) {
        cached_again(&[&crowd]).await?;
        let begun = clock::now();
        answered.push(file.write(&[&crowd]).await?);
        let written = file.written;
        let all = || crowd.tally().newest == written && crowd.tally().have_newest == sessions;
        until("all have read what was written", all).await?;
        read.push(milliseconds(crowd.tally().newest_read.since(begun)));
    }
    println!("wombat's {sessions} sessions: the writer waited {:.0} ms (median)", median(answered));
    tell_calm(&crowd, epoch, probe.stop()?);
    crowd.end();
    until("all sessions have ended", || crowd.tally().ended + crowd.tally().expired == sessions).await?;
    Ok(median(read))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
