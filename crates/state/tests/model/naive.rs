//! The naive model: flat lists, everything looked up by walking, obviously right.

use std::collections::BTreeMap;
use std::time::Duration;
use wombat_proto::wire::{NewNode, log};
use wombat_proto::{Error, LockMode};
use wombat_state::Node;

/// Session, handle, shared, token, lock-delay in milliseconds.
pub(crate) type Holder = (u64, u64, bool, u64, u32);

/// A node of the model.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Item {
    pub(crate) instance: u64,
    pub(crate) directory: bool,
    pub(crate) ephemeral: bool,
    pub(crate) contents: Vec<u8>,
    pub(crate) generation: u64,
    pub(crate) lock_generation: u64,
    pub(crate) permits: u32,
    pub(crate) holders: Vec<Holder>,
    /// Since which slot, whether shared, for how many milliseconds.
    pub(crate) delay: Option<(u64, bool, u32)>,
    pub(crate) openers: Vec<(u64, u64)>,
    /// The holder with whose grant the contents end.
    pub(crate) author: Option<(u64, u64)>,
}

/// The model: nodes by their paths (`""` is the root, `"/a"` a child), sessions with the answers they got.
#[derive(Clone, Default)]
pub(crate) struct Model {
    pub(crate) items: BTreeMap<String, Item>,
    pub(crate) sessions: BTreeMap<u64, BTreeMap<u64, String>>,
    /// By instance of the directory, the number that last completed a name in it.
    pub(crate) numbered: BTreeMap<u64, u64>,
    /// Who broke a lock, and what was noted.
    pub(crate) audit: Vec<(u64, String)>,
    pub(crate) epoch: u64,
    pub(crate) last_instance: u64,
}

impl Item {
    /// Takes the lock from holders who do not give it back.
    pub(crate) fn abandon(&mut self, slot: u64, over: &[u64], who: impl Fn(&Holder) -> bool) {
        // In the order of handles, as the state keeps them.
        self.holders.sort_unstable();
        for (_, _, shared, _, delay) in self.holders.extract_if(.., |holder| who(holder)) {
            if delay > 0 {
                let running = self.delay.filter(|(since, ..)| !over.contains(since));
                self.delay = Some((slot, shared, delay.max(running.map_or(0, |(.., ms)| ms))));
            }
        }
    }
}

impl Model {
    pub(crate) fn path(&self, what: usize) -> String {
        self.items.keys().nth(what % self.items.len()).unwrap().clone()
    }

    pub(crate) fn session(&self, who: usize) -> u64 {
        self.sessions.keys().nth(who).copied().unwrap_or(999_999)
    }

    pub(crate) fn path_of(&self, instance: u64) -> Option<String> {
        Some(self.items.iter().find(|(_, item)| item.instance == instance)?.0.clone())
    }

    pub(crate) fn has_children(&self, path: &str) -> bool {
        self.items.keys().any(|other| other.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')))
    }

    /// Returns the path of the new node.
    pub(crate) fn create(
        &mut self,
        slot: u64,
        parent: &str,
        name: &str,
        new: &NewNode,
    ) -> Result<String, Error> {
        let directory = self.items.get(parent).ok_or(Error::not_found(""))?;
        if !directory.directory {
            return Err(Error::NotDirectory);
        }
        let mut path = format!("{parent}/{name}");
        let numbered = self.numbered.entry(directory.instance).or_default();
        while new.sequential && (path.ends_with(name) || self.items.contains_key(&path)) {
            *numbered += 1;
            path = format!("{parent}/{name}{numbered:010}");
        }
        self.last_instance = slot.max(self.last_instance + 1);
        let item = Item {
            instance: self.last_instance,
            directory: new.directory,
            ephemeral: new.ephemeral,
            contents: new.contents.to_vec(),
            generation: if new.directory { 0 } else { 1 },
            lock_generation: 0,
            permits: new.permits,
            holders: Vec::new(),
            author: None,
            delay: None,
            openers: Vec::new(),
        };
        self.items.insert(path.clone(), item);
        Ok(path)
    }

    pub(crate) fn write(&mut self, path: &str, contents: Vec<u8>, guess: u64) -> Result<(), Error> {
        let item = self.items.get_mut(path).ok_or(Error::not_found(""))?;
        if item.directory {
            return Err(Error::IsDirectory);
        }
        if guess != 0 && guess != item.generation {
            return Err(Error::GenerationMismatch { actual: wombat_proto::Generation(0) });
        }
        (item.contents, item.generation) = (contents, item.generation + 1);
        Ok(())
    }

    pub(crate) fn remove(&mut self, path: &str, who: (u64, u64), over: &[u64]) -> Result<(), Error> {
        let item = &self.items[path];
        if path.is_empty() {
            return Err(Error::invalid(""));
        }
        if self.has_children(path) {
            return Err(Error::NotEmpty);
        }
        if item.holders.iter().any(|holder| (holder.0, holder.1) != who) {
            return Err(Error::LockHeld);
        }
        if item.delay.is_some_and(|(since, ..)| !over.contains(&since)) {
            return Err(Error::LockDelayed { remaining: Duration::ZERO });
        }
        self.items.remove(path);
        self.sweep();
        Ok(())
    }

    /// Removes ephemeral nodes that nobody has open, until there are none.
    pub(crate) fn sweep(&mut self) {
        loop {
            let orphan = |path: &String, item: &Item| {
                item.ephemeral && item.openers.is_empty() && !self.has_children(path)
            };
            let Some((path, _)) = self.items.iter().find(|(path, item)| orphan(path, item)) else { return };
            let path = path.clone();
            self.items.remove(&path);
        }
    }

    pub(crate) fn grant(
        &mut self,
        slot: u64,
        session: u64,
        grant: &log::Grant,
        over: &[u64],
    ) -> Result<(), Error> {
        let path = self.path_of(grant.instance).ok_or(Error::StaleHandle)?;
        let item = self.items.get_mut(&path).unwrap();
        if item.holders.iter().any(|holder| (holder.0, holder.1) == (session, grant.handle)) {
            return Err(Error::LockHeld);
        }
        let exclusive = item.holders.iter().any(|holder| !holder.2);
        let full = grant.shared && item.permits > 0 && item.holders.len() >= item.permits as usize;
        if exclusive || full || (!grant.shared && !item.holders.is_empty()) {
            return Err(Error::LockHeld);
        }
        if let Some((since, shared, _)) = item.delay
            && (!shared || !grant.shared)
        {
            if !over.contains(&since) {
                return Err(Error::LockDelayed { remaining: Duration::ZERO });
            }
            item.delay = None;
        }
        if item.holders.is_empty() {
            item.lock_generation += 1;
        }
        item.holders.push((session, grant.handle, grant.shared, slot, grant.lock_delay_ms));
        item.author = grant.clears_contents.then_some((session, grant.handle));
        Ok(())
    }

    /// Empties the files whose author holds their lock no more.
    pub(crate) fn clear_contents(&mut self) {
        for item in self.items.values_mut() {
            let holds = |author: (u64, u64)| item.holders.iter().any(|holder| (holder.0, holder.1) == author);
            if item.author.is_some_and(|author| !holds(author)) {
                item.author = None;
                if !item.directory && !item.contents.is_empty() {
                    (item.contents, item.generation) = (Vec::new(), item.generation + 1);
                }
            }
        }
    }

    pub(crate) fn end_session(&mut self, slot: u64, session: u64, asked: bool, over: &[u64]) {
        self.sessions.remove(&session);
        for item in self.items.values_mut() {
            if asked {
                item.holders.retain(|holder| holder.0 != session);
            }
            item.abandon(slot, over, |holder| holder.0 == session);
            item.openers.retain(|opener| opener.0 != session);
        }
        self.clear_contents();
        self.sweep();
    }
}

/// A node of the state, as the model would have it.
pub(crate) fn seen(node: &Node) -> Item {
    let stat = node.stat();
    sorted(Item {
        instance: stat.instance,
        directory: stat.directory,
        ephemeral: stat.ephemeral,
        contents: node.contents().map(|contents| contents.to_vec()).unwrap_or_default(),
        generation: stat.content_generation,
        lock_generation: stat.lock_generation,
        permits: stat.permits,
        holders: node
            .lock
            .holders()
            .map(|((session, handle), holder)| {
                let delay = holder.lock_delay.as_millis() as u32;
                (session.0, handle.0, holder.mode == LockMode::Shared, holder.token.0, delay)
            })
            .collect(),
        delay: node
            .lock
            .delay()
            .map(|delay| (delay.since.0, delay.mode == LockMode::Shared, delay.length.as_millis() as u32)),
        author: node
            .lock
            .holders()
            .find(|(_, holder)| holder.clears_contents)
            .map(|((session, handle), _)| (session.0, handle.0)),
        openers: node.openers.keys().map(|(session, handle)| (session.0, handle.0)).collect(),
    })
}

pub(crate) fn sorted(mut item: Item) -> Item {
    item.holders.sort_unstable();
    item.openers.sort_unstable();
    item
}
