//! The measure `read`.

use crate::{ROUNDS, run};
use std::hint::black_box;
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;
use wombat_benches::arguments::number;
use wombat_benches::clients::{self, Reader, Service};
use wombat_benches::measures::{Figure, Measure, Results};
use wombat_benches::systems::{System, Systems, begin_at};
use wombat_benches::turns::in_a_loop;
use wombat_benches::{Result, median, percentile};
use wombat_client::{Cell, Consistency, Create, Error, Node, OpenOptions};
use wombat_proto::clock;

/// For how long anybody reads.
const DURATION: Duration = Duration::from_millis(500);
/// How many reads are between two readings of the clock.
const BATCH: usize = 16;
/// How many lean clients there may be.
const CLIENTS: [usize; 4] = [1, 16, 64, 256];
/// Bytes of a file's contents.
const CONTENTS: usize = 100;
/// Files in the directory that is listed.
const CHILDREN: usize = 10;

/// What the client does, and what that is to reach.
const ROWS: [(&str, &str); 10] = [
    ("a reading of CLOCK_BOOTTIME", ""),
    (READ, "(goals ≥ 10,000,000 and ≤ 100)"),
    ("contents, to keep", ""),
    ("stat", ""),
    ("a listing of ten files", ""),
    ("an absence", ""),
    ("an open of a handle that was kept, and its close", ""),
    (SAME, ""),
    (OTHERS, ""),
    ("contents, asked of the master", ""),
];
const READ: &str = "contents, looked at";
const SAME: &str = "contents, by two threads, of the same file";
const OTHERS: &str = "contents, by two threads, each of its own";

const SYSTEMS: Measure = Measure {
    name: "read",
    what: "reads of a file, one cached and the others asked of servers",
    figures: &[
        Figure { name: "reads/s", digits: 0, more_is_better: true, ratio: None, goal: "" },
        Figure { name: "one client's median, µs", digits: 3, more_is_better: false, ratio: None, goal: "" },
    ],
};

/// How fast something is done.
#[derive(Clone, Copy)]
struct Speed {
    per_second: f64,
    /// Nanoseconds that one takes, at the median of batches.
    median: f64,
    /// The 99th percentile of those that were timed by themselves.
    alone: f64,
}

/// Measures and tells.
pub(crate) fn read(systems: &mut Systems, runtime: &Runtime) -> Result<()> {
    let client = Client::connect(systems.wombat.addresses())?;
    let (mut speeds, mut results) = (Vec::new(), Results::default());
    // The first round only warms everything up: Java compiles while it runs.
    for round in 0..=number("rounds", ROUNDS) {
        let own = client.speeds()?;
        let others = asked(systems, runtime)?;
        if round > 0 {
            results.add("wombat, cached", &[own[1].per_second, own[1].median / 1000.0]);
            others.iter().for_each(|(name, figures)| results.add(name, figures));
            speeds.push(own);
        }
    }
    print(&speeds);
    client.close()?;
    results.print(&SYSTEMS);
    Ok(())
}

fn print(rounds: &[[Speed; ROWS.len()]]) {
    println!("one client of the library");
    println!("  {:50}{:>12}{:>12}{:>12}", "", "1/s", "median, ns", "99th, ns");
    let of = |place: usize, figure: fn(&Speed) -> f64| {
        median(rounds.iter().map(|all| figure(&all[place])).collect())
    };
    for (place, (what, goal)) in ROWS.iter().enumerate() {
        let rate = of(place, |speed| speed.per_second);
        let (median, alone) = (of(place, |speed| speed.median), of(place, |speed| speed.alone));
        println!("  {what:50}{rate:>12.0}{median:>12.1}{alone:>12.0} {goal}");
    }
    let place = |what: &str| ROWS.iter().position(|(name, _)| *name == what).unwrap_or_default();
    for two in [SAME, OTHERS] {
        let ratios = rounds.iter().map(|all| all[place(two)].per_second / all[place(READ)].per_second);
        println!("  {:50}{:>12.2} (goal ≥ 1.8)", format!("{two}, to one"), median(ratios.collect()));
    }
}

/// A client of the library, whose session lives on a thread of its own.
struct Client {
    session: Handle,
    thread: JoinHandle<()>,
    stop: oneshot::Sender<()>,
    cell: Cell,
    files: [Node; 2],
    directory: Node,
}

impl Client {
    fn connect(addresses: &[String]) -> Result<Client> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let session = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || drop(runtime.block_on(stopped)));
        let (cell, files, directory) = session.block_on(async {
            let cell = Cell::connect(addresses.iter().cloned()).await?;
            let directory = OpenOptions::new().create(Create::May).directory();
            let directory = cell.open("/ls/local/read", directory).await?;
            let file = || OpenOptions::new().write().create(Create::May).contents(vec![7; CONTENTS]);
            for child in 0..CHILDREN {
                cell.open(&format!("/ls/local/read/{child}"), file()).await?.close().await?;
            }
            let files =
                [cell.open("/ls/local/read/0", file()).await?, cell.open("/ls/local/read/1", file()).await?];
            // Its handle is kept, since the cache knows of it.
            cell.open("/ls/local/read/2", OpenOptions::new()).await?.read().await?;
            wombat_client::Result::Ok((cell, files, directory))
        })?;
        Ok(Client { session, thread, stop, cell, files, directory })
    }

    /// What each of the rows reaches now.
    fn speeds(&self) -> Result<[Speed; ROWS.len()]> {
        let [file, other] = &self.files;
        let absent = async || match self.cell.open("/ls/local/read/absent", OpenOptions::new()).await {
            Err(Error::NotFound { .. }) => Ok(()),
            other => other.map(drop).and(Err(Error::AlreadyExists)),
        };
        let contents = async || file.contents().await.map(|read| _ = black_box(read));
        let from_master =
            async || file.at(Consistency::Master).contents().await.map(|read| _ = black_box(read));
        let listing = async || self.directory.list().await.map(|read| _ = black_box(read));
        let open = async || self.cell.open("/ls/local/read/2", OpenOptions::new()).await.map(drop);
        let stat = async || file.stat().await.map(|read| _ = black_box(read));
        let time = async || Ok(_ = black_box(clock::now()));
        Ok([
            self.speed(&[time])?,
            self.speed(&[looking_at(file)])?,
            self.speed(&[contents])?,
            self.speed(&[stat])?,
            self.speed(&[listing])?,
            self.speed(&[absent])?,
            self.speed(&[open])?,
            self.speed(&[looking_at(file), looking_at(file)])?,
            self.speed(&[looking_at(file), looking_at(other)])?,
            self.speed(&[from_master])?,
        ])
    }

    /// Does these again and again, each on a thread of its own.
    fn speed(&self, acts: &[impl AsyncFn() -> wombat_client::Result<()> + Sync]) -> Result<Speed> {
        let all = |batch, duration| {
            std::thread::scope(|scope| -> wombat_client::Result<Vec<f64>> {
                let turns =
                    acts.iter().map(|act| scope.spawn(move || self.again_and_again(act, batch, duration)));
                let turns: Vec<_> = turns.collect();
                let took = turns.into_iter().map(|turn| turn.join().expect("a reader panicked"));
                Ok(took.collect::<wombat_client::Result<Vec<_>>>()?.concat())
            })
        };
        let mut took = all(BATCH, DURATION)?;
        let per_second = took.len() as f64 / DURATION.as_secs_f64() * BATCH as f64;
        let median = percentile(&mut took, 50) / BATCH as f64;
        Ok(Speed { per_second, median, alone: percentile(&mut all(1, DURATION / 5)?, 99) })
    }

    /// Returns how long each batch took, in nanoseconds.
    fn again_and_again(
        &self,
        act: &impl AsyncFn() -> wombat_client::Result<()>,
        batch: usize,
        duration: Duration,
    ) -> wombat_client::Result<Vec<f64>> {
        self.session.block_on(async {
            act().await?;
            let mut took = Vec::with_capacity(1 << 20);
            let begun = Instant::now();
            let mut last = begun;
            while last - begun < duration {
                for _ in 0..batch {
                    act().await?;
                }
                let now = Instant::now();
                took.push((now - last).as_nanos() as f64);
                last = now;
            }
            Ok(took)
        })
    }

    fn close(self) -> Result<()> {
        let stats = self.cell.cache_stats();
        println!("  {} times from the cache, {} times from the cell", stats.hits, stats.misses);
        self.session.block_on(self.cell.close())?;
        drop((self.files, self.directory, self.stop));
        self.thread.join().map_err(|_| "the session's thread panicked".into())
    }
}

fn looking_at(file: &Node) -> impl AsyncFn() -> wombat_client::Result<()> + Sync {
    async move || {
        let reading = file.read().await?;
        black_box(&reading[..]);
        Ok(())
    }
}

/// What lean clients reach who ask servers for what they read: reads in a second, of as many as are best, and the
/// median of one by itself, in microseconds.
fn asked(systems: &mut Systems, runtime: &Runtime) -> Result<Vec<(&'static str, [f64; 2])>> {
    let Systems { wombat, etcd, zookeeper } = systems;
    let master = &begin_at(wombat, false)?[0];
    let mut services: Vec<(&str, Rc<dyn Service>)> =
        vec![("wombat, asked", Rc::new(clients::wombat::Wombat::new(master, 1)))];
    if let Some(etcd) = etcd {
        let (leader, members) = (begin_at(etcd, false)?, begin_at(etcd, true)?);
        services.push(("etcd, linearizable", Rc::new(clients::etcd::Etcd::new(&leader, 1))));
        services.push(("etcd, serializable", Rc::new(clients::etcd::Etcd::serializable(&members, 1))));
    }
    if let Some(zookeeper) = zookeeper {
        let servers = begin_at(zookeeper, true)?;
        services.push(("zookeeper, local", Rc::new(clients::zookeeper::ZooKeeper::new(&servers))));
    }
    let figures = |(name, service)| Ok((name, run(runtime, name, asked_of(service))?));
    services.into_iter().map(figures).collect()
}

async fn asked_of(service: Rc<dyn Service>) -> Result<[f64; 2]> {
    service.writer().await?.write().await?;
    let (mut best, mut alone) = (0.0_f64, 0.0);
    for clients in CLIENTS {
        let mut readers = Vec::new();
        for number in 0..clients {
            readers.push(service.reader(number).await?);
        }
        let read = async |reader: &mut Box<dyn Reader>| reader.read().await;
        let (rate, mut took, readers) = in_a_loop(readers, DURATION, read).await?;
        best = best.max(rate);
        if clients == 1 {
            alone = percentile(&mut took, 50) * 1000.0;
        }
        for reader in readers {
            reader.close().await?;
        }
    }
    Ok([best, alone])
}
