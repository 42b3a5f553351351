//! Election, phase 1 and phase 2, step by step.

use super::world::{M, World, among, command};
use crate::{Message, Outcome, Standing};
use alloc::vec::Vec;
use alloc::{format, vec};
use wombat_proto::{Error, Slot, Value};

#[test]
fn candidate_elected_by_quorum_proposes_first_command() {
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
fn value_in_memory_only_is_not_chosen() {
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
fn value_on_other_disks_of_a_quorum_is_chosen() {
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
fn gap_found_by_phase_1_is_filled_with_a_noop() {
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
fn value_chosen_by_a_dead_master_survives() {
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
fn full_window_refuses_more_proposals() {
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
fn bytes_in_flight_beyond_the_limit_are_refused() {
    let mut world = World::with(3, |config| config.bytes_in_flight = 10);
    world.elect(1);
    world.propose(1, "eight by").unwrap();
    assert!(matches!(world.propose(1, "tes"), Err(Error::Overloaded { .. })));
    world.propose(1, "it").unwrap();
}

#[test]
fn proposer_learns_outcomes_of_its_former_proposals() {
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
