//! Sessions: Create, Resume, End (P§2.8).

use super::Master;
use crate::context::Cx;
use crate::request::{Answer, ConnectionId, Reply, RequestContext};
use crate::tables::outbox::EventQueue;
use crate::tables::proposals::PendingReply;
use crate::tables::sessions::LiveSession;
use crate::tables::timers::Timer;
use alloc::string::String;
use alloc::vec::Vec;
use wombat_proto::limits::{CLIENT_DESCRIPTION_BYTES, SEQUENCERS_PER_SESSION};
use wombat_proto::wire::{self, log, log::command::Op};
use wombat_proto::{Error, Result, Sequencer, SessionId};

impl Master {
    pub(super) fn create_session(
        &mut self,
        cx: &mut Cx<'_>,
        request: RequestContext,
        create: wire::CreateSession,
    ) -> Result<Reply> {
        if create.client.len() > CLIENT_DESCRIPTION_BYTES {
            let what = alloc::format!("the client's description of itself: {} bytes", create.client.len());
            return Err(Error::TooLarge { what });
        }
        if request.session != SessionId(0) {
            return Err(Error::invalid("CreateSession is sent with session 0"));
        }
        let fences = fences(cx, &create.sequencers)?;
        let create = log::CreateSession { client: create.client, caches: create.caches, fences };
        let reply = PendingReply::CreateSession(request.without_acknowledgement());
        self.propose(cx, reply, Op::CreateSession(create))?;
        Ok(Reply::Later)
    }

    /// A new session is in the log.
    pub(super) fn session_created(&mut self, cx: &mut Cx<'_>, request: RequestContext, session: SessionId) {
        let until = cx.now() + self.lease(cx.view());
        let caches = cx.state.session(session).is_some_and(|session| session.caches);
        let cache = caches.then(|| self.cache_keys.add_client(false));
        self.sessions.insert(session, LiveSession::new(until, EventQueue::default(), cache));
        self.timers.set(until, Timer::Lease(session));
        let answer = self.attach(cx, request.connection, session);
        self.reply(cx, request, answer);
    }

    pub(super) fn resume_session(
        &mut self,
        cx: &mut Cx<'_>,
        request: RequestContext,
        resume: &wire::ResumeSession,
    ) -> Result<Answer> {
        let session = request.session;
        let until = cx.now() + self.lease_of(cx.view(), session);
        if self.signer.session_secret(session) != (resume.secret_high, resume.secret_low) {
            return Err(Error::SessionUnknown);
        }
        if cx.state.session(session).is_none() {
            return Err(Error::SessionExpired);
        }
        let live = self.sessions.live(session)?;
        if live.lease.ending {
            return Err(Error::SessionExpired);
        }
        live.lease.extend(until);
        self.attach(cx, request.connection, session)
    }

    /// Lets a connection speak for a session. The answer has the session's terms.
    fn attach(&mut self, cx: &mut Cx<'_>, id: ConnectionId, session: SessionId) -> Result<Answer> {
        let lease_ms = self.lease_of(cx.view(), session).as_millis() as u32;
        cx.connections.attach(id, session);
        self.sessions.live(session)?.connection = Some(id);
        let (secret_high, secret_low) = self.signer.session_secret(session);
        Ok(Answer::SessionOpened(wire::SessionOpened {
            session: session.0,
            secret_high,
            secret_low,
            lease_ms,
            epoch: self.epoch.0,
        }))
    }

    pub(super) fn end_session(&mut self, cx: &mut Cx<'_>, request: RequestContext) -> Result<Reply> {
        let end = log::EndSessions { sessions: [request.session.0].into(), asked: true };
        let reply = PendingReply::Plain(request.without_acknowledgement());
        self.propose(cx, reply, Op::EndSessions(end))?;
        Ok(Reply::Later)
    }
}

/// The locks that sequencers stand for. Whether they are held is checked at each change; a lock of another cell is held
/// by no session here.
fn fences(cx: &Cx<'_>, sequencers: &[String]) -> Result<Vec<log::Fence>> {
    if sequencers.len() > SEQUENCERS_PER_SESSION {
        let what = alloc::format!("more than {SEQUENCERS_PER_SESSION} sequencers for one session");
        return Err(Error::TooLarge { what });
    }
    let fence = |text: &String| {
        let Sequencer { path, instance, token, .. } = text.parse()?;
        Ok(match path.cell == cx.config.cell {
            true => log::Fence { instance: instance.0, token: token.0 },
            false => log::Fence::default(),
        })
    };
    sequencers.iter().map(fence).collect()
}
