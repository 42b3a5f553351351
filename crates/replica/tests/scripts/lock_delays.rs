//! Lock-delays (P§2.4) that begin together: each runs for itself. All of this the simulator has found.

use crate::world::{Client, LEASE, World, acquire, may_create};
use std::time::Duration;
use wombat_proto::Error;
use wombat_proto::wire::{self, Handle, request::Call};

const SHORT: u32 = 1_000;
const LONG: u32 = 4_000;

fn open(world: &mut World, client: &mut Client, path: &str, lock_delay_ms: u32) -> Handle {
    world.open_with(client, wire::Open { path: path.into(), lock_delay_ms, ..may_create() })
}

fn r#try(world: &mut World, client: &mut Client, handle: Handle) -> Result<(), Error> {
    let attempt = wire::Acquire { handle: Some(handle), r#try: true, ..wire::Acquire::default() };
    world.call(client, Call::Acquire(attempt)).map(drop)
}

fn is_delayed(result: &Result<(), Error>) -> bool {
    matches!(result, Err(Error::LockDelayed { .. }))
}

#[test]
fn of_two_locks_of_one_session_each_has_its_own() {
    let mut world = World::new();
    let mut dies = world.client();
    for (path, lock_delay_ms) in [("/ls/test/long", LONG), ("/ls/test/short", SHORT)] {
        let handle = open(&mut world, &mut dies, path, lock_delay_ms);
        world.call(&mut dies, acquire(handle)).unwrap();
    }
    world.pass(LEASE);
    let mut next = world.client();
    let (long, short) =
        (open(&mut world, &mut next, "/ls/test/long", 0), open(&mut world, &mut next, "/ls/test/short", 0));
    assert!(is_delayed(&r#try(&mut world, &mut next, long)));
    assert!(is_delayed(&r#try(&mut world, &mut next, short)));
    world.pass(Duration::from_millis(SHORT.into()));
    assert!(is_delayed(&r#try(&mut world, &mut next, long)), "I7");
    assert_eq!(r#try(&mut world, &mut next, short), Ok(()));
    world.pass(Duration::from_millis((LONG - SHORT).into()));
    assert_eq!(r#try(&mut world, &mut next, long), Ok(()));
}

#[test]
fn of_two_holders_that_expire_together_the_longer_counts() {
    let mut world = World::new();
    let (mut one, mut other) = (world.client(), world.client());
    for (client, lock_delay_ms) in [(&mut one, SHORT), (&mut other, LONG)] {
        let handle = open(&mut world, client, "/ls/test/lock", lock_delay_ms);
        let shared = wire::Acquire { handle: Some(handle), shared: true, ..wire::Acquire::default() };
        world.call(client, Call::Acquire(shared)).unwrap();
    }
    world.pass(LEASE);
    let mut next = world.client();
    let handle = open(&mut world, &mut next, "/ls/test/lock", 0);
    world.pass(Duration::from_millis((LONG - 1).into()));
    assert!(is_delayed(&r#try(&mut world, &mut next, handle)), "I7");
    world.pass(Duration::from_millis(1));
    assert_eq!(r#try(&mut world, &mut next, handle), Ok(()));
}

#[test]
fn of_a_shared_holder_does_not_keep_a_shared_waiter_from_its_permit() {
    // Found by the property: the waiter sat the delay out, which does not conflict with it (SPEC §4).
    let mut world = World::new();
    let (mut dies, mut next) = (world.client(), world.client());
    let node = Some(wire::NewNode { permits: 1, ..wire::NewNode::default() });
    let path = "/ls/test/lock".into();
    let held = world.open_with(&mut dies, wire::Open { path, lock_delay_ms: LONG, node, ..may_create() });
    let wanted = open(&mut world, &mut next, "/ls/test/lock", 0);
    let shared = |handle| {
        Call::Acquire(wire::Acquire { handle: Some(handle), shared: true, ..wire::Acquire::default() })
    };
    world.call(&mut dies, shared(held)).unwrap();
    let number = world.send(&mut next, shared(wanted));
    world.pass(LEASE / 2);
    world.send(&mut next, Call::KeepAlive(wire::KeepAlive::default()));
    world.pass(LEASE / 2);
    assert!(world.answer(&next, number).unwrap().is_ok());
}

#[test]
fn one_that_has_just_begun_is_not_over_though_a_waiter_expires_with_the_holder() {
    let mut world = World::new();
    // The waiter is the older session: its place in the queue is given up first, and that gives a turn.
    let (mut waits, mut dies) = (world.client(), world.client());
    let held = open(&mut world, &mut dies, "/ls/test/lock", LONG);
    let wanted = open(&mut world, &mut waits, "/ls/test/lock", 0);
    world.call(&mut dies, acquire(held)).unwrap();
    world.send(&mut waits, acquire(wanted));
    world.pass(LEASE / 2);
    let mut next = world.client();
    let handle = open(&mut world, &mut next, "/ls/test/lock", 0);
    let number = world.send(&mut next, acquire(handle));
    world.pass(LEASE / 2);
    assert!(world.replica.state().session(wombat_proto::SessionId(dies.session)).is_none());
    assert!(world.answer(&next, number).is_none(), "I7");
    world.send(&mut next, Call::KeepAlive(wire::KeepAlive::default()));
    world.pass(Duration::from_millis((LONG - 1).into()));
    assert!(world.answer(&next, number).is_none(), "I7");
    world.pass(Duration::from_millis(1));
    assert!(world.answer(&next, number).unwrap().is_ok());
}
