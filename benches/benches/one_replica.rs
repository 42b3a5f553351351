//! A cell of one over loopback, through the client library: `cargo bench -p wombat-benches`.
//!
//! Rounds of the machine's own fdatasync rate and of Wombat's figures alternate, so that a noisy minute hits
//! both; what counts are medians and their ratios.

use bytes::Bytes;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use wombat_benches::replicas::built;
use wombat_benches::{Result, median, rate, raw_syncs};
use wombat_client::{Cell, CellName, Create, Node, OpenOptions};
use wombat_server::{Config, Server};

const ROUNDS: usize = 5;
const IN_FLIGHT: usize = 256;
/// Bytes of a file's contents.
const CONTENTS: usize = 100;
/// Bytes that one write of so many contents takes in the log: record header, command, padding.
const RECORD: usize = 256;

fn main() -> Result<()> {
    // On the same file system as the build, which is a real disk where /tmp may not be one.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let mut config = Config::new(CellName::parse("bench")?, dir.path().join("cell"));
    config.listen = "127.0.0.1:0".into();
    let server = Server::start(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(rates(&server, dir.path()))?;
    server.stop()?;
    let wombat = built(env!("CARGO_TARGET_TMPDIR"))?;
    readiness(&wombat)?;
    memory(&wombat, dir.path())
}

async fn rates(server: &Server, dir: &Path) -> Result<()> {
    let cell = Cell::connect([server.address().to_string()]).await?;
    let mut raw = Vec::new();
    let (mut write, mut writes, mut read, mut reads) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        raw.push(raw_syncs(dir, RECORD, 4000)?);
        write.push(in_flight(&cell, 1, 4000, true).await?);
        writes.push(in_flight(&cell, IN_FLIGHT, 200_000, true).await?);
        read.push(in_flight(&cell, 1, 20_000, false).await?);
        reads.push(in_flight(&cell, IN_FLIGHT, 400_000, false).await?);
    }
    let ratios = write.iter().zip(&raw).map(|(write, raw)| write / raw).collect();
    println!("{:44}{:>12.0}/s", "fdatasync of the file system", median(raw));
    println!("{:44}{:>12.0}/s", "writes, one client, one in flight", median(write));
    println!("{:44}{:>13.2}   (goal ≥ 0.5)", "  ratio to fdatasync", median(ratios));
    println!("{:44}{:>12.0}/s (goal ≥ 50,000)", "writes, 256 in flight", median(writes));
    println!("{:44}{:>12.0}/s", "reads, one in flight", median(read));
    println!("{:44}{:>12.0}/s (goal ≥ 150,000)", "reads, 256 in flight", median(reads));
    Ok(cell.close().await?)
}

/// So many operations, with so many callers at once on one session.
async fn in_flight(cell: &Cell, callers: usize, operations: usize, writes: bool) -> Result<f64> {
    let options = || OpenOptions::new().write().create(Create::May).contents(vec![7; CONTENTS]);
    let mut nodes = Vec::new();
    for caller in 0..callers {
        nodes.push(cell.open(&format!("/ls/local/bench-{caller}"), options()).await?);
    }
    let begun = Instant::now();
    let each = operations / callers;
    let tasks: Vec<_> = nodes.into_iter().map(|node| tokio::spawn(repeat(node, each, writes))).collect();
    for task in tasks {
        task.await??;
    }
    Ok(rate(each * callers, begun.elapsed()))
}

async fn repeat(node: Node, operations: usize, writes: bool) -> wombat_client::Result<()> {
    let contents = Bytes::from(vec![7; CONTENTS]);
    for _ in 0..operations {
        if writes {
            node.set(contents.clone()).await?;
        } else {
            node.contents().await?;
        }
    }
    Ok(())
}

/// How long `wombat dev` takes from its start until a command in it has begun and ended.
fn readiness(wombat: &Path) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..21 {
        let begun = Instant::now();
        if !Command::new(wombat).args(["dev", "--", "true"]).status()?.success() {
            return Err("wombat dev failed".into());
        }
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    println!("{:44}{:>13.0} ms (goal ≤ 300)", "wombat dev -- true, start to end", median(times));
    Ok(())
}

/// The resident memory of a server that has nothing to do.
fn memory(wombat: &Path, dir: &Path) -> Result<()> {
    let mut command = Command::new(wombat);
    command.args(["serve", "--cell", "rest", "--listen", "127.0.0.1:0", "--dir"]).arg(dir.join("rest"));
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let stderr = child.stderr.take().ok_or("no stderr")?;
    let mut lines = BufReader::new(stderr).lines().map_while(std::result::Result::ok);
    let ready = lines.any(|line| line.starts_with("ready:"));
    std::thread::sleep(Duration::from_secs(1));
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()))?;
    child.kill()?;
    child.wait()?;
    if !ready {
        return Err("wombat serve failed".into());
    }
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    println!("{:44}{:>12.1} MiB (goal ≤ 20)", "server at rest, resident", kib / 1024.0);
    Ok(())
}
