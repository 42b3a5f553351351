//! Leases, KeepAlives and the events that ride on them (P§2.5, P§2.8).

use crate::world::{Client, LEASE, World, acquire, may_create};
use prost::Message;
use std::time::Duration;
use wombat_proto::Error;
use wombat_proto::limits::{FRAME_BYTES, keep_alive_hold};
use wombat_proto::wire::event::{BELOW, Kind};
use wombat_proto::wire::{self, request::Call, response::Result as Answer};
use wombat_replica::Input;

fn keep_alive(events_acknowledged: u64) -> Call {
    Call::KeepAlive(wire::KeepAlive { events_acknowledged, ..wire::KeepAlive::default() })
}

fn kept_alive(world: &mut World, client: &Client, number: u64) -> wire::KeptAlive {
    match world.answer(client, number) {
        Some(Ok(Answer::KeptAlive(kept))) => kept,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_keep_alive_is_held_as_long_as_a_fail_over_leaves_half_of_the_lease() {
    let mut world = World::new();
    let mut client = world.client();
    let number = world.send(&mut client, keep_alive(0));
    let hold = keep_alive_hold(LEASE);
    assert_eq!(hold, LEASE / 2 - Duration::from_millis(2500));
    // Some are answered an eighth of that time earlier, so that sessions do not stay in step.
    world.pass(hold * 7 / 8 - Duration::from_millis(1));
    assert!(world.answer(&client, number).is_none());
    world.pass(hold / 8 + Duration::from_millis(1));
    let kept = kept_alive(&mut world, &client, number);
    assert_eq!(u128::from(kept.lease_ms), LEASE.as_millis());
    assert!((3_062_500..=3_500_000).contains(&kept.held_us), "{}", kept.held_us);
}

/// Whatever comes meanwhile: the heartbeats go out with the ticks.
#[test]
fn a_crowd_hears_of_an_event_by_and_by_and_only_the_first_of_it_before_the_next_tick() {
    let mut world = World::new();
    let events = Kind::ContentsModified.bit();
    let watchers: Vec<Client> = (0..1500)
        .map(|_| {
            let mut client = world.client();
            world.open_with(&mut client, wire::Open { path: "/ls/test/file".into(), events, ..may_create() });
            world.send(&mut client, keep_alive(0));
            client
        })
        .collect();
    let mut writer = world.client();
    let file = world.open(&mut writer, "/ls/test/file");
    world.write(&mut writer, file, "new").unwrap();
    let told = |world: &World| {
        let hears =
            |client: &&Client| world.replies.get(&client.connection).is_some_and(|all| !all.is_empty());
        watchers.iter().filter(hears).count()
    };
    for _ in 0..5 {
        assert_eq!(told(&world), 1024);
        world.read(&mut writer, file).unwrap();
    }
    world.step(Input::Tick);
    assert_eq!(told(&world), 1500);
}

/// Nor is an event queued for all of a crowd at once. What comes after it stays behind it.
#[test]
fn a_crowd_of_handles_gets_its_events_by_and_by_and_in_log_order() {
    const HANDLES: usize = 800;
    let mut world = World::new();
    let events = Kind::ContentsModified.bit() | Kind::LockConflict.bit();
    let open = wire::Open { path: "/ls/test/file".into(), events, ..may_create() };
    let mut watchers: Vec<Client> = (0..6).map(|_| world.client()).collect();
    let mut last = wire::Handle::default();
    for client in &mut watchers {
        for _ in 0..HANDLES {
            last = world.open_with(client, open.clone());
        }
    }
    let holder = &mut watchers[5];
    world.call(holder, acquire(last)).unwrap();
    for _ in 0..2 {
        world.step(Input::Tick); // Who hears of no locks has been asked whether he does.
    }
    let mut writer = world.client();
    let file = world.open(&mut writer, "/ls/test/file");
    let mut waiting: Vec<u64> = watchers.iter_mut().map(|client| world.send(client, keep_alive(0))).collect();
    let mut heard: Vec<Vec<wire::Event>> = vec![Vec::new(); watchers.len()];
    let mut hear = |world: &mut World| {
        for ((client, waiting), heard) in watchers.iter_mut().zip(&mut waiting).zip(&mut heard) {
            while let Some(Ok(Answer::KeptAlive(kept))) = world.answer(client, *waiting) {
                heard.extend(kept.events);
                *waiting = world.send(client, keep_alive(heard.len() as u64));
            }
        }
        heard.iter().map(Vec::len).sum::<usize>()
    };
    world.write(&mut writer, file, "one").unwrap();
    world.write(&mut writer, file, "two").unwrap();
    world.send(&mut writer, acquire(file));
    assert_eq!(hear(&mut world), 4096, "before the next tick");
    while hear(&mut world) < 2 * 6 * HANDLES + 1 {
        world.step(Input::Tick);
    }
    for events in &heard {
        let slots: Vec<u64> = events.iter().map(|event| event.slot).collect();
        assert!(slots.is_sorted(), "SPEC I12");
    }
    assert_eq!(heard[5].last().map(wire::Event::kind), Some(Kind::LockConflict));
}

/// A crowd that always has news: who comes after it has his turn all the same.
#[test]
fn nobody_is_kept_waiting_by_a_crowd_that_always_has_news() {
    let mut world = World::new();
    let open =
        wire::Open { path: "/ls/test/file".into(), events: Kind::ContentsModified.bit(), ..may_create() };
    let mut crowd: Vec<(Client, u64, u64)> = (0..1100)
        .map(|_| {
            let mut client = world.client();
            world.open_with(&mut client, open.clone());
            let number = world.send(&mut client, keep_alive(0));
            (client, number, 0)
        })
        .collect();
    let mut writer = world.client();
    let file = world.open(&mut writer, "/ls/test/file");
    let mut last = world.client();
    let number = world.send(&mut last, keep_alive(0));
    world.pass(keep_alive_hold(LEASE) * 7 / 8 - Duration::from_millis(100));
    for turn in 0.. {
        world.write(&mut writer, file, "news").unwrap();
        world.now += Duration::from_millis(100);
        world.step(Input::Tick);
        if let Some(Ok(Answer::KeptAlive(_))) = world.answer(&last, number) {
            break;
        }
        assert!(turn < 20, "the KeepAlive is due");
        for (client, number, heard) in &mut crowd {
            if let Some(Ok(Answer::KeptAlive(kept))) = world.answer(client, *number) {
                *heard = kept.first_event + kept.events.len() as u64 - 1;
                *number = world.send(client, keep_alive(*heard));
            }
        }
    }
}

/// Nor does the master stop for it: of more events than it can keep, one stands for many.
#[test]
fn events_that_come_faster_than_a_crowd_is_told_become_one_with_a_gap() {
    const SESSIONS: usize = 600;
    const HANDLES: usize = 15;
    let mut world = World::new();
    let open =
        wire::Open { path: "/ls/test/file".into(), events: Kind::ContentsModified.bit(), ..may_create() };
    let mut watchers: Vec<Client> = (0..SESSIONS).map(|_| world.client()).collect();
    for client in &mut watchers {
        for _ in 0..HANDLES {
            world.open_with(client, open.clone());
        }
    }
    let mut writer = world.client();
    let file = world.open(&mut writer, "/ls/test/file");
    for number in 0..40 {
        world.write(&mut writer, file, &number.to_string()).unwrap();
    }
    let written = world.replica.state().stamp().0;
    let hear = |world: &mut World, client: &mut Client| {
        let (mut heard, mut events) = (0, Vec::new());
        loop {
            let number = world.send(client, keep_alive(heard));
            let Some(Ok(Answer::KeptAlive(kept))) = world.answer(client, number) else { return events };
            heard = kept.first_event + kept.events.len() as u64 - 1;
            events.extend(kept.events);
        }
    };
    let first = hear(&mut world, &mut watchers[0]);
    assert_eq!(
        first.len(),
        HANDLES,
        "a step queues events for so many handles, however many events there are"
    );
    for _ in 0..100 {
        world.step(Input::Tick);
    }
    for client in &mut watchers {
        let events = hear(&mut world, client);
        assert!(events.iter().map(|event| event.slot).is_sorted(), "SPEC I12");
        let last = events.last().map(|event| (event.kind(), event.slot));
        assert_eq!(last, Some((Kind::ContentsModified, written)));
        assert!(events.iter().any(|event| event.kind() == Kind::Gap));
    }
}

/// Who joins has no session, and takes no number of one.
#[test]
fn nobody_joins_in_the_name_of_a_session() {
    let mut world = World::new();
    let (victim, stranger) = (world.client(), world.connect());
    let call = Some(Call::Join(wire::Join { address: "10.0.0.9:7480".into() }));
    let (session, epoch) = (victim.session, victim.epoch);
    world.send_raw(stranger, wire::Request { session, number: 7, epoch, acknowledged: 0, call });
    let refused = world.take(stranger);
    assert!(matches!(refused.result, Some(Answer::Error(_))), "{refused:?}");
    assert!(world.answer(&victim, 7).is_none());
}

#[test]
fn a_session_lives_for_as_long_as_it_is_kept_alive() {
    let mut world = World::new();
    let mut client = world.client();
    for _ in 0..10 {
        let number = world.send(&mut client, keep_alive(0));
        world.pass(LEASE / 2);
        kept_alive(&mut world, &client, number);
    }
    assert!(world.replica.state().session(wombat_proto::SessionId(client.session)).is_some());
}

#[test]
fn a_keep_alive_that_has_arrived_counts_before_the_lease_is_looked_at() {
    let mut world = World::new();
    let (mut client, silent) = (world.client(), world.client());
    world.pass(LEASE - Duration::from_millis(1));
    world.stall(Duration::from_millis(2));
    // Others' requests come first, and there are too many of them for one turn.
    world.step(Input::PartialTick { drained_through: world.now() - Duration::from_millis(2) });
    let number = world.send(&mut client, keep_alive(0));
    kept_alive(&mut world, &client, number);
    world.step(Input::Tick);
    let lives =
        |client: &Client| world.replica.state().session(wombat_proto::SessionId(client.session)).is_some();
    assert!(lives(&client) && !lives(&silent));
}

#[test]
fn leases_end_in_a_flood_of_keep_alives_too() {
    let mut world = World::new();
    let silent = wombat_proto::SessionId(world.client().session);
    world.pass(LEASE - Duration::from_millis(1));
    let heard = world.now();
    world.stall(Duration::from_millis(1));
    world.step(Input::PartialTick { drained_through: heard });
    assert!(world.replica.state().session(silent).is_some(), "it may have said something that is to come");
    let heard = world.now();
    world.step(Input::PartialTick { drained_through: heard });
    assert!(world.replica.state().session(silent).is_none());
}

#[test]
fn a_silent_session_expires_with_its_locks_and_ephemerals_but_not_before_its_lease() {
    let mut world = World::new();
    let (mut client, mut other) = (world.client(), world.client());
    let ephemeral = wire::NewNode { ephemeral: true, ..wire::NewNode::default() };
    let open = wire::Open { path: "/ls/test/e".into(), node: Some(ephemeral), ..may_create() };
    world.open_with(&mut client, open);
    let mine = world.open(&mut client, "/ls/test/lock");
    world.call(&mut client, acquire(mine)).unwrap();
    let theirs = world.open(&mut other, "/ls/test/lock");
    let waits = world.send(&mut other, acquire(theirs));
    let stays = world.send(&mut other, keep_alive(0));
    world.pass(LEASE - Duration::from_millis(1));
    assert!(world.answer(&other, waits).is_none(), "I5: not before the lease ends");
    kept_alive(&mut world, &other, stays);
    world.send(&mut other, keep_alive(0));
    world.pass(Duration::from_millis(1));
    assert!(world.answer(&other, waits).unwrap().is_ok());
    assert_eq!(world.read(&mut client, mine), Err(Error::SessionExpired), "I14");
    let gone = wire::Open { path: "/ls/test/e".into(), mode: 1, ..wire::Open::default() };
    let error = world.call(&mut other, Call::Open(gone)).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "I11: {error}");
}

#[test]
fn after_a_stall_of_its_own_a_master_forgives() {
    let mut world = World::new();
    let mut client = world.client();
    world.stall(LEASE * 3);
    let number = world.send(&mut client, keep_alive(0));
    world.pass(LEASE / 2);
    kept_alive(&mut world, &client, number);
}

#[test]
fn an_event_comes_at_once_and_again_until_acknowledged() {
    let mut world = World::new();
    let (mut watcher, mut writer) = (world.client(), world.client());
    let open = wire::Open { path: "/ls/test/f".into(), events: Kind::ContentsModified.bit(), ..may_create() };
    let watched = world.open_with(&mut watcher, open);
    let handle = world.open(&mut writer, "/ls/test/f");
    let number = world.send(&mut watcher, keep_alive(0));
    world.write(&mut writer, handle, "new").unwrap();
    let kept = kept_alive(&mut world, &watcher, number);
    assert_eq!((kept.first_event, kept.events.len()), (1, 1));
    assert_eq!((kept.events[0].kind(), kept.events[0].handle), (Kind::ContentsModified, watched.id));
    // Not acknowledged: it comes again. Acknowledged: it does not.
    let number = world.send(&mut watcher, keep_alive(0));
    assert_eq!(kept_alive(&mut world, &watcher, number).first_event, 1);
    let number = world.send(&mut watcher, keep_alive(1));
    assert!(world.answer(&watcher, number).is_none());
}

#[test]
fn events_beyond_the_bound_become_a_gap_that_is_told() {
    let mut world = World::new();
    let (mut watcher, mut writer) = (world.client(), world.client());
    let open = wire::Open { path: "/ls/test/f".into(), events: Kind::ContentsModified.bit(), ..may_create() };
    world.open_with(&mut watcher, open);
    let handle = world.open(&mut writer, "/ls/test/f");
    for n in 0..1030 {
        world.write(&mut writer, handle, &n.to_string()).unwrap();
        writer.number += 1; // Numbers may leave holes.
        if n % 500 == 0 {
            // The writer takes its answers, or its kept outcomes would fill up.
            let number = writer.number;
            let call = Call::GetStat(wire::GetStat { handle: Some(handle) });
            world.send_again(&writer, number, call);
            acknowledge_all(&mut world, &mut writer, handle);
        }
    }
    let number = world.send(&mut watcher, keep_alive(0));
    let kept = kept_alive(&mut world, &watcher, number);
    assert_eq!(kept.events[0].kind(), Kind::Gap);
    assert_eq!(kept.first_event, 1025, "numbers go on over the gap");
}

fn acknowledge_all(world: &mut World, client: &mut Client, handle: wire::Handle) {
    client.number += 1;
    let Client { connection, session, epoch, number, .. } = *client;
    let call = Some(crate::world::set(handle, "ack"));
    world.send_raw(connection, wire::Request { session, number, epoch, acknowledged: number - 1, call });
    world.answer(client, number).unwrap().unwrap();
}

#[test]
fn children_are_told_of() {
    let mut world = World::new();
    let (mut watcher, mut writer) = (world.client(), world.client());
    let events = Kind::ChildAdded.bit() | Kind::ChildRemoved.bit() | Kind::ChildModified.bit();
    world.open_with(
        &mut watcher,
        wire::Open { path: "/ls/test".into(), mode: 1, events, ..wire::Open::default() },
    );
    let handle = world.open(&mut writer, "/ls/test/child");
    world.write(&mut writer, handle, "new").unwrap();
    world.call(&mut writer, Call::Delete(wire::Delete { handle: Some(handle) })).unwrap();
    let number = world.send(&mut watcher, keep_alive(0));
    let kept = kept_alive(&mut world, &watcher, number);
    let told: Vec<_> = kept.events.iter().map(|event| (event.kind(), event.child.as_str())).collect();
    let child = "child";
    assert_eq!(told, [(Kind::ChildAdded, child), (Kind::ChildModified, child), (Kind::ChildRemoved, child)]);
}

#[test]
fn a_delayed_copy_of_a_keep_alive_does_not_take_the_place_of_the_one_that_is_waited_for() {
    let mut world = World::new();
    let mut client = world.client();
    let old = client;
    let first = world.send(&mut client, keep_alive(0));
    world.resume(&mut client).unwrap();
    let second = world.send(&mut client, keep_alive(0));
    world.send_again(&old, first, keep_alive(0));
    world.pass(LEASE / 2);
    kept_alive(&mut world, &client, second);
}

#[test]
fn who_wants_to_hear_of_everything_below_a_directory_does() {
    let mut world = World::new();
    let (mut watcher, mut writer) = (world.client(), world.client());
    let all = Kind::ChildAdded.bit()
        | Kind::ChildRemoved.bit()
        | Kind::ChildModified.bit()
        | Kind::LockAcquired.bit();
    for events in [all | BELOW, all] {
        let open = wire::Open { path: "/ls/test".into(), mode: 1, events, ..wire::Open::default() };
        world.open_with(&mut watcher, open);
    }
    let directory = || wire::NewNode { directory: true, ..wire::NewNode::default() };
    for path in ["/ls/test/a", "/ls/test/a/b"] {
        let open = wire::Open { path: path.into(), node: Some(directory()), ..may_create() };
        world.open_with(&mut writer, open);
    }
    let file = world.open(&mut writer, "/ls/test/a/b/f");
    world.write(&mut writer, file, "new").unwrap();
    world.call(&mut writer, acquire(file)).unwrap();
    world.call(&mut writer, Call::Delete(wire::Delete { handle: Some(file) })).unwrap();
    let number = world.send(&mut watcher, keep_alive(0));
    let kept = kept_alive(&mut world, &watcher, number);
    let told: Vec<_> =
        kept.events.iter().map(|event| (event.handle, event.kind(), event.child.as_str())).collect();
    assert_eq!(
        told,
        [
            (1, Kind::ChildAdded, "a"),
            (2, Kind::ChildAdded, "a"),
            (1, Kind::ChildAdded, "a/b"),
            (1, Kind::ChildAdded, "a/b/f"),
            (1, Kind::ChildModified, "a/b/f"),
            (1, Kind::LockAcquired, "a/b/f"),
            (1, Kind::ChildRemoved, "a/b/f"),
        ]
    );
}

#[test]
fn events_with_long_ways_come_in_as_many_answers_as_they_need() {
    let mut world = World::new();
    let (mut watcher, mut writer) = (world.client(), world.client());
    let events = Kind::ChildModified.bit() | BELOW;
    let open = wire::Open { path: "/ls/test".into(), mode: 1, events, ..wire::Open::default() };
    world.open_with(&mut watcher, open);
    let mut path = String::from("/ls/test");
    for _ in 0..3 {
        path = format!("{path}/{}", "d".repeat(250));
        let node = Some(wire::NewNode { directory: true, ..wire::NewNode::default() });
        world.open_with(&mut writer, wire::Open { path: path.clone(), node, ..may_create() });
    }
    let handle = world.open(&mut writer, &format!("{path}/{}", "f".repeat(250)));
    for _ in 0..600 {
        acknowledge_all(&mut world, &mut writer, handle);
    }
    let (mut acknowledged, mut answers) = (0, 0);
    while acknowledged < 600 {
        let number = world.send(&mut watcher, keep_alive(acknowledged));
        let kept = kept_alive(&mut world, &watcher, number);
        assert!(kept.encoded_len() < FRAME_BYTES, "it fits into a frame");
        assert_eq!(kept.first_event, acknowledged + 1, "none is left out");
        acknowledged += kept.events.len() as u64;
        answers += 1;
    }
    assert!(answers > 1);
}
