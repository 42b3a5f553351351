//! A session as its client sees it.

use super::cache::{Cache, CachedFile};
use bytes::BytesMut;
use std::time::Duration;
use wombat_proto::wire::{self, KeptAlive, Request, SessionOpened, request::Call};
use wombat_proto::{Instant, Rho, clock, frame};

/// One of a crowd.
pub(super) struct Session {
    id: u64,
    secret: (u64, u64),
    epoch: u64,
    /// The number of its last request.
    number: u64,
    /// The number of its KeepAlive, or of what comes before the first on a connection, and when that was sent.
    pending: (u64, Instant),
    /// Whether its connection may speak for it.
    attached: bool,
    /// The end of its view of its lease (SPEC §3).
    until: Instant,
    last_event: u64,
    /// The epoch in which its last KeepAlive was answered.
    pub(super) safe_in: u64,
    /// The generation of its file that it has read last.
    pub(super) has_read: u64,
    pub(super) cache: Option<Cache>,
}

impl Session {
    /// One that was asked for then.
    pub(super) fn new(opened: &SessionOpened, sent: Instant, cached: Option<CachedFile>) -> Session {
        let mut session = Session {
            id: opened.session,
            secret: (opened.secret_high, opened.secret_low),
            epoch: opened.epoch,
            number: 0,
            pending: (0, sent),
            attached: true,
            until: Instant::default(),
            last_event: 0,
            safe_in: 0,
            has_read: 0,
            cache: cached.map(Cache::new),
        };
        session.extend(Duration::ZERO, opened.lease_ms);
        session
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Whether it waits for the answer to that as to its KeepAlive.
    pub(super) fn is_pending(&self, number: u64) -> bool {
        self.pending.0 == number
    }

    /// The generation that is cached.
    pub(super) fn entry(&self) -> Option<u64> {
        self.cache.as_ref().and_then(Cache::entry)
    }

    /// Lets another connection speak for it.
    pub(super) fn resume(&mut self, outward: &mut BytesMut) {
        self.attached = false;
        if let Some(cache) = &mut self.cache {
            cache.disconnect();
        }
        let (secret_high, secret_low) = self.secret;
        self.ask_first(Call::ResumeSession(wire::ResumeSession { secret_high, secret_low }), outward);
    }

    pub(super) fn resumed(&mut self, opened: &SessionOpened) {
        self.attached = true;
        self.meet_epoch(opened.epoch);
        self.extend(Duration::ZERO, opened.lease_ms);
    }

    /// Takes the answer to its KeepAlive.
    pub(super) fn kept_alive(&mut self, kept: &KeptAlive) {
        self.meet_epoch(kept.epoch);
        if let Some(cache) = &mut self.cache {
            cache.hear(kept, self.pending.1);
        }
        self.extend(Duration::from_micros(kept.held_us), kept.lease_ms);
        self.last_event = self.last_event.max(kept.first_event + kept.events.len() as u64 - 1);
    }

    /// Events and invalidations count from one again in a new epoch.
    pub(super) fn meet_epoch(&mut self, epoch: u64) {
        if epoch > self.epoch {
            (self.epoch, self.last_event) = (epoch, 0);
            self.cache.iter_mut().for_each(Cache::meet_epoch);
        }
    }

    pub(super) fn keep_alive(&mut self, outward: &mut BytesMut) {
        let cache = self.cache.as_ref();
        let keep_alive = wire::KeepAlive {
            events_acknowledged: self.last_event,
            invalidations_acknowledged: cache.map_or(0, Cache::last_invalidation),
            reads_cache: cache.is_some_and(Cache::is_read),
            ..wire::KeepAlive::default()
        };
        self.ask_first(Call::KeepAlive(keep_alive), outward);
    }

    /// Looks at its file: at the master, if it is not cached.
    pub(super) fn read(&mut self, outward: &mut BytesMut) {
        self.cache.iter_mut().for_each(Cache::want);
        self.fill_cache(outward);
    }

    /// Asks for what its cache is to be filled with.
    pub(super) fn fill_cache(&mut self, outward: &mut BytesMut) {
        let cache = self.cache.as_mut().filter(|_| self.attached);
        if let Some(call) = cache.and_then(|cache| cache.next_call(self.number + 1)) {
            self.ask(call, outward);
        }
    }

    /// Says that it ends. What comes to its KeepAlive is not of interest any more.
    pub(super) fn end(&mut self, outward: &mut BytesMut) {
        self.ask_first(Call::EndSession(wire::EndSession {}), outward);
    }

    fn ask_first(&mut self, call: Call, outward: &mut BytesMut) {
        self.pending = (self.number + 1, clock::now());
        self.ask(call, outward);
    }

    fn ask(&mut self, call: Call, outward: &mut BytesMut) {
        self.number += 1;
        write(self.id, self.number, self.epoch, call, outward);
    }

    fn extend(&mut self, held: Duration, lease_ms: u32) {
        let lease = Duration::from_millis(lease_ms.into());
        self.until = self.until.max(self.pending.1 + Rho::default().shorten(held + lease));
    }
}

pub(super) fn write(session: u64, number: u64, epoch: u64, call: Call, outward: &mut BytesMut) {
    let request = Request { session, number, epoch, acknowledged: 0, call: Some(call) };
    frame::write(&request, outward);
}
