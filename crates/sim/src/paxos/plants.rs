//! Bugs on purpose: how soon the simulation finds each of them. One that it does not find shows what it does
//! not look at.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use wombat_paxos::Plant;

/// How far apart the first seeds of two trials are.
const APART: u64 = 1 << 32;
/// How much is shown of what the oracle said.
const SAID: usize = 72;

/// What to look for, and for how long.
#[derive(clap::Args)]
pub(crate) struct Hunt {
    /// How often each bug is looked for, each time from other seeds
    #[arg(long, default_value_t = 5)]
    trials: u64,
    /// After how many seeds a trial ends in vain
    #[arg(long, default_value_t = 20_000)]
    most: u64,
    /// The first seed of the first trial
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// How many run at a time; as many as there are processors if it is not said
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
    /// Only this bug; may be said several times
    #[arg(long)]
    plant: Vec<Plant>,
}

/// A bug that was found.
struct Found {
    /// After how many seeds.
    seeds: u64,
    /// What the oracle said.
    said: String,
}

/// Looks for every bug, says how it went, and fails if any of them was never found.
pub(crate) fn hunt(hunt: &Hunt) -> ExitCode {
    let plants = if hunt.plant.is_empty() { Plant::ALL.to_vec() } else { hunt.plant.clone() };
    let trials = (0..hunt.trials).flat_map(|trial| plants.iter().map(move |plant| (trial, *plant)));
    let left: Mutex<Vec<(u64, Plant)>> = Mutex::new(trials.collect());
    let found: Mutex<BTreeMap<String, Vec<Found>>> = Mutex::default();
    let jobs = hunt.jobs.or(std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let next = left.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    let Some((trial, plant)) = next else { return };
                    let one = look(plant, hunt.first_seed + trial * APART, hunt.most);
                    let seeds = one.as_ref().map_or("none".to_owned(), |one| one.seeds.to_string());
                    eprintln!("{plant:?}, trial {}: {seeds} of {} seeds", trial + 1, hunt.most);
                    let Some(one) = one else { continue };
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    found.entry(format!("{plant:?}")).or_default().push(one);
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{:<24} {:>7} {:>7}  what the oracle said", "bug", "found", "seeds");
    let mut missed = Vec::new();
    for plant in &plants {
        let name = format!("{plant:?}");
        let mut trials = found.remove(&name).unwrap_or_default();
        trials.sort_by_key(|one| one.seeds);
        let of = format!("{}/{}", trials.len(), hunt.trials);
        // A trial in vain took longer than any other, so the median may be unknown.
        match trials.get(hunt.trials as usize / 2).or(trials.last()) {
            Some(middle) => {
                let more = if trials.len() as u64 > hunt.trials / 2 { ' ' } else { '>' };
                println!("{name:<24} {of:>7} {more}{:>6}  {}", middle.seeds, middle.said);
            }
            None => {
                println!("{name:<24} {of:>7} >{:>6}", hunt.most);
                missed.push(name);
            }
        }
    }
    if missed.is_empty() {
        println!("every bug was found");
        return ExitCode::SUCCESS;
    }
    println!("never found: {}", missed.join(", "));
    ExitCode::FAILURE
}

/// Runs seeds with a bug until one fails, in a process of its own: the failure ends it.
fn look(plant: Plant, first: u64, seeds: u64) -> Option<Found> {
    let this = std::env::current_exe().expect("the path of this program");
    let child = Command::new(this)
        .args(["paxos", "--plant", &format!("{plant:?}")])
        .args(["--first-seed", &first.to_string(), "--seeds", &seeds.to_string(), "--jobs", "1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()
        .expect("this program starts");
    if child.status.success() {
        return None;
    }
    let told = String::from_utf8_lossy(&child.stderr);
    let found = read(&told, first);
    assert!(found.is_some(), "{plant:?} failed without naming a seed: {told}");
    found
}

/// Which seed failed and why, from what a process told when it ended.
fn read(told: &str, first: u64) -> Option<Found> {
    let mut lines = told.lines().skip_while(|line| !line.starts_with("seed "));
    let (seed, place) = lines.next()?.strip_prefix("seed ")?.split_once(" failed: ")?;
    let seed: u64 = seed.parse().ok()?;
    let said = lines.next().filter(|line| !line.starts_with("look at it")).unwrap_or(place);
    Some(Found { seeds: seed.checked_sub(first)? + 1, said: said.chars().take(SAID).collect() })
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn reads_what_a_failure_says() {
        let told = "seed 12 failed: panicked at oracle.rs:1:2:\nI1: slot 0/4 holds two values\n\
                    look at it with: wombat-sim paxos --seeds 1 --first-seed 12 --trace\n";
        let found = read(told, 10).expect("a failure");
        assert_eq!((found.seeds, found.said.as_str()), (3, "I1: slot 0/4 holds two values"));
        assert!(read("error: no such flag", 10).is_none());
    }
}
