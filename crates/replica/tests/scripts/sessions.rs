//! Connections, sessions, handles and files (P§2.3, P§2.6, P§2.8).

use crate::world::{World, acquire, may_create, request, set};
use wombat_proto::wire::{self, Request, request::Call, response::Result as Answer};
use wombat_proto::{Class, Error};

#[test]
fn nothing_is_said_before_hello() {
    let mut world = World::new();
    world.send_raw(9, request(Call::GetStatus(wire::GetStatus {})));
    assert!(matches!(world.take(9).result, Some(Answer::Error(_))));
    assert_eq!(world.hung_up, [9]);
}

#[test]
fn another_cell_or_version_is_refused() {
    for (version, cell) in [(2, ""), (1, "other")] {
        let mut world = World::new();
        world.send_raw(
            1,
            request(Call::Hello(wire::Hello { version, cell: cell.into(), ..wire::Hello::default() })),
        );
        assert!(matches!(world.take(1).result, Some(Answer::Error(_))));
        assert_eq!(world.hung_up, [1]);
    }
}

#[test]
fn a_file_is_written_and_read_whole() {
    let mut world = World::new();
    let mut client = world.client();
    let handle = world.open(&mut client, "/ls/test/file");
    let Ok(Answer::Stat(stat)) = world.write(&mut client, handle, "hello") else { panic!("not written") };
    assert_eq!((stat.content_generation, stat.length), (2, 5));
    assert_eq!(world.read(&mut client, handle).unwrap(), "hello");
}

#[test]
fn a_session_is_spoken_for_only_where_its_secret_was_shown() {
    let mut world = World::new();
    let mut client = world.client();
    let handle = world.open(&mut client, "/ls/test/file");
    let mut thief = client;
    thief.connection = world.connect();
    assert_eq!(world.read(&mut thief, handle), Err(Error::SessionUnknown));
    assert!(world.replies[&client.connection].is_empty(), "the owner hears nothing of it");
    thief.secret.0 ^= 1;
    assert_eq!(world.resume(&mut thief), Err(Error::SessionUnknown));
    let mut same = client;
    world.resume(&mut same).unwrap();
    assert!(world.read(&mut same, handle).is_ok());
}

#[test]
fn nobody_makes_or_changes_a_handle() {
    let mut world = World::new();
    let (mut one, mut other) = (world.client(), world.client());
    let read_only = wire::Open { mode: 1, path: "/ls/test/file".into(), ..may_create() };
    let handle = world.open_with(&mut one, read_only);
    assert!(matches!(world.write(&mut one, handle, "x"), Err(Error::BadHandle { .. })));
    // The same handle with more rights.
    let more = wire::Handle { mode: 3, ..handle };
    assert!(matches!(world.write(&mut one, more, "x"), Err(Error::BadHandle { .. })));
    // Another session's handle.
    assert_eq!(world.read(&mut other, handle), Err(Error::StaleHandle));
    // As if of an earlier epoch.
    let earlier = wire::Handle { id: 77, epoch: handle.epoch - 1, ..handle };
    assert!(matches!(world.read(&mut other, earlier), Err(Error::BadHandle { .. })));
}

#[test]
fn a_handle_is_of_an_instance() {
    let mut world = World::new();
    let mut client = world.client();
    let old = world.open(&mut client, "/ls/test/file");
    world.call(&mut client, Call::Delete(wire::Delete { handle: Some(old) })).unwrap();
    let new = world.open(&mut client, "/ls/test/file");
    assert!(new.instance > old.instance);
    assert_eq!(world.read(&mut client, old), Err(Error::StaleHandle));
    assert_eq!(world.read(&mut client, new).unwrap(), "");
}

#[test]
fn a_change_takes_effect_at_most_once() {
    let mut world = World::new();
    let mut client = world.client();
    let handle = world.open(&mut client, "/ls/test/file");
    let number = world.send(&mut client, set(handle, "once"));
    let first = world.answer(&client, number).unwrap().unwrap();
    // The same request again, on another connection and after a restart.
    world.resume(&mut client).unwrap();
    world.send_again(&client, number, set(handle, "once"));
    assert_eq!(world.answer(&client, number).unwrap().unwrap(), first);
    world.restart();
    world.resume(&mut client).unwrap();
    world.send_again(&client, number, set(handle, "once"));
    assert_eq!(world.answer(&client, number).unwrap().unwrap(), first);
}

#[test]
fn a_retry_that_meets_the_first_on_its_way_changes_nothing_more() {
    let mut world = World::new();
    let mut client = world.client();
    let handle = world.open(&mut client, "/ls/test/file");
    world.hold_disk = true;
    let number = world.send(&mut client, set(handle, "once"));
    world.send_again(&client, number, set(handle, "once"));
    world.hold_disk = false;
    world.flush();
    let first = world.answer(&client, number).unwrap().unwrap();
    assert_eq!(world.answer(&client, number).unwrap().unwrap(), first);
}

#[test]
fn calls_of_another_epoch_are_refused_and_told() {
    let mut world = World::new();
    let mut client = world.client();
    let handle = world.open(&mut client, "/ls/test/file");
    client.epoch += 1;
    let error = world.read(&mut client, handle).unwrap_err();
    assert_eq!(error.class(), Class::Retryable);
    assert!(matches!(error, Error::StaleEpoch { .. }));
}

#[test]
fn opens_that_make_no_sense_say_why() {
    let mut world = World::new();
    let mut client = world.client();
    let mut check = |open: wire::Open, part: &str| {
        let error = world.call(&mut client, Call::Open(open)).unwrap_err().to_string();
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    };
    let path = || "/ls/test/x".to_owned();
    check(wire::Open { path: path(), mode: 0, ..may_create() }, "mode");
    check(wire::Open { path: path(), mode: 8, ..may_create() }, "mode");
    check(wire::Open { path: path(), events: 1 << 30, ..may_create() }, "events");
    check(wire::Open { path: path(), create: 7, ..may_create() }, "create");
    check(wire::Open { path: path(), lock_delay_ms: 60_001, ..may_create() }, "lock-delay");
    check(wire::Open { path: path(), node: None, ..may_create() }, "new node");
    check(wire::Open { path: "/ls/other/x".into(), ..may_create() }, "this is test");
    check(wire::Open { path: "/ls/test/no/x".into(), ..may_create() }, "the directory of");
    check(wire::Open { path: "/ls/test/../x".into(), ..may_create() }, "'..'");
    let ephemeral = wire::NewNode { ephemeral: true, ..wire::NewNode::default() };
    let open = wire::Open { path: path(), lock_delay_ms: 1, node: Some(ephemeral), ..may_create() };
    check(open, "ephemeral");
    let large = wire::NewNode { contents: vec![0; 256 * 1024 + 1].into(), ..wire::NewNode::default() };
    check(wire::Open { path: path(), node: Some(large), ..may_create() }, "262145 bytes");
}

#[test]
fn many_sessions_share_a_connection() {
    let mut world = World::new();
    let mut one = world.client();
    let mut other = world.client();
    other.connection = one.connection;
    let (secret_high, secret_low) = other.secret;
    let resume = Call::ResumeSession(wire::ResumeSession { secret_high, secret_low });
    world.send_raw(one.connection, Request { session: other.session, ..request(resume) });
    world.take(one.connection);
    let mine = world.open(&mut one, "/ls/test/lock");
    let theirs = world.open(&mut other, "/ls/test/lock");
    assert!(world.call(&mut one, acquire(mine)).is_ok());
    let waits = world.send(&mut other, acquire(theirs));
    assert!(world.answer(&other, waits).is_none());
}

#[test]
fn a_delayed_copy_of_an_open_does_not_bring_a_closed_handle_back() {
    let mut world = World::new();
    let mut client = world.client();
    let open = || Call::Open(wire::Open { path: "/ls/test".into(), mode: 1, ..wire::Open::default() });
    let number = world.send(&mut client, open());
    let Some(Ok(Answer::Opened(opened))) = world.answer(&client, number) else { panic!("not opened") };
    world.call(&mut client, Call::Close(wire::Close { handle: opened.handle })).unwrap();
    world.send_again(&client, number, open());
    assert_eq!(world.answer(&client, number), Some(Err(Error::StaleHandle)), "I16");
    // Also when the client has said that it has the answer, and the cell has forgotten more.
    let handle = world.open(&mut client, "/ls/test/file");
    client.number += 1;
    let wire_request = Request {
        session: client.session,
        number: client.number,
        epoch: client.epoch,
        acknowledged: client.number - 1,
        call: Some(set(handle, "x")),
    };
    world.send_raw(client.connection, wire_request);
    world.send_again(&client, number, open());
    assert_eq!(world.answer(&client, number), Some(Err(Error::StaleHandle)), "I16");
}
