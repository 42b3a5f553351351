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
//! Beside them are what this machine allows without any system. `echo`: a thread that sends back what it gets, or
//! tells everybody of a write; two messages to and fro, or five thousand and what the clients say next. `echo,
//! synced`: the same for one client, where each answer waits until three of five threads have written and synced a
//! file over zeros, all at once, as five replicas do that are no network apart.
//!
//! Clients are as lean as each protocol lets them be, and of the same make: see [`wombat_benches::clients`].
//! Each has a connection of its own (Redlock's five), `share` lets so many share one where the protocol has
//! that. They connect to the node that leads; `spread 1` lets those of etcd and ZooKeeper begin at all nodes in
//! turn.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::{JoinSet, LocalSet};
use wombat_benches::arguments::{number, word};
use wombat_benches::clients::echo::Echo;
use wombat_benches::clients::{self, Locker, Service};
use wombat_benches::measures::{Figure, Measure, Results, YARDSTICK, YARDSTICK_SYNCED};
use wombat_benches::systems::redis::Redis;
use wombat_benches::systems::{Systems, begin_at, peer};
use wombat_benches::turns::{WARM_UP, in_a_loop};
use wombat_benches::watching::watched;
use wombat_benches::{Result, median, percentile, rate};

const NODES: usize = 5;
const ROUNDS: usize = 5;
const SECONDS: usize = 3;
const MANY: usize = 64;
const CONTENDERS: usize = 16;
const WATCHERS: usize = 5_000;
/// How often the file is written in each round.
const WRITES: usize = 10;
/// How long a round may take.
const PATIENCE: Duration = Duration::from_secs(120);

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
    let mut all = All::start(dir.path())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let only = word("only");
    for measure in MEASURES {
        if only.as_ref().is_some_and(|only| only != measure.name) {
            continue;
        }
        let mut results = Results::default();
        // The first round only warms everything up: Java compiles while it runs.
        for round_number in 0..=number("rounds", ROUNDS) {
            for service in all.services()? {
                let name = service.name();
                if !takes_part(name, measure.name) {
                    continue;
                }
                let figures = LocalSet::new().block_on(&runtime, async {
                    let round = round(measure.name, Rc::clone(&service));
                    let figures = tokio::time::timeout(PATIENCE, round).await;
                    figures.map_err(|_| format!("{name} took too long"))?
                })?;
                if round_number > 0 {
                    results.add(name, &figures);
                }
            }
        }
        results.print(&measure);
    }
    Ok(())
}

/// Redlock has no files. An echo knows of no other client.
fn takes_part(system: &str, measure: &str) -> bool {
    match system {
        "redlock" => measure != "watched",
        YARDSTICK => measure != "contended",
        YARDSTICK_SYNCED => measure == "one",
        _ => true,
    }
}

/// All that run.
struct All {
    systems: Systems,
    redis: Option<Redis>,
    yardsticks: [Rc<Echo>; 2],
}

impl All {
    fn start(dir: &Path) -> Result<All> {
        Ok(All {
            systems: Systems::start(env!("CARGO_TARGET_TMPDIR"), dir, NODES)?,
            redis: peer("redis", || Redis::start(dir, NODES)),
            yardsticks: [Rc::new(Echo::start()?), Rc::new(Echo::start_synced(dir, NODES)?)],
        })
    }

    /// Each once it is whole, as clients see it that connect anew.
    fn services(&mut self) -> Result<Vec<Rc<dyn Service>>> {
        let (share, spread) = (number("share", 1), number("spread", 0) > 0);
        let Systems { wombat, etcd, zookeeper } = &mut self.systems;
        let master = &begin_at(wombat, false)?[0];
        let mut all: Vec<Rc<dyn Service>> = vec![Rc::new(clients::wombat::Wombat::new(master, share))];
        if let Some(etcd) = etcd {
            all.push(Rc::new(clients::etcd::Etcd::new(&begin_at(etcd, spread)?, share)));
        }
        if let Some(zookeeper) = zookeeper {
            all.push(Rc::new(clients::zookeeper::ZooKeeper::new(&begin_at(zookeeper, spread)?)));
        }
        if let Some(redis) = &self.redis {
            all.push(Rc::new(clients::redlock::Redlock::new(redis.addresses(), share)));
        }
        all.extend(self.yardsticks.iter().map(|echo| Rc::clone(echo) as Rc<dyn Service>));
        Ok(all)
    }
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
        _ => {
            let known = watched(service, number("watchers", WATCHERS), number("writes", WRITES)).await?;
            Ok(vec![median(known.iter().map(|known| known.told).collect())])
        }
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
    let pair = async |locker: &mut Box<dyn Locker>| {
        locker.acquire().await?;
        locker.release().await
    };
    let (rate, took, lockers) = in_a_loop(lockers, duration(), pair).await?;
    for locker in lockers {
        locker.close().await?;
    }
    Ok((rate, took))
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
