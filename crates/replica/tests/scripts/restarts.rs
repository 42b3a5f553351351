//! What survives a restart, and what must not (P§2.9).

use crate::world::{LEASE, World, acquire, may_create, set};
use std::time::Duration;
use wombat_proto::wire::event::Kind;
use wombat_proto::wire::{self, request::Call, response::Result as Answer};
use wombat_proto::{Error, SessionId};

#[test]
fn sessions_handles_and_locks_survive() {
    let mut world = World::new();
    let (mut holder, mut other) = (world.client(), world.client());
    let handle = world.open(&mut holder, "/ls/test/lock");
    let first = world.call(&mut holder, acquire(handle)).unwrap();
    let theirs = world.open(&mut other, "/ls/test/lock");
    world.restart();
    world.resume(&mut holder).unwrap();
    world.resume(&mut other).unwrap();
    let again = Call::GetSequencer(wire::GetSequencer { handle: Some(handle) });
    assert_eq!(world.call(&mut holder, again).unwrap(), first);
    let attempt = wire::Acquire { handle: Some(theirs), r#try: true, ..wire::Acquire::default() };
    assert_eq!(world.call(&mut other, Call::Acquire(attempt)), Err(Error::LockHeld));
}

#[test]
fn the_new_master_gives_every_session_a_whole_lease_and_tells_it() {
    let mut world = World::new();
    let mut client = world.client();
    world.pass(LEASE * 3 / 4);
    world.restart();
    world.pass(LEASE * 3 / 4);
    world.resume(&mut client).unwrap();
    let number = world.send(
        &mut client,
        Call::KeepAlive(wire::KeepAlive { events_acknowledged: 0, ..wire::KeepAlive::default() }),
    );
    let Some(Ok(Answer::KeptAlive(kept))) = world.answer(&client, number) else { panic!("no answer") };
    assert_eq!(kept.events[0].kind(), Kind::FailedOver);
}

#[test]
fn a_lease_of_the_master_before_the_last_is_kept_too() {
    // Found by the simulator: the second of two new masters knew only what the first grants, which was less.
    let mut world = World::new();
    let client = world.client();
    let alive = |world: &World| world.replica.state().session(SessionId(client.session)).is_some();
    world.lease = LEASE / 4;
    world.restart();
    world.restart();
    world.pass(LEASE - Duration::from_millis(1));
    assert!(alive(&world), "I5");
    world.pass(Duration::from_millis(1));
    assert!(!alive(&world));
}

#[test]
fn a_change_that_comes_again_while_it_is_under_way_is_not_refused() {
    // Found by the simulator: the copy was told that the handle is closed, for good, and the first took effect.
    let mut world = World::new();
    let mut client = world.client();
    let handle = world.open(&mut client, "/ls/test/file");
    world.hold_disk = true;
    let number = world.send(&mut client, set(handle, "written"));
    world.call(&mut client, Call::Close(wire::Close { handle: Some(handle) })).unwrap();
    world.resume(&mut client).unwrap();
    world.send_again(&client, number, set(handle, "written"));
    assert_eq!(world.answer(&client, number), None);
    world.hold_disk = false;
    world.flush();
    assert!(matches!(world.answer(&client, number), Some(Ok(Answer::Stat(_)))));
}

#[test]
fn what_was_not_durable_was_not_answered_and_is_gone() {
    let mut world = World::new();
    let mut client = world.client();
    let handle = world.open(&mut client, "/ls/test/file");
    world.write(&mut client, handle, "kept").unwrap();
    world.hold_disk = true;
    let number = world.send(&mut client, set(handle, "lost"));
    assert!(world.answer(&client, number).is_none());
    world.hold_disk = false;
    world.restart();
    world.resume(&mut client).unwrap();
    assert_eq!(world.read(&mut client, handle).unwrap(), "kept");
}

#[test]
fn a_closed_handle_stays_closed() {
    let mut world = World::new();
    let mut client = world.client();
    let handle = world.open(&mut client, "/ls/test/file");
    world.restart();
    world.resume(&mut client).unwrap();
    assert!(world.read(&mut client, handle).is_ok(), "made again on use");
    world.call(&mut client, Call::Close(wire::Close { handle: Some(handle) })).unwrap();
    assert_eq!(world.read(&mut client, handle), Err(Error::StaleHandle), "I16");
}

#[test]
fn a_delayed_open_does_not_bring_back_what_it_opened() {
    // Found by the simulator: the kept answer of an Open that made its node made the closed handle again.
    let mut world = World::new();
    let mut client = world.client();
    let open = || Call::Open(wire::Open { path: "/ls/test/file".into(), ..may_create() });
    let close = |handle| Call::Close(wire::Close { handle: Some(handle) });
    let opened = |world: &mut World, client: &_, number| match world.answer(client, number) {
        Some(Ok(Answer::Opened(opened))) => opened.handle.unwrap(),
        other => panic!("{other:?}"),
    };
    let number = world.send(&mut client, open());
    let handle = opened(&mut world, &client, number);
    world.call(&mut client, close(handle)).unwrap();
    world.send_again(&client, number, open());
    assert_eq!(world.answer(&client, number), Some(Err(Error::StaleHandle)), "I16");
    assert_eq!(world.read(&mut client, handle), Err(Error::StaleHandle), "I16");
}

#[test]
fn an_open_that_was_answered_or_not_is_found_again() {
    let mut world = World::new();
    let mut client = world.client();
    let open = || wire::Open {
        path: "/ls/test/file".into(),
        create: wire::open::Create::Must.into(),
        ..may_create()
    };
    let number = world.send(&mut client, Call::Open(open()));
    assert!(matches!(world.answer(&client, number), Some(Ok(Answer::Opened(o))) if o.created));
    world.restart();
    world.resume(&mut client).unwrap();
    world.send_again(&client, number, Call::Open(open()));
    let Some(Ok(Answer::Opened(opened))) = world.answer(&client, number) else { panic!("not opened") };
    assert!(opened.created, "the same answer");
    assert!(world.read(&mut client, opened.handle.unwrap()).is_ok());
    // A new Open of the same sort is another request.
    assert_eq!(world.call(&mut client, Call::Open(open())), Err(Error::AlreadyExists));
}

#[test]
fn an_acquire_that_was_granted_but_not_answered_finds_its_lock() {
    let mut world = World::new();
    let mut client = world.client();
    let handle = world.open(&mut client, "/ls/test/lock");
    let number = world.send(&mut client, acquire(handle));
    let first = world.answer(&client, number).unwrap().unwrap();
    world.restart();
    world.resume(&mut client).unwrap();
    world.send_again(&client, number, acquire(handle));
    assert_eq!(world.answer(&client, number).unwrap().unwrap(), first);
}

#[test]
fn an_ended_session_cannot_be_resumed() {
    let mut world = World::new();
    let mut client = world.client();
    world.call(&mut client, Call::EndSession(wire::EndSession {})).unwrap();
    assert_eq!(world.resume(&mut client), Err(Error::SessionExpired));
    assert!(world.replica.state().session(SessionId(client.session)).is_none());
}

#[test]
fn a_second_copy_of_an_open_in_the_log_does_not_bring_a_closed_handle_back() {
    // Found by the simulator (I16).
    let mut world = World::new();
    let mut client = world.client();
    let handle = world.open_before_a_copy(&mut client, "/ls/test/file");
    world.call(&mut client, Call::Close(wire::Close { handle: Some(handle) })).unwrap();
    world.records_left = None;
    world.flush();
    assert_eq!(world.read(&mut client, handle), Err(Error::StaleHandle));
}
