//! What the benches share: rates, medians, and the machine's own speed to compare with.

pub mod arguments;
pub mod clients;
pub mod load;
pub mod measures;
pub mod peers;
pub mod probe;
pub mod process;
pub mod replicas;
pub mod systems;
pub mod turns;
pub mod watching;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// Whatever may go wrong ends a bench, with its reason.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Operations a second.
pub fn rate(operations: usize, elapsed: Duration) -> f64 {
    operations as f64 / elapsed.as_secs_f64()
}

/// Waits until that is so, and looks every few milliseconds.
pub async fn until(what: &str, reached: impl Fn() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !reached() {
        if begun.elapsed() > PATIENCE {
            return Err(format!("waited in vain until {what}").into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// The middle of some figures.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The figure that so many percent of them do not exceed; it sorts them.
pub fn percentile(figures: &mut [f64], percent: usize) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() * percent / 100).copied().unwrap_or_default()
}

/// The machine's own speed: how often a second `bytes` are appended to a file that is already allocated, and
/// made durable with fdatasync.
pub fn raw_syncs(directory: &Path, bytes: usize, syncs: usize) -> std::io::Result<f64> {
    let file = File::create_new(directory.join("raw"))?;
    file.write_all_at(&vec![0; syncs * bytes], 0)?;
    file.sync_all()?;
    let record = vec![7; bytes];
    let begun = Instant::now();
    for n in 0..syncs {
        file.write_all_at(&record, (n * bytes) as u64)?;
        file.sync_data()?;
    }
    let rate = rate(syncs, begun.elapsed());
    std::fs::remove_file(directory.join("raw"))?;
    Ok(rate)
}
