//! A new master, step by step (P§2.9, SPEC §7), and the leases that outlive masters. A restart of the only
//! replica is a fail-over like any other: what was in memory is gone.

use crate::world::{Client, LEASE, World, acquire, may_create};
use std::time::Duration;
use wombat_proto::limits::CACHE_LEASE;
use wombat_proto::wire::{self, request::Call, response::Result as Answer};
use wombat_proto::{Error, SessionId};

const SECOND: Duration = Duration::from_secs(1);

fn keep_alive(events_acknowledged: u64) -> Call {
    Call::KeepAlive(wire::KeepAlive { events_acknowledged, ..wire::KeepAlive::default() })
}

/// A session that uses its cache: the log says so.
fn caching(world: &mut World) -> Client {
    let connection = world.connect();
    let mut client = world.client_on(connection, true);
    let reads = wire::KeepAlive { reads_cache: true, ..wire::KeepAlive::default() };
    world.send(&mut client, Call::KeepAlive(reads));
    client
}

fn get_stat(handle: wire::Handle) -> Call {
    Call::GetStat(wire::GetStat { handle: Some(handle) })
}

fn ephemeral(path: &str) -> wire::Open {
    let node = wire::NewNode { ephemeral: true, ..wire::NewNode::default() };
    wire::Open { path: path.into(), node: Some(node), ..may_create() }
}

impl World {
    fn fail_over_status(&mut self) -> wire::FailOver {
        let connection = self.connect();
        let request = wire::Request {
            number: 9,
            call: Some(Call::GetStatus(wire::GetStatus {})),
            ..Default::default()
        };
        self.send_raw(connection, request);
        let Some(Answer::Status(status)) = self.take(connection).result else { panic!("no status") };
        status.fail_over.expect("a master")
    }

    /// Answers what waits for every client, acknowledges it and parks the next KeepAlive, while time passes.
    fn keep(&mut self, clients: &mut [&mut Client], duration: Duration) {
        let mut left = duration;
        while !left.is_zero() {
            for client in &mut *clients {
                self.send(client, keep_alive(1));
            }
            let step = left.min(LEASE / 4);
            self.pass(step);
            left -= step;
        }
    }

    pub(crate) fn lives(&self, client: &Client) -> bool {
        self.replica.state().session(SessionId(client.session)).is_some()
    }
}

#[test]
fn the_steps_are_told_in_order() {
    let mut world = World::new();
    let mut holder = world.client();
    let lock = world.open(&mut holder, "/ls/test/lock");
    world.call(&mut holder, acquire(lock)).unwrap();
    world.restart();
    // The second master in the same millisecond of the wall clock.
    let elected = format!("1: takes epoch {}; earlier ones are refused", world.replica.state().epoch());
    let expected = [
        elected.as_str(),
        "2: tells where the master is, and nothing else",
        "3: has rebuilt 1 sessions with leases of 12000 ms, 1 held locks",
        "4: answers KeepAlives",
        "5: tells 1 sessions of the fail-over",
        "6: waits for 0 sessions to acknowledge it",
        "7: allows everything, 0 ms after it began",
    ];
    assert_eq!(world.stages, expected);
    world.resume(&mut holder).unwrap();
    world.call(&mut holder, get_stat(lock)).unwrap();
    assert_eq!(world.stages[7..], ["8: makes a handle of an earlier epoch again, as it is used"]);
    world.keep(&mut [&mut holder], 60 * SECOND);
    assert_eq!(world.stages[8..], ["9: has closed 0 handles on ephemeral nodes that nobody has presented"]);
    let status = world.fail_over_status();
    assert_eq!((status.step, status.handles_recreated, status.orphans_closed), (9, 1, 0));
}

#[test]
fn nothing_is_answered_before_every_session_that_caches_knows_of_the_fail_over() {
    let mut world = World::new();
    let (mut caching, mut other) = (caching(&mut world), world.client());
    let file = world.open(&mut other, "/ls/test/file");
    world.restart();
    world.resume(&mut other).unwrap();
    world.resume(&mut caching).unwrap();
    // I10: it is known that they may ask, but neither reads nor writes are answered.
    let read = world.send(&mut other, get_stat(file));
    let write = world.send(&mut other, crate::world::set(file, "new"));
    let told = world.send(&mut caching, keep_alive(0));
    let Some(Ok(Answer::KeptAlive(kept))) = world.answer(&caching, told) else { panic!("step 4") };
    assert_eq!(kept.events.len(), 1, "step 5");
    assert!(world.answer(&other, read).is_none() && world.answer(&other, write).is_none());
    assert_eq!((world.fail_over_status().step, world.fail_over_status().awaited), (6, 1));
    let new = world.client();
    assert!(world.lives(&new), "a new session may begin");
    world.send(&mut caching, keep_alive(1));
    assert!(matches!(world.answer(&other, read), Some(Ok(Answer::Stat(_)))));
    assert!(matches!(world.answer(&other, write), Some(Ok(Answer::Stat(_)))));
    assert!(world.stages.iter().any(|stage| stage.starts_with("7: ")));
}

#[test]
fn a_session_that_caches_and_is_silent_is_awaited_until_its_cache_lease_has_ended() {
    let mut world = World::new();
    let (_silent, mut other) = (caching(&mut world), world.client());
    let file = world.open(&mut other, "/ls/test/file");
    world.restart();
    world.resume(&mut other).unwrap();
    let read = world.send(&mut other, get_stat(file));
    world.pass(CACHE_LEASE - Duration::from_millis(1));
    assert!(world.answer(&other, read).is_none());
    world.pass(Duration::from_millis(1));
    assert!(matches!(world.answer(&other, read), Some(Ok(Answer::Stat(_)))));
}

#[test]
fn a_session_that_never_used_its_cache_is_not_waited_for() {
    let mut world = World::new();
    let connection = world.connect();
    let (mut silent, mut other) = (world.client_on(connection, true), world.client());
    let file = world.open(&mut other, "/ls/test/file");
    world.send(&mut silent, keep_alive(0));
    world.restart();
    world.resume(&mut other).unwrap();
    assert!(world.call(&mut other, get_stat(file)).is_ok());
    assert!(world.lives(&silent));
}

/// I10: the next master would not wait for it.
#[test]
fn no_cache_lease_is_granted_before_the_log_says_that_the_session_may_have_one() {
    let mut world = World::new();
    let connection = world.connect();
    let mut client = world.client_on(connection, true);
    let file = world.open(&mut client, "/ls/test/file");
    let reads = Call::KeepAlive(wire::KeepAlive { reads_cache: true, ..wire::KeepAlive::default() });
    world.hold_disk = true;
    let number = world.send(&mut client, reads.clone());
    let (answer, cachable) = {
        let read = world.send(&mut client, get_stat(file));
        world.response(&client, read).unwrap()
    };
    assert!(answer.is_ok() && cachable.is_some());
    world.pass(LEASE / 2);
    let Some(Ok(Answer::KeptAlive(kept))) = world.answer(&client, number) else { panic!("no answer") };
    assert_eq!(kept.cache_lease_ms, 0);
    let number = world.send(&mut client, reads);
    world.hold_disk = false;
    world.flush();
    let Some(Ok(Answer::KeptAlive(kept))) = world.answer(&client, number) else { panic!("no answer") };
    assert!(kept.cache_lease_ms > 0);
    assert!(world.replica.state().session(SessionId(client.session)).unwrap().has_cache_lease);
}

#[test]
fn the_end_of_a_session_waits_for_those_who_may_have_its_ephemerals_cached_from_before() {
    let mut world = World::new();
    let (_silent, mut ends) = (caching(&mut world), world.client());
    world.open_with(&mut ends, ephemeral("/ls/test/mine"));
    world.restart();
    world.resume(&mut ends).unwrap();
    let end = world.send(&mut ends, Call::EndSession(wire::EndSession {}));
    world.pass(CACHE_LEASE - Duration::from_millis(1));
    assert!(world.answer(&ends, end).is_none());
    assert!(world.lives(&ends));
    world.pass(Duration::from_millis(1));
    assert!(world.answer(&ends, end).unwrap().is_ok());
    assert!(!world.lives(&ends));
}

#[test]
fn an_ephemeral_whose_handle_nobody_presents_for_a_minute_goes() {
    let mut world = World::new();
    let (mut keeps, mut forgets) = (world.client(), world.client());
    let kept = world.open_with(&mut keeps, ephemeral("/ls/test/kept"));
    world.open_with(&mut forgets, ephemeral("/ls/test/forgotten"));
    world.restart();
    world.resume(&mut keeps).unwrap();
    world.resume(&mut forgets).unwrap();
    world.call(&mut keeps, get_stat(kept)).unwrap();
    world.keep(&mut [&mut keeps, &mut forgets], 60 * SECOND - Duration::from_millis(1));
    assert_eq!(world.replica.state().tree().len(), 3, "the root and both");
    world.keep(&mut [&mut keeps, &mut forgets], SECOND);
    assert_eq!(world.replica.state().tree().len(), 2);
    assert!(world.call(&mut keeps, get_stat(kept)).is_ok());
    assert!(world.lives(&forgets), "its session goes on");
}

/// A fail-over in which every step has something to do, with a crash after any number of its records, and then
/// another fail-over: whoever lives has what was theirs, whoever has gone has nothing.
#[test]
fn a_crash_in_any_step_loses_nothing_and_brings_nothing_back() {
    let mut records = 0;
    loop {
        let mut world = World::new();
        let connection = world.connect();
        let (mut holder, mut caching) = (world.client(), world.client_on(connection, true));
        let (mut waits, mut gone, mut forgets) = (world.client(), world.client(), world.client());
        let lock = world.open(&mut holder, "/ls/test/lock");
        let granted = world.call(&mut holder, acquire(lock)).unwrap();
        let mine = world.open_with(&mut holder, ephemeral("/ls/test/mine"));
        let wanted = world.open(&mut waits, "/ls/test/lock");
        let queued = world.send(&mut waits, acquire(wanted));
        let file = world.open(&mut caching, "/ls/test/file");
        world.open_with(&mut gone, ephemeral("/ls/test/gone"));
        world.open_with(&mut forgets, ephemeral("/ls/test/forgotten"));
        let closed = world.open(&mut holder, "/ls/test/file");
        world.restart();

        world.records_left = Some(records);
        let mut number = 0;
        let mut live = [&mut holder, &mut caching, &mut waits, &mut forgets];
        for client in &mut live {
            let _crashed = world.try_resume(client);
        }
        let [holder, caching, waits, _] = &mut live;
        world.send(holder, get_stat(mine));
        world.send(holder, Call::Close(wire::Close { handle: Some(closed) }));
        world.send_again(waits, queued, acquire(wanted));
        world.send(caching, crate::world::set(file, "new"));
        for _ in 0..24 {
            for client in &mut live {
                number += 1;
                world.send(client, keep_alive(u64::from(number > 4)));
            }
            world.pass(LEASE / 4);
        }
        let finished = world.records_left != Some(0);
        world.records_left = None;
        world.restart();

        for client in &mut live {
            world.resume(client).unwrap();
        }
        let [holder, caching, waits, _] = &mut live;
        world.send(caching, keep_alive(0));
        world.send(caching, keep_alive(1));
        let again = Call::GetSequencer(wire::GetSequencer { handle: Some(lock) });
        assert_eq!(world.call(holder, again), Ok(granted), "after {records} records");
        assert!(world.call(holder, get_stat(mine)).is_ok(), "after {records} records");
        assert!(world.call(caching, get_stat(file)).is_ok());
        world.send_again(waits, queued, acquire(wanted));
        world.call(holder, Call::Release(wire::Release { handle: Some(lock) })).unwrap();
        assert!(
            matches!(world.answer(waits, queued), Some(Ok(Answer::Granted(_)))),
            "after {records} records"
        );
        world.keep(&mut [holder, caching, waits], 61 * SECOND);
        assert_eq!(world.replica.state().tree().len(), 4, "neither what is gone nor what is forgotten");
        assert!(!world.lives(&gone));
        if finished {
            return assert!(records > 5, "it had {records} records only");
        }
        records += 1;
    }
}

#[test]
fn what_an_earlier_master_may_have_granted_outlives_a_chain_of_masters_that_grant_less() {
    let mut world = World::with_lease(5 * LEASE);
    let mut client = world.client();
    world.lease = LEASE;
    for _ in 0..3 {
        world.restart();
        world.pass(SECOND);
    }
    // The client may believe in the lease of the first for almost a minute.
    world.pass(5 * LEASE - 2 * SECOND);
    assert!(world.lives(&client), "I5");
    world.resume(&mut client).unwrap();
    // Once it has run out the log says so, and the next master need not wait for so long.
    world.keep(&mut [&mut client], 6 * LEASE);
    assert_eq!(world.replica.state().lease(), LEASE);
    world.restart();
    world.pass(LEASE);
    assert!(!world.lives(&client));
}

#[test]
fn a_crowd_gets_longer_leases_that_the_next_master_knows_of() {
    let mut world = World::with_lease(SECOND);
    let connection = world.connect();
    // Many sessions on one connection. So many KeepAlives would be more than 10,000 a second.
    let clients: Vec<Client> = (0..6000).map(|_| world.client_on(connection, false)).collect();
    let mut last = *clients.last().unwrap();
    assert_eq!(last.lease_ms, 1000, "not before the log has it");
    world.step(wombat_replica::Input::Tick);
    let in_force = world.replica.state().lease();
    world.resume(&mut last).unwrap();
    assert!(last.lease_ms > 1000 && u128::from(last.lease_ms) <= in_force.as_millis(), "{last:?}");
    world.restart();
    assert_eq!(world.replica.state().lease(), in_force, "it stands in the log");
    world.pass(in_force - Duration::from_millis(1));
    assert_eq!(world.replica.state().session_count(), 6000, "I5");
    world.pass(Duration::from_millis(1));
    let left = world.replica.state().session_count();
    assert!((1..6000).contains(&left), "not all in one step: {left} are left");
    world.pass(Duration::from_millis(1));
    assert_eq!(world.replica.state().session_count(), 0);
}

#[test]
fn a_crowd_that_comes_while_shorter_leases_are_on_their_way_into_the_log_gets_no_longer_ones() {
    let mut world = World::with_lease(2 * SECOND);
    world.lease = SECOND;
    world.restart();
    world.pass(2 * SECOND - Duration::from_millis(1));
    assert_eq!(world.replica.state().lease(), 2 * SECOND);
    let connection = world.connect();
    world.hold_disk = true;
    for number in 0..6000 {
        let create = Call::CreateSession(wire::CreateSession::default());
        world.send_raw(connection, wire::Request { number, ..crate::world::request(create) });
    }
    world.stall(SECOND);
    world.step(wombat_replica::Input::Tick);
    world.hold_disk = false;
    world.flush();
    let longest = world.replies[&connection].iter().map(|reply| match &reply.result {
        Some(Answer::SessionOpened(opened)) => Duration::from_millis(opened.lease_ms.into()),
        other => panic!("{other:?}"),
    });
    assert_eq!(longest.max(), Some(world.replica.state().lease()), "I5: the next master grants no more");
}

#[test]
fn a_session_without_handles_or_calls_ends_after_a_minute_if_its_client_says_so() {
    let mut world = World::new();
    let (mut idle, mut busy) = (world.client(), world.client());
    world.open(&mut busy, "/ls/test/file");
    let says = Call::KeepAlive(wire::KeepAlive { idle: true, ..wire::KeepAlive::default() });
    for _ in 0..8 {
        world.send(&mut idle, says.clone());
        world.send(&mut busy, says.clone());
        world.pass(LEASE / 2);
    }
    assert!(world.lives(&idle));
    for _ in 0..10 {
        world.send(&mut idle, says.clone());
        world.send(&mut busy, says.clone());
        world.pass(LEASE / 2);
    }
    assert!(!world.lives(&idle));
    assert!(world.lives(&busy), "it has a handle, whatever it says");
}

#[test]
fn a_session_that_says_it_is_idle_and_holds_a_lock_is_kept_alive_all_the_same() {
    let mut world = World::new();
    let mut client = world.client();
    let handle = world.open(&mut client, "/ls/test/lock");
    world.call(&mut client, acquire(handle)).unwrap();
    world.restart(); // The new master has not seen its handle yet.
    world.resume(&mut client).unwrap();
    let says =
        Call::KeepAlive(wire::KeepAlive { idle: true, events_acknowledged: 1, ..wire::KeepAlive::default() });
    for _ in 0..20 {
        let number = world.send(&mut client, says.clone());
        world.pass(LEASE / 2);
        assert!(matches!(world.answer(&client, number), Some(Ok(Answer::KeptAlive(_)))));
    }
}

#[test]
fn a_keep_alive_whose_connection_is_gone_lengthens_no_lease() {
    let mut world = World::new();
    let mut client = world.client();
    world.send(&mut client, keep_alive(0));
    let connection = wombat_replica::ConnectionId(client.connection);
    world.step(wombat_replica::Input::Disconnected { connection });
    world.pass(LEASE);
    assert!(!world.lives(&client), "it was last heard of a whole lease ago");
}

#[test]
fn those_who_queued_at_the_earlier_master_keep_their_turns() {
    let mut world = World::new();
    let mut clients: Vec<Client> = (0..4).map(|_| world.client()).collect();
    let locks: Vec<_> = clients.iter_mut().map(|client| world.open(client, "/ls/test/lock")).collect();
    world.call(&mut clients[0], acquire(locks[0])).unwrap();
    world.restart();
    clients.iter_mut().for_each(|client| world.resume(client).unwrap());
    let waited = |n: usize, waited_ms| {
        Call::Acquire(wire::Acquire { handle: Some(locks[n]), waited_ms, ..wire::Acquire::default() })
    };
    // The one that has waited for the longest comes last; one that is new, and lies, is believed nothing.
    let third = world.send(&mut clients[1], waited(1, 0));
    world.pass(SECOND);
    let second = world.send(&mut clients[2], waited(2, 2000));
    let first = world.send(&mut clients[3], waited(3, 5000));
    let mut liar = world.client();
    let lock = world.open(&mut liar, "/ls/test/lock");
    let claim =
        Call::Acquire(wire::Acquire { handle: Some(lock), waited_ms: 99_000, ..wire::Acquire::default() });
    let last = world.send(&mut liar, claim);
    clients.push(liar);
    let turns = [(0, 0), (3, first), (2, second), (1, third), (4, last)];
    for (holder, next) in turns.iter().zip(&turns[1..]) {
        let lock = if holder.0 == 4 { lock } else { locks[holder.0] };
        world.call(&mut clients[holder.0], Call::Release(wire::Release { handle: Some(lock) })).unwrap();
        for (who, number) in turns.iter().filter(|(who, _)| *who != holder.0) {
            let granted = world
                .replies
                .entry(clients[*who].connection)
                .or_default()
                .iter()
                .any(|r| r.number == *number);
            assert_eq!(granted, who == &next.0, "after {} it is the turn of {}", holder.0, next.0);
        }
        assert!(matches!(world.answer(&clients[next.0], next.1), Some(Ok(Answer::Granted(_)))));
    }
}

#[test]
fn the_time_of_an_acquire_runs_on_at_the_next_master() {
    let mut world = World::new();
    let (mut holder, mut waits) = (world.client(), world.client());
    let (held, wanted) = (world.open(&mut holder, "/ls/test/lock"), world.open(&mut waits, "/ls/test/lock"));
    world.call(&mut holder, acquire(held)).unwrap();
    world.restart();
    world.resume(&mut waits).unwrap();
    let call =
        wire::Acquire { handle: Some(wanted), timeout_ms: 5000, waited_ms: 4000, ..Default::default() };
    let number = world.send(&mut waits, Call::Acquire(call));
    world.pass(SECOND - Duration::from_millis(1));
    assert!(world.answer(&waits, number).is_none());
    world.pass(Duration::from_millis(1));
    assert_eq!(world.answer(&waits, number), Some(Err(Error::Timeout)));
}

#[test]
fn a_session_that_caches_and_never_acknowledges_loses_its_lease_whatever_else_it_says() {
    for resumes in [false, true] {
        let mut world = World::new();
        let (mut deaf, mut other) = (caching(&mut world), world.client());
        let file = world.open(&mut other, "/ls/test/file");
        world.restart();
        world.resume(&mut other).unwrap();
        world.resume(&mut deaf).unwrap();
        let read = world.send(&mut other, get_stat(file));
        let mut told = Duration::ZERO;
        for step in 0..16 {
            world.send(&mut other, keep_alive(1));
            let number = world.send(&mut deaf, keep_alive(0));
            let now = step * LEASE / 8;
            if let Some(Ok(Answer::KeptAlive(kept))) = world.answer(&deaf, number) {
                told = told.max(now + Duration::from_millis(kept.lease_ms.into()));
            }
            if resumes && world.resume(&mut deaf).is_ok() {
                told = told.max(now + Duration::from_millis(deaf.lease_ms.into()));
            }
            assert!(world.lives(&deaf) || now >= told, "I5");
            world.pass(LEASE / 8);
        }
        assert!(!world.lives(&deaf), "SPEC §6");
        assert!(matches!(world.answer(&other, read), Some(Ok(Answer::Stat(_)))));
        assert!(world.lives(&other));
    }
}

#[test]
fn a_keep_alive_is_answered_in_time_though_the_log_knows_of_longer_leases() {
    let mut world = World::with_lease(5 * LEASE);
    let mut client = world.client();
    world.lease = LEASE;
    world.restart();
    world.resume(&mut client).unwrap();
    assert_eq!(u128::from(client.lease_ms), LEASE.as_millis());
    world.send(&mut client, keep_alive(0));
    let parked = world.send(&mut client, keep_alive(1));
    world.pass(LEASE / 2);
    assert!(matches!(world.answer(&client, parked), Some(Ok(Answer::KeptAlive(_)))));
}

#[test]
fn a_handle_that_was_closed_because_nobody_presented_it_does_not_come_back() {
    let mut world = World::new();
    let (mut keeps, mut forgets) = (world.client(), world.client());
    let kept = world.open_with(&mut keeps, ephemeral("/ls/test/shared"));
    let forgotten = world.open_with(&mut forgets, ephemeral("/ls/test/shared"));
    world.restart();
    world.resume(&mut keeps).unwrap();
    world.resume(&mut forgets).unwrap();
    world.call(&mut keeps, get_stat(kept)).unwrap();
    world.keep(&mut [&mut keeps, &mut forgets], 61 * SECOND);
    // The node is there because of the other one; this handle would not keep it (I11, I16).
    assert_eq!(world.call(&mut forgets, get_stat(forgotten)), Err(Error::StaleHandle));
}

#[test]
fn what_is_held_back_takes_no_more_memory_than_it_may() {
    let mut world = World::new();
    let mut caching = caching(&mut world);
    world.restart();
    world.resume(&mut caching).unwrap();
    // Two bytes each on the wire.
    let changes = vec![wire::Change::default(); 128];
    let multi = Call::Multi(wire::Multi { changes, ..wire::Multi::default() });
    let each = 128 * size_of::<wire::Change>();
    let mut held = 0;
    while world.replies.values().all(Vec::is_empty) {
        world.send(&mut caching, multi.clone());
        held += each;
        assert!(held <= wombat_proto::limits::HELD_BYTES + each, "I20");
    }
    let refusal = world.answer(&caching, caching.number);
    assert!(matches!(refusal, Some(Err(Error::Overloaded { .. }))), "{refusal:?}");
}
