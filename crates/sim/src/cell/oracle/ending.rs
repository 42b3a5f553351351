//! The end of a run: when all is healed, everything ends well, and every replica is where the others are.

use super::Oracle;
use super::view::View;
use crate::cell::client::Client;
use crate::cell::machine::Machine;
use crate::cell::tally::Tally;
use std::time::Duration;
use wombat_proto::SessionId;

impl Oracle {
    /// Every call of a client that lives has ended, one master serves, the sessions of those that died have ended,
    /// and all replicas are where the last one is, and know it.
    pub(in crate::cell) fn has_ended_well(&self, view: &View<'_>, master_lease: Duration) -> bool {
        let last = self.history.last();
        let there = |machine: &Machine| {
            machine.running.as_ref().is_some_and(|running| {
                let age = running.replica.age_at(machine.clock.read(view.now));
                running.replica.state().applied() == last && age.is_some_and(|age| age < master_lease)
            })
        };
        let living = |session: SessionId| {
            view.clients.iter().any(|client| client.id() == Some(session) && client.is_live(view.now))
        };
        view.clients.iter().all(Client::is_done)
            && view.machines.values().any(|machine| machine.serves(view.now))
            && view.machines.values().all(there)
            && self.history.state().sessions_after(SessionId(0)).all(|(id, _)| living(id))
            && !view.clients.iter().any(|client| self.waits_for_events(view, client))
    }

    /// Whether a client that lives has not received yet an event that it subscribed to.
    fn waits_for_events(&self, view: &View<'_>, client: &Client) -> bool {
        client.is_told(view.now) && self.history.events.outstanding(client.name)
    }

    /// I19: all replicas end in the same state. What was refused has not taken effect.
    pub(in crate::cell) fn check_end(&self, view: &View<'_>, tally: &mut Tally) {
        let expected = self.history.state().digest();
        for machine in view.machines.values() {
            let digest = machine.running.as_ref().map(|running| running.replica.state().digest());
            assert_eq!(digest, Some(expected), "I19: replica {} ends in another state", machine.id);
        }
        self.check_last_reports(view);
        self.answers.check_refused(&self.history);
        for client in view.clients {
            tally.count_many("evictions", client.session.cache_stats().evictions);
            tally.count_many("flushes", client.shelf.flushes);
        }
        if tally.of("masters") > 3 {
            tally.count("runs with three fail-overs or more");
        }
    }

    /// What is still missing, for a run that does not end well.
    pub(in crate::cell) fn describe(&self, view: &View<'_>, master_lease: Duration) -> String {
        let waiting = view.clients.iter().filter(|client| !client.is_done());
        let clients: String = waiting.map(Client::describe).collect();
        let machine = |machine: &Machine| match &machine.running {
            None => format!("{} is down; ", machine.id),
            Some(running) => {
                let (standing, applied) = (running.replica.standing(), running.replica.state().applied());
                let age = running.replica.age_at(machine.clock.read(view.now));
                format!("{}: {:?} at {applied}, {age:?} old; ", machine.id, standing.standing)
            }
        };
        let machines: String = view.machines.values().map(machine).collect();
        let sessions = self.history.state().session_count();
        let uninformed = view.clients.iter().filter(|client| self.waits_for_events(view, client));
        let uninformed: Vec<usize> = uninformed.map(|client| client.name).collect();
        let last = self.history.last();
        format!(
            "{clients}{machines}{sessions} sessions, last {last}, master lease {master_lease:?}, \
             events to come for {uninformed:?}"
        )
    }
}
