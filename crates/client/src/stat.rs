//! What is known of a node.

use wombat_proto::wire;
use wombat_proto::{Generation, Instance, Slot};

/// What is known of a node besides its contents (P§2.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stat {
    /// Greater than that of any earlier node of that name.
    pub instance: Instance,
    /// Rises with each write of a file; 1 at creation.
    pub content_generation: Generation,
    /// Rises when the lock goes from free to held.
    pub lock_generation: Generation,
    /// Rises when the ACL names change.
    pub acl_generation: Generation,
    /// xxh3-64 of the contents.
    pub checksum: u64,
    /// Bytes of contents.
    pub length: u64,
    /// How many children a directory has.
    pub children: u64,
    /// Whether it is a directory.
    pub directory: bool,
    /// Whether it vanishes when no handle has it open.
    pub ephemeral: bool,
    /// Most shared holders of its lock; 0: any number.
    pub permits: u32,
    /// When it was made, wall time in milliseconds since 1970, for people.
    pub created_wall_ms: u64,
    /// When its contents were last written, likewise.
    pub modified_wall_ms: u64,
    /// The place in the log of that write: greater than a fencing token if the write came after the grant.
    pub modified_slot: Slot,
}

/// A child of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its metadata.
    pub stat: Stat,
}

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
