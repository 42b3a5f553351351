//! What a replica knows of its own age. The world checks after every step that nothing is missing which a master
//! knew before the moment until which a replica takes itself for complete.

use super::world::{M, World, among, members};
use crate::Message;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::ReplicaId;

/// How often a master sends heartbeats in these scripts.
const HEARTBEAT: Duration = Duration::from_millis(M.as_millis() as u64 / 8);

/// The master's next heartbeat is due. Returns what it sends to a replica; all others get theirs.
fn next_heartbeat(world: &mut World, master: u32, to: u32) -> Vec<Message> {
    world.pass(HEARTBEAT);
    world.tick(master);
    let sent = world.take(master, to);
    world.settle();
    assert!(sent.iter().any(|message| matches!(message, Message::Heartbeat { .. })));
    sent
}

/// Only the heartbeats of what was sent.
fn heartbeats(sent: Vec<Message>) -> impl Iterator<Item = Message> {
    sent.into_iter().filter(|message| matches!(message, Message::Heartbeat { .. }))
}

#[test]
fn who_hears_the_master_is_as_old_as_a_heartbeat_or_two() {
    let mut world = World::new(3);
    assert_eq!((1..=3).map(|id| world.age(id)).collect::<Vec<_>>(), [None; 3]);
    world.elect(1);
    assert_eq!((world.age(1), world.age(2)), (Some(Duration::ZERO), None), "nothing was vouched for yet");
    for _ in 0..50 {
        world.run(M / 20);
        world.propose(1, "a").unwrap();
        assert_eq!(world.age(1), Some(Duration::ZERO));
    }
    assert!(world.age(2) <= Some(3 * HEARTBEAT), "{:?}", world.age(2));
    // It grows while nothing is heard, and shrinks again.
    let before = world.age(2).unwrap();
    world.pass(M / 2);
    assert_eq!(world.age(2), Some(before + M / 2));
    world.run(M);
    assert!(world.age(2) <= Some(3 * HEARTBEAT));
    world.restart(2);
    assert_eq!(world.age(2), None, "what it knew is memory");
}

#[test]
fn the_network_may_take_its_time() {
    let mut world = World::new(3);
    world.elect(1);
    world.run(M);
    let age = world.age(2).unwrap();
    let late = next_heartbeat(&mut world, 1, 2);
    world.propose(1, "a").unwrap();
    world.take(1, 2);
    world.settle();
    for _ in 0..20 {
        next_heartbeat(&mut world, 1, 2);
    }
    heartbeats(late).for_each(|message| world.inject(1, 2, message));
    assert!(world.commands(1) == ["a"] && world.commands(2).is_empty());
    assert!(world.age(2) > Some(20 * HEARTBEAT), "a late heartbeat says nothing of today");
    assert!(world.age(2) < Some(21 * HEARTBEAT + age), "but something of the day on which it was sent");
}

#[test]
fn who_is_told_more_than_it_knows_waits_until_it_knows() {
    let mut world = World::new(3);
    world.elect(1);
    world.run(M);
    world.propose(1, "a").unwrap();
    let accepts = world.take(1, 2);
    world.lose_values(1, &[2]);
    world.settle();
    assert_eq!(world.commands(1), ["a"]);
    // The mark on the grant of the first comes back with the others.
    let before = world.paxos(2).complete_until(world.clock(2));
    for _ in 0..3 {
        heartbeats(next_heartbeat(&mut world, 1, 2)).for_each(|message| world.inject(1, 2, message));
        world.settle();
    }
    let known = world.paxos(2).complete_until(world.clock(2));
    assert!(known < before.map(|before| before + 2 * HEARTBEAT), "the mark that was under way, no later one");
    accepts.into_iter().for_each(|message| world.inject(1, 2, message));
    world.run(2 * HEARTBEAT);
    assert_eq!(world.commands(2), ["a"]);
    assert!(world.age(2) <= Some(4 * HEARTBEAT));
}

#[test]
fn a_master_without_its_lease_vouches_for_nothing() {
    let mut world = World::with(5, |config| config.patience = 20 * M);
    world.elect(1);
    world.run(M);
    let apart = [vec![(1, 2)], among(&[3, 4, 5])].concat();
    world.connect_only(&apart);
    for other in [3, 4, 5] {
        world.with_paxos(other, |paxos, now| paxos.lost(now, ReplicaId(1)));
    }
    world.run(3 * M);
    let next = world.masters().into_iter().find(|id| *id != 1).expect("three of five elect another");
    world.propose(next, "a").unwrap();
    world.run(M);
    assert!(world.masters().contains(&1), "it still hopes");
    assert_eq!(world.paxos(2).master(), Some(ReplicaId(1)), "and is still granted its lease");
    assert!(world.age(2) > Some(2 * M) && world.age(1) > Some(2 * M));
    assert_eq!(world.age(next), Some(Duration::ZERO));
}

#[test]
fn a_mark_of_an_earlier_life_counts_for_nothing() {
    let mut world = World::new(3);
    world.elect(1);
    let late = next_heartbeat(&mut world, 1, 2); // It brings the first mark of 2 back.
    world.kill(2);
    world.propose(1, "a").unwrap();
    world.settle();
    world.start(2);
    heartbeats(next_heartbeat(&mut world, 1, 2)).for_each(|message| world.inject(1, 2, message));
    heartbeats(late).for_each(|message| world.inject(1, 2, message));
    assert_eq!(world.age(2), None);
}

#[test]
fn who_has_led_knows_until_when_it_surely_did() {
    let mut world = World::new(3);
    world.elect(1);
    world.run(M);
    world.connect_only(&among(&[2, 3]));
    world.run(M / 2);
    assert_eq!((world.holders(), world.age(1)), ([1].into(), Some(Duration::ZERO)));
    world.run(M);
    let lapsed = world.age(1).unwrap();
    assert!(Duration::ZERO < lapsed && lapsed < M, "{lapsed:?}");
    world.run(5 * M);
    assert!(!world.masters().contains(&1), "it has stepped down");
    assert_eq!(world.age(1), Some(lapsed + 5 * M), "and got no wiser, nor less wise");
    // Who hands over knows all until then.
    let second = world.masters()[0];
    world.heal();
    world.run(M);
    world.tick(second);
    world.with_paxos(second, |paxos, _| paxos.transfer(ReplicaId(1)).unwrap());
    assert!(world.masters().is_empty());
    assert_eq!(world.age(second), Some(Duration::ZERO));
}

#[test]
fn a_learner_knows_its_age_too() {
    let mut world = World::new(1);
    world.elect(1);
    world.join(2);
    assert_eq!(world.age(2), None);
    world.change(1, members(&[1], &[2])).unwrap();
    world.run(M);
    world.propose(1, "a").unwrap();
    world.run(M);
    assert_eq!(world.age(1), Some(Duration::ZERO));
    assert!(world.age(2) <= Some(3 * HEARTBEAT), "{:?}", world.age(2));
}
