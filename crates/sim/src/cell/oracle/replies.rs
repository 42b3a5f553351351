//! What replicas answer: only the holder of the master lease, with what is chosen, and no more than is applied.

use super::Oracle;
use super::view::View;
use crate::cell::client::Client;
use crate::cell::tally::Tally;
use wombat_proto::wire::{Opened, Response, error::Code, event::Kind, response::Result as Answer};
use wombat_proto::{HandleId, ReplicaId, SessionId, Slot};

impl Oracle {
    /// I2: only the holder of the master lease answers. I10: it answers no general operation before every client has
    /// learned of its epoch that might use what it cached before.
    pub(in crate::cell) fn check_reply(
        &mut self,
        view: &View<'_>,
        id: ReplicaId,
        response: &Response,
        tally: &mut Tally,
    ) {
        let machine = &view.machines[&id];
        let needs_lease = needs_lease(response);
        assert!(
            !needs_lease || machine.serves(view.now),
            "I2: replica {id} answers without the master lease"
        );
        let Some(running) = &machine.running else { return };
        let epoch = running.replica.state().epoch();
        let applied = running.replica.state().stamp();
        if running.replica.is_master() {
            self.history.stale.complete(applied, view.now);
        }
        self.answers.answers(epoch, response);
        self.caches.answers((epoch, view.now), response, &self.history, tally);
        // A deposed master may still answer for what the log had done before: its handles are not the new master's.
        if epoch == self.history.state().epoch() {
            self.note_subscription(applied, response);
        }
        self.check_events(applied, response);
        if !is_general(response) {
            return;
        }
        self.caches.check_fail_over(epoch, view.now, &self.history);
        let knows_not = |client: &&Client| client.may_use_cache_of_before(epoch, view.now);
        if let Some(client) = view.clients.iter().find(knows_not) {
            panic!("I10: client {} has not heard of epoch {epoch}, in which {id} answers", client.name);
        }
    }

    /// An answer shows that the master knows a handle, and so what it is subscribed to.
    fn note_subscription(&mut self, applied: Slot, response: &Response) {
        let Some((client, handle)) = self.answers.asker(response) else { return };
        match &response.result {
            // A handle that is tied to a stale sequencer is there, and good for nothing.
            Some(Answer::Error(error)) if error.code() != Code::SequencerStale => {}
            None => {}
            Some(Answer::Opened(Opened { handle: Some(handle), .. })) => {
                self.history.events.opened(client, handle, applied);
            }
            Some(_) => self.history.events.presented(client, handle, applied),
        }
    }

    /// I12: an event is not sent before its change can be read; a conflict is sent to the holder of the lock.
    fn check_events(&self, applied: Slot, response: &Response) {
        let Some(Answer::KeptAlive(kept)) = &response.result else { return };
        for event in &kept.events {
            assert!(event.slot <= applied.0, "I12: {event:?} is sent by a master that has applied {applied}");
            let (session, handle) = (SessionId(response.session), HandleId(event.handle));
            let holds =
                event.kind() != Kind::LockConflict || self.history.held_at(session, handle, Slot(event.slot));
            assert!(holds, "{event:?} is sent to session {session}, which does not hold the lock");
        }
    }

    /// I2: one replica at most holds the master lease, and it has applied everything that any replica has.
    pub(in crate::cell) fn check_master(&mut self, view: &View<'_>) {
        let mut master: Option<(ReplicaId, Slot)> = None;
        for machine in view.machines.values().filter(|machine| machine.serves(view.now)) {
            let applied = machine.running.as_ref().map(|running| running.replica.state().stamp());
            assert!(master.is_none(), "I2: {master:?} and {} hold the lease", machine.id);
            master = applied.map(|applied| (machine.id, applied));
        }
        if let Some((id, applied)) = master {
            let last = self.history.state().stamp();
            assert!(applied >= last, "I2: {id} serves at {applied}, but {last} was applied elsewhere");
            self.history.stale.complete(applied, view.now);
        }
    }
}

/// Whether only the holder of the master lease may say this. What the log has decided any master may.
fn needs_lease(response: &Response) -> bool {
    match &response.result {
        Some(Answer::Contents(_) | Answer::KeptAlive(_)) => true,
        Some(Answer::SessionOpened(_)) => response.session != 0, // It was there before.
        Some(Answer::Error(error)) => match error.code() {
            Code::SessionUnknown => true,
            Code::SequencerStale => response.session == 0, // The log may have said so of a write.
            _ => false,
        },
        _ => false,
    }
}

/// Whether this answers an operation that a new master answers only after its fail-over.
fn is_general(response: &Response) -> bool {
    matches!(
        &response.result,
        Some(
            Answer::Opened(_)
                | Answer::Contents(_)
                | Answer::Stat(_)
                | Answer::Entries(_)
                | Answer::Granted(_)
                | Answer::MultiDone(_)
                | Answer::Done(_)
        )
    )
}
