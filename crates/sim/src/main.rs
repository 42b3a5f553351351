//! `wombat-sim`: seeds in, verdicts out. What runs here is what ships: replica, storage and session.
//!
//! `cargo run --release -p wombat-sim -- cell --seeds 1000 --first-seed 1`

mod cell;
mod faults;
mod network;
mod paxos;
mod random;
mod runner;
mod schedule;
mod swarm;

use clap::{Parser, Subcommand};
use runner::Seeds;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

#[derive(Parser)]
#[command(version, about = "Simulates cells and looks for what must not happen")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A whole cell with its clients, under faults and then healed
    Cell(Seeds),
    /// A whole cell in which some replicas and endpoints are silent: clients find the master in time
    Search(Seeds),
    /// The agreement alone, under every fault that there is
    #[command(mut_arg("count", |count| count.default_value("1000")))]
    Paxos {
        #[command(flatten)]
        seeds: Seeds,
        /// The bug to have
        #[cfg(feature = "plant")]
        #[arg(long)]
        plant: Option<paxos::Planted>,
    },
    /// How soon the simulation of the agreement finds bugs that are there on purpose
    #[cfg(feature = "plant")]
    Plants(paxos::plants::Hunt),
}

fn main() -> ExitCode {
    let passed = match Args::parse().command {
        Command::Cell(seeds) => run_cells("cell", &seeds, cell::World::new),
        Command::Search(seeds) => run_cells("search", &seeds, cell::World::searching),
        Command::Paxos {
            seeds,
            #[cfg(feature = "plant")]
            plant,
        } => {
            #[cfg(not(feature = "plant"))]
            let plant: Option<paxos::Planted> = None;
            seeds.run("paxos", |seed, trace| paxos::World::new(seed, trace, plant).run())
        }
        #[cfg(feature = "plant")]
        Command::Plants(hunt) => return paxos::plants::hunt(&hunt),
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_cells(command: &'static str, seeds: &Seeds, world: impl Fn(u64, bool) -> cell::World + Sync) -> bool {
    let tally = Mutex::new(cell::Tally::default());
    let passed = seeds.run(command, |seed, trace| {
        let outcome = world(seed, trace).run();
        tally.lock().unwrap_or_else(PoisonError::into_inner).add(&outcome.tally);
        outcome
    });
    if passed {
        let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
        println!("in all, in both runs: {tally}");
    }
    passed
}
