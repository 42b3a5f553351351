//! The terminal's foreground, which a command such as a shell takes for itself.

use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};
use std::fs::File;

/// The terminal, whose foreground this process's group was.
pub(super) struct Foreground {
    terminal: File,
    ours: Pid,
}

impl Foreground {
    /// The terminal, if this process is in its foreground.
    pub(super) fn of_this_process() -> Option<Foreground> {
        let terminal = File::open("/dev/tty").ok()?;
        let ours = getpgrp();
        (tcgetpgrp(&terminal) == Ok(ours)).then_some(Foreground { terminal, ours })
    }

    /// Puts our group back if the command has left a dead one. A living one is that of a shell, in which we
    /// have become a job in the background.
    pub(super) fn take_back(self) {
        let Ok(group) = tcgetpgrp(&self.terminal) else { return };
        if group == self.ours || killpg(group, None).is_ok() {
            return;
        }
        // Who changes the foreground from the background is stopped by SIGTTOU, unless it is blocked.
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGTTOU);
        let before = blocked.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK);
        let _best_effort = tcsetpgrp(&self.terminal, self.ours);
        if let Ok(before) = before {
            let _best_effort = before.thread_set_mask();
        }
    }
}
