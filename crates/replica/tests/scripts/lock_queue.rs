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
    let open = wire::Open { path: LOCK.into(), ..may_create() };
    world.records_left = Some(0);
    let number = world.send(&mut client, Call::Open(open.clone()));
    world.send_again(&client, number, Call::Open(open));
    world.records_left = Some(1);
    world.flush();
    let Some(Ok(Answer::Opened(opened))) = world.answer(&client, number) else { panic!("not opened") };
    let handle = opened.handle.unwrap();
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
fn a_grant_checks_at_apply_that_its_session_still_lives() {
    // PITFALLS 2: the session ends after the grant was proposed and before it is applied.
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
