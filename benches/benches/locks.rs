//! Locks, and the watching of a file: Wombat beside etcd, ZooKeeper and Redlock, five nodes of each.
//! `cargo bench -p wombat-benches --bench locks
//!  [-- rounds <n> seconds <n> watchers <n> writes <n> share <n> spread <n> only <measure>]`
//!
//! All run on this machine at once with default settings, their data on one file system; peers that are not
//! installed (Debian's `etcd-server`, `zookeeper`, `redis-server`) are left out. Each round gives every system
//! its turn, so that a noisy minute hits all of them, and each measure has its rounds:
//!
//! - `many`: 64 clients, each with a lock of its own, take and give it back in a loop.
//! - `one`: one such client.
//! - `contended`: 16 clients take turns with one lock; each asks for it again as soon as it has given it back.
//!   A hand-off is counted when another client has the lock than before, and lasts from when the one before
//!   sent its first release until the other has heard that it has the lock.
//! - `watched`: 5,000 clients watch a file. From the sending of a write until the last of them has been told.
//!
//! Beside `many` and `one` there is an `echo`: two messages to and fro without any system, which is what this
//! machine's sockets and these clients allow.
//!
//! Clients are as lean as each protocol lets them be, and of the same make: see [`wombat_benches::clients`].
//! Each has a connection of its own (Redlock's five), `share` lets so many share one where the protocol has
//! that. They connect to the node that leads; `spread 1` lets those of etcd and ZooKeeper begin at all nodes in
//! turn.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore};
use tokio::task::{JoinSet, LocalSet};
use wombat_benches::clients::echo::Echo;
use wombat_benches::clients::{self, Locker, Service};
use wombat_benches::replicas::built;
use wombat_benches::systems::etcd::Etcd;
use wombat_benches::systems::redis::Redis;
use wombat_benches::systems::wombat::Wombat;
use wombat_benches::systems::zookeeper::ZooKeeper;
use wombat_benches::systems::{System, whole};
use wombat_benches::{Result, median, percentile, rate};

const ECHO: &str = "echo";
const NODES: usize = 5;
const ROUNDS: usize = 5;
const SECONDS: usize = 3;
const MANY: usize = 64;
const CONTENDERS: usize = 16;
const WATCHERS: usize = 5_000;
/// How often the file is written in each round.
const WRITES: usize = 10;
/// Before each write: what a system still has to do after the last one is no part of it.
const QUIET: Duration = Duration::from_millis(200);
/// How many watchers are made at once.
const MADE_AT_ONCE: usize = 64;
/// What comes first of a round does not count.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long a round may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is measured, and what its figures mean.
struct Measure {
    name: &'static str,
    what: &'static str,
    figures: &'static [Figure],
}

struct Figure {
    name: &'static str,
    digits: usize,
    more_is_better: bool,
    /// How Wombat's median is to stand to that of its best peer.
    ratio: Option<f64>,
    goal: &'static str,
}

const MEASURES: [Measure; 4] = [
    Measure {
        name: "many",
        what: "64 clients, each with its own lock",
        figures: &[
            Figure { name: "pairs/s", digits: 0, more_is_better: true, ratio: Some(10.0), goal: "" },
            Figure { name: "median, ms", digits: 3, more_is_better: false, ratio: None, goal: "" },
        ],
    },
    Measure {
        name: "one",
        what: "one client, one lock",
        figures: &[
            Figure {
                name: "median of a pair, ms",
                digits: 3,
                more_is_better: false,
                ratio: Some(0.5),
                goal: "",
            },
            Figure { name: "99th percentile, ms", digits: 3, more_is_better: false, ratio: None, goal: "" },
        ],
    },
    Measure {
        name: "contended",
        what: "16 clients, one lock",
        figures: &[
            Figure {
                name: "hand-offs/s",
                digits: 0,
                more_is_better: true,
                ratio: None,
                goal: "goal ≥ 2,000",
            },
            Figure { name: "median, ms", digits: 3, more_is_better: false, ratio: Some(0.5), goal: "" },
            Figure { name: "99th percentile, ms", digits: 3, more_is_better: false, ratio: None, goal: "" },
        ],
    },
    Measure {
        name: "watched",
        what: "watchers of one file",
        figures: &[Figure {
            name: "until the last is told, ms",
            digits: 1,
            more_is_better: false,
            ratio: Some(0.5),
            goal: "",
        }],
    },
];

fn main() -> Result<()> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let mut systems = Systems::start(dir.path())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let only = argument("only");
    for measure in MEASURES {
        if only.as_ref().is_some_and(|only| only != measure.name) {
            continue;
        }
        let mut results: Vec<(&str, Vec<Vec<f64>>)> = Vec::new();
        // The first round only warms everything up: Java compiles while it runs.
        for round_number in 0..=number("rounds", ROUNDS) {
            for (place, service) in systems.services()?.into_iter().enumerate() {
                let name = service.name();
                if !takes_part(name, measure.name) {
                    continue;
                }
                let figures = LocalSet::new().block_on(&runtime, async {
                    let round = round(measure.name, Rc::clone(&service));
                    let figures = tokio::time::timeout(PATIENCE, round).await;
                    figures.map_err(|_| format!("{name} took too long"))?
                })?;
                if round_number == 0 {
                    results.push((name, vec![Vec::new(); figures.len()]));
                    continue;
                }
                results[place].1.iter_mut().zip(figures).for_each(|(all, one)| all.push(one));
            }
        }
        print(&measure, &results);
    }
    Ok(())
}

/// Redlock has no files. An echo knows of no other client; it comes last, and is nobody's peer.
fn takes_part(system: &str, measure: &str) -> bool {
    match system {
        "redlock" => measure != "watched",
        ECHO => matches!(measure, "many" | "one"),
        _ => true,
    }
}

/// The word after that one on the command line.
fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != name).nth(1)
}

/// The number after that word on the command line.
fn number(name: &str, usual: usize) -> usize {
    argument(name).and_then(|number| number.parse().ok()).unwrap_or(usual)
}

/// All that run.
struct Systems {
    wombat: Wombat,
    etcd: Option<Etcd>,
    zookeeper: Option<ZooKeeper>,
    redis: Option<Redis>,
    echo: Rc<Echo>,
}

impl Systems {
    fn start(dir: &Path) -> Result<Systems> {
        Ok(Systems {
            wombat: Wombat::start(&built(env!("CARGO_TARGET_TMPDIR"))?, dir, NODES)?,
            etcd: peer("etcd", || Etcd::start(dir, NODES)),
            zookeeper: peer("zookeeper", || ZooKeeper::start(dir, NODES)),
            redis: peer("redis", || Redis::start(dir, NODES)),
            echo: Rc::new(Echo::start()?),
        })
    }

    /// Each once it is whole, as clients see it that connect anew.
    fn services(&mut self) -> Result<Vec<Rc<dyn Service>>> {
        let share = number("share", 1);
        let leader = whole(&mut self.wombat)?;
        let master = &self.wombat.addresses()[leader];
        let mut all: Vec<Rc<dyn Service>> = vec![Rc::new(clients::wombat::Wombat::new(master, share))];
        if let Some(etcd) = &mut self.etcd {
            let members = begin_at(etcd, |etcd| etcd.addresses())?;
            all.push(Rc::new(clients::etcd::Etcd::new(&members, share)));
        }
        if let Some(zookeeper) = &mut self.zookeeper {
            let servers = begin_at(zookeeper, |zookeeper| zookeeper.addresses())?;
            all.push(Rc::new(clients::zookeeper::ZooKeeper::new(&servers)));
        }
        if let Some(redis) = &self.redis {
            all.push(Rc::new(clients::redlock::Redlock::new(redis.addresses(), share)));
        }
        all.push(Rc::clone(&self.echo) as Rc<dyn Service>);
        Ok(all)
    }
}

/// A system that may not be installed here, or is not wanted.
fn peer<T>(name: &str, start: impl FnOnce() -> Result<T>) -> Option<T> {
    if argument("without").is_some_and(|without| without.contains(name)) {
        return None;
    }
    start().inspect_err(|why| eprintln!("without {name}: {why}")).ok()
}

/// The nodes that clients connect to.
fn begin_at<S: System>(system: &mut S, addresses: impl FnOnce(&S) -> &[String]) -> Result<Vec<String>> {
    let leader = whole(system)?;
    let all = addresses(system);
    Ok(if number("spread", 0) > 0 { all.to_vec() } else { vec![all[leader].clone()] })
}

/// One round of a measure.
async fn round(measure: &str, service: Rc<dyn Service>) -> Result<Vec<f64>> {
    match measure {
        "many" => {
            let (rate, mut took) = alone(&*service, MANY).await?;
            Ok(vec![rate, percentile(&mut took, 50)])
        }
        "one" => {
            let (_, mut took) = alone(&*service, 1).await?;
            Ok(vec![percentile(&mut took, 50), percentile(&mut took, 99)])
        }
        "contended" => contended(&*service).await,
        _ => watched(service, number("watchers", WATCHERS)).await,
    }
}

fn duration() -> Duration {
    Duration::from_secs(number("seconds", SECONDS) as u64)
}

/// Each with its own lock. Returns how many pairs of acquire and release there were in a second, and how long
/// each took, in milliseconds.
async fn alone(service: &dyn Service, clients: usize) -> Result<(f64, Vec<f64>)> {
    let mut lockers = Vec::new();
    for number in 0..clients {
        lockers.push(service.alone(number).await?);
    }
    let counts_from = Instant::now() + WARM_UP;
    let until = counts_from + duration();
    let mut tasks = JoinSet::new();
    for locker in lockers {
        tasks.spawn_local(take_turns(locker, counts_from, until));
    }
    let mut took = Vec::new();
    while let Some(one) = tasks.join_next().await {
        took.extend(one??);
    }
    Ok((rate(took.len(), duration()), took))
}

async fn take_turns(mut locker: Box<dyn Locker>, counts_from: Instant, until: Instant) -> Result<Vec<f64>> {
    let mut took = Vec::new();
    loop {
        let begun = Instant::now();
        if begun >= until {
            break;
        }
        locker.acquire().await?;
        locker.release().await?;
        if begun >= counts_from {
            took.push(begun.elapsed().as_secs_f64() * 1000.0);
        }
    }
    locker.close().await?;
    Ok(took)
}

/// The lock that all contend for, as its clients see it together.
#[derive(Default)]
struct Contended {
    held: Cell<bool>,
    /// Who had it last, and when it began to give it back.
    released: Cell<Option<(usize, Instant)>>,
    /// How long each hand-off took, in milliseconds.
    hand_offs: RefCell<Vec<f64>>,
}

impl Contended {
    fn acquired(&self, by: usize, counts_from: Instant) -> Result<()> {
        if self.held.replace(true) {
            return Err("two have the lock".into());
        }
        if let Some((_, at)) = self.released.get().filter(|(last, _)| *last != by) {
            self.released.set(None);
            if at >= counts_from {
                self.hand_offs.borrow_mut().push(at.elapsed().as_secs_f64() * 1000.0);
            }
        }
        Ok(())
    }

    fn releases(&self, by: usize) {
        self.held.set(false);
        // One that had it several times in a row has kept the others waiting since the first.
        if self.released.get().is_none() {
            self.released.set(Some((by, Instant::now())));
        }
    }
}

/// All with one lock. Returns the hand-offs in a second, and the median and the 99th percentile of how long
/// they took, in milliseconds.
async fn contended(service: &dyn Service) -> Result<Vec<f64>> {
    let mut lockers = Vec::new();
    for number in 0..CONTENDERS {
        lockers.push(service.contender(number).await?);
    }
    let counts_from = Instant::now() + WARM_UP;
    let until = counts_from + duration();
    let lock = Rc::new(Contended::default());
    let mut tasks = JoinSet::new();
    for (number, mut locker) in lockers.into_iter().enumerate() {
        let lock = Rc::clone(&lock);
        tasks.spawn_local(async move {
            while Instant::now() < until {
                locker.acquire().await?;
                lock.acquired(number, counts_from)?;
                lock.releases(number);
                locker.release().await?;
            }
            locker.close().await
        });
    }
    while let Some(one) = tasks.join_next().await {
        one??;
    }
    let mut took = lock.hand_offs.take();
    Ok(vec![rate(took.len(), duration()), percentile(&mut took, 50), percentile(&mut took, 99)])
}

/// How far the watchers are, all together.
#[derive(Default)]
struct Audience {
    armed: Cell<usize>,
    told: Cell<usize>,
    changed: Notify,
}

impl Audience {
    async fn until(&self, count: &Cell<usize>, wanted: usize) {
        while count.get() < wanted {
            self.changed.notified().await;
        }
    }

    fn count(&self, count: &Cell<usize>, of: usize) {
        count.set(count.get() + 1);
        if count.get().is_multiple_of(of) {
            self.changed.notify_one();
        }
    }
}

/// Returns the median time until the last of so many watchers has been told of a write, in milliseconds.
async fn watched(service: Rc<dyn Service>, watchers: usize) -> Result<Vec<f64>> {
    let writes = number("writes", WRITES);
    let mut writer = service.writer().await?;
    let (audience, room) = (Rc::new(Audience::default()), Rc::new(Semaphore::new(MADE_AT_ONCE)));
    let mut tasks = JoinSet::new();
    for number in 0..watchers {
        let (service, audience, room) = (Rc::clone(&service), Rc::clone(&audience), Rc::clone(&room));
        let watch = async move {
            let made = room.acquire().await?;
            let mut watcher = service.watcher(number).await?;
            drop(made);
            for _ in 0..writes {
                watcher.arm().await?;
                audience.count(&audience.armed, watchers);
                watcher.told().await?;
                audience.count(&audience.told, watchers);
            }
            watcher.close().await
        };
        tasks.spawn_local(async { watch.await.inspect_err(|error| eprintln!("a watcher: {error}")) });
    }
    let mut took = Vec::new();
    for write in 1..=writes {
        audience.until(&audience.armed, write * watchers).await;
        tokio::time::sleep(QUIET).await;
        let begun = Instant::now();
        writer.write().await?;
        audience.until(&audience.told, write * watchers).await;
        took.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    while let Some(one) = tasks.join_next().await {
        one??;
    }
    Ok(vec![median(took)])
}

fn print(measure: &Measure, results: &[(&str, Vec<Vec<f64>>)]) {
    println!("{}", measure.what);
    for (place, figure) in measure.figures.iter().enumerate() {
        println!("  {:28}{:>10}{:>10}{:>10}   {}", figure.name, "median", "least", "most", figure.goal);
        for (name, figures) in results {
            let mut all = figures[place].clone();
            all.sort_by(f64::total_cmp);
            let (least, most) = (all[0], all[all.len() - 1]);
            let digits = figure.digits;
            println!("    {name:26}{:>10.digits$}{least:>10.digits$}{most:>10.digits$}", median(all));
        }
        let systems = results.iter().filter(|(name, _)| *name != ECHO);
        let mut medians = systems.map(|(_, figures)| median(figures[place].clone()));
        let (Some(own), Some(goal)) = (medians.next(), figure.ratio) else { continue };
        let best =
            medians.reduce(|one, other| if figure.more_is_better { one.max(other) } else { one.min(other) });
        if let Some(best) = best {
            let sign = if figure.more_is_better { '≥' } else { '≤' };
            println!("    {:26}{:>10.2}   (goal {sign} {goal})", "wombat to the best peer", own / best);
        }
    }
}
