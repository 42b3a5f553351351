//! Open, the only call that takes a name (P§2.6), and Close, which never fails.

use super::Master;
use crate::context::Cx;
use crate::request::{Answer, Reply, RequestContext};
use crate::tables::handles::{OpenHandle, Presented};
use crate::tables::proposals::PendingReply;
use alloc::string::String;
use core::time::Duration;
use wombat_proto::limits::{CONTENTS_BYTES, LOCK_DELAY, PATH_BYTES};
use wombat_proto::wire::{self, Handle, event::Kind, log, log::command::Op, mode, open::Create};
use wombat_proto::{Error, HandleId, Instance, Name, NodePath, Result, SessionId};
use wombat_state::{Node, Outcome};

/// About how many digits complete a sequential name.
const SEQUENTIAL_DIGITS: usize = 10;

/// Where the name of an Open leads.
enum Found {
    /// To a node.
    Node(Instance),
    /// Nowhere, but the node could be created in this directory.
    Place(Instance, Name),
}

impl Master {
    /// The handle that a session presents, made again if it is of an earlier epoch (P§2.9 step 8).
    pub(super) fn handle(&mut self, session: SessionId, token: Option<&Handle>) -> Result<OpenHandle> {
        let token = token.ok_or_else(|| Error::invalid("the call names no handle"))?;
        let is_genuine = || self.signer.is_genuine(session, token);
        match self.sessions.live(session)?.handles.present(token, self.epoch, is_genuine)? {
            Presented::Open(handle) => Ok(handle),
            Presented::Recreated(handle) => {
                self.subscriptions.add(session, token);
                self.fail_over.recreated(handle.instance(), session, handle.id());
                Ok(handle)
            }
        }
    }

    /// The handle that a session presents, if it was opened for `wanted` use.
    pub(super) fn handle_for(
        &mut self,
        session: SessionId,
        token: Option<&Handle>,
        wanted: u32,
    ) -> Result<OpenHandle> {
        let handle = self.handle(session, token)?;
        handle.check_mode(wanted)?;
        Ok(handle)
    }

    pub(super) fn open(
        &mut self,
        cx: &mut Cx<'_>,
        request: RequestContext,
        open: wire::Open,
    ) -> Result<Reply> {
        let create = check(&open)?;
        let unsigned = Handle {
            id: request.number,
            mode: open.mode,
            events: open.events,
            lock_delay_ms: open.lock_delay_ms,
            ..Handle::default()
        };
        // Before anything else: the answer of an Open that created its node is kept beyond the Close.
        self.check_not_closed(request)?;
        if let Some(result) = self.opened_before(cx, request, unsigned) {
            return result.map(Reply::Now);
        }
        if !self.sessions.live(request.session)?.handles.has_room() {
            return Err(Error::QuotaExceeded { what: "open handles of one session".into() });
        }
        match self.locate(cx, request, &open)? {
            Found::Node(_) if create == Create::Must => Err(Error::AlreadyExists),
            Found::Node(instance) => self.open_existing(cx, request, &open, unsigned, instance),
            Found::Place(..) if create == Create::Never => Err(Error::not_found(&open.path)),
            Found::Place(parent, name) => {
                let op = Op::Open(log::Open {
                    parent: parent.0,
                    name: name.as_str().into(),
                    handle: request.number,
                    must_create: create == Create::Must,
                    node: open.node,
                    instance: 0,
                });
                self.propose(cx, PendingReply::Open(request, unsigned), op)?;
                Ok(Reply::Later)
            }
        }
    }

    /// Refuses an Open whose handle was closed already: this is a delayed copy of it.
    fn check_not_closed(&mut self, request: RequestContext) -> Result<()> {
        self.sessions.live(request.session)?.handles.check_not_closed(HandleId(request.number))
    }

    /// A retry of an Open that was answered, or would have been, finds its handle again.
    fn opened_before(
        &mut self,
        cx: &Cx<'_>,
        request: RequestContext,
        unsigned: Handle,
    ) -> Option<Result<Answer>> {
        if let Some(result) = cx.state.session(request.session)?.answer(request.number) {
            return Some(self.open_outcome(cx, request, unsigned, result));
        }
        let live = self.sessions.get(request.session)?;
        let token = live.handles.get(HandleId(request.number))?.token;
        let stat = cx.state.tree().get(Instance(token.instance)).map(Node::stat);
        Some(stat.ok_or(Error::StaleHandle).map(|stat| opened_answer(cx, token, false, stat)))
    }

    fn open_existing(
        &mut self,
        cx: &mut Cx<'_>,
        request: RequestContext,
        open: &wire::Open,
        unsigned: Handle,
        instance: Instance,
    ) -> Result<Reply> {
        let node = cx.state.tree().get(instance).ok_or(Error::StaleHandle)?;
        if open.node.as_ref().is_some_and(|new| new.directory) && !node.is_directory() {
            return Err(Error::NotDirectory);
        }
        if open.node.as_ref().is_some_and(|new| !new.directory) && node.is_directory() {
            return Err(Error::IsDirectory);
        }
        let stat = node.stat();
        if node.ephemeral {
            refuse_lock_delay(open)?;
            let handle = request.number;
            let op = Op::Open(log::Open { instance: instance.0, handle, ..log::Open::default() });
            self.propose(cx, PendingReply::Open(request, unsigned), op)?;
            return Ok(Reply::Later);
        }
        let unsigned = Handle { instance: instance.0, ..unsigned };
        self.finish_open(cx, request, unsigned, false, stat).map(Reply::Now)
    }

    /// The log has decided about an Open.
    pub(super) fn opened(
        &mut self,
        cx: &mut Cx<'_>,
        request: RequestContext,
        unsigned: Handle,
        result: Result<Outcome>,
    ) {
        let answer = self.open_outcome(cx, request, unsigned, result);
        self.reply(cx, request, answer);
    }

    /// The answer to an Open that the log has decided about: the handle on the node that it came to.
    fn open_outcome(
        &mut self,
        cx: &Cx<'_>,
        request: RequestContext,
        unsigned: Handle,
        result: Result<Outcome>,
    ) -> Result<Answer> {
        match result? {
            Outcome::Opened { created, stat } => {
                let unsigned = Handle { instance: stat.instance, ..unsigned };
                self.finish_open(cx, request, unsigned, created, stat)
            }
            _ => Err(Error::invalid("the request's number was used for another call")),
        }
    }

    /// Makes the handle and the answer.
    fn finish_open(
        &mut self,
        cx: &Cx<'_>,
        request: RequestContext,
        unsigned: Handle,
        created: bool,
        stat: wire::Stat,
    ) -> Result<Answer> {
        self.check_not_closed(request)?; // Two copies of it may have been in the log.
        let token = self.signer.sign(request.session, Handle { epoch: self.epoch.0, ..unsigned });
        self.sessions.live(request.session)?.handles.insert(token);
        self.subscriptions.add(request.session, &token);
        Ok(opened_answer(cx, token, created, stat))
    }

    /// Follows the name to a node, or to the place where it could be created.
    fn locate(&mut self, cx: &Cx<'_>, request: RequestContext, open: &wire::Open) -> Result<Found> {
        let tree = cx.state.tree();
        let (start, path) = match &open.directory {
            None => (tree.root().ok_or(Error::NoQuorum)?.instance, cx.config.parse_path(&open.path)?),
            Some(token) => {
                let handle = self.handle(request.session, Some(token))?;
                (handle.instance(), NodePath::parse(&open.path)?)
            }
        };
        let start = tree.get(start).ok_or(Error::StaleHandle)?;
        // A name that a number will complete is the name of no node yet.
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
        let length = cx.state.path_of(parent).map_or(0, |path| alloc::format!("{path}").len());
        check_length(length + 1 + name.as_str().len(), sequential)?;
        Ok(Found::Place(parent.instance, name))
    }

    pub(super) fn close(
        &mut self,
        cx: &mut Cx<'_>,
        request: RequestContext,
        close: &wire::Close,
    ) -> Result<Reply> {
        let done = Ok(Reply::Now(Answer::Done(wire::Done {})));
        let Some(token) = close.handle else { return done };
        let (id, instance, session) = (HandleId(token.id), Instance(token.instance), request.session);
        let open = self.sessions.get_mut(session).and_then(|live| live.handles.close(&token, self.epoch));
        if let Some(open) = open {
            self.subscriptions.remove(session, &open.token);
        }
        let waiter = self.locks.waiter(instance, session, id).map(|waiter| waiter.proposed);
        if waiter == Some(false) {
            self.dismiss(cx, instance, session, id, Error::Cancelled);
            self.grant_next(cx, instance);
        }
        // A grant on its way into the log is followed there by the Close, which takes the lock back.
        let is_logged = waiter == Some(true)
            || cx.state.session(session).is_some_and(|session| session.has_handle(instance, id));
        if !is_logged {
            return done;
        }
        let op = Op::Close(log::Close { instance: instance.0, handle: id.0 });
        match Master::answered_before(cx, request) {
            Some(result) => result.map(Reply::Now),
            None => self.propose_release(cx, request, (instance, id), op),
        }
    }
}

fn opened_answer(cx: &Cx<'_>, handle: Handle, created: bool, stat: wire::Stat) -> Answer {
    let place = cx.state.tree().get(Instance(handle.instance)).and_then(|node| node.place.as_ref());
    let name = place.map_or_else(String::new, |(_, name)| name.as_str().into());
    Answer::Opened(wire::Opened { handle: Some(handle), created, stat: Some(stat), name })
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
