//! Attaching the session to a master that the search has found: it is created there, or resumed.

use super::{Identity, Session};
use crate::api::{Answer, Effects};
use crate::liveness::UpLink;
use crate::search::LinkId;
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::wire::{self, Request, request::Call};
use wombat_proto::{Epoch, Error, Instant, Result, SessionId};

/// How long the master may take to open the session, at least and at most.
const MIN_ATTACH_TIMEOUT: Duration = Duration::from_millis(500);
/// See [`MIN_ATTACH_TIMEOUT`].
const MAX_ATTACH_TIMEOUT: Duration = Duration::from_secs(4);

impl Session {
    /// How long the master may take to open the session. One that exists has no time to lose with a server that
    /// only seems to be the master; to create one may take longer.
    pub(super) fn attach_within(&self) -> Duration {
        match self.identity {
            Some(_) => (self.lease.granted() / 6).clamp(MIN_ATTACH_TIMEOUT, MAX_ATTACH_TIMEOUT),
            None => MAX_ATTACH_TIMEOUT,
        }
    }

    /// An answer on the link of a candidate.
    pub(super) fn candidate_answered(&mut self, link: LinkId, result: Result<Answer>, effects: &mut Effects) {
        if let Some(sent) = self.search.attaching_since(link) {
            return self.attach_answered((link, sent), result, effects);
        }
        match result {
            Ok(Answer::Welcome(welcome)) if welcome.epoch == 0 => {
                let master = Some(welcome.master).filter(|master| !master.is_empty());
                self.take_steps(effects, |search, now, steps| search.follows(now, link, master, steps));
            }
            Ok(Answer::Welcome(welcome)) => {
                let (mut steps, relayed) = (Vec::new(), welcome.relayed_by != 0);
                let attach = self.search.attach(self.now, link, (welcome.epoch, relayed), &mut steps);
                self.carry_out(steps, effects);
                if attach {
                    self.cell = welcome.cell;
                    self.attach(link, effects);
                }
            }
            Ok(_) => self.refused(link, &Error::Unknown, effects),
            Err(error) => self.refused(link, &error, effects),
        }
    }

    /// Asks the master to open the session.
    fn attach(&mut self, link: LinkId, effects: &mut Effects) {
        let number = self.calls.number();
        let (session, call) = match self.identity {
            None => {
                let (client, caches) = (self.config.client.clone(), self.cache.is_on());
                let sequencers = self.config.sequencers.clone();
                (0, Call::CreateSession(wire::CreateSession { client, caches, sequencers }))
            }
            Some(Identity { id, secret_high, secret_low }) => {
                (id.0, Call::ResumeSession(wire::ResumeSession { secret_high, secret_low }))
            }
        };
        effects.send.push((link, Request { session, number, call: Some(call), ..Request::default() }));
    }

    fn attach_answered(
        &mut self,
        (link, sent): (LinkId, Instant),
        result: Result<Answer>,
        effects: &mut Effects,
    ) {
        let opened = match result {
            Ok(Answer::SessionOpened(opened)) => opened,
            Err(Error::SessionExpired | Error::SessionUnknown) => return self.expire(effects),
            Err(Error::NotMaster { hint }) => {
                return self.take_steps(effects, |search, now, steps| search.follows(now, link, hint, steps));
            }
            // The master itself: what was wrong with the request will be wrong again.
            Err(
                error
                @ (Error::InvalidArgument { .. } | Error::TooLarge { .. } | Error::QuotaExceeded { .. }),
            ) if self.identity.is_none() => return self.refuse(&error, effects),
            Err(error) => return self.refused(link, &error, effects),
            Ok(_) => return self.refused(link, &Error::Unknown, effects),
        };
        let mut steps = Vec::new();
        let Some((endpoint, relayed)) = self.search.attached(link, &mut steps) else { return };
        self.carry_out(steps, effects);
        // It has proved better than the link that was suspected.
        if let Some(old) = self.up.replace(UpLink::new(link, endpoint, relayed.then_some(self.now))) {
            effects.disconnect.push(old.link);
        }
        self.identity = Some(Identity {
            id: SessionId(opened.session),
            secret_high: opened.secret_high,
            secret_low: opened.secret_low,
        });
        self.calls.forget_overload();
        self.note_epoch(Epoch(opened.epoch), effects);
        self.extend(sent, Duration::ZERO, opened.lease_ms, effects);
        self.send_keep_alive(effects);
        self.send_all(effects);
    }

    /// A replica does not want this client, or not now.
    fn refused(&mut self, link: LinkId, error: &Error, effects: &mut Effects) {
        let mut steps = Vec::new();
        let refused = self.search.refused(self.now, link, error, &mut steps);
        self.carry_out(steps, effects);
        if let (Err(error), None) = (refused, self.identity) {
            self.refuse(&error, effects);
        }
    }

    /// The cell will never have this client: all that wait for the session are answered with the reason.
    fn refuse(&mut self, error: &Error, effects: &mut Effects) {
        self.expired = true;
        for (number, _) in self.calls.abandon() {
            effects.done.push((number, Err(error.clone())));
        }
        self.refusal = Some(error.clone());
        self.close_links(effects);
    }

    /// Without a session there is none to expire: its calls wait for one for as long as they would in jeopardy.
    pub(super) fn gives_up_at(&self) -> Option<Instant> {
        let since = self.calls.waits_since().filter(|_| self.identity.is_none())?;
        Some(since + self.config.grace.max(MAX_ATTACH_TIMEOUT))
    }
}
