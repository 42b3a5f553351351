//! Links: how the session finds the master, attaches to it, and notices that it does not answer any more.

use super::{Effects, Identity, Session, SessionEvent};
use crate::Answer;
use crate::endpoints::Outcome;
use crate::liveness::{UpLink, allowance};
use crate::search::{ANSWER_WITHIN, LinkId, Step};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::limits::keep_alive_hold;
use wombat_proto::wire::{self, Request, request::Call};
use wombat_proto::{Epoch, Error, Instant, Result, SessionId};

/// How long the master may take to open the session, at least and at most.
const SHORTEST_ATTACH: Duration = Duration::from_millis(500);
/// See [`SHORTEST_ATTACH`].
pub(super) const LONGEST_ATTACH: Duration = Duration::from_secs(4);

impl Session {
    /// The shell has made a connection.
    pub fn connected(&mut self, now: Instant, link: LinkId, effects: &mut Effects) {
        self.now = now;
        self.take_steps(effects, |search, steps| search.connected(now, link, steps));
    }

    /// The endpoint of a connection is a name that stands for several addresses, `host:port` each. The shell has
    /// not connected: the session says which to try.
    pub fn resolved(&mut self, now: Instant, link: LinkId, addresses: &[String]) {
        self.now = now;
        self.search.resolved(now, link, addresses);
    }

    /// A connection is gone, or could not be made, for this reason.
    pub fn disconnected(&mut self, now: Instant, link: LinkId, why: &str, effects: &mut Effects) {
        self.now = now;
        let outcome = Some(Outcome::Failed(why.to_string()));
        if let Some(up) = self.up.take_if(|up| up.link == link) {
            return self.lost(now, &up, outcome, effects);
        }
        self.search.give_up(now, link, outcome, &mut Vec::new());
    }

    /// The session's link is gone.
    fn lost(&mut self, now: Instant, up: &UpLink, outcome: Option<Outcome>, effects: &mut Effects) {
        self.keep_alive = None;
        if self.retiring.is_some() {
            return self.rest(effects);
        }
        self.search.begin(now);
        self.search.lost(now, &up.endpoint, outcome);
    }

    /// The other end of the session's link is not the master any more, and may have said who is.
    pub(super) fn leave(&mut self, now: Instant, master: Option<String>, effects: &mut Effects) {
        let Some(up) = self.up.take() else { return };
        effects.disconnect.push(up.link);
        let said = match &master {
            Some(master) => alloc::format!("the master is {master}"),
            None => "it is not the master".into(),
        };
        self.lost(now, &up, Some(Outcome::Answered(said)), effects);
        if !self.resting {
            self.take_steps(effects, |search, steps| search.try_master(now, master, steps));
        }
    }

    /// The endpoint of the session's link, while there is one.
    pub fn up_endpoint(&self) -> Option<&str> {
        self.up.as_ref().map(|up| &*up.endpoint)
    }

    /// What came of the search for the master so far, endpoint by endpoint, for people.
    pub fn describe_search(&self) -> String {
        self.search.describe(self.now)
    }

    fn take_steps(
        &mut self,
        effects: &mut Effects,
        act: impl FnOnce(&mut crate::search::Search, &mut Vec<Step>),
    ) {
        let mut steps = Vec::new();
        act(&mut self.search, &mut steps);
        self.carry_out(steps, effects);
    }

    fn carry_out(&mut self, steps: Vec<Step>, effects: &mut Effects) {
        for step in steps {
            match step {
                Step::Connect(link, endpoint) => effects.connect.push((link, endpoint)),
                Step::Close(link) => effects.disconnect.push(link),
                // Long before this client gives up the link, whose other side may be cut off from the master.
                Step::Greet(link, relay) => {
                    self.hello(link, ANSWER_WITHIN / 2, relay, effects);
                }
            }
        }
    }

    /// Sends Hello. Returns its number.
    fn hello(&mut self, link: LinkId, wait: Duration, relay: bool, effects: &mut Effects) -> u64 {
        // Whichever cell answered first, from then on it must be the same.
        let cell = if self.identity.is_some() { &self.cell } else { &self.config.cell };
        let wait_ms = wait.as_millis() as u32;
        let hello = wire::Hello { version: wire::VERSION, cell: cell.clone(), wait_ms, relay };
        let number = self.calls.number();
        effects.send.push((link, Request { number, call: Some(Call::Hello(hello)), ..Request::default() }));
        number
    }

    /// When the pending KeepAlive is late.
    fn keep_alive_late_at(&self) -> Option<Instant> {
        let (_, sent) = self.keep_alive?;
        let lease = self.lease.granted();
        Some(sent + keep_alive_hold(lease) + allowance(lease))
    }

    pub(super) fn next_link_deadline(&self) -> Option<Instant> {
        let up = self.up.as_ref().and_then(|up| {
            let overdue = Some(self.lease.overdue_at()).filter(|at| *at > self.now);
            let probe = up.next_deadline(self.now, self.keep_alive_late_at(), self.lease.granted());
            overdue.into_iter().chain(probe).min()
        });
        let search = self.search.next_deadline(self.attach_within()).filter(|_| !self.resting);
        up.into_iter().chain(search).min()
    }

    /// Probes the session's link where that is due, and goes on with the search if there is none that answers.
    pub(super) fn maintain_links(&mut self, now: Instant, effects: &mut Effects) {
        if self.resting {
            return;
        }
        let (late_at, lease) = (self.keep_alive_late_at(), self.lease.granted());
        if let Some(up) = self.up.as_ref().filter(|up| up.is_probe_due(now, late_at)) {
            let number = self.hello(up.link, Duration::ZERO, false, effects);
            self.up.as_mut().expect("it is there").probed(now, number);
        }
        let suspect = self.up.as_ref().filter(|up| {
            up.is_silent(now, lease) || self.lease.overdue_at() <= now || up.looks_for_direct_link(now)
        });
        match (&self.up, suspect) {
            (Some(_), None) => {
                self.take_steps(effects, |search, steps| search.end_unless_attaching(steps));
            }
            // It holds nothing, and its end was on the way: the next call begins another session.
            (Some(_), Some(_)) if self.retiring.is_some() => return self.rest(effects),
            (_, Some(up)) => {
                let endpoint = up.endpoint.clone();
                self.search.begin_suspecting(now, &endpoint);
            }
            (None, None) => self.search.begin(now),
        }
        let within = self.attach_within();
        self.take_steps(effects, |search, steps| search.tick(now, within, steps));
    }

    /// How long the master may take to open the session. One that exists has no time to lose with a server that
    /// only seems to be the master; to create one may take longer.
    fn attach_within(&self) -> Duration {
        match self.identity {
            Some(_) => (self.lease.granted() / 6).clamp(SHORTEST_ATTACH, LONGEST_ATTACH),
            None => LONGEST_ATTACH,
        }
    }

    /// An answer on the link of a candidate.
    pub(super) fn candidate_answered(
        &mut self,
        now: Instant,
        link: LinkId,
        result: Result<Answer>,
        effects: &mut Effects,
    ) {
        if let Some(sent) = self.search.attaching_since(link) {
            return self.attach_answered(now, (link, sent), result, effects);
        }
        match result {
            Ok(Answer::Welcome(welcome)) if welcome.epoch == 0 => {
                let master = Some(welcome.master).filter(|master| !master.is_empty());
                self.take_steps(effects, |search, steps| search.follows(now, link, master, steps));
            }
            Ok(Answer::Welcome(welcome)) => {
                let (mut steps, relayed) = (Vec::new(), welcome.relayed_by != 0);
                let attach = self.search.attach(now, link, (welcome.epoch, relayed), &mut steps);
                self.carry_out(steps, effects);
                if attach {
                    self.cell = welcome.cell;
                    self.attach(link, effects);
                }
            }
            Ok(_) => self.refused(now, link, &Error::Unknown, effects),
            Err(error) => self.refused(now, link, &error, effects),
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
        now: Instant,
        (link, sent): (LinkId, Instant),
        result: Result<Answer>,
        effects: &mut Effects,
    ) {
        let opened = match result {
            Ok(Answer::SessionOpened(opened)) => opened,
            Err(Error::SessionExpired | Error::SessionUnknown) => return self.expire(effects),
            Err(Error::NotMaster { hint }) => {
                return self.take_steps(effects, |search, steps| search.follows(now, link, hint, steps));
            }
            // The master itself: what was wrong with the request will be wrong again.
            Err(
                error
                @ (Error::InvalidArgument { .. } | Error::TooLarge { .. } | Error::QuotaExceeded { .. }),
            ) if self.identity.is_none() => return self.refuse(&error, effects),
            Err(error) => return self.refused(now, link, &error, effects),
            Ok(_) => return self.refused(now, link, &Error::Unknown, effects),
        };
        let mut steps = Vec::new();
        let Some((endpoint, relayed)) = self.search.attached(link, &mut steps) else { return };
        self.carry_out(steps, effects);
        // It has proved better than the link that was suspected.
        if let Some(old) = self.up.replace(UpLink::new(link, endpoint, relayed.then_some(now))) {
            effects.disconnect.push(old.link);
        }
        self.identity = Some(Identity {
            id: SessionId(opened.session),
            secret_high: opened.secret_high,
            secret_low: opened.secret_low,
        });
        self.calls.forget_overload();
        self.meet_epoch(Epoch(opened.epoch), effects);
        self.extend(now, sent, Duration::ZERO, opened.lease_ms, effects);
        self.send_keep_alive(now, effects);
        self.send_all(effects);
    }

    /// A replica does not want this client, or not now.
    fn refused(&mut self, now: Instant, link: LinkId, error: &Error, effects: &mut Effects) {
        let mut steps = Vec::new();
        let refused = self.search.refused(now, link, error, &mut steps);
        self.carry_out(steps, effects);
        if let (Err(error), None) = (refused, self.identity) {
            self.refuse(&error, effects);
        }
    }

    /// The cell will never have this client: all that wait for the session learn why.
    fn refuse(&mut self, error: &Error, effects: &mut Effects) {
        self.expired = true;
        for (number, _) in self.calls.abandon() {
            effects.done.push((number, Err(error.clone())));
        }
        self.refusal = Some(error.clone());
        self.close_links(effects);
    }

    pub(super) fn close_links(&mut self, effects: &mut Effects) {
        effects.disconnect.extend(self.up.take().map(|up| up.link));
        self.take_steps(effects, crate::search::Search::end);
    }

    /// The answer to a probe of the session's link.
    pub(super) fn probe_answered(&mut self, now: Instant, result: Result<Answer>, effects: &mut Effects) {
        match result {
            Ok(Answer::Welcome(welcome)) if welcome.epoch != 0 => {}
            Ok(Answer::Welcome(welcome)) => {
                let master = Some(welcome.master).filter(|master| !master.is_empty());
                self.leave(now, master, effects);
            }
            _ => self.leave(now, None, effects),
        }
    }

    pub(super) fn extend(
        &mut self,
        now: Instant,
        sent: Instant,
        held: Duration,
        lease_ms: u32,
        effects: &mut Effects,
    ) {
        let lease = Duration::from_millis(lease_ms.into());
        if self.lease.extend(now, sent, held, lease) {
            effects.session_events.push(SessionEvent::Safe);
        }
    }
}
