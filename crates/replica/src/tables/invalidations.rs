//! Rounds of invalidations (P§2.7): every session that may have a key cached is sent an invalidation, and the
//! round ends when each has acknowledged it, or its cache lease has ended. Changes of the same key share a round.

use super::outbox::next_in_turn;
use super::session_cache::SentInvalidation;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use wombat_proto::{CacheKey, Instant, SessionId};

/// Most invalidations that one step sends: very many sessions with the same file cached must not delay the
/// heartbeats. When so many were sent, the rest waits for the next tick.
const MAX_SENT_AT_ONCE: usize = 1024;

/// Names a change that waits for rounds. Later changes have greater tickets.
pub(crate) type Ticket = u64;

/// All rounds.
#[derive(Default)]
pub(crate) struct Invalidations {
    rounds: BTreeMap<CacheKey, Round>,
    /// Rounds with sessions that have not been sent their invalidation yet, served in turn.
    to_send: BTreeSet<CacheKey>,
    last_sent: Option<CacheKey>,
    /// Whether so many were sent that the rest waits for the next tick.
    backlogged: bool,
    /// For each round that waits for a session, a time no later than the first end of such a session's cache lease.
    due: BTreeSet<(Instant, CacheKey)>,
    /// Counts for operators, since this master began.
    pub(crate) counts: Counts,
}

/// What has happened to rounds.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counts {
    pub(crate) rounds: u64,
    pub(crate) sent: u64,
    /// Sessions that were waited for until their cache leases ended.
    pub(crate) lapsed: u64,
}

/// The invalidation of one key.
#[derive(Default)]
struct Round {
    /// Sessions that have not been sent it yet.
    unsent: BTreeSet<SessionId>,
    /// Sessions that have not acknowledged it, and the ends of their cache leases.
    awaited: BTreeSet<(Instant, SessionId)>,
    /// The changes that wait for the end of the round.
    changes: BTreeSet<Ticket>,
}

/// A round that has ended, and the changes that waited for it.
pub(crate) struct EndedRound {
    pub(crate) key: CacheKey,
    pub(crate) changes: BTreeSet<Ticket>,
}

/// What became of one invalidation.
pub(crate) enum Sent {
    /// The session has ended, or caches no more.
    Gone,
    /// The session has no cache lease: the round need not wait for it.
    NotAwaited,
    /// The round waits for the session until then at most.
    AwaitedUntil(Instant),
}

impl Invalidations {
    /// Begins a round, or adds these sessions to the one that goes on.
    pub(crate) fn begin(&mut self, key: CacheKey, holders: BTreeSet<SessionId>) {
        self.counts.rounds += 1;
        let round = self.rounds.entry(key.clone()).or_default();
        if round.unsent.is_empty() {
            round.unsent = holders;
        } else {
            round.unsent.extend(holders);
        }
        self.to_send.insert(key);
    }

    /// The rounds of a key and of the keys that it covers.
    pub(crate) fn of(&self, key: &CacheKey) -> impl Iterator<Item = &CacheKey> {
        self.rounds.range(key.covered()).map(|(key, _)| key)
    }

    /// Whether a key is being invalidated.
    pub(crate) fn contains(&self, key: &CacheKey) -> bool {
        self.rounds.contains_key(key)
    }

    /// A change waits for these rounds.
    pub(crate) fn wait<'a>(&mut self, rounds: impl Iterator<Item = &'a CacheKey>, change: Ticket) {
        for key in rounds {
            self.rounds.get_mut(key).expect("a round that is waited for goes on").changes.insert(change);
        }
    }

    /// Whether invalidations are left to send.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.to_send.is_empty()
    }

    /// The end of the first cache lease that a round waits for.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Sends invalidations, as many as one step may. Returns the rounds that have ended with that.
    pub(crate) fn send(&mut self, mut send: impl FnMut(SessionId, &CacheKey) -> Sent) -> Vec<EndedRound> {
        let mut ended = Vec::new();
        if self.backlogged {
            return ended;
        }
        let mut left = MAX_SENT_AT_ONCE;
        while left > 0
            && let Some(key) = next_in_turn(&self.to_send, self.last_sent.as_ref()).cloned()
        {
            self.last_sent = Some(key.clone());
            let round = self.rounds.get_mut(&key).expect("a round goes on while invalidations are unsent");
            while left > 0
                && let Some(session) = round.unsent.pop_first()
            {
                left -= 1;
                match send(session, &key) {
                    Sent::Gone => continue,
                    Sent::NotAwaited => {}
                    Sent::AwaitedUntil(until) => drop(round.awaited.insert((until, session))),
                }
                self.counts.sent += 1;
            }
            if round.unsent.is_empty() {
                self.to_send.remove(&key);
                if let Some((until, _)) = round.awaited.first() {
                    self.due.insert((*until, key.clone()));
                }
                ended.extend(self.end(&key));
            }
        }
        self.backlogged = !self.to_send.is_empty();
        ended
    }

    /// Rounds wait no longer for a session that has acknowledged these, or has ended.
    pub(crate) fn acknowledge(
        &mut self,
        session: SessionId,
        sent: impl Iterator<Item = SentInvalidation>,
    ) -> Vec<EndedRound> {
        let mut ended = Vec::new();
        for SentInvalidation { key, awaited } in sent {
            if let (Some(until), Some(round)) = (awaited, self.rounds.get_mut(&key)) {
                round.awaited.remove(&(until, session));
                ended.extend(self.end(&key));
            }
        }
        ended
    }

    /// A tick: rounds wait no longer for sessions whose cache lease has ended, and more may be sent.
    pub(crate) fn tick(&mut self, now: Instant) -> Vec<EndedRound> {
        self.backlogged = false;
        let mut ended = Vec::new();
        while self.next_due().is_some_and(|at| at <= now)
            && let Some((_, key)) = self.due.pop_first()
        {
            let Some(round) = self.rounds.get_mut(&key) else { continue };
            while round.awaited.first().is_some_and(|(until, _)| *until <= now) {
                round.awaited.pop_first();
                self.counts.lapsed += 1;
            }
            if let Some((until, _)) = round.awaited.first() {
                self.due.insert((*until, key.clone()));
            }
            ended.extend(self.end(&key));
        }
        ended
    }

    /// Ends a round in which no session is waited for any more.
    fn end(&mut self, key: &CacheKey) -> Option<EndedRound> {
        self.rounds.get(key).filter(|round| round.unsent.is_empty() && round.awaited.is_empty())?;
        self.to_send.remove(key);
        let (key, round) = self.rounds.remove_entry(key)?;
        Some(EndedRound { key, changes: round.changes })
    }

    /// The sessions that changes wait for: of which key, and until when at most.
    pub(crate) fn awaited(&self) -> impl Iterator<Item = (&CacheKey, Instant, SessionId)> {
        let rounds = self.rounds.iter().filter(|(_, round)| !round.changes.is_empty());
        rounds.flat_map(|(key, round)| {
            round.awaited.iter().map(move |(until, session)| (key, *until, *session))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wombat_proto::Instance;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn key() -> CacheKey {
        CacheKey::node(Instance(1))
    }

    fn begin(invalidations: &mut Invalidations, sessions: impl IntoIterator<Item = u64>) {
        invalidations.begin(key(), sessions.into_iter().map(SessionId).collect());
        invalidations.wait([key()].iter(), 8);
    }

    fn acknowledge(invalidations: &mut Invalidations, session: u64, until: Instant) -> Vec<EndedRound> {
        let sent = SentInvalidation { key: key(), awaited: Some(until) };
        invalidations.acknowledge(SessionId(session), [sent].into_iter())
    }

    #[test]
    fn round_ends_when_all_have_acknowledged() {
        let mut invalidations = Invalidations::default();
        begin(&mut invalidations, [1, 2]);
        assert!(invalidations.send(|_, _| Sent::AwaitedUntil(at(9))).is_empty());
        assert!(acknowledge(&mut invalidations, 1, at(9)).is_empty());
        let ended = acknowledge(&mut invalidations, 2, at(9));
        assert_eq!(ended.len(), 1);
        assert_eq!(ended[0].changes, [8].into());
        assert!(!invalidations.contains(&key()));
    }

    #[test]
    fn round_ends_with_the_last_cache_lease() {
        let mut invalidations = Invalidations::default();
        begin(&mut invalidations, [1, 2]);
        invalidations.send(|session, _| Sent::AwaitedUntil(at(session.0 * 10)));
        assert_eq!(invalidations.next_due(), Some(at(10)));
        assert!(invalidations.tick(at(10)).is_empty());
        assert_eq!(invalidations.awaited().count(), 1);
        assert_eq!(invalidations.tick(at(20)).len(), 1);
        assert_eq!(invalidations.counts.lapsed, 2);
    }

    #[test]
    fn round_ends_at_once_where_no_session_has_a_lease() {
        let mut invalidations = Invalidations::default();
        begin(&mut invalidations, [1, 2]);
        let sent =
            |session: SessionId, _: &CacheKey| if session.0 == 1 { Sent::Gone } else { Sent::NotAwaited };
        assert_eq!(invalidations.send(sent).len(), 1);
        assert_eq!(invalidations.counts.sent, 1);
    }

    #[test]
    fn very_many_sessions_are_sent_to_in_several_ticks() {
        let mut invalidations = Invalidations::default();
        begin(&mut invalidations, 0..MAX_SENT_AT_ONCE as u64 + 1);
        let mut sent = 0;
        let mut send = |invalidations: &mut Invalidations| {
            let ended = invalidations.send(|_, _| Sent::NotAwaited).len();
            sent += 1;
            ended
        };
        assert_eq!(send(&mut invalidations), 0);
        assert_eq!(send(&mut invalidations), 0, "before the next tick, no more is sent");
        assert_eq!(invalidations.counts.sent, MAX_SENT_AT_ONCE as u64);
        invalidations.tick(at(1));
        assert_eq!(send(&mut invalidations), 1);
    }
}
