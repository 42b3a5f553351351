//! What a command changes of what can be cached (P§2.7). Never less than what it does when it is applied,
//! whatever else is on its way into the log before it.

use crate::Replica;
use crate::proposals::Opens;
use alloc::vec::Vec;
use wombat_proto::wire::{change, log, log::command::Op};
use wombat_proto::{CacheKey, HandleId, Instance, Name, NodePath, SessionId, Token};
use wombat_state::{Node, State};

/// The keys that a command touches. A listing shows the stats of the children, so what changes a stat changes
/// the listing above.
struct Touched<'a> {
    state: &'a State,
    keys: Vec<CacheKey>,
}

impl<'a> Touched<'a> {
    fn node(&self, instance: u64) -> Option<&'a Node> {
        self.state.tree().get(Instance(instance))
    }

    /// The stat of a node changes, and perhaps its contents.
    fn write(&mut self, node: &Node) {
        self.keys.push(CacheKey::node(node.instance));
        if let Some((parent, _)) = &node.place {
            self.keys.push(CacheKey::listing(*parent));
        }
    }

    /// A directory gets or loses a child.
    fn children(&mut self, directory: &Node) {
        self.keys.push(CacheKey::listing(directory.instance));
        self.write(directory);
    }

    /// A directory gets a child of that name; without one, of a name that is not known yet.
    fn birth(&mut self, directory: &Node, name: Option<Name>) {
        self.keys.push(match name {
            Some(name) => CacheKey::absence(directory.instance, name),
            None => CacheKey::any_absence(directory.instance),
        });
        self.children(directory);
    }

    /// A node goes.
    fn death(&mut self, node: &Node) {
        self.keys.push(CacheKey::node(node.instance));
        if node.is_directory() {
            self.keys.push(CacheKey::listing(node.instance));
            self.keys.push(CacheKey::any_absence(node.instance));
        }
        let parent = node.place.as_ref().and_then(|(parent, _)| self.node(parent.0));
        if let Some(parent) = parent {
            self.death_in(parent);
        }
    }

    /// A child of a directory goes, and with the last one the directory itself if it is ephemeral.
    fn death_in(&mut self, directory: &Node) {
        self.children(directory);
        if directory.ephemeral {
            self.death(directory);
        }
    }

    /// A handle goes, and with it the ephemeral node that it may be the last to keep alive.
    fn close(&mut self, instance: u64, session: u64, handle: u64) {
        self.end_grant(instance, session, handle);
        let opener = (SessionId(session), HandleId(handle));
        if let Some(node) = self.node(instance).filter(|node| node.openers.contains_key(&opener)) {
            self.death(node);
        }
    }

    /// A grant ends, and with it the contents that were its holder's own.
    fn end_grant(&mut self, instance: u64, session: u64, handle: u64) {
        let Some(node) = self.node(instance) else { return };
        let holder = node.lock.holder(SessionId(session), HandleId(handle));
        if holder.is_some_and(|holder| holder.clears_contents) {
            self.write(node);
        }
    }

    /// What an Open that comes before may keep alive goes.
    fn unopen(&mut self, opens: &Opens) {
        match opens {
            Opens::Grant(node) => self.node(node.0).into_iter().for_each(|node| self.write(node)),
            Opens::Node(node) => self.node(node.0).into_iter().for_each(|node| self.death(node)),
            Opens::Child(directory, name) => {
                let Some(directory) = self.node(directory.0) else { return };
                // Perhaps another than the one that is there now.
                self.death_in(directory);
                let child = self.state.tree().child(directory, name);
                child.into_iter().for_each(|child| self.death(child));
            }
        }
    }

    /// How far a path leads: to a node, or to a directory that lacks a name of it.
    fn walk(&self, path: &NodePath) -> Option<(&'a Node, Option<(Name, bool)>)> {
        let mut node = self.state.tree().root()?;
        for (index, name) in path.names().iter().enumerate() {
            match self.state.tree().child(node, name) {
                Some(child) => node = child,
                None => return Some((node, Some((name.clone(), index + 1 == path.names().len())))),
            }
        }
        Some((node, None))
    }

    /// A change of what a path leads to when it is applied: to the node that it leads to now, or else to one that
    /// is made until then. Of that one nothing is said here (see `Cache::young`), but of the directories that are
    /// there now.
    fn change_by_name(&mut self, path: &NodePath, change: &change::Change) {
        let Some((node, missing)) = self.walk(path) else { return };
        match (change, missing) {
            (change::Change::Create(create), missing) => {
                let sequential = create.node.as_ref().is_some_and(|new| new.sequential);
                let parent =
                    node.place.as_ref().and_then(|(parent, name)| Some((self.node(parent.0)?, name)));
                match (missing, parent) {
                    (Some((name, last)), _) => self.birth(node, Some(name).filter(|_| !(last && sequential))),
                    // It may be gone by then, or is a beginning that a number completes.
                    (None, Some((parent, name))) => {
                        self.birth(parent, Some(name.clone()).filter(|_| !sequential));
                    }
                    (None, None) => {}
                }
            }
            (change::Change::Set(_), None) => self.write(node),
            (change::Change::Set(_), Some(_)) => self.keys.push(CacheKey::listing(node.instance)),
            (change::Change::Delete(_), None) => self.death(node),
            (change::Change::Delete(_), Some(_)) => self.death_in(node),
        }
    }
}

impl Replica {
    /// What a command touches that a session asks for, or the cell (0).
    pub(super) fn touched(&self, session: SessionId, op: &Op) -> Vec<CacheKey> {
        let mut touched = Touched { state: &self.state, keys: Vec::new() };
        match op {
            Op::SetContents(log::SetContents { instance, .. }) | Op::Grant(log::Grant { instance, .. }) => {
                if let Some(node) = touched.node(*instance) {
                    touched.write(node);
                }
            }
            Op::Delete(delete) => {
                if let Some(node) = touched.node(delete.instance) {
                    touched.death(node);
                }
            }
            // To open what exists changes nothing that anybody sees.
            Op::Open(open) if open.instance == 0 => {
                let sequential = open.node.as_ref().is_some_and(|new| new.sequential);
                let name = Name::parse(&open.name).ok().filter(|_| !sequential);
                if let Some(parent) = touched.node(open.parent) {
                    touched.birth(parent, name);
                }
            }
            Op::Multi(log::Multi { steps: Some(multi) }) => {
                for change in multi.changes.iter().filter_map(|change| change.change.as_ref()) {
                    let path = match change {
                        change::Change::Create(create) => &create.path,
                        change::Change::Set(set) => &set.path,
                        change::Change::Delete(path) => path,
                    };
                    if let Ok(path) = self.parse(path) {
                        touched.change_by_name(&path, change);
                    }
                }
            }
            Op::Close(log::Close { instance, handle }) | Op::Release(log::Release { instance, handle }) => {
                touched.close(*instance, session.0, *handle);
                // A grant that is on its way into the log is there before this.
                let sessions = [session.0];
                let ahead = self.proposals.opened_by(&sessions);
                ahead
                    .filter(|ahead| matches!(ahead, Opens::Grant(_)))
                    .for_each(|ahead| touched.unopen(ahead));
            }
            Op::BreakLock(broken) => {
                for token in &broken.tokens {
                    let node = touched.node(broken.instance);
                    let holder = node.and_then(|node| node.lock.holder_of_token(Token(*token)));
                    if let Some(((session, handle), _)) = holder {
                        touched.end_grant(broken.instance, session.0, handle.0);
                    }
                }
            }
            Op::CloseOrphans(orphans) => {
                for one in &orphans.handles {
                    touched.close(one.instance, one.session, one.handle);
                }
            }
            Op::EndSessions(end) => {
                for id in &end.sessions {
                    let Some(session) = self.state.session(SessionId(*id)) else { continue };
                    for (instance, handle) in session.ephemerals().chain(session.locks()) {
                        touched.close(instance.0, *id, handle.0);
                    }
                }
                // What they have asked for takes effect before they end.
                for opens in self.proposals.opened_by(&end.sessions) {
                    touched.unopen(opens);
                }
            }
            _ => {}
        }
        touched.keys.sort_unstable();
        touched.keys.dedup();
        touched.keys
    }

    /// Whether a command may touch nodes that are not made yet when it is proposed.
    pub(crate) fn reaches_young(op: &Op) -> bool {
        matches!(op, Op::Multi(_) | Op::EndSessions(_))
    }
}
