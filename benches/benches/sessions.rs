//! 90,000 sessions on one master, each with its KeepAlive pending, and what a fail-over of them costs.
//! `cargo bench -p wombat-benches --bench sessions
//!  [-- seconds <n> sessions <n> replicas <n> connections <n> caches <0 or 1>]`
//!
//! Three real replicas with default settings and the clients share this machine. A client is a light one, and
//! many of them share a connection: one process may not have so many sockets here. Each computes its own view
//! of its lease as SPEC §3 says; it is late if that ends before it is extended. Then the master dies by
//! `kill -9`, and all sessions are resumed with the next one at once, which clients of their own would spread
//! over some time.
//!
//! With `caches 1` each has a file cached, which all of them share, and looks at it between any two KeepAlives:
//! those are answered before the cache lease ends, not the session lease.

use std::time::{Duration, Instant};
use wombat_benches::load::{CachedFile, Load, Plan, Tally};
use wombat_benches::process::{processor_time, resident};
use wombat_benches::replicas::{CELL, Replicas, built};
use wombat_benches::systems::{Writing, wombat};
use wombat_benches::{Result, arguments, until};
use wombat_client::{Create, OpenOptions};

const SESSIONS: usize = 90_000;
const REPLICAS: usize = 3;
const CONNECTIONS: usize = 128;
/// How long the sessions are kept alive.
const SECONDS: usize = 60;
/// A session lease, and a little more: how long the sessions are looked at after the fail-over.
const AFTERMATH: Duration = Duration::from_secs(15);

fn main() -> Result<()> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let wombat = built(env!("CARGO_TARGET_TMPDIR"))?;
    let mut cell = Replicas::start(&wombat, dir.path(), arguments::number("replicas", REPLICAS))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, measure(&mut cell))
}

async fn measure(cell: &mut Replicas) -> Result<()> {
    let sessions = arguments::number("sessions", SESSIONS);
    let master = cell.master().await;
    let number = cell.number_of(&master.master).ok_or("a master of another cell")?;
    let pid = cell.pid(number).ok_or("a master that does not run")?;
    let memory = resident(pid)?;

    let (begun, used) = (Instant::now(), processor_time(Some(pid))?);
    let caches = arguments::number("caches", 0) > 0;
    let connections = arguments::number("connections", CONNECTIONS);
    let plan = Plan { sessions, connections, cached: if caches { Some(file(cell).await?) } else { None } };
    let load = Load::start(cell.addresses(), plan);
    until("all sessions are there", || load.tally().created == sessions).await?;
    if caches {
        load.cached().await?;
    }
    let took = begun.elapsed();
    line(&format!("{sessions} sessions created, s"), took.as_secs_f64(), "");
    line("  master's processor, share of one", share(used, processor_time(Some(pid))?, took), "");

    let duration = Duration::from_secs(arguments::number("seconds", SECONDS) as u64);
    load.forget_least_left();
    let before = (load.tally(), processor_time(Some(pid))?, processor_time(None)?);
    tokio::time::sleep(duration).await;
    let tally = load.tally();
    let answered = (tally.kept_alive - before.0.kept_alive) as f64;
    line(
        &format!("KeepAlives answered, 1/s, for {} s", duration.as_secs()),
        answered / duration.as_secs_f64(),
        "",
    );
    line("  master's processor, share of one", share(before.1, processor_time(Some(pid))?, duration), "");
    line("  clients' processor, share of one", share(before.2, processor_time(None)?, duration), "");
    line("  late sessions", late(&load, tally), "(goal 0)");
    line("  epochs that passed", (load.epoch() - master.epoch) as f64, "(goal 0)");
    if answered > 0.0 {
        line("  least left of a lease view, s", tally.least_left.as_secs_f64(), "");
    }
    if caches {
        line("  cache lease, s", tally.cache_lease.as_secs_f64(), "");
        line("  sessions that cannot use their cache now", (sessions - load.usable()) as f64, "(goal 0)");
    }
    let grown = resident(pid)?.saturating_sub(memory);
    line("master's memory, MiB", resident(pid)? as f64 / 1048576.0, "");
    line("  bytes for a session", grown as f64 / sessions as f64, "(goal ≤ 4096)");
    if cell.addresses().len() > 2 { fail_over(cell, number, &load, sessions).await } else { Ok(()) }
}

/// A file that is there.
async fn file(cell: &Replicas) -> Result<CachedFile> {
    let one = cell.connect(1).await?.remove(0);
    one.open("/ls/local/cached", OpenOptions::new().write().create(Create::May)).await?.close().await?;
    one.close().await?;
    Ok(CachedFile { path: format!("/ls/{CELL}/cached"), watched: false })
}

async fn fail_over(cell: &mut Replicas, number: usize, load: &Load, sessions: usize) -> Result<()> {
    until("all have been kept alive", || load.tally().safe == sessions).await?;
    let addresses = cell.addresses().to_vec();
    let writer = move || wombat::writer(&addresses).map_err(|error| error.to_string());
    let writing = Writing::start(tokio::task::spawn_blocking(writer).await??);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let used = processors(cell, number)?;
    load.forget_least_left();
    let begun = Instant::now();
    cell.kill(number)?;
    until("there is another master", || load.tally().safe < sessions).await?;
    let found = begun.elapsed();
    until("all sessions are safe", || load.tally().safe + load.tally().expired >= sessions).await?;
    let took = begun.elapsed();
    let master = cell.master().await;
    let next = cell.number_of(&master.master).ok_or("a master of another cell")?;
    let storm = processors(cell, number)?[next].saturating_sub(used[next]);
    until("the writer goes on", || writing.goes_on_after(begun + took)).await?;
    line("the master killed: until another one is found, s", found.as_secs_f64(), "");
    line("  from then until all sessions are safe, s", (took - found).as_secs_f64(), "");
    line("  processor time of the new master, s", storm.as_secs_f64(), "");
    line("  a writer's longest wait, s", writing.longest_gap(begun)?.as_secs_f64(), "");
    tokio::time::sleep(AFTERMATH).await;
    let tally = load.tally();
    line("  late sessions, from the beginning", late(load, tally), "(goal 0)");
    line("  least left of a lease view, s", tally.least_left.as_secs_f64(), "");
    line("  sessions that were lost", tally.expired as f64, "(goal 0)");
    let pid = cell.pid(next).ok_or("a master that does not run")?;
    line("  new master's memory, MiB", resident(pid)? as f64 / 1048576.0, "");
    Ok(())
}

/// The processor time of each replica but one.
fn processors(cell: &Replicas, without: usize) -> Result<Vec<Duration>> {
    let of = |number: usize| match cell.pid(number).filter(|_| number != without) {
        Some(pid) => processor_time(Some(pid)),
        None => Ok(Duration::ZERO),
    };
    (0..cell.addresses().len()).map(of).collect()
}

/// Sessions that were extended too late, or should have been extended by now.
fn late(load: &Load, tally: Tally) -> f64 {
    (tally.late + load.overdue()) as f64
}

fn share(before: Duration, after: Duration, of: Duration) -> f64 {
    after.saturating_sub(before).as_secs_f64() / of.as_secs_f64()
}

fn line(what: &str, figure: f64, goal: &str) {
    println!("{what:52}{figure:>12.2} {goal}");
}
