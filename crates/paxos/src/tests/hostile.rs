//! Whatever a message says, a replica does not fall over it.

use super::world::{M, World, members};
use crate::{Mark, Message};
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;
use core::time::Duration;
use proptest::prelude::*;
use wombat_proto::{Accepted, Ballot, ReplicaId, Slot, Value};

/// Numbers near what a cell uses, and those at which arithmetic ends.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => 0u64..24,
        1 => Just(u64::MAX),
        1 => Just(u64::MAX - 1),
        1 => Just(1 << 48),
        1 => Just((1 << 48) - 1),
        1 => any::<u64>(),
    ]
}

fn slot() -> impl Strategy<Value = Slot> {
    number().prop_map(Slot)
}

fn mark() -> impl Strategy<Value = Mark> {
    (0u32..3, number()).prop_map(|(life, number)| Mark { life, number })
}

fn returned() -> impl Strategy<Value = (Option<Slot>, Option<u64>, Slot)> {
    (prop::option::of(slot()), prop::option::of(number()), slot())
}

fn ballot() -> impl Strategy<Value = Ballot> {
    (number(), 0u32..5, 0u32..3).prop_map(|(round, replica, incarnation)| Ballot {
        round,
        replica: ReplicaId(replica),
        incarnation,
    })
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Noop),
        Just(Value::Command(Bytes::from_static(b"strange"))),
        prop_oneof![
            Just(members(&[1, 2, 3], &[4])),
            Just(members(&[1], &[])),
            Just(members(&[2, 3, 4], &[])),
            Just(members(&[5], &[6])),
        ]
        .prop_map(Value::Members),
    ]
}

fn accepted() -> impl Strategy<Value = Vec<Accepted>> {
    let one = (slot(), ballot(), value()).prop_map(|(slot, ballot, value)| Accepted { slot, ballot, value });
    prop::collection::vec(one, 0..6)
}

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![3 => Just(M), 1 => Just(Duration::ZERO), 1 => Just(Duration::MAX)]
}

fn message() -> impl Strategy<Value = Message> {
    let bytes = || Just(Bytes::from_static(b"chunk"));
    prop_oneof![
        (number(), slot(), any::<bool>()).prop_map(|(round, chosen, everyone)| Message::Ask {
            round,
            chosen,
            everyone
        }),
        (number(), any::<bool>(), ballot(), slot()).prop_map(|(round, granted, promised, chosen)| {
            Message::Answer { round, granted, promised, chosen }
        }),
        (ballot(), slot(), ballot(), any::<bool>()).prop_map(|(ballot, above, released, everyone)| {
            Message::Prepare { ballot, above, released, everyone }
        }),
        (ballot(), slot(), accepted(), slot(), any::<(bool, bool)>()).prop_map(
            |(ballot, above, accepted, through, (complete, restored))| Message::Promise {
                ballot,
                above,
                accepted,
                through,
                complete,
                restored
            }
        ),
        (ballot(), slot(), slot(), prop::collection::vec(value(), 0..6), slot()).prop_map(
            |(ballot, base, first, values, chosen)| Message::Accept {
                ballot,
                base,
                first,
                values: values.into(),
                chosen
            }
        ),
        (ballot(), slot()).prop_map(|(ballot, through)| Message::Accepted { ballot, through }),
        (ballot(), slot(), number(), duration(), slot(), slot(), prop::option::of(mark()), returned())
            .prop_map(
                |(
                    ballot,
                    base,
                    sequence,
                    lease,
                    chosen,
                    kept_after,
                    mark,
                    (barrier, reinstates, acknowledged),
                )| {
                    Message::Heartbeat {
                        ballot,
                        base,
                        sequence,
                        lease,
                        chosen,
                        kept_after,
                        mark,
                        barrier,
                        reinstates,
                        acknowledged,
                    }
                }
            ),
        (ballot(), number(), slot(), mark(), slot()).prop_map(
            |(ballot, sequence, chosen, mark, received)| Message::Granted {
                ballot,
                sequence,
                chosen,
                mark,
                received
            }
        ),
        ballot().prop_map(|promised| Message::Refused { promised }),
        slot().prop_map(|above| Message::Fetch { above }),
        (accepted(), slot()).prop_map(|(chosen, through)| Message::Learn { chosen, through }),
        slot().prop_map(|snapshot| Message::Truncated { snapshot }),
        (slot(), any::<u32>()).prop_map(|(snapshot, index)| Message::FetchChunk { snapshot, index }),
        (slot(), any::<u32>(), Just(false), bytes())
            .prop_map(|(snapshot, index, last, bytes)| { Message::Chunk { snapshot, index, last, bytes } }),
        (ballot(), any::<u32>()).prop_map(|(ballot, stalls)| Message::TakeOver { ballot, stalls }),
        number().prop_map(|number| Message::Restored { number }),
    ]
}

/// What a message is about is made to fit what the replica is at: else most would be thrown away at once.
fn fit(message: &mut Message, own: Ballot, from: &mut u32) {
    match message {
        Message::Promise { ballot, .. }
        | Message::Accepted { ballot, .. }
        | Message::Granted { ballot, .. } => {
            *ballot = own;
        }
        Message::Prepare { ballot, .. }
        | Message::Accept { ballot, .. }
        | Message::Heartbeat { ballot, .. } => {
            *from = ballot.replica.0;
        }
        Message::Answer { round, promised, .. } => (*round, *promised) = (own.round, own),
        Message::TakeOver { ballot, .. } => (*ballot, *from) = (own, own.replica.0),
        _ => {}
    }
}

/// The roles that replica 1 can be in.
fn world_of(role: u8) -> World {
    let mut world = World::with(if role == 5 { 1 } else { 3 }, |config| config.window = 4);
    match role {
        0 => world.elect(2),    // It follows.
        1 => world.pass(3 * M), // It waits.
        2 => {
            world.pass(3 * M); // It asks.
            world.tick(1);
        }
        3 => {
            world.pass(3 * M); // It prepares.
            world.tick(1);
            for other in [2, 3] {
                world.deliver(1, other);
                world.deliver(other, 1);
            }
        }
        4 => {
            world.elect(1); // It leads, with something open.
            world.propose(1, "open").unwrap();
        }
        5 => world.elect(1), // It is alone.
        _ => world.join(1),  // It knows nobody.
    }
    world.lose_all();
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_message_makes_a_replica_fall_over(
        role in 0u8..7,
        steps in prop::collection::vec((1u32..5, message(), any::<bool>(), 0u8..6), 1..24),
    ) {
        let mut world = world_of(role);
        world.trusting = false; // What liars say to be chosen is of no interest.
        for (mut from, mut message, fits, then) in steps {
            if fits {
                let own = world.paxos(1).ballot();
                fit(&mut message, own, &mut from);
            }
            world.inject(from, 1, message);
            match then {
                0 => world.sync(1),
                1 => {
                    world.pass(M / 8);
                    world.tick(1);
                }
                2 => {
                    world.pass(3 * M);
                    world.tick(1);
                }
                3 => {
                    let _refused = world.propose(1, "mine");
                    let _refused = world.with_paxos(1, |paxos, _| paxos.transfer(ReplicaId(2)));
                }
                _ => {}
            }
            let _looked_at = (world.paxos(1).status(), world.paxos(1).next_deadline());
            world.lose_all();
        }
    }
}
