//! What the models have in common: what can happen, and the walk through all of it.

use crate::world::{Input, Packet, Shared, State, World};
use bytes::Bytes;
use stateright::{Checker, Expectation, HasDiscoveries, Model};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;
use wombat_paxos::Standing;
use wombat_proto::{Members, ReplicaId};

/// What can happen to the cell.
#[derive(Clone, PartialEq)]
pub(crate) enum Action {
    /// A replica does what is due.
    Tick(ReplicaId),
    /// A replica asks others whether it would be elected, and hears their answers.
    Poll(ReplicaId, Vec<ReplicaId>),
    Deliver(Shared<Packet>),
    /// The first records that wait become durable.
    Sync(ReplicaId, usize),
    /// A replica dies and starts again; so many of the records that were not synced are there all the same.
    Restart(ReplicaId, usize),
    Propose(ReplicaId, Bytes),
    Change(ReplicaId, Members),
    Transfer(ReplicaId, ReplicaId),
    /// Time passes.
    Pass,
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Tick(who) => write!(f, "{who} ticks"),
            Action::Poll(who, voter) => write!(f, "{who} asks {voter:?} and hears their answers"),
            Action::Deliver(packet) => write!(f, "{} hears {}: {:?}", packet.to, packet.from, packet.message),
            Action::Sync(who, records) => write!(f, "{who} syncs {records}"),
            Action::Restart(who, kept) => write!(f, "{who} restarts, {kept} unsynced records survive"),
            Action::Propose(who, command) => write!(f, "{who} proposes {command:?}"),
            Action::Change(who, members) => {
                let ids: Vec<u32> = members.voters.iter().map(|member| member.id.0).collect();
                write!(f, "{who} proposes that {ids:?} vote")
            }
            Action::Transfer(who, to) => write!(f, "{who} hands over to {to}"),
            Action::Pass => write!(f, "time passes"),
        }
    }
}

impl World {
    /// Lets something happen. `None`: it changes nothing, or leads beyond the bounds.
    pub(crate) fn perform(&self, state: &State, action: Action) -> Option<State> {
        let mut state = match action {
            Action::Tick(who) => self.apply(state, who, Input::Tick),
            Action::Poll(who, voter) => self.poll(state, who, &voter),
            Action::Deliver(packet) => self.apply(state, packet.to, Input::Receive(packet)),
            Action::Sync(who, records) => self.apply(state, who, Input::Sync(records)),
            Action::Restart(who, kept) => self.apply(state, who, Input::Restart(kept)).map(|mut state| {
                state.restarts -= 1;
                state
            }),
            Action::Propose(who, command) => {
                self.apply(state, who, Input::Propose(command.clone())).map(|mut state| {
                    Arc::make_mut(&mut state.proposed).insert(command);
                    state
                })
            }
            Action::Change(who, members) => self.apply(state, who, Input::Change(members)),
            Action::Transfer(who, to) => self.apply(state, who, Input::Transfer(to)),
            Action::Pass => {
                let mut state = state.clone();
                state.time += 1;
                for (host, nanos) in state.hosts.iter_mut().zip(state.rates.iter()) {
                    *host = self.step(*host, Input::Pass(*nanos)).host;
                }
                Some(state)
            }
        }?;
        // For who cannot die any more, a slow disk is as good as a slow network.
        for place in 0..state.hosts.len() {
            let id = state.hosts[place].id;
            while !state.hosts[place].pending.is_empty() && !self.may_restart(state.restarts, id) {
                let records = state.hosts[place].pending.len();
                state = self.apply(&state, id, Input::Sync(records))?;
            }
        }
        Some(state)
    }

    /// What disks and the network may do.
    pub(crate) fn environment(&self, state: &State, actions: &mut Vec<Action>) {
        actions.extend(state.wire.iter().map(|packet| Action::Deliver(*packet)));
        for host in state.hosts.iter().filter(|host| self.may_restart(state.restarts, host.id)) {
            let waiting = host.pending.len();
            actions.extend((waiting > 0).then_some(Action::Sync(host.id, waiting)));
            actions.extend((waiting > 1 && is_large()).then_some(Action::Sync(host.id, 1)));
            actions.extend((0..=waiting).map(|kept| Action::Restart(host.id, kept)));
        }
    }

    /// What candidates do of themselves: they campaign, and if `give_up`, they give up and step down.
    pub(crate) fn campaigns(&self, state: &State, give_up: bool, actions: &mut Vec<Action>) {
        for host in &state.hosts {
            if !self.setup.ballots.contains(&host.id.0) {
                continue;
            }
            if host.standing != Standing::Following {
                actions.extend(give_up.then_some(Action::Tick(host.id)));
            } else if !self.setup.polls_at_once {
                actions.push(Action::Tick(host.id));
            } else {
                let others = state.hosts.iter().map(|other| other.id).filter(|id| *id != host.id);
                actions.extend(others.map(|voter| Action::Poll(host.id, vec![voter])));
                // Two configurations may have to agree.
                if state.hosts.len() > 3 {
                    actions.push(Action::Poll(host.id, vec![ReplicaId(3), ReplicaId(4)]));
                }
            }
        }
    }
}

/// Whether the wide bounds are asked for.
pub(crate) fn is_large() -> bool {
    std::env::var("WOMBAT_MODEL").is_ok_and(|bounds| bounds == "large")
}

/// Walks a model. Returns the names of the properties that do not hold; tells how large the model is, and
/// how one comes to what should not be.
pub(crate) fn walk<M>(name: &str, model: M, world: fn(&M) -> &World) -> Vec<&'static str>
where
    M: Model<State = State, Action = Action> + Send + Sync + 'static,
{
    let begun = Instant::now();
    let threads = std::env::var("WOMBAT_MODEL_THREADS").ok().and_then(|number| number.parse().ok());
    let checker = model.checker().threads(threads.unwrap_or(1)).finish_when(HasDiscoveries::AnyFailures);
    let limit = std::env::var("WOMBAT_MODEL_STEPS").ok().and_then(|number| number.parse().ok());
    let checker = checker.target_state_count(limit.unwrap_or(usize::MAX));
    let checker = checker.spawn_bfs().join();
    let (hosts, packets) = world(checker.model()).size();
    println!(
        "{name}: {} states, {} steps, depth {}, {hosts} situations of one replica, {packets} messages, {:.1?}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        begun.elapsed(),
    );
    let mut failed = Vec::new();
    for property in checker.model().properties() {
        let found = checker.discovery(property.name);
        match (property.expectation, found) {
            (Expectation::Sometimes, None) => {
                println!("  never: {}", property.name);
                failed.push(property.name);
            }
            (Expectation::Sometimes, Some(path)) => {
                let actions = path.into_actions();
                println!("  {}: after {} steps", property.name, actions.len());
                if std::env::var_os("WOMBAT_MODEL_PATHS").is_some() {
                    actions.iter().for_each(|action| println!("    {action:?}"));
                }
            }
            (_, Some(path)) => {
                println!("  violated: {}", property.name);
                for action in path.into_actions() {
                    println!("    {action:?}");
                }
                failed.push(property.name);
            }
            (_, None) => println!("  {}", property.name),
        }
    }
    failed
}
