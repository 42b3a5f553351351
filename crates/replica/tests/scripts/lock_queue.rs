//! The lock queue, lock-delay, cancelling, and sequencers (P§2.4).

use crate::world::{Client, LEASE, World, acquire, may_create};
use std::time::Duration;
use wombat_proto::wire::{self, Handle, event::Kind, request::Call, response::Result as Answer};
use wombat_proto::{Error, Sequencer};

const LOCK: &str = "/ls/test/lock";

fn shared(handle: Handle) -> Call {
    Call::Acquire(wire::Acquire { handle: Some(handle), shared: true, ..wire::Acquire::default() })
}

fn release(handle: Handle) -> Call {
    Call::Release(wire::Release { handle: Some(handle) })
}

fn opened(world: &mut World) -> (Client, Handle) {
    let mut client = world.client();
    let handle = world.open(&mut client, LOCK);
    (client, handle)
}

fn sequencer(answer: Result<Answer, Error>) -> Sequencer {
    match answer {
        Ok(Answer::Granted(granted)) => granted.sequencer.parse().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn first_come_first_served_and_tokens_grow() {
    let mut world = World::new();
    let (mut a, ha) = opened(&mut world);
    let (mut b, hb) = opened(&mut world);
    let (mut c, hc) = opened(&mut world);
    let first = sequencer(world.call(&mut a, acquire(ha)));
    let (nb, nc) = (world.send(&mut b, acquire(hb)), world.send(&mut c, acquire(hc)));
    world.call(&mut a, release(ha)).unwrap();
    let second = sequencer(world.answer(&b, nb).unwrap());
    assert!(world.answer(&c, nc).is_none());
    world.call(&mut b, release(hb)).unwrap();
    let third = sequencer(world.answer(&c, nc).unwrap());
    assert!(first.token < second.token && second.token < third.token, "I4");
}

#[test]
fn a_shared_request_never_overtakes_a_waiting_exclusive_one() {
    let mut world = World::new();
    let (mut reader, hr) = opened(&mut world);
    let (mut writer, hw) = opened(&mut world);
    let (mut late, hl) = opened(&mut world);
    world.call(&mut reader, shared(hr)).unwrap();
    let (nw, nl) = (world.send(&mut writer, acquire(hw)), world.send(&mut late, shared(hl)));
    assert!(world.answer(&late, nl).is_none());
    world.call(&mut reader, release(hr)).unwrap();
    assert!(world.answer(&writer, nw).unwrap().is_ok());
    assert!(world.answer(&late, nl).is_none());
    world.call(&mut writer, release(hw)).unwrap();
    assert!(world.answer(&late, nl).unwrap().is_ok());
}

#[test]
fn shared_holders_stop_at_the_permits() {
    let mut world = World::new();
    let mut maker = world.client();
    let node = Some(wire::NewNode { permits: 2, ..wire::NewNode::default() });
    world.open_with(&mut maker, wire::Open { path: LOCK.into(), node, ..may_create() });
    let (mut a, ha) = opened(&mut world);
    let (mut b, hb) = opened(&mut world);
    let (mut c, hc) = opened(&mut world);
    // All three at once, while the disk is busy: no more grants go out than there are permits.
    world.hold_disk = true;
    let numbers =
        [world.send(&mut a, shared(ha)), world.send(&mut b, shared(hb)), world.send(&mut c, shared(hc))];
    world.hold_disk = false;
    world.flush();
    assert!(world.answer(&a, numbers[0]).unwrap().is_ok());
    assert!(world.answer(&b, numbers[1]).unwrap().is_ok());
    assert!(world.answer(&c, numbers[2]).is_none());
    world.call(&mut a, release(ha)).unwrap();
    assert!(world.answer(&c, numbers[2]).unwrap().is_ok());
}

/// Opens a handle that hears of conflicts and of the end of locks.
fn listening(world: &mut World) -> (Client, Handle) {
    let mut client = world.client();
    let events = Kind::LockConflict.bit() | Kind::LockReleased.bit();
    let handle = world.open_with(&mut client, wire::Open { path: LOCK.into(), events, ..may_create() });
    (client, handle)
}

/// Takes the events that wait for a client, and acknowledges them.
fn told(world: &mut World, client: &mut Client) -> Vec<Kind> {
    let alive = |acknowledged| {
        Call::KeepAlive(wire::KeepAlive { events_acknowledged: acknowledged, ..wire::KeepAlive::default() })
    };
    let number = world.send(client, alive(0));
    let Some(Ok(Answer::KeptAlive(kept))) = world.answer(client, number) else { return Vec::new() };
    world.send(client, alive(kept.first_event + kept.events.len() as u64 - 1));
    kept.events.iter().map(wire::Event::kind).collect()
}

#[test]
fn a_holder_hears_of_those_who_wait_also_if_they_came_before_it_held() {
    let mut world = World::new();
    let (mut a, ha) = listening(&mut world);
    let (mut b, hb) = listening(&mut world);
    let (mut c, hc) = opened(&mut world);
    world.call(&mut a, acquire(ha)).unwrap();
    assert_eq!(told(&mut world, &mut a), []);
    world.send(&mut b, acquire(hb));
    world.send(&mut c, acquire(hc));
    let (released, conflict) = (Kind::LockReleased, Kind::LockConflict);
    assert_eq!(told(&mut world, &mut a), [conflict, conflict]);
    assert_eq!(told(&mut world, &mut b), []);
    // The third waits already when the second is granted the lock.
    world.call(&mut a, release(ha)).unwrap();
    assert_eq!(told(&mut world, &mut b), [released, conflict]);
    // And nobody waits any more when the third is.
    world.call(&mut b, release(hb)).unwrap();
    assert_eq!(told(&mut world, &mut c), []);
    // One that is granted beside others does not stand in anybody's way.
    world.call(&mut c, release(hc)).unwrap();
    told(&mut world, &mut a);
    world.hold_disk = true;
    let (first, second) = (world.send(&mut a, shared(ha)), world.send(&mut c, shared(hc)));
    world.hold_disk = false;
    world.flush();
    assert!(world.answer(&a, first).unwrap().is_ok() && world.answer(&c, second).unwrap().is_ok());
    assert_eq!(told(&mut world, &mut a), []);
}

#[test]
fn who_listens_hears_that_a_holder_is_gone_however_it_went() {
    let mut world = World::new();
    let (mut heard, _) = listening(&mut world);
    let hold = |world: &mut World, lock_delay_ms| {
        let mut holder = world.client();
        let open = wire::Open { path: LOCK.into(), lock_delay_ms, ..may_create() };
        let handle = world.open_with(&mut holder, open);
        let number = world.send(&mut holder, acquire(handle));
        assert!(world.answer(&holder, number).unwrap().is_ok());
        (holder, handle)
    };
    let (mut gives_back, handle) = hold(&mut world, 0);
    assert_eq!(told(&mut world, &mut heard), []);
    world.call(&mut gives_back, release(handle)).unwrap();
    assert_eq!(told(&mut world, &mut heard), [Kind::LockReleased]);
    for lock_delay_ms in [0, 30_000] {
        hold(&mut world, lock_delay_ms);
        world.pass(LEASE / 2);
        assert_eq!(told(&mut world, &mut heard), []);
        world.pass(LEASE / 2);
        assert_eq!(told(&mut world, &mut heard), [Kind::LockReleased]);
    }
}

#[test]
fn trying_never_waits_and_waiting_ends_when_it_said() {
    let mut world = World::new();
    let (mut holder, hh) = opened(&mut world);
    let (mut other, ho) = opened(&mut world);
    world.call(&mut holder, acquire(hh)).unwrap();
    let attempt = wire::Acquire { handle: Some(ho), r#try: true, ..wire::Acquire::default() };
    assert_eq!(world.call(&mut other, Call::Acquire(attempt)), Err(Error::LockHeld));
    let limited = wire::Acquire { handle: Some(ho), timeout_ms: 300, ..wire::Acquire::default() };
    let number = world.send(&mut other, Call::Acquire(limited));
    world.pass(Duration::from_millis(299));
    assert!(world.answer(&other, number).is_none());
    world.pass(Duration::from_millis(1));
    assert_eq!(world.answer(&other, number), Some(Err(Error::Timeout)));
    // And nothing is left behind.
    world.call(&mut holder, release(hh)).unwrap();
    assert_eq!(world.replica.state().tree().locks_held(), 0);
}

#[test]
fn a_lock_delay_runs_after_a_session_that_expired_and_not_after_a_release() {
    let mut world = World::new();
    let mut dies = world.client();
    let open = wire::Open { path: LOCK.into(), lock_delay_ms: 30_000, ..may_create() };
    let handle = world.open_with(&mut dies, open);
    world.call(&mut dies, acquire(handle)).unwrap();
    world.call(&mut dies, release(handle)).unwrap();
    world.call(&mut dies, acquire(handle)).unwrap();
    world.pass(LEASE);
    let (mut next, hn) = opened(&mut world);
    let attempt = wire::Acquire { handle: Some(hn), r#try: true, ..wire::Acquire::default() };
    let error = world.call(&mut next, Call::Acquire(attempt)).unwrap_err();
    assert_eq!(error, Error::LockDelayed { remaining: Duration::from_secs(30) });
    let waits = world.send(&mut next, acquire(hn));
    // I7: a new master begins the delay anew.
    world.pass(Duration::from_secs(5));
    world.restart();
    world.resume(&mut next).unwrap();
    world.send_again(&next, waits, acquire(hn));
    for _ in 0..5 {
        let alive = Call::KeepAlive(wire::KeepAlive { events_acknowledged: 1, ..wire::KeepAlive::default() });
        world.send(&mut next, alive);
        world.pass(Duration::from_millis(5_900));
        assert!(world.answer(&next, waits).is_none());
    }
    world.pass(Duration::from_millis(500));
    assert!(world.answer(&next, waits).unwrap().is_ok());
}

#[test]
fn a_cancelled_acquire_leaves_no_lock_behind_wherever_it_was() {
    let cancel = |handle, acquire| Call::CancelAcquire(wire::CancelAcquire { handle: Some(handle), acquire });
    // Waiting.
    let mut world = World::new();
    let (mut holder, hh) = opened(&mut world);
    let (mut client, handle) = opened(&mut world);
    world.call(&mut holder, acquire(hh)).unwrap();
    let number = world.send(&mut client, acquire(handle));
    world.call(&mut client, cancel(handle, number)).unwrap();
    assert_eq!(world.answer(&client, number), Some(Err(Error::Cancelled)));
    world.call(&mut holder, release(hh)).unwrap();
    assert_eq!(world.replica.state().tree().locks_held(), 0);
    // On its way into the log.
    world.hold_disk = true;
    let number = world.send(&mut client, acquire(handle));
    let cancelled = world.send(&mut client, cancel(handle, number));
    world.hold_disk = false;
    world.flush();
    assert!(world.answer(&client, cancelled).unwrap().is_ok());
    assert_eq!(world.replica.state().tree().locks_held(), 0);
    // Granted already.
    let number = world.send(&mut client, acquire(handle));
    world.call(&mut client, cancel(handle, number)).unwrap();
    assert_eq!(world.replica.state().tree().locks_held(), 0);
    // A delayed copy of it comes too late.
    world.send_again(&client, number, acquire(handle));
    while let Some(answer) = world.answer(&client, number) {
        assert!(!matches!(answer, Ok(Answer::Granted(_))) || world.replica.state().tree().locks_held() == 0);
    }
    assert_eq!(world.replica.state().tree().locks_held(), 0);
}

#[test]
fn a_delayed_copy_of_an_acquire_that_is_over_takes_no_lock() {
    // Found by the simulator: a request that its client had sent again on a new connection, and that was
    // answered there, arrived once more on the old one and left a lock behind.
    let mut world = World::new();
    let (mut holder, hh) = opened(&mut world);
    let (mut client, handle) = opened(&mut world);
    world.call(&mut holder, acquire(hh)).unwrap();
    let limited =
        || Call::Acquire(wire::Acquire { handle: Some(handle), timeout_ms: 10, ..Default::default() });
    let waited = world.send(&mut client, limited());
    world.pass(Duration::from_millis(10));
    assert_eq!(world.answer(&client, waited), Some(Err(Error::Timeout)));
    let only_try =
        || Call::Acquire(wire::Acquire { handle: Some(handle), r#try: true, ..Default::default() });
    let tried = world.send(&mut client, only_try());
    assert_eq!(world.answer(&client, tried), Some(Err(Error::LockHeld)));
    world.call(&mut holder, release(hh)).unwrap();
    // A retry gets the same answer, an older copy is refused.
    world.send_again(&client, tried, only_try());
    assert_eq!(world.answer(&client, tried), Some(Err(Error::LockHeld)));
    world.send_again(&client, waited, limited());
    assert_eq!(world.answer(&client, waited), Some(Err(Error::Cancelled)));
    assert_eq!(world.replica.state().tree().locks_held(), 0);
    world.call(&mut client, acquire(handle)).unwrap();
}

#[test]
fn a_second_copy_of_an_open_in_the_log_does_not_let_an_acquire_that_is_over_come_again() {
    let mut world = World::new();
    let mut client = world.client();
    let handle = world.open_before_a_copy(&mut client, LOCK);
    let acquired = world.send(&mut client, acquire(handle));
    let cancel = wire::CancelAcquire { handle: Some(handle), acquire: acquired };
    world.send(&mut client, Call::CancelAcquire(cancel));
    world.records_left = None;
    world.flush();
    world.send_again(&client, acquired, acquire(handle));
    assert_eq!(world.replica.state().tree().locks_held(), 0);
}

#[test]
fn a_delayed_copy_of_a_waiting_acquire_does_not_draw_the_answer_to_a_connection_that_is_gone() {
    // Found by the simulator (seed 2843): the lock was granted, and its holder never heard of it.
    let mut world = World::new();
    let (mut holder, hh) = opened(&mut world);
    let (mut client, handle) = opened(&mut world);
    world.call(&mut holder, acquire(hh)).unwrap();
    let old = client;
    let waits = world.send(&mut client, acquire(handle));
    world.resume(&mut client).unwrap();
    world.send_again(&client, waits, acquire(handle));
    world.send_again(&old, waits, acquire(handle));
    world.call(&mut holder, release(hh)).unwrap();
    assert!(world.answer(&client, waits).unwrap().is_ok());
}

#[test]
fn an_acquire_that_waits_is_not_refused_when_it_comes_again_whatever_was_asked_since() {
    // Found by the property: told that it was cancelled, it waited on, and took the lock for nobody.
    let mut world = World::new();
    let (mut holder, hh) = opened(&mut world);
    let (mut client, handle) = opened(&mut world);
    world.call(&mut holder, acquire(hh)).unwrap();
    let waits = world.send(&mut client, acquire(handle));
    assert_eq!(world.call(&mut client, release(handle)), Err(Error::NotHeld));
    world.resume(&mut client).unwrap();
    world.send_again(&client, waits, acquire(handle));
    assert_eq!(world.answer(&client, waits), None);
    world.call(&mut holder, release(hh)).unwrap();
    assert!(world.answer(&client, waits).unwrap().is_ok());
}

#[test]
fn closing_a_handle_gives_up_its_lock_or_its_place_in_the_queue() {
    let close = |handle| Call::Close(wire::Close { handle: Some(handle) });
    let mut world = World::new();
    let (mut holder, hh) = opened(&mut world);
    let (mut second, hs) = opened(&mut world);
    let (mut third, ht) = opened(&mut world);
    world.call(&mut holder, acquire(hh)).unwrap();
    let ns = world.send(&mut second, acquire(hs));
    let nt = world.send(&mut third, acquire(ht));
    world.call(&mut second, close(hs)).unwrap();
    assert_eq!(world.answer(&second, ns), Some(Err(Error::Cancelled)));
    world.call(&mut holder, close(hh)).unwrap();
    assert!(world.answer(&third, nt).unwrap().is_ok());
    // A grant on its way is followed by the Close.
    world.call(&mut third, release(ht)).unwrap();
    world.hold_disk = true;
    world.send(&mut third, acquire(ht));
    world.send(&mut third, close(ht));
    world.hold_disk = false;
    world.flush();
    assert_eq!(world.replica.state().tree().locks_held(), 0);
}

#[test]
fn an_acquire_behind_the_release_of_its_own_handle_waits_for_it() {
    let cancel = |handle, acquire| Call::CancelAcquire(wire::CancelAcquire { handle: Some(handle), acquire });
    let mut world = World::new();
    let (mut client, handle) = opened(&mut world);
    let first = world.send(&mut client, acquire(handle));
    let first = sequencer(world.answer(&client, first).unwrap());
    let again = world.call(&mut client, acquire(handle));
    assert!(matches!(again, Err(Error::InvalidArgument { .. })), "{again:?}");
    // All at once, while the disk is busy.
    world.hold_disk = true;
    world.send(&mut client, release(handle));
    let second = world.send(&mut client, acquire(handle));
    assert_eq!(world.answer(&client, second), None);
    world.hold_disk = false;
    world.flush();
    let second = sequencer(world.answer(&client, second).unwrap());
    assert!(second.token > first.token);
    world.call(&mut client, release(handle)).unwrap();
    // The same with one that was taken back when its grant was on its way.
    world.hold_disk = true;
    let given_up = world.send(&mut client, acquire(handle));
    world.flush();
    world.send(&mut client, cancel(handle, given_up));
    let third = world.send(&mut client, acquire(handle));
    assert!(matches!(world.answer(&client, third), Some(Err(Error::Overloaded { .. }))), "for a moment");
    world.hold_disk = false;
    world.flush();
    assert_eq!(world.replica.state().tree().locks_held(), 0);
    world.send_again(&client, third, acquire(handle));
    assert!(sequencer(world.answer(&client, third).unwrap()).token > second.token);
}

#[test]
fn who_has_given_up_while_a_grant_was_on_its_way_is_out_of_the_queue_when_that_is_refused() {
    let mut world = World::new();
    let mut dies = world.client();
    let open = wire::Open { path: LOCK.into(), lock_delay_ms: 30_000, ..may_create() };
    let hd = world.open_with(&mut dies, open);
    world.call(&mut dies, acquire(hd)).unwrap();
    world.pass(LEASE - Duration::from_secs(1));
    let (mut tries, ht) = opened(&mut world);
    let (mut short, hs) = opened(&mut world);
    let (mut closes, hc) = opened(&mut world);
    let (mut cancels, hx) = opened(&mut world);
    let (mut waits, hw) = opened(&mut world);
    // All on its way into the log together: the end of the holder's session, its release, and the grants.
    world.hold_disk = true;
    world.pass(Duration::from_secs(2));
    world.send(&mut dies, release(hd));
    let ask = |handle, only_try, timeout_ms| {
        let handle = Some(handle);
        Call::Acquire(wire::Acquire {
            handle,
            shared: true,
            r#try: only_try,
            timeout_ms,
            ..Default::default()
        })
    };
    let nt = world.send(&mut tries, ask(ht, true, 0));
    let ns = world.send(&mut short, ask(hs, false, 1000));
    let nc = world.send(&mut closes, ask(hc, false, 0));
    let nx = world.send(&mut cancels, ask(hx, false, 0));
    let nw = world.send(&mut waits, ask(hw, false, 0));
    world.send(&mut closes, Call::Close(wire::Close { handle: Some(hc) }));
    let cancel = wire::CancelAcquire { handle: Some(hx), acquire: nx };
    world.send(&mut cancels, Call::CancelAcquire(cancel));
    world.pass(Duration::from_secs(2));
    world.hold_disk = false;
    world.flush();
    let tried = world.answer(&tries, nt);
    assert!(matches!(tried, Some(Err(Error::LockDelayed { .. }))), "{tried:?}");
    assert_eq!(world.answer(&short, ns), Some(Err(Error::Timeout)));
    assert_eq!(world.answer(&closes, nc), Some(Err(Error::Cancelled)));
    assert_eq!(world.answer(&cancels, nx), Some(Err(Error::Cancelled)));
    for _ in 0..6 {
        assert_eq!(world.answer(&waits, nw), None, "in its lock-delay");
        for client in [&mut tries, &mut short, &mut closes, &mut cancels, &mut waits] {
            hears(&mut world, client, 0);
        }
        world.pass(Duration::from_secs(5));
    }
    assert!(world.answer(&waits, nw).unwrap().is_ok());
    let lock = world.replica.state().tree().nodes().find(|node| node.lock.is_held()).unwrap();
    assert_eq!(lock.lock.holders().count(), 1, "nobody holds it who has given up");
}

#[test]
fn a_grant_checks_at_apply_that_its_session_still_lives() {
    // The session ends after the grant was proposed and before it is applied.
    let mut world = World::new();
    let (mut dies, hd) = opened(&mut world);
    let (mut next, hn) = opened(&mut world);
    world.hold_disk = true;
    world.send(&mut dies, Call::EndSession(wire::EndSession {}));
    let number = world.send(&mut dies, acquire(hd));
    let waits = world.send(&mut next, acquire(hn));
    world.hold_disk = false;
    world.flush();
    assert_eq!(world.answer(&dies, number), Some(Err(Error::SessionExpired)));
    assert!(world.answer(&next, waits).unwrap().is_ok());
}

#[test]
fn a_sequencer_is_valid_while_its_lock_is_held_and_never_again() {
    let mut world = World::new();
    let (mut holder, handle) = opened(&mut world);
    let (mut asker, _) = opened(&mut world);
    let sequencer = sequencer(world.call(&mut holder, acquire(handle))).to_string();
    let check = |world: &mut World, asker: &Client| {
        let check = Call::CheckSequencer(wire::CheckSequencer { sequencer: sequencer.clone() });
        world.send_again(asker, 999, check);
        world.answer(asker, 999).unwrap()
    };
    assert!(check(&mut world, &asker).is_ok());
    world.restart();
    world.resume(&mut asker).unwrap();
    world.resume(&mut holder).unwrap();
    assert!(check(&mut world, &asker).is_ok(), "locks survive a fail-over");
    world.call(&mut holder, release(handle)).unwrap();
    assert_eq!(check(&mut world, &asker), Err(Error::SequencerStale));
    world.call(&mut holder, acquire(handle)).unwrap();
    assert_eq!(check(&mut world, &asker), Err(Error::SequencerStale), "I4");
}

#[test]
fn a_handle_tied_to_a_sequencer_fails_once_it_is_stale_also_after_a_restart() {
    let mut world = World::new();
    let (mut holder, lock) = opened(&mut world);
    let mut worker = world.client();
    let file = world.open(&mut worker, "/ls/test/file");
    let sequencer = sequencer(world.call(&mut holder, acquire(lock))).to_string();
    let tie = Call::SetSequencer(wire::SetSequencer { handle: Some(file), sequencer });
    world.call(&mut worker, tie).unwrap();
    world.write(&mut worker, file, "while held").unwrap();
    world.call(&mut holder, release(lock)).unwrap();
    assert_eq!(world.write(&mut worker, file, "too late"), Err(Error::SequencerStale));
    world.restart();
    world.resume(&mut worker).unwrap();
    assert_eq!(world.write(&mut worker, file, "too late"), Err(Error::SequencerStale));
    assert_eq!(world.read(&mut worker, file), Err(Error::SequencerStale));
}

#[test]
fn a_lock_that_somebody_holds_cannot_be_deleted_from_under_him() {
    let mut world = World::new();
    let (mut holder, hh) = opened(&mut world);
    let (mut other, ho) = opened(&mut world);
    world.call(&mut holder, acquire(hh)).unwrap();
    let delete = |handle| Call::Delete(wire::Delete { handle: Some(handle) });
    assert_eq!(world.call(&mut other, delete(ho)), Err(Error::LockHeld));
    let waits = world.send(&mut other, acquire(ho));
    world.call(&mut holder, delete(hh)).unwrap();
    assert_eq!(world.answer(&other, waits), Some(Err(Error::StaleHandle)));
}

#[test]
fn who_asks_for_the_locks_of_a_file_gets_those_of_that_file() {
    let mut world = World::new();
    let (mut a, ha) = opened(&mut world);
    let mut b = world.client();
    let open = wire::Open { path: "/ls/test/other".into(), lock_delay_ms: 30_000, ..may_create() };
    let hb = world.open_with(&mut b, open);
    let listed = |world: &mut World, path: &str| {
        let asker = world.client();
        world.send_again(
            &asker,
            999,
            Call::ListLocks(wire::ListLocks { path: path.into(), ..Default::default() }),
        );
        let Some(Ok(Answer::Locks(locks))) = world.answer(&asker, 999) else { panic!("no locks") };
        locks.locks.into_iter().map(|lock| lock.path).collect::<Vec<_>>()
    };
    assert!(listed(&mut world, LOCK).is_empty(), "nobody has to do with it");
    world.call(&mut a, acquire(ha)).unwrap();
    world.call(&mut b, acquire(hb)).unwrap();
    assert_eq!(listed(&mut world, LOCK), [LOCK]);
    assert_eq!(listed(&mut world, "/ls/test"), [LOCK, "/ls/test/other"]);
    world.call(&mut a, release(ha)).unwrap();
    assert!(listed(&mut world, LOCK).is_empty());
    // In its lock-delay.
    world.pass(LEASE);
    assert_eq!(listed(&mut world, "/ls/test/other"), ["/ls/test/other"]);
}

#[test]
fn a_lock_of_a_crowd_is_listed_with_its_first_holders_and_the_number_of_all() {
    let mut world = World::new();
    let mut crowd = world.client();
    let node = Some(wire::NewNode { permits: 300, ..wire::NewNode::default() });
    for _ in 0..300 {
        let open = wire::Open { path: LOCK.into(), node: node.clone(), ..may_create() };
        let handle = world.open_with(&mut crowd, open);
        world.call(&mut crowd, shared(handle)).unwrap();
    }
    let list = Call::ListLocks(wire::ListLocks::default());
    let Ok(Answer::Locks(locks)) = world.call(&mut crowd, list) else { panic!("no locks") };
    assert_eq!((locks.locks[0].holders.len(), locks.locks[0].holding), (256, 300));
}

/// What a session hears when it asks, with the events up to a number acknowledged.
fn hears(world: &mut World, client: &mut Client, events_acknowledged: u64) -> Vec<Kind> {
    let alive = Call::KeepAlive(wire::KeepAlive { events_acknowledged, ..wire::KeepAlive::default() });
    let number = world.send(client, alive);
    match world.answer(client, number) {
        Some(Ok(Answer::KeptAlive(kept))) => kept.events.iter().map(wire::Event::kind).collect(),
        Some(other) => panic!("{other:?}"),
        None => Vec::new(),
    }
}

#[test]
fn who_keeps_a_lock_until_it_is_wanted_is_told_of_those_who_waited_before() {
    // Found by the simulator: a conflict was told only to who held the lock when somebody began to wait.
    let mut world = World::new();
    let mut keeper = world.client();
    let events = Kind::LockConflict.bit();
    let kept = world.open_with(&mut keeper, wire::Open { path: LOCK.into(), events, ..may_create() });
    let (mut holder, hh) = opened(&mut world);
    let (mut other, ho) = opened(&mut world);
    world.call(&mut holder, acquire(hh)).unwrap();
    let (mine, theirs) = (world.send(&mut keeper, acquire(kept)), world.send(&mut other, acquire(ho)));
    world.call(&mut holder, release(hh)).unwrap();
    assert!(world.answer(&keeper, mine).unwrap().is_ok());
    assert_eq!(hears(&mut world, &mut keeper, 0), [Kind::LockConflict]);
    // At the next master the other one waits before the handle is there again.
    world.restart();
    world.resume(&mut other).unwrap();
    world.send_again(&other, theirs, acquire(ho));
    world.resume(&mut keeper).unwrap();
    assert_eq!(hears(&mut world, &mut keeper, 0), [Kind::FailedOver]);
    world.read(&mut keeper, kept).unwrap();
    assert_eq!(hears(&mut world, &mut keeper, 1), [Kind::LockConflict]);
    // Nobody hears of it who does not hold the lock, or whom nobody wants to have it from.
    world.call(&mut keeper, release(kept)).unwrap();
    assert!(world.answer(&other, theirs).unwrap().is_ok());
    assert!(hears(&mut world, &mut keeper, 2).is_empty());
}

#[test]
fn both_modes_take_the_permission_to_write() {
    let mut world = World::new();
    let (mut maker, _) = opened(&mut world);
    let mut reader = world.client();
    let open = wire::Open { path: LOCK.into(), mode: 1, ..wire::Open::default() };
    let handle = world.open_with(&mut reader, open);
    for call in [acquire(handle), shared(handle)] {
        assert!(matches!(world.call(&mut reader, call), Err(Error::BadHandle { .. })));
    }
    // Nor does a handle that says more than it was given.
    let forged = Handle { mode: 3, ..handle };
    assert!(matches!(world.call(&mut reader, acquire(forged)), Err(Error::BadHandle { .. })));
    let mine = world.open(&mut maker, LOCK);
    assert!(world.call(&mut maker, acquire(mine)).is_ok(), "nobody holds it");
}
