//! Lock services as processes on this machine, and how long a client of theirs must wait when something happens
//! to the leader.

pub mod etcd;
pub mod redis;
pub mod wombat;
pub mod zookeeper;

use crate::replicas::built;
use crate::{Result, arguments};
use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between the acknowledgement of a write and the next one.
const INTERVAL: Duration = Duration::from_millis(1);
/// How long the client writes before anything happens.
const CALM: Duration = Duration::from_millis(500);
/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A system of several nodes with default settings, killed when it is dropped.
pub trait System {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Where clients find its nodes.
    fn addresses(&self) -> &[String];

    /// The node that leads, if every node is there and follows it, and has what it has.
    fn leader(&mut self) -> Option<usize>;

    /// `kill -9` of a node. Returns when it is gone.
    fn kill(&mut self, node: usize) -> Result<()>;

    /// Starts a node on what it had.
    fn start(&mut self, node: usize) -> Result<()>;

    /// A new client, which begins at that node if clients of this system may begin anywhere.
    fn writer(&self, node: usize) -> Result<Box<dyn Writer>>;
}

/// A client of a system, as good as clients of that system are.
pub trait Writer: Send {
    /// Writes one small value. Returns when it is acknowledged, by whichever node.
    fn write(&mut self) -> Result<()>;
}

/// Wombat and its peers that keep files, as far as they are there.
pub struct Systems {
    /// Wombat.
    pub wombat: wombat::Wombat,
    /// etcd.
    pub etcd: Option<etcd::Etcd>,
    /// ZooKeeper.
    pub zookeeper: Option<zookeeper::ZooKeeper>,
}

impl Systems {
    /// Starts so many nodes of each, which keep their data in folders of `dir`. `target_tmpdir` is the bench's own
    /// `CARGO_TARGET_TMPDIR`. Returns when all are whole: fifteen processes that start at once keep two cores busy
    /// for longer than a leader may be silent.
    pub fn start(target_tmpdir: &str, dir: &Path, nodes: usize) -> Result<Systems> {
        let mut systems = Systems {
            wombat: wombat::Wombat::start(&built(target_tmpdir)?, dir, nodes)?,
            etcd: peer("etcd", || etcd::Etcd::start(dir, nodes)),
            zookeeper: peer("zookeeper", || zookeeper::ZooKeeper::start(dir, nodes)),
        };
        if let Some(etcd) = &mut systems.etcd {
            whole(etcd)?;
        }
        if let Some(zookeeper) = &mut systems.zookeeper {
            whole(zookeeper)?;
        }
        whole(&mut systems.wombat)?;
        Ok(systems)
    }
}

/// A system that may not be installed here, or is not wanted: `without <names>`.
pub fn peer<T>(name: &str, start: impl FnOnce() -> Result<T>) -> Option<T> {
    if arguments::word("without").is_some_and(|without| without.contains(name)) {
        return None;
    }
    start().inspect_err(|why| eprintln!("without {name}: {why}")).ok()
}

/// The nodes of a whole system that clients connect to: all in turn, or the one that leads.
pub fn begin_at(system: &mut dyn System, all: bool) -> Result<Vec<String>> {
    let leader = whole(system)?;
    let addresses = system.addresses();
    Ok(if all { addresses.to_vec() } else { vec![addresses[leader].clone()] })
}

/// Waits until a system is whole, and returns who leads it.
pub fn whole(system: &mut dyn System) -> Result<usize> {
    wait_for(&format!("{} with all its nodes", system.name()), || system.leader())
}

/// The longest time between two acknowledged writes of one client, from when `event` begins until the first
/// write that was begun after its end is acknowledged.
pub fn gap<S: System + ?Sized>(
    system: &mut S,
    node: usize,
    event: impl FnOnce(&mut S) -> Result<()>,
) -> Result<Duration> {
    let writing = Writing::start(system.writer(node)?);
    std::thread::sleep(CALM);
    let before = Instant::now();
    event(system)?;
    let after = Instant::now();
    wait_for("a write after that", || (writing.goes_on_after(after) || writing.has_ended()).then_some(()))?;
    writing.longest_gap(before)
}

/// A client that writes on a thread of its own, until this is dropped.
pub struct Writing {
    thread: Option<JoinHandle<std::result::Result<(), String>>>,
    stop: Arc<AtomicBool>,
    /// When each acknowledged write was begun, and when it was acknowledged.
    acknowledged: Arc<Mutex<Vec<(Instant, Instant)>>>,
}

impl Writing {
    /// Lets a client write one value after the other.
    pub fn start(mut writer: Box<dyn Writer>) -> Writing {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (stopped, noted) = (Arc::clone(&stop), Arc::clone(&acknowledged));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let begun = Instant::now();
                writer.write().map_err(|error| error.to_string())?;
                noted.lock().expect("nobody panics with it").push((begun, Instant::now()));
                std::thread::sleep(INTERVAL);
            }
            Ok(())
        });
        Writing { thread: Some(thread), stop, acknowledged }
    }

    /// Whether a write that was begun after that is acknowledged.
    pub fn goes_on_after(&self, moment: Instant) -> bool {
        let acknowledged = self.acknowledged.lock().expect("nobody panics with it");
        acknowledged.last().is_some_and(|(begun, _)| *begun > moment)
    }

    /// Stops, and returns the longest time between two acknowledgements, the later of which came after `since`.
    pub fn longest_gap(mut self, since: Instant) -> Result<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| "the client panicked")??;
        }
        let acknowledged = self.acknowledged.lock().expect("nobody panics with it");
        let ends = acknowledged.windows(2).map(|pair| (pair[0].1, pair[1].1));
        let gaps = ends.filter(|(_, end)| *end > since).map(|(begin, end)| end - begin);
        Ok(gaps.max().ok_or("nothing was written before it, or after it")?)
    }

    fn has_ended(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _it_is_given_up = thread.join();
        }
    }
}

/// Asks for `wanted` until it is there.
fn wait_for<T>(what: &str, mut wanted: impl FnMut() -> Option<T>) -> Result<T> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = wanted() {
            return Ok(found);
        }
        if Instant::now() > until {
            return Err(format!("waited in vain for {what}").into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A process that does not outlive its owner.
struct Process(Child);

impl Process {
    fn kill(mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _gone_already = self.0.wait();
    }
}
