//! At any moment one master at most may answer reads.

use crate::walk::{Action, is_large, walk};
use crate::world::{Setup, State, World};
use stateright::{Model, Property};
use std::time::Duration;
use wombat_paxos::{Config, Message, Standing};
use wombat_proto::{Members, ReplicaId, Rho};

/// The bounds.
#[derive(Clone)]
struct Bounds {
    /// By how much clocks may differ, and the lease in nanoseconds.
    rho: Rho,
    lease: u64,
    /// What clocks may go on by in a unit of time, in nanoseconds; each clock keeps to its own.
    rates: Vec<[u64; 3]>,
    /// Units of time.
    times: u8,
    /// Heartbeats of one ballot.
    heartbeats: u64,
    restarts: u8,
    mortals: &'static [u32],
    /// Whether the first master may hand over.
    transfers: bool,
}

struct Lease {
    world: World,
    bounds: Bounds,
}

impl Lease {
    fn new(bounds: Bounds, config: Config) -> Lease {
        let setup = Setup {
            replicas: 3,
            founders: Members::founding(["a:1".into(), "b:1".into(), "c:1".into()]),
            config: Config {
                lease: Duration::from_nanos(bounds.lease),
                longest_lease: Duration::from_nanos(bounds.lease),
                patience: Duration::from_nanos(bounds.lease),
                heartbeat: Duration::from_nanos(1),
                resend: Duration::from_nanos(1),
                rho: bounds.rho,
                window: 4,
                ..config
            },
            carries: |packet| {
                use Message::{Fetch, Learn, Refused};
                let middle = ReplicaId(2);
                let apart = packet.from != middle && packet.to != middle;
                !apart && !matches!(packet.message, Refused { .. } | Fetch { .. } | Learn { .. })
            },
            ballots: vec![1, 3],
            heartbeats: bounds.heartbeats,
            mortals: bounds.mortals.to_vec(),
            polls_at_once: true,
            prunes: true,
        };
        Lease { world: World::new(setup), bounds }
    }
}

impl Model for Lease {
    type State = State;
    type Action = Action;

    /// Replica 1 has been elected by 2, which has accepted its first value and granted its first lease.
    fn init_states(&self) -> Vec<State> {
        let (first, second) = (ReplicaId(1), ReplicaId(2));
        let mut state = self.world.begin(0);
        state = self.world.perform(&state, Action::Poll(first, vec![second])).expect("it campaigns");
        while !state.host(first).paxos.lease_holds(state.host(first).now()) {
            let mut news = state.wire.iter().filter_map(|packet| {
                self.world.perform(&state, Action::Deliver(*packet)).filter(|next| *next != state)
            });
            state = news.next().expect("there is a message");
        }
        state.restarts = self.bounds.restarts;
        let with = |rates: &[u64; 3]| State { rates: rates.as_slice().into(), ..state.clone() };
        self.bounds.rates.iter().map(with).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.world.environment(state, actions);
        self.world.campaigns(state, false, actions);
        for host in state.hosts.iter().filter(|host| host.standing == Standing::Leading) {
            actions.push(Action::Tick(host.id));
            if self.bounds.transfers && host.id == ReplicaId(1) {
                actions.push(Action::Transfer(host.id, ReplicaId(3)));
            }
        }
        if state.time < self.bounds.times {
            actions.push(Action::Pass);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        self.world.perform(state, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn holds(state: &State, id: u32) -> bool {
            let host = state.host(ReplicaId(id));
            host.paxos.lease_holds(host.now())
        }
        vec![
            Property::always("one lease at most", |_, state: &State| {
                (1..=3).filter(|id| holds(state, *id)).count() <= 1
            }),
            Property::always("one value per slot", |_, state: &State| !state.disagreed),
            Property::always("no assertion fails", |_, state: &State| !state.panicked),
            Property::sometimes("the first master has a lease", |_, state: &State| holds(state, 1)),
            Property::sometimes("the second master has a lease", |_, state: &State| holds(state, 3)),
        ]
    }
}

fn even() -> Bounds {
    Bounds {
        rho: Rho(0),
        lease: 2,
        rates: vec![[1, 1, 1]],
        times: if is_large() { 5 } else { 3 },
        heartbeats: 2,
        restarts: 1,
        mortals: &[2],
        transfers: is_large(),
    }
}

/// Equal clocks, a lease of two units of time, three units in all (five: large), two heartbeats of each master,
/// one restart of replica 2, whose disk may be slow. Replica 1 leads at first, and only 3 may follow it; the two
/// hear nothing of each other. 68,357 states.
#[test]
fn even_clocks() {
    let failed = walk("lease", Lease::new(even(), Config::new(ReplicaId(1), 0)), |model| &model.world);
    assert!(failed.is_empty(), "{failed:?}");
}

/// The same with clocks of which some run twice as fast as others; each keeps to its rate.
fn skewed() -> Bounds {
    Bounds {
        rho: Rho(334),
        lease: 3,
        rates: vec![[1, 1, 1], [1, 2, 1], [1, 2, 2], [2, 1, 1], [2, 2, 1], [2, 1, 2]],
        restarts: u8::from(is_large()),
        ..even()
    }
}

/// Clocks that run at one or two nanoseconds per unit of time, a lease of three nanoseconds, three units in all,
/// no restarts. 25,895 states.
#[test]
fn skewed_clocks() {
    let failed =
        walk("lease, skewed", Lease::new(skewed(), Config::new(ReplicaId(1), 0)), |model| &model.world);
    assert!(failed.is_empty(), "{failed:?}");
}

#[cfg(feature = "plant")]
#[test]
fn drift_ignored() {
    let config = Config { plant: Some(wombat_paxos::Plant::DriftIgnored), ..Config::new(ReplicaId(1), 0) };
    let failed = walk("DriftIgnored", Lease::new(skewed(), config), |model| &model.world);
    assert!(failed.contains(&"one lease at most"), "{failed:?}");
}

#[cfg(feature = "plant")]
#[test]
fn lease_ignored() {
    let config = Config { plant: Some(wombat_paxos::Plant::LeaseIgnored), ..Config::new(ReplicaId(1), 0) };
    let failed = walk("LeaseIgnored", Lease::new(even(), config), |model| &model.world);
    assert!(failed.contains(&"one lease at most"), "{failed:?}");
}

#[cfg(feature = "plant")]
#[test]
fn no_silence() {
    let config = Config { plant: Some(wombat_paxos::Plant::NoSilence), ..Config::new(ReplicaId(1), 0) };
    let failed = walk("lease", Lease::new(even(), config), |model| &model.world);
    assert!(failed.contains(&"one lease at most"), "{failed:?}");
}
