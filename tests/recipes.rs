//! The recipes of locks and semaphores on real servers: what each is for, and its hard case.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{connect, does_not_end, open, run, serve, signal, wait_for_waiters};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use wombat_client::{Create, Error, KeptLock, LockGuard, LockMode, Lost, Node, OpenOptions, Semaphore, hold};

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
