//! The story that fencing tokens are for: a primary freezes, another takes its place, and the first wakes up
//! in the middle of a write. On real processes: a cell of five, a store, and the two primaries.
//!
//! `cargo run --release --example zombie`

mod cell;
mod primary;
mod process;
mod stage;
mod store;

use cell::Replicas;
use process::{Process, Result};
use stage::{Stage, Who};
use std::time::Duration;
use wombat_client::{Cell, LockInfo};

const LOCK: &str = "/ls/local/primary";
const SESSION_LEASE: Duration = Duration::from_secs(3);
const LOCK_DELAY: Duration = Duration::from_secs(1);

const CELL: Who = Who { name: "cell", colour: 36 };
const STORE: Who = Who { name: "store", colour: 35 };
const A: Who = Who { name: "A", colour: 33 };
const B: Who = Who { name: "B", colour: 32 };

/// How long the whole story may take.
const AT_MOST: Duration = Duration::from_secs(120);

/// Every process of the story is this program, in another role.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let role: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if !role.is_empty() {
        process::end_with_the_story()?;
    }
    match role[..] {
        ["replica", address, peers, dir] => cell::serve(address, peers, dir).await,
        ["store"] => store::serve().await,
        ["primary", name, endpoints, store] => primary::play(name, endpoints, store).await,
        [] => tokio::select! {
            told = tokio::time::timeout(AT_MOST, tell()) => told?,
            interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        },
        _ => Err("the story takes no arguments".into()),
    }
}

async fn tell() -> Result<()> {
    let stage = Stage::new();
    stage.line("Two processes, A and B, write to a store, under a lock: one at a time.");
    stage.line("A freezes while it has the lock, and wakes up when B has it.");
    stage.scene("Five replicas, a store, and two who would be primary");
    let dir = tempfile::tempdir()?;
    let mut replicas = Replicas::start(dir.path())?;
    stage.says(CELL, format!("five replicas, five processes: {}", replicas.pids().join(" ")));
    let master = replicas.master_after(0).await?;
    stage.says(CELL, format!("replica {} is master, epoch {}", master.replica, master.epoch));
    let mut store = Process::start("the store", &["store"])?;
    let store_at = store.hears("listens").await?;
    stage.says(STORE, format!("process {}; it refuses a token smaller than one it saw", store.pid()));
    let endpoints = replicas.endpoints();
    let watcher = Cell::connect(endpoints.split(',')).await?;

    let mut a = Process::start("A", &["primary", "A", &endpoints, &store_at])?;
    stage.says(A, format!("process {}, session {}", a.pid(), a.hears("session").await?));
    let first: u64 = a.asks("acquire", "token").await?.parse()?;
    stage.says(A, format!("has the lock {LOCK}: token {first}"));
    let mut b = Process::start("B", &["primary", "B", &endpoints, &store_at])?;
    stage.says(B, format!("process {}, session {}", b.pid(), b.hears("session").await?));
    b.tell("acquire")?;
    lock_until(&watcher, |lock| lock.waiting == 1).await?;
    stage.says(B, "wants the lock, too, and waits in line");
    writes(&stage, &mut a, A, "one").await?;

    stage.scene("kill -9: the master dies, and nobody loses anything");
    let pid = replicas.kill(&master)?;
    stage.says(CELL, format!("replica {}, the master, is killed: process {pid}", master.replica));
    let next = replicas.master_after(master.epoch).await?;
    stage.says(CELL, format!("replica {} is master, epoch {}", next.replica, next.epoch));
    let lock = lock_until(&watcher, |lock| lock.waiting == 1).await?;
    let holder = lock.holders.first().ok_or("nobody holds the lock")?;
    expect(holder.token == first, "the lock was lost with the master")?;
    let (session, token) = (holder.session, holder.token);
    stage.says(CELL, format!("still, session {session} has the lock, token {token}; one waits"));
    writes(&stage, &mut a, A, "two").await?;

    stage.scene("SIGSTOP: A freezes after it has looked at its lock, before it writes");
    let left = a.asks("look", "safe").await?;
    stage.says(A, format!("looks: its lock is safe for {left} ms more. It is about to write"));
    a.freeze().await?;
    a.tell("send three")?;
    stage.says(A, "is frozen");
    let lock = lock_until(&watcher, |lock| lock.delay_left_ms > 0).await?;
    let delay = lock.delay_left_ms;
    stage.says(CELL, format!("has not heard of A for its lease of {SESSION_LEASE:?}: ends its session"));
    stage.says(CELL, format!("gives the lock to nobody for another {delay} ms: its lock-delay"));
    let second: u64 = b.hears("token").await?.parse()?;
    expect(second > first, "the tokens do not grow")?;
    stage.says(B, format!("has the lock: token {second}, greater than {first}"));
    writes(&stage, &mut b, B, "four").await?;

    stage.scene("SIGCONT: the zombie wakes up in the middle of its write");
    a.wake()?;
    let answer = a.hears("store").await?;
    stage.says(A, "writes \"three\", as it was about to, without looking again");
    stage.says(STORE, answer.as_str());
    expect(answer == format!("refused: token {first} is older than {second}"), "the store took it")?;
    let left = a.asks("look", "safe").await?;
    expect(left == "no", "a zombie's guard calls its lock safe")?;
    stage.says(A, format!("looks now: is its lock safe? {left}"));
    stage.says(A, format!("asks the cell: {}", a.asks("ask", "cell").await?));
    let kept = store.asks("show", "holds").await?;
    expect(kept == format!("\"four\" of B, token {second}"), "the store holds something else")?;
    stage.says(STORE, format!("holds {kept}: the zombie has done no harm"));

    stage.scene("The end");
    b.asks("release", "released").await?;
    stage.says(B, "gives the lock back");
    watcher.close().await?;
    stage.says(CELL, format!("{} replicas of 5 have seen it through", replicas.pids().len()));
    Ok(())
}

/// Looks at its lock, then writes: what every primary should do, and what is not enough.
async fn writes(stage: &Stage, primary: &mut Process, who: Who, text: &str) -> Result<()> {
    let left = primary.asks("look", "safe").await?;
    stage.says(who, format!("looks: its lock is safe for {left} ms more. Writes \"{text}\""));
    let answer = primary.asks(&format!("send {text}"), "store").await?;
    stage.says(STORE, answer.as_str());
    expect(answer.starts_with("took"), "the store refused the holder")
}

/// How the lock is, once it is as wanted.
async fn lock_until(cell: &Cell, wanted: impl Fn(&LockInfo) -> bool) -> Result<LockInfo> {
    loop {
        if let Some(lock) = cell.locks(Some(LOCK)).await?.into_iter().find(&wanted) {
            return Ok(lock);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn expect(holds: bool, otherwise: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(format!("the story went wrong: {otherwise}").into()) }
}
