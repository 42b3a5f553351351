//! Phase 1: the reports of acceptors on what they have accepted.

use crate::message::Message;
use crate::participant::Participant;
use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::vec::Vec;
use wombat_proto::{Accepted, Ballot, Members, ReplicaId, Slot, Value};

/// The reports that a candidate or a master has asked for, and what they hold.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Reports {
    from: BTreeMap<ReplicaId, Report>,
    /// Of all values reported for a slot, the one of the highest ballot: the only one that can be chosen.
    values: BTreeMap<Slot, (Ballot, Value)>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Report {
    /// What was accepted up to here is reported.
    above: Slot,
    is_complete: bool,
    /// Whether the replica's disk is a copy.
    is_restored: bool,
}

/// A [`Message::Promise`] without its ballot.
pub(crate) struct ReportPart {
    pub(crate) above: Slot,
    pub(crate) accepted: Vec<Accepted>,
    pub(crate) through: Slot,
    pub(crate) is_complete: bool,
    pub(crate) is_restored: bool,
}

impl Reports {
    /// Whether a replica has reported everything.
    pub(crate) fn is_complete(&self, from: ReplicaId) -> bool {
        self.from.get(&from).is_some_and(|report| report.is_complete)
    }

    /// Whether a quorum has reported everything from disks that are no copies.
    pub(crate) fn has_originals_of(&self, members: &Members) -> bool {
        let is_original = |report: &Report| report.is_complete && !report.is_restored;
        members.is_quorum(|id| self.from.get(&id).is_some_and(is_original))
    }

    /// Whether all reported values have been taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Takes out the value that was reported for `slot`. Drops those before it.
    pub(crate) fn take(&mut self, slot: Slot) -> Option<Value> {
        while self.values.first_key_value().is_some_and(|(reported, _)| *reported < slot) {
            self.values.pop_first();
        }
        self.values.remove(&slot).map(|(_, value)| value)
    }

    fn add(&mut self, slot: Slot, ballot: Ballot, value: &Value) {
        let known = self.values.get(&slot).map(|(known, _)| *known);
        if known.is_none_or(|known| ballot > known) {
            self.values.insert(slot, (ballot, value.clone()));
        }
    }

    /// Sends Prepare to the voters that have not been asked yet.
    pub(crate) fn ask_new_voters(&mut self, cx: &mut Participant) {
        let above = cx.chosen();
        for id in cx.other_voters() {
            if let Entry::Vacant(unasked) = self.from.entry(id) {
                unasked.insert(Report { above, is_complete: false, is_restored: false });
                send_prepare(cx, id, above);
            }
        }
    }

    /// Sends Prepare again to the voters that have not reported everything. What is chosen need not be reported.
    pub(crate) fn ask_again(&mut self, cx: &mut Participant) {
        for (id, report) in self.from.iter_mut().filter(|(_, report)| !report.is_complete) {
            report.above = report.above.max(cx.chosen());
            send_prepare(cx, *id, report.above);
        }
    }

    /// A part of a report has arrived. Values of slots up to `proposed` do not matter any more. Returns whether that
    /// completes the report; asks for the next part if not.
    pub(crate) fn add_part(
        &mut self,
        cx: &mut Participant,
        from: ReplicaId,
        part: ReportPart,
        proposed: Slot,
    ) -> bool {
        let awaited = |report: &&mut Report| report.above == part.above && !report.is_complete;
        let Some(report) = self.from.get_mut(&from).filter(awaited) else { return false };
        *report =
            Report { above: part.through, is_complete: part.is_complete, is_restored: part.is_restored };
        for one in part.accepted.iter().filter(|one| one.slot > proposed) {
            self.add(one.slot, one.ballot, &one.value);
        }
        if !part.is_complete {
            send_prepare(cx, from, part.through);
        }
        part.is_complete
    }

    /// This replica's own promise counts once it is durable. Others may have elected it before; whether it may go on
    /// with other members can depend on it then. Returns whether that is new.
    pub(crate) fn add_own(&mut self, cx: &Participant, proposed: Slot) -> bool {
        let is_durable = cx.acceptor.is_promise_durable(&cx.outbox);
        if !cx.rules().counts_own_promise(is_durable) || self.is_complete(cx.id()) {
            return false;
        }
        let above = cx.chosen();
        self.from.insert(cx.id(), Report { above, is_complete: true, is_restored: cx.is_restored() });
        for (slot, ballot, value) in cx.log.range(proposed.max(above).next(), cx.log.last()) {
            self.add(slot, ballot, value);
        }
        true
    }
}

fn send_prepare(cx: &mut Participant, to: ReplicaId, above: Slot) {
    let (ballot, released, everyone) = (cx.acceptor.promised(), cx.election.released, cx.is_restored());
    cx.send(to, Message::Prepare { ballot, above, released, everyone });
}
