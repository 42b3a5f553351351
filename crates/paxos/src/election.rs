//! When a replica looks for a new master, and with which round: what lasts over its candidacies and leaderships.

use core::time::Duration;
use wombat_proto::limits::MAX_CLOCK_ROUND;
use wombat_proto::{Ballot, Instant, ReplicaId};

/// How often the wait after a failed phase 1 is doubled at most.
const MAX_BACK_OFF: u32 = 4;

/// How often [`crate::Config::stall`] is doubled at most.
const MAX_STALL_DOUBLINGS: u32 = 3;

/// What a replica remembers of elections.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Election {
    /// The highest round that it knows of.
    highest_round: u64,
    /// The wall clock, as the least round of its next candidacy.
    clock_round: u64,
    /// The last ballot under which it led, or whose master has handed over to it: its lease forbids nothing.
    pub(crate) released: Ballot,
    /// The replica that it hands its mastership over to.
    pub(crate) successor: Option<ReplicaId>,
    /// How many masters in a row, as far as it knows, have made way because none of their proposals was chosen.
    stalls: u32,
    /// Until when a chosen slot does not end that series of masters.
    stalls_count_until: Instant,
    /// When it looks for a new master if it has received nothing from one.
    pub(crate) due_at: Instant,
    /// How many candidacies in a row have failed though a quorum had granted the pre-vote.
    failed_campaigns: u32,
}

impl Election {
    pub(crate) fn new(highest_round: u64, due_at: Instant) -> Election {
        Election {
            highest_round,
            clock_round: 0,
            released: Ballot::ZERO,
            successor: None,
            stalls: 0,
            stalls_count_until: Instant::default(),
            due_at,
            failed_campaigns: 0,
        }
    }

    // ---- Rounds ----

    /// Another replica knows of this round.
    pub(crate) fn note_round(&mut self, round: u64) {
        self.highest_round = self.highest_round.max(round);
    }

    /// What the wall clock shows, in milliseconds since 1970; ignored if no round can be so high.
    pub(crate) fn set_wall_clock(&mut self, wall_ms: u64) {
        self.clock_round = if wall_ms <= MAX_CLOCK_ROUND { wall_ms } else { 0 };
    }

    /// The least round of which no ballot is known, and not below the wall clock. So a cell that was restored from a
    /// backup has later epochs than those that the backup does not know of.
    pub(crate) fn next_round(&self, promised: Ballot) -> u64 {
        (self.highest_round.max(promised.round) + 1).max(self.clock_round)
    }

    // ---- Back-off after failed candidacies ----

    /// There is a master: candidacies do not collide any more.
    pub(crate) fn end_back_off(&mut self) {
        self.failed_campaigns = 0;
    }

    /// Up to how many times its usual length the wait before the next candidacy lasts.
    pub(crate) fn back_off(&self) -> u32 {
        1 << self.failed_campaigns
    }

    pub(crate) fn campaign_failed(&mut self) {
        self.failed_campaigns = (self.failed_campaigns + 1).min(MAX_BACK_OFF);
    }

    // ---- Masters in a row that made way ----

    pub(crate) fn stalls(&self) -> u32 {
        self.stalls
    }

    /// How long a master may be stalled before it makes way, if the first one in a row waits for `stall`.
    pub(crate) fn stall_patience(&self, stall: Duration) -> Duration {
        stall * (1 << self.stalls)
    }

    /// So many masters in a row have made way, the last one just now.
    pub(crate) fn count_stalls(&mut self, stalls: u32, stall: Duration, now: Instant) {
        self.stalls = stalls.min(MAX_STALL_DOUBLINGS);
        self.stalls_count_until = now + self.stall_patience(stall);
    }

    /// A slot has been chosen. That ends a series of stalls only if the last one was a whole patience ago: small
    /// values, such as the first one of a new master, are chosen at once where large ones are lost.
    pub(crate) fn note_progress(&mut self, now: Instant) {
        if now >= self.stalls_count_until {
            self.stalls = 0;
        }
    }
}
