//! Open, the only call that takes a name (P§2.6), and Close, which never fails.

use crate::proposals::Origin;
use crate::{Answer, Asker, Replica};
use alloc::string::String;
use core::time::Duration;
use wombat_proto::limits::{CONTENTS_BYTES, LOCK_DELAY, PATH_BYTES};
use wombat_proto::wire::{self, Handle, event::Kind, log, log::command::Op, mode, open::Create};
use wombat_proto::{Error, HandleId, Instance, Name, NodePath, Path, Result};
use wombat_state::{Node, Outcome};

/// About how many digits complete a sequential name.
const SEQUENTIAL_DIGITS: usize = 10;

/// What an Open came to.
enum Found {
    /// A node.
    Node(Instance),
    /// Nothing, but the directory in which it could be made.
    Place(Instance, Name),
}

impl Replica {
    pub(super) fn open(
        &mut self,
        asker: Asker,
        acknowledged: u64,
        open: wire::Open,
    ) -> Result<Option<Answer>> {
        let create = check(&open)?;
        let unsealed = Handle {
            id: asker.number,
            mode: open.mode,
            events: open.events,
            lock_delay_ms: open.lock_delay_ms,
            ..Handle::default()
        };
        // Before anything else: the answer of an Open that made its node is kept beyond the Close.
        self.check_not_closed(asker)?;
        if let Some(result) = self.opened_before(asker, unsealed) {
            return result.map(Some);
        }
        if !self.serving()?.session(asker.session)?.handles.has_room() {
            return Err(Error::QuotaExceeded { what: "open handles of one session".into() });
        }
        match self.locate(asker, &open)? {
            Found::Node(_) if create == Create::Must => Err(Error::AlreadyExists),
            Found::Node(instance) => self.open_existing(asker, acknowledged, &open, unsealed, instance),
            Found::Place(..) if create == Create::Never => Err(Error::not_found(&open.path)),
            Found::Place(parent, name) => {
                let op = Op::Open(log::Open {
                    parent: parent.0,
                    name: name.as_str().into(),
                    handle: asker.number,
                    must_create: create == Create::Must,
                    node: open.node,
                    instance: 0,
                });
                self.propose(Origin::Open(asker, unsealed), acknowledged, op)?;
                Ok(None)
            }
        }
    }

    /// Refuses an Open whose handle was closed already: this is a delayed copy of it.
    fn check_not_closed(&mut self, asker: Asker) -> Result<()> {
        let handles = &self.serving()?.session(asker.session)?.handles;
        if handles.was_closed(HandleId(asker.number)) { Err(Error::StaleHandle) } else { Ok(()) }
    }

    /// A retry of an Open that was answered, or would have been, finds its handle again.
    fn opened_before(&mut self, asker: Asker, unsealed: Handle) -> Option<Result<Answer>> {
        if let Some(result) = self.state.session(asker.session)?.answer(asker.number) {
            return Some(match result {
                Ok(Outcome::Opened { created, stat }) => {
                    let unsealed = Handle { instance: stat.instance, ..unsealed };
                    self.finish_open(asker, unsealed, created, stat)
                }
                Ok(_) => Err(Error::invalid("the request's number was used for another call")),
                Err(error) => Err(error),
            });
        }
        let live = self.master.as_ref()?.sessions.get(&asker.session)?;
        let token = live.handles.get(HandleId(asker.number))?.token;
        let stat = self.state.tree().get(Instance(token.instance)).map(Node::stat);
        Some(stat.ok_or(Error::StaleHandle).map(|stat| self.opened_answer(token, false, stat)))
    }

    fn open_existing(
        &mut self,
        asker: Asker,
        acknowledged: u64,
        open: &wire::Open,
        unsealed: Handle,
        instance: Instance,
    ) -> Result<Option<Answer>> {
        let node = self.state.tree().get(instance).ok_or(Error::StaleHandle)?;
        if open.node.as_ref().is_some_and(|new| new.directory) && !node.is_directory() {
            return Err(Error::NotDirectory);
        }
        if open.node.as_ref().is_some_and(|new| !new.directory) && node.is_directory() {
            return Err(Error::IsDirectory);
        }
        let stat = node.stat();
        if node.ephemeral {
            refuse_lock_delay(open)?;
            let op =
                Op::Open(log::Open { instance: instance.0, handle: asker.number, ..log::Open::default() });
            self.propose(Origin::Open(asker, unsealed), acknowledged, op)?;
            return Ok(None);
        }
        let unsealed = Handle { instance: instance.0, ..unsealed };
        self.finish_open(asker, unsealed, false, stat).map(Some)
    }

    /// Makes the handle and the answer.
    pub(crate) fn finish_open(
        &mut self,
        asker: Asker,
        unsealed: Handle,
        created: bool,
        stat: wire::Stat,
    ) -> Result<Answer> {
        self.check_not_closed(asker)?; // Two copies of it may have been in the log.
        let token = self.serving()?.open_handle(asker.session, unsealed)?;
        Ok(self.opened_answer(token, created, stat))
    }

    fn opened_answer(&self, handle: Handle, created: bool, stat: wire::Stat) -> Answer {
        let place = self.state.tree().get(Instance(handle.instance)).and_then(|node| node.place.as_ref());
        let name = place.map_or_else(String::new, |(_, name)| name.as_str().into());
        Answer::Opened(wire::Opened { handle: Some(handle), created, stat: Some(stat), name })
    }

    /// Follows the name to a node, or to the place where it could be made.
    fn locate(&mut self, asker: Asker, open: &wire::Open) -> Result<Found> {
        let (start, path) = match &open.directory {
            None => (self.state.tree().root().ok_or(Error::NoQuorum)?.instance, self.parse(&open.path)?),
            Some(token) => {
                let handle = self.serving()?.handle(asker.session, Some(token))?;
                (handle.instance(), NodePath::parse(&open.path)?)
            }
        };
        let tree = self.state.tree();
        let start = tree.get(start).ok_or(Error::StaleHandle)?;
        // A name that a number will complete is no node's yet.
        let sequential = open.node.as_ref().is_some_and(|new| new.sequential);
        if let Some(node) = tree.descend(start, &path).filter(|_| !sequential) {
            return Ok(Found::Node(node.instance));
        }
        let Some((above, name)) = path.split_last() else {
            return Err(Error::invalid("the root of a cell has no name that a number could complete"));
        };
        let name = name.clone();
        let missing = || Error::not_found(alloc::format!("the directory of {}", open.path));
        if create_of(open) == Create::Never {
            return Err(Error::not_found(&open.path));
        }
        let parent = tree.descend(start, &above).ok_or_else(missing)?;
        if !parent.is_directory() {
            return Err(Error::NotDirectory);
        }
        let length = self.state.path_of(parent).map_or(0, |path| alloc::format!("{path}").len());
        check_length(length + 1 + name.as_str().len(), sequential)?;
        Ok(Found::Place(parent.instance, name))
    }

    /// Parses a whole path of this cell.
    pub(crate) fn parse(&self, path: &str) -> Result<NodePath> {
        let path = Path::parse(path)?;
        if path.cell != self.config.cell {
            let what = alloc::format!("{path} is in the cell {}; this is {}", path.cell, self.config.cell);
            return Err(Error::invalid(what));
        }
        Ok(path.node)
    }

    pub(super) fn close(
        &mut self,
        asker: Asker,
        acknowledged: u64,
        close: &wire::Close,
    ) -> Result<Option<Answer>> {
        let done = Ok(Some(Answer::Done(wire::Done {})));
        let Some(token) = close.handle else { return done };
        let (id, instance) = (HandleId(token.id), Instance(token.instance));
        let master = self.serving()?;
        master.close_handle(asker.session, &token);
        let waiter = master.locks.waiter(instance, asker.session, id).map(|waiter| waiter.proposed);
        if waiter == Some(false) {
            self.dismiss(instance, asker.session, id, Error::Cancelled);
            self.grant_turns(instance);
        }
        // A grant on its way into the log is followed there by the Close, which takes the lock back.
        let logged = waiter == Some(true)
            || self.state.session(asker.session).is_some_and(|session| session.has_handle(instance, id));
        if !logged {
            return done;
        }
        let op = Op::Close(log::Close { instance: instance.0, handle: id.0 });
        match self.answered_before(asker) {
            Some(result) => result.map(Some),
            None => self.propose_release(asker, acknowledged, (instance, id), op),
        }
    }
}

/// Refuses a new node that no whole path could name.
pub(super) fn check_length(path_bytes: usize, sequential: bool) -> Result<()> {
    let digits = if sequential { SEQUENTIAL_DIGITS } else { 0 };
    if path_bytes + digits > PATH_BYTES {
        let what = alloc::format!("the whole path would be longer than {PATH_BYTES} bytes");
        return Err(Error::invalid(what));
    }
    Ok(())
}

fn create_of(open: &wire::Open) -> Create {
    Create::try_from(open.create).unwrap_or(Create::Never)
}

/// Refuses an Open that makes no sense, before anything is looked up.
fn check(open: &wire::Open) -> Result<Create> {
    let create = Create::try_from(open.create)
        .map_err(|_| Error::invalid("create is NEVER (0), MAY (1) or MUST (2)"))?;
    if open.mode == 0 || open.mode & !mode::ALL != 0 {
        return Err(Error::invalid("the mode is a sum of 1 (read) and 2 (write)"));
    }
    if open.events & !Kind::SUBSCRIBABLE != 0 {
        return Err(Error::invalid("the events have a bit that no event of a handle has"));
    }
    if Duration::from_millis(open.lock_delay_ms.into()) > LOCK_DELAY {
        return Err(Error::invalid(alloc::format!("a lock-delay is at most {} s", LOCK_DELAY.as_secs())));
    }
    match (&open.node, create) {
        (None, Create::Never) => {}
        (Some(_), Create::Never) => {
            return Err(Error::invalid("a new node is described, but create is NEVER"));
        }
        (None, _) => return Err(Error::invalid("create is not NEVER, but no new node is described")),
        (Some(new), _) if new.contents.len() > CONTENTS_BYTES => {
            return Err(Error::contents_too_large(new.contents.len()));
        }
        (Some(new), _) if new.directory && !new.contents.is_empty() => {
            return Err(Error::invalid("a directory has no contents"));
        }
        (Some(new), Create::May) if new.sequential => {
            return Err(Error::invalid("a sequential name is always new: create is MUST with it"));
        }
        (Some(new), _) if new.ephemeral => refuse_lock_delay(open)?,
        (Some(_), _) => {}
    }
    Ok(create)
}

/// An ephemeral node vanishes with its last holder, and a lock-delay would vanish with it.
fn refuse_lock_delay(open: &wire::Open) -> Result<()> {
    if open.lock_delay_ms == 0 {
        return Ok(());
    }
    Err(Error::invalid("an ephemeral node cannot keep a lock-delay: lock a permanent file instead"))
}
