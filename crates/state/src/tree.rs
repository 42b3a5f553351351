//! The nodes of a cell by instance, and the names that lead to them.

use crate::CowMap;
use crate::node::{Body, Node};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Bound;
use wombat_proto::{Instance, Name, NodePath};

/// The nodes. Invariant: every node but the root stands among the children of its parent under its name.
///
/// A clone shares the nodes with its original until either changes them, so that a snapshot can be written
/// while the original goes on, and a failed Multi be taken back.
#[derive(Clone, Default, Debug)]
pub struct Tree {
    nodes: CowMap<Instance, Arc<Node>>,
    root: Option<Instance>,
    /// The nodes whose locks are held.
    held: CowMap<Instance, ()>,
    /// The nodes whose locks have a lock-delay, running or over.
    delayed: CowMap<Instance, ()>,
}

impl Tree {
    pub(crate) const fn new() -> Tree {
        Tree { nodes: CowMap::new(), root: None, held: CowMap::new(), delayed: CowMap::new() }
    }

    /// The node with that instance.
    pub fn get(&self, instance: Instance) -> Option<&Node> {
        self.nodes.get(&instance).map(|node| &**node)
    }

    /// The root directory, once the cell is founded.
    pub fn root(&self) -> Option<&Node> {
        self.get(self.root?)
    }

    /// The node that `name` leads to from `directory`.
    pub fn child(&self, directory: &Node, name: &Name) -> Option<&Node> {
        self.get(*directory.children()?.get(name)?)
    }

    /// The node that `path` leads to from `directory`.
    pub fn descend<'a>(&'a self, directory: &'a Node, path: &NodePath) -> Option<&'a Node> {
        path.names().iter().try_fold(directory, |node, name| self.child(node, name))
    }

    /// The node that `path` leads to from the root.
    pub fn find(&self, path: &NodePath) -> Option<&Node> {
        self.descend(self.root()?, path)
    }

    /// The path that leads to `node` from the root.
    pub fn path_of(&self, node: &Node) -> NodePath {
        let mut names: Vec<Name> = self.ancestry(node).map(|(_, name)| name.clone()).collect();
        names.reverse();
        names.into_iter().collect()
    }

    /// Whether `node` is that one or stands below it.
    pub fn is_at_or_below(&self, node: &Node, top: Instance) -> bool {
        node.instance == top || self.ancestry(node).any(|(directory, _)| *directory == top)
    }

    /// The places of `node` and of each directory above it, upwards.
    fn ancestry<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = &'a (Instance, Name)> {
        core::iter::successors(node.place.as_ref(), |(parent, _)| self.get(*parent)?.place.as_ref())
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether the cell has not been founded yet.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// How many locks are held.
    pub fn locks_held(&self) -> usize {
        self.held.len()
    }

    /// The nodes whose locks are held, from an instance on.
    pub fn held_from(&self, first: Instance) -> impl Iterator<Item = Instance> {
        self.held.iter_from(Bound::Included(&first)).map(|(instance, ())| *instance)
    }

    /// The nodes whose locks have a lock-delay, running or over.
    pub fn delayed(&self) -> impl Iterator<Item = &Node> {
        self.delayed.keys().filter_map(|instance| self.get(*instance))
    }

    /// All nodes, in the order of their creation.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().map(|node| &**node)
    }

    /// Those created after `after`, in order.
    pub fn nodes_after(&self, after: Instance) -> impl Iterator<Item = &Node> {
        self.nodes.iter_from(Bound::Excluded(&after)).map(|(_, node)| &**node)
    }

    /// Changes a node in place. The caller changes neither its place nor its children.
    pub(crate) fn edit<R>(&mut self, instance: Instance, change: impl FnOnce(&mut Node) -> R) -> Option<R> {
        let node = self.nodes.get_mut(&instance)?;
        let before = (node.lock.is_held(), node.lock.delay().is_some());
        let node = Arc::make_mut(node);
        let result = change(node);
        let after = (node.lock.is_held(), node.lock.delay().is_some());
        update(&mut self.held, instance, before.0, after.0);
        update(&mut self.delayed, instance, before.1, after.1);
        Some(result)
    }

    /// Puts a new node in its place. Its parent, if it has one, must be a directory without that name.
    pub(crate) fn insert(&mut self, node: Node) {
        let instance = node.instance;
        match &node.place {
            None => self.root = Some(instance),
            Some((parent, name)) => self.edit_children(*parent, |children| {
                let earlier = children.insert(name.clone(), instance);
                assert!(earlier.is_none(), "the name was taken");
            }),
        }
        update(&mut self.held, instance, false, node.lock.is_held());
        update(&mut self.delayed, instance, false, node.lock.delay().is_some());
        let earlier = self.nodes.insert(instance, Arc::new(node));
        assert!(earlier.is_none(), "the instance was taken");
    }

    /// Takes a node that has no children, and is not the root, out of its place.
    pub(crate) fn remove(&mut self, instance: Instance) -> Option<Arc<Node>> {
        let node = self.nodes.remove(&instance)?;
        self.held.remove(&instance);
        self.delayed.remove(&instance);
        if let Some((parent, name)) = &node.place {
            self.edit_children(*parent, |children| {
                children.remove(name);
            });
        }
        Some(node)
    }

    fn edit_children(&mut self, parent: Instance, change: impl FnOnce(&mut CowMap<Name, Instance>)) {
        self.edit(parent, |parent| match &mut parent.body {
            Body::Directory { children, .. } => change(children),
            Body::File { .. } => panic!("a file has no children"),
        })
        .expect("a node's parent exists");
    }
}

/// Puts an instance into a set, or takes it out, when what the set stands for has changed.
fn update(set: &mut CowMap<Instance, ()>, instance: Instance, was: bool, is: bool) {
    match (was, is) {
        (false, true) => drop(set.insert(instance, ())),
        (true, false) => drop(set.remove(&instance)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::State;
    use crate::node::tests::file;
    use alloc::format;
    use wombat_proto::Slot;
    use wombat_proto::wire::log::{self, command::Op};

    #[test]
    fn change_in_large_shared_directory_copies_little() {
        // When a clone made every change copy the directory, a create among 100,000 files took 44 ms.
        let mut state = State::new();
        let found = Op::FoundCell(log::FoundCell { cell: "test".into(), key: [1; 32].to_vec().into() });
        state.apply(Slot(1), &log::Command { op: Some(found), ..log::Command::default() });
        let root = state.tree.root().unwrap().instance;
        let name = |number: u64| Name::parse(&format!("file-{number}")).unwrap();
        (2..100_000).for_each(|slot| state.tree.insert(file(Instance(slot), (root, name(slot)))));
        let before = state.tree.clone();
        state.tree.insert(file(Instance(100_000), (root, name(100_000))));
        state.tree.remove(Instance(50_000));
        let children = |tree: &Tree| tree.root().unwrap().children().unwrap().clone();
        let (old, new) = (children(&before), children(&state.tree));
        assert_eq!((old.len(), new.len()), (99_998, 99_998));
        assert!(before.get(Instance(50_000)).is_some() && before.get(Instance(100_000)).is_none());
        let copied = new.nodes_not_shared_with(&old) + state.tree.nodes.nodes_not_shared_with(&before.nodes);
        assert!(copied <= 20, "{copied} parts of the tree were copied for two changes");
    }
}
