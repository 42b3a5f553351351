//! The coherent cache (P§2.7): what a cached read costs, and what a write costs that many have cached.
//! `cargo bench -p wombat-benches --bench cache
//!  [-- only <measure> rounds <n> sessions <n> writes <n> watchers <n> crowd <n> connections <n>]`
//!
//! Everything runs on this machine with default settings, five nodes of each system; peers that are not installed
//! are left out (`without` says which are not wanted). The clients of the crowds are light ones, of
//! [`wombat_benches::load`], on one thread: each drops what it is told to before it says so, keeps nothing that was
//! overtaken on its way, and uses nothing when its cache lease has ended. After each write everybody's cache is
//! looked into for something older.
//!
//! - `read`: one client of the library that has everything cached reads in a loop, on one thread or two. What a read
//!   takes at the median is told of batches of sixteen, between two readings of the processor's clock
//!   (CLOCK_MONOTONIC), which cost each read a sixteenth of one; its 99th percentile of reads by themselves, each
//!   with a whole reading of that clock in it. Beside it one reading of CLOCK_BOOTTIME, which every cached read
//!   takes to know that its lease lasts; and reads that ask a server: Wombat's master, etcd's leader (linearizable)
//!   and its members (serializable), ZooKeeper's servers, by lean clients, of which there are as many as each
//!   system likes best of 1, 16, 64 and 256.
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

mod crowd;
mod reads;
mod watchers;
mod writes;

use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;
use wombat_benches::Result;
use wombat_benches::arguments::{number, word};
use wombat_benches::measures::{Measure, Results};
use wombat_benches::systems::Systems;

const NODES: usize = 5;
const ROUNDS: usize = 3;
const CONNECTIONS: usize = 128;
/// How long a round may take.
const PATIENCE: Duration = Duration::from_secs(600);

fn main() -> Result<()> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let only = word("only");
    let wanted = |name: &str| only.as_ref().is_none_or(|only| only == name);
    if wanted("write") {
        run(&runtime, "write", writes::write(dir.path()))?;
    }
    let measures: Vec<Measure> = watchers::MEASURES.into_iter().filter(|one| wanted(one.name)).collect();
    if measures.is_empty() && !wanted("read") {
        return Ok(());
    }
    let mut systems = Systems::start(env!("CARGO_TARGET_TMPDIR"), dir.path(), NODES)?;
    if wanted("read") {
        reads::read(&mut systems, &runtime)?;
    }
    for measure in measures {
        let mut results = Results::default();
        for _ in 0..number("rounds", ROUNDS) {
            watchers::round(&measure, &mut systems, &runtime, &mut results)?;
        }
        results.print(&measure);
    }
    Ok(())
}

/// Runs a round, if it does not take too long.
fn run<T>(runtime: &Runtime, name: &str, round: impl Future<Output = Result<T>>) -> Result<T> {
    let within = async { tokio::time::timeout(PATIENCE, round).await };
    LocalSet::new().block_on(runtime, within).map_err(|_| format!("{name} took too long"))?
}
