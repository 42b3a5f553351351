//! Between the wire's shapes and the library's.

use crate::events::NodeEvent;
use crate::{Entry, Stat};
use wombat_proto::wire;
use wombat_proto::{Error, Generation, Instance, Slot};

impl From<wire::Stat> for Stat {
    fn from(stat: wire::Stat) -> Stat {
        Stat {
            instance: Instance(stat.instance),
            content_generation: Generation(stat.content_generation),
            lock_generation: Generation(stat.lock_generation),
            acl_generation: Generation(stat.acl_generation),
            checksum: stat.checksum,
            length: stat.length,
            children: stat.children,
            directory: stat.directory,
            ephemeral: stat.ephemeral,
            permits: stat.permits,
            created_wall_ms: stat.created_wall_ms,
            modified_wall_ms: stat.modified_wall_ms,
            modified_slot: Slot(stat.modified_slot),
        }
    }
}

impl From<wire::Entry> for Entry {
    fn from(entry: wire::Entry) -> Entry {
        Entry { name: entry.name, stat: entry.stat.unwrap_or_default().into() }
    }
}

pub(crate) fn node_event(event: &wombat_session::NodeEvent) -> NodeEvent {
    NodeEvent { kind: event.kind, child: event.child.clone(), slot: event.slot }
}

/// An answer of another kind than the call's: the server is not what it says it is.
pub(crate) fn unexpected() -> Error {
    Error::invalid("the server gave an answer that does not fit the call")
}
