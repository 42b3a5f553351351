//! A client that caches: a process of its own, which is this test binary once more. Threads of it read files as
//! fast as they can, another tends the session and writes, and all note down what they saw, until there is enough.
//!
//! When such a process has stood still and goes on, its readers go on at once and its session a little later: what
//! they read then is not yet known to be out of date.

use crate::history::Nanos;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use wombat_client::{Cell, Config, Create, Error, Node, OpenOptions, Result, now};

/// How many files there are.
pub(crate) const FILES: usize = 4;
/// What they hold at first.
pub(crate) const FIRST: &str = "first";
/// Reading threads of a client.
const READERS: usize = 2;
/// How often a reader reads a file before it goes on to the next.
const BURST: u64 = 2000;
/// By which a client's process finds its role; without it there is nothing to do for it.
const ROLE: &str = "LINEARIZABLE_ROLE";

pub(crate) fn path(file: usize) -> String {
    format!("/ls/local/register-{file}")
}

/// Who a client is, where the cell is, and where its notes go.
#[derive(Clone)]
pub(crate) struct Role {
    pub(crate) number: usize,
    /// How many were there before it with that number.
    pub(crate) life: usize,
    pub(crate) endpoints: String,
    pub(crate) dir: PathBuf,
}

impl Role {
    pub(crate) fn play(&self) -> Child {
        let Role { number, life, endpoints, dir } = self;
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "a_client", "--ignored", "--nocapture"]);
        command.env(ROLE, format!("{number} {life} {endpoints} {}", dir.display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
    }

    fn own() -> Option<Role> {
        let role = std::env::var(ROLE).ok()?;
        let [number, life, endpoints, dir] = role.splitn(4, ' ').collect::<Vec<_>>()[..] else {
            panic!("no role: {role}")
        };
        let (number, life) = (number.parse().unwrap(), life.parse().unwrap());
        Some(Role { number, life, endpoints: endpoints.into(), dir: dir.into() })
    }

    fn has_enough(&self) -> bool {
        enough(&self.dir).exists()
    }
}

/// When this is there, the clients end.
pub(crate) fn enough(dir: &Path) -> PathBuf {
    dir.join("enough")
}

/// Notes, which outlive a `kill -9` line by line.
struct Notes(File);

impl Notes {
    fn of(role: &Role, who: &str) -> Notes {
        let name = format!("notes-{}-{}-{who}", role.number, role.life);
        let file = File::options().create(true).append(true).open(role.dir.join(name)).unwrap();
        Notes(file)
    }

    fn line(&mut self, line: &str) {
        // In one piece: a line is there or it is not.
        self.0.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

/// A runtime whose thread, when it has rested for long, begins a little later than it could.
fn slow_to_wake() -> std::io::Result<tokio::runtime::Runtime> {
    let rests_since = Arc::new(AtomicU64::new(0));
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let noted = Arc::clone(&rests_since);
    runtime.on_thread_park(move || noted.store(now().as_nanos(), Ordering::Relaxed));
    runtime.on_thread_unpark(move || {
        let rested = now().as_nanos() - rests_since.load(Ordering::Relaxed);
        if Duration::from_nanos(rested) > Duration::from_millis(100) {
            std::thread::sleep(Duration::from_millis(30));
        }
    });
    runtime.enable_all().build()
}

/// Plays the role of this process, if it has one.
pub(crate) fn live() {
    let Some(role) = Role::own() else { return };
    // Also one that stands still must not outlive the test.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).unwrap();
    let runtime = slow_to_wake().unwrap();
    let role = Arc::new(role);
    runtime.block_on(async {
        for session in 0.. {
            match one_session(&role, session).await {
                Ok(()) => return,
                Err(Error::SessionExpired | Error::Unknown) => {}
                Err(error) => panic!("client {}: {error}", role.number),
            }
        }
    });
}

/// Reads and writes in one session, until there is enough.
async fn one_session(role: &Arc<Role>, session: usize) -> Result<()> {
    let mut config = Config::new(role.endpoints.split(','));
    config.connect_timeout = Duration::from_secs(60);
    let cell = Cell::connect_with(config).await?;
    let mut files = Vec::new();
    for file in 0..FILES {
        files.push(cell.open(&path(file), OpenOptions::new().write().create(Create::Never)).await?);
    }
    let files = Arc::new(files);
    let mut readers = tokio::task::JoinSet::new();
    for reader in 0..READERS {
        let notes = Notes::of(role, &format!("{session}-{reader}"));
        let (role, files) = (Arc::clone(role), Arc::clone(&files));
        readers.spawn_blocking(move || read(&role, &files, reader, notes));
    }
    let notes = Notes::of(role, &format!("{session}-writer"));
    let mut outcome = write(Arc::clone(role), Arc::clone(&files), session, notes).await;
    while let Some(ended) = readers.join_next().await {
        outcome = outcome.and(ended.unwrap());
    }
    outcome?;
    cell.close().await
}

/// Reads one file after the other, each many times.
fn read(role: &Role, files: &[Node], reader: usize, mut notes: Notes) -> Result<()> {
    let session = tokio::runtime::Handle::current();
    let mut file = reader;
    while !role.has_enough() {
        file = (file + 1) % FILES;
        let mut run: Option<Run> = None;
        for _ in 0..BURST {
            let from = now().as_nanos();
            let cached = files[file].peek().map(Ok);
            let read = cached.unwrap_or_else(|| session.block_on(files[file].read()));
            let to = now().as_nanos();
            let contents = match read {
                Ok(reading) => reading.bytes(),
                Err(error) => {
                    run.take().inspect(|run| notes.line(&run.line(file)));
                    return Err(error);
                }
            };
            match &mut run {
                Some(run) if run.value == contents => (run.count, run.last) = (run.count + 1, (from, to)),
                other => {
                    other.take().inspect(|run| notes.line(&run.line(file)));
                    *other = Some(Run { value: contents, count: 1, first: (from, to), last: (from, to) });
                }
            }
        }
        run.take().inspect(|run| notes.line(&run.line(file)));
    }
    Ok(())
}

/// Reads in a row that found the same value.
struct Run {
    value: bytes::Bytes,
    count: u64,
    first: (Nanos, Nanos),
    last: (Nanos, Nanos),
}

impl Run {
    fn line(&self, file: usize) -> String {
        let value = str::from_utf8(&self.value).unwrap();
        let (first, last) = (self.first, self.last);
        format!("r {file} {value} {} {} {} {} {}", self.count, first.0, first.1, last.0, last.1)
    }
}

/// Writes one file after the other, each time something that nobody has written before.
async fn write(role: Arc<Role>, files: Arc<Vec<Node>>, session: usize, mut notes: Notes) -> Result<()> {
    for number in 0.. {
        if role.has_enough() {
            break;
        }
        let file = (number + role.number) % FILES;
        let mut value = String::new();
        let _a_string_takes_all = write!(value, "{}-{}-{session}-{number}", role.number, role.life);
        let from = now().as_nanos();
        notes.line(&format!("w {file} {value} {from}"));
        files[file].set(value.clone()).await?;
        notes.line(&format!("d {file} {value} {}", now().as_nanos()));
        // The readers should have something to read in between.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
