//! Connections and sessions: Hello, Create, Resume, End (P§2.8).

use crate::proposals::Origin;
use crate::{Answer, Asker, ConnectionId, Replica};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use wombat_proto::limits::{CLIENT_DESCRIPTION_BYTES, SEQUENCERS_PER_SESSION};
use wombat_proto::wire::{self, log, log::command::Op};
use wombat_proto::{CellName, Error, ReplicaId, Result, Sequencer, SessionId};

impl Replica {
    pub(super) fn hello(&mut self, asker: Asker, hello: &wire::Hello) -> Result<Option<Answer>> {
        let refusal = if hello.version != wire::VERSION {
            Some(alloc::format!(
                "this server speaks version {} of the protocol, not {}",
                wire::VERSION,
                hello.version
            ))
        } else if !hello.cell.is_empty() && hello.cell != self.config.cell.as_str() {
            Some(alloc::format!("this is the cell {}, not {:?}", self.config.cell, shorten(&hello.cell)))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            self.hang_up(asker.connection);
            return Err(Error::invalid(refusal));
        }
        self.connections.entry(asker.connection).or_default();
        Ok((!self.greet_later(asker, hello)).then(|| Answer::Welcome(self.welcome())))
    }

    /// Who this replica is, and who is master.
    pub(crate) fn welcome(&self) -> wire::Welcome {
        wire::Welcome {
            cell: self.config.cell.to_string(),
            replica: self.config.replica.0,
            epoch: self.master.as_ref().map_or(0, |master| master.epoch.0),
            master: self.master_address(),
            server: self.config.version.clone(),
            relayed_by: 0,
        }
    }

    /// The master, as far as this replica knows.
    pub fn master(&self) -> Option<ReplicaId> {
        let own = self.config.replica;
        if self.is_master() { Some(own) } else { self.paxos.master().filter(|id| *id != own) }
    }

    /// Where the master listens, as far as this replica knows; empty if it does not.
    pub fn master_address(&self) -> alloc::string::String {
        match self.master() {
            Some(id) if id == self.config.replica => self.config.address.clone(),
            Some(id) => self.address_of(id),
            None => alloc::string::String::new(),
        }
    }

    /// Whether a connection speaks for a session that lives, and that has come by no other connection since.
    pub fn serves_session(&mut self, id: ConnectionId) -> bool {
        let (Some(connection), Some(master)) = (self.connections.get_mut(&id), &self.master) else {
            return false;
        };
        let is_here = |session: &SessionId| {
            master.sessions.get(session).is_some_and(|live| live.connection == Some(id))
        };
        connection.sessions.retain(|session| master.sessions.contains_key(session));
        connection.sessions.iter().any(is_here)
    }

    /// Where a replica listens; empty if that is not known.
    pub(crate) fn address_of(&self, id: ReplicaId) -> alloc::string::String {
        let known = self.paxos.configurations().everyone().find(|member| member.id == id);
        known.map(|member| member.address.clone()).unwrap_or_default()
    }

    pub(super) fn create_session(
        &mut self,
        asker: Asker,
        create: wire::CreateSession,
    ) -> Result<Option<Answer>> {
        if create.client.len() > CLIENT_DESCRIPTION_BYTES {
            let what = alloc::format!("the client's description of itself: {} bytes", create.client.len());
            return Err(Error::TooLarge { what });
        }
        if asker.session != SessionId(0) {
            return Err(Error::invalid("CreateSession is sent with session 0"));
        }
        let fences = self.fences(&create.sequencers)?;
        let op =
            Op::CreateSession(log::CreateSession { client: create.client, caches: create.caches, fences });
        self.propose(Origin::CreateSession(asker), 0, op)?;
        Ok(None)
    }

    /// The locks that sequencers stand for. Whether they are held is checked at each change; a lock of another cell
    /// is held by nobody here.
    fn fences(&self, sequencers: &[String]) -> Result<Vec<log::Fence>> {
        if sequencers.len() > SEQUENCERS_PER_SESSION {
            let what = alloc::format!("more than {SEQUENCERS_PER_SESSION} sequencers for one session");
            return Err(Error::TooLarge { what });
        }
        let fence = |text: &String| {
            let Sequencer { path, instance, token, .. } = text.parse()?;
            Ok(match path.cell == self.config.cell {
                true => log::Fence { instance: instance.0, token: token.0 },
                false => log::Fence::default(),
            })
        };
        sequencers.iter().map(fence).collect()
    }

    pub(super) fn resume_session(&mut self, asker: Asker, resume: &wire::ResumeSession) -> Result<Answer> {
        let until = self.moment.now + self.lease_of(asker.session);
        let alive = self.state.session(asker.session).is_some();
        let master = self.serving()?;
        if master.seal.session_secret(asker.session) != (resume.secret_high, resume.secret_low) {
            return Err(Error::SessionUnknown);
        }
        if !alive || master.session(asker.session)?.lease.ending {
            return Err(Error::SessionExpired);
        }
        master.extend(asker.session, until)?;
        self.session_opened(asker.connection, asker.session)
    }

    /// Lets a connection speak for a session, and tells the session's terms.
    pub(crate) fn session_opened(&mut self, id: ConnectionId, session: SessionId) -> Result<Answer> {
        let lease_ms = self.lease_of(session).as_millis() as u32;
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.sessions.insert(session);
        }
        let master = self.serving()?;
        master.session(session)?.connection = Some(id);
        let (secret_high, secret_low) = master.seal.session_secret(session);
        let epoch = master.epoch.0;
        Ok(Answer::SessionOpened(wire::SessionOpened {
            session: session.0,
            secret_high,
            secret_low,
            lease_ms,
            epoch,
        }))
    }

    pub(super) fn end_session(&mut self, asker: Asker) -> Result<Option<Answer>> {
        let op = Op::EndSessions(log::EndSessions { sessions: [asker.session.0].into(), asked: true });
        self.propose(Origin::Plain(asker), 0, op)?;
        Ok(None)
    }
}

fn shorten(text: &str) -> alloc::string::String {
    text.chars().take(2 * CellName::LOCAL.len().max(32)).collect()
}
