//! Which answers sessions may cache, and the changes that wait until they have dropped them (P§2.7, SPEC §6).

use crate::cache_world::{MILLISECOND, delete, directory, existing, get_stat, listing, node, what};
use crate::world::{Client, World, may_create, set};
use std::time::Duration;
use wombat_proto::Error;
use wombat_proto::limits::CACHE_LEASE;
use wombat_proto::wire::{self, invalidation::What, open::Create, request::Call, response::Result as Answer};

#[test]
fn only_a_session_that_caches_may_cache() {
    let mut world = World::new();
    let (mut reader, mut other) = (world.reader(), world.client());
    let file = world.open(&mut reader.client, "/ls/test/file");
    let same = world.open(&mut other, "/ls/test/file");
    let (_, cachable) = world.ask(&mut reader.client, get_stat(file));
    assert_eq!(cachable.expect("it may be cached").epoch, reader.client.epoch);
    assert!(!world.may_cache(&mut other, same));
    assert_eq!(world.cache_status().entries, 1);
}

#[test]
fn what_clients_have_read_from_their_caches_is_counted_since_the_master_began() {
    let mut world = World::new();
    let (mut reader, _) = world.caching("/ls/test/file");
    let mut says = |cached_reads| {
        let keep_alive = wire::KeepAlive { reads_cache: true, cached_reads, ..wire::KeepAlive::default() };
        world.send(&mut reader.client, Call::KeepAlive(keep_alive));
        world.cache_status().hits
    };
    let before = says(1000);
    assert_eq!([says(1500), says(1500), says(40), says(50)], [500, 500, 500, 510].map(|hits| before + hits));
}

#[test]
fn a_write_waits_until_everyone_who_may_have_it_cached_has_dropped_it() {
    let mut world = World::new();
    let mut writer = world.client();
    let file = world.open(&mut writer, "/ls/test/file");
    let (mut one, read) = world.caching("/ls/test/file");
    let (mut two, _) = world.caching("/ls/test/file");
    let (mut other, _) = world.caching("/ls/test/other");
    let write = world.send(&mut writer, set(file, "new"));
    assert_eq!(world.obeys(&mut one), [node(file)]);
    assert_eq!(world.answer(&writer, write), None);
    // Reads are answered meanwhile, from before the change, and are not cached (I9).
    assert_eq!(world.read(&mut one.client, read).unwrap(), "");
    assert!(!world.may_cache(&mut one.client, read));
    assert!(world.hears(&mut two));
    assert_eq!(world.answer(&writer, write), None, "it has heard of it, and has not said that it is gone");
    world.keeps_alive(&mut two);
    assert!(matches!(world.answer(&writer, write), Some(Ok(Answer::Stat(_)))));
    assert_eq!(world.obeys(&mut other), []);
    assert_eq!(world.read(&mut one.client, read).unwrap(), "new");
    assert!(world.may_cache(&mut one.client, read));
}

#[test]
fn who_does_not_answer_delays_a_write_by_the_cache_lease_and_keeps_its_session() {
    let mut world = World::new();
    let mut writer = world.client();
    let file = world.open(&mut writer, "/ls/test/file");
    let (silent, _) = world.caching("/ls/test/file");
    let left = CACHE_LEASE / 4 * 3;
    world.pass(CACHE_LEASE - left);
    let write = world.send(&mut writer, set(file, "new"));
    let status = world.cache_status();
    assert_eq!((status.waiting, status.held_up_by.len()), (1, 1));
    assert_eq!(status.held_up_by[0].session, silent.client.session);
    assert_eq!(status.held_up_by[0].path, "/ls/test/file");
    assert_eq!(Duration::from_millis(status.held_up_by[0].left_ms), left);
    // It was answered at once, and with that its cache lease was made longer: that does not count.
    world.pass(left - MILLISECOND);
    assert_eq!(world.answer(&writer, write), None);
    world.pass(MILLISECOND);
    assert!(world.answer(&writer, write).is_some());
    assert!(world.lives(&silent.client));
    assert_eq!(world.cache_status().lapsed, 1);
}

#[test]
fn whoever_missed_it_is_told_before_it_may_use_its_cache_again() {
    let mut world = World::new();
    let mut writer = world.client();
    let file = world.open(&mut writer, "/ls/test/file");
    let (mut silent, _) = world.caching("/ls/test/file");
    let write = world.send(&mut writer, set(file, "new"));
    world.pass(CACHE_LEASE);
    assert!(world.answer(&writer, write).is_some());
    // The answer that said so was lost with its connection.
    world.replies.clear();
    world.resume(&mut silent.client).unwrap();
    world.keeps_alive(&mut silent);
    assert!(world.hears(&mut silent));
    assert_eq!(silent.dropped, [node(file)]);
    assert_eq!(silent.lease, CACHE_LEASE, "with the one it hears of the other");
}

#[test]
fn writes_of_the_same_file_share_a_round() {
    let mut world = World::new();
    let mut writer = world.client();
    let file = world.open(&mut writer, "/ls/test/file");
    let (mut reader, read) = world.caching("/ls/test/file");
    let writes: Vec<u64> = (0..10).map(|n| world.send(&mut writer, set(file, &n.to_string()))).collect();
    assert!(writes.iter().all(|write| world.answer(&writer, *write).is_none()));
    assert_eq!(world.obeys(&mut reader), [node(file)]);
    assert!(writes.iter().all(|write| world.answer(&writer, *write).is_some()));
    assert_eq!(world.read(&mut reader.client, read).unwrap(), "9");
    assert_eq!(world.cache_status().rounds, 1);
}

#[test]
fn a_writer_drops_its_own_copy_itself() {
    let mut world = World::new();
    let (mut reader, file) = world.caching("/ls/test/file");
    world.write(&mut reader.client, file, "own").unwrap();
    assert_eq!(world.obeys(&mut reader), []);
    // But not what it has of the directory above.
    let root = world
        .open_with(&mut reader.client, wire::Open { path: "/ls/test".into(), mode: 1, ..Default::default() });
    assert!(world.lists(&mut reader, root));
    let write = world.send(&mut reader.client, set(file, "own"));
    assert_eq!(world.answer(&reader.client, write), None);
    assert_eq!(world.obeys(&mut reader), [listing(root)]);
    assert!(world.answer(&reader.client, write).is_some());
}

#[test]
fn a_copy_of_a_write_that_comes_late_takes_nothing_from_its_writer() {
    let mut world = World::new();
    let (mut reader, file) = world.caching("/ls/test/file");
    let mut writer = world.client();
    let theirs = world.open(&mut writer, "/ls/test/file");
    let write = world.send(&mut reader.client, set(file, "own"));
    assert!(world.answer(&reader.client, write).unwrap().is_ok());
    // It has had the answer, says so with its next change, and reads and caches the file again.
    let Client { connection, session, epoch, .. } = reader.client;
    let number = write + 1;
    let open = Some(Call::Open(wire::Open { path: "/ls/test/other".into(), ..may_create() }));
    reader.client.number = number;
    world.send_raw(connection, wire::Request { session, number, epoch, acknowledged: write, call: open });
    assert!(world.answer(&reader.client, number).unwrap().is_ok());
    assert!(world.may_cache(&mut reader.client, file));
    world.send_again(&reader.client, write, set(file, "own"));
    world.waits_for(&mut writer, set(theirs, "theirs"), &mut [(&mut reader, &[node(file)])]);
}

#[test]
fn what_is_on_its_way_into_the_log_is_not_cached() {
    let mut world = World::new();
    let (mut writer, mut reader) = (world.client(), world.reader());
    let file = world.open(&mut writer, "/ls/test/file");
    let read = world.open(&mut reader.client, "/ls/test/file");
    world.hold_disk = true;
    world.send(&mut writer, set(file, "new"));
    assert!(!world.may_cache(&mut reader.client, read));
    world.hold_disk = false;
    world.flush();
    assert!(world.may_cache(&mut reader.client, read));
}

#[test]
fn what_was_on_its_way_before_anybody_cached_is_not_cached() {
    let mut world = World::new();
    let mut writer = world.client();
    let file = world.open(&mut writer, "/ls/test/file");
    // The session comes with one record, the write with the next.
    world.records_left = Some(0);
    let connection = world.connect();
    let create = wire::CreateSession { client: "script".into(), caches: true, ..Default::default() };
    let create = wire::Request { number: 2, call: Some(Call::CreateSession(create)), ..Default::default() };
    world.send_raw(connection, create);
    world.send(&mut writer, set(file, "new"));
    world.records_left = Some(1);
    world.flush();
    let Some(Answer::SessionOpened(opened)) = world.take(connection).result else { panic!("no session") };
    let mut client = Client { connection, session: opened.session, number: 2, epoch: opened.epoch, ..writer };
    let open = world.send(&mut client, existing("/ls/test/file"));
    let Some(Ok(Answer::Opened(opened))) = world.answer(&client, open) else { panic!("not opened") };
    let read = opened.handle.unwrap();
    assert!(!world.may_cache(&mut client, read));
    world.records_left = None;
    world.flush();
    assert!(world.may_cache(&mut client, read));
}

#[test]
fn a_create_takes_absence_and_listings_with_it() {
    let mut world = World::new();
    let mut writer = world.client();
    let root = Call::Open(wire::Open { path: "/ls/test".into(), mode: 1, ..Default::default() });
    let (mut above, top) = {
        let mut reader = world.reader();
        let Ok(Answer::Opened(opened)) = world.call(&mut reader.client, root) else { panic!("no root") };
        (reader, opened.handle.unwrap())
    };
    let (mut lists, dir) = world.listing("/ls/test/dir");
    assert!(world.lists(&mut above, top), "with the stat of the directory in it");
    world.obeys(&mut above);
    let (mut stats, _) = world.caching_directory("/ls/test/dir");
    let mut misses = world.reader();
    for missing in ["/ls/test/dir/a/b", "/ls/test/dir/other"] {
        let (answer, cachable) = world.ask(&mut misses.client, existing(missing));
        assert_eq!(answer, Err(Error::not_found(missing)));
        assert_eq!(cachable.expect("it may be cached").directory, dir.instance);
    }
    world.obeys(&mut misses);
    let create = Call::Open(directory("/ls/test/dir/a"));
    world.waits_for(
        &mut writer,
        create,
        &mut [
            (&mut above, &[listing(top)]),
            (&mut lists, &[listing(dir)]),
            (&mut stats, &[node(dir)]),
            (&mut misses, &[what(What::Absence, dir.instance, "a")]),
        ],
    );
    // Of a name that a number completes nobody knows which it will be.
    let sequential = wire::NewNode { sequential: true, ..wire::NewNode::default() };
    let create = Call::Open(wire::Open {
        path: "/ls/test/dir/n-".into(),
        create: Create::Must.into(),
        node: Some(sequential),
        ..may_create()
    });
    world.waits_for(&mut writer, create, &mut [(&mut misses, &[what(What::Absence, dir.instance, "other")])]);
}

#[test]
fn a_delete_takes_everything_of_the_node_with_it() {
    let mut world = World::new();
    let mut writer = world.client();
    let (mut lists, dir) = world.listing("/ls/test/dir");
    let (mut stats, _) = world.caching_directory("/ls/test/dir");
    let mut misses = world.reader();
    assert!(world.ask(&mut misses.client, existing("/ls/test/dir/x")).1.is_some());
    world.obeys(&mut misses);
    let (mut above, _) = world.caching_directory("/ls/test");
    let gone = world.open_with(&mut writer, directory("/ls/test/dir"));
    let root = wire::Handle { instance: world.replica.state().tree().root().unwrap().instance.0, ..gone };
    world.waits_for(
        &mut writer,
        delete(gone),
        &mut [
            (&mut lists, &[listing(dir)]),
            (&mut stats, &[node(dir)]),
            (&mut misses, &[what(What::Absence, dir.instance, "x")]),
            (&mut above, &[node(root)]),
        ],
    );
}

#[test]
fn a_file_that_stands_where_a_directory_is_wanted_is_no_absence_to_be_cached() {
    let mut world = World::new();
    let mut reader = world.reader();
    world.open(&mut reader.client, "/ls/test/file");
    let (answer, cachable) = world.ask(&mut reader.client, existing("/ls/test/file/x"));
    assert_eq!((answer, cachable), (Err(Error::not_found("/ls/test/file/x")), None));
}
