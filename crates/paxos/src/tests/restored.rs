//! Replicas whose disks are copies: backups that were put back, cells that were moved.

use super::world::{Disk, M, World, among, command};
use crate::{Message, Standing};
use wombat_proto::{Error, ReplicaId};

/// Long enough for a candidacy, with the silence after a restart, to begin and to end.
const LONG: u32 = 12;

fn has_no_vote(world: &World, id: u32) -> bool {
    world.paxos(id).status().standing == Standing::Restored
}

/// Replica 3 is down. "kept" is chosen by 1 and 2, whose disk is then replaced by an older copy.
fn rolled_back_with_one_down() -> World {
    let mut world = World::new(3);
    world.elect(1);
    world.kill(3);
    let copy = world.backup(2);
    world.propose(1, "kept").unwrap();
    world.settle();
    assert_eq!(world.commands(1), ["kept"]);
    world.kill(1);
    world.put_back(2, &copy);
    world.start(3);
    world
}

/// "kept" is chosen by 1 and 2 alone, after `copy` was made of the disk of 2.
fn kept_without_3(copy: impl FnOnce(&mut World) -> Disk) -> (World, Disk) {
    let mut world = World::new(3);
    world.elect(1);
    let copy = copy(&mut world);
    world.cut(1, 3);
    world.propose(1, "kept").unwrap();
    world.settle();
    assert_eq!(world.commands(1), ["kept"], "by 1 and 2 alone");
    (world, copy)
}

#[test]
fn a_quorum_with_a_rolled_back_replica_does_not_count() {
    let mut world = rolled_back_with_one_down();
    world.run(LONG * M);
    assert!(world.masters().is_empty(), "2 and 3 do not know what 1 and 2 have chosen");
    assert!(has_no_vote(&world, 2));
    world.start(1);
    world.run(LONG * M);
    assert!(world.commands(3).contains(&"kept".into()), "{:?}", world.commands(3));
    assert_eq!(world.holders().len(), 1);
}

#[test]
fn a_rolled_back_replica_votes_again_once_it_has_learned() {
    let mut world = rolled_back_with_one_down();
    world.start(1);
    world.run(LONG * M);
    let master = world.masters()[0];
    // What reinstates it is an entry after the master's first.
    world.propose(master, "later").unwrap();
    world.run(M);
    assert!(!has_no_vote(&world, 2) && !world.host(2).disk.is_copy());
    world.kill(1);
    world.run(LONG * M);
    assert_eq!(world.holders().len(), 1, "2 and 3 are a quorum again");
    for id in [2, 3] {
        assert_eq!(world.commands(id), ["kept", "later"]);
    }
}

/// The master has never been away. It counted on what the rolled-back replica had accepted before: it has to take
/// a ballot that does not, before that replica may vote.
#[test]
fn a_master_takes_a_new_ballot_for_a_rolled_back_replica() {
    let (mut world, copy) = kept_without_3(|world| world.backup(2));
    let before = world.paxos(1).ballot();
    world.put_back(2, &copy);
    world.heal();
    world.run(LONG * M);
    assert_eq!(world.masters(), [1]);
    assert!(world.paxos(1).ballot() > before);
    world.propose(1, "later").unwrap();
    world.run(M);
    assert!(!has_no_vote(&world, 2));
    world.kill(1);
    world.connect_only(&among(&[2, 3]));
    world.run(LONG * M);
    assert_eq!(world.commands(2), ["kept", "later"]);
    assert_eq!(world.holders().len(), 1);
}

/// A rolled-back replica seeks election itself, with a ballot above the wall clock, and fails. The master that comes
/// then has a lower ballot: it takes one that this replica can follow.
#[test]
fn a_rolled_back_replica_with_a_higher_ballot_is_reinstated() {
    let mut world = World::new(3);
    world.elect(1);
    let copy = world.backup(2);
    world.propose(1, "kept").unwrap();
    world.settle();
    world.put_back(2, &copy);
    world.restart(1);
    world.restart(3);
    world.lose(|message| matches!(message, Message::Prepare { ballot, .. } if ballot.round >= 1_000_000));
    world.with_paxos(2, |paxos, _| paxos.set_wall_clock(1_000_000));
    world.pass(LONG * M);
    world.tick(2);
    world.settle();
    assert_eq!(world.paxos(2).ballot().round, 1_000_000, "it was to seek election");
    world.lose(|_| false);
    world.cut(2, 1);
    world.cut(2, 3);
    world.run(LONG * M);
    let master = world.masters()[0];
    assert!(world.paxos(master).ballot().round < 1_000_000);
    world.heal();
    world.run(LONG * M);
    let master = world.masters()[0];
    assert!(has_no_vote(&world, 2), "what reinstates it is an entry after the master's first");
    world.propose(master, "later").unwrap();
    world.run(M);
    assert!(!has_no_vote(&world, 2));
    assert_eq!(world.commands(2), ["kept", "later"]);
}

/// Nothing on the disk shows that it was put back. The master knows what this replica has acknowledged.
#[test]
fn a_replica_with_less_than_it_acknowledged_loses_its_vote() {
    let (mut world, copy) = kept_without_3(|world| world.unmarked_backup(2));
    world.put_back(2, &copy);
    world.cut(2, 3);
    world.run(M / 2);
    assert!(has_no_vote(&world, 2) && world.host(2).disk.is_copy());
    // It does not elect one that has never known the value.
    world.kill(1);
    world.heal();
    world.run(LONG * M);
    assert!(world.masters().is_empty());
    world.start(1);
    world.run(LONG * M);
    let master = world.masters()[0];
    world.propose(master, "later").unwrap();
    world.run(M);
    assert!(!has_no_vote(&world, 2) && !world.host(2).disk.is_copy());
    assert_eq!(world.commands(2), ["kept", "later"]);
}

#[test]
fn a_replica_that_restarts_keeps_its_vote() {
    let mut world = World::new(3);
    world.elect(1);
    for text in ["a", "b", "c"] {
        world.propose(1, text).unwrap();
        world.settle();
        world.restart(2);
        world.run(M / 2);
        assert!(!has_no_vote(&world, 2));
    }
    // One that has everything from a snapshot, and none of it in its log.
    world.snapshot(2);
    world.restart(2);
    world.run(M);
    assert!(!has_no_vote(&world, 2));
}

/// Until it knows what the master's ballot is built on it accepts, and promises nothing to anyone else.
#[test]
fn a_replica_that_has_not_caught_up_elects_nobody() {
    let mut world = World::new(3);
    world.elect(1);
    let copy = world.backup(2);
    for number in 0..3 {
        world.propose(1, &alloc::format!("kept {number}")).unwrap();
    }
    world.cut(1, 3);
    world.settle();
    world.put_back(2, &copy);
    world.heal();
    // It follows the master, but what was chosen is late.
    world.lose(|message| matches!(message, Message::Learn { .. } | Message::Accept { .. }));
    world.run(LONG * M);
    assert!(has_no_vote(&world, 2));
    world.kill(1);
    world.run(LONG * M);
    assert!(world.masters().is_empty());
}

#[test]
fn a_cell_of_copies_waits_for_every_voter() {
    let mut world = World::new(3);
    world.elect(1);
    world.propose(1, "kept").unwrap();
    world.settle();
    let copies: alloc::vec::Vec<_> = (1..=3).map(|id| world.backup(id)).collect();
    world.propose(1, "since").unwrap();
    world.settle();
    for id in 1..=3 {
        world.kill(id);
        world.host(id).applied.clear();
    }
    world.chosen.retain(|_, value| *value != command("since")); // It is lost with all of them.
    world.put_back(1, &copies[0]);
    world.put_back(2, &copies[1]);
    world.run(LONG * M);
    assert!(world.masters().is_empty(), "3 may know more than 1 and 2");
    world.put_back(3, &copies[2]);
    world.run(LONG * M);
    let master = world.masters()[0];
    assert!(world.paxos(master).leads_from_copies());
    world.propose(master, "later").unwrap();
    world.run(M);
    assert_eq!(world.commands(master), ["kept", "later"]);
    // All vote again: two are enough.
    assert!((1..=3).all(|id| !has_no_vote(&world, id)));
    world.kill(master);
    world.run(LONG * M);
    assert_eq!(world.holders().len(), 1);
    assert!(!world.paxos(world.masters()[0]).leads_from_copies());
}

/// Copies of different ages: the one that knows the most counts.
#[test]
fn a_cell_of_copies_goes_on_from_the_newest() {
    let mut world = World::new(3);
    world.elect(1);
    let oldest = world.backup(1);
    world.propose(1, "kept").unwrap();
    world.settle();
    let newest = world.backup(2);
    for (id, copy) in [(1, &oldest), (2, &newest), (3, &oldest)] {
        world.put_back(id, copy);
    }
    world.run(LONG * M);
    assert_eq!(world.commands(world.masters()[0]), ["kept"]);
}

#[test]
fn a_copy_beside_a_majority_of_originals_restores_nothing() {
    let mut world = World::new(3);
    world.elect(1);
    let copy = world.backup(3);
    for id in 1..=3 {
        world.kill(id);
    }
    world.put_back(3, &copy);
    world.start(1);
    world.start(2);
    world.run(LONG * M);
    assert!(!world.paxos(world.masters()[0]).leads_from_copies(), "1 and 2 have lost nothing");
}

#[test]
fn a_copy_of_a_sole_voter_serves_at_once() {
    let mut world = World::new(1);
    world.elect(1);
    let copy = world.backup(1);
    world.put_back(1, &copy);
    world.tick(1);
    world.settle();
    assert_eq!(world.masters(), [1]);
    assert!(world.paxos(1).leads_from_copies());
    world.propose(1, "later").unwrap();
    world.settle();
    assert!(!world.host(1).disk.is_copy());
}

/// A replica whose disk is a copy is asked to take over: it has no vote, so it does not.
#[test]
fn a_copy_does_not_take_over() {
    let mut world = World::new(3);
    world.elect(1);
    let copy = world.backup(2);
    world.put_back(2, &copy);
    world.lose(|message| matches!(message, Message::Restored { .. }));
    world.run(2 * M);
    let ballot = world.paxos(1).ballot();
    world.inject(1, 2, Message::TakeOver { ballot, stalls: 0 });
    world.settle();
    assert!(has_no_vote(&world, 2));
    assert!(matches!(world.propose(2, "no"), Err(Error::NotMaster { .. })));
}

/// The epochs of a restored cell are later than all that the original had after the backup, because no round is below
/// the wall clock, though the copy does not know of them.
#[test]
fn rounds_grow_with_the_wall_clock() {
    let mut world = World::new(1);
    let round_at = |world: &mut World, wall_ms| {
        world.with_paxos(1, |paxos, _| paxos.set_wall_clock(wall_ms));
        world.elect(1);
        world.paxos(1).ballot().round
    };
    let copy = world.backup(1);
    assert_eq!(round_at(&mut world, 1000), 1000);
    world.put_back(1, &copy);
    assert_eq!(round_at(&mut world, 2000), 2000);
    // A clock that was set back: still later than what is known.
    world.restart(1);
    assert_eq!(round_at(&mut world, 1500), 2001);
    // One that cannot be right.
    world.restart(1);
    assert_eq!(round_at(&mut world, u64::MAX), 2002);
}

/// A replica acknowledges the base of a new master before it has learned what was chosen up to there: it has lost
/// nothing.
#[test]
fn replica_behind_the_base_of_a_new_master_keeps_its_vote() {
    let mut world = World::new(3);
    world.elect(1);
    world.connect_only(&[(1, 2)]);
    world.propose(1, "missed by 3").unwrap();
    world.run(M / 4);
    world.with_paxos(1, |paxos, _| paxos.transfer(ReplicaId(2))).unwrap();
    world.settle();
    assert_eq!(world.masters(), [2]);
    world.heal();
    world.lose(|message| matches!(message, Message::Learn { .. } | Message::Accept { .. }));
    world.run(M);
    assert!(world.commands(3).is_empty(), "3 was to know nothing yet");
    assert!(!has_no_vote(&world, 3));
}
