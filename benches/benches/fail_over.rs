//! How long nothing can be written when the leader dies: Wombat beside etcd and ZooKeeper.
//! `cargo bench -p wombat-benches --bench fail_over [-- repeats <n>]`
//!
//! Three nodes of each run on this machine with default settings. A client writes a small value, a millisecond
//! after the last one was acknowledged; then the leader is killed with `kill -9`. What is measured is the
//! longest time between two acknowledged writes around that. The dead node is started again, and when all is
//! whole the next system has its turn, so that a noisy minute hits all of them. The clients try the next node
//! at once when one fails them; those of etcd and ZooKeeper begin at one node after the other, as such clients
//! do, while a session of Wombat is always with the master.
//!
//! Beside it, the same for a master of Wombat that hands over.

use std::time::{Duration, Instant};
use wombat_benches::systems::wombat::Wombat;
use wombat_benches::systems::{System, Systems, gap, whole};
use wombat_benches::{Result, arguments, median};

const NODES: usize = 3;
const REPEATS: usize = 20;
/// How long a node that was started again is left alone: some take no part in elections at first.
const REST: Duration = Duration::from_secs(5);

fn main() -> Result<()> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let Systems { mut wombat, mut etcd, mut zookeeper } =
        Systems::start(env!("CARGO_TARGET_TMPDIR"), dir.path(), NODES)?;
    let (mut gaps, mut transfers) = ([const { Vec::new() }; 3], Vec::new());
    let mut rested = [Instant::now(); 3];
    for repeat in 0..arguments::number("repeats", REPEATS) {
        let mut systems: [Option<&mut dyn System>; 3] = [Some(&mut wombat), None, None];
        systems[1] = etcd.as_mut().map(|etcd| etcd as &mut dyn System);
        systems[2] = zookeeper.as_mut().map(|zookeeper| zookeeper as &mut dyn System);
        for ((system, gaps), rested) in systems.into_iter().zip(&mut gaps).zip(&mut rested) {
            let Some(system) = system else { continue };
            whole(system)?;
            std::thread::sleep(rested.saturating_duration_since(Instant::now()));
            gaps.push(fail_over(system, repeat % NODES)?);
            *rested = Instant::now() + REST;
        }
        std::thread::sleep(rested[0].saturating_duration_since(Instant::now()));
        transfers.push(transfer(&mut wombat)?);
    }
    print!("{:44}", "no write acknowledged, ms");
    ["median", "least", "most"].iter().for_each(|title| print!("{title:>10}"));
    println!();
    let names = ["wombat", "etcd", "zookeeper"];
    names.iter().zip(&gaps).for_each(|(name, gaps)| print(&format!("{name}, the leader killed"), gaps));
    print("wombat, the master hands over (goal ≤ 50)", &transfers);
    let [wombat, etcd, zookeeper] = gaps;
    for (name, gaps, goal) in [("etcd", etcd, 0.5), ("zookeeper", zookeeper, 1.0)] {
        if !gaps.is_empty() {
            let ratio = median(wombat.clone()) / median(gaps);
            println!("{:44}{ratio:>10.2}   (goal ≤ {goal:.1})", format!("medians, wombat to {name}"));
        }
    }
    Ok(())
}

/// Milliseconds without a write when the leader is killed. The leader is then started again.
fn fail_over(system: &mut dyn System, node: usize) -> Result<f64> {
    let leader = whole(system)?;
    let gap = gap(system, node, |system| system.kill(leader))?;
    system.start(leader)?;
    whole(system)?;
    Ok(milliseconds(gap))
}

/// Milliseconds without a write when the master hands over.
fn transfer(wombat: &mut Wombat) -> Result<f64> {
    whole(wombat)?;
    Ok(milliseconds(gap(wombat, 0, Wombat::transfer)?))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn print(what: &str, figures: &[f64]) {
    if figures.is_empty() {
        return;
    }
    let (least, most) = figures.iter().fold((f64::MAX, 0.0_f64), |(a, b), one| (a.min(*one), b.max(*one)));
    println!("{what:44}{:>10.0}{least:>10.0}{most:>10.0}", median(figures.to_vec()));
}
