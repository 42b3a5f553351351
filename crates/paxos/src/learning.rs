//! The learner's part of the messages between a replica that is behind and one that knows more.

use crate::batch::Batch;
use crate::catch_up::{CatchUp, Next};
use crate::configurations::Configurations;
use crate::effects::ReceivedChunk;
use crate::message::Message;
use crate::participant::Participant;
use alloc::vec::Vec;
use bytes::Bytes;
use wombat_proto::{Accepted, ReplicaId, Slot};

impl Participant {
    // ---- The replica that knows more ----

    /// Sends what is chosen after a slot, or names the snapshot that holds it.
    pub(crate) fn answer_fetch(&mut self, from: ReplicaId, above: Slot) {
        if above.next() < self.log.first() {
            let snapshot = self.learner.snapshot();
            if snapshot.next() < self.log.first() {
                self.outbox.effects.snapshot_wanted = true;
            }
            return self.send(from, Message::Truncated { snapshot });
        }
        let through = self.chosen();
        let (chosen, _) = self.log.part(above, through, self.config.batch_bytes);
        self.send(from, Message::Learn { chosen, through });
    }

    // ---- The replica that is behind ----

    /// Begins to catch up from a replica that knows more, unless that is under way.
    pub(crate) fn catch_up_from(&mut self, from: ReplicaId) {
        if self.catch_up.is_none() {
            self.catch_up = Some(CatchUp::new(from, self.now + self.config.resend));
            self.continue_catch_up(Next::Request);
        }
    }

    fn continue_catch_up(&mut self, next: Next) {
        match next {
            Next::Wait => {}
            Next::Stop => self.catch_up = None,
            Next::Request => {
                let (chosen, retry_at) = (self.chosen(), self.now + self.config.resend);
                let request = self.catch_up.as_mut().and_then(|catch_up| catch_up.request(chosen, retry_at));
                if let Some((to, request)) = request {
                    self.send(to, request);
                }
            }
        }
    }

    pub(crate) fn tick_catch_up(&mut self) {
        let (now, retry_at) = (self.now, self.now + self.config.resend);
        if let Some(catch_up) = &mut self.catch_up {
            let next = catch_up.tick(now, retry_at);
            self.continue_catch_up(next);
        }
    }

    /// Takes values that another replica knows to be chosen. `through` is the last slot that it knows to be chosen.
    pub(crate) fn learn(&mut self, from: ReplicaId, values: Vec<Accepted>, through: Slot) {
        let before = self.chosen();
        for one in values {
            let slot = one.slot;
            if slot != self.chosen().next() {
                continue;
            }
            // Members that came later may never have heard of its master; their own epochs come after it.
            self.election.note_round(one.ballot.round);
            // What was accepted here under the same ballot or a higher one is the same value.
            let known = self.log.get(slot).map(|(ballot, _)| ballot);
            if self.rules().replaces(known, one.ballot) {
                self.log.write(Batch::of(one), &mut self.outbox);
            }
            self.advance_chosen(slot);
        }
        self.extend_run();
        let chosen = self.chosen();
        if let Some(catch_up) = &mut self.catch_up {
            let next = catch_up.learned(from, before, chosen, through);
            self.continue_catch_up(next);
        }
    }

    /// Another replica's log does not reach back so far, but it has a snapshot.
    pub(crate) fn log_truncated(&mut self, from: ReplicaId, snapshot: Slot) {
        let chosen = self.chosen();
        if let Some(catch_up) = &mut self.catch_up {
            let next = catch_up.truncated(from, snapshot, chosen);
            self.continue_catch_up(next);
        }
    }

    /// Takes a chunk of another replica's snapshot.
    pub(crate) fn take_chunk(
        &mut self,
        from: ReplicaId,
        snapshot: Slot,
        index: u32,
        last: bool,
        bytes: Bytes,
    ) {
        let next = self.catch_up.as_mut().and_then(|catch_up| catch_up.chunk(from, snapshot, index, last));
        if let Some(next) = next {
            self.outbox.effects.received_chunks.push(ReceivedChunk { snapshot, index, last, bytes });
            self.continue_catch_up(next);
        }
    }

    /// A snapshot is installed in place of everything up to `slot`. `configurations` are those that it was taken with.
    pub(crate) fn install(&mut self, slot: Slot, configurations: Configurations) {
        assert!(self.outbox.effects.chosen.is_empty(), "what was chosen before is handed out before");
        self.log.drop_through(slot);
        self.election.note_round(configurations.round());
        self.learner.installed(slot, configurations);
        self.orphans.give_up_through(slot, &mut self.outbox.effects.ended);
        self.extend_run();
    }
}
