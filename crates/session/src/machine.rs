//! The machine itself: calls and answers in, requests and results out.

mod links;

use crate::Answer;
use crate::cache::{Cache, CacheChange, CacheStats, Entries};
use crate::calls::{Calls, Kind};
use crate::handles::Handles;
use crate::lease::{LeaseView, Passed};
use crate::liveness::UpLink;
use crate::revocations::{Revocations, Revoked};
use crate::search::{LinkId, Search};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use links::LONGEST_ATTACH;
use wombat_proto::limits::IDLE_END;
use wombat_proto::wire::{self, Request, Response, event, request::Call};
use wombat_proto::{Epoch, Error, HandleId, Instant, Result, Rho, SessionId, Slot};

/// What a session needs to know of its client.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the replicas of the cell are reached, `host:port`, in the order in which they are tried first.
    pub endpoints: Vec<String>,
    /// The cell that is wanted; empty: whichever answers.
    pub cell: String,
    /// What the client says of itself, for people.
    pub client: String,
    /// The sequencers that fence every change of the session (P§2.4).
    pub sequencers: Vec<String>,
    /// Most that the cache may weigh, in bytes; 0: there is none. For a client that caches changes wait until it
    /// has dropped what they change, and a new master until it has acknowledged the fail-over, and so has dropped
    /// everything, or until its lease has ended (SPEC I10).
    pub cache_bytes: usize,
    /// How long after the end of its lease view the session looks for a master (P§2.8: 45 s).
    pub grace: Duration,
    /// By how much the master's clock may differ in rate.
    pub rho: Rho,
    /// The seed of the jitter: random, so that clients do not knock together.
    pub seed: u64,
}

/// A change in the life of the session, for the application (P§2.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionEvent {
    /// The session may be lost: its lease view has ended. Calls wait.
    Jeopardy,
    /// It is not lost: a master was found in time.
    Safe,
    /// It is lost, with all its handles and locks. Every call fails.
    Expired,
    /// Another master serves now. What the earlier one had to tell may be lost.
    FailedOver {
        /// Its epoch.
        epoch: Epoch,
    },
}

/// Something happened to a node that a handle is subscribed to (P§2.5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeEvent {
    /// The handle; [`HandleId`] 0: all of the session's.
    pub handle: HandleId,
    /// What happened.
    pub kind: event::Kind,
    /// The child that it happened to.
    pub child: Option<String>,
    /// The change's place in the log.
    pub slot: Slot,
}

/// What the shell has to do.
#[derive(Default, Debug)]
pub struct Effects {
    /// What readers may use, and may not any more: to be carried out, in order, before anything is sent. Then
    /// [`Session::cache_until`] may be told to them.
    pub cache: Vec<CacheChange>,
    /// Requests to send, each on its link.
    pub send: Vec<(LinkId, Request)>,
    /// Calls that have ended.
    pub done: Vec<(u64, Result<Answer>)>,
    /// Changes in the life of the session, in order.
    pub session_events: Vec<SessionEvent>,
    /// Events of nodes, in order.
    pub node_events: Vec<NodeEvent>,
    /// Locks that somebody breaks.
    pub revoked: Vec<Revoked>,
    /// Connections to make, each to its address.
    pub connect: Vec<(LinkId, String)>,
    /// Connections to give up, made or not, after everything else.
    pub disconnect: Vec<LinkId>,
}

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
    /// The time, as far as it was told.
    now: Instant,
    cell: String,
    /// The link that speaks for the session.
    up: Option<UpLink>,
    /// The search for the master, while there is no such link or its other end does not answer.
    search: Search,
    /// Whether it needs no link before the next call: it was idle, and is ended.
    resting: bool,
    identity: Option<Identity>,
    epoch: Epoch,
    lease: LeaseView,
    calls: Calls,
    handles: Handles,
    /// Since when it has had no handle and no call.
    idle_since: Option<Instant>,
    /// Whether a call was made since the last KeepAlive was sent. The cell does not see whose a call is that
    /// belongs to no session.
    called: bool,
    /// The number of the EndSession with which it ends for being idle.
    retiring: Option<u64>,
    /// The KeepAlive that is pending, and when it was sent.
    keep_alive: Option<(u64, Instant)>,
    /// The number of the last event received in this epoch.
    last_event: u64,
    revocations: Revocations,
    cache: Cache,
    /// Whether its end was asked for: from then on none of its locks is sure.
    ending: bool,
    expired: bool,
    /// Why the cell would not have this client at all.
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
            resting: false,
            identity: None,
            epoch: Epoch::NONE,
            lease: LeaseView::new(config.rho, config.grace),
            calls: Calls::default(),
            handles: Handles::default(),
            idle_since: None,
            called: false,
            retiring: None,
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

    /// The epoch of the master that it knows of.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The name of the cell, once it has said it.
    pub fn cell(&self) -> &str {
        &self.cell
    }

    /// Until when the session is surely alive. In the past from when its end is asked for.
    pub fn safe_until(&self) -> Instant {
        if self.expired || self.ending { Instant::default() } else { self.lease.until() }
    }

    /// Until when what is cached may be used; in the past if nothing may be. A reader who may be interrupted looks
    /// at this first, then at the entry, then at the clock: so the entry was true when it looked at that.
    pub fn cache_until(&self) -> Instant {
        self.cache.until()
    }

    /// What is cached, if it may be used now.
    pub fn cached(&self, now: Instant) -> Option<&Entries> {
        self.cache.usable(now)
    }

    /// How the cache is.
    pub fn cache_stats(&self) -> CacheStats {
        self.cache.stats()
    }

    /// Whether the session is lost.
    pub fn is_expired(&self) -> bool {
        self.expired
    }

    /// Why the cell would not have this client at all, if it said so.
    pub fn refusal(&self) -> Option<&Error> {
        self.refusal.as_ref()
    }

    /// When [`Session::tick`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.expired {
            return None;
        }
        let lease = self.identity.map(|_| self.lease.deadline());
        let idle = self.idle_since.map(|since| since + IDLE_END).filter(|_| self.retiring.is_none());
        let cache = self.cache.next_due(self.now).filter(|_| self.up.is_some());
        let links = self.next_link_deadline();
        let others = [self.calls.next_due(), self.gives_up_at(), self.revocations.next_due(), cache];
        [lease, links, idle].into_iter().chain(others).flatten().min()
    }

    /// Without a session there is none to expire: its calls wait for one for as long as they would in jeopardy.
    fn gives_up_at(&self) -> Option<Instant> {
        let since = self.calls.waits_since().filter(|_| self.identity.is_none())?;
        Some(since + self.config.grace.max(LONGEST_ATTACH))
    }

    /// Takes a call in and gives it its number, under which it will be done.
    pub fn submit(&mut self, call: Call, effects: &mut Effects) -> u64 {
        self.called = true;
        if matches!(call, Call::EndSession(_)) {
            self.ending = true;
            self.cache.shut(&mut effects.cache);
        }
        if let Call::Close(close) = &call {
            self.handles.closed(close.handle.as_ref());
        }
        self.resting = false;
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
            return; // What else the connection has brought.
        }
        match &self.up {
            Some(up) if up.link == link => {
                if up.is_probe(number) {
                    self.probe_answered(now, result, effects);
                } else if self.keep_alive.is_some_and(|(pending, _)| pending == number) {
                    self.kept_alive(now, result, effects);
                } else if self.retiring == Some(number) {
                    self.rest(effects);
                } else {
                    self.answered(now, number, result, cachable.as_ref(), effects);
                }
                let calls_wait = self.calls.any_but_acquires();
                self.up.iter_mut().for_each(|up| up.received(now, calls_wait));
            }
            _ if self.search.is_candidate(link) => self.candidate_answered(now, link, result, effects),
            _ => {} // It was given up.
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant, effects: &mut Effects) {
        self.now = now;
        if self.expired {
            return;
        }
        self.tend_idleness(effects);
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
            // None of them was ever sent in a session that might still be.
            let calls = self.calls.abandon().into_keys();
            self.cache.abandon();
            let what = self.search.describe(now);
            effects.done.extend(calls.map(|number| (number, Err(Error::unreachable(&what)))));
        }
        self.maintain_links(now, effects);
        for number in self.calls.due(now) {
            self.send(number, effects);
        }
        // The master waits to hear of it: this KeepAlive takes the place of the one that is pending.
        let to_tell = self.revocations.obey(now) | self.cache.wants_lease(now);
        if to_tell && self.up.is_some() {
            self.send_keep_alive(now, effects);
        }
    }

    /// Ends a session that was idle for long. It holds nothing, so nothing is lost; the next call begins another.
    fn tend_idleness(&mut self, effects: &mut Effects) {
        if !self.is_idle() || self.up.is_none() || self.ending {
            self.idle_since = None;
            return;
        }
        let since = *self.idle_since.get_or_insert(self.now);
        if self.now >= since + IDLE_END && self.retiring.is_none() {
            let number = self.calls.number();
            self.transmit(number, Call::EndSession(wire::EndSession {}), Kind::Read, effects);
            self.retiring = Some(number);
            self.cache.shut(&mut effects.cache);
        }
    }

    fn is_idle(&self) -> bool {
        self.handles.is_empty() && self.calls.is_empty()
    }

    /// The session is over, and nobody needs another yet.
    fn rest(&mut self, effects: &mut Effects) {
        self.close_links(effects);
        (self.identity, self.retiring, self.keep_alive, self.idle_since) = (None, None, None, None);
        self.lease = LeaseView::new(self.config.rho, self.config.grace);
        self.config.cell.clone_from(&self.cell); // The next session is with no other.
        (self.epoch, self.last_event) = (Epoch::NONE, 0);
        self.revocations.clear();
        self.cache.reopen();
        self.resting = self.calls.is_empty();
    }

    /// Notes the master's epoch. A new one is a fail-over: events count from one again.
    fn meet_epoch(&mut self, epoch: Epoch, effects: &mut Effects) {
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

    fn send_keep_alive(&mut self, now: Instant, effects: &mut Effects) {
        let number = self.calls.number();
        self.keep_alive = Some((number, now));
        let reads_cache = self.cache.ask();
        if reads_cache {
            self.idle_since = None;
        }
        let idle = self.is_idle() && !core::mem::take(&mut self.called) && !reads_cache;
        let keep_alive = wire::KeepAlive {
            events_acknowledged: self.last_event,
            idle,
            revocations_heard: self.revocations.heard(),
            revocations_obeyed: self.revocations.obeyed(),
            invalidations_acknowledged: self.cache.acknowledged(),
            reads_cache,
            ..wire::KeepAlive::default()
        };
        self.transmit(number, Call::KeepAlive(keep_alive), Kind::Read, effects);
    }

    fn kept_alive(&mut self, now: Instant, result: Result<Answer>, effects: &mut Effects) {
        let Some((_, sent)) = self.keep_alive.take() else { return };
        match result {
            Ok(Answer::KeptAlive(kept)) => {
                // Not before an answer: a connection that breaks as soon as it is made is not tried in a storm.
                if let Some(up) = &mut self.up {
                    up.answered();
                    self.search.endpoints.served(now, &up.endpoint);
                }
                self.meet_epoch(Epoch(kept.epoch), effects);
                let held = Duration::from_micros(kept.held_us);
                if Epoch(kept.epoch) == self.epoch {
                    // First what must be dropped, then for how long the rest may be used.
                    let (first, all) = (kept.first_invalidation, &kept.invalidations);
                    self.cache.invalidate(first, all, &mut effects.cache);
                    let lease = Duration::from_millis(kept.cache_lease_ms.min(kept.lease_ms).into());
                    self.cache.extend(lease, self.lease.end_of(sent, held, lease));
                }
                self.extend(now, sent, held, kept.lease_ms, effects);
                self.take_events(kept.first_event, kept.events, effects);
                effects.revoked.extend(self.revocations.told(now, self.lease.granted(), &kept.revocations));
                self.send_keep_alive(now, effects);
                if self.lease.is_safe() && effects.session_events.contains(&SessionEvent::Safe) {
                    self.send_all(effects);
                }
            }
            Err(Error::StaleEpoch { current }) if current >= self.epoch => {
                self.meet_epoch(current, effects);
                self.send_keep_alive(now, effects);
                self.send_all(effects);
            }
            // It has ended, as it was asked to.
            Err(Error::SessionExpired) if self.retiring.is_some() => {
                self.rest(effects);
            }
            Err(Error::SessionExpired | Error::SessionUnknown) => self.expire(effects),
            Err(Error::NotMaster { hint }) => self.leave(now, hint, effects),
            _ => self.leave(now, None, effects),
        }
    }

    /// Passes on the events that are new: those that were not acknowledged come again.
    fn take_events(&mut self, first: u64, events: Vec<wire::Event>, effects: &mut Effects) {
        for (offset, event) in (0..).zip(events) {
            let number = first.saturating_add(offset);
            if number <= self.last_event {
                continue;
            }
            self.last_event = number;
            let kind = event.kind();
            if kind == event::Kind::FailedOver {
                continue; // The epoch has said so already.
            }
            let child = (!event.child.is_empty()).then_some(event.child);
            let (handle, slot) = (HandleId(event.handle), Slot(event.slot));
            effects.node_events.push(NodeEvent { handle, kind, child, slot });
        }
    }

    fn answered(
        &mut self,
        now: Instant,
        number: u64,
        result: Result<Answer>,
        cachable: Option<&wire::Cachable>,
        effects: &mut Effects,
    ) {
        let Some(pending) = self.calls.get_mut(number).filter(|pending| pending.sent) else { return };
        match result {
            Err(Error::StaleEpoch { current }) if current >= self.epoch => {
                self.meet_epoch(current, effects);
                return self.send_all(effects);
            }
            Err(Error::NotMaster { hint }) => return self.leave(now, hint, effects),
            Err(Error::StaleEpoch { .. }) => return self.leave(now, None, effects),
            Err(Error::Overloaded { retry_after }) => {
                pending.not_before = Some(now + retry_after + self.search.jitter(retry_after));
                return;
            }
            Err(Error::SessionExpired | Error::SessionUnknown) if pending.kind != Kind::Sessionless => {
                return self.expire(effects);
            }
            _ => {}
        }
        let Some((pending, released)) = self.calls.answered(number) else { return };
        if let Some(up) = &mut self.up {
            up.answered();
            self.search.endpoints.served(now, &up.endpoint);
        }
        self.cache.answered(number, (&pending.call, &result), cachable, self.epoch, &mut effects.cache);
        // Whatever has become of it, an Acquire that was taken back is over: sent again to a new master, which
        // knows nothing of that, it would take a lock for nobody.
        for acquire in self.calls.end_acquires(&pending.call) {
            effects.done.push((acquire, Err(Error::Cancelled)));
        }
        if let Ok(Answer::Opened(opened)) = &result {
            self.handles.opened(opened);
        }
        let ended = matches!(pending.call, Call::EndSession(_)) && result.is_ok();
        effects.done.push((number, result));
        if ended {
            return self.expire(effects);
        }
        for next in released {
            self.send(next, effects);
        }
    }

    /// Sends a call, if there is a connection that speaks for a session that is safe; else it waits.
    fn send(&mut self, number: u64, effects: &mut Effects) {
        let Some(kind) = self.calls.get_mut(number).map(|pending| pending.kind) else { return };
        if kind == Kind::Acquire && self.calls.is_taken_back(number) {
            return;
        }
        let up = self.up.is_some() && self.retiring.is_none();
        if !self.calls.admit(number, kind) || !up || !self.lease.is_safe() {
            return;
        }
        let now = self.now;
        let Some(pending) = self.calls.get_mut(number) else { return };
        let again = core::mem::replace(&mut pending.sent, true);
        self.cache.sends(number, &pending.call, &mut effects.cache);
        let mut call = pending.call.clone();
        // At a new master it keeps its turn, and its time runs on.
        if let Call::Acquire(acquire) = &mut call
            && again
        {
            acquire.waited_ms = now.since(pending.since).as_millis() as u64;
        }
        self.transmit(number, call, kind, effects);
        self.up.iter_mut().for_each(|up| up.sent(now));
    }

    fn send_all(&mut self, effects: &mut Effects) {
        for number in self.calls.to_send_again() {
            self.send(number, effects);
        }
    }

    /// Hands a request out, on the session's link.
    fn transmit(&self, number: u64, call: Call, kind: Kind, effects: &mut Effects) {
        let Some(up) = &self.up else { return };
        let session = match kind {
            Kind::Sessionless => 0,
            _ => self.identity.map_or(0, |identity| identity.id.0),
        };
        let acknowledged = match kind {
            Kind::Change => self.calls.acknowledged(),
            _ => 0,
        };
        let request = Request { session, number, epoch: self.epoch.0, acknowledged, call: Some(call) };
        effects.send.push((up.link, request));
    }

    /// The session is lost. A change that was sent may have taken effect; nobody can tell any more.
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
