//! Partial partitions: which master comes out of them.

use super::world::{M, World};
use alloc::vec;

#[test]
fn replica_back_from_a_partition_deposes_no_master() {
    let mut world = World::new(3);
    world.elect(1);
    let ballot = world.paxos(1).ballot();
    // 3 hears nobody for long: it asks, and asks, and promises itself nothing.
    world.connect_only(&[(1, 2)]);
    world.run(10 * M);
    world.heal();
    world.run(3 * M);
    // It hears 2, but not the master: 2 has granted a lease.
    world.connect_only(&[(1, 2), (2, 3)]);
    world.run(10 * M);
    assert_eq!(world.holders(), [1]);
    assert_eq!(world.paxos(1).ballot(), ballot);
}

#[test]
fn quorum_loss_settles_on_the_replica_with_a_quorum() {
    let mut world = World::new(5);
    world.elect(1);
    // All are connected to 3 alone, the master too: it has no quorum any more, and 3 has one.
    world.connect_only(&[(1, 3), (2, 3), (4, 3), (5, 3)]);
    world.run(5 * M);
    assert_eq!(world.holders(), [3]);
    let ballot = world.paxos(3).ballot();
    world.run(20 * M);
    assert_eq!((world.holders(), world.paxos(3).ballot()), (vec![3], ballot));
}

#[test]
fn constrained_election_settles_on_replica_with_quorum() {
    let mut world = World::new(5);
    world.elect(1);
    world.kill(2); // It is to be behind.
    world.propose(1, "a").unwrap();
    world.run(M);
    world.start(2);
    // The master is alone with 2, and only 2 has a quorum; it has to learn first.
    world.connect_only(&[(1, 2), (2, 3), (2, 4), (2, 5)]);
    world.run(6 * M);
    assert_eq!(world.holders(), [2]);
    assert_eq!(world.commands(2), ["a"]);
    let ballot = world.paxos(2).ballot();
    world.run(20 * M);
    assert_eq!((world.holders(), world.paxos(2).ballot()), (vec![2], ballot));
}

#[test]
fn chain_of_replicas_settles_on_one_master() {
    let mut world = World::new(3);
    world.elect(1);
    // 1 and 3 do not hear each other. 1 keeps its quorum with 2, and 3 does not come between them.
    world.connect_only(&[(1, 2), (2, 3)]);
    world.run(20 * M);
    assert_eq!(world.holders(), [1]);
    let slot = world.propose(1, "a").unwrap();
    world.run(M);
    assert!(world.paxos(1).chosen() >= slot);
}

#[test]
fn master_that_receives_nothing_steps_down() {
    let mut world = World::new(3);
    world.elect(1);
    for other in [2, 3] {
        world.cut_way(other, 1);
    }
    // Its heartbeats go on for a lease; when it steps down the others can elect.
    world.run(5 * M);
    assert!(matches!(world.holders()[..], [2 | 3]));
}
