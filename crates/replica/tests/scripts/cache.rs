//! Who may cache what, and what waits for them (P§2.7, SPEC §6).

use crate::world::{Client, LEASE, World, acquire, may_create, set};
use std::time::Duration;
use wombat_proto::limits::{
    CACHE_LEASE, CACHED_ABSENCES_PER_DIRECTORY, CACHED_ENTRIES_PER_SESSION, INVALIDATIONS_PER_SESSION,
    SHORTEST_CACHE_LEASE, keep_alive_hold,
};
use wombat_proto::wire::{self, invalidation::What, open::Create, request::Call, response::Result as Answer};
use wombat_proto::{Error, Instance};
use wombat_replica::Input;

const MILLISECOND: Duration = Duration::from_millis(1);

/// A session that caches, whose KeepAlive is always pending.
struct Reader {
    client: Client,
    keep_alive: u64,
    /// The last invalidation that it has heard of, and what all of them said.
    heard: u64,
    dropped: Vec<wire::Invalidation>,
    /// The cache lease that it was granted last.
    lease: Duration,
}

fn what(what: What, instance: u64, name: &str) -> wire::Invalidation {
    wire::Invalidation { what: what.into(), instance, name: name.into() }
}

fn node(handle: wire::Handle) -> wire::Invalidation {
    what(What::Node, handle.instance, "")
}

fn listing(handle: wire::Handle) -> wire::Invalidation {
    what(What::Listing, handle.instance, "")
}

fn get_stat(handle: wire::Handle) -> Call {
    Call::GetStat(wire::GetStat { handle: Some(handle) })
}

fn delete(handle: wire::Handle) -> Call {
    Call::Delete(wire::Delete { handle: Some(handle) })
}

fn release(handle: wire::Handle) -> Call {
    Call::Release(wire::Release { handle: Some(handle) })
}

fn directory(path: &str) -> wire::Open {
    let node = wire::NewNode { directory: true, ..wire::NewNode::default() };
    wire::Open { path: path.into(), node: Some(node), ..may_create() }
}

fn ephemeral(path: &str) -> wire::Open {
    let node = wire::NewNode { ephemeral: true, ..wire::NewNode::default() };
    wire::Open { path: path.into(), node: Some(node), ..may_create() }
}

fn existing(path: &str) -> Call {
    Call::Open(wire::Open { path: path.into(), mode: 1, ..wire::Open::default() })
}

fn multi(change: wire::change::Change) -> Call {
    let changes = vec![wire::Change { change: Some(change) }];
    Call::Multi(wire::Multi { changes, ..wire::Multi::default() })
}

impl World {
    fn reader(&mut self) -> Reader {
        let connection = self.connect();
        let client = self.client_on(connection, true);
        let (dropped, lease) = (Vec::new(), Duration::ZERO);
        let mut reader = Reader { client, keep_alive: 0, heard: 0, dropped, lease };
        self.keeps_alive(&mut reader);
        reader
    }

    /// Sends the next KeepAlive: all that it has heard of is dropped.
    fn keeps_alive(&mut self, reader: &mut Reader) {
        let keep_alive = wire::KeepAlive {
            events_acknowledged: 1,
            invalidations_acknowledged: reader.heard,
            reads_cache: true,
            ..wire::KeepAlive::default()
        };
        reader.keep_alive = self.send(&mut reader.client, Call::KeepAlive(keep_alive));
    }

    /// Takes the answer to its KeepAlive, if there is one. The next one is not sent yet.
    fn hears(&mut self, reader: &mut Reader) -> bool {
        let Some(answer) = self.answer(&reader.client, reader.keep_alive) else { return false };
        let Ok(Answer::KeptAlive(kept)) = answer else { panic!("{answer:?}") };
        for (number, invalidation) in (kept.first_invalidation..).zip(kept.invalidations) {
            if number > reader.heard {
                reader.heard = number;
                reader.dropped.push(invalidation);
            }
        }
        reader.lease = Duration::from_millis(kept.cache_lease_ms.into());
        true
    }

    /// Hears and acknowledges for as long as there is something to hear. Returns what it had to drop.
    fn obeys(&mut self, reader: &mut Reader) -> Vec<wire::Invalidation> {
        while self.hears(reader) {
            self.keeps_alive(reader);
        }
        std::mem::take(&mut reader.dropped)
    }

    /// Does a call, and says whether its answer may be cached.
    #[track_caller]
    fn ask(&mut self, client: &mut Client, call: Call) -> (Result<Answer, Error>, Option<wire::Cachable>) {
        let number = self.send(client, call);
        self.response(client, number).expect("an answer at once")
    }

    /// Whether a session may cache the node of a handle, now that it reads it.
    #[track_caller]
    fn may_cache(&mut self, client: &mut Client, handle: wire::Handle) -> bool {
        let (answer, cachable) = self.ask(client, get_stat(handle));
        assert!(answer.is_ok(), "{answer:?}");
        cachable.is_some()
    }

    /// A reader that has a node cached, with a cache lease that has just begun.
    #[track_caller]
    fn caching(&mut self, path: &str) -> (Reader, wire::Handle) {
        let mut reader = self.reader();
        let handle = self.open(&mut reader.client, path);
        assert!(self.may_cache(&mut reader.client, handle));
        assert_eq!(self.obeys(&mut reader), []);
        assert_eq!(reader.lease, self.cache_lease);
        (reader, handle)
    }

    /// A reader that has a directory's stat cached.
    #[track_caller]
    fn caching_directory(&mut self, path: &str) -> (Reader, wire::Handle) {
        let mut reader = self.reader();
        let open = Call::Open(wire::Open { path: path.into(), mode: 1, ..Default::default() });
        let Ok(Answer::Opened(opened)) = self.call(&mut reader.client, open) else { panic!("not opened") };
        let handle = opened.handle.unwrap();
        assert!(self.may_cache(&mut reader.client, handle));
        assert_eq!(self.obeys(&mut reader), []);
        (reader, handle)
    }

    /// A reader that has a directory's listing cached.
    #[track_caller]
    fn listing(&mut self, path: &str) -> (Reader, wire::Handle) {
        let mut reader = self.reader();
        let handle = self.open_with(&mut reader.client, directory(path));
        assert!(self.lists(&mut reader, handle));
        assert_eq!(self.obeys(&mut reader), []);
        (reader, handle)
    }

    #[track_caller]
    fn lists(&mut self, reader: &mut Reader, handle: wire::Handle) -> bool {
        let read = wire::ReadDir { handle: Some(handle), ..wire::ReadDir::default() };
        let (answer, cachable) = self.ask(&mut reader.client, Call::ReadDir(read));
        assert!(matches!(answer, Ok(Answer::Entries(_))));
        cachable.is_some()
    }

    /// Checks that a call waits until the readers have dropped just these.
    #[track_caller]
    fn waits_for(
        &mut self,
        client: &mut Client,
        call: Call,
        readers: &mut [(&mut Reader, &[wire::Invalidation])],
    ) {
        let number = self.send(client, call);
        for (reader, expected) in readers {
            assert!(self.answer(client, number).is_none(), "it does not wait");
            let mut dropped = self.obeys(reader);
            dropped.sort_by_key(|one| (one.what, one.instance));
            let mut expected = expected.to_vec();
            expected.sort_by_key(|one| (one.what, one.instance));
            assert_eq!(dropped, expected);
        }
        let answer = self.answer(client, number).expect("nothing stands against it any more");
        assert!(answer.is_ok(), "{answer:?}");
    }

    fn cache_status(&mut self) -> wire::CacheStatus {
        let connection = self.connect();
        let call = Call::GetStatus(wire::GetStatus {});
        self.send_raw(connection, wire::Request { number: 9, call: Some(call), ..Default::default() });
        let Some(Answer::Status(status)) = self.take(connection).result else { panic!("no status") };
        status.cache.expect("a master says it")
    }
}

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
