//! Running a command whose life is tied to ours: in a process group of its own, ended as a whole.

mod guardian;
mod signals;
mod terminal;

pub(crate) use guardian::Guardian;
pub(crate) use signals::Signals;

use crate::exit::{self, Failure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getppid};
use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::ExitStatus;
use std::time::Duration;
use terminal::Terminal;
use tokio::process::{Child, Command};
use wombat_client::LockGuard;

/// How long what a command leaves behind gets between SIGTERM and SIGKILL.
const LEFTOVERS: Duration = Duration::from_secs(2);

/// A command, and what it gets to know.
pub(crate) struct Job<'a> {
    pub(crate) command: &'a [OsString],
    pub(crate) environment: Vec<(&'static str, OsString)>,
}

/// The lock that a job runs under.
pub(crate) struct Under<'a> {
    pub(crate) guard: &'a LockGuard,
    /// The session lease, from which follows how early to begin to stop the job.
    pub(crate) lease: Duration,
}

impl Under<'_> {
    /// With how much safe time left the job is asked to stop, and with how much it is killed.
    fn margins(&self) -> (Duration, Duration) {
        (Duration::from_secs(3).min(self.lease / 4), Duration::from_secs(1).min(self.lease / 12))
    }
}

/// Runs a job to its end and returns its status as a shell would show it. Signals that end us go to the job.
/// Under a lock, the whole process group is dead before the lock can be lost; that is a failure.
pub(crate) async fn run(
    job: Job<'_>,
    signals: &mut Signals,
    guardian: Option<&mut Guardian>,
    under: Option<Under<'_>>,
) -> Result<u8, Failure> {
    // What the command's children leave behind becomes ours to bury.
    nix::sys::prctl::set_child_subreaper(true)?;
    let terminal = Terminal::of_this_process();
    let mut child = spawn(&job, terminal)?;
    let group = Pid::from_raw(child.id().expect("it was not waited for") as i32);
    if let Some(guardian) = guardian {
        guardian.guard(group);
    }
    let ended = watch(&mut child, group, signals, under).await;
    end_leftovers(group).await;
    if let Some(terminal) = terminal {
        terminal.take_back();
    }
    ended.map(code_of)
}

async fn watch(
    child: &mut Child,
    group: Pid,
    signals: &mut Signals,
    under: Option<Under<'_>>,
) -> Result<ExitStatus, Failure> {
    let (term, kill) = under.as_ref().map_or_else(Default::default, Under::margins);
    let unsafe_within = async |margin| match &under {
        Some(under) => under.guard.unsafe_within(margin).await,
        None => std::future::pending().await,
    };
    loop {
        tokio::select! {
            status = child.wait() => return Ok(status?),
            signal = signals.next() => {
                let _gone_anyway = killpg(group, signal);
            }
            () = unsafe_within(term) => break,
        }
    }
    let _gone_anyway = killpg(group, Signal::SIGTERM);
    tokio::select! {
        _ = child.wait() => {}
        () = unsafe_within(kill) => {}
    }
    // Whatever is left of the group dies now, with the lock still surely held.
    let _gone_anyway = killpg(group, Signal::SIGKILL);
    let _its_status_is_ours = child.wait().await;
    Err(match under {
        Some(under) if under.guard.is_revoked() => Failure::lost(
            "an administrator broke the lock, and the command was stopped before anybody else could have it",
        )
        .hint("wombat admin audit says who it was, and why"),
        _ => Failure::lost(
            "the lock could not be kept for sure, and the command was stopped before it could be lost",
        )
        .hint("the cell was out of reach for most of the session lease"),
    })
}

/// Sees to it that a process, in a group of its own, does not outlive this one.
pub(crate) fn die_with_this_process(command: &mut std::process::Command) {
    command.process_group(0);
    let parent = nix::unistd::getpid();
    // SAFETY: only async-signal-safe calls between fork and exec: prctl, getppid.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            match getppid() == parent {
                true => Ok(()),
                false => Err(Errno::ESRCH.into()), // We died before the child could ask to die with us.
            }
        });
    }
}

fn spawn(job: &Job<'_>, terminal: Option<Terminal>) -> Result<Child, Failure> {
    let (program, arguments) = job.command.split_first().expect("clap sees to a command");
    let mut command = Command::new(program);
    command.args(arguments);
    for (name, value) in &job.environment {
        command.env(name, value);
    }
    die_with_this_process(command.as_std_mut());
    if let Some(terminal) = terminal {
        // SAFETY: only async-signal-safe calls between fork and exec: sigprocmask, tcsetpgrp.
        unsafe {
            command.pre_exec(move || {
                terminal.give_to_this_process();
                Ok(())
            });
        }
    }
    command.spawn().map_err(|error| {
        let shown = program.to_string_lossy();
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => exit::COMMAND_NOT_FOUND,
            _ => exit::NOT_EXECUTABLE,
        };
        if let Some(terminal) = terminal {
            terminal.take_back();
        }
        Failure::new(code, "Command", format!("cannot run {shown}: {error}"))
    })
}

/// Ends what a command has left running in its group: it would go on without the lock.
async fn end_leftovers(group: Pid) {
    if killpg(group, Signal::SIGTERM).is_err() {
        return; // Nobody is left.
    }
    let begun = tokio::time::Instant::now();
    while killpg(group, None).is_ok() && begun.elapsed() < LEFTOVERS {
        let _not_dead_yet = waitpid(Pid::from_raw(-group.as_raw()), Some(WaitPidFlag::WNOHANG));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let _nobody_left = killpg(group, Signal::SIGKILL);
}

/// A status as a shell shows it.
fn code_of(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, Some(signal)) => exit::SIGNAL + signal as u8,
        (None, None) => exit::OTHER,
    }
}
