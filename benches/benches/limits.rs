//! Fills the limits of a cell, each in a cell of its own, while one more client reads and writes every 4 ms: no step of
//! a replica may take long, whatever the cell holds. `cargo bench -p wombat-benches --bench limits
//!  [-- only <measure>] [-- part <n>]`
//!
//! `part 16` fills a sixteenth of each limit. The replicas measure the processor time of their steps themselves; the
//! bench fails when one took longer than 20 ms.

use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use wombat_benches::load::{Load, Plan};
use wombat_benches::replicas::{Replicas, built};
use wombat_benches::{Result, arguments, until};
use wombat_client::{Cell, Config, Create, LockGuard, LockMode, Multi, Node, OpenOptions};
use wombat_proto::limits::{HANDLES_PER_SESSION, LOCK_WAITERS, MULTI_STEPS, SHARED_HOLDERS};

const REPLICAS: usize = 3;
/// No step may take longer.
const LONGEST_STEP: Duration = Duration::from_millis(20);
/// How often the other client does something.
const BYSTANDER: Duration = Duration::from_millis(4);
/// How many requests of one session are under way at once.
const IN_FLIGHT: usize = 256;
/// The children of the large directory, and the files with a lock.
const FILES: usize = 100_000;
/// Nodes in all, for snapshots.
const NODES: usize = 1_000_000;
const SESSIONS: usize = 100_000;
const CONNECTIONS: usize = 128;

/// What is filled.
const MEASURES: &[&str] = &["permits", "waiters", "directory", "locks", "breaks", "sessions", "nodes"];

fn main() -> Result<()> {
    let wombat = built(env!("CARGO_TARGET_TMPDIR"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let only = arguments::word("only");
    let mut slow = Vec::new();
    println!(
        "{:12}{:>14}{:>12}{:>14}{:>11}  longest step was",
        "", "bystander, ms", "step, ms", "slow steps", "fail-over"
    );
    for measure in MEASURES.iter().filter(|measure| only.as_deref().is_none_or(|only| only == **measure)) {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let cell = Replicas::start(&wombat, dir.path(), REPLICAS)?;
        let longest = tokio::task::LocalSet::new().block_on(&runtime, run(measure, &cell))?;
        slow.extend((longest > LONGEST_STEP).then_some(*measure));
    }
    if slow.is_empty() { Ok(()) } else { Err(format!("a step took too long: {}", slow.join(", ")).into()) }
}

/// Runs one measure with the bystander beside it. Returns how long the longest step of any replica took.
async fn run(measure: &str, cell: &Replicas) -> Result<Duration> {
    let before = cell.master().await;
    let bystander = Bystander::start(cell).await?;
    match measure {
        "permits" => permits(cell).await?,
        "waiters" => waiters(cell).await?,
        "directory" => directory(cell).await?,
        "locks" => locks(cell).await?,
        "breaks" => breaks(cell).await?,
        "sessions" => sessions(cell).await?,
        _ => nodes(cell).await?,
    }
    let waited = bystander.stop().await?;
    let fail_over = if cell.master().await.epoch == before.epoch { "no" } else { "yes" };
    let mut longest = (0, String::new());
    let mut slow = 0;
    for number in 0..REPLICAS {
        let status = cell.status(number).await.ok_or("a replica that does not answer")?;
        slow += status.slow_steps;
        longest =
            longest.max((status.longest_step_us, format!("{}, {}", status.longest_step, status.standing)));
    }
    let (waited, step) = (waited.as_secs_f64() * 1000.0, longest.0 as f64 / 1000.0);
    println!("{measure:12}{waited:>14.1}{step:>12.1}{slow:>14}{fail_over:>11}  {}", longest.1);
    Ok(Duration::from_micros(longest.0))
}

/// So many of a limit.
fn part(of: usize) -> usize {
    of / arguments::number("part", 1)
}

/// A client that reads and writes all the time, and notes how long it had to wait.
struct Bystander {
    stop: tokio::sync::oneshot::Sender<()>,
    task: JoinHandle<wombat_client::Result<Duration>>,
}

impl Bystander {
    async fn start(cell: &Replicas) -> Result<Bystander> {
        let own = Cell::connect_with(Config::new(cell.addresses()).no_cache()).await?;
        let file = own.open("/ls/local/bystander", writable()).await?;
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let task = tokio::task::spawn_local(async move {
            let mut longest = Duration::ZERO;
            let mut turns = tokio::time::interval(BYSTANDER);
            turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            while stopped.try_recv().is_err() {
                turns.tick().await;
                let began = Instant::now();
                file.set("written").await?;
                file.contents().await?;
                longest = longest.max(began.elapsed());
            }
            own.close().await?;
            Ok(longest)
        });
        Ok(Bystander { stop, task })
    }

    async fn stop(self) -> Result<Duration> {
        let _it_ends = self.stop.send(());
        Ok(self.task.await??)
    }
}

fn writable() -> OpenOptions {
    OpenOptions::new().write().create(Create::May)
}

/// Does something `count` times, with many of them under way at once.
async fn in_parallel<T: 'static, F>(count: usize, mut act: impl FnMut(usize) -> F) -> Result<Vec<T>>
where
    F: Future<Output = wombat_client::Result<T>> + 'static,
{
    let mut all = Vec::with_capacity(count);
    let mut under_way = std::collections::VecDeque::new();
    for number in 0..count {
        if under_way.len() == IN_FLIGHT {
            let first: JoinHandle<wombat_client::Result<T>> = under_way.pop_front().expect("it is full");
            all.push(first.await??);
        }
        under_way.push_back(tokio::task::spawn_local(act(number)));
    }
    for one in under_way {
        all.push(one.await??);
    }
    Ok(all)
}

/// Clients enough for so many handles, and how many each is to have.
async fn clients(cell: &Replicas, handles: usize) -> Result<Vec<(Cell, usize)>> {
    let each = HANDLES_PER_SESSION - 1;
    let clients = cell.connect(handles.div_ceil(each)).await?;
    let shares = (0..).map(|client| each.min(handles - client * each));
    Ok(clients.into_iter().zip(shares).collect())
}

/// Handles on one file.
async fn handles(cell: &Cell, path: &'static str, count: usize, options: OpenOptions) -> Result<Vec<Node>> {
    in_parallel(count, |_| {
        let (cell, options) = (cell.clone(), options.clone());
        async move { cell.open(path, options).await }
    })
    .await
}

/// Every permit of a semaphore is taken; then all are given back at once.
async fn permits(cell: &Replicas) -> Result<()> {
    let (clients, held) = hold_permits(cell).await?;
    drop(held);
    close(clients).await
}

async fn hold_permits(cell: &Replicas) -> Result<(Vec<Cell>, Vec<LockGuard>)> {
    let count = part(SHARED_HOLDERS);
    let (mut all, mut held) = (Vec::new(), Vec::new());
    for (client, share) in clients(cell, count).await? {
        let options = writable().permits(count as u32);
        let nodes = handles(&client, "/ls/local/permits", share, options).await?;
        let mut nodes = nodes.into_iter();
        held.extend(
            in_parallel(share, |_| {
                let node = nodes.next().expect("one for each");
                async move { node.try_acquire(LockMode::Shared).await }
            })
            .await?,
        );
        all.push(client);
    }
    Ok((all, held))
}

async fn close(clients: Vec<Cell>) -> Result<()> {
    for client in clients {
        client.close().await?;
    }
    Ok(())
}

/// As many wait for one lock as may; then their sessions end.
async fn waiters(cell: &Replicas) -> Result<()> {
    let holder = cell.connect(1).await?.remove(0);
    let lock = holder.open("/ls/local/lock", writable()).await?.acquire(LockMode::Exclusive).await?;
    let count = part(LOCK_WAITERS);
    let (mut all, mut waiting) = (Vec::new(), Vec::new());
    for (client, share) in clients(cell, count).await? {
        for node in handles(&client, "/ls/local/lock", share, writable()).await? {
            waiting.push(tokio::task::spawn_local(async move { node.acquire(LockMode::Exclusive).await }));
        }
        all.push(client);
    }
    wait_until(cell, |status| status.waiting as usize == count).await?;
    close(all).await?;
    for one in waiting {
        one.abort();
    }
    lock.release().await?;
    Ok(holder.close().await?)
}

async fn wait_until(cell: &Replicas, reached: impl Fn(&wombat_client::Status) -> bool) -> Result<()> {
    let began = Instant::now();
    while !reached(&cell.master().await) {
        if began.elapsed() > Duration::from_secs(120) {
            return Err("the master does not come as far as it should".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// A directory of so many files, made by Multis; then others are made and deleted there.
async fn directory(cell: &Replicas) -> Result<()> {
    let client = cell.connect(1).await?.remove(0);
    fill(&client, "large", part(FILES)).await?;
    in_parallel(64, |number| {
        let client = client.clone();
        async move {
            let path = format!("/ls/local/large/more-{number}");
            client.multi(Multi::new().create(&path, "")).await?;
            client.multi(Multi::new().delete(&path)).await
        }
    })
    .await?;
    let directory = client.open("/ls/local/large", OpenOptions::new().directory()).await?;
    directory.list().await?;
    empty(&client, "large", part(FILES)).await?;
    Ok(client.close().await?)
}

async fn fill(client: &Cell, directory: &str, files: usize) -> Result<()> {
    client.multi(Multi::new().create_directory(&format!("/ls/local/{directory}"))).await?;
    changes(client, directory, files, |multi, path| multi.create(path, "some contents")).await
}

async fn empty(client: &Cell, directory: &str, files: usize) -> Result<()> {
    changes(client, directory, files, |multi, path| multi.delete(path)).await
}

/// Changes each file of a directory, as many in one Multi as may be.
async fn changes(
    client: &Cell,
    directory: &str,
    files: usize,
    change: fn(Multi, &str) -> Multi,
) -> Result<()> {
    in_parallel(files.div_ceil(MULTI_STEPS), |number| {
        let client = client.clone();
        let numbers = number * MULTI_STEPS..files.min((number + 1) * MULTI_STEPS);
        let multi =
            numbers.fold(Multi::new(), |multi, file| change(multi, &format!("/ls/local/{directory}/{file}")));
        async move { client.multi(multi).await.map(drop) }
    })
    .await
    .map(drop)
}

/// So many locks are held, and listed.
async fn locks(cell: &Replicas) -> Result<()> {
    let mut all = Vec::new();
    let mut held: Vec<LockGuard> = Vec::new();
    for (client, share) in clients(cell, part(FILES)).await? {
        let own = all.len();
        held.extend(
            in_parallel(share, |number| {
                let client = client.clone();
                async move {
                    let node = client.open(&format!("/ls/local/lock-{own}-{number}"), writable()).await?;
                    node.try_acquire(LockMode::Exclusive).await
                }
            })
            .await?,
        );
        all.push(client);
    }
    let listed = all[0].locks(None).await?.len();
    if listed < held.len() {
        return Err(format!("{listed} locks are listed, {} are held", held.len()).into());
    }
    drop(held);
    close(all).await
}

/// A lock with as many holders as may be is broken.
async fn breaks(cell: &Replicas) -> Result<()> {
    let (clients, held) = hold_permits(cell).await?;
    let operator = cell.connect(1).await?.remove(0);
    operator.break_lock("/ls/local/permits", None, "to see how long it takes").await?;
    drop(held);
    operator.close().await?;
    close(clients).await
}

/// Very many sessions, which are listed and end all at once.
async fn sessions(cell: &Replicas) -> Result<()> {
    let sessions = part(SESSIONS);
    let load = Load::start(cell.addresses(), Plan { sessions, connections: CONNECTIONS, cached: None });
    until("all sessions are there", || load.tally().created == sessions).await?;
    let operator = cell.connect(1).await?.remove(0);
    let listed = operator.sessions().await?.len();
    if listed < sessions {
        return Err(format!("{listed} sessions are listed of {sessions}").into());
    }
    load.end();
    until("all sessions have ended", || load.tally().ended == sessions).await?;
    Ok(operator.close().await?)
}

/// A cell of very many nodes, with its snapshots.
async fn nodes(cell: &Replicas) -> Result<()> {
    let client = cell.connect(1).await?.remove(0);
    let directories = part(NODES).div_ceil(FILES);
    for number in 0..directories {
        fill(&client, &format!("directory-{number}"), FILES.min(part(NODES) - number * FILES)).await?;
    }
    empty(&client, "directory-0", FILES.min(part(NODES))).await?;
    Ok(client.close().await?)
}
