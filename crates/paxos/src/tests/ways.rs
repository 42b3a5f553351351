//! What the agreement does, told step by step: how it is meant to be read, and held to.

use super::world::{M, World, among, command, members};
use crate::{Message, Outcome, Standing};
use alloc::vec::Vec;
use alloc::{format, vec};
use core::time::Duration;
use wombat_proto::{Error, Slot, Value};

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

// ---- Election and phase 2 ----

#[test]
fn election_and_the_first_command() {
    let mut world = World::new(3);
    world.pass(3 * M);
    // Pre-vote: 1 asks whether it would be elected.
    world.tick(1);
    assert!(matches!(world.wires()[0], (1, 2, Message::Ask { round: 1, .. })));
    world.deliver(1, 2);
    world.deliver(2, 1);
    // Phase 1: itself and 2 are a quorum, once both promises are durable.
    assert!(matches!(world.take(1, 3)[..], [Message::Ask { .. }, Message::Prepare { .. }]));
    world.deliver(1, 2);
    world.sync(2);
    world.deliver(2, 1);
    assert_eq!(world.paxos(1).status().standing, Standing::Campaigning);
    world.sync(1);
    assert_eq!(world.paxos(1).status().standing, Standing::Leading);
    // It proposes nothing of others before its own first value is chosen.
    assert!(matches!(world.propose(1, "too soon"), Err(Error::NotMaster { .. })));
    world.settle();
    assert_eq!(world.paxos(1).chosen(), Slot(1));
    assert_eq!(world.holders(), [1]);
    assert_eq!(world.propose(1, "first"), Ok(Slot(2)));
    world.settle();
    assert_eq!(world.chosen[&Slot(2)], command("first"));
    // The others hear with the next heartbeat that it is chosen.
    world.run(M / 4);
    assert_eq!(world.commands(3), ["first"]);
}

#[test]
fn nothing_is_chosen_before_a_quorum_has_it_on_disk() {
    let mut world = World::new(3);
    world.elect(1);
    let slot = world.propose(1, "a").unwrap();
    world.deliver(1, 2);
    world.deliver(1, 3);
    // All three have it in memory, the master alone on its disk.
    world.sync(1);
    world.deliver(2, 1);
    world.deliver(3, 1);
    assert!(world.paxos(1).chosen() < slot);
    world.sync(3);
    world.deliver(3, 1);
    assert_eq!(world.paxos(1).chosen(), slot);
}

#[test]
fn the_masters_own_disk_is_not_needed_if_others_make_a_quorum() {
    let mut world = World::new(3);
    world.elect(1);
    world.stick(1, true);
    let slot = world.propose(1, "a").unwrap();
    world.settle();
    assert_eq!(world.paxos(1).chosen(), slot);
    world.restart(1);
    world.stick(1, false);
    world.elect(1);
    world.run(M);
    assert_eq!(world.commands(1), ["a"]);
}

#[test]
fn a_gap_is_filled_with_a_noop() {
    let mut world = World::new(3);
    world.elect(1);
    world.stick(1, true);
    world.propose(1, "lost").unwrap();
    world.lose_all();
    let kept = world.propose(1, "kept").unwrap();
    world.deliver(1, 3);
    world.sync(3);
    world.kill(1);
    world.lose_all();
    // 3 has the second without the first: only a no-op can stand where nothing can have been chosen.
    world.elect(2);
    assert_eq!(world.chosen[&Slot(kept.0 - 1)], Value::Noop);
    assert_eq!(world.chosen[&kept], command("kept"));
}

#[test]
fn what_a_dead_master_had_chosen_survives() {
    let mut world = World::new(5);
    world.elect(1);
    let slot = world.propose(1, "a").unwrap();
    // 2 and 3 have it: with 1 that is a quorum. Nobody but 1 knows.
    for other in [2, 3] {
        world.deliver(1, other);
        world.sync(other);
        world.deliver(other, 1);
    }
    world.sync(1);
    assert_eq!(world.paxos(1).chosen(), slot);
    world.kill(1);
    world.lose_all();
    world.kill(2);
    // 4 and 5 have never heard of it.
    world.elect(4);
    assert_eq!(world.chosen[&slot], command("a"));
    assert_eq!(world.commands(4), ["a"]);
}

#[test]
fn a_full_window_refuses_more() {
    let mut world = World::with(3, |config| config.window = 4);
    world.elect(1);
    for n in 0..4 {
        world.propose(1, &format!("{n}")).unwrap();
    }
    assert!(matches!(world.propose(1, "5th"), Err(Error::Overloaded { .. })));
    world.settle();
    world.propose(1, "5th").unwrap();
    world.settle();
    world.run(M / 4);
    assert_eq!(world.commands(2), ["0", "1", "2", "3", "5th"]);
}

#[test]
fn too_many_bytes_in_flight_are_refused() {
    let mut world = World::with(3, |config| config.bytes_in_flight = 10);
    world.elect(1);
    world.propose(1, "eight by").unwrap();
    assert!(matches!(world.propose(1, "tes"), Err(Error::Overloaded { .. })));
    world.propose(1, "it").unwrap();
}

#[test]
fn the_proposer_is_told_what_became_of_its_proposals() {
    let mut world = World::new(3);
    world.elect(1);
    world.stick(1, true); // Its own disk does not decide here.
    let first = world.propose(1, "reaches 2").unwrap();
    world.deliver(1, 2);
    world.sync(2);
    let second = world.propose(1, "reaches nobody").unwrap();
    world.lose_all();
    // 1 is cut off. 2 is elected by 3, finds the first, and puts something else in the second's slot.
    world.cut(1, 2);
    world.cut(1, 3);
    world.run(3 * M);
    let master = world.masters()[0];
    world.propose(master, "another").unwrap();
    world.settle();
    world.heal();
    world.run(M);
    assert_eq!(world.host(1).ended, vec![(first, Outcome::Chosen), (second, Outcome::Lost)]);
}

#[test]
fn duplicated_and_late_messages_change_nothing() {
    // All that was ever said between the replicas is said again, by turns and in the wrong order.
    let mut world = World::new(3);
    let mut said = Vec::new();
    for (round, master) in [(0, 1), (1, 2), (2, 3)] {
        world.pass(3 * M);
        world.tick(master);
        for step in 0..40 {
            if step == 20 {
                let _refused = world.propose(master, &format!("command {round}"));
            }
            for (from, to) in among(&[1, 2, 3]).into_iter().flat_map(|(a, b)| [(a, b), (b, a)]) {
                let messages = world.take(from, to);
                said.extend(messages.iter().map(|message| (from, to, message.clone())));
                for message in messages {
                    world.inject(from, to, message);
                }
            }
            for id in [1, 2, 3] {
                world.sync(id);
            }
        }
    }
    world.lose_all();
    assert_eq!(world.masters(), [3]);
    let (ballot, chosen) = (world.paxos(3).ballot(), world.chosen.clone());
    for (from, to, message) in said.iter().chain(said.iter().rev()) {
        world.inject(*from, *to, message.clone());
        world.take(*to, *from);
    }
    world.settle();
    assert_eq!(world.masters(), [3]);
    assert_eq!((world.paxos(3).ballot(), &world.chosen), (ballot, &chosen));
    world.run(M);
    assert_eq!(world.commands(1), ["command 0", "command 1", "command 2"]);
}

// ---- Catching up ----

#[test]
fn a_follower_catches_up_by_the_log() {
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
fn a_follower_catches_up_by_a_snapshot() {
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
fn a_candidate_that_is_far_behind_learns_first() {
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

// ---- Partitions ----

#[test]
fn who_is_cut_off_does_not_depose_the_master_when_it_comes_back() {
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
fn quorum_loss_settles_on_the_one_with_a_quorum() {
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
fn constrained_election_settles_on_the_one_with_a_quorum() {
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
fn a_chain_settles_on_one_master() {
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
fn a_master_that_is_heard_but_does_not_hear_steps_down() {
    let mut world = World::new(3);
    world.elect(1);
    for other in [2, 3] {
        world.cut_way(other, 1);
    }
    // Its heartbeats go on for a lease; when it steps down the others can elect.
    world.run(5 * M);
    assert!(matches!(world.holders()[..], [2 | 3]));
}

// ---- The lease ----

#[test]
fn the_lease_lasts_from_the_sending_of_a_heartbeat_on_the_slowest_clock() {
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
fn a_grant_binds_for_the_whole_lease_from_receipt() {
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
fn a_fast_clock_at_a_voter_does_not_end_a_slow_masters_lease_too_late() {
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
fn after_a_restart_a_replica_keeps_silence_for_the_longest_lease_it_may_have_granted() {
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
fn a_replica_that_never_granted_a_lease_is_not_silent() {
    let mut world = World::new(3);
    world.run(M / 2);
    assert_eq!(world.holders().len(), 1);
}

#[test]
fn a_master_without_a_quorum_steps_down_when_its_lease_is_over() {
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
fn a_master_that_stalls_for_longer_than_its_lease_serves_nobody_until_it_is_granted_another() {
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
fn a_master_whose_connections_break_is_followed_when_its_lease_ends_and_not_before() {
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
fn a_master_of_which_nothing_is_heard_is_given_time() {
    let mut world = patient();
    world.kill(1);
    world.run(7 * M / 2);
    assert!(world.holders().is_empty());
    world.run(2 * M);
    assert_eq!(world.holders().len(), 1);
}

#[test]
fn a_broken_connection_costs_no_master_its_office() {
    let mut world = patient();
    for _ in 0..20 {
        for id in [2, 3] {
            world.with_paxos(id, |paxos, now| paxos.lost(now, wombat_proto::ReplicaId(1)));
        }
        world.run(M / 2);
        assert_eq!((world.holders(), world.paxos(2).master()), (vec![1], Some(wombat_proto::ReplicaId(1))));
    }
}

// ---- Handing over ----

#[test]
fn a_transfer_does_not_wait_for_the_lease_to_end() {
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
fn a_transfer_to_someone_who_is_not_there_ends_with_an_election() {
    let mut world = World::new(3);
    world.elect(1);
    world.kill(2);
    world.propose(1, "a").unwrap();
    world.with_paxos(1, |paxos, _| paxos.transfer(wombat_proto::ReplicaId(2))).unwrap();
    world.run(6 * M);
    assert_eq!(world.holders().len(), 1);
}

#[test]
fn a_request_to_take_over_that_comes_twice_or_late_is_ignored() {
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
fn a_master_that_a_voter_cannot_follow_takes_a_higher_ballot() {
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

// ---- Members ----

#[test]
fn a_learner_joins_and_takes_a_vote() {
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
fn a_wiped_replica_comes_back_under_a_fresh_id() {
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
fn a_master_that_has_lost_its_vote_hands_over() {
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
fn until_a_change_is_known_former_members_are_needed_too() {
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
