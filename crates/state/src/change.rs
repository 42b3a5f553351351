//! What an entry changed: the source of events (P§2.5), of grants to waiters, and later of invalidations.

use core::time::Duration;
use wombat_proto::{HandleId, Instance, Name, SessionId, Slot};

/// One change. An entry's changes come in the order in which they happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A file's contents are new.
    ContentsModified {
        /// The file.
        instance: Instance,
    },
    /// A directory has a new child.
    ChildAdded {
        /// The directory.
        parent: Instance,
        /// The child's name.
        name: Name,
    },
    /// A directory has lost a child.
    ChildRemoved {
        /// The directory.
        parent: Instance,
        /// The child's name.
        name: Name,
    },
    /// The contents of a directory's child are new.
    ChildModified {
        /// The directory.
        parent: Instance,
        /// The child's name.
        name: Name,
    },
    /// A node is gone; every handle on it is stale.
    Deleted {
        /// What it was.
        instance: Instance,
    },
    /// A lock was granted.
    LockAcquired {
        /// The locked node.
        instance: Instance,
        /// The session and the handle that hold it.
        holder: (SessionId, HandleId),
    },
    /// A holder is gone; waiters may have their turn.
    LockReleased {
        /// The node.
        instance: Instance,
        /// The session and the handle that held it.
        holder: (SessionId, HandleId),
    },
    /// A holder's session ended without a release, or its lock was broken: the lock-delay runs from now (P§2.4).
    LockDelayed {
        /// The node.
        instance: Instance,
        /// The session and the handle that held it.
        holder: (SessionId, HandleId),
        /// Names the delay.
        since: Slot,
        /// How long it lasts.
        length: Duration,
    },
    /// A lock was broken that this handle held.
    LockBroken {
        /// The holder's session.
        session: SessionId,
        /// The holder.
        handle: HandleId,
    },
    /// A session is gone, with all its handles.
    SessionEnded {
        /// Which.
        session: SessionId,
    },
}
