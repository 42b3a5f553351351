//! The master lease: from when to when it holds, and what it forbids.

use super::world::{M, World};
use crate::{Message, Standing};
use alloc::vec;
use core::time::Duration;

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn lease_lasts_from_sending_on_the_slowest_clock() {
    let mut world = World::new(3);
    world.pass(3 * M);
    world.tick(1);
    world.settle();
    world.pass(M / 8);
    world.tick(1); // A heartbeat.
    let sent = world.clock(1);
    // The answers take their time, which is the master's loss.
    world.pass(millis(100));
    world.settle();
    let rho = world.config.rho;
    assert_eq!(world.paxos(1).status().lease_left, rho.shorten(M) - millis(100));
    let end = sent + rho.shorten(M);
    assert!(world.paxos(1).lease_holds(end - Duration::from_nanos(1)));
    assert!(!world.paxos(1).lease_holds(end));
}

#[test]
fn grant_binds_for_the_whole_lease_from_receipt() {
    let mut world = World::new(3);
    world.elect(1);
    world.pass(M / 8);
    world.tick(1);
    world.pass(millis(100));
    world.settle(); // 2 and 3 grant now.
    world.kill(1);
    let prepare = |world: &mut World| {
        let mut ballot = world.paxos(2).ballot();
        (ballot.round, ballot.replica) = (ballot.round + 1, wombat_proto::ReplicaId(3));
        let above = world.paxos(2).chosen();
        world.inject(
            3,
            2,
            Message::Prepare { ballot, above, released: wombat_proto::Ballot::ZERO, everyone: false },
        );
        world.paxos(2).ballot() == ballot
    };
    world.pass(M - Duration::from_nanos(1));
    assert!(!prepare(&mut world));
    world.pass(Duration::from_nanos(1));
    assert!(prepare(&mut world));
}

#[test]
fn lease_of_a_slow_clock_ends_before_a_fast_voters_grant() {
    // The clocks of master and voters differ by all that they may; in every step, only one holds a lease.
    for (master, others) in [(990, 1010), (1010, 990)] {
        let mut world = World::new(3);
        for (id, rate) in [(1, master), (2, others), (3, others)] {
            world.skew(id, rate);
        }
        world.elect(1);
        world.run(M);
        world.cut_way(1, 2);
        world.cut_way(1, 3);
        world.run(4 * M);
        assert!(matches!(world.holders()[..], [2 | 3]));
    }
}

#[test]
fn replica_restarted_is_silent_for_its_longest_grant() {
    let mut world = World::new(3);
    world.elect(1);
    world.run(M);
    world.kill(3);
    world.restart(2);
    world.kill(1);
    world.start(3);
    // 2 and 3 do not remember whom they granted what.
    let silence = world.config.rho.lengthen(M);
    assert_eq!(silence, Duration::from_nanos(2_000_000_000 * 1010 / 990 + 1));
    world.run(silence - millis(10));
    assert!(world.up().iter().all(|id| world.paxos(*id).status().standing == Standing::Following));
    world.run(M);
    assert_eq!(world.holders().len(), 1);
}

#[test]
fn replica_without_grants_is_not_silent() {
    let mut world = World::new(3);
    world.run(M / 2);
    assert_eq!(world.holders().len(), 1);
}

#[test]
fn master_without_a_quorum_steps_down_after_its_lease() {
    let mut world = World::new(3);
    world.elect(1);
    world.connect_only(&[(2, 3)]);
    world.run(M + millis(10));
    assert!(world.paxos(1).leads().is_none() && world.holders().is_empty());
}

/// Three replicas with more patience than the lease, of which 1 leads and has just heard the others.
fn patient() -> World {
    let mut world = World::with(3, |config| config.patience = 4 * M);
    world.pass(8 * M);
    world.elect(1);
    world
}

#[test]
fn master_paused_beyond_its_lease_serves_after_a_new_grant() {
    let mut world = patient();
    world.propose(1, "a").unwrap();
    world.pass(2 * M); // Nothing runs.
    assert!(world.holders().is_empty());
    world.run(millis(5));
    // Nobody has taken its place, and it never began anew: what it knew is what it knows.
    assert_eq!(world.holders(), [1]);
    assert_eq!(world.commands(1), ["a"]);
}

#[test]
fn master_disconnected_is_replaced_when_its_lease_ends() {
    let mut world = patient();
    world.run(M / 4);
    world.kill(1);
    world.with_paxos(2, |paxos, now| paxos.lost(now, wombat_proto::ReplicaId(1)));
    assert_eq!(world.paxos(2).master(), None, "nobody is sent to who may be dead");
    assert_eq!(world.paxos(3).master(), Some(wombat_proto::ReplicaId(1)));
    world.run(M * 3 / 4);
    assert!(world.holders().is_empty());
    world.run(M * 3 / 4);
    assert_eq!(world.holders(), [2]);
}

#[test]
fn master_without_messages_keeps_office_for_patience() {
    let mut world = patient();
    world.kill(1);
    world.run(7 * M / 2);
    assert!(world.holders().is_empty());
    world.run(2 * M);
    assert_eq!(world.holders().len(), 1);
}

#[test]
fn broken_connection_deposes_no_master() {
    let mut world = patient();
    for _ in 0..20 {
        for id in [2, 3] {
            world.with_paxos(id, |paxos, now| paxos.lost(now, wombat_proto::ReplicaId(1)));
        }
        world.run(M / 2);
        assert_eq!((world.holders(), world.paxos(2).master()), (vec![1], Some(wombat_proto::ReplicaId(1))));
    }
}
