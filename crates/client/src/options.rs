//! How to open a node (P§2.6).

use crate::{Consistency, EventKind};
use bytes::Bytes;
use std::time::Duration;
use wombat_proto::wire::{self, event, mode};

/// Whether an open may or must make the node.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Create {
    /// It must exist.
    #[default]
    Never,
    /// It is made if it does not exist.
    May,
    /// It must not exist.
    Must,
}

/// How to open a node: for what use, with which events, and what to make if it is not there. The default
/// reads, and never makes anything.
#[derive(Clone, Default, Debug)]
pub struct OpenOptions {
    write: bool,
    events: u32,
    lock_delay: Duration,
    create: Create,
    node: wire::NewNode,
    pub(crate) consistency: Consistency,
}

impl OpenOptions {
    /// Reads what exists.
    pub fn new() -> OpenOptions {
        OpenOptions::default()
    }

    /// The handle may not only read, but write, delete, and take the lock in either mode.
    #[must_use]
    pub fn write(mut self) -> OpenOptions {
        self.write = true;
        self
    }

    /// Whether to make the node.
    #[must_use]
    pub fn create(mut self, create: Create) -> OpenOptions {
        self.create = create;
        self
    }

    /// The node to make is a directory.
    #[must_use]
    pub fn directory(mut self) -> OpenOptions {
        self.node.directory = true;
        self
    }

    /// The node to make vanishes when no handle has it open.
    #[must_use]
    pub fn ephemeral(mut self) -> OpenOptions {
        self.node.ephemeral = true;
        self
    }

    /// What the file to make holds.
    #[must_use]
    pub fn contents(mut self, contents: impl Into<Bytes>) -> OpenOptions {
        self.node.contents = contents.into();
        self
    }

    /// The name is completed by a number of at least ten digits: `job-` becomes `job-0000000001`. Each is greater
    /// than every earlier one of that directory. [`crate::Node::path`] tells it. The node is always made, so this
    /// implies [`Create::Must`].
    #[must_use]
    pub fn sequential(mut self) -> OpenOptions {
        self.create = Create::Must;
        self.node.sequential = true;
        self
    }

    /// Most shared holders of the lock of the node to make: a semaphore. 0: any number.
    #[must_use]
    pub fn permits(mut self, permits: u32) -> OpenOptions {
        self.node.permits = permits;
        self
    }

    /// For how long nobody else may have the lock if this session ends while it holds it (P§2.4); at most a
    /// minute.
    #[must_use]
    pub fn lock_delay(mut self, delay: Duration) -> OpenOptions {
        self.lock_delay = delay;
        self
    }

    /// Who answers whether the node is there: the cache, if it can, or the master in any case. Reading it is another
    /// matter: [`crate::Node::at`].
    #[must_use]
    pub fn at(mut self, consistency: Consistency) -> OpenOptions {
        self.consistency = consistency;
        self
    }

    /// What the handle wants to hear of.
    #[must_use]
    pub fn events(mut self, kinds: &[EventKind]) -> OpenOptions {
        self.events = kinds.iter().fold(self.events, |bits, kind| bits | kind.bit());
        self
    }

    /// What the handle wants to hear of happens anywhere below the directory, too: events of children come with
    /// the way there, `a/b/c`, and so does [`EventKind::LockAcquired`] of a node below.
    #[must_use]
    pub fn recursive(mut self) -> OpenOptions {
        self.events |= event::BELOW;
        self
    }

    /// A guard of the handle hears of those who wait for its lock: [`crate::LockGuard::wanted`]. It costs the
    /// cell an event for each Acquire that begins to wait while the handle holds the lock.
    #[must_use]
    pub fn gives_way(self) -> OpenOptions {
        self.events(&[EventKind::LockConflict])
    }

    pub(crate) fn has_events(&self) -> bool {
        self.events != 0
    }

    pub(crate) fn into_open(self, directory: Option<wire::Handle>, path: String) -> wire::Open {
        let create = match self.create {
            Create::Never => wire::open::Create::Never,
            Create::May => wire::open::Create::May,
            Create::Must => wire::open::Create::Must,
        };
        wire::Open {
            directory,
            path,
            mode: if self.write { mode::READ | mode::WRITE } else { mode::READ },
            events: self.events,
            lock_delay_ms: u32::try_from(self.lock_delay.as_millis()).unwrap_or(u32::MAX),
            create: create.into(),
            node: (self.create != Create::Never).then_some(self.node),
        }
    }
}
