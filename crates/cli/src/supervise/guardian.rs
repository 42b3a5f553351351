//! The guardian: the process that starts a command, and that ends all of it in time.
//!
//! It is this program once more, and does nothing else, so that it acts whatever happens to the process that
//! holds the lock: that one may be killed, or stand still. The command is the guardian's child, and so becomes
//! whatever the command starts: the guardian is a subreaper.

use super::link::{Deadline, Order, Report};
use super::parent::die_with_this_process;
use super::{descendants, signals};
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
        let failure = Failure::usage(text);
        output::failure(&failure, false);
        output::finish();
        return Some(failure.code());
    };
    match guard(&link, &command) {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(_) => {
            // Whatever failed: what may run must not go on without a guardian.
            descendants::end_all(&[], |_| {});
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
        Ok((command, exec)) => Guarded::new(command, exec),
        Err(error) => return not_started(&error).write(link),
    };
    loop {
        if let Some(ended) = guarded.step(link)? {
            return ended.write(link);
        }
        set_timer(&timer, guarded.next_step_at())?;
        // Once the program has begun, only the other three are waited for.
        let exec = guarded.exec.as_ref().map_or(link.as_fd(), |exec| exec.as_fd());
        wait_for_any([link.as_fd(), children.as_fd(), timer.as_fd(), exec], PollTimeout::NONE)?;
        while children.read_signal()?.is_some() {}
    }
}

fn not_started(error: &std::io::Error) -> Report {
    Report::NotStarted { errno: error.raw_os_error().unwrap_or(Errno::EINVAL as i32) }
}

/// Starts the command in the process group of `wombat`, so that the terminal treats both as one job. When its
/// program begins, the guardian is out of the group: what stops or kills the group must not reach it. In the same
/// session it would be a parent that could continue the group, and Ctrl-Z without a shell would stop it for good.
///
/// Does not wait for the program to begin: the child may be stopped, or its exec hang, for longer than the lock is
/// safe. Returns also the connection that ends when the program begins; if it cannot, it gives the errno.
fn start(command: &[OsString]) -> std::io::Result<(Pid, UnixStream)> {
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
            Ok((child, ours)) // `descendants::reap` buries it.
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
    /// The connection to the child until its program begins: see [`start`].
    exec: Option<UnixStream>,
    /// The command's status as a shell shows it, once it has ended.
    code: Option<u8>,
    /// None where no lock is held.
    deadline: Option<Deadline>,
    /// Whether the command was asked to stop, or killed, because of the deadline. A later deadline clears it
    /// while the command runs.
    deadline_passed: bool,
    /// When what the command has left running is killed, once the command has ended.
    grace: Option<Instant>,
}

impl Guarded {
    fn new(command: Pid, exec: UnixStream) -> Guarded {
        Guarded { command, exec: Some(exec), code: None, deadline: None, deadline_passed: false, grace: None }
    }

    /// Does whatever is due. Returns the report once nothing is left.
    fn step(&mut self, link: &UnixStream) -> std::io::Result<Option<Report>> {
        // Before a later deadline is read: a command that has ended after SIGTERM has lost its lock.
        let children = self.reap();
        // Before a deadline is acted upon: after a pause of this process, it may have moved on long ago.
        while wait_for_any([link.as_fd()], PollTimeout::ZERO)? {
            match Order::read(link) {
                Ok(Order::Deadline(deadline)) => self.set_deadline(deadline, now()),
                Ok(Order::Forward(number)) => {
                    if let Ok(signal) = Signal::try_from(number) {
                        self.forward(signal);
                    }
                }
                Ok(Order::Kill) | Err(_) => return Ok(Some(self.kill())),
            }
        }
        // After the dead are buried: a child that could not run the program has said so before it ended.
        if let Some(mut exec) =
            self.exec.take_if(|exec| wait_for_any([exec.as_fd()], PollTimeout::ZERO) == Ok(true))
        {
            let mut errno = [0; 4];
            match exec.read_exact(&mut errno) {
                Ok(()) => return Ok(Some(Report::NotStarted { errno: i32::from_ne_bytes(errno) })),
                Err(_) => Report::Started.write(link)?,
            }
        }
        if !children {
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

    /// Buries what is dead. Returns whether anything else is left.
    fn reap(&mut self) -> bool {
        descendants::reap(|status| note_code(self.command, &mut self.code, status))
    }

    fn set_deadline(&mut self, deadline: Deadline, now: Instant) {
        self.deadline = Some(deadline);
        if self.code.is_none() && now < deadline.terminate_at {
            self.deadline_passed = false;
        }
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
        let survivors = descendants::end_all(&[], |status| note_code(self.command, &mut self.code, status));
        self.report(survivors)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::descendants::tests::{alone, sh};

    const HOUR: Duration = Duration::from_secs(3_600);

    /// A guarded shell script, and the two far ends: the link's and that of the connection until exec.
    fn guarded(script: &str) -> (Guarded, UnixStream, UnixStream, UnixStream) {
        let (link, wombat) = UnixStream::pair().unwrap();
        let (exec, child_end) = UnixStream::pair().unwrap();
        let (_buried_by_step, pid) = sh(script);
        (Guarded::new(pid, exec), link, wombat, child_end)
    }

    fn send_deadline(wombat: &UnixStream, terminate_at: Instant, kill_at: Instant) {
        Order::Deadline(Deadline { terminate_at, kill_at }).write(wombat).unwrap();
    }

    /// Steps until the report of the end.
    fn ended(guarded: &mut Guarded, link: &UnixStream) -> Report {
        loop {
            if let Some(report) = guarded.step(link).unwrap() {
                return report;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_child_that_never_execs_is_killed_at_the_deadline() {
        let _alone = alone();
        let (mut guarded, link, wombat, _child_end) = guarded("exec sleep 1000");
        assert_eq!(guarded.step(&link).unwrap(), None);
        send_deadline(&wombat, now(), now());
        let report = Report::Ended { code: 137, deadline_passed: true, survivors: 0 };
        assert_eq!(ended(&mut guarded, &link), report);
        assert!(
            !wait_for_any([wombat.as_fd()], PollTimeout::ZERO).unwrap(),
            "it was not reported as started"
        );
    }

    #[test]
    fn the_end_of_the_exec_connection_says_how_it_went() {
        let _alone = alone();
        let (mut started, link, mut wombat, child_end) = guarded("exec sleep 1000");
        drop(child_end);
        // A process that another test is starting may hold a copy of that end for a moment.
        while !wait_for_any([wombat.as_fd()], PollTimeout::ZERO).unwrap() {
            assert_eq!(started.step(&link).unwrap(), None);
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut frame = [0; super::super::FRAME];
        wombat.read_exact(&mut frame).unwrap();
        assert_eq!(Report::read(&frame).unwrap(), Report::Started);
        started.kill();
        let (mut failed, link, _wombat, mut child_end) = guarded("exit 126");
        child_end.write_all(&2_i32.to_ne_bytes()).unwrap();
        assert_eq!(ended(&mut failed, &link), Report::NotStarted { errno: 2 });
        failed.kill();
    }

    #[test]
    fn a_later_deadline_clears_that_one_has_passed() {
        let _alone = alone();
        let (mut guarded, link, wombat, _child_end) = guarded("trap '' TERM; exec sleep 1000");
        let end_command = |guarded: &Guarded| kill(guarded.command, Signal::SIGKILL).unwrap();
        // It must ignore SIGTERM before it gets it.
        let status = format!("/proc/{}/comm", guarded.command);
        while std::fs::read_to_string(&status).unwrap().trim() != "sleep" {
            std::thread::sleep(Duration::from_millis(1));
        }
        send_deadline(&wombat, now(), now() + HOUR);
        assert_eq!(guarded.step(&link).unwrap(), None);
        assert!(guarded.deadline_passed);
        send_deadline(&wombat, now() + HOUR, now() + HOUR);
        assert_eq!(guarded.step(&link).unwrap(), None);
        assert!(!guarded.deadline_passed, "the lock is kept");
        assert_eq!(guarded.next_step_at(), guarded.deadline.map(|deadline| deadline.terminate_at));
        end_command(&guarded);
        let report = Report::Ended { code: 137, deadline_passed: false, survivors: 0 };
        assert_eq!(ended(&mut guarded, &link), report);
    }

    #[test]
    fn a_command_that_ended_before_the_later_deadline_lost_its_lock() {
        let _alone = alone();
        let (mut guarded, link, wombat, _child_end) = guarded("exec sleep 1000");
        send_deadline(&wombat, now(), now() + HOUR);
        assert_eq!(guarded.step(&link).unwrap(), None);
        // It has ended, and is not buried yet.
        let flags = nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT;
        nix::sys::wait::waitid(nix::sys::wait::Id::Pid(guarded.command), flags).unwrap();
        send_deadline(&wombat, now() + HOUR, now() + HOUR);
        let report = Report::Ended { code: 143, deadline_passed: true, survivors: 0 };
        assert_eq!(ended(&mut guarded, &link), report);
    }
}
