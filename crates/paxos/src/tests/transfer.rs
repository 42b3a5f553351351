//! How a master hands over, and how it gets a higher ballot.

use super::world::{M, World};
use crate::Message;
use alloc::vec;
use wombat_proto::Error;

#[test]
fn transfer_does_not_wait_for_the_lease_to_end() {
    let mut world = World::new(3);
    world.elect(1);
    world.propose(1, "a").unwrap();
    world.with_paxos(1, |paxos, _| paxos.transfer(wombat_proto::ReplicaId(2))).unwrap();
    // It serves no more from now on.
    assert!(world.holders().is_empty());
    assert!(matches!(world.propose(1, "b"), Err(Error::Overloaded { .. })));
    world.settle(); // No time passes at all.
    assert_eq!(world.holders(), [2]);
    assert_eq!(world.commands(2), ["a"]);
}

#[test]
fn transfer_to_a_dead_replica_ends_with_an_election() {
    let mut world = World::new(3);
    world.elect(1);
    world.kill(2);
    world.propose(1, "a").unwrap();
    world.with_paxos(1, |paxos, _| paxos.transfer(wombat_proto::ReplicaId(2))).unwrap();
    world.run(6 * M);
    assert_eq!(world.holders().len(), 1);
}

#[test]
fn duplicated_and_late_requests_to_take_over_are_ignored() {
    let mut world = World::new(3);
    world.elect(1);
    world.with_paxos(1, |paxos, _| paxos.transfer(wombat_proto::ReplicaId(2))).unwrap();
    let asked = world.take(1, 2);
    for message in &asked {
        world.inject(1, 2, message.clone());
    }
    world.settle();
    assert_eq!(world.masters(), [2]);
    let ballot = world.paxos(2).ballot();
    for message in &asked {
        world.inject(1, 2, message.clone());
    }
    world.settle();
    assert_eq!((world.masters(), world.paxos(2).ballot()), (vec![2], ballot));
}

#[test]
fn master_below_a_voters_promise_takes_a_higher_ballot() {
    let mut world = World::new(3);
    world.elect(1);
    world.run(M);
    let before = world.paxos(1).ballot();
    // 3 has promised more to a candidate of whom nobody has heard since.
    world.connect_only(&[(1, 2)]);
    world.run(3 * M);
    let mut ballot = before;
    (ballot.round, ballot.replica) = (before.round + 5, wombat_proto::ReplicaId(2));
    let above = world.paxos(3).chosen();
    world.inject(
        2,
        3,
        Message::Prepare { ballot, above, released: wombat_proto::Ballot::ZERO, everyone: false },
    );
    assert_eq!(world.paxos(3).ballot(), ballot);
    world.lose_all();
    world.heal();
    // The master cannot have its vote back but by more; the leases of the others do not stand in its own way.
    world.run(M / 2);
    assert_eq!(world.holders(), [1]);
    assert!(world.paxos(1).ballot() > ballot);
    assert_eq!(world.paxos(3).ballot(), world.paxos(1).ballot());
}
