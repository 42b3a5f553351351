//! A node: a small file or a directory, with its metadata (P§2.3).

use crate::CowMap;
use crate::lock::Lock;
use alloc::string::String;
use bytes::Bytes;
use wombat_proto::wire;
use wombat_proto::{Generation, HandleId, Instance, Name, SessionId, Slot};
use xxhash_rust::xxh3::xxh3_64;

/// A file or directory of the cell.
#[derive(Clone, Debug)]
pub struct Node {
    /// The stamp of its creation.
    pub instance: Instance,
    /// The directory that holds it, and its name there; `None` for the root.
    pub place: Option<(Instance, Name)>,
    /// What it holds.
    pub body: Body,
    /// Whether it vanishes when no handle has it open (and, as a directory, it is empty).
    pub ephemeral: bool,
    /// Most shared holders of its lock; 0: any number.
    pub permits: u32,
    /// The ACL names (read, write, change-ACL), inherited from the parent at creation (P§2.3).
    pub acls: [String; 3],
    /// Rises when the ACL names change.
    pub acl_generation: Generation,
    /// Its lock.
    pub lock: Lock,
    /// The handles that have it open; kept of ephemeral nodes only.
    pub openers: CowMap<(SessionId, HandleId), ()>,
    /// When it was made, wall time, for people.
    pub created_wall_ms: u64,
    /// When its contents were last written, wall time, for people; directories keep the time of creation.
    pub modified_wall_ms: u64,
    /// The stamp of that write.
    pub modified_slot: Slot,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub enum Body {
    /// Contents, read and written whole.
    File {
        /// The contents.
        contents: Bytes,
        /// Rises with each write; 1 at creation.
        generation: Generation,
        /// xxh3-64 of the contents.
        checksum: u64,
    },
    /// Children by name.
    Directory {
        /// The instances of the children.
        children: CowMap<Name, Instance>,
        /// The greatest number that has completed a child's name.
        numbered: u64,
    },
}

impl Body {
    pub(crate) fn file(contents: Bytes, generation: Generation) -> Body {
        let checksum = xxh3_64(&contents);
        Body::File { contents, generation, checksum }
    }

    pub(crate) fn directory(numbered: u64) -> Body {
        Body::Directory { children: CowMap::new(), numbered }
    }
}

impl Node {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self.body, Body::Directory { .. })
    }

    /// The children; none for a file.
    pub fn children(&self) -> Option<&CowMap<Name, Instance>> {
        match &self.body {
            Body::Directory { children, .. } => Some(children),
            Body::File { .. } => None,
        }
    }

    /// The contents; `None` for a directory.
    pub fn contents(&self) -> Option<&Bytes> {
        match &self.body {
            Body::File { contents, .. } => Some(contents),
            Body::Directory { .. } => None,
        }
    }

    /// The metadata.
    pub fn stat(&self) -> wire::Stat {
        let (content_generation, checksum, length, children) = match &self.body {
            Body::File { contents, generation, checksum } => {
                (generation.0, *checksum, contents.len() as u64, 0)
            }
            Body::Directory { children, .. } => (0, 0, 0, children.len() as u64),
        };
        wire::Stat {
            instance: self.instance.0,
            content_generation,
            lock_generation: self.lock.generation().0,
            acl_generation: self.acl_generation.0,
            checksum,
            length,
            children,
            directory: self.is_directory(),
            ephemeral: self.ephemeral,
            permits: self.permits,
            created_wall_ms: self.created_wall_ms,
            modified_wall_ms: self.modified_wall_ms,
            modified_slot: self.modified_slot.0,
        }
    }

    /// Whether nothing keeps this node alive any more.
    pub(crate) fn is_orphan(&self) -> bool {
        self.ephemeral
            && self.openers.is_empty()
            && self.children().is_none_or(|children| children.is_empty())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An empty file.
    pub(crate) fn file(instance: Instance, place: (Instance, Name)) -> Node {
        Node {
            instance,
            place: Some(place),
            body: Body::file(Bytes::new(), Generation(1)),
            ephemeral: false,
            permits: 0,
            acls: Default::default(),
            acl_generation: Generation(1),
            lock: Lock::default(),
            openers: CowMap::new(),
            created_wall_ms: 0,
            modified_wall_ms: 0,
            modified_slot: Slot(instance.0),
        }
    }
}
