//! What a process that this one starts makes of the death of this one.

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::getppid;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Lets a process be killed when this one ends, however it ends.
pub(crate) fn die_with_this_process(command: &mut Command) {
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
