//! Links: how the session searches for the master, and notices that the one it has does not answer any more.

use super::Session;
use crate::api::{Answer, Effects};
use crate::endpoints::Outcome;
use crate::liveness::UpLink;
use crate::search::{ANSWER_WITHIN, LinkId, Search, Step};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::wire::{self, Request, request::Call};
use wombat_proto::{Instant, Result};

impl Session {
    /// The shell has made a connection.
    pub fn connected(&mut self, now: Instant, link: LinkId, effects: &mut Effects) {
        self.now = now;
        self.take_steps(effects, |search, now, steps| search.connected(now, link, steps));
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
            return self.lost(&up, outcome, effects);
        }
        self.search.give_up(now, link, outcome, &mut Vec::new());
    }

    /// The session's link is gone.
    fn lost(&mut self, up: &UpLink, outcome: Option<Outcome>, effects: &mut Effects) {
        self.keep_alive = None;
        if self.closing_idle.is_some() {
            return self.end_idle(effects);
        }
        self.search.begin(self.now);
        self.search.lost(self.now, &up.endpoint, outcome);
    }

    /// The other end of the session's link is not the master any more, and may have said who is.
    pub(super) fn leave(&mut self, master: Option<String>, effects: &mut Effects) {
        let Some(up) = self.up.take() else { return };
        effects.disconnect.push(up.link);
        let said = match &master {
            Some(master) => alloc::format!("the master is {master}"),
            None => "it is not the master".into(),
        };
        self.lost(&up, Some(Outcome::Answered(said)), effects);
        if !self.is_dormant {
            self.take_steps(effects, |search, now, steps| search.try_master(now, master, steps));
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

    /// Lets the search act, and does what it wants.
    pub(super) fn take_steps(
        &mut self,
        effects: &mut Effects,
        act: impl FnOnce(&mut Search, Instant, &mut Vec<Step>),
    ) {
        let mut steps = Vec::new();
        act(&mut self.search, self.now, &mut steps);
        self.carry_out(steps, effects);
    }

    pub(super) fn carry_out(&mut self, steps: Vec<Step>, effects: &mut Effects) {
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

    pub(super) fn next_link_deadline(&self) -> Option<Instant> {
        let up = self.up.as_ref().and_then(|up| {
            let overdue = Some(self.lease.overdue_at()).filter(|at| *at > self.now);
            let probe = up.next_deadline(self.now, self.keep_alive_late_at(), self.lease.granted());
            overdue.into_iter().chain(probe).min()
        });
        let search = self.search.next_deadline(self.attach_within()).filter(|_| !self.is_dormant);
        up.into_iter().chain(search).min()
    }

    /// Probes the session's link where that is due, and goes on with the search if there is none that answers.
    pub(super) fn maintain_links(&mut self, effects: &mut Effects) {
        if self.is_dormant {
            return;
        }
        let (late_at, lease) = (self.keep_alive_late_at(), self.lease.granted());
        if let Some(up) = self.up.as_ref().filter(|up| up.is_probe_due(self.now, late_at)) {
            let number = self.hello(up.link, Duration::ZERO, false, effects);
            self.up.as_mut().expect("it is there").probed(self.now, number);
        }
        let suspect = self.up.as_ref().filter(|up| {
            up.is_silent(self.now, lease)
                || self.lease.overdue_at() <= self.now
                || up.looks_for_direct_link(self.now)
        });
        match (&self.up, suspect) {
            (Some(_), None) => {
                self.take_steps(effects, |search, _, steps| search.end_unless_attaching(steps));
            }
            // It holds nothing, and its end was on the way: the next call begins another session.
            (Some(_), Some(_)) if self.closing_idle.is_some() => return self.end_idle(effects),
            (_, Some(up)) => {
                let endpoint = up.endpoint.clone();
                self.search.begin_suspecting(self.now, &endpoint);
            }
            (None, None) => self.search.begin(self.now),
        }
        let within = self.attach_within();
        self.take_steps(effects, |search, now, steps| search.tick(now, within, steps));
    }

    pub(super) fn close_links(&mut self, effects: &mut Effects) {
        effects.disconnect.extend(self.up.take().map(|up| up.link));
        self.take_steps(effects, |search, _, steps| search.end(steps));
    }

    /// The answer to a probe of the session's link.
    pub(super) fn probe_answered(&mut self, result: Result<Answer>, effects: &mut Effects) {
        match result {
            Ok(Answer::Welcome(welcome)) if welcome.epoch != 0 => {}
            Ok(Answer::Welcome(welcome)) => {
                let master = Some(welcome.master).filter(|master| !master.is_empty());
                self.leave(master, effects);
            }
            _ => self.leave(None, effects),
        }
    }
}
