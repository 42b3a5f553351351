//! All processes below one, found in /proc: what a command has started, whatever groups, sessions or parents
//! it gave them. A process whose parent ends comes to the nearest subreaper above, so none leaves the tree.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, getpgid};
use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::time::Duration;

/// How long a round of kills waits for the dead before the next.
const ROUND: Duration = Duration::from_millis(10);
/// After so many rounds in which every process refused the signal, this process cannot end what is left.
const IDLE_ROUNDS: u32 = 20;
/// After so many rounds in all, half a minute, the kernel does not end what is left, e.g. because of a dead disk.
const ROUNDS: u32 = 3_000;
/// How often the tree is searched, in a round, for processes that are not stopped yet.
const STOP_PASSES: u32 = 50;

/// A living process.
pub(super) struct Process {
    pub(super) pid: Pid,
    pub(super) group: Pid,
    parent: Pid,
}

/// The living descendants of a process, parents first. A process that is created, or changes its parent, while
/// /proc is read may be missing: whoever needs all of them looks again.
pub(super) fn of(root: Pid) -> Vec<Process> {
    walk(root, &[], |_| {})
}

/// As [`of`], without the subtrees of `spared`. Calls `visit` for a process before its children are read.
fn walk(root: Pid, spared: &[Pid], visit: impl Fn(Pid)) -> Vec<Process> {
    // Without a kernel that lists children, every process of the machine has to be looked at.
    let scan = (!lists_children()).then(scan);
    let mut found = Vec::new();
    let mut parents = VecDeque::from([root]);
    while let Some(parent) = parents.pop_front() {
        let mut children = match &scan {
            Some(all) => all.iter().filter(|it| it.parent == parent).map(|it| it.pid).collect(),
            None => listed_children(parent),
        };
        children.retain(|child| !spared.contains(child));
        children.iter().for_each(|&child| visit(child));
        found.extend(children.iter().filter_map(|&child| look_at_child(child, parent)));
        parents.extend(children);
    }
    found
}

/// The children of this process, the living and the dead.
pub(super) fn children() -> Vec<Pid> {
    match lists_children() {
        true => listed_children(Pid::this()),
        false => {
            let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT | WaitPidFlag::WEXITED;
            pids().filter(|&pid| waitid(Id::Pid(pid), flags).is_ok()).collect()
        }
    }
}

fn lists_children() -> bool {
    Path::new("/proc/thread-self/children").exists()
}

/// The children that the kernel lists for each thread of a process.
fn listed_children(parent: Pid) -> Vec<Pid> {
    let threads = std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| Vec::from_iter(list.split_ascii_whitespace().filter_map(parse_pid))).collect()
}

/// All processes.
fn scan() -> Vec<Process> {
    pids().filter_map(|pid| parse(&stat(pid).ok()?)).collect()
}

/// The numbers of all processes.
fn pids() -> impl Iterator<Item = Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| parse_pid(entry.file_name().to_str()?))
}

fn stat(pid: Pid) -> std::io::Result<String> {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
}

/// A child of a process, unless it is dead.
fn look_at_child(pid: Pid, parent: Pid) -> Option<Process> {
    match stat(pid) {
        Ok(stat) => parse(&stat),
        Err(_) => hidden(pid, parent),
    }
}

/// A child whose entry in /proc this process may not read, because of the mount option `hidepid`.
fn hidden(pid: Pid, parent: Pid) -> Option<Process> {
    match getpgid(Some(pid)) {
        Err(Errno::ESRCH) => None,
        group => Some(Process { pid, group: group.unwrap_or(pid), parent }),
    }
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

/// Buries children that are dead, except `spared`. Returns whether there are any others, except `spared`.
fn reap_except(spared: &[Pid], mut buried: impl FnMut(WaitStatus)) -> bool {
    if spared.is_empty() {
        return reap(buried);
    }
    let mut reap_listed = || {
        let others = children().into_iter().filter(|child| !spared.contains(child));
        others.fold(false, |alive, child| match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => true,
            Ok(status) => {
                buried(status);
                alive
            }
            Err(_) => alive,
        })
    };
    // The end of a thread moves its children to another thread, whose list may have been read already. The dead
    // leave children behind, which come to this process.
    reap_listed() || reap_listed()
}

/// Stops all descendants of a process, except `spared` and theirs, so that they start no others while they are
/// killed. Returns them, parents first.
fn stop_all(root: Pid, spared: &[Pid]) -> Vec<Process> {
    let mut known = BTreeSet::new();
    let mut found = Vec::new();
    for _ in 0..STOP_PASSES {
        found = walk(root, spared, |pid| {
            let _gone_or_refused = kill(pid, Signal::SIGSTOP);
        });
        let before = known.len();
        known.extend(found.iter().map(|process| process.pid));
        if known.len() == before {
            break;
        }
    }
    found
}

/// Kills all descendants of this process, a subreaper, until none is left, except the children `spared` and their
/// descendants. Returns how many survive: processes of another user, which this process may not kill, and those
/// that the kernel does not end.
pub(super) fn end_all(spared: &[Pid], mut buried: impl FnMut(WaitStatus)) -> u32 {
    let mut idle = 0;
    let mut round = 0;
    loop {
        let left = stop_all(Pid::this(), spared);
        // Children first: their parents are stopped and start nothing in their place.
        let refused =
            left.iter().rev().filter(|it| kill(it.pid, Signal::SIGKILL) == Err(Errno::EPERM)).count();
        if !reap_except(spared, &mut buried) {
            return 0;
        }
        // If nothing was found, the search has missed a child.
        idle = if !left.is_empty() && refused == left.len() { idle + 1 } else { 0 };
        round += 1;
        if idle == IDLE_ROUNDS || round == ROUNDS {
            return left.len().max(1) as u32;
        }
        std::thread::sleep(ROUND);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::process::{Child, Command};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// Tests that end or bury all children of this process run one at a time.
    pub(in super::super) fn alone() -> MutexGuard<'static, ()> {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        alone
    }

    pub(in super::super) fn sh(script: &str) -> (Child, Pid) {
        let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        (child, pid)
    }

    fn check(stat: &str, expected: Option<(i32, i32, i32)>) {
        let parsed = parse(stat).map(|it| (it.pid.as_raw(), it.parent.as_raw(), it.group.as_raw()));
        assert_eq!(parsed, expected, "{stat}");
    }

    #[test]
    fn a_scan_and_the_lists_of_children_agree() {
        let _alone = alone();
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
    fn a_hidden_process_is_found_until_it_is_buried() {
        let _alone = alone();
        let (mut child, pid) = sh("exec sleep 1000");
        let found = hidden(pid, Pid::this()).expect("it lives");
        assert_eq!((found.pid, found.parent), (pid, Pid::this()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(hidden(pid, Pid::this()).is_none());
    }

    #[test]
    fn a_chain_of_forks_is_ended() {
        let _alone = alone();
        // Each shell starts the next and exits.
        let (_chain, _) =
            sh("i=0; f='i=$((i+1)); test $i -lt 5000 || exit; (eval \"$f\") & exit'; eval \"$f\"");
        let (_stubborn, _) = sh("trap '' TERM; while :; do sleep 1000 & wait; done");
        assert_eq!(end_all(&[], |_| {}), 0);
        assert_eq!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Err(Errno::ECHILD), "no child is left");
    }

    #[test]
    fn spared_children_and_theirs_live_and_keep_their_status() {
        let _alone = alone();
        let (mut dead, dead_pid) = sh("exit 7");
        let (mut spared, spared_pid) = sh("sleep 1000 & wait");
        let (_other, other) = sh("sleep 1000 & exec sleep 1000");
        while pids_below(spared_pid).is_empty() {
            std::thread::yield_now();
        }
        let before = children();
        assert!([dead_pid, spared_pid, other].iter().all(|pid| before.contains(pid)));
        let mut buried = Vec::new();
        assert_eq!(end_all(&[dead_pid, spared_pid], |status| buried.extend(status.pid())), 0);
        assert!(buried.contains(&other));
        assert_eq!(pids_below(spared_pid).len(), 1, "a spared child keeps its own");
        assert!(spared.try_wait().unwrap().is_none());
        assert_eq!(dead.wait().unwrap().code(), Some(7), "its status is left to its owner");
        assert_eq!(end_all(&[], |_| {}), 0);
    }

    fn pids_below(parent: Pid) -> Vec<Pid> {
        of(parent).iter().map(|process| process.pid).collect()
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
