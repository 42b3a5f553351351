//! The invariants of a whole state, checked after every step in tests and simulation (SPEC §11).

use crate::State;
use crate::node::{Body, Node};
use crate::session::names_in;
use wombat_proto::limits::UNACKNOWLEDGED_OUTCOMES;
use wombat_proto::{Instance, LockMode};

impl State {
    /// Panics, naming the invariant, if the state could not have come about by rightful changes.
    pub fn check(&self) {
        let Some(root) = self.tree.root() else {
            assert!(self.tree.is_empty() && self.sessions.is_empty(), "an unfounded cell is empty");
            return;
        };
        assert!(root.place.is_none() && root.is_directory(), "the root is a directory without a place");
        let mut links = 0;
        for node in self.tree.nodes() {
            assert!(node.instance <= self.last_instance, "no instance is ahead of the last one");
            self.check_place(node);
            self.check_lock(node);
            self.check_openers(node);
            links += node.children().map_or(0, |children| children.len());
        }
        assert_eq!(links + 1, self.tree.len(), "every node but the root is somebody's child");
        let held = self.tree.nodes().filter(|node| node.lock.is_held()).map(|node| node.instance);
        assert!(held.eq(self.tree.held_from(Instance(0))), "the index of held locks is complete");
        let delayed = self.tree.nodes().filter(|node| node.lock.delay().is_some()).map(|node| node.instance);
        assert!(
            delayed.eq(self.tree.delayed().map(|node| node.instance)),
            "the index of lock-delays is complete"
        );
        self.check_sessions();
    }

    fn check_place(&self, node: &Node) {
        if let Some((parent, name)) = &node.place {
            let siblings =
                self.tree.get(*parent).and_then(Node::children).expect("a node's parent is a directory");
            assert_eq!(siblings.get(name), Some(&node.instance), "a node stands under its name");
            assert!(*parent < node.instance, "a child is younger than its parent");
        }
        if let Body::File { generation, .. } = &node.body {
            assert!(generation.0 >= 1, "contents have a generation from 1");
        }
    }

    /// I3: one exclusive holder or shared ones up to the permits; holders live and know of it.
    fn check_lock(&self, node: &Node) {
        let holders = node.lock.holder_count();
        let most = if node.permits == 0 { usize::MAX } else { node.permits as usize };
        let exclusive = node.lock.holders().filter(|(_, holder)| holder.mode == LockMode::Exclusive).count();
        match exclusive {
            0 => assert!(holders <= most, "I3: no more shared holders than permits"),
            _ => assert_eq!(holders, 1, "I3: an exclusive holder is alone"),
        }
        for ((session, handle), holder) in node.lock.holders() {
            let session = self.sessions.get(&session).expect("I3: a holder's session lives");
            assert!(session.locks.contains(&(node.instance, handle)), "a session knows what it holds");
            assert!(holder.token.0 <= self.stamp().0, "I4: a token is the stamp of an applied grant");
        }
    }

    /// I11: an ephemeral node exists only while a live session has it open, or it has children.
    fn check_openers(&self, node: &Node) {
        assert!(node.ephemeral || node.openers.is_empty(), "only ephemeral nodes keep their openers");
        assert!(!node.is_orphan(), "I11: an ephemeral node that nobody has open is gone");
        for (session, handle) in node.openers.keys() {
            let session = self.sessions.get(session).expect("I11: an opener's session lives");
            assert!(session.ephemerals.contains(&(node.instance, *handle)), "a session knows what it keeps");
        }
    }

    fn check_sessions(&self) {
        let node = |instance: &Instance| self.tree.get(*instance).expect("what a session has exists");
        for (id, session) in &self.sessions {
            assert!(id.0 <= self.stamp().0, "a session's id is the stamp of an applied slot");
            assert!(session.outcomes.len() <= UNACKNOWLEDGED_OUTCOMES, "I20: kept answers are bounded");
            assert_eq!(session.names, names_in(&session.outcomes), "names in kept answers are counted right");
            assert!(session.outcomes.keys().all(|number| *number > session.acknowledged));
            for (instance, handle) in &session.locks {
                assert!(node(instance).lock.holder(*id, *handle).is_some(), "a held lock knows its holder");
            }
            for (instance, handle) in &session.ephemerals {
                assert!(node(instance).openers.contains_key(&(*id, *handle)), "a node knows its opener");
            }
        }
    }
}
