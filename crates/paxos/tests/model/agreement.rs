//! One value per slot for ever.

use crate::walk::{Action, is_large, walk};
use crate::world::{Packet, Setup, State, World, chosen_are_durable, chosen_were_proposed};
use bytes::Bytes;
use stateright::{Model, Property};
use std::time::Duration;
use wombat_paxos::{Config, Message, Standing};
use wombat_proto::{Members, ReplicaId, Rho};

/// The bounds.
#[derive(Clone, Copy)]
struct Bounds {
    /// Who campaigns in which round.
    ballots: &'static [u32],
    /// Whether candidates give up and masters step down of themselves.
    give_up: bool,
    /// Commands that each master may propose.
    commands: usize,
    restarts: u8,
    mortals: &'static [u32],
    /// Whether questions before elections travel as any other message.
    free_polls: bool,
    /// Whether the two candidates hear each other, or only replica 3.
    all_links: bool,
    /// Whether heartbeats travel, and what is said to catch up.
    all_kinds: bool,
}

struct Agreement {
    world: World,
    bounds: Bounds,
    members: Members,
}

fn founders() -> Members {
    Members::founding(["a:1".into(), "b:1".into(), "c:1".into()])
}

/// A configuration in which time plays no role.
fn timeless() -> Config {
    Config {
        lease: Duration::ZERO,
        patience: Duration::ZERO,
        heartbeat: Duration::ZERO,
        resend: Duration::ZERO,
        rho: Rho(0),
        window: 4,
        ..Config::new(ReplicaId(1), 0)
    }
}

impl Agreement {
    fn new(bounds: Bounds, config: Config) -> Agreement {
        let carries = if bounds.all_kinds {
            |packet: &Packet| !matches!(packet.message, Message::Granted { .. } | Message::Refused { .. })
        } else {
            |packet: &Packet| {
                let message = &packet.message;
                use Message::{Accept, Accepted, Answer, Ask, Prepare, Promise};
                let elects = matches!(message, Ask { .. } | Answer { .. } | Prepare { .. } | Promise { .. });
                elects || matches!(message, Accept { .. } | Accepted { .. })
            }
        };
        let setup = Setup {
            replicas: 3,
            founders: founders(),
            config,
            carries,
            ballots: bounds.ballots.to_vec(),
            heartbeats: 1,
            mortals: bounds.mortals.to_vec(),
            polls_at_once: !bounds.free_polls,
            prunes: true,
        };
        Agreement { world: World::new(setup), bounds, members: founders() }
    }
}

impl Model for Agreement {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.world.begin(self.bounds.restarts)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.world.environment(state, actions);
        self.world.campaigns(state, self.bounds.give_up, actions);
        for host in &state.hosts {
            let round = host.paxos.ballot().round;
            let mine = format!("{round}.");
            let proposed =
                state.proposed.iter().filter(|command| command.starts_with(mine.as_bytes())).count();
            if host.paxos.leads().is_some() && proposed < self.bounds.commands {
                actions.push(Action::Propose(host.id, Bytes::from(format!("{mine}{proposed}"))));
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut state = self.world.perform(state, action)?;
        let apart = |packet: &Packet| packet.from != ReplicaId(3) && packet.to != ReplicaId(3);
        state.wire.retain(|packet| self.bounds.all_links || !apart(packet));
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("one value per slot", |_, state: &State| !state.disagreed),
            Property::always("what is chosen was proposed", |_, state: &State| chosen_were_proposed(state)),
            Property::always("what is chosen is durable", |model: &Agreement, state: &State| {
                chosen_are_durable(state, |_| model.members.clone())
            }),
            Property::always("no assertion fails", |_, state: &State| !state.panicked),
            Property::sometimes("a command is chosen", |_, state: &State| state.chosen.len() > 1),
            Property::sometimes("two replicas lead", |_, state: &State| {
                state.hosts.iter().filter(|host| host.standing == Standing::Leading).count() > 1
            }),
        ]
    }
}

fn small() -> Bounds {
    Bounds {
        ballots: &[1, 2],
        give_up: is_large(),
        commands: 1,
        restarts: 0,
        mortals: &[],
        free_polls: is_large(),
        all_links: true,
        all_kinds: is_large(),
    }
}

/// Two ballots, of replicas 1 and 2; a command each, so four slots at most; no restarts; questions before an
/// election are answered at once, candidates do not give up, and neither heartbeats, lessons nor refusals
/// arrive. 71,334 states.
#[test]
fn two_masters() {
    let failed = walk("agreement", Agreement::new(small(), timeless()), |model| &model.world);
    assert!(failed.is_empty(), "{failed:?}");
}

/// The same, but two commands each, with two restarts of replica 3 and a disk of it that may be slow. The two candidates hear nothing of
/// each other. 29,053 states.
#[test]
fn a_restart_between_two_masters() {
    let bounds = Bounds { restarts: 2, commands: 2, mortals: &[3], all_links: is_large(), ..small() };
    let failed = walk("agreement with a restart", Agreement::new(bounds, timeless()), |model| &model.world);
    assert!(failed.is_empty(), "{failed:?}");
}

#[cfg(feature = "plant")]
#[test]
fn planted() {
    use wombat_paxos::Plant;
    for plant in [Plant::PromiseNotSynced, Plant::AcceptNotSynced, Plant::MinorityChooses] {
        let bounds = Bounds { restarts: 1, mortals: &[3], all_links: false, ..small() };
        let config = Config { plant: Some(plant), ..timeless() };
        let failed = walk(&format!("{plant:?}"), Agreement::new(bounds, config), |model| &model.world);
        let caught = |property: &&str| property.contains("durable") || property.contains("per slot");
        assert!(failed.iter().any(caught), "{plant:?} is not caught: {failed:?}");
    }
}
