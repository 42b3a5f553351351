//! The signals that a program gets: which it was started to ignore, and those that arrive.

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction, signal};
use std::mem::MaybeUninit;
use std::os::fd::IntoRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use tokio::net::unix::pipe;

/// The signals that this process was started to ignore: bit n for the signal n. `nohup` and shells start
/// programs so, and what is ignored must stay so, here and in every command that is run.
static IGNORED_AT_START: AtomicU32 = AtomicU32::new(0);

/// Runs before `main`: the start of Rust's runtime ignores SIGPIPE, and afterwards it could not be known.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = note_ignored;

extern "C" fn note_ignored() {
    for number in 1..32 {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: sigaction only reads the disposition; zeroes are a valid `struct sigaction`.
        let ignored = unsafe {
            libc::sigaction(number, std::ptr::null(), action.as_mut_ptr()) == 0
                && action.assume_init().sa_sigaction == libc::SIG_IGN
        };
        if ignored {
            IGNORED_AT_START.fetch_or(1 << number, Ordering::Relaxed);
        }
    }
}

fn was_ignored(signal: Signal) -> bool {
    IGNORED_AT_START.load(Ordering::Relaxed) & (1 << signal as u32) != 0
}

/// Takes the default for SIGCHLD. Where it is ignored, the status of a child is lost.
pub(crate) fn expect_children() {
    // SAFETY: no handler is installed.
    let _cannot_fail = unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) };
}

/// Makes a command start with `blocked` blocked, and with the signals ignored that this process was started to
/// ignore. Only two of those are changed here: [`Signals`] never handles an ignored signal.
pub(super) fn start_with(command: &mut Command, blocked: SigSet) {
    let ignored = [Signal::SIGPIPE, Signal::SIGCHLD].map(|signal| was_ignored(signal).then_some(signal));
    // SAFETY: only async-signal-safe calls between fork and exec: sigaction, sigprocmask.
    unsafe {
        command.pre_exec(move || {
            for ignored in ignored.iter().flatten() {
                signal(*ignored, SigHandler::SigIgn)?;
            }
            Ok(blocked.thread_set_mask()?)
        });
    }
}

/// Where the handler writes; -1 while nobody listens.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// Writes down which signal arrived, and whether the kernel sent it.
extern "C" fn note(number: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    let errno = Errno::last_raw();
    // SAFETY: with SA_SIGINFO, `info` is valid. write is async-signal-safe, and the pipe never closes.
    unsafe {
        let word = [number as u8, u8::from((*info).si_code > 0)];
        libc::write(PIPE.load(Ordering::Relaxed), word.as_ptr().cast(), word.len());
    }
    Errno::set_raw(errno);
}

/// A signal that has arrived.
#[derive(Clone, Copy)]
pub(crate) struct Received {
    pub(crate) signal: Signal,
    /// The kernel sent it, for a key of the terminal or its hang-up, and not another process.
    pub(crate) from_kernel: bool,
}

/// The signals that end a program, as something to wait for; none of those that were ignored at the start.
pub(crate) struct Signals {
    pipe: pipe::Receiver,
    /// Whether one of those has arrived that ask a program to end.
    asked_to_end: bool,
    /// The same without SIGHUP, which many programs take as the wish to read their configuration again.
    asked_to_stop: bool,
}

impl Signals {
    /// SIGINT, SIGTERM and SIGHUP, from now on. Whatever listened before hears nothing more.
    pub(crate) fn listen() -> std::io::Result<Signals> {
        let (writer, pipe) = pipe::pipe()?;
        let writer = writer.into_blocking_fd()?;
        nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
        // The pipe before stays open: a handler may be about to write to it.
        PIPE.store(writer.into_raw_fd(), Ordering::Relaxed);
        let mut signals = Signals { pipe, asked_to_end: false, asked_to_stop: false };
        signals.add(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP])?;
        Ok(signals)
    }

    /// Listens to more signals.
    pub(super) fn add(&mut self, signals: &[Signal]) -> nix::Result<()> {
        let mut handled = SigSet::empty();
        let action = SigAction::new(SigHandler::SigAction(note), SaFlags::SA_RESTART, SigSet::empty());
        for &signal in signals.iter().filter(|&&signal| !was_ignored(signal)) {
            // SAFETY: `note` makes only async-signal-safe calls and keeps errno.
            unsafe { sigaction(signal, &action) }?;
            handled.add(signal);
        }
        // Whoever started this process may have blocked them.
        handled.thread_unblock()
    }

    /// Whether SIGINT, SIGTERM or SIGHUP has arrived.
    pub(crate) fn asked_to_end(&self) -> bool {
        self.asked_to_end
    }

    /// Whether SIGINT or SIGTERM has arrived since the last call.
    pub(crate) fn take_asked_to_stop(&mut self) -> bool {
        std::mem::take(&mut self.asked_to_stop)
    }

    /// The next of them.
    pub(crate) async fn next(&mut self) -> Signal {
        self.receive().await.signal
    }

    /// The next of them, and where it came from.
    pub(super) async fn receive(&mut self) -> Received {
        loop {
            let mut word = [0; 2];
            self.pipe.readable().await.expect("the pipe is open");
            // A word is read at once, as it was written.
            if let Ok(2) = self.pipe.try_read(&mut word) {
                let signal = Signal::try_from(i32::from(word[0])).expect("it was listened to");
                self.asked_to_stop |= matches!(signal, Signal::SIGINT | Signal::SIGTERM);
                self.asked_to_end |= matches!(signal, Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP);
                return Received { signal, from_kernel: word[1] != 0 };
            }
        }
    }
}
