//! A session's cache, which holds one file (P§2.7). It keeps to what the wire says of a client: what it is told to
//! drop is gone before it says so, what has been overtaken on its way is not kept, and nothing is used when the
//! cache lease has ended.

use std::time::Duration;
use wombat_proto::wire::event::Kind;
use wombat_proto::wire::{self, Cachable, Handle, KeptAlive, mode, request::Call};
use wombat_proto::{CacheKey, Instance, Instant, Rho};

/// The file that each session of a crowd has open and cached.
#[derive(Clone, Debug)]
pub struct CachedFile {
    /// Its whole name. It exists.
    pub path: String,
    /// Whether each session hears of its changes, and reads it at once.
    pub watched: bool,
}

/// What a session knows of its file.
pub(super) struct Cache {
    file: CachedFile,
    handle: Option<Handle>,
    /// The generation of the contents that are cached.
    entry: Option<u64>,
    /// They are used no longer than this.
    until: Instant,
    /// The invalidations of an epoch are numbered from 1.
    last_invalidation: u64,
    asked: Option<Asked>,
    /// Whether to read it once nothing is asked any more.
    wanted: bool,
}

/// An Open, or a read.
#[derive(Clone, Copy)]
struct Asked {
    number: u64,
    /// Something was dropped since then: what comes may be older than that.
    overtaken: bool,
}

impl Cache {
    /// It is empty, and wants to be filled.
    pub(super) fn new(file: CachedFile) -> Cache {
        Cache {
            file,
            handle: None,
            entry: None,
            until: Instant::default(),
            last_invalidation: 0,
            asked: None,
            wanted: true,
        }
    }

    /// The generation that is cached, whether it may be used or not.
    pub(super) fn entry(&self) -> Option<u64> {
        self.entry
    }

    /// The generation that a look into the cache shows.
    pub(super) fn look(&self, now: Instant) -> Option<u64> {
        self.entry.filter(|_| now < self.until)
    }

    /// Whether the session has looked at its file since its last KeepAlive. All do, between any two of them.
    pub(super) fn is_read(&self) -> bool {
        self.handle.is_some()
    }

    /// The last invalidation that it has heard of, and obeyed.
    pub(super) fn last_invalidation(&self) -> u64 {
        self.last_invalidation
    }

    /// Everything is gone at once.
    pub(super) fn meet_epoch(&mut self) {
        (self.until, self.last_invalidation) = (Instant::default(), 0);
        self.drop_entry();
    }

    /// What was asked on a connection that is gone is not answered any more.
    pub(super) fn disconnect(&mut self) {
        self.wanted |= self.asked.take().is_some();
    }

    /// Takes the answer to a KeepAlive that was sent then, of this epoch: first what it takes away, then what it
    /// allows.
    pub(super) fn hear(&mut self, kept: &KeptAlive, sent: Instant) {
        for (number, invalidation) in (kept.first_invalidation..).zip(&kept.invalidations) {
            if number <= self.last_invalidation {
                continue;
            }
            self.last_invalidation = number;
            let own = self.handle.map(|handle| CacheKey::node(Instance(handle.instance)));
            let key = invalidation.key();
            if own.is_none_or(|own| key.is_none_or(|key| key.covers(&own))) {
                self.drop_entry();
            }
        }
        if kept.cache_lease_ms > 0 {
            let lease =
                Duration::from_micros(kept.held_us) + Duration::from_millis(kept.cache_lease_ms.into());
            self.until = self.until.max(sent + Rho::default().shorten(lease));
        }
        let told = kept
            .events
            .iter()
            .any(|event| matches!(event.kind(), Kind::ContentsModified | Kind::FailedOver | Kind::Gap));
        self.wanted |= told && self.entry.is_none();
    }

    fn drop_entry(&mut self) {
        self.entry = None;
        if let Some(asked) = &mut self.asked {
            asked.overtaken = true;
        }
    }

    /// Asks for what is not there, and is not being asked for.
    pub(super) fn want(&mut self) {
        self.wanted |= self.entry.is_none() && self.asked.is_none();
    }

    /// What is to be asked now, as the request of that number.
    pub(super) fn next_call(&mut self, number: u64) -> Option<Call> {
        if !self.wanted || self.asked.is_some() {
            return None;
        }
        self.asked = Some(Asked { number, overtaken: false });
        self.wanted = self.handle.is_none(); // An Open reads nothing.
        Some(match self.handle {
            Some(_) => Call::GetContents(wire::GetContents { handle: self.handle }),
            None => Call::Open(wire::Open {
                path: self.file.path.clone(),
                mode: mode::READ,
                events: if self.file.watched { Kind::ContentsModified.bit() } else { 0 },
                ..wire::Open::default()
            }),
        })
    }

    /// Whether the request of that number is its own, and waits for an answer.
    pub(super) fn has_asked(&self, number: u64) -> bool {
        self.asked.is_some_and(|asked| asked.number == number)
    }

    /// What it asked for is refused: it asks again when it hears of something.
    pub(super) fn refused(&mut self) {
        self.asked = None;
    }

    /// The file is open.
    pub(super) fn opened(&mut self, handle: Handle) {
        (self.handle, self.asked) = (Some(handle), None);
    }

    /// The contents have come, of that generation; `epoch` is the session's.
    pub(super) fn read(&mut self, generation: u64, cachable: Option<Cachable>, epoch: u64) {
        let overtaken = self.asked.take().is_none_or(|asked| asked.overtaken);
        if !overtaken && cachable.is_some_and(|cachable| cachable.epoch == epoch) {
            self.entry = Some(generation);
        }
    }
}
