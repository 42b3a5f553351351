//! Books of events (SPEC I12): what happened to which node when, and what each subscribed handle has heard of it.
//! Between a fail-over or a gap and the next, a handle hears all of it, in the order of the log, once.

use std::collections::{BTreeMap, BTreeSet};
use wombat_proto::wire::{Handle, event::Kind};
use wombat_proto::{HandleId, Instance, Slot};
use wombat_session::NodeEvent;
use wombat_state::Change;

/// Something that happened to a node.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Happened {
    slot: Slot,
    kind: Kind,
    child: Option<String>,
}

/// What a handle hears of its node.
struct Stream {
    instance: Instance,
    kinds: u32,
    /// Up to here it may have missed anything: it had not subscribed yet, or there was a gap.
    may_miss: Slot,
    /// It has heard of so many of the things that happened, or missed them.
    passed: usize,
}

/// Not yet: it may miss everything, as far as anyone can see from outside.
const NOT_YET: Slot = Slot(u64::MAX);

#[derive(Default)]
pub(in crate::cell) struct Events {
    happened: BTreeMap<Instance, Vec<Happened>>,
    /// By client and handle.
    streams: BTreeMap<(usize, HandleId), Stream>,
    /// The handles that were closed, and the clients that are gone: a copy of an Open may still be answered.
    deaf: BTreeSet<(usize, HandleId)>,
    gone: BTreeSet<usize>,
}

impl Events {
    /// A change has taken effect.
    pub(in crate::cell) fn note(&mut self, slot: Slot, change: &Change) {
        let (instance, kind, child) = match change {
            Change::ContentsModified { instance } => (*instance, Kind::ContentsModified, None),
            Change::ChildAdded { parent, name } => (*parent, Kind::ChildAdded, Some(name)),
            Change::ChildRemoved { parent, name } => (*parent, Kind::ChildRemoved, Some(name)),
            Change::ChildModified { parent, name } => (*parent, Kind::ChildModified, Some(name)),
            Change::Deleted { instance } => (*instance, Kind::HandleInvalid, None),
            Change::LockAcquired { instance, .. } => (*instance, Kind::LockAcquired, None),
            Change::LockReleased { instance, .. } | Change::LockDelayed { instance, .. } => {
                (*instance, Kind::LockReleased, None)
            }
            Change::LockBroken { .. } | Change::SessionEnded { .. } => return,
        };
        let child = child.map(|name| name.as_str().to_owned());
        self.happened.entry(instance).or_default().push(Happened { slot, kind, child });
    }

    /// A master that has applied so much has opened a handle: from then on, at the latest, it is subscribed.
    pub(in crate::cell) fn opened(&mut self, client: usize, handle: &Handle, applied: Slot) {
        let (key, instance) = ((client, HandleId(handle.id)), Instance(handle.instance));
        if handle.events == 0 || self.deaf.contains(&key) || self.gone.contains(&client) {
            return;
        }
        // A retry at another master may come to another node of the name.
        if self.streams.get(&key).is_none_or(|stream| stream.instance != instance) {
            let stream = Stream { instance, kinds: handle.events, may_miss: NOT_YET, passed: 0 };
            self.streams.insert(key, stream);
        }
        self.presented(client, key.1, applied);
    }

    /// The same of a handle that a master has made again, as its answer shows.
    pub(in crate::cell) fn presented(&mut self, client: usize, handle: HandleId, applied: Slot) {
        if let Some(stream) = self.streams.get_mut(&(client, handle)) {
            stream.may_miss = stream.may_miss.min(applied);
        }
    }

    /// A handle is about to be closed.
    pub(in crate::cell) fn closed(&mut self, client: usize, handle: HandleId) {
        self.deaf.insert((client, handle));
        self.streams.remove(&(client, handle));
    }

    /// A client has no session any more, or nobody is there who listens.
    pub(in crate::cell) fn forget(&mut self, client: usize) {
        self.gone.insert(client);
        self.streams.retain(|(one, _), _| *one != client);
    }

    /// A client has heard of something: of what comes next, and nothing is left out. Returns what it knows of a
    /// node now, and as of when.
    pub(in crate::cell) fn heard(&mut self, client: usize, event: &NodeEvent) -> Option<(Instance, Slot)> {
        match event.kind {
            Kind::FailedOver => self.miss(client, NOT_YET),
            Kind::Gap => self.miss(client, event.slot),
            Kind::LockConflict => {} // It is no change of the log.
            _ => return self.heard_of_node(client, event),
        }
        None
    }

    fn miss(&mut self, client: usize, up_to: Slot) {
        for (_, stream) in self.streams.iter_mut().filter(|((one, _), _)| *one == client) {
            stream.may_miss = stream.may_miss.max(up_to);
        }
    }

    fn heard_of_node(&mut self, client: usize, event: &NodeEvent) -> Option<(Instance, Slot)> {
        // It may have been on its way when the handle was closed.
        let stream = self.streams.get_mut(&(client, event.handle))?;
        let heard = Happened { slot: event.slot, kind: event.kind, child: event.child.clone() };
        let happened = self.happened.get(&stream.instance).map_or(&[][..], Vec::as_slice);
        for next in happened[stream.passed..].iter() {
            stream.passed += 1;
            if stream.kinds & next.kind.bit() == 0 {
                continue;
            }
            if *next == heard {
                // Now it is known to be subscribed.
                if stream.may_miss == NOT_YET {
                    stream.may_miss = Slot(heard.slot.0 - 1);
                }
                return Some((stream.instance, heard.slot));
            }
            let missed = next.slot > stream.may_miss;
            assert!(!missed, "I12: client {client} hears of {heard:?}, and has not heard of {next:?}");
        }
        panic!("I12: client {client} hears of {heard:?}, which did not happen, or has been told before");
    }

    /// Whether a client that listens has still something to hear, or a handle of its has still to be presented to
    /// the master.
    pub(in crate::cell) fn outstanding(&self, client: usize) -> bool {
        let streams = self.streams.range((client, HandleId(0))..=(client, HandleId(u64::MAX)));
        streams.into_iter().any(|(_, stream)| {
            let happened = self.happened.get(&stream.instance).map_or(&[][..], Vec::as_slice);
            let gone = happened.last().is_some_and(|last| last.kind == Kind::HandleInvalid);
            let wanted = |next: &Happened| stream.kinds & next.kind.bit() != 0 && next.slot > stream.may_miss;
            (stream.may_miss == NOT_YET && !gone) || happened[stream.passed..].iter().any(wanted)
        })
    }
}
