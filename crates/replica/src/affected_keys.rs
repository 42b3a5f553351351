//! The cache keys that a command affects (P§2.7): never fewer than it changes when it is applied, whatever else is
//! on its way into the log before it.

use crate::context::View;
use crate::tables::proposals::PendingOpen;
use alloc::vec::Vec;
use wombat_proto::wire::{change, log, log::command::Op};
use wombat_proto::{CacheKey, HandleId, Instance, Name, NodePath, SessionId, Token};
use wombat_state::{Node, State};

/// The keys that a command of a session (0: of the replica itself) affects.
pub(crate) fn affected_keys(view: View<'_>, session: SessionId, op: &Op) -> Vec<CacheKey> {
    let View { config, state, .. } = view;
    let proposals = view.log.proposals();
    let mut collector = Collector { state, keys: Vec::new() };
    match op {
        Op::SetContents(log::SetContents { instance, .. }) | Op::Grant(log::Grant { instance, .. }) => {
            if let Some(node) = collector.node(*instance) {
                collector.write(node);
            }
        }
        Op::Delete(delete) => {
            if let Some(node) = collector.node(delete.instance) {
                collector.delete(node);
            }
        }
        // An Open of an existing node changes no cached entry.
        Op::Open(open) if open.instance == 0 => {
            let sequential = open.node.as_ref().is_some_and(|new| new.sequential);
            let name = Name::parse(&open.name).ok().filter(|_| !sequential);
            if let Some(parent) = collector.node(open.parent) {
                collector.create(parent, name);
            }
        }
        Op::Multi(log::Multi { steps: Some(multi) }) => {
            for change in multi.changes.iter().filter_map(|change| change.change.as_ref()) {
                let path = match change {
                    change::Change::Create(create) => &create.path,
                    change::Change::Set(set) => &set.path,
                    change::Change::Delete(path) => path,
                };
                if let Ok(path) = config.parse_path(path) {
                    collector.change_by_name(&path, change);
                }
            }
        }
        Op::Close(log::Close { instance, handle }) | Op::Release(log::Release { instance, handle }) => {
            collector.close(*instance, session.0, *handle);
            // A grant that is on its way into the log is applied before this.
            let sessions = [session.0];
            let ahead = proposals.opened_by(&sessions);
            ahead
                .filter(|ahead| matches!(ahead, PendingOpen::Contents(_)))
                .for_each(|ahead| collector.undo(ahead));
        }
        Op::BreakLock(broken) => {
            for token in &broken.tokens {
                let node = collector.node(broken.instance);
                let holder = node.and_then(|node| node.lock.holder_of_token(Token(*token)));
                if let Some(((session, handle), _)) = holder {
                    collector.end_grant(broken.instance, session.0, handle.0);
                }
            }
        }
        Op::CloseOrphans(orphans) => {
            for one in &orphans.handles {
                collector.close(one.instance, one.session, one.handle);
            }
        }
        Op::EndSessions(end) => {
            for id in &end.sessions {
                let Some(session) = state.session(SessionId(*id)) else { continue };
                for (instance, handle) in session.ephemerals().chain(session.locks()) {
                    collector.close(instance.0, *id, handle.0);
                }
            }
            // The sessions' earlier commands are applied before they end.
            for opens in proposals.opened_by(&end.sessions) {
                collector.undo(opens);
            }
        }
        _ => {}
    }
    collector.keys.sort_unstable();
    collector.keys.dedup();
    collector.keys
}

/// Whether a command may affect nodes that are not created yet when it is proposed.
pub(crate) fn affects_later_nodes(op: &Op) -> bool {
    matches!(op, Op::Multi(_) | Op::EndSessions(_))
}

/// The sessions that a command ends.
pub(crate) fn ended_by(op: &Op) -> Vec<SessionId> {
    match op {
        Op::EndSessions(end) => end.sessions.iter().map(|id| SessionId(*id)).collect(),
        _ => Vec::new(),
    }
}

/// Collects the keys that a command affects. A listing shows the stats of the children, so a changed stat changes
/// the listing of the parent.
struct Collector<'a> {
    state: &'a State,
    keys: Vec<CacheKey>,
}

impl<'a> Collector<'a> {
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

    /// A directory gets a child of that name; without a name, of one that is not known yet.
    fn create(&mut self, directory: &Node, name: Option<Name>) {
        self.keys.push(match name {
            Some(name) => CacheKey::absence(directory.instance, name),
            None => CacheKey::any_absence(directory.instance),
        });
        self.children(directory);
    }

    /// A node is deleted.
    fn delete(&mut self, node: &Node) {
        self.keys.push(CacheKey::node(node.instance));
        if node.is_directory() {
            self.keys.push(CacheKey::listing(node.instance));
            self.keys.push(CacheKey::any_absence(node.instance));
        }
        let parent = node.place.as_ref().and_then(|(parent, _)| self.node(parent.0));
        if let Some(parent) = parent {
            self.delete_in(parent);
        }
    }

    /// A child of a directory is deleted, and with the last one the directory itself if it is ephemeral.
    fn delete_in(&mut self, directory: &Node) {
        self.children(directory);
        if directory.ephemeral {
            self.delete(directory);
        }
    }

    /// A handle is closed, and with it goes the ephemeral node that it may be the last to keep alive.
    fn close(&mut self, instance: u64, session: u64, handle: u64) {
        self.end_grant(instance, session, handle);
        let opener = (SessionId(session), HandleId(handle));
        if let Some(node) = self.node(instance).filter(|node| node.openers.contains_key(&opener)) {
            self.delete(node);
        }
    }

    /// A grant ends, and with it the contents that its holder asked to be cleared.
    fn end_grant(&mut self, instance: u64, session: u64, handle: u64) {
        let Some(node) = self.node(instance) else { return };
        let holder = node.lock.holder(SessionId(session), HandleId(handle));
        if holder.is_some_and(|holder| holder.clears_contents) {
            self.write(node);
        }
    }

    /// A node goes that an earlier command, still on its way into the log, may come to keep alive.
    fn undo(&mut self, opens: &PendingOpen) {
        match opens {
            PendingOpen::Contents(node) => self.node(node.0).into_iter().for_each(|node| self.write(node)),
            PendingOpen::Node(node) => self.node(node.0).into_iter().for_each(|node| self.delete(node)),
            PendingOpen::Child(directory, name) => {
                let Some(directory) = self.node(directory.0) else { return };
                // The child may be another than the one that is there now.
                self.delete_in(directory);
                let child = self.state.tree().child(directory, name);
                child.into_iter().for_each(|child| self.delete(child));
            }
        }
    }

    /// How far a path leads: to a node, or to a directory that lacks one of its names.
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

    /// A change of the node that a path leads to when the change is applied: the one that it leads to now, or else
    /// one that is created until then. The latter is in `CacheKeys::pending_creates`, so only the directories that
    /// exist now count here.
    fn change_by_name(&mut self, path: &NodePath, change: &change::Change) {
        let Some((node, missing)) = self.walk(path) else { return };
        match (change, missing) {
            (change::Change::Create(create), missing) => {
                let sequential = create.node.as_ref().is_some_and(|new| new.sequential);
                let parent =
                    node.place.as_ref().and_then(|(parent, name)| Some((self.node(parent.0)?, name)));
                match (missing, parent) {
                    (Some((name, last)), _) => {
                        self.create(node, Some(name).filter(|_| !(last && sequential)))
                    }
                    // The node may be gone by then, or the name is a beginning that a number completes.
                    (None, Some((parent, name))) => {
                        self.create(parent, Some(name.clone()).filter(|_| !sequential));
                    }
                    (None, None) => {}
                }
            }
            (change::Change::Set(_), None) => self.write(node),
            (change::Change::Set(_), Some(_)) => self.keys.push(CacheKey::listing(node.instance)),
            (change::Change::Delete(_), None) => self.delete(node),
            (change::Change::Delete(_), Some(_)) => self.delete_in(node),
        }
    }
}
