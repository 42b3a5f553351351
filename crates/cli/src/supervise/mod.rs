//! Running a command whose life is tied to ours: nothing that it has started outlives the lock it runs under.
//!
//! [`run`] is the only way to run a command, so every command has a [`guardian`].

mod descendants;
mod foreground;
mod guardian;
mod link;
mod parent;
mod signals;

pub(crate) use guardian::run_if_asked as run_guardian_if_asked;
pub(crate) use parent::die_with_this_process;
pub(crate) use signals::{Signals, expect_children};

use crate::exit::{self, Failure};
use crate::output;
use foreground::Foreground;
use link::{Deadline, FRAME, Order, Report};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant as ProcessTime};
use wombat_client::{Instant, LockGuard};

/// So many interrupts, each within [`INTERRUPTS_WITHIN`] of the one before, kill a command that goes on.
const INTERRUPTS: u32 = 3;
const INTERRUPTS_WITHIN: Duration = Duration::from_secs(5);

/// A command, and what it gets to know.
pub(crate) struct Job<'a> {
    pub(crate) command: &'a [OsString],
    pub(crate) environment: Vec<(&'static str, OsString)>,
}

/// The lock that a job runs under.
#[derive(Clone, Copy)]
pub(crate) struct Under<'a> {
    pub(crate) guard: &'a LockGuard,
    /// The session lease, from which follows how early to begin to stop the job.
    pub(crate) lease: Duration,
}

impl Under<'_> {
    /// With how much safe time left the job is killed.
    fn kill_margin(&self) -> Duration {
        Duration::from_secs(1).min(self.lease / 12)
    }

    /// By when the job must have ended if the lock is safe until then.
    fn deadline(&self, safe_until: Instant) -> Deadline {
        Deadline {
            terminate_at: safe_until - Duration::from_secs(3).min(self.lease / 4),
            kill_at: safe_until - self.kill_margin(),
        }
    }
}

/// Runs a job to its end and returns its status as a shell would show it. Signals that end us go to the job.
/// Under a lock, everything that the job has started is dead before the lock can be lost; that is a failure.
pub(crate) async fn run(
    job: Job<'_>,
    signals: &mut Signals,
    under: Option<Under<'_>>,
) -> Result<u8, Failure> {
    // If the guardian is killed, what it guarded comes to us.
    nix::sys::prctl::set_child_subreaper(true)?;
    signals.add(&[Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2])?;
    let foreground = Foreground::of_this_process();
    // Those of `wombat dev`, or of a shell that became this process, are none of the job's.
    let own_children = descendants::children();
    let mut guardian = Guardian::start(&job, under.map(|under| under.deadline(under.guard.safe_until())))?;
    let ended = attend(&mut guardian, &job, signals, under, &own_children).await;
    drop(guardian);
    if let Some(foreground) = foreground {
        foreground.take_back();
    }
    ended
}

/// Keeps the guardian informed, and waits for the end of the job.
async fn attend(
    guardian: &mut Guardian,
    job: &Job<'_>,
    signals: &mut Signals,
    under: Option<Under<'_>>,
    own_children: &[Pid],
) -> Result<u8, Failure> {
    let mut started = false;
    let mut interrupts = Interrupts { count: 0, last: None };
    let mut known = Instant::default();
    loop {
        let moved = async {
            let Some(under) = under else { return std::future::pending().await };
            (under, under.guard.safe_until_changed(known).await)
        };
        let overdue = async {
            let Some(under) = under else { return std::future::pending().await };
            under.guard.unsafe_within(under.kill_margin() / 2).await;
        };
        tokio::select! {
            biased;
            report = guardian.report() => match report {
                Some(Report::Started) => started = true,
                Some(Report::NotStarted { errno }) => return Err(cannot_run(job, errno)),
                Some(Report::Ended { code, deadline_passed, survivors }) => {
                    tell_of_survivors(survivors);
                    return if deadline_passed { Err(stopped(under)) } else { Ok(code) };
                }
                None => {
                    tell_of_survivors(descendants::end_all(own_children, |_| {}));
                    let text = "the guardian of the command was killed, and so the command was";
                    return Err(Failure::new(exit::OTHER, "Guardian", text));
                }
            },
            received = signals.receive() => {
                // What a key of the terminal sends, the command has got as well: it is in our process group.
                let from_key =
                    received.from_kernel && matches!(received.signal, Signal::SIGINT | Signal::SIGQUIT);
                if received.signal == Signal::SIGINT && interrupts.are_enough() {
                    guardian.send(Order::Kill);
                } else {
                    // The command may have been stopped, and then it could not act on the key.
                    let signal = if from_key && started { Signal::SIGCONT } else { received.signal };
                    guardian.send(Order::Forward(signal as i32));
                }
            }
            (under, safe_until) = moved => {
                known = safe_until;
                guardian.send(Order::Deadline(under.deadline(safe_until)));
            }
            () = overdue => {
                // The guardian ought to have done it.
                tell_of_survivors(descendants::end_all(own_children, |_| {}));
                return Err(stopped(under));
            }
        }
    }
}

/// Counts interrupts in quick succession.
struct Interrupts {
    count: u32,
    last: Option<ProcessTime>,
}

impl Interrupts {
    /// Counts one more, and says when the next will kill. Returns whether they are enough for that.
    fn are_enough(&mut self) -> bool {
        let quick = self.last.is_some_and(|last| last.elapsed() < INTERRUPTS_WITHIN);
        self.count = if quick { self.count + 1 } else { 1 };
        self.last = Some(ProcessTime::now());
        if self.count + 1 == INTERRUPTS {
            output::notice("wombat: one more interrupt kills the command");
        }
        self.count >= INTERRUPTS
    }
}

/// Why the job was stopped before its own end.
fn stopped(under: Option<Under<'_>>) -> Failure {
    match under {
        Some(under) if under.guard.is_revoked() => Failure::lost(
            "an administrator broke the lock, and the command was stopped before anybody else could have it",
        )
        .hint("wombat admin audit says who it was, and why"),
        _ => Failure::lost(
            "the lock could not be kept for sure, and the command was stopped before it could be lost",
        )
        .hint("for most of the session lease the cell was out of reach, or this process stood still"),
    }
}

fn cannot_run(job: &Job<'_>, errno: i32) -> Failure {
    let error = std::io::Error::from_raw_os_error(errno);
    let code = match error.kind() {
        ErrorKind::NotFound => exit::COMMAND_NOT_FOUND,
        _ => exit::NOT_EXECUTABLE,
    };
    let program = job.command.first().map(|program| program.to_string_lossy());
    Failure::new(code, "Command", format!("cannot run {}: {error}", program.unwrap_or_default()))
}

fn tell_of_survivors(count: u32) {
    if count > 0 {
        output::notice(format!(
            "wombat: {count} processes that the command started run on: they belong to another user or cannot be killed, end them by hand"
        ));
    }
}

/// Our end of the guardian.
struct Guardian {
    process: Child,
    orders: UnixStream,
    reports: tokio::net::UnixStream,
}

impl Guardian {
    /// Starts a guardian, and through it the job.
    fn start(job: &Job<'_>, deadline: Option<Deadline>) -> Result<Guardian, Failure> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        if let Some(deadline) = deadline {
            Order::Deadline(deadline).write(&ours)?;
        }
        // This one is inherited.
        fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0(guardian::NAME).arg(theirs.as_raw_fd().to_string()).args(job.command);
        command.envs(job.environment.iter().map(|(name, value)| (name, value)));
        // No signal to our process group ends or stops it.
        signals::start_with(&mut command, SigSet::all());
        let process = command
            .spawn()
            .map_err(|error| Failure::from(error).about("cannot start the guardian of the command"))?;
        Ok(Guardian { process, orders: ours.try_clone()?, reports: tokio::net::UnixStream::from_std(ours)? })
    }

    fn send(&mut self, order: Order) {
        // If it is gone, or has been stopped for so long that no more fits in, there is `overdue`.
        let _gone_or_stopped = order.write(&self.orders);
        self.wake();
    }

    /// Continues it if it was stopped: it has something to do.
    fn wake(&mut self) {
        // Once it is buried, its number may be that of another process.
        if let Ok(None) = self.process.try_wait() {
            let _gone_already = kill(Pid::from_raw(self.process.id() as i32), Signal::SIGCONT);
        }
    }

    /// Its next report; none once it is gone.
    async fn report(&mut self) -> Option<Report> {
        loop {
            let mut frame = [0; FRAME];
            self.reports.readable().await.ok()?;
            match self.reports.try_read(&mut frame) {
                Ok(FRAME) => return Report::read(&frame).ok(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                _ => return None,
            }
        }
    }
}

impl Drop for Guardian {
    /// Waits until it is gone, and with it all that it guarded.
    fn drop(&mut self) {
        let _gone_already = self.orders.shutdown(std::net::Shutdown::Both);
        self.wake();
        let _buried_already = self.process.wait();
    }
}
