//! All processes below one, found in /proc: what a command has started, whatever groups, sessions or parents
//! it gave them. A process whose parent ends comes to the nearest subreaper above, so none leaves the tree.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

/// How long a round of kills waits for the dead before the next.
const ROUND: Duration = Duration::from_millis(10);
/// After so many rounds in which nothing could be signalled, what is left cannot be ended by us.
const IDLE_ROUNDS: u32 = 20;

/// A living process.
pub(super) struct Process {
    pub(super) pid: Pid,
    pub(super) group: Pid,
    parent: Pid,
}

/// The living descendants of a process, parents first. A process that is created, or changes its parent, while
/// /proc is read may be missing: whoever needs all of them looks again.
pub(super) fn of(root: Pid) -> Vec<Process> {
    // Without a kernel that lists children, every process of the machine has to be looked at.
    let scan = (!Path::new("/proc/thread-self/children").exists()).then(scan);
    let mut found = Vec::new();
    let mut parents = VecDeque::from([root]);
    while let Some(parent) = parents.pop_front() {
        let children = match &scan {
            Some(all) => all.iter().filter(|it| it.parent == parent).map(|it| it.pid).collect(),
            None => listed_children(parent),
        };
        found.extend(children.iter().filter_map(|&child| look_at(child)));
        parents.extend(children);
    }
    found
}

/// The children that the kernel lists for each thread of a process.
fn listed_children(parent: Pid) -> Vec<Pid> {
    let threads = std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| Vec::from_iter(list.split_ascii_whitespace().filter_map(parse_pid))).collect()
}

/// All processes.
fn scan() -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| look_at(parse_pid(entry.file_name().to_str()?)?)).collect()
}

fn look_at(pid: Pid) -> Option<Process> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_pid(text: &str) -> Option<Pid> {
    text.parse().ok().map(Pid::from_raw)
}

/// Reads /proc/PID/stat; nothing of a process that is dead.
fn parse(stat: &str) -> Option<Process> {
    // The name between the parentheses may contain anything.
    let (pid, _) = stat.split_once(' ')?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<i32>().ok();
    // The main thread may have ended before the others: then the process lives, and its state is Z all the same.
    if matches!(*fields.first()?, "Z" | "X") && number(17)? <= 1 {
        return None;
    }
    let pid = parse_pid(pid)?;
    Some(Process { pid, parent: Pid::from_raw(number(1)?), group: Pid::from_raw(number(2)?) })
}

/// Sends a signal to processes; returns how many could be sent it.
pub(super) fn signal(processes: &[Process], signal: Signal) -> usize {
    processes.iter().filter(|process| kill(process.pid, signal).is_ok()).count()
}

/// Buries children that are dead. Returns whether there are any others.
pub(super) fn reap(mut buried: impl FnMut(WaitStatus)) -> bool {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return true,
            Ok(status) => buried(status),
            Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}

/// Kills all descendants of this process, a subreaper, until none is left. Processes of another user, which it
/// may not kill, are all that can survive; returns those.
pub(super) fn end_all(mut buried: impl FnMut(WaitStatus)) -> Vec<Process> {
    let mut idle = 0;
    loop {
        let left = of(Pid::this());
        idle = if signal(&left, Signal::SIGKILL) == 0 { idle + 1 } else { 0 };
        if !reap(&mut buried) {
            return Vec::new();
        }
        if idle == IDLE_ROUNDS {
            return left;
        }
        std::thread::sleep(ROUND);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stat: &str, expected: Option<(i32, i32, i32)>) {
        let parsed = parse(stat).map(|it| (it.pid.as_raw(), it.parent.as_raw(), it.group.as_raw()));
        assert_eq!(parsed, expected, "{stat}");
    }

    #[test]
    fn a_scan_and_the_lists_of_children_agree() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        assert!(listed_children(Pid::this()).contains(&pid));
        assert!(scan().iter().any(|it| it.pid == pid && it.parent == Pid::this()));
        assert!(of(Pid::this()).iter().any(|it| it.pid == pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(of(Pid::this()).iter().all(|it| it.pid != pid));
    }

    #[test]
    fn stat_lines_are_read_whatever_the_name() {
        let rest = "34816 1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 7";
        check(&format!("7 (sh) S 3 5 5 {rest}"), Some((7, 3, 5)));
        check(&format!("7 (a) S 1 (b) R 3 5 5 {rest}"), Some((7, 3, 5)));
        check(&format!("7 (sh) Z 3 5 5 {rest}"), None);
        check("7 (sh) Z 3 5 5 0 0 0 0 0 0 0 0 0 0 0 20 0 2 0 7", Some((7, 3, 5)));
        check("", None);
    }
}
