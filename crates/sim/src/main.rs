//! `wombat-sim`: seeds in, verdicts out. What runs here is what ships: replica, storage and session.
//!
//! `cargo run --release -p wombat-sim -- cell --seeds 1000 --first-seed 1`

mod cell;
mod network;
mod paxos;
mod random;

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use std::time::Instant;

#[derive(Parser)]
#[command(version, about = "Simulates cells and looks for what must not happen")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A whole cell with its clients, under faults and then healed
    Cell {
        /// How many seeds
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// The first of them
        #[arg(long, default_value_t = 1)]
        first_seed: u64,
        /// Tell every event
        #[arg(long)]
        trace: bool,
    },
    /// A whole cell in which some replicas and endpoints are silent: clients find the master in time
    Search {
        /// How many seeds
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// The first of them
        #[arg(long, default_value_t = 1)]
        first_seed: u64,
        /// Tell every event
        #[arg(long)]
        trace: bool,
    },
    /// The agreement alone, under every fault that there is
    Paxos {
        /// How many seeds
        #[arg(long, default_value_t = 1000)]
        seeds: u64,
        /// The first of them
        #[arg(long, default_value_t = 1)]
        first_seed: u64,
        /// Tell every event
        #[arg(long)]
        trace: bool,
        /// The bug to have
        #[cfg(feature = "plant")]
        #[arg(long)]
        plant: Option<Planted>,
    },
    /// How soon the simulation of the agreement finds bugs that are there on purpose
    #[cfg(feature = "plant")]
    Plants(paxos::plants::Hunt),
}

/// A bug to have on purpose; without the feature `plant` there is none.
#[cfg(feature = "plant")]
pub(crate) type Planted = wombat_paxos::Plant;
#[cfg(not(feature = "plant"))]
pub(crate) type Planted = std::convert::Infallible;

fn main() -> ExitCode {
    match Args::parse().command {
        Command::Cell { seeds, first_seed, trace } => {
            run_cells("cell", first_seed, seeds, trace, cell::World::new);
        }
        Command::Search { seeds, first_seed, trace } => {
            run_cells("search", first_seed, seeds, trace, cell::World::searching);
        }
        Command::Paxos {
            seeds,
            first_seed,
            trace,
            #[cfg(feature = "plant")]
            plant,
        } => {
            #[cfg(not(feature = "plant"))]
            let plant: Option<Planted> = None;
            run_seeds("paxos", first_seed, seeds, trace, |seed, trace| {
                let outcome = paxos::World::new(seed, trace, plant).run();
                (outcome.events, outcome)
            });
        }
        #[cfg(feature = "plant")]
        Command::Plants(hunt) => return paxos::plants::hunt(&hunt),
    }
    ExitCode::SUCCESS
}

fn run_cells(
    command: &'static str,
    first: u64,
    seeds: u64,
    trace: bool,
    world: impl Fn(u64, bool) -> cell::World,
) {
    let mut tally = cell::Tally::default();
    run_seeds(command, first, seeds, trace, |seed, trace| {
        let outcome = world(seed, trace).run();
        tally.add(&outcome.tally);
        (outcome.events, outcome)
    });
    println!("in all, in both runs: {tally}");
}

/// Runs seeds, each twice: the same seed does the same, or a failure could not be looked at again. A panic
/// names the seed.
fn run_seeds<O: PartialEq + std::fmt::Debug>(
    command: &'static str,
    first: u64,
    seeds: u64,
    trace: bool,
    mut run: impl FnMut(u64, bool) -> (u64, O),
) {
    let begun = Instant::now();
    let mut events = 0;
    for seed in first..first + seeds {
        std::panic::set_hook(Box::new(move |what| {
            eprintln!("seed {seed} failed: {what}");
            eprintln!("look at it with: wombat-sim {command} --seeds 1 --first-seed {seed} --trace");
        }));
        let outcome = run(seed, trace);
        assert_eq!(outcome, run(seed, false), "seed {seed} ran differently the second time");
        events += outcome.0;
    }
    let rate = seeds as f64 / begun.elapsed().as_secs_f64();
    println!("{seeds} seeds passed, from {first}, each twice: {events} events, {rate:.0} seeds/s");
    println!("{seeds} passed, 0 failed");
}
