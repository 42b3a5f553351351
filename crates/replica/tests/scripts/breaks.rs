//! Breaking a lock: its holder knows before anybody else can have it (SPEC §4).

use crate::world::{Client, LEASE, World, acquire, may_create};
use std::time::Duration;
use wombat_proto::wire::event::Kind;
use wombat_proto::wire::{self, Handle, request::Call, response::Result as Answer};
use wombat_proto::{Error, Sequencer};

const LOCK: &str = "/ls/test/lock";

fn open(world: &mut World, client: &mut Client, lock_delay_ms: u32) -> Handle {
    let events = Kind::LockInvalid.bit();
    world.open_with(client, wire::Open { path: LOCK.into(), lock_delay_ms, events, ..may_create() })
}

fn lock(world: &mut World, client: &mut Client, handle: Handle) -> Sequencer {
    match world.call(client, acquire(handle)) {
        Ok(Answer::Granted(granted)) => granted.sequencer.parse().unwrap(),
        other => panic!("{other:?}"),
    }
}

fn break_lock(token: u64) -> Call {
    Call::BreakLock(wire::BreakLock { path: LOCK.into(), token, reason: "a script".into() })
}

/// A KeepAlive that says which revocations it has heard of and obeyed.
fn keep_alive(events_acknowledged: u64, heard: &[u64], obeyed: &[u64]) -> Call {
    let (revocations_heard, revocations_obeyed) = (heard.into(), obeyed.into());
    Call::KeepAlive(wire::KeepAlive {
        events_acknowledged,
        idle: false,
        revocations_heard,
        revocations_obeyed,
        ..wire::KeepAlive::default()
    })
}

fn kept_alive(world: &mut World, client: &Client, number: u64) -> wire::KeptAlive {
    match world.answer(client, number) {
        Some(Ok(Answer::KeptAlive(kept))) => kept,
        other => panic!("{other:?}"),
    }
}

fn audit(world: &mut World, client: &mut Client) -> Vec<String> {
    client.number += 1;
    let list = Call::ListAudit(wire::ListAudit::default());
    let request = wire::Request { number: client.number, call: Some(list), ..wire::Request::default() };
    world.send_raw(client.connection, request);
    match world.take(client.connection).result {
        Some(Answer::Audit(audit)) => audit.entries.into_iter().map(|entry| entry.what).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_holder_is_told_and_only_when_it_has_obeyed_another_can_have_it() {
    let mut world = World::new();
    let (mut holder, mut next, mut admin) = (world.client(), world.client(), world.client());
    let (mine, theirs) = (open(&mut world, &mut holder, 0), open(&mut world, &mut next, 0));
    let held = lock(&mut world, &mut holder, mine);
    let waits = world.send(&mut next, acquire(theirs));
    let stays = world.send(&mut holder, keep_alive(0, &[], &[]));
    let breaks = world.send(&mut admin, break_lock(0));
    let kept = kept_alive(&mut world, &holder, stays);
    assert_eq!(kept.revocations, [wire::Revocation { handle: mine.id, token: held.token.0 }]);
    // It has heard, and stops what it does under the lock; until it has, nothing is taken from it.
    let stays = world.send(&mut holder, keep_alive(0, &[held.token.0], &[]));
    assert!(world.answer(&holder, stays).is_none(), "what it has heard of is not told again and again");
    assert!(world.answer(&admin, breaks).is_none() && world.answer(&next, waits).is_none());
    let obeys = world.send(&mut holder, keep_alive(0, &[held.token.0], &[held.token.0]));
    assert!(world.answer(&admin, breaks).unwrap().is_ok());
    assert!(world.answer(&next, waits).unwrap().is_ok());
    let kept = kept_alive(&mut world, &holder, obeys);
    assert_eq!(kept.events[0].kind(), Kind::LockInvalid);
    assert!(kept.revocations.is_empty());
    let sequencer = held.to_string();
    let set = wire::SetSequencer { handle: Some(theirs), sequencer };
    assert_eq!(world.call(&mut next, Call::SetSequencer(set)), Err(Error::SequencerStale));
    let audit = audit(&mut world, &mut admin);
    assert!(audit.len() == 1 && audit[0].contains(LOCK) && audit[0].contains("a script"), "{audit:?}");
    world.restart();
    world.resume(&mut admin).unwrap();
    assert_eq!(self::audit(&mut world, &mut admin), audit, "it is kept");
}

#[test]
fn a_break_from_under_a_lost_lock_is_refused_before_the_holder_learns_of_it() {
    let mut world = World::new();
    let (mut holder, mut outer) = (world.client(), world.client());
    let mine = open(&mut world, &mut holder, 0);
    lock(&mut world, &mut holder, mine);
    let fence = world.open_with(&mut outer, wire::Open { path: "/ls/test/fence".into(), ..may_create() });
    let sequencer = lock(&mut world, &mut outer, fence);
    let connection = world.connect();
    let sequencers = [sequencer.to_string()].into();
    let create = wire::CreateSession { sequencers, ..wire::CreateSession::default() };
    let mut fenced = world.client_with(connection, create);
    let stays = world.send(&mut holder, keep_alive(0, &[], &[]));
    world.call(&mut outer, Call::Release(wire::Release { handle: Some(fence) })).unwrap();
    assert_eq!(world.call(&mut fenced, break_lock(0)), Err(Error::SequencerStale));
    let create = wire::Open { path: "/ls/test/new".into(), ..may_create() };
    assert_eq!(world.call(&mut fenced, Call::Open(create)), Err(Error::SequencerStale));
    assert!(world.answer(&holder, stays).is_none(), "nothing is said to the holder");
    // A session without a fence may.
    let mut admin = world.client();
    world.send(&mut admin, break_lock(0));
    assert_eq!(kept_alive(&mut world, &holder, stays).revocations.len(), 1);
}

#[test]
fn what_was_told_on_a_lost_connection_is_told_again() {
    let mut world = World::new();
    let (mut holder, mut admin) = (world.client(), world.client());
    let mine = open(&mut world, &mut holder, 0);
    lock(&mut world, &mut holder, mine);
    world.send(&mut holder, keep_alive(0, &[], &[]));
    world.send(&mut admin, break_lock(0));
    world.resume(&mut holder).unwrap();
    let number = world.send(&mut holder, keep_alive(0, &[], &[]));
    assert_eq!(kept_alive(&mut world, &holder, number).revocations.len(), 1);
}

#[test]
fn a_copy_that_comes_when_all_have_obeyed_does_not_ask_them_anew() {
    let mut world = World::new();
    let (mut holder, mut admin) = (world.client(), world.client());
    let mine = open(&mut world, &mut holder, 0);
    let held = lock(&mut world, &mut holder, mine).token.0;
    world.send(&mut holder, keep_alive(0, &[], &[]));
    let breaks = world.send(&mut admin, break_lock(0));
    world.hold_disk = true;
    let obeys = world.send(&mut holder, keep_alive(0, &[held], &[held]));
    assert!(world.answer(&admin, breaks).is_none(), "it is on its way into the log");
    world.send_again(&admin, breaks, break_lock(0));
    assert!(world.answer(&holder, obeys).is_none());
    world.hold_disk = false;
    world.flush();
    assert!(world.answer(&admin, breaks).unwrap().is_ok());
}

#[test]
fn a_lock_that_is_given_back_meanwhile_is_broken_enough() {
    let mut world = World::new();
    let (mut holder, mut next, mut admin) = (world.client(), world.client(), world.client());
    let (mine, theirs) = (open(&mut world, &mut holder, 5_000), open(&mut world, &mut next, 0));
    lock(&mut world, &mut holder, mine);
    let waits = world.send(&mut next, acquire(theirs));
    let breaks = world.send(&mut admin, break_lock(0));
    world.call(&mut holder, Call::Release(wire::Release { handle: Some(mine) })).unwrap();
    assert!(world.answer(&admin, breaks).unwrap().is_ok());
    assert!(world.answer(&next, waits).unwrap().is_ok(), "and the next holder keeps it");
    assert!(audit(&mut world, &mut admin)[0].contains("given back"));
}

#[test]
fn a_holder_that_does_not_obey_loses_its_session_at_the_end_of_its_lease_however_it_is_kept_alive() {
    let mut world = World::new();
    let (mut holder, mut next, mut admin) = (world.client(), world.client(), world.client());
    let (mine, theirs) = (open(&mut world, &mut holder, 0), open(&mut world, &mut next, 0));
    let held = lock(&mut world, &mut holder, mine);
    let waits = world.send(&mut next, acquire(theirs));
    let breaks = world.send(&mut admin, break_lock(0));
    let others = [&mut next, &mut admin].map(|other| world.send(other, keep_alive(0, &[], &[])));
    let mut number = world.send(&mut holder, keep_alive(0, &[held.token.0], &[]));
    for _ in 0..11 {
        world.pass(Duration::from_secs(1));
        if let Some(kept) = world.answer(&holder, number) {
            assert!(kept.is_ok());
            number = world.send(&mut holder, keep_alive(0, &[held.token.0], &[]));
        }
        assert!(world.answer(&next, waits).is_none(), "I5: its lease lasts");
    }
    let kept = [(&next, others[0]), (&admin, others[1])].map(|(other, one)| world.answer(other, one));
    assert!(kept.iter().all(|kept| matches!(kept, Some(Ok(_)))), "{kept:?}");
    for other in [&mut next, &mut admin] {
        world.send(other, keep_alive(0, &[], &[]));
    }
    world.pass(LEASE - Duration::from_secs(11));
    assert!(world.answer(&admin, breaks).unwrap().is_ok());
    assert!(world.answer(&next, waits).unwrap().is_ok());
    assert_eq!(world.call(&mut holder, acquire(mine)).err(), Some(Error::SessionExpired));
}

#[test]
fn the_lock_delay_is_kept() {
    let mut world = World::new();
    let (mut holder, mut next, mut admin) = (world.client(), world.client(), world.client());
    let (mine, theirs) = (open(&mut world, &mut holder, 5_000), open(&mut world, &mut next, 0));
    let held = lock(&mut world, &mut holder, mine);
    let waits = world.send(&mut next, acquire(theirs));
    let breaks = world.send(&mut admin, break_lock(held.token.0));
    world.send(&mut holder, keep_alive(0, &[held.token.0], &[held.token.0]));
    assert!(world.answer(&admin, breaks).unwrap().is_ok());
    world.pass(Duration::from_millis(4_999));
    assert!(world.answer(&next, waits).is_none(), "I7");
    world.pass(Duration::from_millis(1));
    assert!(world.answer(&next, waits).unwrap().is_ok());
}

#[test]
fn only_the_grant_that_is_meant_is_taken_and_a_retry_breaks_no_later_one() {
    let mut world = World::new();
    let (mut holder, mut admin) = (world.client(), world.client());
    let mine = open(&mut world, &mut holder, 0);
    let held = lock(&mut world, &mut holder, mine);
    assert_eq!(world.call(&mut admin, break_lock(held.token.0 + 1)), Err(Error::NotHeld));
    let breaks = world.send(&mut admin, break_lock(0));
    world.send(&mut holder, keep_alive(0, &[held.token.0], &[held.token.0]));
    assert!(world.answer(&admin, breaks).unwrap().is_ok());
    let again = lock(&mut world, &mut holder, mine);
    assert!(held.token < again.token);
    world.send_again(&admin, breaks, break_lock(0));
    assert!(world.answer(&admin, breaks).unwrap().is_ok(), "I13: the answer that it had");
    let get = Call::GetSequencer(wire::GetSequencer { handle: Some(mine) });
    assert!(world.call(&mut holder, get).is_ok(), "it holds still");
}

#[test]
fn a_break_that_is_asked_for_again_on_another_connection_is_the_same() {
    let mut world = World::new();
    let (mut holder, mut admin) = (world.client(), world.client());
    let mine = open(&mut world, &mut holder, 0);
    let held = lock(&mut world, &mut holder, mine);
    let breaks = world.send(&mut admin, break_lock(0));
    world.resume(&mut admin).unwrap();
    world.send_again(&admin, breaks, break_lock(0));
    world.send(&mut holder, keep_alive(0, &[held.token.0], &[held.token.0]));
    assert!(world.answer(&admin, breaks).unwrap().is_ok());
    assert_eq!(audit(&mut world, &mut admin).len(), 1);
}

#[test]
fn what_cannot_be_broken_is_told() {
    let mut world = World::new();
    let mut admin = world.client();
    let missing = world.call(&mut admin, break_lock(0)).unwrap_err();
    assert!(matches!(missing, Error::NotFound { .. }), "{missing}");
    open(&mut world, &mut admin, 0);
    assert_eq!(world.call(&mut admin, break_lock(0)), Err(Error::NotHeld));
    let long = wire::BreakLock { path: LOCK.into(), token: 0, reason: "x".repeat(257) };
    assert!(matches!(world.call(&mut admin, Call::BreakLock(long)), Err(Error::TooLarge { .. })));
}

#[test]
fn the_list_says_who_holds_who_waits_and_when_it_is_free_at_the_latest() {
    let mut world = World::new();
    let (mut holder, mut next, mut admin) = (world.client(), world.client(), world.client());
    let (mine, theirs) = (open(&mut world, &mut holder, 5_000), open(&mut world, &mut next, 0));
    lock(&mut world, &mut holder, mine);
    let waits = wire::Acquire { handle: Some(theirs), timeout_ms: 8_000, ..wire::Acquire::default() };
    world.send(&mut next, Call::Acquire(waits));
    world.pass(Duration::from_secs(2));
    let list = |world: &mut World, admin: &Client| {
        let list = Call::ListLocks(wire::ListLocks::default());
        let request = wire::Request { number: 99, call: Some(list), ..wire::Request::default() };
        world.send_raw(admin.connection, request);
        match world.take(admin.connection).result {
            Some(Answer::Locks(locks)) => locks.locks.into_iter().next().expect("one lock"),
            other => panic!("{other:?}"),
        }
    };
    let before = list(&mut world, &admin);
    assert_eq!(before.holders[0].lease_left_ms, 10_000);
    assert_eq!(before.free_within_ms, 15_000, "lease and lock-delay");
    let waiter = &before.waiters[0];
    let facts = (waiter.session, waiter.waited_ms, waiter.gives_up_in_ms, waiter.shared);
    assert_eq!(facts, (next.session, 2_000, 6_000, false));
    assert!(!before.breaking);
    world.send(&mut admin, break_lock(0));
    assert!(list(&mut world, &admin).breaking);
}

#[test]
fn who_gave_the_lock_back_while_another_holder_stays_is_not_asked_for_it_any_more() {
    let mut world = World::new();
    let (mut stays, mut leaves, mut admin) = (world.client(), world.client(), world.client());
    let (hs, hl) = (open(&mut world, &mut stays, 0), open(&mut world, &mut leaves, 0));
    let shared = |handle| {
        Call::Acquire(wire::Acquire { handle: Some(handle), shared: true, ..wire::Acquire::default() })
    };
    world.call(&mut stays, shared(hs)).unwrap();
    world.call(&mut leaves, shared(hl)).unwrap();
    let breaks = world.send(&mut admin, break_lock(0));
    world.call(&mut leaves, Call::Release(wire::Release { handle: Some(hl) })).unwrap();
    let number = world.send(&mut leaves, keep_alive(0, &[], &[]));
    assert!(world.answer(&leaves, number).is_none(), "there is nothing to tell");
    // Its lease grows again, beyond that of the other, who does not obey.
    world.pass(LEASE - Duration::from_secs(1));
    assert!(kept_alive(&mut world, &leaves, number).revocations.is_empty());
    world.send(&mut admin, keep_alive(0, &[], &[]));
    world.pass(Duration::from_secs(2));
    assert!(world.answer(&admin, breaks).unwrap().is_ok());
    assert_eq!(world.call(&mut stays, shared(hs)), Err(Error::SessionExpired));
    assert!(world.call(&mut leaves, shared(hl)).is_ok());
}
