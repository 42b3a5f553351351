//! Guards of locks, and handles that are poisoned.

use super::*;

#[test]
fn a_guard_is_not_safe_while_one_of_two_deletions_is_under_way() {
    run(async {
        let (_listener, mut peer, cell) = connected().await;
        let node = open(&cell, &mut peer).await;
        let guard = acquire(&node, &mut peer).await;
        assert!(guard.is_safe());
        let (mut first, mut second) = (Box::pin(node.delete()), Box::pin(node.delete()));
        assert!(poll_once(first.as_mut()).is_pending() && poll_once(second.as_mut()).is_pending());
        let (one, _) = peer.call().await;
        let (other, _) = peer.call().await;
        peer.refuse(&one, Error::NotEmpty).await;
        assert_eq!(first.await, Err(Error::NotEmpty));
        assert!(!guard.is_safe(), "the second may have deleted the node by now");
        peer.refuse(&other, Error::NotEmpty).await;
        assert_eq!(second.await, Err(Error::NotEmpty));
        assert!(guard.is_safe());
    });
}

#[test]
fn no_guard_is_safe_once_its_session_is_being_ended_and_both_who_end_it_wait() {
    run(async {
        let (_listener, mut peer, cell) = connected().await;
        let node = open(&cell, &mut peer).await;
        let guard = acquire(&node, &mut peer).await;
        let mut life = cell.session_events();
        let (mut first, mut second) = (Box::pin(cell.clone().close()), Box::pin(cell.clone().close()));
        assert!(poll_once(first.as_mut()).is_pending() && poll_once(second.as_mut()).is_pending());
        let (one, call) = peer.call().await;
        assert!(matches!(call, Call::EndSession(_)), "{call:?}");
        assert!(!guard.is_safe(), "its lock may be somebody else's by now");
        settle_past_the_end(&cell, &mut peer).await;
        assert!(poll_once(first.as_mut()).is_pending(), "it has not ended yet");
        peer.answer(&one, done()).await;
        first.await.unwrap();
        second.await.unwrap();
        guard.lost().await;
        assert_eq!(life.recv().await, Some(SessionEvent::Expired));
        assert_eq!(node.stat().await.err(), Some(Error::SessionExpired));
    });
}

#[test]
fn poison_ends_what_is_outstanding_and_lets_nothing_more_out() {
    run(async {
        let (_listener, mut peer, cell) = connected().await;
        let node = open(&cell, &mut peer).await;
        let (mut read, mut write) = (Box::pin(node.stat()), Box::pin(node.set("x")));
        let mut wait = Box::pin(node.acquire(LockMode::Exclusive));
        assert!(poll_once(read.as_mut()).is_pending() && poll_once(write.as_mut()).is_pending());
        assert!(poll_once(wait.as_mut()).is_pending());
        let (_read, _) = peer.call().await;
        let (written, _) = peer.call().await;
        let (acquire, call) = peer.call().await;
        assert!(matches!(call, Call::Acquire(_)), "{call:?}");
        node.poison();
        assert_eq!(read.await.err(), Some(Error::Cancelled));
        assert_eq!(write.await.err(), Some(Error::Unknown), "it may take effect");
        assert_eq!(wait.await.err(), Some(Error::Cancelled));
        let (_, call) = peer.call().await;
        let Call::CancelAcquire(cancel) = call else { panic!("{call:?}") };
        assert_eq!(cancel.acquire, acquire.number);
        peer.answer(&written, done()).await;
        // Nothing more is sent for this handle until it is closed.
        assert_eq!(node.stat().await.err(), Some(Error::Cancelled));
        assert_eq!(node.delete().await.err(), Some(Error::Cancelled));
        assert_eq!(node.try_acquire(LockMode::Shared).await.err(), Some(Error::Cancelled));
        settle(&cell, &mut peer).await;
        let (closed, call) = tokio::join!(node.close(), async {
            let (request, call) = peer.call().await;
            peer.answer(&request, done()).await;
            call
        });
        closed.unwrap();
        assert!(matches!(call, Call::Close(_)), "{call:?}");
    });
}

#[test]
fn a_lock_that_was_granted_just_as_its_handle_was_poisoned_is_given_back() {
    run(async {
        let (_listener, mut peer, cell) = connected().await;
        let node = open(&cell, &mut peer).await;
        let mut wait = Box::pin(node.acquire(LockMode::Exclusive));
        assert!(poll_once(wait.as_mut()).is_pending());
        peer.grant().await;
        settle(&cell, &mut peer).await;
        node.poison();
        assert_eq!(wait.await.err(), Some(Error::Cancelled));
        let (_, call) = peer.call().await;
        assert!(matches!(call, Call::Release(_)), "{call:?}");
    });
}

#[test]
fn a_guard_outlives_the_poison() {
    run(async {
        let (_listener, mut peer, cell) = connected().await;
        let node = open(&cell, &mut peer).await;
        let guard = acquire(&node, &mut peer).await;
        node.poison();
        assert!(guard.is_safe());
        let (released, call) = tokio::join!(guard.release(), async {
            let (request, call) = peer.call().await;
            peer.answer(&request, done()).await;
            call
        });
        released.unwrap();
        assert!(matches!(call, Call::Release(_)), "{call:?}");
    });
}

/// Answers the KeepAlive that waits with an event of that handle's, number `number`.
async fn tell(peer: &mut Peer, number: u64, kind: EventKind, handle: u64, slot: u64) {
    let keep_alive = peer.keep_alive.take().unwrap();
    let event = wire::Event { kind: kind.into(), handle, slot, ..Default::default() };
    let events = vec![event];
    let kept =
        wire::KeptAlive { lease_ms: 60_000, epoch: 1, first_event: number, events, ..Default::default() };
    peer.answer(&keep_alive, Answer::KeptAlive(kept)).await;
}

/// Answers the look at a lock for which so many wait.
async fn look(peer: &mut Peer, waiting: u64) {
    let (request, call) = peer.call().await;
    assert!(matches!(call, Call::GetStat(_)), "first the master has to know the handle: {call:?}");
    peer.answer(&request, Answer::Stat(wire::Stat::default())).await;
    let (request, call) = peer.call().await;
    assert!(matches!(call, Call::ListLocks(_)), "{call:?}");
    let lock = wire::LockInfo { path: "/ls/fake/f".into(), waiting, ..Default::default() };
    peer.answer(&request, Answer::Locks(wire::Locks { locks: vec![lock], ..Default::default() })).await;
}

#[test]
fn a_guard_is_wanted_by_those_who_came_after_the_grant_whenever_that_is_told() {
    run(async {
        let (_listener, mut peer, cell) = connected().await;
        let options = OpenOptions::new().write().gives_way();
        let (node, opened) = tokio::join!(cell.open("/ls/local/f", options), async {
            let (request, call) = peer.call().await;
            let Call::Open(open) = call else { panic!("{call:?}") };
            let (id, events) = (request.number, open.events);
            let handle =
                Some(wire::Handle { id, instance: 7, mode: open.mode, events, ..Default::default() });
            let opened =
                wire::Opened { handle, created: false, stat: Some(wire::Stat::default()), name: "f".into() };
            peer.answer(&request, Answer::Opened(opened)).await;
            id
        });
        let node = node.unwrap();
        settle(&cell, &mut peer).await;
        // The token that the peer grants is 9. A late word about an earlier grant of this handle:
        tell(&mut peer, 1, EventKind::LockConflict, opened, 8).await;
        let guard = acquire(&node, &mut peer).await;
        settle(&cell, &mut peer).await;
        assert!(poll_once(pin!(guard.wanted()).as_mut()).is_pending());
        // A gap, and nobody waits: it asks once.
        tell(&mut peer, 2, EventKind::Gap, 0, 9).await;
        settle(&cell, &mut peer).await;
        let looks = async {
            look(&mut peer, 0).await;
            settle(&cell, &mut peer).await;
            settle(&cell, &mut peer).await;
        };
        tokio::select! {
            biased;
            wanted = guard.wanted() => panic!("{wanted:?}"),
            () = looks => {}
        }
        // A gap, and somebody waits.
        tell(&mut peer, 3, EventKind::Gap, 0, 9).await;
        settle(&cell, &mut peer).await;
        tokio::join!(guard.wanted(), look(&mut peer, 1)).0.unwrap();
        // Told while nobody asks.
        tell(&mut peer, 4, EventKind::LockConflict, opened, 9).await;
        settle(&cell, &mut peer).await;
        guard.wanted().await.unwrap();
        guard.wanted().await.unwrap();
    });
}

#[test]
fn a_guard_whose_handle_does_not_give_way_says_so_when_it_is_asked_who_waits() {
    run(async {
        let (_listener, mut peer, cell) = connected().await;
        let node = open(&cell, &mut peer).await;
        let guard = acquire(&node, &mut peer).await;
        assert!(matches!(guard.wanted().await, Err(Error::InvalidArgument { .. })));
    });
}
