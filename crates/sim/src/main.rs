//! `wombat-sim`: seeds in, verdicts out. What runs here is what ships: replica, storage and session.
//!
//! `cargo run --release -p wombat-sim -- cell --seeds 1000 --first-seed 1`

mod client;
mod network;
mod oracle;
mod random;
mod server;
mod world;

use clap::{Parser, Subcommand};
use std::time::Instant;
use world::World;

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
}

fn main() {
    let Command::Cell { seeds, first_seed, trace } = Args::parse().command;
    let begun = Instant::now();
    let mut events = 0;
    for seed in first_seed..first_seed + seeds {
        let outcome = run(seed, trace);
        // The same seed does the same: otherwise a failure could not be looked at twice.
        assert_eq!(outcome, run(seed, false), "seed {seed} ran differently the second time");
        events += outcome.events;
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{seeds} seeds passed, from {first_seed}, each twice: {events} events, {:.0} seeds/s",
        seeds as f64 / seconds
    );
    println!("{seeds} passed, 0 failed");
}

/// Runs a seed to its end. A panic inside names the seed.
fn run(seed: u64, trace: bool) -> world::Outcome {
    std::panic::set_hook(Box::new(move |what| {
        eprintln!("seed {seed} failed: {what}");
        eprintln!("look at it with: wombat-sim cell --seeds 1 --first-seed {seed} --trace");
    }));
    World::new(seed, trace).run()
}
