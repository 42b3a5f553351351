//! Learning what was chosen without this replica: from another's log, or from its snapshot if the log does
//! not reach back so far.

use crate::{Batch, Configurations, Message, Outcome, Paxos, ReceivedChunk, Role, planted};
use alloc::vec::Vec;
use bytes::Bytes;
use wombat_proto::{Accepted, Instant, ReplicaId, Slot};

/// How often a question is asked again before another replica may be asked.
const TRIES: u8 = 3;

/// What a replica that is behind waits for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct CatchUp {
    /// From whom.
    from: ReplicaId,
    /// When to ask again, and how often that may be done yet.
    pub(crate) again_at: Instant,
    tries: u8,
    snapshot: Option<Incoming>,
}

/// A snapshot that is arriving.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Incoming {
    slot: Slot,
    /// The chunk that is missing next; `None`: all are here, and being put in place.
    next: Option<u32>,
}

impl Paxos {
    /// Begins to catch up from a replica that knows more, unless that is under way.
    pub(crate) fn catch_up_from(&mut self, from: ReplicaId) {
        if self.catch_up.is_none() && !matches!(self.role, Role::Leading(_)) {
            let again_at = self.now + self.config.resend;
            self.catch_up = Some(CatchUp { from, again_at, tries: TRIES, snapshot: None });
            self.ask_teacher();
        }
    }

    /// Asks for whatever is missing next.
    fn ask_teacher(&mut self) {
        let Some(catch_up) = &mut self.catch_up else { return };
        catch_up.again_at = self.now + self.config.resend;
        let question = match &catch_up.snapshot {
            None => Message::Fetch { above: self.chosen },
            Some(Incoming { slot, next: Some(index) }) => {
                Message::FetchChunk { snapshot: *slot, index: *index }
            }
            Some(Incoming { next: None, .. }) => return,
        };
        let from = catch_up.from;
        self.send(from, question);
    }

    /// The teacher has answered: there is patience again.
    fn progressed(&mut self) {
        if let Some(catch_up) = &mut self.catch_up {
            catch_up.tries = TRIES;
        }
        self.ask_teacher();
    }

    pub(crate) fn tick_catch_up(&mut self) {
        let Some(catch_up) = &mut self.catch_up else { return };
        if self.now < catch_up.again_at {
            return;
        }
        if catch_up.snapshot.as_ref().is_some_and(|incoming| incoming.next.is_none()) {
            catch_up.again_at = self.now + self.config.resend; // The disk is at work.
        } else if catch_up.tries == 0 {
            self.catch_up = None;
        } else {
            catch_up.tries -= 1;
            self.ask_teacher();
        }
    }

    pub(crate) fn fetch(&mut self, from: ReplicaId, above: Slot) {
        if above.next() < self.log.first() {
            if self.snapshot.next() < self.log.first() {
                self.out.snapshot_wanted = true;
            }
            return self.send(from, Message::Truncated { snapshot: self.snapshot });
        }
        let (chosen, _) = self.batch(above, self.chosen);
        self.send(from, Message::Learn { chosen, through: self.chosen });
    }

    pub(crate) fn learn(&mut self, from: ReplicaId, chosen: Vec<Accepted>, through: Slot) {
        // A master learns from nobody: if others choose, it is none any more, and will hear of it.
        if matches!(self.role, Role::Leading(_)) {
            return;
        }
        let before = self.chosen;
        for one in chosen {
            if one.slot != self.chosen.next() {
                continue;
            }
            let slot = one.slot;
            // Members that came later may never have heard of its master; their own epochs come after it.
            self.highest_round = self.highest_round.max(one.ballot.round);
            // What was accepted here under the same ballot or a higher one is the same value.
            let known = self.log.get(slot).map(|(ballot, _)| ballot);
            if known.is_none_or(|known| known < one.ballot) && !planted!(self, LearnKeepsOld)
                || known.is_none()
            {
                self.keep(Batch::of(one));
            }
            self.hand_out_through(slot);
        }
        self.extend_run();
        if self.catch_up.as_ref().is_some_and(|catch_up| catch_up.from == from && catch_up.snapshot.is_none())
        {
            if self.chosen > before && self.chosen < through {
                self.progressed();
            } else if self.chosen >= through {
                self.catch_up = None;
            }
        }
    }

    pub(crate) fn truncated(&mut self, from: ReplicaId, snapshot: Slot) {
        let too_old = snapshot <= self.chosen;
        let Some(catch_up) = self.catch_up.as_mut().filter(|catch_up| catch_up.from == from) else { return };
        if catch_up.snapshot.as_ref().is_some_and(|incoming| incoming.next.is_none()) {
            return;
        }
        if too_old {
            self.catch_up = None;
        } else if catch_up.snapshot.as_ref().is_none_or(|incoming| incoming.slot < snapshot) {
            catch_up.snapshot = Some(Incoming { slot: snapshot, next: Some(0) });
            self.progressed();
        }
    }

    pub(crate) fn chunk(&mut self, from: ReplicaId, snapshot: Slot, index: u32, last: bool, bytes: Bytes) {
        let Some(catch_up) = self.catch_up.as_mut().filter(|catch_up| catch_up.from == from) else { return };
        let Some(incoming) = &mut catch_up.snapshot else { return };
        if incoming.slot != snapshot || incoming.next != Some(index) {
            return;
        }
        incoming.next = (!last).then_some(index + 1);
        self.out.received_chunks.push(ReceivedChunk { snapshot, index, last, bytes });
        self.progressed();
    }

    /// The snapshot that was received is durable. Returns whether the state has to be replaced by it: not if
    /// this replica has got further meanwhile. `configurations` are those that the snapshot was taken with.
    pub fn installed(&mut self, now: Instant, slot: Slot, configurations: Configurations) -> bool {
        self.advance_clock(now);
        self.catch_up = None;
        let newer = slot > self.chosen || planted!(self, SnapshotOverNewer);
        if !newer || matches!(self.role, Role::Leading(_)) {
            return false;
        }
        assert!(self.out.chosen.is_empty(), "what was chosen before is handed out before");
        self.log.drop_through(slot);
        self.chosen = slot;
        self.chosen_recorded = self.chosen_recorded.max(slot);
        self.chosen_durable = self.chosen_durable.max(slot);
        self.snapshot = self.snapshot.max(slot);
        self.highest_round = self.highest_round.max(configurations.round());
        self.configurations = configurations;
        while let Some((at, _)) = self.orphans.pop_front_if(|(at, _)| *at <= slot) {
            self.out.ended.push((at, Outcome::Unknown));
        }
        self.extend_run();
        true
    }

    /// The snapshot that was received cannot be used.
    pub fn install_failed(&mut self) {
        self.catch_up = None;
    }
}
