//! Hellos whose answer waits until a master is known (P§2.2).

use crate::request::ConnectionId;
use crate::request::RequestContext;
use alloc::collections::BTreeMap;
use core::time::Duration;
use wombat_proto::Instant;
use wombat_proto::limits::{CONNECTIONS, HELLO_WAIT};

/// The waiting Hellos, by when each is answered at the latest.
#[derive(Default)]
pub(crate) struct PendingHellos(BTreeMap<(Instant, ConnectionId), RequestContext>);

impl PendingHellos {
    /// When the next is to be answered in any case.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.0.first_key_value().map(|((at, _), _)| *at)
    }

    /// Lets a Hello wait, for as long as its client wants and the limit allows. Returns whether it waits.
    pub(crate) fn push(&mut self, request: RequestContext, wait: Duration, now: Instant) -> bool {
        let wait = wait.min(HELLO_WAIT);
        if wait.is_zero() || self.0.len() >= CONNECTIONS {
            return false;
        }
        self.0.insert((now + wait, request.connection), request);
        true
    }

    /// Takes the next Hello that is to be answered now: any one if a master is known.
    pub(crate) fn pop(&mut self, now: Instant, master_is_known: bool) -> Option<RequestContext> {
        let first = self.0.first_entry()?;
        (master_is_known || first.key().0 <= now).then(|| first.remove())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wombat_proto::SessionId;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn hello(connection: u64) -> RequestContext {
        let connection = ConnectionId(connection);
        RequestContext { connection, session: SessionId(0), number: 1, acknowledged: 0 }
    }

    #[test]
    fn hello_waits_for_a_master_or_its_time() {
        let mut hellos = PendingHellos::default();
        assert!(!hellos.push(hello(1), Duration::ZERO, at(1)), "its client does not want to wait");
        assert!(hellos.push(hello(1), Duration::from_secs(1), at(1)));
        assert!(hellos.push(hello(2), Duration::from_secs(2), at(1)));
        assert_eq!(hellos.next_due(), Some(at(2)));
        assert!(hellos.pop(at(1), false).is_none());
        assert!(hellos.pop(at(2), false).is_some_and(|one| one.connection == ConnectionId(1)));
        assert!(hellos.pop(at(2), false).is_none());
        assert!(hellos.pop(at(2), true).is_some_and(|one| one.connection == ConnectionId(2)));
    }
}
