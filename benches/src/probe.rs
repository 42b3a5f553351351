//! How long a master keeps others waiting while a crowd keeps it busy, as seen from a thread of its own.

use crate::Result;
use crate::clients::wombat::Connection;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::task::LocalSet;
use wombat_proto::wire::{self, request::Call, response::Result as Answer};

/// Between two questions.
const INTERVAL: Duration = Duration::from_millis(1);

/// What has been seen.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The longest that the master has taken to say how it is, in milliseconds. That goes behind whatever waits
    /// for its turn: a step of the master was no longer.
    pub longest_answer: f64,
    /// The least that was left of its master lease, in milliseconds: what it fell short by of the whole lease was
    /// the longest time between two heartbeats, and a little more.
    pub least_master_lease: u64,
}

/// Asks the master how it is, time and again.
pub struct Probe {
    thread: JoinHandle<std::result::Result<Seen, String>>,
    stop: Sender<()>,
}

impl Probe {
    /// Begins.
    pub fn start(master: &str) -> Probe {
        let (stop, stopped) = channel();
        let master = master.to_owned();
        let thread = std::thread::spawn(move || probe(&master, &stopped).map_err(|error| error.to_string()));
        Probe { thread, stop }
    }

    /// Ends.
    pub fn stop(self) -> Result<Seen> {
        drop(self.stop);
        Ok(self.thread.join().map_err(|_| "the probe panicked")??)
    }
}

fn probe(master: &str, stopped: &Receiver<()>) -> Result<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let connection = Connection::open(master).await?;
        let mut seen = Seen { longest_answer: 0.0, least_master_lease: u64::MAX };
        while let Err(std::sync::mpsc::TryRecvError::Empty) = stopped.try_recv() {
            let begun = Instant::now();
            let Answer::Status(status) = connection.ask(Call::GetStatus(wire::GetStatus {})).await? else {
                return Err("no status".into());
            };
            seen.longest_answer = seen.longest_answer.max(begun.elapsed().as_secs_f64() * 1000.0);
            seen.least_master_lease = seen.least_master_lease.min(status.master_lease_ms);
            tokio::time::sleep(INTERVAL).await;
        }
        Ok(seen)
    })
}
