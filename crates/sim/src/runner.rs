//! Runs seeds on several threads, each seed twice: equal seeds have equal outcomes, so that every failure can be
//! repeated. A seed that fails or does not end is named.

use crate::schedule::Happened;
use std::cell::Cell;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A seed takes less than a second. One that takes as long as this never ends.
const SEED_TIMEOUT: Duration = Duration::from_secs(180);
/// How often the runner looks for such seeds.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// Which seeds to run, and how.
#[derive(clap::Args, Clone)]
pub(crate) struct Seeds {
    /// How many seeds
    #[arg(long = "seeds", default_value_t = 100)]
    pub(crate) count: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    pub(crate) first_seed: u64,
    /// How many run at a time; by default as many as there are processors
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
    /// Print every event
    #[arg(long)]
    pub(crate) trace: bool,
}

/// How the run of one seed ended.
pub(crate) trait Outcome: PartialEq + std::fmt::Debug {
    /// The events of the run.
    fn happened(&self) -> Happened;
}

/// What all seeds have in common while they run.
struct Progress {
    next: AtomicU64,
    failed: AtomicBool,
    events: AtomicU64,
    hash: AtomicU64,
    /// The seed that each worker runs, and since when; `None`: the worker has ended.
    running: Vec<Mutex<Option<(u64, Instant)>>>,
}

thread_local! {
    /// The seed that this thread runs.
    static SEED: Cell<u64> = const { Cell::new(0) };
}

impl Seeds {
    /// Runs the seeds. `run` takes a seed and whether to print its events. Returns whether all passed.
    pub(crate) fn run<O: Outcome>(&self, command: &'static str, run: impl Fn(u64, bool) -> O + Sync) -> bool {
        std::panic::set_hook(Box::new(move |panic| report(command, SEED.get(), panic)));
        let started = Instant::now();
        let jobs = match self.trace {
            true => 1,
            false => self.jobs.or(thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get),
        };
        let progress = Progress {
            next: AtomicU64::new(self.first_seed),
            failed: AtomicBool::new(false),
            events: AtomicU64::new(0),
            hash: AtomicU64::new(0),
            running: (0..jobs).map(|_| Mutex::new(Some((self.first_seed, started)))).collect(),
        };
        thread::scope(|scope| {
            for place in 0..jobs {
                let (progress, run) = (&progress, &run);
                scope.spawn(move || {
                    self.work(progress, place, run);
                    progress.set_running(place, None);
                });
            }
            progress.watch(command);
        });
        let passed = !progress.failed.into_inner();
        if passed {
            let (seeds, first) = (self.count, self.first_seed);
            let rate = seeds as f64 / started.elapsed().as_secs_f64();
            let (events, hash) = (progress.events.into_inner(), progress.hash.into_inner());
            println!("{seeds} seeds passed, from {first}, each twice: {events} events, {rate:.0} seeds/s");
            println!("{seeds} passed, 0 failed, hash {hash:016x}");
        }
        passed
    }

    /// Runs one seed after the other until none is left or one has failed.
    fn work<O: Outcome>(&self, progress: &Progress, place: usize, run: &impl Fn(u64, bool) -> O) {
        loop {
            let seed = progress.next.fetch_add(1, Ordering::Relaxed);
            if seed >= self.first_seed + self.count || progress.failed.load(Ordering::Relaxed) {
                return;
            }
            SEED.set(seed);
            progress.set_running(place, Some((seed, Instant::now())));
            let both = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let outcome = run(seed, self.trace);
                assert_eq!(outcome, run(seed, false), "seed {seed} ran differently the second time");
                outcome
            }));
            let Ok(outcome) = both else {
                progress.failed.store(true, Ordering::Relaxed);
                return;
            };
            let Happened { events, hash } = outcome.happened();
            progress.events.fetch_add(events, Ordering::Relaxed);
            // A sum does not depend on the order in which the threads finish their seeds.
            let hash = (hash ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            progress.hash.fetch_add(hash, Ordering::Relaxed);
        }
    }
}

impl Progress {
    fn set_running(&self, place: usize, running: Option<(u64, Instant)>) {
        *self.running[place].lock().unwrap_or_else(PoisonError::into_inner) = running;
    }

    /// Waits for the workers to end. A seed that does not end fails the whole process: its thread cannot be stopped.
    fn watch(&self, command: &str) {
        loop {
            let running = self.running.iter().map(|one| *one.lock().unwrap_or_else(PoisonError::into_inner));
            let running: Vec<(u64, Instant)> = running.flatten().collect();
            if running.is_empty() {
                return;
            }
            if let Some((seed, _)) = running.iter().find(|(_, since)| since.elapsed() > SEED_TIMEOUT) {
                report(command, *seed, &format!("it has not ended within {SEED_TIMEOUT:?}"));
                std::process::exit(1);
            }
            thread::sleep(WATCH_INTERVAL);
        }
    }
}

fn report(command: &str, seed: u64, why: &dyn std::fmt::Display) {
    eprintln!("seed {seed} failed: {why}");
    eprintln!("look at it with: wombat-sim {command} --seeds 1 --first-seed {seed} --trace");
}
