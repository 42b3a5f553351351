//! Locks that somebody breaks (SPEC §4): whoever works under one has a little time to stop before the cell is
//! told that nobody here believes in it any more.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::limits::REVOCATIONS;
use wombat_proto::wire::Revocation;
use wombat_proto::{HandleId, Instant, Token};

/// Longest time between hearing of it and obeying.
const NOTICE: Duration = Duration::from_secs(4);

/// A lock that this session is about to lose to somebody who breaks it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Revoked {
    /// The handle that holds it.
    pub handle: HandleId,
    /// Its grant.
    pub token: Token,
    /// From then on it is not surely held any more.
    pub until: Instant,
}

/// What the cell wants back, by token.
#[derive(Clone, Default, Debug)]
pub(crate) struct Revocations(BTreeMap<u64, Heard>);

#[derive(Clone, Copy, Debug)]
struct Heard {
    until: Instant,
    obeyed: bool,
}

impl Revocations {
    /// Takes in what the master wants back now. Returns what is new; it is obeyed in a third of a `lease`, or
    /// [`NOTICE`].
    pub(crate) fn told(&mut self, now: Instant, lease: Duration, all: &[Revocation]) -> Vec<Revoked> {
        self.0.retain(|token, _| all.iter().any(|revocation| revocation.token == *token));
        let until = now + NOTICE.min(lease / 3);
        let mut news = Vec::new();
        for revocation in all {
            self.0.entry(revocation.token).or_insert_with(|| {
                let (handle, token) = (HandleId(revocation.handle), Token(revocation.token));
                news.push(Revoked { handle, token, until });
                Heard { until, obeyed: false }
            });
        }
        news
    }

    /// Notes which locks are not believed in any more. Returns whether there are more of them than before.
    pub(crate) fn obey(&mut self, now: Instant) -> bool {
        let mut any = false;
        for heard in self.0.values_mut().filter(|heard| !heard.obeyed && heard.until <= now) {
            heard.obeyed = true;
            any = true;
        }
        any
    }

    /// When [`Revocations::obey`] has something to say.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.0.values().filter(|heard| !heard.obeyed).map(|heard| heard.until).min()
    }

    pub(crate) fn heard(&self) -> Vec<u64> {
        self.0.keys().copied().take(REVOCATIONS).collect()
    }

    pub(crate) fn obeyed(&self) -> Vec<u64> {
        let obeyed = self.0.iter().filter(|(_, heard)| heard.obeyed);
        obeyed.map(|(token, _)| *token).take(REVOCATIONS).collect()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
