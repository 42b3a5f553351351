//! Round trips: a master lease that outlasts them, and values that are lost on the way.

use super::world::{M, World};
use crate::{Config, Message};
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::{Ballot, ReplicaId, Slot};

const STEP: Duration = Duration::from_millis(10);

/// Time passes, and every message takes so long.
fn run_far(world: &mut World, time: Duration, one_way: Duration) {
    let (mut now, mut under_way) = (Duration::ZERO, Vec::new());
    while now < time {
        world.pass(STEP);
        now += STEP;
        for id in world.up() {
            let clock = world.clock(id);
            if world.paxos(id).next_deadline().is_some_and(|due| due <= clock) {
                world.tick(id);
            }
            world.sync(id);
        }
        under_way.extend(world.wires().iter().cloned().map(|message| (now + one_way, message)));
        world.lose_all();
        let (due, rest): (Vec<_>, Vec<_>) = under_way.into_iter().partition(|(at, _)| *at <= now);
        under_way = rest;
        due.into_iter().for_each(|(_, (from, to, message))| world.inject(from, to, message));
    }
}

fn far_apart(longest: Duration) -> World {
    World::with(3, |config: &mut Config| {
        (config.longest_lease, config.patience) = (longest, 4 * M);
        (config.resend, config.heartbeat) = (M, M / 8);
    })
}

/// A round trip is longer than the lease that is configured. The master asks for one that outlasts it.
#[test]
fn lease_is_lengthened_beyond_the_round_trip() {
    let mut world = far_apart(10 * M);
    let round_trip = M * 5 / 4;
    run_far(&mut world, 30 * M, round_trip / 2);
    let holders = world.holders();
    let all: Vec<_> = world.up().into_iter().map(|id| world.paxos(id).status()).collect();
    assert_eq!(holders.len(), 1, "nobody holds a lease: {all:?}");
    let status = world.paxos(holders[0]).status();
    let measured = status.round_trip.unwrap();
    assert!(measured.abs_diff(round_trip) < M / 8, "{measured:?} instead of {round_trip:?}");
    assert_eq!(status.lease, 4 * M);
    let ballot = world.paxos(holders[0]).ballot();
    world.propose(holders[0], "a").unwrap();
    run_far(&mut world, 10 * M, round_trip / 2);
    assert_eq!((world.holders(), world.paxos(holders[0]).ballot()), (holders.clone(), ballot));
    assert_eq!(world.commands(holders[0]), ["a"]);
    // The path becomes short again, and so does the lease.
    run_far(&mut world, 10 * M, STEP);
    assert_eq!(world.paxos(holders[0]).status().lease, M);
    assert_eq!(world.holders(), holders);
}

/// The bound holds, even where a lease of that length is of no use.
#[test]
fn lease_is_never_longer_than_its_bound() {
    for longest in [M, 2 * M] {
        let mut world = far_apart(longest);
        let round_trip = M * 5 / 4;
        for _ in 0..10 {
            run_far(&mut world, 3 * M, round_trip / 2);
            assert!(world.holders().is_empty() || longest > round_trip);
            assert!(world.up().into_iter().all(|id| world.paxos(id).status().lease <= longest));
        }
    }
}

/// What a replica granted for long it does not take back when the same master asks for less.
#[test]
fn shorter_grant_does_not_replace_a_longer_one() {
    let mut world = World::new(3);
    world.elect(1);
    world.run(M);
    let ballot = world.paxos(1).ballot();
    world.cut(1, 2);
    for (sequence, lease) in [(1000, 4 * M), (1001, M)] {
        let (base, chosen, kept_after) = (Slot(0), Slot(0), Slot(0));
        let heartbeat = Message::Heartbeat {
            ballot,
            base,
            sequence,
            lease,
            chosen,
            kept_after,
            mark: None,
            barrier: None,
            reinstates: None,
            acknowledged: Slot(0),
        };
        world.inject(1, 2, heartbeat);
        world.sync(2);
    }
    world.pass(2 * M);
    assert_eq!(world.paxos(2).bound_to(), Some(ReplicaId(1)));
    let foreign = Ballot { round: ballot.round + 1, replica: ReplicaId(3), ..ballot };
    world.inject(
        3,
        2,
        Message::Prepare { ballot: foreign, above: Slot(1), released: Ballot::ZERO, everyone: false },
    );
    assert_eq!(world.paxos(2).ballot(), ballot);
    world.pass(2 * M);
    world.tick(2);
    assert_eq!(world.paxos(2).bound_to(), None);
}

/// A value is lost. The grant of a later heartbeat says so, long before the master would send it again unasked.
#[test]
fn lost_value_is_sent_again_after_two_heartbeats() {
    let mut world = World::with(3, |config| config.resend = 8 * M);
    world.elect(1);
    world.run(M);
    world.lose_values(1, &[2, 3]);
    world.propose(1, "a").unwrap();
    world.heal();
    world.run(M / 2);
    assert_eq!(world.commands(1), ["a"]);
}

/// A large value may only be slow: it is not sent again and again while it is under way.
#[test]
fn large_value_is_not_sent_again_with_every_heartbeat() {
    let mut world = World::with(3, |config| config.resend = 8 * M);
    world.elect(1);
    world.run(M);
    world.lose_values(1, &[2, 3]);
    let large: alloc::string::String = vec!["x"; 5000].concat();
    world.propose(1, &large).unwrap();
    world.heal();
    world.run(M / 2);
    assert!(world.commands(1).is_empty());
    world.run(8 * M);
    assert_eq!(world.commands(1).len(), 1);
}
