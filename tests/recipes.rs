//! The recipes on real servers: what each is for, and its hard case.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::five::Five;
use common::{connect, open, run, serve, signal};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use wombat_client::{
    Barrier, Cell, Create, Election, Error, Gate, KeptLock, LeaderChanges, LockGuard, LockMode, Lost,
    Membership, MembershipChanges, Node, OpenOptions, Semaphore, hold,
};

/// What the client process that a test starts does, and in which cell.
const TASK: &str = "RECIPES_TASK";
/// See [`TASK`].
const CELL: &str = "RECIPES_CELL";

/// A client as a process of its own, which a test starts and kills.
#[test]
#[ignore = "the other tests start it"]
fn client_process() {
    let (Ok(task), Ok(cell)) = (std::env::var(TASK), std::env::var(CELL)) else { return };
    run(async {
        let cell = Cell::connect(cell.split(',')).await.unwrap();
        match task.as_str() {
            "member" => {
                let _member = Membership::new(&cell, "/ls/local/group").join("dies", "1").await.unwrap();
                std::future::pending().await
            }
            "leader" => {
                let _lead = Election::new(&cell, "/ls/local/primary").campaign("dies").await.unwrap();
                std::future::pending().await
            }
            "frozen" => {
                let lead = Election::new(&cell, "/ls/local/primary").campaign("frozen").await.unwrap();
                let leads = lead.guard().run(Duration::from_millis(100), std::future::pending::<()>());
                assert_eq!(leads.await, Err(Lost));
                lead.lost().await;
                assert!(lead.proclaim("late").await.is_err());
            }
            "party" => drop(Barrier::new(&cell, "/ls/local/barrier", usize::MAX).enter().await),
            "inside" => {
                let _inside = Barrier::new(&cell, "/ls/local/barrier", 3).enter().await.unwrap();
                std::future::pending().await
            }
            _ => panic!("{task}"),
        }
    });
}

/// A process that does not outlive the test.
struct Process(Child);

impl Process {
    fn start(task: &str, endpoints: &str) -> Process {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "client_process", "--ignored", "--nocapture"]);
        command.env(TASK, task).env(CELL, endpoints);
        Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// `kill -9`.
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _it_is_gone = self.0.kill();
        let _it_is_gone = self.0.wait();
    }
}

/// Waits until so many wait for a lock.
async fn wait_for_waiters(cell: &Cell, path: &str, count: u64) {
    loop {
        let locks = cell.locks(Some(path)).await.unwrap();
        if locks.iter().map(|lock| lock.waiting).sum::<u64>() == count {
            return;
        }
    }
}

/// Lets a future run for as long as several calls take, and sees that it does not end.
async fn does_not_end<T>(cell: &Cell, future: impl Future<Output = T>) {
    let calls = async {
        for _ in 0..10 {
            cell.status().await.unwrap();
        }
    };
    tokio::select! {
        biased;
        _ = future => panic!("it has ended"),
        () = calls => {}
    }
}

/// Takes part in a lock's queue, in the background.
fn queue(node: Node) -> tokio::task::JoinHandle<LockGuard> {
    tokio::spawn(async move { node.acquire(LockMode::Exclusive).await.unwrap() })
}

#[test]
fn poison_takes_a_waiting_acquire_back_and_leaves_the_handle_to_its_guard() {
    let (_dir, serve) = serve("12s");
    run(async {
        let (cell, other) = (connect(&serve).await, connect(&serve).await);
        let node = Arc::new(open(&cell, "/ls/local/l").await);
        let held = open(&other, "/ls/local/l").await.acquire(LockMode::Exclusive).await.unwrap();
        let waits = tokio::spawn({
            let node = Arc::clone(&node);
            async move { node.acquire(LockMode::Exclusive).await }
        });
        wait_for_waiters(&other, "/ls/local/l", 1).await;
        node.poison();
        assert_eq!(waits.await.unwrap().err(), Some(Error::Cancelled));
        wait_for_waiters(&other, "/ls/local/l", 0).await;
        held.release().await.unwrap();
        assert_eq!(cell.locks(None).await.unwrap(), [], "no lock is left behind");
        assert_eq!(node.acquire(LockMode::Shared).await.err(), Some(Error::Cancelled));

        // One that holds the lock goes on holding it.
        let node = open(&cell, "/ls/local/l").await;
        let guard = node.acquire(LockMode::Exclusive).await.unwrap();
        node.poison();
        assert_eq!(node.stat().await.err(), Some(Error::Cancelled));
        assert!(guard.is_safe());
        cell.check_sequencer(guard.sequencer()).await.unwrap();
        guard.release().await.unwrap();
        node.close().await.unwrap();
    });
}

#[test]
fn poison_ends_calls_that_wait_for_a_cell_that_is_silent() {
    let (_dir, serve) = serve("12s");
    run(async {
        let cell = connect(&serve).await;
        let directory = OpenOptions::new().create(Create::May).directory();
        let directory = cell.open("/ls/local/d", directory).await.unwrap();
        signal(serve.pid(), "STOP");
        let (opened, listed, ()) = tokio::join!(
            directory.open("f", OpenOptions::new().write().create(Create::May)),
            directory.list(),
            async { directory.poison() }
        );
        assert_eq!(opened.err(), Some(Error::Unknown), "it may have made the file");
        assert_eq!(listed.err(), Some(Error::Cancelled));
        signal(serve.pid(), "CONT");
    });
}

#[test]
fn a_guard_gives_way_to_who_waits_now_and_to_who_waited_before_the_grant() {
    let (_dir, serve) = serve("12s");
    run(async {
        let (cell, other) = (connect(&serve).await, connect(&serve).await);
        let gives_way = || OpenOptions::new().write().create(Create::May).gives_way();
        let node = cell.open("/ls/local/l", gives_way()).await.unwrap();
        let next = other.open("/ls/local/l", gives_way()).await.unwrap();
        let guard = node.acquire(LockMode::Exclusive).await.unwrap();
        let second = queue(next);
        guard.wanted().await.unwrap();
        // A third waits when the second is granted the lock.
        let third = queue(open(&cell, "/ls/local/l").await);
        wait_for_waiters(&cell, "/ls/local/l", 2).await;
        guard.release().await.unwrap();
        let second = second.await.unwrap();
        second.wanted().await.unwrap();
        second.release().await.unwrap();
        let third = third.await.unwrap();
        assert!(matches!(third.wanted().await, Err(Error::InvalidArgument { .. })), "it does not give way");
        // The same handle again, and this time nobody waits: what it was told then does not count.
        third.release().await.unwrap();
        let guard = node.acquire(LockMode::Exclusive).await.unwrap();
        does_not_end(&cell, guard.wanted()).await;
    });
}

#[test]
fn a_guard_gives_way_after_a_fail_over_too() {
    let (_dir, mut serve) = serve("12s");
    run(async {
        let (cell, other) = (connect(&serve).await, connect(&serve).await);
        let node = OpenOptions::new().write().create(Create::May).gives_way();
        let node = cell.open("/ls/local/l", node).await.unwrap();
        let guard = node.acquire(LockMode::Exclusive).await.unwrap();
        // It may be told at the first master, and the word may be lost with it.
        let next = queue(open(&other, "/ls/local/l").await);
        wait_for_waiters(&other, "/ls/local/l", 1).await;
        serve.kill();
        serve.restart();
        guard.wanted().await.unwrap();
        guard.release().await.unwrap();
        next.await.unwrap();
    });
}

#[test]
fn what_runs_under_a_lock_is_stopped_before_the_lock_is_lost() {
    let (_dir, serve) = serve("4s");
    run(async {
        let cell = connect(&serve).await;
        let node = open(&cell, "/ls/local/l").await;
        let guard = node.acquire(LockMode::Exclusive).await.unwrap();
        assert_eq!(guard.run(Duration::from_millis(100), async { 7 }).await, Ok(7));

        /// Looks, when it is dropped, whether the lock is still held.
        struct Work<'a>(&'a LockGuard, &'a AtomicUsize);
        impl Drop for Work<'_> {
            fn drop(&mut self) {
                self.1.fetch_add(if self.0.is_safe() { 1 } else { 1000 }, Ordering::Relaxed);
            }
        }
        let stopped_in_time = AtomicUsize::new(0);
        let work = Work(&guard, &stopped_in_time);
        let work = async {
            let _work = work;
            std::future::pending::<()>().await;
        };
        signal(serve.pid(), "STOP");
        assert_eq!(guard.run(Duration::from_millis(1500), work).await, Err(Lost));
        assert_eq!(stopped_in_time.load(Ordering::Relaxed), 1);
        guard.lost().await;
        let begun = AtomicUsize::new(0);
        let late = async { begun.fetch_add(1, Ordering::Relaxed) };
        assert_eq!(guard.run(Duration::ZERO, late).await, Err(Lost));
        assert_eq!(begun.load(Ordering::Relaxed), 0, "it is not begun");
        signal(serve.pid(), "CONT");
    });
}

#[test]
fn a_task_runs_wherever_the_lock_is_until_it_is_done() {
    let (_dir, serve) = serve("12s");
    run(async {
        let options = OpenOptions::new().write().create(Create::May).gives_way();
        let (turns, at_once) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut all = Vec::new();
        for _ in 0..3 {
            let (cell, options) = (connect(&serve).await, options.clone());
            let (turns, at_once) = (Arc::clone(&turns), Arc::clone(&at_once));
            all.push(tokio::spawn(async move {
                let (mine, margin) = (AtomicUsize::new(0), Duration::from_millis(100));
                hold(&cell, "/ls/local/l", &options, margin, |guard| {
                    let turn = mine.fetch_add(1, Ordering::SeqCst) + 1;
                    let (turns, at_once) = (&turns, &at_once);
                    async move {
                        assert_eq!(at_once.fetch_add(1, Ordering::SeqCst), 0, "one at a time");
                        if turn < 3 {
                            guard.wanted().await.unwrap();
                        }
                        turns.fetch_add(1, Ordering::SeqCst);
                        at_once.fetch_sub(1, Ordering::SeqCst);
                        if turn == 3 { ControlFlow::Break(turn) } else { ControlFlow::Continue(()) }
                    }
                })
                .await
            }));
        }
        // The last two turns have nobody to wait for them, but for this.
        let last = open(&connect(&serve).await, "/ls/local/l").await;
        let mut done = 0;
        for task in all {
            done += loop_until(&last, task).await.unwrap();
        }
        assert_eq!((done, turns.load(Ordering::SeqCst)), (9, 9));
    });
}

#[test]
fn a_task_that_was_stopped_because_the_cell_was_silent_begins_again() {
    let (_dir, serve) = serve("1s");
    run(async {
        let options = OpenOptions::new().write().create(Create::May);
        let cell = connect(&serve).await;
        let (runs, pid) = (AtomicUsize::new(0), serve.pid());
        let held = hold(&cell, "/ls/local/l", &options, Duration::from_millis(100), async |_| {
            if runs.fetch_add(1, Ordering::Relaxed) == 0 {
                signal(pid, "STOP");
                let _wakes = Waker(pid);
                std::future::pending::<()>().await;
            }
            ControlFlow::Break(runs.load(Ordering::Relaxed))
        });
        assert_eq!(held.await, Ok(2));
    });
}

/// Wakes a process when the task that made it sleep is stopped.
struct Waker(u32);

impl Drop for Waker {
    fn drop(&mut self) {
        signal(self.0, "CONT");
    }
}

/// Waits for a task, and meanwhile wants its lock again and again.
async fn loop_until<T>(lock: &Node, mut task: tokio::task::JoinHandle<T>) -> T {
    loop {
        tokio::select! {
            done = &mut task => return done.unwrap(),
            guard = lock.acquire(LockMode::Exclusive) => guard.unwrap().release().await.unwrap(),
        }
    }
}

#[test]
fn a_semaphore_never_has_more_holders_than_permits() {
    let (_dir, serve) = serve("12s");
    run(async {
        let cells = [connect(&serve).await, connect(&serve).await];
        let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = Vec::new();
        for number in 0..20 {
            let cell = cells[number % 2].clone();
            let semaphore = Semaphore::new(&cell, "/ls/local/s", 3);
            let (inside, most) = (Arc::clone(&inside), Arc::clone(&most));
            tasks.push(tokio::spawn(async move {
                for _ in 0..5 {
                    let permit = semaphore.acquire().await.unwrap();
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    // Meanwhile others come in, if they can.
                    cell.status().await.unwrap();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    permit.release().await.unwrap();
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert!(most.load(Ordering::SeqCst) <= 3);
        assert_eq!(cells[0].locks(None).await.unwrap(), [], "no permit leaks");
    });
}

#[test]
fn a_semaphore_says_when_it_is_full_and_when_it_is_another_one() {
    let (_dir, serve) = serve("12s");
    run(async {
        let cell = connect(&serve).await;
        let semaphore = Semaphore::new(&cell, "/ls/local/s", 2);
        let (one, _two) = (semaphore.acquire().await.unwrap(), semaphore.try_acquire().await.unwrap());
        assert_eq!(semaphore.try_acquire().await.err(), Some(Error::LockHeld));
        let short = semaphore.acquire_within(Duration::from_millis(10));
        assert_eq!(short.await.err(), Some(Error::Timeout));
        drop(one);
        semaphore.acquire().await.unwrap();
        open(&cell, "/ls/local/f").await;
        let refused = [
            (Semaphore::new(&cell, "/ls/local/s", 3), "exists with 2 permits, not 3"),
            (Semaphore::new(&cell, "/ls/local/f", 3), "is no semaphore"),
            (Semaphore::new(&cell, "/ls/local/z", 0), "1 to 65536 permits"),
        ];
        for (semaphore, why) in refused {
            match semaphore.try_acquire().await {
                Err(Error::InvalidArgument { what }) => assert!(what.contains(why), "{what}"),
                other => panic!("{other:?}"),
            }
        }
    });
}

/// How many parties are at the barrier.
async fn parties(cell: &Cell) -> usize {
    match cell.open("/ls/local/barrier", OpenOptions::new()).await {
        Ok(directory) => directory.list().await.unwrap().iter().filter(|entry| entry.stat.ephemeral).count(),
        Err(Error::NotFound { .. }) => 0,
        Err(error) => panic!("{error}"),
    }
}

async fn wait_for_parties(cell: &Cell, count: usize) {
    while parties(cell).await != count {}
}

#[test]
fn a_barrier_lets_all_begin_together_and_go_on_together_round_after_round() {
    let (_dir, serve) = serve("12s");
    run(async {
        let came: Arc<[AtomicUsize; 10]> = Arc::default();
        let finished: Arc<[AtomicUsize; 10]> = Arc::default();
        let mut tasks = Vec::new();
        for _ in 0..3 {
            let barrier = Barrier::new(&connect(&serve).await, "/ls/local/barrier", 3);
            let (came, finished) = (Arc::clone(&came), Arc::clone(&finished));
            tasks.push(tokio::spawn(async move {
                for round in 0..10 {
                    came[round].fetch_add(1, Ordering::SeqCst);
                    let inside = barrier.enter().await.unwrap();
                    assert_eq!(came[round].load(Ordering::SeqCst), 3, "all are there");
                    finished[round].fetch_add(1, Ordering::SeqCst);
                    inside.leave().await.unwrap();
                    assert_eq!(finished[round].load(Ordering::SeqCst), 3, "all have finished");
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn who_leaves_a_barrier_waits_for_those_inside() {
    let (_dir, serve) = serve("12s");
    run(async {
        let cell = connect(&serve).await;
        let barrier = Barrier::new(&cell, "/ls/local/barrier", 2);
        let (one, two) = tokio::join!(barrier.enter(), barrier.enter());
        let mut leaves = Box::pin(one.unwrap().leave());
        does_not_end(&cell, &mut leaves).await;
        assert_eq!(parties(&cell).await, 1);
        drop(two);
        leaves.await.unwrap();
    });
}

#[test]
fn who_looks_late_passes_a_barrier_though_the_others_have_left() {
    let (_dir, serve) = serve("12s");
    run(async {
        let cell = connect(&serve).await;
        let barrier = Barrier::new(&cell, "/ls/local/barrier", 3);
        let mut late = Box::pin(barrier.enter());
        tokio::select! {
            biased;
            _ = &mut late => panic!("alone"),
            () = wait_for_parties(&cell, 1) => {}
        }
        let (one, two) = tokio::join!(barrier.enter(), barrier.enter());
        // One who comes for the next time, while the first two wait for the late one to leave.
        let mut next = Box::pin(barrier.enter());
        let late = async {
            wait_for_parties(&cell, 1).await;
            tokio::select! {
                biased;
                _ = &mut next => panic!("it was not there when the barrier opened"),
                () = wait_for_parties(&cell, 2) => {}
            }
            // It is nobody whom these wait for.
            late.await.unwrap().leave().await.unwrap();
        };
        let (one, two, ()) = tokio::join!(one.unwrap().leave(), two.unwrap().leave(), late);
        one.and(two).unwrap();
        let (next, ..) = tokio::join!(next, barrier.enter(), barrier.enter());
        next.unwrap();
    });
}

#[test]
fn a_party_that_dies_is_not_counted_before_and_not_waited_for_after() {
    let (_dir, serve) = serve("2s");
    run(async {
        let cell = connect(&serve).await;
        let barrier = Barrier::new(&cell, "/ls/local/barrier", 3);
        let dies = Process::start("party", &serve.address);
        wait_for_parties(&cell, 1).await;
        let mut first = Box::pin(barrier.enter());
        let with_first = async {
            wait_for_parties(&cell, 2).await;
            dies.kill();
            wait_for_parties(&cell, 1).await;
        };
        tokio::select! {
            biased;
            _ = &mut first => panic!("two are not three"),
            () = with_first => {}
        }
        let dies = Process::start("inside", &serve.address);
        let (first, second) = tokio::join!(first, barrier.enter());
        dies.kill();
        let (first, second) = tokio::join!(first.unwrap().leave(), second.unwrap().leave());
        first.and(second).unwrap();
    });
}

#[test]
fn a_gate_holds_everyone_until_it_is_opened() {
    let (_dir, serve) = serve("2s");
    run(async {
        let cell = connect(&serve).await;
        let gate = Gate::new(&cell, "/ls/local/gate");
        gate.pass().await.unwrap();
        gate.shut().await.unwrap();
        gate.shut().await.unwrap();
        let elsewhere = Gate::new(&connect(&serve).await, "/ls/local/gate");
        let (here, there) = (gate.clone(), elsewhere.clone());
        let waits =
            [tokio::spawn(async move { here.pass().await }), tokio::spawn(async move { there.pass().await })];
        does_not_end(&cell, gate.pass()).await;
        elsewhere.open().await.unwrap();
        elsewhere.open().await.unwrap();
        for wait in waits {
            wait.await.unwrap().unwrap();
        }
        // Who waited for an ephemeral file would keep it there.
        let _member = Membership::new(&cell, "/ls/local/group").join("anna", "").await.unwrap();
        let never = Gate::new(&cell, "/ls/local/group/anna");
        assert!(matches!(never.pass().await, Err(Error::InvalidArgument { .. })));
    });
}

/// Follows the changes until these are the members. Each must be what the one before, and what it says is new,
/// come to.
async fn until(changes: &mut MembershipChanges, members: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
    let wanted: BTreeMap<String, bytes::Bytes> =
        members.iter().map(|(name, value)| (name.to_string(), value.to_string().into())).collect();
    let (mut joined, mut left) = (Vec::new(), Vec::new());
    loop {
        let change = changes.next().await.unwrap().unwrap();
        assert!(change.joined.iter().chain(&change.updated).all(|name| change.members.contains_key(name)));
        joined.extend(change.joined);
        left.extend(change.left);
        if change.members == wanted {
            return (joined, left);
        }
    }
}

#[test]
fn members_come_say_something_else_and_go() {
    let (_dir, serve) = serve("12s");
    run(async {
        let (cell, other) = (connect(&serve).await, connect(&serve).await);
        let (group, theirs) = (Membership::new(&cell, "/ls/local/g"), Membership::new(&other, "/ls/local/g"));
        let mut changes = group.changes().await.unwrap();
        until(&mut changes, &[]).await;
        let anna = theirs.join("anna", "1").await.unwrap();
        assert_eq!(anna.name(), "anna");
        until(&mut changes, &[("anna", "1")]).await;
        assert_eq!(group.join("anna", "9").await.err(), Some(Error::AlreadyExists));
        anna.set("2").await.unwrap();
        let change = changes.next().await.unwrap().unwrap();
        assert_eq!((change.joined.len(), change.left.len(), change.updated), (0, 0, vec!["anna".into()]));
        assert_eq!(change.members["anna"], "2");
        assert_eq!(group.members().await.unwrap(), change.members);
        // She leaves and comes again while nobody looks.
        anna.leave().await.unwrap();
        let _anna = theirs.join("anna", "2").await.unwrap();
        let bert = theirs.join("bert", "").await.unwrap();
        let (joined, left) = until(&mut changes, &[("anna", "2"), ("bert", "")]).await;
        assert_eq!((joined, left), (vec!["anna".into(), "bert".into()], vec!["anna".into()]));
        // More than a stream keeps.
        for number in 0..300 {
            bert.set(number.to_string()).await.unwrap();
        }
        let (joined, left) = until(&mut changes, &[("anna", "2"), ("bert", "299")]).await;
        assert_eq!(joined.len() + left.len(), 0);
        other.close().await.unwrap();
        until(&mut changes, &[]).await;
        // And in a directory that is another one.
        cell.open("/ls/local/g", OpenOptions::new().write()).await.unwrap().delete().await.unwrap();
        let _carl = group.join("carl", "").await.unwrap();
        until(&mut changes, &[("carl", "")]).await;
        cell.close().await.unwrap();
        assert_eq!(changes.next().await.unwrap(), None);
    });
}

#[test]
fn a_member_that_was_killed_is_gone_when_its_lease_is_over() {
    let (_dir, serve) = serve("2s");
    run(async {
        let cell = connect(&serve).await;
        let mut changes = Membership::new(&cell, "/ls/local/group").changes().await.unwrap();
        let dies = Process::start("member", &serve.address);
        until(&mut changes, &[("dies", "1")]).await;
        dies.kill();
        let (_, left) = until(&mut changes, &[]).await;
        assert_eq!(left, ["dies"]);
    });
}

#[test]
fn no_change_of_members_or_leaders_is_missed_when_masters_are_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut three = Five::start(dir.path(), 3);
    run(async {
        let (cell, other) = (Cell::connect(three.addresses()), Cell::connect(three.addresses()));
        let (cell, other) = (cell.await.unwrap(), other.await.unwrap());
        let group = Membership::new(&other, "/ls/local/g");
        let mut changes = Membership::new(&cell, "/ls/local/g").changes().await.unwrap();
        let mut leaders = Election::new(&cell, "/ls/local/e").observe().await.unwrap();
        let mut here = Vec::new();
        for round in ["first", "second", "third"] {
            let leadership = Election::new(&other, "/ls/local/e").campaign(round).await.unwrap();
            assert_eq!(next_leader(&mut leaders).await, round);
            let master = three.master();
            three.kill(master);
            // Nobody looks while these happen, and the events of the dead master are gone with it.
            here.push((round, group.join(round, round).await.unwrap()));
            if here.len() > 1 {
                here.remove(0).1.leave().await.unwrap();
            }
            leadership.resign().await.unwrap();
            until(&mut changes, &[(round, round)]).await;
            until_nobody(&mut leaders).await;
            three.restart(master);
            three.settled();
        }
    });
}

/// The value of the next leader.
async fn next_leader(leaders: &mut LeaderChanges) -> String {
    loop {
        if let Some(leader) = leaders.next().await.unwrap().unwrap() {
            return String::from_utf8(leader.value.to_vec()).unwrap();
        }
    }
}

async fn until_nobody(leaders: &mut LeaderChanges) {
    while leaders.next().await.unwrap().unwrap().is_some() {}
}

#[test]
fn every_change_of_the_leader_is_told_also_when_it_dies_and_nobody_follows() {
    let (_dir, serve) = serve("2s");
    run(async {
        let (cell, other) = (connect(&serve).await, connect(&serve).await);
        let election = Election::new(&cell, "/ls/local/primary");
        assert_eq!(election.leader().await.unwrap(), None);
        let mut leaders = election.observe().await.unwrap();
        assert_eq!(leaders.next().await.unwrap(), Some(None));
        let leadership = election.campaign("anna").await.unwrap();
        let anna = leaders.next().await.unwrap().unwrap().unwrap();
        assert_eq!((&anna.value[..], anna.token), (&b"anna"[..], leadership.guard().token()));
        leadership.proclaim("anna, too").await.unwrap();
        assert_eq!(next_leader(&mut leaders).await, "anna, too");
        assert!(matches!(leadership.proclaim("").await, Err(Error::InvalidArgument { .. })));
        let next = Election::new(&other, "/ls/local/primary");
        let next = tokio::spawn(async move { next.campaign("bert").await.unwrap() });
        wait_for_waiters(&cell, "/ls/local/primary", 1).await;
        leadership.resign().await.unwrap();
        assert_eq!(next_leader(&mut leaders).await, "bert");
        assert!(next.await.unwrap().guard().token() > anna.token);
        // It was dropped, not resigned: the value ends with the lead all the same.
        until_nobody(&mut leaders).await;
        assert_eq!(open(&cell, "/ls/local/primary").await.contents().await.unwrap().0, "");
        let dies = Process::start("leader", &serve.address);
        assert_eq!(next_leader(&mut leaders).await, "dies");
        dies.kill();
        assert_eq!(leaders.next().await.unwrap(), Some(None));
        assert_eq!(open(&cell, "/ls/local/primary").await.contents().await.unwrap().0, "");
        // In a file of the same name.
        open(&cell, "/ls/local/primary").await.delete().await.unwrap();
        let _leadership = election.campaign("carl").await.unwrap();
        assert_eq!(next_leader(&mut leaders).await, "carl");
    });
}

#[test]
fn a_campaign_that_is_given_up_leaves_nothing_behind() {
    let (_dir, serve) = serve("12s");
    run(async {
        let (cell, other) = (connect(&serve).await, connect(&serve).await);
        let leads = Election::new(&cell, "/ls/local/e").campaign("anna").await.unwrap();
        let election = Election::new(&other, "/ls/local/e");
        tokio::select! {
            biased;
            won = election.campaign("bert") => panic!("{won:?}"),
            () = wait_for_waiters(&cell, "/ls/local/e", 1) => {}
        }
        wait_for_waiters(&cell, "/ls/local/e", 0).await;
        leads.resign().await.unwrap();
        assert_eq!(cell.locks(None).await.unwrap(), []);
        assert_eq!(election.leader().await.unwrap(), None);
    });
}

#[test]
fn a_leader_that_was_frozen_stops_when_it_wakes() {
    let (_dir, serve) = serve("2s");
    run(async {
        let cell = connect(&serve).await;
        let election = Election::new(&cell, "/ls/local/primary");
        let mut leaders = election.observe().await.unwrap();
        let mut frozen = Process::start("frozen", &serve.address);
        assert_eq!(next_leader(&mut leaders).await, "frozen");
        signal(frozen.0.id(), "STOP");
        let _leadership = election.campaign("bert").await.unwrap();
        assert_eq!(next_leader(&mut leaders).await, "bert");
        signal(frozen.0.id(), "CONT");
        assert!(frozen.0.wait().unwrap().success());
        assert_eq!(election.leader().await.unwrap().unwrap().value, "bert");
    });
}

#[test]
fn a_leader_knows_that_its_lead_is_not_sure_while_the_cell_is_silent() {
    let (_dir, serve) = serve("1s");
    run(async {
        let cell = connect(&serve).await;
        let leadership = Election::new(&cell, "/ls/local/e").campaign("anna").await.unwrap();
        signal(serve.pid(), "STOP");
        leadership.lost().await;
        assert!(!leadership.guard().is_safe());
        signal(serve.pid(), "CONT");
    });
}

// ---- KeptLock ----

#[test]
fn a_kept_lock_is_taken_again_without_a_word_until_somebody_else_wants_it() {
    let (_dir, serve) = serve("12s");
    run(async {
        let (cell, other) = (connect(&serve).await, connect(&serve).await);
        let lock = KeptLock::open(&cell, "/ls/local/kept", OpenOptions::new()).await.unwrap();
        let first = lock.acquire().await.unwrap().token();
        let again = lock.acquire().await.unwrap();
        assert_eq!(again.token(), first, "one grant, two uses");
        // Somebody else waits for the end of the use, not only for the grant.
        let theirs = open(&other, "/ls/local/kept").await;
        let order = std::sync::Mutex::new(Vec::new());
        let use_it = async {
            wait_for_waiters(&cell, "/ls/local/kept", 1).await;
            order.lock().unwrap().push("used");
            drop(again);
        };
        let want_it = async {
            let guard = theirs.acquire(LockMode::Exclusive).await.unwrap();
            order.lock().unwrap().push("given");
            guard
        };
        let ((), guard) = tokio::join!(use_it, want_it);
        assert_eq!(*order.lock().unwrap(), ["used", "given"]);
        assert!(guard.token() > first);
        let (third, released) = tokio::join!(lock.acquire(), guard.release());
        released.unwrap();
        assert!(third.unwrap().token() > first, "it was asked for again");
        // Dropped while it is kept, it is given back.
        drop(lock);
        theirs.acquire(LockMode::Exclusive).await.unwrap().release().await.unwrap();
    });
}

#[test]
fn within_its_session_a_kept_lock_is_a_mutex() {
    let (_dir, serve) = serve("12s");
    run(async {
        let cell = connect(&serve).await;
        let lock = KeptLock::open(&cell, "/ls/local/kept", OpenOptions::new()).await.unwrap();
        let inside = Arc::new(AtomicUsize::new(0));
        let uses = (0..20).map(|_| {
            let (lock, inside) = (lock.clone(), Arc::clone(&inside));
            tokio::spawn(async move {
                for _ in 0..50 {
                    let guard = lock.acquire().await.unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(guard);
                }
            })
        });
        for one in uses.collect::<Vec<_>>() {
            one.await.unwrap();
        }
    });
}
