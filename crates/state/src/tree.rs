//! The nodes of a cell by instance, and the names that lead to them.

use crate::node::{Body, Node};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use wombat_proto::{Instance, Name, NodePath};

/// The nodes. Invariant: every node but the root stands among the children of its parent under its name.
///
/// A clone shares the nodes with its original until either changes them, so that a snapshot can be written
/// while the original goes on.
#[derive(Clone, Default, Debug)]
pub struct Tree {
    nodes: BTreeMap<Instance, Arc<Node>>,
    root: Option<Instance>,
    /// How many locks are held, kept for the status.
    locks_held: usize,
    /// While several changes are made as one: each node that they touch as it was before the first of them, to
    /// put back if one fails; `None` for one that they made. No other copy of it is kept: each change would
    /// have to make another, and a directory may be large.
    undo: Option<BTreeMap<Instance, Option<Arc<Node>>>>,
}

impl Tree {
    pub(crate) const fn new() -> Tree {
        Tree { nodes: BTreeMap::new(), root: None, locks_held: 0, undo: None }
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
        self.locks_held
    }

    /// All nodes, in the order of their creation.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().map(|node| &**node)
    }

    /// Those created after `after`, in order.
    pub fn nodes_after(&self, after: Instance) -> impl Iterator<Item = &Node> {
        use core::ops::Bound::{Excluded, Unbounded};
        self.nodes.range((Excluded(after), Unbounded)).map(|(_, node)| &**node)
    }

    /// Changes a node in place. The caller changes neither its place nor its children.
    pub(crate) fn edit<R>(&mut self, instance: Instance, change: impl FnOnce(&mut Node) -> R) -> Option<R> {
        let node = self.nodes.get_mut(&instance)?;
        if let Some(undo) = &mut self.undo {
            undo.entry(instance).or_insert_with(|| Some(Arc::clone(node)));
        }
        let held = node.lock.is_held();
        let node = Arc::make_mut(node);
        let result = change(node);
        match (held, node.lock.is_held()) {
            (false, true) => self.locks_held += 1,
            (true, false) => self.locks_held -= 1,
            _ => {}
        }
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
        self.locks_held += usize::from(node.lock.is_held());
        if let Some(undo) = &mut self.undo {
            undo.entry(instance).or_insert(None);
        }
        let earlier = self.nodes.insert(instance, Arc::new(node));
        assert!(earlier.is_none(), "the instance was taken");
    }

    /// Takes a node that has no children, and is not the root, out of its place.
    pub(crate) fn remove(&mut self, instance: Instance) -> Option<Arc<Node>> {
        let node = self.nodes.remove(&instance)?;
        self.locks_held -= usize::from(node.lock.is_held());
        if let Some(undo) = &mut self.undo {
            undo.entry(instance).or_insert_with(|| Some(Arc::clone(&node)));
        }
        if let Some((parent, name)) = &node.place {
            self.edit_children(*parent, |children| {
                children.remove(name);
            });
        }
        Some(node)
    }

    fn edit_children(&mut self, parent: Instance, change: impl FnOnce(&mut BTreeMap<Name, Instance>)) {
        self.edit(parent, |parent| match &mut parent.body {
            Body::Directory { children, .. } => change(children),
            Body::File { .. } => panic!("a file has no children"),
        })
        .expect("a node's parent exists");
    }

    /// From now on, changes can be taken back.
    pub(crate) fn begin(&mut self) {
        assert!(self.undo.is_none(), "several changes as one do not nest");
        self.undo = Some(BTreeMap::new());
    }

    /// Keeps the changes since [`Tree::begin`].
    pub(crate) fn commit(&mut self) {
        self.undo = None;
    }

    /// Takes back the changes since [`Tree::begin`], and tells which nodes they had touched.
    pub(crate) fn roll_back(&mut self) -> Vec<Instance> {
        let undo = self.undo.take().unwrap_or_default();
        let touched = undo.keys().copied().collect();
        for (instance, earlier) in undo {
            let later = match earlier {
                Some(node) => {
                    self.locks_held += usize::from(node.lock.is_held());
                    self.nodes.insert(instance, node)
                }
                None => self.nodes.remove(&instance),
            };
            self.locks_held -= later.map_or(0, |node| usize::from(node.lock.is_held()));
        }
        touched
    }
}

#[cfg(test)]
mod tests {
    use crate::State;
    use alloc::sync::Arc;
    use wombat_proto::wire::log::{self, command::Op};
    use wombat_proto::{HandleId, SessionId, Slot};

    #[test]
    fn several_changes_of_a_node_as_one_copy_it_once_and_go_back_to_what_it_was() {
        // Of a directory with 100,000 files, each file that a Multi made there kept two copies more: 3 GB.
        let mut state = State::new();
        let found = Op::FoundCell(log::FoundCell { cell: "test".into(), key: [1; 32].to_vec().into() });
        state.apply(Slot(1), &log::Command { op: Some(found), ..log::Command::default() });
        let root = state.tree.root().unwrap().instance;
        let before = Arc::clone(&state.tree.nodes[&root]);
        state.tree.begin();
        let change = |state: &mut State, handle| {
            state.tree.edit(root, |node| node.openers.insert((SessionId(1), HandleId(handle))));
            Arc::as_ptr(&state.tree.nodes[&root])
        };
        let copy = change(&mut state, 1);
        assert_eq!(change(&mut state, 2), copy, "it is changed in place from then on");
        assert_eq!(state.tree.roll_back(), [root]);
        assert!(Arc::ptr_eq(&state.tree.nodes[&root], &before));
    }
}
