//! Changes of members.

use super::world::{M, World, members};
use crate::Standing;
use alloc::format;

#[test]
fn learner_that_caught_up_gets_a_vote() {
    let mut world = World::new(3);
    world.elect(1);
    world.propose(1, "a").unwrap();
    world.join(4);
    world.change(1, members(&[1, 2, 3], &[4])).unwrap();
    // Not two changes at once.
    assert!(world.change(1, members(&[1, 2, 3, 4], &[])).is_err());
    world.run(2 * M);
    assert_eq!(world.commands(4), ["a"]);
    assert_eq!(world.paxos(4).status().standing, Standing::Learning);
    assert!(world.paxos(1).status().members_in_force);
    // It takes the place of 3, which may go for good once that is in force.
    world.change(1, members(&[1, 2, 4], &[])).unwrap();
    world.run(2 * M);
    assert!(world.paxos(1).status().members_in_force);
    world.kill(3);
    world.kill(2);
    world.propose(1, "b").unwrap();
    world.run(M);
    assert_eq!(world.commands(4), ["a", "b"]);
}

#[test]
fn wiped_replica_comes_back_under_a_fresh_id() {
    let mut world = World::with(3, |config| config.log_bytes_kept = 0);
    world.elect(1);
    for n in 0..20 {
        world.propose(1, &format!("{n}")).unwrap();
        world.settle();
    }
    world.kill(3); // Its disk is gone.
    world.snapshot(1);
    world.join(4);
    world.change(1, members(&[1, 2, 3], &[4])).unwrap();
    world.run(2 * M);
    world.change(1, members(&[1, 2, 4], &[])).unwrap();
    world.run(2 * M);
    assert!(world.paxos(1).status().members_in_force);
    // The cell bears the loss of another one.
    world.kill(1);
    world.run(4 * M);
    assert_eq!(world.holders().len(), 1);
}

#[test]
fn master_without_a_vote_hands_over() {
    let mut world = World::new(3);
    world.elect(1);
    world.join(4);
    world.change(1, members(&[1, 2, 3], &[4])).unwrap();
    world.run(2 * M);
    world.change(1, members(&[2, 3, 4], &[])).unwrap();
    world.run(2 * M);
    assert!(matches!(world.holders()[..], [2..=4]));
    assert_eq!(world.paxos(1).status().standing, Standing::Learning);
}

#[test]
fn former_members_are_needed_until_a_change_is_known() {
    let mut world = World::with(3, |config| config.window = 2);
    world.elect(1);
    world.join(4);
    world.change(1, members(&[1, 2, 3], &[4])).unwrap();
    world.run(M);
    // The swap is chosen by 1 and 3; 2 does not hear of it, and 1 dies before 4 does.
    world.connect_only(&[(1, 3)]);
    world.change(1, members(&[1, 2, 4], &[])).unwrap();
    world.settle();
    world.kill(1);
    world.heal();
    world.kill(3);
    // 2 and 4 are a quorum of the new members, but nobody tells them.
    world.run(10 * M);
    assert!(world.holders().is_empty());
    world.start(3);
    world.run(6 * M);
    assert_eq!(world.holders().len(), 1);
    assert!(world.masters() == [2] || world.masters() == [4]);
}
