//! The guardian: the process that starts a command, and that ends all of it in time.
//!
//! It is this program once more, and does nothing else, so that it acts whatever happens to the process that
//! holds the lock: that one may be killed, or stand still. The command is the guardian's child, and so becomes
//! whatever the command starts: the guardian is a subreaper.

use super::link::{Deadline, Order, Report};
use super::{descendants, die_with_this_process, signals};
use crate::exit::{self, Failure};
use crate::output;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::sys::wait::WaitStatus;
use nix::unistd::{ForkResult, Pid, fork, getpgid, setsid};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;
use wombat_client::{Instant, now};

/// The guardian's name for itself, as its argument 0.
pub(super) const NAME: &str = "wombat-guardian";

/// How long what a command leaves running gets between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// If this process was started as a guardian, its whole life.
pub(crate) fn run_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    if arguments.next()? != NAME {
        return None;
    }
    let link = arguments.next().and_then(|number| take_link(number.to_str()?.parse().ok()?));
    let command: Vec<OsString> = arguments.collect();
    let (Some(link), false) = (link, command.is_empty()) else {
        let text = format!("{NAME} is a part of wombat, which starts it: run wombat lock instead");
        let code = Failure::usage(text).report(false);
        output::finish();
        return Some(code);
    };
    match guard(&link, &command) {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(_) => {
            // Whatever failed: what may run must not go on without a guardian.
            descendants::end_all(|_| {});
            Some(ExitCode::FAILURE)
        }
    }
}

/// The connection to `wombat`, which it has left open under this number.
fn take_link(number: i32) -> Option<UnixStream> {
    // SAFETY: only borrowed to ask whether it is open; the command must not inherit it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    // SAFETY: it is open, and nothing else in this process knows of it.
    Some(unsafe { UnixStream::from_raw_fd(number) })
}

/// Starts the command and sees to its end.
fn guard(link: &UnixStream, command: &[OsString]) -> std::io::Result<()> {
    // A name without "wombat" in it: whoever ends all of that name, ends what is guarded too.
    nix::sys::prctl::set_name(c"guardian")?;
    nix::sys::prctl::set_child_subreaper(true)?;
    // It was started with all signals blocked: it ends when there is nothing left to guard.
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    let children = SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    // This clock goes on while the machine is suspended, as leases do.
    let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
    let mut guarded = match start(command) {
        Ok(command) => Guarded { command, code: None, deadline: None, deadline_passed: false, grace: None },
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(Errno::EINVAL as i32);
            return Report::NotStarted { errno }.write(link);
        }
    };
    Report::Started.write(link)?;
    loop {
        if let Some(ended) = guarded.step(link)? {
            return ended.write(link);
        }
        set_timer(&timer, guarded.next_step_at())?;
        wait_for_any([link.as_fd(), children.as_fd(), timer.as_fd()], PollTimeout::NONE)?;
        while children.read_signal()?.is_some() {}
    }
}

/// Starts the command in the process group of `wombat`, so that the terminal treats both as one job. When its
/// program begins, the guardian is out of the group: what stops or kills the group must not reach it. In the same
/// session it would be a parent that could continue the group, and Ctrl-Z without a shell would stop it for good.
fn start(command: &[OsString]) -> std::io::Result<Pid> {
    let (program, arguments) = command.split_first().expect("there is a command");
    let mut command = Command::new(program);
    command.args(arguments);
    signals::start_with(&mut command, SigSet::empty());
    die_with_this_process(&mut command);
    let (mut ours, mut theirs) = UnixStream::pair()?;
    // SAFETY: a guardian has one thread, so the child may do whatever the parent may.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            drop(theirs);
            setsid()?;
            ours.write_all(&GO)?;
            // If the program begins, this ends without a word.
            let mut errno = [0; 4];
            match ours.read_exact(&mut errno) {
                Ok(()) => Err(std::io::Error::from_raw_os_error(i32::from_ne_bytes(errno))),
                Err(_) => Ok(child), // `descendants::reap` buries it.
            }
        }
        ForkResult::Child => {
            drop(ours);
            if theirs.read_exact(&mut GO.clone()).is_ok() {
                let errno = command.exec().raw_os_error().unwrap_or(Errno::EINVAL as i32);
                let _it_is_gone = theirs.write_all(&errno.to_ne_bytes());
            }
            std::process::exit(i32::from(exit::NOT_EXECUTABLE));
        }
    }
}

/// What lets the child run its program.
const GO: [u8; 1] = [1];

fn set_timer(timer: &TimerFd, at: Option<Instant>) -> nix::Result<()> {
    let Some(at) = at else { return timer.unset() };
    // Zero would mean never.
    let at = TimeSpec::from_duration(Duration::from_nanos(at.as_nanos().max(1)));
    timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)
}

/// What is guarded, and how far its end has come.
struct Guarded {
    command: Pid,
    /// The command's status as a shell shows it, once it has ended.
    code: Option<u8>,
    /// None where no lock is held.
    deadline: Option<Deadline>,
    /// Whether the command was asked to stop, or killed, because of the deadline.
    deadline_passed: bool,
    /// When what the command has left running is killed, once the command has ended.
    grace: Option<Instant>,
}

impl Guarded {
    /// Does whatever is due. Returns the report once nothing is left.
    fn step(&mut self, link: &UnixStream) -> std::io::Result<Option<Report>> {
        // Orders first: after a pause of this process, the deadline may have moved on long ago.
        while wait_for_any([link.as_fd()], PollTimeout::ZERO)? {
            match Order::read(link) {
                Ok(Order::Deadline(deadline)) => self.deadline = Some(deadline),
                Ok(Order::Forward(number)) => {
                    if let Ok(signal) = Signal::try_from(number) {
                        self.forward(signal);
                    }
                }
                Ok(Order::Kill) | Err(_) => return Ok(Some(self.kill())),
            }
        }
        if !descendants::reap(|status| note_code(self.command, &mut self.code, status)) {
            return Ok(Some(self.report(0)));
        }
        let now = now();
        if let Some(deadline) = self.deadline {
            if now >= deadline.kill_at {
                self.deadline_passed = true;
                return Ok(Some(self.kill()));
            }
            if now >= deadline.terminate_at && !self.deadline_passed {
                self.deadline_passed = true;
                terminate(&self.all());
            }
        }
        match self.grace {
            Some(end) if now >= end => return Ok(Some(self.kill())),
            None if self.code.is_some() => {
                self.grace = Some(now + GRACE);
                terminate(&self.all());
            }
            _ => {}
        }
        Ok(None)
    }

    /// When something is due without any news.
    fn next_step_at(&self) -> Option<Instant> {
        let deadline = self.deadline.map(|deadline| match self.deadline_passed {
            true => deadline.kill_at,
            false => deadline.terminate_at,
        });
        deadline.into_iter().chain(self.grace).min()
    }

    fn all(&self) -> Vec<descendants::Process> {
        descendants::of(Pid::this())
    }

    /// Sends on a signal that `wombat` got: to the process group of the command, as the terminal would; what
    /// programs use for purposes of their own, to the command alone.
    fn forward(&self, signal: Signal) {
        let mut processes = self.all();
        if let (None, Ok(group)) = (self.code, getpgid(Some(self.command))) {
            let alone = matches!(signal, Signal::SIGUSR1 | Signal::SIGUSR2);
            processes.retain(|it| if alone { it.pid == self.command } else { it.group == group });
        }
        descendants::signal(&processes, signal);
        // One that is stopped could not act on it.
        descendants::signal(&processes, Signal::SIGCONT);
    }

    /// Kills everything, first of all the command: to find the others takes longer.
    fn kill(&mut self) -> Report {
        if self.code.is_none() {
            let _gone_already = kill(self.command, Signal::SIGKILL);
        }
        let survivors = descendants::end_all(|status| note_code(self.command, &mut self.code, status));
        self.report(survivors.len() as u32)
    }

    fn report(&self, survivors: u32) -> Report {
        let code = self.code.unwrap_or(exit::OTHER);
        Report::Ended { code, deadline_passed: self.deadline_passed, survivors }
    }
}

/// Asks processes to stop, also those that are stopped.
fn terminate(processes: &[descendants::Process]) {
    descendants::signal(processes, Signal::SIGTERM);
    descendants::signal(processes, Signal::SIGCONT);
}

/// If it is the command that has ended: its status as a shell shows it.
fn note_code(command: Pid, code: &mut Option<u8>, status: WaitStatus) {
    match status {
        WaitStatus::Exited(pid, status) if pid == command => *code = Some(status as u8),
        WaitStatus::Signaled(pid, signal, _) if pid == command => {
            *code = Some(exit::SIGNAL + signal as u8);
        }
        _ => {}
    }
}

/// Waits until there is something to read in one of the files. Returns whether there is.
fn wait_for_any<const N: usize>(files: [BorrowedFd<'_>; N], timeout: PollTimeout) -> nix::Result<bool> {
    let mut files = files.map(|file| PollFd::new(file, PollFlags::POLLIN));
    match poll(&mut files, timeout) {
        Err(Errno::EINTR) => Ok(false),
        polled => Ok(polled? > 0),
    }
}
