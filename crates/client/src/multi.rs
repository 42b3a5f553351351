//! Several changes as one: all or none.

use crate::Stat;
use bytes::Bytes;
use wombat_proto::wire::{self, change, guard};
use wombat_proto::{Generation, Result};

/// Guards, which must all hold, and changes, which are then all made, as one entry of the log.
#[derive(Clone, Default, Debug)]
pub struct Multi {
    guards: Vec<guard::Guard>,
    changes: Vec<change::Change>,
}

/// What became of one change of a [`Multi`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Changed {
    /// The node's metadata after it; `None` for a deletion.
    pub stat: Option<Stat>,
    /// The last component of a sequential name, as it was completed.
    pub name: Option<String>,
}

impl Multi {
    /// No guard and no change.
    pub fn new() -> Multi {
        Multi::default()
    }

    /// Guards that a node exists.
    #[must_use]
    pub fn exists(mut self, path: &str) -> Multi {
        self.guards.push(guard::Guard::Exists(path.into()));
        self
    }

    /// Guards that no node of that name exists.
    #[must_use]
    pub fn absent(mut self, path: &str) -> Multi {
        self.guards.push(guard::Guard::Absent(path.into()));
        self
    }

    /// Guards that a file's contents are of that generation.
    #[must_use]
    pub fn generation_is(mut self, path: &str, generation: Generation) -> Multi {
        let expected = wire::GenerationIs { path: path.into(), generation: generation.0 };
        self.guards.push(guard::Guard::GenerationIs(expected));
        self
    }

    /// Guards that this session holds a node's lock, in either mode.
    #[must_use]
    pub fn lock_held(mut self, path: &str) -> Multi {
        self.guards.push(guard::Guard::LockHeld(path.into()));
        self
    }

    /// Makes a file.
    #[must_use]
    pub fn create(mut self, path: &str, contents: impl Into<Bytes>) -> Multi {
        let node = wire::NewNode { contents: contents.into(), ..wire::NewNode::default() };
        self.changes.push(change::Change::Create(wire::CreateNode { path: path.into(), node: Some(node) }));
        self
    }

    /// Makes a file whose name is completed by a number, as [`crate::OpenOptions::sequential`] does.
    #[must_use]
    pub fn create_sequential(mut self, prefix: &str, contents: impl Into<Bytes>) -> Multi {
        let node = wire::NewNode { contents: contents.into(), sequential: true, ..wire::NewNode::default() };
        self.changes.push(change::Change::Create(wire::CreateNode { path: prefix.into(), node: Some(node) }));
        self
    }

    /// Makes a directory.
    #[must_use]
    pub fn create_directory(mut self, path: &str) -> Multi {
        let node = wire::NewNode { directory: true, ..wire::NewNode::default() };
        self.changes.push(change::Change::Create(wire::CreateNode { path: path.into(), node: Some(node) }));
        self
    }

    /// Writes a file.
    #[must_use]
    pub fn set(mut self, path: &str, contents: impl Into<Bytes>) -> Multi {
        let set = wire::SetNode { path: path.into(), contents: contents.into() };
        self.changes.push(change::Change::Set(set));
        self
    }

    /// Deletes a node.
    #[must_use]
    pub fn delete(mut self, path: &str) -> Multi {
        self.changes.push(change::Change::Delete(path.into()));
        self
    }

    /// The wire's shape, with every path resolved.
    pub(crate) fn into_wire(mut self, resolve: impl Fn(&str) -> Result<String>) -> Result<wire::Multi> {
        let guards = self.guards.iter_mut().map(|guard| match guard {
            guard::Guard::Exists(path) | guard::Guard::Absent(path) | guard::Guard::LockHeld(path) => path,
            guard::Guard::GenerationIs(expected) => &mut expected.path,
        });
        let changes = self.changes.iter_mut().map(|change| match change {
            change::Change::Create(create) => &mut create.path,
            change::Change::Set(set) => &mut set.path,
            change::Change::Delete(path) => path,
        });
        for path in guards.chain(changes) {
            *path = resolve(path)?;
        }
        Ok(wire::Multi {
            guards: self.guards.into_iter().map(|guard| wire::Guard { guard: Some(guard) }).collect(),
            changes: self.changes.into_iter().map(|change| wire::Change { change: Some(change) }).collect(),
        })
    }
}
