//! What replicas say, as frames and back.

use std::time::Duration;
use wombat_proto::limits::LONGEST_MASTER_LEASE;
use wombat_proto::wire::peer::{self as wire, frame::Message as Wire};
use wombat_proto::{Accepted, Ballot, Members, ReplicaId, Slot, Value};
use wombat_replica::{Mark, PaxosMessage as Message, PeerMessage};

fn ballot(ballot: Ballot) -> Option<wire::Ballot> {
    let Ballot { round, replica, incarnation } = ballot;
    Some(wire::Ballot { round, replica: replica.0, incarnation })
}

fn ballot_of(ballot: Option<wire::Ballot>) -> Option<Ballot> {
    let wire::Ballot { round, replica, incarnation } = ballot?;
    Some(Ballot { round, replica: ReplicaId(replica), incarnation })
}

fn mark(mark: Mark) -> wire::Mark {
    wire::Mark { life: mark.life, number: mark.number }
}

fn mark_of(mark: wire::Mark) -> Mark {
    Mark { life: mark.life, number: mark.number }
}

fn value(value: Value) -> wire::Value {
    use wire::value::Value as Wire;
    let value = match value {
        Value::Noop => Wire::Noop(true),
        Value::Command(command) => Wire::Command(command),
        Value::Members(members) => Wire::Members((&members).into()),
    };
    wire::Value { value: Some(value) }
}

fn value_of(value: wire::Value) -> Option<Value> {
    use wire::value::Value as Wire;
    Some(match value.value? {
        Wire::Noop(_) => Value::Noop,
        Wire::Command(command) => Value::Command(command),
        Wire::Members(members) => Value::Members(Members::try_from(members).ok()?),
    })
}

fn accepted(accepted: Vec<Accepted>) -> Vec<wire::AcceptedValue> {
    let one = |one: Accepted| wire::AcceptedValue {
        slot: one.slot.0,
        ballot: ballot(one.ballot),
        value: Some(value(one.value)),
    };
    accepted.into_iter().map(one).collect()
}

fn accepted_of(accepted: Vec<wire::AcceptedValue>) -> Option<Vec<Accepted>> {
    let one = |one: wire::AcceptedValue| {
        Some(Accepted { slot: Slot(one.slot), ballot: ballot_of(one.ballot)?, value: value_of(one.value?)? })
    };
    accepted.into_iter().map(one).collect()
}

/// A message as a frame.
pub(crate) fn to_frame(message: PeerMessage) -> wire::Frame {
    let message = match message {
        PeerMessage::Paxos(message) => of_paxos(message),
        PeerMessage::Digest { slot, digest } => Wire::Digest(wire::Digest { slot: slot.0, digest }),
    };
    wire::Frame { message: Some(message), number: 0 }
}

fn of_paxos(message: Message) -> Wire {
    match message {
        Message::Ask { round, chosen, everyone } => {
            Wire::Ask(wire::Ask { round, chosen: chosen.0, everyone })
        }
        Message::Answer { round, granted, promised, chosen } => {
            Wire::Answer(wire::Answer { round, granted, promised: ballot(promised), chosen: chosen.0 })
        }
        Message::Prepare { ballot: b, above, released, everyone } => Wire::Prepare(wire::Prepare {
            ballot: ballot(b),
            above: above.0,
            released: ballot(released),
            everyone,
        }),
        Message::Promise { ballot: b, above, accepted: values, through, complete, restored } => {
            Wire::Promise(wire::Promise {
                ballot: ballot(b),
                above: above.0,
                accepted: accepted(values),
                through: through.0,
                complete,
                restored,
            })
        }
        Message::Accept { ballot: b, base, first, values, chosen } => Wire::Accept(wire::Accept {
            ballot: ballot(b),
            base: base.0,
            first: first.0,
            values: values.iter().cloned().map(value).collect(),
            chosen: chosen.0,
        }),
        Message::Accepted { ballot: b, through } => {
            Wire::Accepted(wire::Accepted { ballot: ballot(b), through: through.0 })
        }
        Message::Heartbeat {
            ballot: b,
            base,
            sequence,
            lease,
            chosen,
            kept_after,
            mark: m,
            barrier,
            reinstates,
            acknowledged,
        } => Wire::Heartbeat(wire::Heartbeat {
            ballot: ballot(b),
            base: base.0,
            sequence,
            lease_ns: lease.as_nanos() as u64,
            chosen: chosen.0,
            kept_after: kept_after.0,
            mark: m.map(mark),
            barrier: barrier.map(|slot| slot.0),
            reinstates,
            acknowledged: acknowledged.0,
        }),
        Message::Granted { ballot: b, sequence, chosen, mark: m, received } => {
            let (ballot, mark) = (ballot(b), Some(mark(m)));
            let (chosen, received) = (chosen.0, received.0);
            Wire::Granted(wire::Granted { ballot, sequence, chosen, mark, received })
        }
        Message::Refused { promised } => Wire::Refused(wire::Refused { promised: ballot(promised) }),
        Message::Fetch { above } => Wire::Fetch(wire::Fetch { above: above.0 }),
        Message::Learn { chosen, through } => {
            Wire::Learn(wire::Learn { chosen: accepted(chosen), through: through.0 })
        }
        Message::Truncated { snapshot } => Wire::Truncated(wire::Truncated { snapshot: snapshot.0 }),
        Message::FetchChunk { snapshot, index } => {
            Wire::FetchChunk(wire::FetchChunk { snapshot: snapshot.0, index })
        }
        Message::Chunk { snapshot, index, last, bytes } => {
            Wire::Chunk(wire::Chunk { snapshot: snapshot.0, index, last, bytes })
        }
        Message::TakeOver { ballot: b, stalls } => {
            Wire::TakeOver(wire::TakeOver { ballot: ballot(b), stalls })
        }
        Message::Restored { number } => Wire::Restored(wire::Restored { number }),
    }
}

/// The message of a frame; `None` if it makes no sense.
pub(crate) fn from_frame(frame: wire::Frame) -> Option<PeerMessage> {
    match frame.message? {
        Wire::Digest(wire::Digest { slot, digest }) => Some(PeerMessage::Digest { slot: Slot(slot), digest }),
        message => to_paxos(message).map(PeerMessage::Paxos),
    }
}

fn to_paxos(message: Wire) -> Option<Message> {
    Some(match message {
        Wire::Ask(wire::Ask { round, chosen, everyone }) => {
            Message::Ask { round, chosen: Slot(chosen), everyone }
        }
        Wire::Answer(answer) => Message::Answer {
            round: answer.round,
            granted: answer.granted,
            promised: ballot_of(answer.promised)?,
            chosen: Slot(answer.chosen),
        },
        Wire::Prepare(prepare) => Message::Prepare {
            ballot: ballot_of(prepare.ballot)?,
            above: Slot(prepare.above),
            released: ballot_of(prepare.released)?,
            everyone: prepare.everyone,
        },
        Wire::Promise(promise) => Message::Promise {
            ballot: ballot_of(promise.ballot)?,
            above: Slot(promise.above),
            accepted: accepted_of(promise.accepted)?,
            through: Slot(promise.through),
            complete: promise.complete,
            restored: promise.restored,
        },
        Wire::Accept(accept) => Message::Accept {
            ballot: ballot_of(accept.ballot)?,
            base: Slot(accept.base),
            first: Slot(accept.first),
            values: accept.values.into_iter().map(value_of).collect::<Option<Vec<_>>>()?.into(),
            chosen: Slot(accept.chosen),
        },
        Wire::Accepted(accepted) => {
            Message::Accepted { ballot: ballot_of(accepted.ballot)?, through: Slot(accepted.through) }
        }
        Wire::Heartbeat(heartbeat) => Message::Heartbeat {
            ballot: ballot_of(heartbeat.ballot)?,
            base: Slot(heartbeat.base),
            sequence: heartbeat.sequence,
            // Whoever grants it remembers for good how long it may be bound.
            lease: Some(Duration::from_nanos(heartbeat.lease_ns))
                .filter(|lease| *lease <= LONGEST_MASTER_LEASE)?,
            chosen: Slot(heartbeat.chosen),
            kept_after: Slot(heartbeat.kept_after),
            mark: heartbeat.mark.map(mark_of),
            barrier: heartbeat.barrier.map(Slot),
            reinstates: heartbeat.reinstates,
            acknowledged: Slot(heartbeat.acknowledged),
        },
        Wire::Granted(granted) => Message::Granted {
            ballot: ballot_of(granted.ballot)?,
            sequence: granted.sequence,
            chosen: Slot(granted.chosen),
            mark: mark_of(granted.mark.unwrap_or_default()),
            received: Slot(granted.received),
        },
        Wire::Refused(refused) => Message::Refused { promised: ballot_of(refused.promised)? },
        Wire::Fetch(fetch) => Message::Fetch { above: Slot(fetch.above) },
        Wire::Learn(learn) => {
            Message::Learn { chosen: accepted_of(learn.chosen)?, through: Slot(learn.through) }
        }
        Wire::Truncated(truncated) => Message::Truncated { snapshot: Slot(truncated.snapshot) },
        Wire::FetchChunk(fetch) => Message::FetchChunk { snapshot: Slot(fetch.snapshot), index: fetch.index },
        Wire::Chunk(chunk) => Message::Chunk {
            snapshot: Slot(chunk.snapshot),
            index: chunk.index,
            last: chunk.last,
            bytes: chunk.bytes,
        },
        Wire::TakeOver(take_over) => {
            Message::TakeOver { ballot: ballot_of(take_over.ballot)?, stalls: take_over.stalls }
        }
        Wire::Restored(wire::Restored { number }) => Message::Restored { number },
        Wire::Digest(_) => return None,
    })
}
