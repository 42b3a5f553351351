//! The client library against real servers: through restarts, silence and expiry (P§2.8).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{connect, open, run, serve, signal};
use std::time::Duration;
use wombat_client::{Cell, Config, Create, Error, EventKind, LockMode, Multi, OpenOptions, SessionEvent};
use wombat_fence::{Fence, Refused};

#[test]
fn sessions_locks_and_handles_survive_a_restart_and_calls_wait_for_it() {
    let (_dir, mut serve) = serve("12s");
    run(async {
        let cell = connect(&serve).await;
        let mut life = cell.session_events();
        let node = open(&cell, "/ls/local/f").await;
        let guard = node.acquire(LockMode::Exclusive).await.unwrap();
        let epoch = cell.epoch();
        serve.kill();
        let write = node.set("written while nobody served");
        let (written, ()) = tokio::join!(write, async {
            tokio::task::yield_now().await;
            serve.restart();
        });
        assert_eq!(written.unwrap().content_generation.0, 2);
        assert!(matches!(life.recv().await, Some(SessionEvent::FailedOver { epoch: now }) if now > epoch));
        cell.check_sequencer(guard.sequencer()).await.unwrap();
        let other = connect(&serve).await;
        let refused = open(&other, "/ls/local/f").await.try_acquire(LockMode::Shared).await;
        assert_eq!(refused.err(), Some(Error::LockHeld));
        guard.release().await.unwrap();
    });
}

#[test]
fn a_silent_server_means_jeopardy_and_its_return_means_safety() {
    let (_dir, serve) = serve("1s");
    run(async {
        let cell = connect(&serve).await;
        let mut life = cell.session_events();
        let node = open(&cell, "/ls/local/f").await;
        let guard = node.acquire(LockMode::Exclusive).await.unwrap();
        signal(serve.pid(), "STOP");
        assert_eq!(life.recv().await, Some(SessionEvent::Jeopardy));
        assert!(!guard.is_safe(), "a guard knows when its lock is not sure");
        guard.lost().await;
        let read = node.contents();
        signal(serve.pid(), "CONT");
        assert!(read.await.is_ok(), "calls wait for the end of jeopardy");
        assert_eq!(life.recv().await, Some(SessionEvent::Safe));
        assert!(guard.is_safe());
    });
}

#[test]
fn a_session_whose_grace_has_passed_is_lost_for_good() {
    let (_dir, mut serve) = serve("1s");
    run(async {
        let mut config = Config::new([serve.address.clone()]);
        config.grace = Duration::from_millis(300);
        let cell = Cell::connect_with(config).await.unwrap();
        let mut life = cell.session_events();
        let node = open(&cell, "/ls/local/f").await;
        let guard = node.acquire(LockMode::Exclusive).await.unwrap();
        serve.kill();
        let written = node.set("x").await;
        assert!(matches!(written, Err(Error::Unknown | Error::SessionExpired)), "{written:?}");
        assert_eq!(life.recv().await, Some(SessionEvent::Jeopardy));
        assert_eq!(life.recv().await, Some(SessionEvent::Expired));
        serve.restart();
        assert_eq!(node.stat().await.err(), Some(Error::SessionExpired), "I14");
        assert!(!guard.is_safe());
        assert_eq!(guard.release().await.err(), Some(Error::SessionExpired));
        assert!(connect(&serve).await.status().await.is_ok(), "a new session is another matter");
    });
}

#[test]
fn an_acquire_that_is_given_up_leaves_no_lock_behind() {
    let (_dir, serve) = serve("12s");
    run(async {
        let (cell, other) = (connect(&serve).await, connect(&serve).await);
        let (mine, theirs) = (open(&cell, "/ls/local/l").await, open(&other, "/ls/local/l").await);
        let guard = theirs.acquire(LockMode::Exclusive).await.unwrap();
        let given_up =
            tokio::time::timeout(Duration::from_millis(50), mine.acquire(LockMode::Exclusive)).await;
        assert!(given_up.is_err());
        assert_eq!(
            mine.acquire_within(LockMode::Shared, Duration::from_millis(20)).await.err(),
            Some(Error::Timeout)
        );
        guard.release().await.unwrap();
        // Nobody holds it now: whoever tries gets it.
        theirs.try_acquire(LockMode::Exclusive).await.unwrap();
    });
}

#[test]
fn a_guard_is_not_safe_once_its_own_handle_is_closed_or_its_node_deleted() {
    let (_dir, serve) = serve("12s");
    run(async {
        let cell = connect(&serve).await;
        let node = open(&cell, "/ls/local/l").await;
        let guard = node.acquire(LockMode::Exclusive).await.unwrap();
        node.close().await.unwrap();
        assert!(!guard.is_safe());
        let node = open(&cell, "/ls/local/l").await;
        let guard = node.acquire(LockMode::Exclusive).await.unwrap();
        assert_eq!(open(&cell, "/ls/local/l").await.delete().await.err(), Some(Error::LockHeld));
        assert!(guard.is_safe(), "a refusal has changed nothing");
        node.delete().await.unwrap();
        assert!(!guard.is_safe());
        guard.lost().await;
    });
}

#[test]
fn a_dropped_guard_releases_and_a_dropped_cell_ends_its_session() {
    let (_dir, serve) = serve("12s");
    run(async {
        let cell = connect(&serve).await;
        let other = connect(&serve).await;
        let node = open(&cell, "/ls/local/l").await;
        drop(node.acquire(LockMode::Exclusive).await.unwrap());
        let theirs = open(&other, "/ls/local/l").await;
        drop(theirs.acquire(LockMode::Exclusive).await.unwrap());
        let kept = node.acquire(LockMode::Exclusive).await.unwrap();
        let waits = theirs.acquire(LockMode::Exclusive);
        drop((kept, node, cell));
        waits.await.unwrap();
    });
}

#[test]
fn ephemeral_nodes_vanish_with_their_handles() {
    let (_dir, serve) = serve("12s");
    run(async {
        let cell = connect(&serve).await;
        let options = || OpenOptions::new().write().create(Create::May).ephemeral();
        let one = cell.open("/ls/local/e", options()).await.unwrap();
        let two = cell.open("/ls/local/e", options()).await.unwrap();
        assert!(one.created() && !two.created());
        one.close().await.unwrap();
        assert!(two.stat().await.unwrap().ephemeral, "one handle keeps it alive");
        two.close().await.unwrap();
        let gone = cell.open("/ls/local/e", OpenOptions::new()).await;
        assert!(matches!(gone, Err(Error::NotFound { .. })));
    });
}

#[test]
fn events_tell_of_children_contents_and_locks() {
    let (_dir, serve) = serve("12s");
    run(async {
        let (cell, other) = (connect(&serve).await, connect(&serve).await);
        let kinds = [
            EventKind::ChildAdded,
            EventKind::ContentsModified,
            EventKind::LockAcquired,
            EventKind::LockConflict,
        ];
        let root = cell.open("/ls/local", OpenOptions::new().events(&kinds)).await.unwrap();
        let mut children = root.events();
        let node = open(&other, "/ls/local/f").await;
        let added = children.recv().await.unwrap();
        assert_eq!((added.kind, added.child.as_deref()), (EventKind::ChildAdded, Some("f")));
        let watched = cell.open("/ls/local/f", OpenOptions::new().write().events(&kinds)).await.unwrap();
        let mut events = watched.events();
        node.set("new").await.unwrap();
        assert_eq!(events.recv().await.unwrap().kind, EventKind::ContentsModified);
        let guard = watched.acquire(LockMode::Exclusive).await.unwrap();
        assert_eq!(events.recv().await.unwrap().kind, EventKind::LockAcquired);
        let waits = tokio::spawn(async move { node.acquire(LockMode::Exclusive).await.map(drop) });
        assert_eq!(events.recv().await.unwrap().kind, EventKind::LockConflict);
        guard.release().await.unwrap();
        waits.await.unwrap().unwrap();
    });
}

#[test]
fn a_handle_that_is_only_listened_to_hears_of_changes_after_a_restart_too() {
    let (_dir, mut serve) = serve("12s");
    run(async {
        let cell = connect(&serve).await;
        let read = open(&cell, "/ls/local/f").await;
        let listen = OpenOptions::new().events(&[EventKind::ContentsModified]);
        let heard = cell.open("/ls/local/f", listen).await.unwrap();
        let mut events = heard.events();
        serve.kill();
        serve.restart();
        assert_eq!(events.recv().await.unwrap().kind, EventKind::FailedOver);
        // It looks again, as the event says, but by another handle.
        read.contents().await.unwrap();
        open(&connect(&serve).await, "/ls/local/f").await.set("x").await.unwrap();
        assert_eq!(events.recv().await.unwrap().kind, EventKind::ContentsModified);
    });
}

#[test]
fn long_listings_come_in_pages_and_in_order() {
    let (_dir, serve) = serve("12s");
    run(async {
        let cell = connect(&serve).await;
        let directory = OpenOptions::new().create(Create::May).directory();
        let directory = cell.open("/ls/local/d", directory).await.unwrap();
        let names: Vec<String> = (0..2300).map(|n| format!("{n:05}-{}", "x".repeat(n % 200))).collect();
        for name in &names {
            let options = OpenOptions::new().write().create(Create::Must);
            directory.open(name, options).await.unwrap();
        }
        let listed: Vec<String> =
            directory.list().await.unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(listed, names);
    });
}

#[test]
fn a_running_server_writes_snapshots_and_starts_from_them() {
    let (_dir, mut serve) = serve("12s");
    run(async {
        let cell = connect(&serve).await;
        let node = open(&cell, "/ls/local/f").await;
        // A snapshot is due after 64 MiB of log.
        for n in 0..300u32 {
            node.set(vec![n as u8; 256 * 1024]).await.unwrap();
        }
        let before = loop {
            let status = cell.status().await.unwrap();
            if status.snapshot_slot > 0 {
                break status;
            }
            node.set("goes on meanwhile").await.unwrap();
        };
        assert!(before.log_bytes < 60 * 1024 * 1024, "the log is shorter: {} bytes", before.log_bytes);
        node.set("last").await.unwrap();
        serve.kill();
        serve.restart();
        let (contents, stat) = node.contents().await.unwrap();
        assert_eq!(&contents[..], b"last");
        assert!(stat.content_generation.0 > 300);
        assert_eq!(cell.status().await.unwrap().snapshot_slot, before.snapshot_slot);
    });
}

#[test]
fn a_multi_is_all_or_nothing() {
    let (_dir, serve) = serve("12s");
    run(async {
        let cell = connect(&serve).await;
        let made = cell
            .multi(
                Multi::new()
                    .absent("/ls/local/d")
                    .create_directory("/ls/local/d")
                    .create("/ls/local/d/f", "1"),
            )
            .await
            .unwrap();
        let generation = made[1].stat.unwrap().content_generation;
        let fails =
            Multi::new().set("/ls/local/d/f", "2").create("/ls/local/d/g", "").delete("/ls/local/none");
        assert!(
            matches!(cell.multi(fails).await, Err(Error::Step { step: 3, error }) if matches!(*error, Error::NotFound { .. }))
        );
        let guarded = Multi::new()
            .generation_is("/ls/local/d/f", generation)
            .delete("/ls/local/d/f")
            .delete("/ls/local/d");
        let gone = cell.multi(guarded).await.unwrap();
        assert!(gone.iter().all(|change| change.stat.is_none()), "{gone:?}");
        let job = || Multi::new().create("/ls/local/plain", "").create_sequential("/ls/local/job-", "");
        let names = cell.multi(job()).await.unwrap().into_iter().map(|change| change.name);
        assert_eq!(names.collect::<Vec<_>>(), [None, Some("job-0000000001".into())]);
        assert_eq!(cell.multi(job()).await.err(), Some(Error::AlreadyExists.at_step(1)));
        let unheld = Multi::new().lock_held("/ls/local").create("/ls/local/x", "");
        assert_eq!(cell.multi(unheld).await.err(), Some(Error::NotHeld.at_step(1)));
    });
}

/// A share that was given back: while the lock is never quite free, a fence cannot tell it from those that are
/// held, and the cell can (P§2.4).
#[test]
fn a_service_that_asks_the_cell_knows_of_every_share() {
    fn is_send<T: Send>(future: T) -> T {
        future
    }
    let (_dir, serve) = serve("12s");
    run(async {
        let cell = connect(&serve).await;
        let open = || async {
            let two = OpenOptions::new().write().create(Create::May).permits(2);
            cell.open("/ls/local/pool", two).await.unwrap()
        };
        let (first, second, third) = (open().await, open().await, open().await);
        let gone = first.acquire(LockMode::Shared).await.unwrap();
        let held = second.acquire(LockMode::Shared).await.unwrap();
        let given_back = gone.sequencer().clone();
        gone.release().await.unwrap();
        let new = third.acquire(LockMode::Shared).await.unwrap();

        let fence = Fence::of_cell(cell.name().as_str()).unwrap().lock("pool").unwrap();
        let ask =
            async |sequencer| is_send(fence.check_and_ask(sequencer, cell.check_sequencer(sequencer))).await;
        ask(held.sequencer()).await.unwrap();
        ask(new.sequencer()).await.unwrap();
        fence.check(&given_back).unwrap();
        assert!(matches!(ask(&given_back).await, Err(Refused::NotHeld { .. })));

        held.release().await.unwrap();
        new.release().await.unwrap();
        let next = first.acquire(LockMode::Exclusive).await.unwrap();
        fence.check(next.sequencer()).unwrap();
        assert!(matches!(fence.check(&given_back), Err(Refused::Stale { .. })));
    });
}

#[test]
fn a_lock_is_kept_while_the_application_blocks_its_runtime() {
    let lease = Duration::from_secs(2);
    let (_dir, serve) = serve("2s");
    run(async {
        let cell = connect(&serve).await;
        let node = open(&cell, "/ls/local/f").await;
        let guard = node.acquire(LockMode::Exclusive).await.unwrap();
        let address = serve.address.clone();
        let contender = std::thread::spawn(move || {
            run(async {
                let other = Cell::connect([address]).await.unwrap();
                let node = open(&other, "/ls/local/f").await;
                // Longer than a session lives without its client.
                node.acquire_within(LockMode::Exclusive, lease * 7 / 4).await.err()
            })
        });
        assert_eq!(
            contender.join().unwrap(),
            Some(Error::Timeout),
            "this thread waits, and nothing else runs on it"
        );
        assert!(guard.is_safe());
        guard.release().await.unwrap();
    });
}

#[test]
fn a_cell_that_is_dropped_at_the_end_of_its_runtime_ends_its_session() {
    let (_dir, serve) = serve("60s");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let session = runtime.block_on(async { connect(&serve).await.session() });
    drop(runtime);
    run(async {
        let cell = connect(&serve).await;
        // In far less than its lease.
        let gone =
            async { while cell.sessions().await.unwrap().iter().any(|info| info.session == session.0) {} };
        tokio::time::timeout(Duration::from_secs(30), gone).await.expect("it has ended");
    });
}
