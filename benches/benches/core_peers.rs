//! The consensus core alone, beside other libraries' cores:
//! `cargo bench -p wombat-benches --bench core_peers`.
//!
//! In one thread and in memory, so what is measured is the work that a core itself makes. The rounds of the
//! competitors alternate, so that a noisy minute hits all of them; what counts are medians.
//!
//! What is equal: each competitor keeps a window of proposals open, each command is allocated once by who
//! proposes it, each replica keeps it in a log in memory, messages are moved and not encoded, nothing is ever
//! lost, and each replica's commands are counted and checked one by one. Each runs with what was measured to
//! be best for it.
//!
//! What is not: Wombat and Raft hand records out and wait to be told that they are durable, which costs them
//! a step more for each batch, while OmniPaxos writes to its storage by itself. OmniPaxos tells followers at
//! once what is decided, the other two with the next batch. All share a command's bytes among those who hold
//! it; Wombat shares whole batches, and lends commands where they are checked, while the others clone each
//! entry for each log and message. Wombat and Raft trim their logs as they grow, OmniPaxos keeps them whole:
//! with one command in flight, that is what puts it behind in long runs; in short ones it is a little ahead.

use std::time::Duration;
use wombat_benches::{median, peers, rate};

const ROUNDS: usize = 5;
/// Bytes of a command.
const SIZE: usize = 64;
const REPLICAS: [usize; 2] = [3, 5];
/// Commands that may be under way, and how many commands are replicated in a run with so many.
const WINDOWS: [(usize, usize); 3] = [(1, 600_000), (64, 2_000_000), (1024, 2_000_000)];

/// Takes the number of replicas, the window, the number of commands and their size.
type Run = fn(usize, usize, usize, usize) -> Duration;

const COMPETITORS: [(&str, Run); 3] =
    [("wombat", peers::wombat::run), ("omnipaxos", peers::omnipaxos::run), ("raft", peers::raft::run)];

fn main() {
    print!("{:44}", format!("commands of {SIZE} bytes decided everywhere, 1/s"));
    COMPETITORS.iter().for_each(|(name, _)| print!("{name:>14}"));
    println!();
    for replicas in REPLICAS {
        for (window, entries) in WINDOWS {
            let mut rates = COMPETITORS.map(|_| Vec::with_capacity(ROUNDS));
            for _ in 0..ROUNDS {
                for ((_, run), rates) in COMPETITORS.iter().zip(&mut rates) {
                    rates.push(rate(entries, run(replicas, window, entries, SIZE)));
                }
            }
            print!("{:44}", format!("{replicas} replicas, {window} in flight"));
            rates.into_iter().for_each(|rates| print!("{:>14.0}", median(rates)));
            println!();
        }
    }
}
