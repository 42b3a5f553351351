//! A cell of five real processes over loopback: durable writes of 64 clients, and a replica that comes back a
//! million entries behind. `cargo bench -p wombat-benches --bench five_replicas [-- behind <entries>]`
//!
//! All five, their five logs and the clients share this one machine and its one disk.

use bytes::Bytes;
use std::path::Path;
use std::time::{Duration, Instant};
use wombat_benches::replicas::{Replicas, built};
use wombat_benches::{Result, median, percentile, rate, raw_syncs};
use wombat_client::{Cell, Create, OpenOptions, replica_status};

const REPLICAS: usize = 5;
const CLIENTS: usize = 64;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(3);
/// Bytes of a file's contents.
const CONTENTS: usize = 100;
const BEHIND: u64 = 1_000_000;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let behind = arguments.iter().position(|argument| argument == "behind");
    let behind = behind.and_then(|place| arguments.get(place + 1)?.parse().ok()).unwrap_or(BEHIND);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let mut five = Replicas::start(&built(env!("CARGO_TARGET_TMPDIR"))?, dir.path(), REPLICAS)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        throughput(&five, dir.path()).await?;
        catch_up(&mut five, behind).await
    })
}

async fn throughput(five: &Replicas, dir: &Path) -> Result<()> {
    five.master().await;
    let cells = five.connect(CLIENTS).await?;
    write_for(&cells, 1, ROUND).await?; // Everything warm.
    let (mut raw, mut rates, mut medians, mut worst) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        raw.push(raw_syncs(dir, 4096, 2000)?);
        let mut latencies = write_for(&cells, 1, ROUND).await?;
        rates.push(rate(latencies.len(), ROUND));
        medians.push(percentile(&mut latencies, 50));
        worst.push(percentile(&mut latencies, 99));
    }
    println!("{:52}{:>10.0}/s", "fdatasync of the file system, one process", median(raw));
    println!("{:52}{:>10.0}/s (goal ≥ 20,000)", "writes, 64 clients with one in flight each", median(rates));
    println!("{:52}{:>9.2} ms", "  median", median(medians));
    println!("{:52}{:>9.2} ms", "  99th percentile", median(worst));
    Ok(())
}

async fn catch_up(five: &mut Replicas, behind: u64) -> Result<()> {
    let master = five.master().await;
    let lagging = five.addresses().iter().position(|at| *at != master.master).unwrap_or_default();
    let address = five.addresses()[lagging].clone();
    five.kill(lagging)?;
    let cells = five.connect(CLIENTS).await?;
    let from = five.master().await.chosen_slot;
    while five.master().await.chosen_slot < from + behind {
        write_for(&cells, 16, ROUND).await?;
    }
    let entries = five.master().await.chosen_slot - from;
    let mut alone = write_for(&cells, 1, ROUND).await?;
    let before = (alone.len(), percentile(&mut alone, 99));
    let begun = Instant::now();
    five.restart(lagging)?;
    let (mut latencies, mut took) = (Vec::new(), None);
    while took.is_none() {
        latencies.extend(write_for(&cells, 1, Duration::from_millis(500)).await?);
        let (behind, master) =
            (replica_status(&address, "", Duration::from_secs(1)).await, five.master().await);
        // It follows as closely as the others do.
        if behind.is_ok_and(|behind| behind.chosen_slot + 20_000 > master.chosen_slot) {
            took = Some(begun.elapsed());
        }
    }
    let took = took.unwrap_or_default().as_secs_f64();
    println!("{:52}{:>9.1} s", format!("a replica {entries} entries behind, until it follows"), took);
    println!("{:52}{:>9.2} ms", "  99th percentile of writes, without it", before.1);
    println!("{:52}{:>9.2} ms", "  99th percentile of writes, meanwhile", percentile(&mut latencies, 99));
    println!("{:52}{:>10.0}/s", "  writes, without it", rate(before.0, ROUND));
    println!("{:52}{:>10.0}/s", "  writes, meanwhile", latencies.len() as f64 / took);
    Ok(())
}

/// Lets every client write, with so many writes in flight each, for so long. Returns how long each took, in
/// milliseconds.
async fn write_for(cells: &[Cell], in_flight: usize, duration: Duration) -> Result<Vec<f64>> {
    let until = Instant::now() + duration;
    let mut tasks = Vec::new();
    for (client, cell) in cells.iter().enumerate() {
        for lane in 0..in_flight {
            let options = OpenOptions::new().write().create(Create::May).contents(vec![7; CONTENTS]);
            let node = cell.open(&format!("/ls/local/bench-{client}-{lane}"), options).await?;
            tasks.push(tokio::spawn(async move {
                let contents = Bytes::from(vec![7; CONTENTS]);
                let mut latencies = Vec::new();
                while Instant::now() < until {
                    let begun = Instant::now();
                    node.set(contents.clone()).await?;
                    latencies.push(begun.elapsed().as_secs_f64() * 1000.0);
                }
                node.close().await?;
                wombat_client::Result::Ok(latencies)
            }));
        }
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await??);
    }
    Ok(all)
}
