//! The terminal's foreground: a command in a process group of its own may read the terminal only if the group
//! is in the foreground.

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{Pid, getpgrp, getpid, isatty, tcgetpgrp, tcsetpgrp};

/// A terminal on standard input whose foreground is ours to give.
#[derive(Clone, Copy)]
pub(crate) struct Terminal {
    ours: Pid,
}

impl Terminal {
    /// The terminal, if this process is in its foreground.
    pub(crate) fn of_this_process() -> Option<Terminal> {
        let stdin = std::io::stdin();
        let ours = getpgrp();
        let foreground =
            isatty(&stdin).unwrap_or(false) && tcgetpgrp(&stdin).is_ok_and(|group| group == ours);
        foreground.then_some(Terminal { ours })
    }

    /// Puts the calling process's own group into the foreground; for a child before it runs its program.
    pub(crate) fn give_to_this_process(self) {
        set_foreground(getpid());
    }

    /// Puts our own group back.
    pub(crate) fn take_back(self) {
        set_foreground(self.ours);
    }
}

/// Whoever changes the foreground from the background is stopped by SIGTTOU, unless it is blocked.
fn set_foreground(group: Pid) {
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGTTOU);
    let mut before = SigSet::empty();
    let _best_effort = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&blocked), Some(&mut before));
    let _best_effort = tcsetpgrp(std::io::stdin(), group);
    let _best_effort = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
}
