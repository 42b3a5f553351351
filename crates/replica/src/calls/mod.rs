//! What each call does: who may ask, what is answered at once, and what becomes a command.

mod inspect;
mod locks;
mod members;
mod nodes;
mod open;
mod sessions;
mod stale;

use crate::chosen::plain_answer;
use crate::master::Master;
use crate::proposals::Origin;
use crate::{Answer, Asker, Replica, needs_master};
use alloc::vec::Vec;
use prost::Message;
use wombat_proto::limits::{PAGE_BYTES, PAGE_ENTRIES};
use wombat_proto::wire::{self, Request, log::command::Op, request::Call};
use wombat_proto::{Error, Result};

impl Replica {
    /// Answers a request, or begins what will answer it (`None`).
    pub(crate) fn call(&mut self, asker: Asker, request: Request) -> Result<Option<Answer>> {
        let Request { epoch, acknowledged, call, .. } = request;
        let call = call.ok_or_else(|| Error::invalid("the request names no call"))?;
        if let Call::Hello(hello) = &call {
            return self.hello(asker, hello);
        }
        let Some(connection) = self.connections.get(&asker.connection) else {
            self.hang_up(asker.connection);
            return Err(Error::invalid("the first request of a connection is Hello"));
        };
        let attached = connection.sessions.contains(&asker.session);
        if needs_master(&call) {
            self.serving()?;
        }
        match call {
            Call::GetStatus(_) => return Ok(Some(Answer::Status(self.report()))),
            Call::ReadStale(read) => return self.read_stale(&read).map(Some),
            Call::ReadPath(read) => return self.read_path(read).map(Some),
            Call::CreateSession(create) => return self.create_session(asker, create),
            Call::ResumeSession(resume) => return self.resume_session(asker, &resume).map(Some),
            Call::ListSessions(list) => return self.list_sessions(&list).map(Some),
            Call::ListLocks(list) => return self.list_locks(&list).map(Some),
            Call::ListAudit(list) => return Ok(Some(self.list_audit(&list))),
            Call::CheckSequencer(check) => return self.check_sequencer(&check).map(Some),
            Call::Join(join) => return self.join(asker, join).map(|()| None),
            Call::Transfer(transfer) => return self.transfer(&transfer).map(Some),
            _ => {}
        }
        if !attached {
            // A session that has ended is known to have; whether another one lives is not told.
            let ended = self.state.session(asker.session).is_none()
                && (1..=self.state.stamp().0).contains(&asker.session.0);
            return Err(if ended { Error::SessionExpired } else { Error::SessionUnknown });
        }
        let current = self.serving()?.epoch;
        if epoch != current.0 {
            return Err(Error::StaleEpoch { current });
        }
        if self.state.session(asker.session).is_none() {
            return Err(Error::SessionExpired);
        }
        if acknowledged >= asker.number {
            return Err(Error::invalid("a request's number is greater than what it acknowledges"));
        }
        let live = self.serving()?.session(asker.session)?;
        live.handles.acknowledge(acknowledged);
        if !matches!(call, Call::KeepAlive(_)) {
            live.lease.is_busy();
        }
        // No answer from the state is given unless nobody else can have been master meanwhile (SPEC §7): time
        // stands still in a step, so that was found out before the call was taken up.
        let answer = match self.check_fences(asker, &call) {
            Ok(()) => self.session_call(asker, acknowledged, call),
            Err(stale) => Err(stale),
        };
        self.note_recreated();
        match answer {
            // It was asked before, and is on its way into the log: what comes of it there is the answer, though
            // it would be refused by now.
            Err(_) if self.is_under_way(asker) => Ok(None),
            answer => answer,
        }
    }

    /// Refuses a change of a session whose fences are stale before anybody hears of it: a holder whose lock is to
    /// be broken, a session that has something cached. What holds is checked again when the change is applied.
    fn check_fences(&self, asker: Asker, call: &Call) -> Result<()> {
        let changes = match call {
            Call::Open(open) => open.create() != wire::open::Create::Never,
            Call::SetContents(_) | Call::Delete(_) | Call::BreakLock(_) | Call::Multi(_) => true,
            _ => false,
        };
        if !changes || self.answered_before(asker).is_some() {
            return Ok(());
        }
        self.state.check_session_fences(asker.session)
    }

    fn session_call(&mut self, asker: Asker, acknowledged: u64, call: Call) -> Result<Option<Answer>> {
        match call {
            Call::KeepAlive(keep_alive) => self.keep_alive(asker, &keep_alive),
            Call::EndSession(_) => self.end_session(asker),
            Call::Open(open) => self.open(asker, acknowledged, open),
            Call::Close(close) => self.close(asker, acknowledged, &close),
            Call::GetContents(get) => self.get_contents(asker, &get).map(Some),
            Call::GetStat(get) => self.get_stat(asker, &get).map(Some),
            Call::ReadDir(read) => self.read_dir(asker, &read).map(Some),
            Call::SetContents(set) => self.set_contents(asker, acknowledged, set),
            Call::Delete(delete) => self.delete(asker, acknowledged, &delete),
            Call::Acquire(acquire) => self.acquire(asker, &acquire),
            Call::CancelAcquire(cancel) => self.cancel_acquire(asker, acknowledged, &cancel),
            Call::Release(release) => self.release(asker, acknowledged, &release),
            Call::GetSequencer(get) => self.get_sequencer(asker, &get).map(Some),
            Call::SetSequencer(set) => self.set_sequencer(asker, acknowledged, &set),
            Call::BreakLock(call) => self.break_lock(asker, acknowledged, call),
            Call::Multi(multi) => self.multi(asker, acknowledged, multi),
            _ => Err(Error::invalid("the call belongs to no session: send it with session 0")),
        }
    }

    /// Whether what a request asks for is on its way into the log, or waits to be.
    pub(crate) fn is_under_way(&self, asker: Asker) -> bool {
        let (session, number) = (asker.session, asker.number);
        let waits = |master: &Master| master.cache.is_waiting(session, number);
        self.proposals.is_waiting(session, number) || self.master.as_ref().is_some_and(waits)
    }

    /// The answer that this change got when it was asked for before (SPEC I13). A copy that comes when its client
    /// has had that answer for long is refused here: the client has dropped nothing for it.
    pub(crate) fn answered_before(&self, asker: Asker) -> Option<Result<Answer>> {
        let result = self.state.session(asker.session)?.answer(asker.number)?;
        Some(result.map(plain_answer))
    }

    /// Proposes a change whose answer is its outcome, unless it was answered before.
    fn change(&mut self, asker: Asker, acknowledged: u64, op: Op) -> Result<Option<Answer>> {
        match self.answered_before(asker) {
            Some(result) => result.map(Some),
            None => self.propose(Origin::Plain(asker), acknowledged, op).map(|_| None),
        }
    }
}

/// As many of `rest` as a page of a listing holds, the first in any case; and whether there are more.
fn fill_page<T: Message>(limit: u32, rest: impl Iterator<Item = T>) -> (Vec<T>, bool) {
    let (mut entries, mut bytes) = (Vec::new(), 0);
    for entry in rest {
        bytes += entry.encoded_len() + 8;
        if entries.len() >= page(limit) || bytes > PAGE_BYTES && !entries.is_empty() {
            return (entries, true);
        }
        entries.push(entry);
    }
    (entries, false)
}

/// How many entries a page of a listing has at most.
fn page(limit: u32) -> usize {
    match limit as usize {
        0 => PAGE_ENTRIES,
        limit => limit.min(PAGE_ENTRIES),
    }
}
