//! A process of the story: this very program in another role. It is told things by lines, says things by
//! lines, and does not outlive the story.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

pub(crate) struct Process {
    name: String,
    child: Child,
    inward: ChildStdin,
    outward: UnboundedReceiver<String>,
    /// What it has said and nobody has listened to yet.
    unheard: VecDeque<String>,
}

impl Process {
    pub(crate) fn start(name: &str, role: &[&str]) -> Result<Process> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.args(role).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let inward = child.stdin.take().expect("it is piped");
        let outward = lines(child.stdout.take().expect("it is piped"));
        Ok(Process { name: name.into(), child, inward, outward, unheard: VecDeque::new() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn tell(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.inward, "{line}")?)
    }

    /// Waits until it says something about that, and returns what.
    pub(crate) async fn hears(&mut self, about: &str) -> Result<String> {
        let of = |line: &String| line.split_once(' ').is_some_and(|(topic, _)| topic == about);
        loop {
            if let Some(place) = self.unheard.iter().position(of) {
                let line = self.unheard.remove(place).unwrap_or_default();
                return Ok(line[about.len()..].trim_start().into());
            }
            let line = self.outward.recv().await;
            self.unheard.push_back(line.ok_or_else(|| format!("{} ended too early", self.name))?);
        }
    }

    pub(crate) async fn asks(&mut self, line: &str, about: &str) -> Result<String> {
        self.tell(line)?;
        self.hears(about).await
    }

    /// SIGSTOP; returns once it stands still.
    pub(crate) async fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        let stands_still = |stat: &str| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'));
        while !stands_still(&std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// SIGCONT.
    pub(crate) fn wake(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.pid() as i32), signal)?)
    }
}

/// `kill -9`, frozen or not.
impl Drop for Process {
    fn drop(&mut self) {
        let _it_is_gone = self.child.kill();
        let _it_is_gone = self.child.wait();
    }
}

/// Ends this process when the one that tells the story ends, however that may be.
pub(crate) fn end_with_the_story() -> Result<()> {
    Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?)
}

/// What comes in, line by line.
pub(crate) fn lines(from: impl Read + Send + 'static) -> UnboundedReceiver<String> {
    let (sender, lines) = unbounded_channel();
    std::thread::spawn(move || {
        BufReader::new(from).lines().map_while(std::result::Result::ok).all(|line| sender.send(line).is_ok())
    });
    lines
}
