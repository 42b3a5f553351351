//! The guardian: a tiny process that outlives a `kill -9` of ours and ends the command's whole group.
//!
//! The parent-death signal reaches only the command itself; its children would go on without the lock.

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, close, fork, pipe2, read, setsid, write};
use std::os::fd::{AsFd, OwnedFd};

/// Our end of the guardian.
pub(crate) struct Guardian {
    process: Pid,
    /// Closed when we die, however we die: then the guardian kills.
    pipe: Option<OwnedFd>,
}

impl Guardian {
    /// Forks the guardian. Only while this process has one thread, since a fork takes over only that.
    pub(crate) fn fork() -> nix::Result<Guardian> {
        let (reader, writer) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        // SAFETY: `main` forks before it starts any thread, so the child may do whatever the parent may.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => Ok(Guardian { process: child, pipe: Some(writer) }),
            ForkResult::Child => {
                drop(writer);
                stand_guard(&reader);
                std::process::exit(0);
            }
        }
    }

    /// Tells the guardian which group to kill if we die.
    pub(crate) fn guard(&mut self, group: Pid) {
        if let Some(pipe) = &self.pipe {
            let _without_a_guardian_the_parent_death_signal_is_left =
                write(pipe, &group.as_raw().to_ne_bytes());
        }
    }
}

impl Drop for Guardian {
    /// The group has ended: the guardian may go.
    fn drop(&mut self) {
        if let Some(pipe) = self.pipe.take() {
            let _it_is_gone = write(&pipe, &DONE.to_ne_bytes());
        }
        let _it_is_gone = waitpid(self.process, None);
    }
}

/// What is written instead of a group to dismiss the guardian.
const DONE: i32 = 0;

/// The guardian's life: remember the last group told of; when told that it is done, go; when the pipe breaks,
/// kill.
fn stand_guard(pipe: &OwnedFd) {
    // Not in our session, so that the terminal's signals do not reach it; not holding our input and output, so
    // that nobody waits for their end because of it.
    let _best_effort = setsid();
    let _best_effort = nix::sys::prctl::set_name(c"wombat-guardian");
    for descriptor in 0..3 {
        let _was_not_open = close(descriptor);
    }
    let mut group = DONE;
    loop {
        let mut word = [0; 4];
        match read(pipe.as_fd(), &mut word) {
            Ok(4) => match i32::from_ne_bytes(word) {
                DONE => return,
                told => group = told,
            },
            Err(nix::errno::Errno::EINTR) => {}
            _ => break,
        }
    }
    if group != DONE {
        let _nobody_left = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
}
