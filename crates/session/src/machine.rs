//! The session itself: calls and answers in, requests and results out. Each input brings the time.

mod attach;
mod idle;
mod keep_alive;
mod links;
mod requests;

use crate::api::{Answer, Config, Effects, NodeEvent, SessionEvent};
use crate::cache::{Cache, CacheStats, Entries};
use crate::calls::{Calls, Kind};
use crate::handles::Handles;
use crate::lease::{LeaseView, Passed};
use crate::liveness::UpLink;
use crate::revocations::Revocations;
use crate::search::{LinkId, Search};
use alloc::string::String;
use alloc::vec::Vec;
use wombat_proto::limits::IDLE_END;
use wombat_proto::wire::{self, Response, event, request::Call};
use wombat_proto::{Epoch, Error, HandleId, Instant, SessionId, Slot};

/// The identity that the cell gave the session.
#[derive(Clone, Copy, Debug)]
struct Identity {
    id: SessionId,
    secret_high: u64,
    secret_low: u64,
}

/// A client's session.
#[derive(Clone, Debug)]
pub struct Session {
    config: Config,
    /// The time of the last input.
    now: Instant,
    cell: String,
    /// The link that speaks for the session.
    up: Option<UpLink>,
    /// The search for the master, while there is no such link or its other end does not answer.
    search: Search,
    /// Whether it needs no link before the next call: it was idle, and has ended.
    is_dormant: bool,
    identity: Option<Identity>,
    epoch: Epoch,
    lease: LeaseView,
    calls: Calls,
    handles: Handles,
    /// Since when it has had no handle and no call.
    idle_since: Option<Instant>,
    /// Whether a call was made since the last KeepAlive was sent. The cell does not see which client makes a call
    /// that belongs to no session.
    called: bool,
    /// The number of the EndSession that is pending because the session was idle.
    closing_idle: Option<u64>,
    /// The KeepAlive that is pending, and when it was sent.
    keep_alive: Option<(u64, Instant)>,
    /// The number of the last event received in this epoch.
    last_event: u64,
    revocations: Revocations,
    cache: Cache,
    /// Whether the application has asked for its end: from then on none of its locks is safe.
    ending: bool,
    expired: bool,
    /// Why the cell refuses this client for good.
    refusal: Option<Error>,
}

impl Session {
    /// A session that is about to be created: the first effects come with the first [`Session::tick`].
    pub fn new(config: Config, now: Instant) -> Session {
        Session {
            now,
            cell: config.cell.clone(),
            up: None,
            search: Search::new(&config.endpoints, config.seed),
            is_dormant: false,
            identity: None,
            epoch: Epoch::NONE,
            lease: LeaseView::new(config.rho, config.grace),
            calls: Calls::default(),
            handles: Handles::default(),
            idle_since: None,
            called: false,
            closing_idle: None,
            keep_alive: None,
            last_event: 0,
            revocations: Revocations::default(),
            cache: Cache::new(config.cache_bytes),
            ending: false,
            expired: false,
            refusal: None,
            config,
        }
    }

    /// The session's id, once it is created.
    pub fn id(&self) -> Option<SessionId> {
        self.identity.map(|identity| identity.id)
    }

    /// The epoch of the newest master that it knows.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The name of the cell, once a replica has sent it.
    pub fn cell(&self) -> &str {
        &self.cell
    }

    /// Until when the session is safe. In the past as soon as its end is asked for.
    pub fn safe_until(&self) -> Instant {
        if self.expired || self.ending { Instant::default() } else { self.lease.until() }
    }

    /// Until when cached entries may be used; in the past if none may be. A reader that may be interrupted looks at
    /// this first, then at the entry, then at the clock: then the entry was valid when the reader looked at it.
    pub fn cache_until(&self) -> Instant {
        self.cache.until()
    }

    /// What is cached, if it may be used now.
    pub fn cached(&self, now: Instant) -> Option<&Entries> {
        self.cache.usable(now)
    }

    /// What the cache has done so far.
    pub fn cache_stats(&self) -> CacheStats {
        self.cache.stats()
    }

    /// Whether the session is lost.
    pub fn is_expired(&self) -> bool {
        self.expired
    }

    /// Why the cell refuses this client for good, if it does.
    pub fn refusal(&self) -> Option<&Error> {
        self.refusal.as_ref()
    }

    /// When [`Session::tick`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.expired {
            return None;
        }
        let lease = self.identity.map(|_| self.lease.deadline());
        let idle = self.idle_since.map(|since| since + IDLE_END).filter(|_| self.closing_idle.is_none());
        let cache = self.cache.next_due(self.now).filter(|_| self.up.is_some());
        let links = self.next_link_deadline();
        let others = [self.calls.next_due(), self.gives_up_at(), self.revocations.next_due(), cache];
        [lease, links, idle].into_iter().chain(others).flatten().min()
    }

    /// Takes a call in and returns its number, under which its result will come.
    pub fn submit(&mut self, call: Call, effects: &mut Effects) -> u64 {
        self.called = true;
        if matches!(call, Call::EndSession(_)) {
            self.ending = true;
            self.cache.shut(&mut effects.cache);
        }
        if let Call::Close(close) = &call {
            self.handles.closed(close.handle.as_ref());
        }
        self.is_dormant = false;
        if self.expired {
            let number = self.calls.number();
            effects.done.push((number, Err(Error::SessionExpired)));
            return number;
        }
        self.cache.takes(self.calls.next(), &call);
        let number = self.calls.add(call, self.now);
        self.send(number, effects);
        number
    }

    /// A frame arrived.
    pub fn received(&mut self, now: Instant, link: LinkId, response: Response, effects: &mut Effects) {
        self.now = now;
        let Response { number, cachable, result, .. } = response;
        let result = match result {
            None => Err(Error::Unknown),
            Some(Answer::Error(error)) => Err(Error::from(error)),
            Some(answer) => Ok(answer),
        };
        if self.expired {
            return; // The connection may still bring answers.
        }
        match &self.up {
            Some(up) if up.link == link => {
                if up.is_probe(number) {
                    self.probe_answered(result, effects);
                } else if self.keep_alive.is_some_and(|(pending, _)| pending == number) {
                    self.kept_alive(result, effects);
                } else if self.closing_idle == Some(number) {
                    self.end_idle(effects);
                } else {
                    self.answered(number, result, cachable.as_ref(), effects);
                }
                let calls_wait = self.calls.any_but_acquires();
                self.up.iter_mut().for_each(|up| up.received(now, calls_wait));
            }
            _ if self.search.is_candidate(link) => self.candidate_answered(link, result, effects),
            _ => {} // It was given up.
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant, effects: &mut Effects) {
        self.now = now;
        if self.expired {
            return;
        }
        self.maintain_idleness(effects);
        if self.identity.is_some() {
            match self.lease.pass(now) {
                Passed::Nothing => {}
                Passed::Jeopardy => {
                    effects.session_events.push(SessionEvent::Jeopardy);
                    self.cache.clear(&mut effects.cache);
                }
                Passed::Grace => return self.expire(effects),
            }
        }
        if self.gives_up_at().is_some_and(|at| at <= now) {
            // None of them was sent in a session that may still be alive.
            let calls = self.calls.abandon().into_keys();
            self.cache.abandon();
            let what = self.search.describe(now);
            effects.done.extend(calls.map(|number| (number, Err(Error::unreachable(&what)))));
        }
        self.maintain_links(effects);
        for number in self.calls.due(now) {
            self.send(number, effects);
        }
        // The master waits for this: the KeepAlive takes the place of the one that is pending.
        let must_report = self.revocations.obey(now) | self.cache.wants_lease(now);
        if must_report && self.up.is_some() {
            self.send_keep_alive(effects);
        }
    }

    /// Notes the master's epoch. A new one is a fail-over: events count from one again.
    fn note_epoch(&mut self, epoch: Epoch, effects: &mut Effects) {
        if epoch <= self.epoch {
            return;
        }
        let first = self.epoch == Epoch::NONE;
        self.epoch = epoch;
        self.last_event = 0;
        self.cache.meet_epoch(&mut effects.cache);
        if !first {
            let handles: Vec<wire::Handle> = self.handles.to_present().collect();
            for handle in handles {
                self.calls.add(Call::GetStat(wire::GetStat { handle: Some(handle) }), self.now);
            }
            effects.session_events.push(SessionEvent::FailedOver { epoch });
            effects.node_events.push(NodeEvent {
                handle: HandleId(0),
                kind: event::Kind::FailedOver,
                child: None,
                slot: Slot(0),
            });
        }
    }

    /// The session is lost. A change that was sent may have taken effect; its outcome is unknown.
    fn expire(&mut self, effects: &mut Effects) {
        self.expired = true;
        self.cache.shut(&mut effects.cache);
        for (number, pending) in self.calls.abandon() {
            let unknown = pending.sent && pending.kind == Kind::Change;
            effects.done.push((number, Err(if unknown { Error::Unknown } else { Error::SessionExpired })));
        }
        effects.session_events.push(SessionEvent::Expired);
        self.close_links(effects);
    }
}
