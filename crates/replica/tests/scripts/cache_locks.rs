//! Grants, releases and the ends of sessions, where other sessions have cached what changes with them (P§2.7).

use crate::cache_world::{MILLISECOND, delete, directory, ephemeral, listing, multi, node, release};
use crate::world::{LEASE, World, acquire, may_create, set};
use std::time::Duration;
use wombat_proto::wire::{self, request::Call, response::Result as Answer};
use wombat_proto::{Error, Instance};

#[test]
fn a_grant_waits_for_those_who_have_the_lock_generation_cached() {
    for only_try in [false, true] {
        let mut world = World::new();
        let mut holder = world.client();
        let lock = world.open(&mut holder, "/ls/test/lock");
        let (mut reader, _) = world.caching("/ls/test/lock");
        let call = wire::Acquire { handle: Some(lock), r#try: only_try, ..wire::Acquire::default() };
        let acquire = world.send(&mut holder, Call::Acquire(call));
        assert_eq!(world.answer(&holder, acquire), None);
        assert_eq!(world.obeys(&mut reader), [node(lock)]);
        assert!(matches!(world.answer(&holder, acquire), Some(Ok(Answer::Granted(_)))));
    }
}

#[test]
fn contents_that_end_with_a_lock_are_dropped_by_caches_before_it_ends() {
    let path = "/ls/test/lock";
    let ends: [fn(wire::Handle) -> Option<Call>; 5] = [
        |lock| Some(release(lock)),
        |lock| Some(Call::Close(wire::Close { handle: Some(lock) })),
        |_| Some(Call::EndSession(wire::EndSession {})),
        |_| None, // Another breaks it.
        |_| None, // Its lease ends.
    ];
    for (case, end) in ends.into_iter().enumerate() {
        let mut world = World::new();
        let (mut holder, mut other) = (world.client(), world.client());
        let lock = world.open(&mut holder, path);
        let own = wire::Acquire { handle: Some(lock), clears_contents: true, ..wire::Acquire::default() };
        world.call(&mut holder, Call::Acquire(own)).unwrap();
        world.call(&mut holder, set(lock, "its holder's")).unwrap();
        let (mut reader, read) = world.caching(path);
        assert_eq!(world.read(&mut reader.client, read).unwrap(), "its holder's");
        if let Some(call) = end(lock) {
            let ended = world.send(&mut holder, call);
            assert_eq!(world.answer(&holder, ended), None, "case {case}: it waits for the reader");
            assert_eq!(world.obeys(&mut reader), [node(lock)], "case {case}");
        } else {
            if case == 3 {
                let breaks = wire::BreakLock { path: path.into(), ..wire::BreakLock::default() };
                world.send(&mut other, Call::BreakLock(breaks));
            }
            // The reader lives, and hears of it when the holder's lease has run out.
            let (begun, mut told) = (world.elapsed(), Vec::new());
            while told.is_empty() {
                world.pass(100 * MILLISECOND);
                told = world.obeys(&mut reader);
                assert!(world.elapsed() - begun < 3 * LEASE, "case {case}: nobody has to drop it");
            }
            assert_eq!(told, [node(lock)], "case {case}");
        }
        world.pass(MILLISECOND);
        assert_eq!(world.read(&mut reader.client, read).unwrap(), "", "case {case}");
    }
}

#[test]
fn a_waiter_that_gives_up_while_its_turn_waits_takes_no_lock() {
    let mut world = World::new();
    let (mut gives_up, mut next) = (world.client(), world.client());
    let lock = world.open(&mut gives_up, "/ls/test/lock");
    let same = world.open(&mut next, "/ls/test/lock");
    let (mut reader, _) = world.caching("/ls/test/lock");
    let first = world.send(&mut gives_up, acquire(lock));
    let second = world.send(&mut next, acquire(same));
    let close = Call::Close(wire::Close { handle: Some(lock) });
    world.call(&mut gives_up, close).unwrap();
    assert_eq!(world.answer(&gives_up, first), Some(Err(Error::Cancelled)));
    world.obeys(&mut reader);
    assert!(matches!(world.answer(&next, second), Some(Ok(Answer::Granted(_)))));
}

#[test]
fn of_those_who_only_try_the_first_has_the_lock_and_the_others_hear_that_it_is_held() {
    let mut world = World::new();
    let (mut one, mut two) = (world.client(), world.client());
    let lock = world.open(&mut one, "/ls/test/lock");
    let same = world.open(&mut two, "/ls/test/lock");
    let (mut reader, _) = world.caching("/ls/test/lock");
    let tries = |handle| {
        Call::Acquire(wire::Acquire { handle: Some(handle), r#try: true, ..wire::Acquire::default() })
    };
    let (first, second) = (world.send(&mut one, tries(lock)), world.send(&mut two, tries(same)));
    world.obeys(&mut reader);
    assert!(matches!(world.answer(&one, first), Some(Ok(Answer::Granted(_)))));
    assert_eq!(world.answer(&two, second), Some(Err(Error::LockHeld)));
}

#[test]
fn a_lock_is_not_given_back_before_what_was_asked_for_under_it_is_done() {
    let mut world = World::new();
    let (mut holder, mut next) = (world.client(), world.client());
    let lock = world.open(&mut holder, "/ls/test/lock");
    let file = world.open(&mut holder, "/ls/test/file");
    let wanted = world.open(&mut next, "/ls/test/lock");
    world.call(&mut holder, acquire(lock)).unwrap();
    let waits = world.send(&mut next, acquire(wanted));
    let (mut reader, read) = world.caching("/ls/test/file");
    let write = world.send(&mut holder, set(file, "under the lock"));
    let released = world.send(&mut holder, release(lock));
    assert_eq!(world.answer(&holder, released), None);
    assert_eq!(world.answer(&next, waits), None);
    world.obeys(&mut reader);
    assert!(world.answer(&holder, write).is_some());
    assert!(world.answer(&holder, released).is_some());
    assert!(matches!(world.answer(&next, waits), Some(Ok(Answer::Granted(_)))));
    assert_eq!(world.read(&mut reader.client, read).unwrap(), "under the lock");
}

#[test]
fn a_lock_does_not_go_with_its_file_before_what_was_asked_for_under_it_is_done() {
    let mut world = World::new();
    let mut holder = world.client();
    world.open_with(&mut holder, directory("/ls/test/locks"));
    let lock = world.open(&mut holder, "/ls/test/locks/lock");
    let free = world.open(&mut holder, "/ls/test/locks/free");
    let file = world.open(&mut holder, "/ls/test/file");
    world.call(&mut holder, acquire(lock)).unwrap();
    let (mut reader, read) = world.caching("/ls/test/file");
    let write = world.send(&mut holder, set(file, "under the lock"));
    let deleted = world.send(&mut holder, delete(lock));
    assert_eq!(world.answer(&holder, deleted), None);
    world.call(&mut holder, delete(free)).expect("nobody can lock its name the sooner");
    world.obeys(&mut reader);
    assert!(world.answer(&holder, write).is_some());
    assert!(world.answer(&holder, deleted).unwrap().is_ok());
    assert_eq!(world.read(&mut reader.client, read).unwrap(), "under the lock");
}

#[test]
fn the_end_of_a_session_waits_for_those_who_have_its_ephemerals_cached_but_not_for_itself() {
    let mut world = World::new();
    let (mut reader, mut ends) = (world.reader(), world.reader());
    let dir = world.open_with(&mut reader.client, directory("/ls/test/dir"));
    let mine = world.open_with(&mut ends.client, ephemeral("/ls/test/dir/mine"));
    assert!(world.may_cache(&mut ends.client, mine));
    assert!(world.lists(&mut reader, dir));
    world.obeys(&mut reader);
    world.obeys(&mut ends);
    let end = world.send(&mut ends.client, Call::EndSession(wire::EndSession {}));
    assert_eq!(world.answer(&ends.client, end), None);
    assert!(world.lives(&ends.client));
    assert_eq!(world.obeys(&mut reader), [listing(dir)]);
    assert!(!world.lives(&ends.client));
    assert!(world.replica.state().tree().get(Instance(mine.instance)).is_none());
}

#[test]
fn lock_that_clears_contents_is_free_a_cache_lease_later() {
    // Its holder's end waits for the caches that have them, so it keeps no other sessions' ends waiting.
    let free_within = |clears_contents| {
        let mut world = World::new();
        let (mut holder, _reader) = (world.client(), world.reader());
        let handle = Some(world.open(&mut holder, "/ls/test/lock"));
        let acquire = wire::Acquire { handle, clears_contents, ..wire::Acquire::default() };
        world.call(&mut holder, Call::Acquire(acquire)).unwrap();
        let list = Call::ListLocks(wire::ListLocks::default());
        let Ok(Answer::Locks(locks)) = world.call(&mut holder, list) else { panic!("no locks") };
        (Duration::from_millis(locks.locks[0].free_within_ms), world.replica.state().cache_lease())
    };
    let ((plain, _), (clearing, cache_lease)) = (free_within(false), free_within(true));
    assert!(cache_lease > Duration::ZERO);
    assert_eq!(clearing, plain + cache_lease);
}

#[test]
fn the_last_session_that_caches_takes_its_ephemerals_with_it_and_leaves_nobody_to_be_told() {
    // What nobody could have cached any more was opened again without having been closed.
    let mut world = World::new();
    let mut last = world.reader();
    let mine = world.open_with(&mut last.client, ephemeral("/ls/test/mine"));
    let end = world.send(&mut last.client, Call::EndSession(wire::EndSession {}));
    assert!(matches!(world.answer(&last.client, end), Some(Ok(Answer::Done(_)))));
    assert!(world.replica.state().tree().get(Instance(mine.instance)).is_none());
}

#[test]
fn a_node_that_is_made_before_a_change_that_names_it_is_applied_is_not_cached() {
    let mut world = World::new();
    let (mut writer, mut reader) = (world.client(), world.reader());
    let old = world.open(&mut writer, "/ls/test/file");
    // In the log: the delete, a new file of that name, a write to whatever has the name. Each record by itself.
    world.records_left = Some(0);
    world.send(&mut writer, delete(old));
    let create = Call::Open(wire::Open { path: "/ls/test/file".into(), ..may_create() });
    let change = wire::CreateNode { path: "/ls/test/file".into(), node: Some(wire::NewNode::default()) };
    world.send(&mut writer, multi(wire::change::Change::Create(change)));
    let write = wire::SetNode { path: "/ls/test/file".into(), contents: "new"[..].into() };
    let write = world.send(&mut writer, multi(wire::change::Change::Set(write)));
    world.records_left = Some(2);
    world.flush();
    let Ok(Answer::Opened(opened)) = world.call(&mut reader.client, create) else { panic!("not opened") };
    assert_ne!(opened.stat.unwrap().instance, old.instance);
    let young = opened.handle.unwrap();
    assert!(!world.may_cache(&mut reader.client, young));
    world.records_left = None;
    world.flush();
    assert!(world.answer(&writer, write).unwrap().is_ok());
    assert_eq!(world.read(&mut reader.client, young).unwrap(), "new");
    assert!(world.may_cache(&mut reader.client, young));
}

#[test]
fn what_a_session_opens_as_it_ends_is_not_cached_until_it_has_ended() {
    let mut world = World::new();
    let (mut ends, mut reader) = (world.client(), world.reader());
    let dir = world.open_with(&mut reader.client, directory("/ls/test/dir"));
    world.records_left = Some(0);
    world.send(&mut ends, Call::Open(ephemeral("/ls/test/dir/mine")));
    world.send(&mut ends, Call::EndSession(wire::EndSession {}));
    world.records_left = Some(1);
    world.flush();
    assert!(!world.lists(&mut reader, dir), "what is there now is about to go");
    world.records_left = None;
    world.flush();
    assert!(world.lists(&mut reader, dir));
}

#[test]
fn what_only_a_session_keeps_alive_that_ends_is_not_cached_until_it_has_ended() {
    // By what it has asked for before: a node that it opens, or a directory in which it makes one.
    for opens in ["/ls/test/above/dir", "/ls/test/above/dir/mine"] {
        let mut world = World::new();
        let (mut first, mut ends, mut reader) = (world.client(), world.client(), world.reader());
        let above = world.open_with(&mut reader.client, directory("/ls/test/above"));
        let node = wire::NewNode { directory: true, ephemeral: true, ..wire::NewNode::default() };
        let dir = wire::Open { node: Some(node.clone()), ..directory("/ls/test/above/dir") };
        let opened = world.open_with(&mut first, dir.clone());
        world.records_left = Some(0);
        let open = if opens == dir.path { dir } else { ephemeral(opens) };
        world.send(&mut ends, Call::Open(open));
        world.send(&mut first, Call::Close(wire::Close { handle: Some(opened) }));
        world.send(&mut ends, Call::EndSession(wire::EndSession {}));
        world.records_left = Some(2);
        world.flush();
        assert!(world.replica.state().tree().get(Instance(opened.instance)).is_some());
        assert!(!world.may_cache(&mut reader.client, above), "{opens}: it is about to go");
        assert!(!world.lists(&mut reader, above), "{opens}: likewise");
        world.records_left = None;
        world.flush();
        assert!(world.replica.state().tree().get(Instance(opened.instance)).is_none());
        assert!(world.may_cache(&mut reader.client, above) && world.lists(&mut reader, above));
    }
}
