//! One value per slot for ever, while one replica is replaced by another.

use crate::walk::{Action, is_large, walk};
use crate::world::{Packet, Setup, Shared, State, World, chosen_are_durable, chosen_were_proposed};
use bytes::Bytes;
use stateright::{Model, Property};
use std::time::Duration;
use wombat_paxos::{Config, Message, Standing};
use wombat_proto::{Member, Members, ReplicaId, Rho, Slot, Value};

/// The bounds.
#[derive(Clone)]
struct Bounds {
    /// α.
    window: u64,
    /// Who votes after the change.
    voters: &'static [u32],
    /// How many commands the masters of the two rounds may propose.
    commands: [usize; 2],
    restarts: u8,
    mortals: &'static [u32],
    /// Whether all replicas hear each other.
    all_links: bool,
    /// Whether replicas catch up.
    lessons: bool,
}

struct Replacement {
    world: World,
    bounds: Bounds,
}

fn founders() -> Members {
    Members::founding(["a:1".into(), "b:1".into(), "c:1".into()])
}

impl Replacement {
    fn new(bounds: Bounds, config: Config) -> Replacement {
        let carries = if bounds.lessons {
            |packet: &Packet| {
                let message = &packet.message;
                use Message::{Granted, Heartbeat, Refused};
                !matches!(message, Granted { .. } | Refused { .. } | Heartbeat { .. })
            }
        } else {
            |packet: &Packet| {
                let message = &packet.message;
                use Message::{Fetch, Granted, Heartbeat, Learn, Refused};
                let late = matches!(message, Fetch { .. } | Learn { .. });
                !late && !matches!(message, Granted { .. } | Refused { .. } | Heartbeat { .. })
            }
        };
        let setup = Setup {
            replicas: 4,
            founders: founders(),
            config: Config {
                lease: Duration::ZERO,
                patience: Duration::ZERO,
                heartbeat: Duration::ZERO,
                resend: Duration::ZERO,
                rho: Rho(0),
                window: bounds.window,
                ..config
            },
            carries,
            ballots: vec![1, 2],
            heartbeats: 1,
            mortals: bounds.mortals.to_vec(),
            polls_at_once: true,
            prunes: true,
        };
        Replacement { world: World::new(setup), bounds }
    }

    /// The members that are to come.
    fn changed(&self) -> Members {
        let member = |id: &u32| Member { id: ReplicaId(*id), address: format!("{id}:1") };
        Members { voters: self.bounds.voters.iter().map(member).collect(), next_id: 5, ..Members::default() }
    }

    /// Whether the network carries a message: the two masters hear nothing of each other, nor do 3 and 4,
    /// unless the bounds are wide.
    fn connects(&self, packet: &Packet) -> bool {
        self.bounds.all_links || (packet.from.0 <= 2) != (packet.to.0 <= 2)
    }

    /// Who governs a slot, by what was chosen before.
    fn governing(&self, state: &State, slot: Slot) -> Members {
        let before = state.chosen.iter().filter(|(at, _)| at.0 + self.bounds.window <= slot.0);
        let members = before.filter_map(|(_, value)| match value {
            Value::Members(members) => Some(members.clone()),
            _ => None,
        });
        members.last().unwrap_or_else(founders)
    }
}

impl Model for Replacement {
    type State = State;
    type Action = Action;

    /// Replica 1 has been elected by 2, which has accepted its first value. It has proposed the change, and a
    /// command behind it if the window has room. In one state, everything of that is on its way; in another, 2
    /// has accepted the change and heard that it is chosen.
    fn init_states(&self) -> Vec<State> {
        let (first, second) = (ReplicaId(1), ReplicaId(2));
        let perform =
            |state: &State, action| self.world.perform(state, action).expect("it changes something");
        let deliver = |state: &State, from, to| {
            let is_between = |packet: &&Shared<Packet>| (packet.from, packet.to) == (from, to);
            let newest = state.wire.iter().rfind(is_between).expect("there is a message");
            perform(state, Action::Deliver(*newest))
        };
        let exchange = |state: &State| deliver(&deliver(state, first, second), second, first);
        let mut state = self.world.begin(0);
        state = perform(&state, Action::Poll(first, vec![second]));
        state = exchange(&exchange(&state));
        assert_eq!(state.host(first).paxos.chosen(), Slot(1));
        state = perform(&state, Action::Change(first, self.changed()));
        let command_first = self.bounds.window > 1;
        let mut told = exchange(&state);
        if command_first {
            let propose = Action::Propose(first, Bytes::from("1.0"));
            // Both are proposed at once, and 2 misses the command.
            state = perform(&state, propose);
            told = state.clone();
            let is_change = |packet: &&Shared<Packet>| {
                packet.to == second && matches!(packet.message, Message::Accept { first: Slot(2), .. })
            };
            let change = *told.wire.iter().find(is_change).expect("the change is on its way");
            told = deliver(&perform(&told, Action::Deliver(change)), second, first);
        }
        assert_eq!(told.host(first).paxos.chosen(), Slot(2));
        let accepted = told.host(first).disk.kept.accepted[&Slot(2)].clone();
        let lesson = Message::Learn { chosen: vec![accepted], through: Slot(2) };
        let lesson = self.world.packet(first, second, lesson);
        let mut told = perform(&told, Action::Deliver(lesson));
        assert_eq!(told.host(second).paxos.chosen(), Slot(2));
        for state in [&mut state, &mut told] {
            state.restarts = self.bounds.restarts;
            state.wire.retain(|packet| self.connects(packet));
        }
        if command_first && !is_large() { vec![told] } else { vec![state, told] }
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.world.environment(state, actions);
        self.world.campaigns(state, false, actions);
        for host in state.hosts.iter().filter(|host| host.paxos.leads().is_some()) {
            let round = host.paxos.ballot().round;
            let mine = format!("{round}.");
            let proposed =
                state.proposed.iter().filter(|command| command.starts_with(mine.as_bytes())).count();
            if proposed < self.bounds.commands[round as usize - 1] {
                actions.push(Action::Propose(host.id, Bytes::from(format!("{mine}{proposed}"))));
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut state = self.world.perform(state, action)?;
        state.wire.retain(|packet| self.connects(packet));
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("one value per slot", |_, state: &State| !state.disagreed),
            Property::always("what is chosen was proposed", |_, state: &State| chosen_were_proposed(state)),
            Property::always("what is chosen is durable", |model: &Replacement, state: &State| {
                chosen_are_durable(state, |slot| model.governing(state, slot))
            }),
            Property::always("no assertion fails", |_, state: &State| !state.panicked),
            Property::sometimes("the new members choose", |model: &Replacement, state: &State| {
                let last = state.chosen.keys().last();
                last.is_some_and(|slot| model.governing(state, *slot).is_voter(ReplicaId(4)))
            }),
            Property::sometimes("two replicas lead", |_, state: &State| {
                state.hosts.iter().filter(|host| host.standing == Standing::Leading).count() > 1
            }),
        ]
    }
}

fn small(window: u64) -> Bounds {
    Bounds {
        window,
        voters: &[1, 2, 4],
        commands: [1, usize::from(is_large())],
        restarts: 0,
        mortals: &[],
        all_links: is_large(),
        lessons: is_large(),
    }
}

/// α = 1: 1, 2 and 3 become 1, 2 and 4; the masters are 1 and then 2, which hear nothing of each other after the
/// beginning, nor do 3 and 4. One command; no restarts, heartbeats, refusals or lessons. 23,437 states.
#[test]
fn one_is_replaced() {
    let failed =
        walk("replacement", Replacement::new(small(1), Config::new(ReplicaId(1), 0)), |model| &model.world);
    assert!(failed.is_empty(), "{failed:?}");
}

/// The same with α = 2, and 2 has heard that the change is chosen. 268,215 states.
#[test]
fn one_is_replaced_with_a_window() {
    let failed =
        walk("replacement, window 2", Replacement::new(small(2), Config::new(ReplicaId(1), 0)), |model| {
            &model.world
        });
    assert!(failed.is_empty(), "{failed:?}");
}

#[cfg(feature = "plant")]
#[test]
fn planted() {
    use wombat_paxos::Plant;
    let plant = Plant::NewVotersUnprepared;
    let config = Config { plant: Some(plant), ..Config::new(ReplicaId(1), 0) };
    let failed = walk(&format!("{plant:?}"), Replacement::new(small(1), config), |model| &model.world);
    let caught = |property: &&str| property.contains("durable") || property.contains("per slot");
    assert!(failed.iter().any(caught), "{plant:?} is not caught: {failed:?}");
}
