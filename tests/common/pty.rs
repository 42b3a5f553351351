//! A terminal to test with: programs on one end, the test's keys and eyes on the other.

use super::common::wait_for;
use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command};

pub(crate) const CTRL_C: &str = "\x03";
pub(crate) const CTRL_Z: &str = "\x1a";
pub(crate) const CTRL_BACKSLASH: &str = "\x1c";

/// A program that leads a session of its own on a terminal of its own.
pub(crate) struct Pty {
    keys: File,
    shown: String,
    pub(crate) program: Child,
}

impl Pty {
    pub(crate) fn start(program: &Command) -> Pty {
        // No other process may keep it open: its end is the terminal's.
        let keys =
            posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
        grantpt(&keys).unwrap();
        unlockpt(&keys).unwrap();
        let name = ptsname_r(&keys).unwrap();
        let noctty = OFlag::O_NOCTTY.bits();
        let terminal = || OpenOptions::new().read(true).write(true).custom_flags(noctty).open(&name).unwrap();
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(program.get_program()).args(program.get_args());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(terminal()).stdout(terminal()).stderr(terminal());
        let program = command.spawn().unwrap();
        Pty { keys: File::from(OwnedFd::from(keys)), shown: String::new(), program }
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Whatever was shown up to now.
    pub(crate) fn shown(&mut self) -> &str {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = self.keys.read(&mut bytes) {
            self.shown.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        &self.shown
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, text: &str) {
        wait_for(text, || self.shown().contains(text).then_some(()));
    }

    /// Takes the terminal away.
    pub(crate) fn hang_up(&mut self) {
        self.keys = File::open("/dev/null").unwrap();
    }

    /// Waits for the end of the program; what was shown stays.
    #[track_caller]
    pub(crate) fn end(&mut self) -> Option<i32> {
        wait_for("the program's end", || {
            self.shown();
            self.program.try_wait().unwrap()
        })
        .code()
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _gone_already = self.program.kill();
        let _buried_already = self.program.wait();
    }
}
