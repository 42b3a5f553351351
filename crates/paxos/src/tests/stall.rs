//! A master whose proposals are not chosen, though it has its lease.

use super::world::{M, STALL, World};
use crate::Message;
use alloc::collections::BTreeSet;
use alloc::vec;
use core::time::Duration;
use wombat_proto::{Epoch, Value};

/// Large packets from the master are lost, small ones arrive: heartbeats keep its lease, and no write ends.
#[test]
fn master_whose_values_are_lost_makes_way() {
    let mut world = World::new(5);
    world.elect(1);
    world.run(M);
    world.lose_values(1, &[2, 3, 4, 5]);
    world.propose(1, "a").unwrap();
    world.run(STALL - M);
    assert_eq!(world.holders(), [1]);
    let waits = world.paxos(1).status().oldest_proposal.unwrap();
    assert!(waits > STALL - 2 * M && waits <= STALL - M, "{waits:?}");
    world.run(2 * M);
    let next = world.holders();
    assert!(next.len() == 1 && next != [1], "{next:?} hold the lease");
    world.propose(next[0], "b").unwrap();
    world.run(M);
    assert!(world.commands(1).contains(&"b".into()), "the former master follows");
    world.run(3 * STALL);
    assert_eq!(world.holders(), next);
    assert_eq!(world.paxos(next[0]).status().oldest_proposal, None);
}

/// The master reaches a quorum now and then: progress restarts the clock, so an overloaded cell keeps its master.
#[test]
fn progress_restarts_the_clock() {
    let mut world = World::new(3);
    world.elect(1);
    world.run(M);
    let ballot = world.paxos(1).ballot();
    for n in 0..6 {
        world.lose_values(1, &[2, 3]);
        world.propose(1, &alloc::format!("{n}")).unwrap();
        world.run(STALL * 3 / 4);
        world.heal();
        world.run(M);
    }
    assert_eq!(world.paxos(1).ballot(), ballot);
    assert_eq!(world.holders(), [1]);
}

/// One proposal is chosen, the next one is not: the clock of that one begins when the first was chosen.
#[test]
fn choice_of_an_earlier_proposal_restarts_the_clock() {
    let mut world = World::new(3);
    world.elect(1);
    world.run(M);
    world.propose(1, "a").unwrap();
    let late = world.take(1, 2);
    world.lose_all();
    world.lose_values(1, &[2, 3]);
    world.propose(1, "b").unwrap();
    world.run(STALL * 3 / 4);
    late.into_iter().for_each(|message| world.inject(1, 2, message));
    world.settle();
    assert_eq!(world.commands(1), ["a"]);
    world.run(STALL * 3 / 4);
    assert_eq!(world.holders(), [1]);
    world.run(STALL / 2);
    assert!(!world.holders().contains(&1));
}

/// An idle master has nothing that could be stalled: the clock begins with the first proposal.
#[test]
fn idle_time_does_not_count_as_a_stall() {
    let mut world = World::new(3);
    world.elect(1);
    world.run(3 * STALL);
    world.lose_values(1, &[2, 3]);
    world.propose(1, "a").unwrap();
    world.run(STALL / 2);
    assert_eq!(world.holders(), [1]);
    world.heal();
    world.run(M);
    assert_eq!((world.holders(), world.commands(1)), (vec![1], vec!["a".into()]));
}

/// A quorum of voters has the proposal and waits for its disks. No other master could do better, so the master
/// stays: it still answers reads and KeepAlives.
#[test]
fn slow_disks_of_a_quorum_do_not_depose_a_master() {
    let mut world = World::new(3);
    world.elect(1);
    world.run(M);
    let ballot = world.paxos(1).ballot();
    world.stick(2, true);
    world.stick(3, true);
    world.propose(1, "a").unwrap();
    world.run(4 * STALL);
    assert_eq!((world.holders(), world.paxos(1).ballot()), (vec![1], ballot));
    world.sync(2);
    world.run(M);
    assert_eq!(world.commands(1), ["a"]);
}

/// Of several voters, the one whose disk has the most takes over.
#[test]
fn voter_that_has_accepted_most_takes_over() {
    let mut world = World::new(5);
    world.elect(1);
    world.run(M);
    world.stick(3, true);
    world.lose_values(1, &[4, 5]);
    world.propose(1, "a").unwrap();
    world.run(M);
    assert!(world.commands(1).is_empty());
    world.run(STALL);
    assert_eq!(world.masters(), [2]);
    assert_eq!(world.commands(2), ["a"]);
}

/// A voter that has the values and waits for its disk would be as slow as a master.
#[test]
fn voter_that_waits_for_its_disk_does_not_take_over() {
    let mut world = World::new(5);
    world.elect(1);
    world.run(M);
    world.stick(3, true);
    world.lose_values(1, &[2, 4, 5]);
    world.propose(1, "a").unwrap();
    world.run(STALL + M);
    assert_eq!(world.masters().len(), 1);
    assert!(world.masters() != [3] && world.masters() != [1]);
}

/// Values are lost on all ways. Masters follow each other, but ever more slowly, and the cell goes on once the
/// fault is over.
#[test]
fn masters_in_a_row_that_stall_wait_longer() {
    let mut world = World::new(3);
    world.elect(1);
    world.run(M);
    world.lose(|message| matches!(message, Message::Accept { .. }));
    world.propose(1, "a").unwrap();
    let mut epochs: BTreeSet<Epoch> = BTreeSet::new();
    let rounds = 15;
    for _ in 0..rounds * STALL.as_millis() / 100 {
        world.run(Duration::from_millis(100));
        epochs.extend(world.up().into_iter().map(|id| world.paxos(id).ballot().epoch()));
    }
    assert!((3..=6).contains(&epochs.len()), "{epochs:?} in {rounds} times the patience");
    world.heal();
    world.run(4 * M);
    assert_eq!(world.holders().len(), 1);
}

fn is_large(message: &Message) -> bool {
    let bytes: usize = match message {
        Message::Accept { values, .. } => values.iter().map(Value::weight).sum(),
        Message::Promise { accepted, .. } => accepted.iter().map(|accepted| accepted.value.weight()).sum(),
        _ => 0,
    };
    bytes > 1000
}

/// Large values are lost on all ways, and small ones are chosen: each new master starts well, and stalls when the
/// client sends its large change again.
#[test]
fn masters_in_a_row_that_lose_large_values_wait_longer() {
    let mut world = World::new(3);
    world.elect(1);
    world.run(M);
    world.lose(is_large);
    let large = "x".repeat(5000);
    let mut epochs: BTreeSet<Epoch> = BTreeSet::new();
    let rounds = 15;
    for _ in 0..rounds * STALL.as_millis() / 100 {
        world.run(Duration::from_millis(100));
        for id in world.masters() {
            epochs.insert(world.paxos(id).ballot().epoch());
            if world.paxos(id).status().oldest_proposal.is_none() {
                world.propose(id, "small").unwrap();
                world.run(Duration::from_millis(100));
                world.propose(id, &large).unwrap();
            }
        }
    }
    assert!((3..=6).contains(&epochs.len()), "{epochs:?} in {rounds} times the patience");
    assert!(world.commands(1).contains(&"small".into()));
    // The series ends with the fault: the next stall costs one patience again.
    world.heal();
    world.run(10 * STALL);
    let master = world.holders()[0];
    world.propose(master, "b").unwrap();
    world.run(M);
    world.lose(|message| matches!(message, Message::Accept { .. }));
    world.propose(master, "c").unwrap();
    world.run(STALL + M);
    assert!(!world.masters().contains(&master));
}

/// A voter that had the proposal in memory and restarted does not have it any more: it might accept it from another
/// master.
#[test]
fn voter_that_restarted_before_its_sync_lacks_the_value() {
    let mut world = World::new(3);
    world.elect(1);
    world.run(M);
    world.stick(2, true);
    world.stick(3, true);
    world.propose(1, "a").unwrap();
    world.run(M);
    let received = |world: &World| world.paxos(1).status().peers[1].received;
    let before = received(&world);
    world.lose_values(1, &[2]);
    world.stick(2, false);
    world.restart(2);
    world.run(STALL - 2 * M);
    assert!(received(&world) < before, "{:?}", received(&world));
    world.run(4 * M);
    assert!(!world.masters().contains(&1));
}
