//! How a replica that is behind learns what was chosen.

use super::world::{M, World};
use alloc::format;

#[test]
fn follower_behind_catches_up_by_log() {
    let mut world = World::new(3);
    world.elect(1);
    world.kill(3);
    for n in 0..50 {
        world.propose(1, &format!("{n}")).unwrap();
        world.settle();
    }
    // Another master, for which 3 has to learn what lies before its first slot.
    world.restart(1);
    world.start(3);
    world.run(4 * M);
    assert_eq!(world.holders().len(), 1);
    assert_eq!(world.commands(3).len(), 50);
}

#[test]
fn follower_far_behind_catches_up_by_snapshot() {
    let mut world = World::with(3, |config| config.log_bytes_kept = 0);
    world.elect(1);
    world.kill(3);
    for n in 0..50 {
        world.propose(1, &format!("{n}")).unwrap();
        world.settle();
    }
    world.snapshot(1);
    world.propose(1, "after").unwrap();
    world.start(3);
    world.run(2 * M);
    assert_eq!(world.paxos(3).chosen(), world.paxos(1).chosen());
    // What the snapshot holds was not told again.
    assert_eq!(world.commands(3), ["after"]);
}

#[test]
fn candidate_far_behind_learns_before_it_leads() {
    let mut world = World::with(3, |config| config.log_bytes_kept = 0);
    world.elect(1);
    world.kill(3);
    for n in 0..50 {
        world.propose(1, &format!("{n}")).unwrap();
        world.settle();
    }
    world.run(M);
    world.snapshot(1);
    world.snapshot(2);
    world.kill(1);
    world.start(3);
    world.run(5 * M);
    assert_eq!(world.holders().len(), 1);
    assert_eq!(world.paxos(3).chosen(), world.paxos(2).chosen());
}
