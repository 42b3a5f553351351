//! A property of what `ListLocks` promises: a lock whose holders are silent from now on is free when it says, and no
//! session has ended then whose own client may still believe in it (SPEC I5).

use crate::world::{Client, World, acquire, may_create, request, set};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;
use wombat_proto::limits::CACHE_LEASE;
use wombat_proto::wire::{self, Handle, event::Kind, request::Call, response::Result as Answer};
use wombat_replica::{ConnectionId, Input};

const LEASE: Duration = Duration::from_secs(4);
const CLIENTS: usize = 4;
/// The lock-delays of the handles that each client has on the two locks.
const DELAYS_MS: [u32; 2] = [0, 1_500];

#[derive(Clone, Debug)]
enum Step {
    KeepAlive { who: usize, reads_cache: bool },
    Acquire { who: usize, lock: usize, shared: bool },
    Release { who: usize, lock: usize },
    Read { who: usize, lock: usize },
    Write { who: usize, lock: usize },
    Ephemeral { who: usize },
    List { who: usize },
    Disconnect { who: usize },
    Pass { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let (who, lock) = (0..CLIENTS, 0..DELAYS_MS.len());
    let both = || (who.clone(), lock.clone());
    prop_oneof![
        6 => (who.clone(), any::<bool>()).prop_map(|(who, reads_cache)| Step::KeepAlive { who, reads_cache }),
        4 => (both(), any::<bool>()).prop_map(|((who, lock), shared)| Step::Acquire { who, lock, shared }),
        1 => both().prop_map(|(who, lock)| Step::Release { who, lock }),
        2 => both().prop_map(|(who, lock)| Step::Read { who, lock }),
        2 => both().prop_map(|(who, lock)| Step::Write { who, lock }),
        1 => who.clone().prop_map(|who| Step::Ephemeral { who }),
        2 => who.clone().prop_map(|who| Step::List { who }),
        1 => who.prop_map(|who| Step::Disconnect { who }),
        6 => (1..1_500u64).prop_map(|ms| Step::Pass { ms }),
    ]
}

struct Actor {
    client: Client,
    handles: Vec<Handle>,
    root: Handle,
    events: u64,
    invalidations: u64,
    /// When each KeepAlive that is not answered was sent.
    sent: BTreeMap<u64, Duration>,
    /// The end of its own view of its lease.
    safe_until: Duration,
    vanished: bool,
}

struct Cell {
    world: World,
    actors: Vec<Actor>,
    observer: u64,
}

impl Cell {
    fn new() -> Cell {
        let mut world = World::with_lease(LEASE);
        let actors = (0..CLIENTS)
            .map(|who| {
                let connection = world.connect();
                let mut client = world.client_on(connection, who < 2);
                let handles = (0..).zip(DELAYS_MS).map(|(lock, lock_delay_ms)| {
                    let (path, events) = (format!("/ls/test/{lock}"), Kind::ContentsModified.bit());
                    let open = wire::Open { path, events, lock_delay_ms, ..may_create() };
                    world.open_with(&mut client, open)
                });
                let handles = handles.collect();
                let root = wire::Open { path: "/ls/test".into(), mode: 1, ..wire::Open::default() };
                let root = world.open_with(&mut client, root);
                let safe_until = world.now + LEASE;
                let sent = BTreeMap::new();
                Actor {
                    client,
                    handles,
                    root,
                    events: 0,
                    invalidations: 0,
                    sent,
                    safe_until,
                    vanished: false,
                }
            })
            .collect();
        let observer = world.connect();
        Cell { world, actors, observer }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::KeepAlive { who, reads_cache } => {
                let actor = &self.actors[who];
                let keep_alive = wire::KeepAlive {
                    events_acknowledged: actor.events,
                    invalidations_acknowledged: actor.invalidations,
                    reads_cache,
                    ..wire::KeepAlive::default()
                };
                if let Some(number) = self.send(who, Call::KeepAlive(keep_alive)) {
                    self.actors[who].sent.insert(number, self.world.now);
                }
            }
            Step::Acquire { who, lock, shared } => {
                let acquire = |handle| match acquire(handle) {
                    Call::Acquire(acquire) => Call::Acquire(wire::Acquire { shared, r#try: true, ..acquire }),
                    other => other,
                };
                self.send(who, acquire(self.actors[who].handles[lock]));
            }
            Step::Release { who, lock } => {
                let handle = Some(self.actors[who].handles[lock]);
                self.send(who, Call::Release(wire::Release { handle }));
            }
            Step::Read { who, lock } => {
                let handle = Some(self.actors[who].handles[lock]);
                self.send(who, Call::GetContents(wire::GetContents { handle }));
            }
            Step::Write { who, lock } => {
                self.send(who, set(self.actors[who].handles[lock], "text"));
            }
            Step::Ephemeral { who } => {
                let node = Some(wire::NewNode { ephemeral: true, ..wire::NewNode::default() });
                self.send(who, Call::Open(wire::Open { path: "/ls/test/e".into(), node, ..may_create() }));
            }
            Step::List { who } => {
                let handle = Some(self.actors[who].root);
                self.send(who, Call::ReadDir(wire::ReadDir { handle, ..wire::ReadDir::default() }));
            }
            Step::Disconnect { who } => {
                let Actor { client, .. } = &mut self.actors[who];
                let connection = ConnectionId(client.connection);
                self.world.step(Input::Disconnected { connection });
                let _it_may_have_ended = self.world.resume(client);
            }
            Step::Pass { ms } => self.world.pass(Duration::from_millis(ms)),
        }
        self.collect();
    }

    fn send(&mut self, who: usize, call: Call) -> Option<u64> {
        let actor = &mut self.actors[who];
        (!actor.vanished).then(|| self.world.send(&mut actor.client, call))
    }

    /// What the clients are told, of which those that have vanished learn nothing.
    fn collect(&mut self) {
        for actor in &mut self.actors {
            for response in self.world.replies.remove(&actor.client.connection).unwrap_or_default() {
                let Some(Answer::KeptAlive(kept)) = response.result else { continue };
                let Some(sent) = actor.sent.remove(&response.number).filter(|_| !actor.vanished) else {
                    continue;
                };
                let held = Duration::from_micros(kept.held_us) + Duration::from_millis(kept.lease_ms.into());
                actor.safe_until = actor.safe_until.max(sent + held);
                let last = |first: u64, count: usize| (first + count as u64).saturating_sub(1);
                let invalidation = last(kept.first_invalidation, kept.invalidations.len());
                actor.events = actor.events.max(last(kept.first_event, kept.events.len()));
                actor.invalidations = actor.invalidations.max(invalidation);
            }
        }
    }

    fn locks(&mut self) -> Vec<wire::LockInfo> {
        locks(&mut self.world, self.observer)
    }

    /// Lets the clients that hold something now vanish. Returns when each lock is free, it is said.
    fn vanish(&mut self) -> Vec<(wire::LockInfo, Duration)> {
        let locks = self.locks();
        let holders = || locks.iter().flat_map(|lock| &lock.holders).map(|holder| holder.session);
        for actor in &mut self.actors {
            actor.vanished = holders().any(|holder| holder == actor.client.session);
        }
        let longest = LEASE * 2 + CACHE_LEASE + Duration::from_millis(DELAYS_MS[1].into());
        // Who still waits may hold it by then.
        let promises = locks.into_iter().filter(|lock| lock.waiting == 0).map(|lock| {
            let within = Duration::from_millis(lock.free_within_ms);
            assert!(within <= longest, "that is no bound that anybody can use: {lock:?}");
            let at = self.world.now + within;
            (lock, at)
        });
        promises.collect()
    }

    /// A session that has ended is one whose client knows that it may have.
    fn check_ends(&mut self) {
        let now = self.world.now;
        for actor in &self.actors {
            let session = wombat_proto::SessionId(actor.client.session);
            let ended = self.world.replica.state().session(session).is_none();
            assert!(!ended || now >= actor.safe_until, "I5: {session}");
        }
    }
}

fn locks(world: &mut World, connection: u64) -> Vec<wire::LockInfo> {
    let list = Call::ListLocks(wire::ListLocks::default());
    world.send_raw(connection, wire::Request { number: 99, ..request(list) });
    match world.take(connection).result {
        Some(Answer::Locks(locks)) => locks.locks,
        other => panic!("{other:?}"),
    }
}

/// So many sessions make leases longer, but not by the answer to a KeepAlive that was there before.
#[test]
fn a_crowd_that_comes_later_keeps_no_lock_from_being_free() {
    let lease = Duration::from_millis(100);
    let mut world = World::with_lease(lease);
    let mut holder = world.client();
    let handle = world.open(&mut holder, "/ls/test/lock");
    world.call(&mut holder, acquire(handle)).unwrap();
    world.send(&mut holder, Call::KeepAlive(wire::KeepAlive::default()));
    let connection = world.connect();
    let within = Duration::from_millis(locks(&mut world, connection)[0].free_within_ms);
    assert!((lease..=lease * 3 / 2).contains(&within), "{within:?}");
    for _ in 0..1000 {
        world.client_on(connection, false);
    }
    world.step(Input::Tick);
    assert!(world.replica.state().lease() > lease);
    world.pass(within - Duration::from_millis(1));
    assert_eq!(locks(&mut world, connection).len(), 1, "the bound is no longer than need be");
    world.pass(Duration::from_millis(1));
    assert_eq!(locks(&mut world, connection), []);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_lock_is_free_when_it_was_said_to_be_at_the_latest(
        before in prop::collection::vec(step(), 1..60),
        after in prop::collection::vec(step(), 0..40),
    ) {
        let mut cell = Cell::new();
        for step in &before {
            cell.step(step);
            cell.check_ends();
        }
        let mut promises = cell.vanish();
        promises.sort_by_key(|(_, at)| *at);
        let mut after = after.iter().filter(|step| !matches!(step, Step::Acquire { .. }));
        for (lock, at) in promises {
            while cell.world.now < at {
                // Somebody else's steps, and no time that goes beyond what was said.
                let left = at - cell.world.now;
                match after.next() {
                    Some(Step::Disconnect { who }) if cell.actors[*who].vanished => {}
                    Some(Step::Pass { ms }) => cell.world.pass(Duration::from_millis(*ms).min(left)),
                    Some(step) => cell.step(step),
                    None => cell.world.pass(left),
                }
                cell.collect();
                cell.check_ends();
            }
            let now = cell.locks().into_iter().find(|now| now.path == lock.path).unwrap_or_default();
            let same = now.holders.iter().any(|one| lock.holders.iter().any(|was| was.token == one.token));
            assert!(!same && now.delay_left_ms == 0, "said to be free by now: {lock:?}, and is {now:?}");
        }
    }
}
