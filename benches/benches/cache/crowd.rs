//! A file that crowds have cached, and what it costs to write it.

use std::rc::Rc;
use std::time::Duration;
use wombat_benches::Result;
use wombat_benches::clients::wombat::Wombat;
use wombat_benches::clients::{Service, Writer};
use wombat_benches::load::{CachedFile, Load, Plan};
use wombat_benches::probe::Probe;
use wombat_benches::watching::QUIET;
use wombat_proto::clock;

/// The clients of a cell whose file is written and cached.
pub(crate) struct Cached {
    addresses: Vec<String>,
    writer: Box<dyn Writer>,
    /// The generation that the last write has made.
    pub(crate) written: u64,
}

impl Cached {
    pub(crate) async fn new(addresses: &[String], master: &str) -> Result<Cached> {
        let writer = Wombat::new(master, 1).writer().await?;
        Ok(Cached { addresses: addresses.into(), writer, written: 0 })
    }

    /// Sessions that have it cached.
    pub(crate) async fn crowd(
        &mut self,
        sessions: usize,
        connections: usize,
        watched: bool,
    ) -> Result<Rc<Load>> {
        let cached = Some(CachedFile { path: Wombat::watched(), watched });
        let crowd = Load::start(&self.addresses, Plan { sessions, connections, cached });
        crowd.cached().await?;
        self.written = crowd.tally().newest;
        Ok(crowd)
    }

    /// Writes it. Returns how long that took, in milliseconds, unless one of these sees something older after it.
    pub(crate) async fn write(&mut self, crowds: &[&Load]) -> Result<f64> {
        let begun = clock::now();
        self.writer.write().await?;
        let took = milliseconds(clock::now().since(begun));
        self.written += 1;
        match crowds.iter().map(|crowd| crowd.older_than(self.written)).sum() {
            0 => Ok(took),
            stale => Err(format!("{stale} sessions may still read what was there before the write").into()),
        }
    }
}

/// Waits until all have it cached again, and the cell has come to rest.
pub(crate) async fn cached_again(crowds: &[&Load]) -> Result<()> {
    for crowd in crowds {
        crowd.cached().await?;
    }
    tokio::time::sleep(QUIET).await;
    Ok(())
}

/// Whether the crowd has its leases in time from now on, and the master its own.
pub(crate) struct Calm {
    epoch: u64,
    late: usize,
    probe: Probe,
}

impl Calm {
    pub(crate) fn watch(crowd: &Load, master: &str) -> Calm {
        Calm { epoch: crowd.epoch(), late: crowd.tally().late, probe: Probe::start(master) }
    }

    pub(crate) fn tell(self, crowd: &Load) -> Result<()> {
        let (tally, seen) = (crowd.tally(), self.probe.stop()?);
        let (late, fail_overs) = (tally.late - self.late + crowd.overdue(), crowd.epoch() - self.epoch);
        println!("  cache lease granted: {:.1} s at most", tally.cache_lease.as_secs_f64());
        println!("  late: {late}; lost: {}; fail-overs: {fail_overs} (goals 0)", tally.expired);
        println!("  longest answer of the master: {:.0} ms", seen.longest_answer);
        println!("  least left of the master lease: {} ms", seen.least_master_lease);
        Ok(())
    }
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
