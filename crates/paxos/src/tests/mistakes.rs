//! Mistakes that the agreement has made once.

use super::world::{M, World, members};
use crate::{Message, Standing};
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::{ReplicaId, Value};

/// A cell of one whose clients are silent: the change of its members comes into force all the same.
#[test]
fn a_sole_voter_without_clients_finishes_a_change() {
    let mut world = World::new(1);
    world.elect(1);
    world.join(2);
    world.change(1, members(&[1], &[2])).unwrap();
    world.run(2 * M);
    assert!(world.paxos(1).status().members_in_force, "nobody ever says that the change is in force");
    world.change(1, members(&[1, 2], &[])).unwrap();
    world.run(2 * M);
    assert!(world.paxos(1).status().members_in_force);
    assert_eq!(world.holders(), [1]);
}

/// Two candidates ask for the same round at once and both get a quorum of pre-votes. Only one may become
/// master in that round: clients tell masters apart by their epoch.
#[test]
fn a_round_has_one_master() {
    let mut world = World::new(3);
    world.pass(3 * M);
    world.tick(1);
    world.tick(2);
    for (from, to) in [(1, 3), (2, 3), (3, 1), (3, 2)] {
        world.deliver(from, to);
    }
    let late = world.take(2, 3); // Prepare of 2.
    assert!(matches!(late[..], [Message::Prepare { .. }]));
    world.take(2, 1);
    world.take(1, 2);
    // 1 is elected by 3, which does not hear of its lease.
    world.deliver(1, 3);
    world.sync(3);
    world.sync(1);
    world.deliver(3, 1);
    let told = world.take(1, 3).into_iter().filter(|message| !matches!(message, Message::Heartbeat { .. }));
    for message in told.collect::<Vec<_>>() {
        world.inject(1, 3, message);
    }
    world.sync(3);
    world.sync(1);
    world.deliver(3, 1);
    assert_eq!(world.masters(), [1]);
    world.kill(1);
    // Now the other one gets through to 3.
    world.inject(2, 3, late[0].clone());
    world.settle();
    world.run(3 * M);
    assert_eq!(world.holders().len(), 1);
}

/// Replica 2 is behind, 3 was replaced by 4 and still runs. Together they elect 2 by what 2 knows of the
/// members, while 1 has its lease from itself and 4. Until that is over, 2 may not become master to 4.
#[test]
fn a_master_of_former_members_does_not_take_the_lease() {
    let mut world = World::with(3, |config| config.window = 2);
    world.elect(1);
    world.join(4);
    world.change(1, members(&[1, 2, 3], &[4])).unwrap();
    world.run(M);
    // 2 hears nothing any more, and 4 takes the place of 3.
    world.connect_only(&[(1, 3), (1, 4)]);
    world.change(1, members(&[1, 2, 4], &[])).unwrap();
    world.run(3 * M);
    assert!(world.paxos(1).status().members_in_force);
    // Nobody tells 2 what was chosen meanwhile.
    world.connect_only(&[(1, 4), (2, 3), (2, 4)]);
    world.lose(|message| matches!(message, Message::Learn { .. }));
    while world.paxos(2).status().standing != Standing::Leading {
        world.run(Duration::from_millis(5));
        assert_eq!(world.holders(), [1]);
    }
    world.cut(1, 4);
    // 1 is alone now, and its lease is over before 2 has one.
    world.run(3 * M);
    assert!(matches!(world.holders()[..], [2 | 4]));
    world.heal();
    world.run(3 * M);
    assert!(matches!(world.holders()[..], [2 | 4]));
}

/// A replica that keeps silence after a restart, or that has promised more already, refuses its pre-vote. That
/// must not end the campaign of a candidate whom enough others support: one replica that restarts again and
/// again would keep the whole cell without a master.
#[test]
fn one_refusal_of_a_pre_vote_does_not_end_a_campaign() {
    let mut world = World::new(5);
    world.elect(1);
    world.run(M);
    world.kill(1);
    for _ in 0..40 {
        world.restart(5); // Some supervisor does its best.
        world.run(M / 4);
    }
    assert_eq!(world.holders().len(), 1, "nobody leads, though 2, 3 and 4 are well");
}

/// A cell has shrunk to one voter. An old Prepare of a former member, or a former member that was cut off,
/// does not depose it.
#[test]
fn a_sole_voter_is_not_deposed_by_former_members() {
    let mut world = World::with(2, |config| config.window = 2);
    world.elect(1);
    world.propose(1, "a").unwrap();
    world.run(M);
    let mut alone = members(&[1], &[]);
    alone.next_id = 3;
    world.change(1, alone).unwrap();
    world.run(2 * M);
    assert!(world.paxos(1).status().members_in_force);
    let mut ballot = world.paxos(2).ballot();
    (ballot.round, ballot.replica) = (ballot.round + 3, wombat_proto::ReplicaId(2));
    let above = world.paxos(1).chosen();
    world.inject(
        2,
        1,
        Message::Prepare { ballot, above, released: wombat_proto::Ballot::ZERO, everyone: false },
    );
    assert_eq!(world.holders(), [1]);
}

/// Two changes of the members come to light that different masters proposed for neighbouring slots. The second
/// was made for members that are no more: it must not come into force, or an id would be given twice.
#[test]
fn a_change_that_overtakes_another_has_no_effect() {
    let mut world = World::new(3);
    world.elect(1);
    // 1 proposes two commands and a change. Only 3 hears of it; then both are gone.
    world.propose(1, "x").unwrap();
    world.propose(1, "y").unwrap();
    let first = world.change(1, members(&[1, 2, 3], &[4])).unwrap();
    world.take(1, 2);
    world.deliver(1, 3);
    world.sync(3);
    world.kill(3);
    world.restart(1);
    world.lose_all();
    // 1 has lost it all. With 2 it is master again, and makes another change in an earlier slot.
    world.elect(1);
    let mut wanted = members(&[1, 2, 3], &[5]);
    wanted.learners.remove(0);
    wanted.learners.extend([super::world::member(4), super::world::member(5)]);
    let second = world.change(1, wanted.clone()).unwrap();
    assert!(second < first);
    world.deliver(1, 2);
    world.sync(2);
    world.kill(1);
    world.lose_all();
    // The others find both.
    world.start(3);
    world.elect(2);
    world.run(M);
    assert!(matches!(world.chosen[&first], Value::Members(_)));
    assert_eq!(world.paxos(2).configurations().newest(), &wanted);
}

/// A replica whose disk hangs for long does not collect answers without end.
#[test]
fn a_stuck_disk_does_not_fill_the_memory() {
    let mut world = World::new(3);
    world.elect(1);
    world.stick(3, true);
    world.propose(1, "a").unwrap();
    world.settle();
    for _ in 0..40 {
        world.run(M);
    }
    let waiting = world.paxos(3).waiting_messages();
    assert!(waiting < 10, "{waiting} answers wait");
}

/// A learner has promised a higher ballot while it had a vote. It can never follow the master's present one, so
/// it would learn nothing until some later election.
#[test]
fn a_learner_that_promised_more_is_not_left_behind() {
    let mut world = World::new(3);
    world.elect(1);
    world.run(M);
    world.connect_only(&[(1, 2)]);
    world.run(3 * M);
    let mut ballot = world.paxos(1).ballot();
    (ballot.round, ballot.replica) = (ballot.round + 5, wombat_proto::ReplicaId(2));
    let above = world.paxos(3).chosen();
    world.inject(
        2,
        3,
        Message::Prepare { ballot, above, released: wombat_proto::Ballot::ZERO, everyone: false },
    );
    assert_eq!(world.paxos(3).ballot(), ballot);
    world.lose_all();
    world.change(1, members(&[1, 2], &[3])).unwrap();
    world.run(2 * M);
    world.heal();
    world.run(4 * M);
    world.propose(1, "a").unwrap();
    world.run(20 * M);
    assert_eq!(world.commands(3), ["a"]);
}

/// A master that takes a higher ballot has let go of its former lease: a learner, which nobody asks to promise,
/// goes on with it at once.
#[test]
fn a_learner_follows_its_master_to_a_higher_ballot_at_once() {
    let mut world = World::new(3);
    world.elect(1);
    world.join(4);
    world.change(1, members(&[1, 2, 3], &[4])).unwrap();
    world.run(M);
    let mut promised = world.paxos(1).ballot();
    promised.round += 1;
    world.inject(2, 1, Message::Refused { promised });
    world.settle();
    assert_eq!(world.masters(), [1]);
    world.run(M / 4);
    assert_eq!(world.paxos(4).ballot(), world.paxos(1).ballot());
}

/// What a master of an earlier life or ballot has said comes late, to a replica that has promised more since.
#[test]
fn former_masters_are_refused_and_take_nothing_with_them() {
    let mut world = World::new(3);
    world.elect(1);
    world.run(M);
    world.stick(1, true);
    world.propose(1, "late").unwrap();
    world.pass(M / 8);
    world.tick(1);
    let late = [world.take(1, 2), world.take(1, 3)].concat();
    assert!(late.iter().any(|message| matches!(message, Message::Heartbeat { .. })));
    world.kill(1);
    world.elect(2);
    world.run(M);
    for message in &late {
        world.inject(1, 2, message.clone());
        world.inject(1, 3, message.clone());
    }
    world.settle();
    world.run(M);
    assert_eq!(world.holders(), [2]);
    assert!(world.commands(2).is_empty());
}

/// A master by former members finds that the voters of today have dropped from their logs what it would have to
/// ask for. It has to learn that first: a master that holds a lease and cannot go on would be there for ever.
#[test]
fn a_master_that_cannot_get_its_reports_makes_way() {
    let mut world = World::with(3, |config| (config.window, config.log_bytes_kept) = (2, 0));
    world.elect(1);
    world.join(4);
    world.change(1, members(&[1, 2, 3], &[4])).unwrap();
    world.run(M);
    // 2 hears nothing any more, 4 takes the place of 3, and more is chosen.
    world.connect_only(&[(1, 3), (1, 4)]);
    world.change(1, members(&[1, 2, 4], &[])).unwrap();
    world.run(3 * M);
    for n in ["a", "b", "c", "d"] {
        world.propose(1, n).unwrap();
        world.settle();
    }
    world.run(M);
    world.snapshot(4);
    world.kill(1);
    world.connect_only(&[(2, 3), (2, 4)]);
    world.lose(|message| matches!(message, Message::Learn { .. }));
    while world.paxos(2).status().standing != Standing::Leading {
        world.run(Duration::from_millis(5));
    }
    world.heal();
    world.run(20 * M);
    assert_eq!(world.holders().len(), 1, "{:?}", world.paxos(2).status());
}

/// The disk of a master hangs; the others choose without it. What it has not written does not pile up without
/// end, and it does not keep the cell from its work for long.
#[test]
fn a_master_whose_disk_hangs_makes_way() {
    let mut world = World::new(3);
    world.elect(1);
    world.run(M);
    world.stick(1, true);
    for n in 0..1000 {
        if world.propose(1, &alloc::format!("{n}")).is_err() {
            break;
        }
        world.settle();
    }
    assert!(world.host(1).disk_waits() < 100, "{} records wait", world.host(1).disk_waits());
    world.run(6 * M);
    assert!(matches!(world.holders()[..], [2 | 3]));
}

/// The members of a cell change again and again, and whoever was replaced stays up: whatever
/// the order of deaths, leases never meet and the cell comes back.
#[test]
fn a_cell_whose_members_all_change_bears_the_former_ones() {
    let mut world = World::with(3, |config| (config.window, config.log_bytes_kept) = (2, 0));
    world.elect(1);
    let mut voters = alloc::vec![1, 2, 3];
    for new in 4..10 {
        world.run(3 * M);
        let (master, old) = (world.holders()[0], voters.remove(0));
        world.join(new);
        let mut with = [voters.clone(), alloc::vec![old]].concat();
        with.sort_unstable();
        world.change(master, members(&with, &[new])).unwrap();
        world.run(2 * M);
        voters.push(new);
        world.change(master, members(&voters, &[])).unwrap();
        world.run(3 * M);
        let up = world.up();
        world.snapshot(up[new as usize % up.len()]);
        let master = world.holders()[0];
        world.propose(master, &alloc::format!("{new}")).unwrap();
        world.restart(master);
    }
    world.run(4 * M);
    assert_eq!(world.holders().len(), 1);
    assert!(voters.contains(&world.holders()[0]));
    for id in voters {
        assert_eq!(world.paxos(id).chosen(), world.paxos(world.holders()[0]).chosen());
    }
}

/// Every write takes longer than the lease: a master comes all the same.
#[test]
fn the_disk_of_a_whole_cell_may_be_slow() {
    let mut world = World::new(3);
    for id in 1..=3 {
        world.stick(id, true);
    }
    // Every write takes longer than the lease.
    for _ in 0..40 {
        world.run(M + Duration::from_millis(500));
        for id in 1..=3 {
            world.sync(id);
        }
        world.settle();
    }
    assert_eq!(world.masters().len(), 1, "no candidate has so much patience");
}

/// A former master knows more to be chosen than its disk says. It acknowledges to the next one what it so
/// knows, as if it had accepted it, and dies: afterwards it must still know it, because nobody sends it again.
#[test]
fn what_is_acknowledged_as_known_is_known_after_a_crash() {
    let mut world = World::new(3);
    world.elect(1);
    world.run(M);
    // It hands over before a heartbeat has told anyone, or its own disk, that this is chosen.
    world.lose(|message| matches!(message, Message::Heartbeat { .. }));
    world.propose(1, "late").unwrap();
    world.settle();
    world.with_paxos(1, |paxos, _| paxos.transfer(ReplicaId(2))).unwrap();
    world.settle();
    assert_eq!(world.masters(), [2]);
    world.kill(1);
    world.lose(|_| false);
    world.start(1);
    world.run(4 * M);
    assert_eq!(world.paxos(1).chosen(), world.paxos(2).chosen());
}
