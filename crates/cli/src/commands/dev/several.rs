//! `wombat dev --replicas N`: a cell of several real server processes, each with a directory of its own.

use super::environment::environment;
use super::plan::Plan;
use crate::exit::Failure;
use crate::output;
use crate::supervise::{self, Job, Signals};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use wombat_client::{Status, replica_status};

/// How long the cell may take to found itself and elect a master.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How often the replicas are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Where the addresses of the replicas are kept with `--dir`: a cell does not move.
const ADDRESSES: &str = "endpoints";

/// A server process.
struct Replica {
    address: String,
    log: PathBuf,
    child: Child,
    /// Whether it was told that it is gone.
    gone: bool,
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _it_is_gone = self.child.kill();
        }
        let _it_is_gone = self.child.wait();
    }
}

pub(super) async fn run(plan: &Plan) -> Result<u8, Failure> {
    if plan.listen.is_some() {
        return Err(Failure::usage("--listen is for one replica: several take free ports"));
    }
    let mut signals = Signals::listen()?;
    // Dropped, and so deleted, after the servers have stopped.
    let temporary = if plan.dir.is_none() { Some(tempfile::tempdir()?) } else { None };
    let dir = plan.dir.clone().or_else(|| temporary.as_ref().map(|dir| dir.path().to_owned()));
    let dir = dir.unwrap_or_default();
    let addresses = addresses(&dir, plan.replicas)?;
    let started = addresses.iter().zip(1..).map(|(at, n)| start(plan, &dir, n, at, &addresses));
    let mut replicas = started.collect::<Result<Vec<Replica>, Failure>>()?;
    tokio::select! {
        ready = until_ready(&mut replicas) => drop(ready?),
        _ = signals.next() => return Ok(0),
    }
    let result = if plan.command.is_empty() {
        stay(&addresses, &mut replicas, &mut signals).await
    } else {
        let job = Job { command: &plan.command, environment: environment(&plan.cell, addresses.join(",")) };
        supervise::run(job, &mut signals, None).await
    };
    for replica in &mut replicas {
        // Once it is buried, its number may be that of another process.
        if let Ok(None) = replica.child.try_wait() {
            let _it_is_gone = kill(Pid::from_raw(replica.child.id() as i32), Signal::SIGTERM);
        }
    }
    for replica in &mut replicas {
        let _it_is_gone = replica.child.wait();
    }
    result
}

/// How many replicas the cell has whose data is in a directory.
pub(super) fn replicas_in(dir: &Path) -> Option<usize> {
    match std::fs::read_to_string(dir.join(ADDRESSES)) {
        Ok(addresses) => Some(addresses.trim().split(',').count()),
        // A cell of one has its data in the directory itself.
        Err(_) => dir.join("identity").exists().then_some(1),
    }
}

/// The addresses of the replicas: those that they had before, or free ones.
fn addresses(dir: &Path, replicas: u32) -> Result<Vec<String>, Failure> {
    std::fs::create_dir_all(dir)?;
    let file = dir.join(ADDRESSES);
    if let Ok(text) = std::fs::read_to_string(&file) {
        return Ok(text.trim().split(',').map(str::to_owned).collect());
    }
    // All at once, so that none is taken twice; they are free again when the servers ask for them.
    let listeners = (0..replicas).map(|_| TcpListener::bind("127.0.0.1:0"));
    let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
    let addresses = listeners.iter().map(|listener| Ok(listener.local_addr()?.to_string()));
    let addresses = addresses.collect::<Result<Vec<String>, std::io::Error>>()?;
    std::fs::write(file, addresses.join(","))?;
    Ok(addresses)
}

/// Starts a replica: this very program, as a server.
fn start(plan: &Plan, dir: &Path, number: u32, address: &str, all: &[String]) -> Result<Replica, Failure> {
    let log = dir.join(format!("{number}.log"));
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["serve", "--cell", &plan.cell, "--listen", address, "--peers", &all.join(",")]);
    command.args(["--session-lease", &humantime::format_duration(plan.session_lease).to_string()]);
    command.arg("--dir").arg(dir.join(number.to_string()));
    command.env_remove("WOMBAT_CONFIG").env_remove("WOMBAT_ADVERTISE").env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&log)?);
    command.process_group(0);
    supervise::die_with_this_process(&mut command);
    let child = command.spawn()?;
    Ok(Replica { address: address.to_owned(), log, child, gone: false })
}

/// Waits until the cell has a master.
async fn until_ready(replicas: &mut [Replica]) -> Result<Status, Failure> {
    let by = tokio::time::Instant::now() + READY_WITHIN;
    loop {
        if let Some(status) = master(replicas).await {
            return Ok(status);
        }
        for replica in &mut *replicas {
            if let Some(status) = replica.child.try_wait()? {
                let said = std::fs::read_to_string(&replica.log).unwrap_or_default();
                let last = said.lines().last().unwrap_or_default();
                let text = format!("the replica at {} has ended, {status}: {last}", replica.address);
                return Err(Failure::new(crate::exit::OTHER, "Server", text));
            }
        }
        if tokio::time::Instant::now() > by {
            let text = "no replica became master";
            return Err(Failure::new(crate::exit::TIMEOUT, "Timeout", text));
        }
        tokio::time::sleep(LOOK_EVERY / 10).await;
    }
}

/// What the master says, if there is one.
async fn master(replicas: &[Replica]) -> Option<Status> {
    let mut found: Option<Status> = None;
    for replica in replicas.iter().filter(|replica| !replica.gone) {
        let status = replica_status(&replica.address, "", LOOK_EVERY).await.ok();
        let later = |status: &Status| found.as_ref().is_none_or(|found| found.epoch < status.epoch);
        if let Some(status) = status.filter(|status| status.standing == "master").filter(later) {
            found = Some(status);
        }
    }
    found
}

/// Tells how to use the cell, and what becomes of it, until interrupted.
async fn stay(all: &[String], replicas: &mut [Replica], signals: &mut Signals) -> Result<u8, Failure> {
    output::line(format_args!("A cell of {} is ready. In another terminal:", replicas.len()));
    output::line("");
    output::line(format_args!("  export WOMBAT_ENDPOINTS={}", all.join(",")));
    output::line("  wombat status");
    output::line("  wombat lock /ls/local/lock -- sh -c 'echo I hold token $WOMBAT_TOKEN'");
    for replica in replicas.iter() {
        output::line(format_args!(
            "  kill -9 {}    # the replica at {}",
            replica.child.id(),
            replica.address
        ));
    }
    output::line("");
    output::line("What becomes of it (Ctrl-C stops):");
    let mut epoch = 0;
    let watch = async {
        loop {
            for replica in &mut *replicas {
                if !replica.gone && replica.child.try_wait()?.is_some() {
                    replica.gone = true;
                    output::line(format_args!("the replica at {} is gone", replica.address));
                }
            }
            if let Some(status) = master(replicas).await.filter(|status| status.epoch > epoch) {
                epoch = status.epoch;
                output::line(format_args!(
                    "replica {} at {} is master, epoch {epoch}",
                    status.replica, status.master
                ));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::select! {
        error = watch => error,
        _ = signals.next() => Ok(0),
    }
}
