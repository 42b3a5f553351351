//! The measure `write`.

use crate::crowd::{Cached, Calm, cached_again};
use crate::{CONNECTIONS, NODES};
use std::path::Path;
use wombat_benches::arguments::number;
use wombat_benches::replicas::{Replicas, built};
use wombat_benches::watching::QUIET;
use wombat_benches::{Result, percentile};

const SESSIONS: usize = 10_000;
/// How often the file is written that all have cached, and at which of these times one of them is stopped.
const WRITES: usize = 200;
const STOPPED_EVERY: usize = 10;

/// Measures and tells.
pub(crate) async fn write(dir: &Path) -> Result<()> {
    let cell = Replicas::start(&built(env!("CARGO_TARGET_TMPDIR"))?, &dir.join("written"), NODES)?;
    let status = cell.master().await;
    let mut file = Cached::new(cell.addresses(), &status.master).await?;
    let sessions = number("sessions", SESSIONS);
    let crowd = file.crowd(sessions, number("connections", CONNECTIONS), false).await?;
    let one = file.crowd(1, 1, false).await?;
    let calm = Calm::watch(&crowd, &status.master);
    let (mut by_all, mut by_nobody, mut by_stopped, mut by_gone) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for write in 0..number("writes", WRITES) {
        cached_again(&[&crowd, &one]).await?;
        by_all.push(file.write(&[&crowd, &one]).await?);
        tokio::time::sleep(QUIET).await;
        by_nobody.push(file.write(&[&crowd, &one]).await?);
        if write % STOPPED_EVERY == 0 {
            cached_again(&[&crowd, &one]).await?;
            one.stop();
            by_stopped.push(file.write(&[&crowd, &one]).await?);
            cached_again(&[&crowd]).await?;
            by_gone.push(file.write(&[&crowd, &one]).await?);
            one.go_on();
        }
    }
    println!("a write of a file that {sessions} sessions may have cached, ms");
    println!("  {:44}{:>10}{:>10}{:>10}", "", "median", "99th", "most");
    tell("all have it cached", &mut by_all);
    tell("nobody has it cached", &mut by_nobody);
    tell("one of them has just been stopped", &mut by_stopped);
    tell("one of them was stopped before the last write", &mut by_gone);
    calm.tell(&crowd)?;
    Ok(())
}

fn tell(what: &str, took: &mut [f64]) {
    let (median, most) = (percentile(took, 50), took.last().copied().unwrap_or_default());
    let all = [median, percentile(took, 99), most];
    print!("  {what:44}");
    all.iter().for_each(|one| print!("{one:>10.2}"));
    println!();
}
