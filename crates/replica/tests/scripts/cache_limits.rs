//! Caches at their limits: very many invalidations, sessions, entries, and absent names (P§2.7).

use crate::cache_world::{MILLISECOND, Reader, directory, existing};
use crate::world::{Client, LEASE, World, may_create, set};
use std::time::Duration;
use wombat_proto::limits::{
    CACHE_LEASE, CACHED_ABSENCES_PER_DIRECTORY, CACHED_ENTRIES_PER_SESSION, INVALIDATIONS_PER_SESSION,
    SHORTEST_CACHE_LEASE, keep_alive_hold,
};
use wombat_proto::wire::{self, request::Call, response::Result as Answer};
use wombat_replica::Input;

#[test]
fn too_many_invalidations_become_one_of_everything() {
    let mut world = World::new();
    let mut writer = world.client();
    let (mut reader, _) = world.caching("/ls/test/file");
    let absent = |n: usize| format!("/ls/test/absent-{n}");
    let count = INVALIDATIONS_PER_SESSION + 1;
    for n in 0..count {
        assert!(world.ask(&mut reader.client, existing(&absent(n))).1.is_some());
    }
    world.obeys(&mut reader);
    assert!(world.hears(&mut reader) || world.answer(&reader.client, reader.keep_alive).is_none());
    let creates: Vec<u64> = (0..count)
        .map(|n| world.send(&mut writer, Call::Open(wire::Open { path: absent(n), ..may_create() })))
        .collect();
    assert!(creates.iter().all(|create| world.answer(&writer, *create).is_none()));
    // It says nothing new until all of them are there.
    while world.hears(&mut reader) {
        reader.dropped.clear();
        let heard = std::mem::take(&mut reader.heard);
        world.keeps_alive(&mut reader);
        reader.heard = heard;
        if world.cache_status().invalidations == count as u64 {
            break;
        }
    }
    reader.heard = 0;
    assert!(world.hears(&mut reader));
    assert_eq!(reader.dropped, [wire::Invalidation::of_everything()]);
    assert!(
        world.ask(&mut reader.client, existing("/ls/test/another")).1.is_none(),
        "not before it has dropped all"
    );
    world.keeps_alive(&mut reader);
    assert!(creates.iter().all(|create| world.answer(&writer, *create).is_some()));
    assert!(world.ask(&mut reader.client, existing("/ls/test/another")).1.is_some());
}

#[test]
fn no_lease_is_granted_while_not_all_invalidations_fit_into_the_answer() {
    let mut world = World::new();
    let mut writer = world.client();
    let (mut reader, _) = world.caching("/ls/test/file");
    let absent = |n: usize| format!("/ls/test/{n:0250}");
    let count = 400;
    for n in 0..count {
        assert!(world.ask(&mut reader.client, existing(&absent(n))).1.is_some());
    }
    while world.hears(&mut reader) {
        world.keeps_alive(&mut reader);
    }
    let creates: Vec<u64> = (0..count)
        .map(|n| world.send(&mut writer, Call::Open(wire::Open { path: absent(n), ..may_create() })))
        .collect();
    // The first was told at once. What has come since does not fit into one answer.
    assert!(world.hears(&mut reader));
    assert_eq!(reader.dropped.len(), 1);
    world.keeps_alive(&mut reader);
    assert!(world.hears(&mut reader));
    assert!(reader.dropped.len() < count);
    assert_eq!(reader.lease, Duration::ZERO);
    world.keeps_alive(&mut reader);
    assert!(world.hears(&mut reader));
    assert_eq!((reader.dropped.len(), reader.lease), (count, CACHE_LEASE));
    world.keeps_alive(&mut reader);
    assert!(creates.iter().all(|create| world.answer(&writer, *create).is_some()));
}

#[test]
fn keep_alives_keep_step_with_the_cache_lease_only_where_the_cache_is_used() {
    let mut world = World::new();
    let (mut reader, _) = world.caching("/ls/test/file");
    world.pass(CACHE_LEASE / 2 - MILLISECOND);
    assert!(!world.hears(&mut reader));
    world.pass(MILLISECOND);
    assert!(world.hears(&mut reader));
    assert_eq!(reader.lease, CACHE_LEASE);
    let unused = wire::KeepAlive { events_acknowledged: 1, ..wire::KeepAlive::default() };
    reader.keep_alive = world.send(&mut reader.client, Call::KeepAlive(unused));
    let hold = keep_alive_hold(LEASE);
    world.pass(hold * 3 / 4);
    assert!(!world.hears(&mut reader));
    world.pass(hold / 4);
    assert!(world.hears(&mut reader));
    assert_eq!(reader.lease, Duration::ZERO);
}

#[test]
fn a_session_that_goes_on_without_acknowledging_loses_its_lease() {
    let mut world = World::new();
    let mut writer = world.client();
    let file = world.open(&mut writer, "/ls/test/file");
    let (mut deaf, _) = world.caching("/ls/test/file");
    let write = world.send(&mut writer, set(file, "new"));
    for _ in 0..48 {
        deaf.heard = 0;
        deaf.keep_alive = world.send(&mut deaf.client, Call::KeepAlive(wire::KeepAlive::default()));
        world.send(&mut writer, Call::KeepAlive(wire::KeepAlive::default()));
        world.pass(LEASE / 32);
    }
    assert!(world.answer(&writer, write).is_some());
    assert!(!world.lives(&deaf.client), "SPEC §6");
}

#[test]
fn a_crowd_gets_a_longer_cache_lease_once_it_stands_in_the_log() {
    let mut world = World::with_leases(LEASE, SHORTEST_CACHE_LEASE);
    let mut readers: Vec<Reader> = (0..1600).map(|_| world.caching("/ls/test/file").0).collect();
    world.hold_disk = true;
    world.pass(MILLISECOND);
    let in_force = world.replica.state().cache_lease();
    assert_eq!(in_force, SHORTEST_CACHE_LEASE);
    world.pass(SHORTEST_CACHE_LEASE);
    let mut lease = |world: &mut World| {
        let reader = &mut readers[0];
        while world.hears(reader) {
            world.keeps_alive(reader);
        }
        reader.lease
    };
    assert_eq!(lease(&mut world), SHORTEST_CACHE_LEASE, "a longer one is not in the log");
    world.hold_disk = false;
    world.flush();
    world.pass(SHORTEST_CACHE_LEASE);
    let longer = lease(&mut world);
    assert_eq!(longer, Duration::from_secs(2) * 1600 / 10_000);
    assert!(world.replica.state().cache_lease() >= longer);
    // The next master waits for as long before it serves.
    let logged = world.replica.state().cache_lease();
    world.restart();
    let mut other = world.client();
    let open = world.send(&mut other, existing("/ls/test/file"));
    world.pass(logged - MILLISECOND);
    assert_eq!(world.answer(&other, open), None);
    world.pass(MILLISECOND);
    assert!(world.answer(&other, open).is_some());
}

/// Whatever comes meanwhile: the heartbeats go out with the ticks.
#[test]
fn a_crowd_is_told_by_and_by_and_only_the_first_of_it_before_the_next_tick() {
    let mut world = World::new();
    let readers: Vec<Reader> = (0..1500).map(|_| world.caching("/ls/test/file").0).collect();
    let mut writer = world.client();
    let file = world.open(&mut writer, "/ls/test/file");
    world.pass(MILLISECOND);
    let number = world.send(&mut writer, set(file, "new"));
    let told = |world: &mut World, writer: &mut Client| {
        let answered = |reader: &&Reader| {
            let replies = world.replies.get(&reader.client.connection);
            replies.is_some_and(|replies| replies.iter().any(|reply| reply.number == reader.keep_alive))
        };
        let answered = readers.iter().filter(answered).count();
        let Ok(Answer::Status(status)) = world.call(writer, Call::GetStatus(wire::GetStatus {})) else {
            panic!("no status")
        };
        (status.cache.map(|cache| cache.invalidations), answered)
    };
    for _ in 0..5 {
        assert_eq!(told(&mut world, &mut writer), (Some(1024), 1024));
    }
    world.step(Input::Tick);
    assert_eq!(told(&mut world, &mut writer), (Some(1500), 1500));
    assert_eq!(world.answer(&writer, number), None);
}

#[test]
fn a_crowd_that_comes_back_gets_no_longer_a_lease_than_the_log_is_about_to_say() {
    let mut world = World::with_leases(LEASE, SHORTEST_CACHE_LEASE);
    let mut readers: Vec<Reader> = (0..1600).map(|_| world.caching("/ls/test/file").0).collect();
    world.pass(SHORTEST_CACHE_LEASE);
    assert!(world.replica.state().cache_lease() > SHORTEST_CACHE_LEASE);
    for reader in &mut readers[..800] {
        world.hears(reader);
        let rests = wire::KeepAlive { events_acknowledged: 1, ..wire::KeepAlive::default() };
        reader.keep_alive = world.send(&mut reader.client, Call::KeepAlive(rests));
    }
    // From here on the log's word is to be lowered, once no longer lease can be in force.
    world.pass(SHORTEST_CACHE_LEASE);
    // All of them read again, and before the next tick of the clock they have rested again.
    for reader in &mut readers[..800] {
        world.hears(reader);
        world.keeps_alive(reader);
    }
    let last = &mut readers[799];
    assert!(world.hears(last));
    assert_eq!(last.lease, SHORTEST_CACHE_LEASE, "nobody would know of a longer one");
    // If they are still there, it is not lowered.
    world.keeps_alive(last);
    world.pass(SHORTEST_CACHE_LEASE);
    assert!(world.hears(last));
    assert_eq!(last.lease, Duration::from_secs(2) * 1600 / 10_000);
}

#[test]
fn a_session_that_wants_to_cache_more_than_it_may_has_something_else_dropped() {
    let mut world = World::new();
    let (mut reader, file) = world.caching("/ls/test/file");
    let mut writer = world.client();
    for n in 0..CACHED_ENTRIES_PER_SESSION / CACHED_ABSENCES_PER_DIRECTORY {
        world.open_with(&mut writer, directory(&format!("/ls/test/{n}")));
    }
    let absent = |n: usize| format!("/ls/test/{}/{n}", n / CACHED_ABSENCES_PER_DIRECTORY);
    for n in 1..CACHED_ENTRIES_PER_SESSION {
        assert!(world.ask(&mut reader.client, existing(&absent(n))).1.is_some());
    }
    assert_eq!(world.obeys(&mut reader), []);
    assert!(world.ask(&mut reader.client, existing("/ls/test/more")).1.is_none());
    assert_eq!(world.obeys(&mut reader).len(), 1);
    assert!(world.ask(&mut reader.client, existing("/ls/test/more")).1.is_some());
    let _ = file;
}

#[test]
fn what_a_session_had_cached_that_ends_is_forgotten_by_and_by_and_keeps_nobody_waiting() {
    let mut world = World::new();
    let (mut writer, mut ends) = (world.client(), world.reader());
    let (mut other, _) = world.caching("/ls/test/file");
    let directories = 14;
    for n in 0..directories {
        world.open_with(&mut writer, directory(&format!("/ls/test/{n}")));
    }
    let absent = |n: usize| format!("/ls/test/{}/{n}", n % directories);
    let count = directories * CACHED_ABSENCES_PER_DIRECTORY;
    for n in 0..count {
        assert!(world.ask(&mut ends.client, existing(&absent(n))).1.is_some());
    }
    world.obeys(&mut ends);
    world.call(&mut ends.client, Call::EndSession(wire::EndSession {})).unwrap();
    assert!(!world.lives(&ends.client));
    let left = world.cache_status().entries;
    assert!(1 < left && left < count as u64, "{left} are left");
    let create = wire::Open { path: absent(count - 1), ..may_create() };
    assert!(world.call(&mut writer, Call::Open(create)).is_ok(), "nobody has it any more");
    world.pass(MILLISECOND);
    assert_eq!(world.cache_status().entries, 1, "what another has is still there");
    assert_eq!(world.obeys(&mut other), []);
}

#[test]
fn of_a_directory_only_so_many_missing_names_are_cached() {
    let mut world = World::new();
    let (mut one, mut two) = (world.reader(), world.reader());
    let absent = |n: usize| existing(&format!("/ls/test/absent-{n}"));
    let (first, more) = (absent(0), absent(CACHED_ABSENCES_PER_DIRECTORY));
    for n in 0..CACHED_ABSENCES_PER_DIRECTORY {
        assert!(world.ask(&mut one.client, absent(n)).1.is_some());
    }
    assert!(world.ask(&mut one.client, more.clone()).1.is_none());
    assert!(world.ask(&mut two.client, more.clone()).1.is_none(), "whoever they are that have them");
    assert!(world.ask(&mut two.client, first).1.is_some(), "it is one of them");
    // Once a name is missing no more there is room.
    let create = wire::Open { path: "/ls/test/absent-1".into(), ..may_create() };
    world.send(&mut two.client, Call::Open(create));
    world.obeys(&mut one);
    assert!(world.ask(&mut two.client, more).1.is_some());
}

#[test]
fn a_request_that_waits_and_comes_again_is_answered_where_it_came_last() {
    let mut world = World::new();
    let mut writer = world.client();
    let file = world.open(&mut writer, "/ls/test/file");
    let (mut reader, read) = world.caching("/ls/test/file");
    let write = world.send(&mut writer, set(file, "once"));
    world.resume(&mut writer).unwrap();
    world.send_again(&writer, write, set(file, "once"));
    assert_eq!(world.cache_status().waiting, 1);
    world.obeys(&mut reader);
    let Some(Ok(Answer::Stat(stat))) = world.answer(&writer, write) else { panic!("no answer") };
    assert_eq!(stat.content_generation, 2);
    assert_eq!(world.read(&mut reader.client, read).unwrap(), "once");
}
