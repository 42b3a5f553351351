//! The way of a new master from its election to ordinary service, in nine steps (P§2.9, SPEC §7).

use crate::Replica;
use crate::master::Master;
use crate::timers::Timer;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;
use wombat_proto::limits::ORPHANS_AFTER;
use wombat_proto::wire::{self, log, log::command::Op};
use wombat_proto::{Epoch, HandleId, Instance, Instant, SessionId, Slot};

/// Most handles that one command closes.
const CLOSED_AT_ONCE: usize = 512;

/// A step that a new master has taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stage {
    /// 1: it leads, under a ballot whose round is the new epoch.
    Elected {
        /// The epoch.
        epoch: Epoch,
    },
    /// 2: until its epoch is in the log it answers nothing but where the master is.
    Locates,
    /// 3: sessions and locks are rebuilt from the state, leases at their maximum.
    Rebuilt {
        /// How many sessions.
        sessions: usize,
        /// How many locks are held.
        locks: usize,
        /// The lease that each session has now.
        lease: Duration,
    },
    /// 4: KeepAlives are answered.
    KeepsAlive,
    /// 5: each session has an event that says so.
    Tells {
        /// How many sessions.
        sessions: usize,
    },
    /// 6: until these know of it, nothing else is answered.
    Awaits {
        /// How many sessions may have something cached.
        sessions: usize,
    },
    /// 7: everything is allowed.
    Serves {
        /// How long it took since its epoch began.
        after: Duration,
    },
    /// 8: handles of earlier epochs are made again when they are used.
    Recreates,
    /// 9: a minute later, what keeps ephemeral nodes alive for nobody is closed.
    ClosedOrphans {
        /// How many handles that were.
        handles: usize,
    },
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stage::Elected { epoch } => write!(f, "takes epoch {epoch}; earlier ones are refused"),
            Stage::Locates => write!(f, "tells where the master is, and nothing else"),
            Stage::Rebuilt { sessions, locks, lease } => write!(
                f,
                "has rebuilt {sessions} sessions with leases of {} ms, {locks} held locks",
                lease.as_millis()
            ),
            Stage::KeepsAlive => write!(f, "answers KeepAlives"),
            Stage::Tells { sessions } => write!(f, "tells {sessions} sessions of the fail-over"),
            Stage::Awaits { sessions } => write!(f, "waits for {sessions} sessions to acknowledge it"),
            Stage::Serves { after } => {
                write!(f, "allows everything, {} ms after it began", after.as_millis())
            }
            Stage::Recreates => write!(f, "makes a handle of an earlier epoch again, as it is used"),
            Stage::ClosedOrphans { handles } => {
                write!(f, "has closed {handles} handles on ephemeral nodes that nobody has presented")
            }
        }
    }
}

impl Stage {
    /// Its place among the nine.
    pub fn number(&self) -> u32 {
        match self {
            Stage::Elected { .. } => 1,
            Stage::Locates => 2,
            Stage::Rebuilt { .. } => 3,
            Stage::KeepsAlive => 4,
            Stage::Tells { .. } => 5,
            Stage::Awaits { .. } => 6,
            Stage::Serves { .. } => 7,
            Stage::Recreates => 8,
            Stage::ClosedOrphans { .. } => 9,
        }
    }
}

/// How far a master has come with it.
pub(crate) struct FailOver {
    stage: Stage,
    begun: Instant,
    /// The stamp at which the epoch begins.
    stamp: Slot,
    /// Sessions that may still have something cached: they have neither acknowledged nor ended.
    awaited: BTreeSet<SessionId>,
    /// Whether none of them can use it any more.
    caches_lapsed: bool,
    served_after: Option<Duration>,
    recreated: u64,
    /// Handles that were made again in this step.
    untold: Vec<(Instance, (SessionId, HandleId))>,
    orphans: u64,
}

impl FailOver {
    pub(crate) fn new(epoch: Epoch, stamp: Slot, now: Instant) -> FailOver {
        FailOver {
            stage: Stage::Elected { epoch },
            begun: now,
            stamp,
            awaited: BTreeSet::new(),
            caches_lapsed: false,
            served_after: None,
            recreated: 0,
            untold: Vec::new(),
            orphans: 0,
        }
    }

    /// Whether everything is allowed (SPEC I10).
    pub(crate) fn is_over(&self) -> bool {
        self.served_after.is_some()
    }

    /// Whether a session can have waited since `then` at an earlier master.
    pub(crate) fn is_before(&self, session: SessionId, then: Instant) -> bool {
        session.0 < self.stamp.0 && then <= self.begun
    }

    /// Whether the session has still to acknowledge the fail-over.
    pub(crate) fn awaits(&self, session: SessionId) -> bool {
        self.awaited.contains(&session)
    }

    /// The session knows of the fail-over, or has ended.
    pub(crate) fn settled(&mut self, session: SessionId) {
        self.awaited.remove(&session);
    }

    /// Whoever has something cached from before cannot use it any more, heard of or not.
    pub(crate) fn caches_have_lapsed(&mut self) {
        self.caches_lapsed = true;
    }

    /// How it is, for operators.
    pub(crate) fn report(&self, now: Instant) -> wire::FailOver {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        wire::FailOver {
            step: self.stage.number(),
            what: alloc::format!("{}", self.stage),
            awaited: self.awaited.len() as u64,
            begun_ms: millis(now.since(self.begun)),
            served_after_ms: self.served_after.map_or(0, |after| millis(after).max(1)),
            handles_recreated: self.recreated,
            orphans_closed: self.orphans,
        }
    }
}

impl Master {
    /// Counts a handle that was made again, and notes it for what is to be told through it.
    pub(crate) fn recreated(&mut self, session: SessionId, token: &wire::Handle) {
        self.fail_over.recreated += 1;
        self.fail_over.untold.push((Instance(token.instance), (session, HandleId(token.id))));
    }
}

impl Replica {
    /// The master takes its next step.
    pub(crate) fn reach(&mut self, stage: Stage) {
        let Some(master) = &mut self.master else { return };
        master.fail_over.stage = stage.clone();
        self.effects.stages.push((master.epoch, stage));
    }

    /// Steps 3 to 6, once the master's memory is rebuilt.
    pub(crate) fn tell_sessions(&mut self, lease: Duration) {
        let caching = self.state.sessions_after(SessionId(0)).filter(|(_, session)| session.has_cache_lease);
        let awaited: BTreeSet<SessionId> = caching.map(|(id, _)| id).collect();
        let (sessions, locks) = (self.state.session_count(), self.state.tree().locks_held());
        let Some(master) = &mut self.master else { return };
        master.fail_over.awaited = awaited.clone();
        self.reach(Stage::Rebuilt { sessions, locks, lease });
        self.reach(Stage::KeepsAlive);
        self.reach(Stage::Tells { sessions });
        self.reach(Stage::Awaits { sessions: awaited.len() });
    }

    /// Step 7, once every session that may have something cached has acknowledged the fail-over, or ended, or the
    /// longest cache lease has.
    pub(crate) fn finish_fail_over(&mut self) {
        let now = self.moment.now;
        let Some(master) = &mut self.master else { return };
        let fail_over = &mut master.fail_over;
        if fail_over.is_over() || !(fail_over.awaited.is_empty() || fail_over.caches_lapsed) {
            return;
        }
        let after = now.since(fail_over.begun);
        fail_over.served_after = Some(after);
        master.timers.set(now + ORPHANS_AFTER, Timer::Orphans);
        self.reach(Stage::Serves { after });
    }

    /// Step 8 has begun. Who holds a lock by a handle that was made again hears of those who wait for it already.
    pub(crate) fn note_recreated(&mut self) {
        let untold = self.master.as_mut().map(|master| core::mem::take(&mut master.fail_over.untold));
        for (instance, holder) in untold.unwrap_or_default() {
            self.tell_of_waiters(instance, holder);
        }
        let first = self.master.as_ref().is_some_and(|master| {
            master.fail_over.recreated > 0 && matches!(master.fail_over.stage, Stage::Serves { .. })
        });
        if first {
            self.reach(Stage::Recreates);
        }
    }

    /// Step 9: a handle on an ephemeral node that its client has not presented to this master keeps the node
    /// alive for nobody.
    pub(crate) fn close_orphans(&mut self) {
        let Some(master) = &self.master else { return };
        let mut orphans = Vec::new();
        for (id, session) in self.state.sessions_after(SessionId(0)) {
            let Some(live) = master.sessions.get(&id) else { continue };
            let forgotten = session.ephemerals().filter(|(_, handle)| !live.handles.is_open(*handle));
            orphans.extend(forgotten.map(|(instance, HandleId(handle))| log::Orphan {
                session: id.0,
                instance: instance.0,
                handle,
            }));
        }
        for batch in orphans.chunks(CLOSED_AT_ONCE) {
            if self.propose_own(Op::CloseOrphans(log::CloseOrphans { handles: batch.to_vec() })).is_err() {
                let again = self.moment.now + Duration::from_secs(1);
                return self.set_timer(again, Timer::Orphans);
            }
            let Some(master) = &mut self.master else { return };
            for orphan in batch {
                if let Some(live) = master.sessions.get_mut(&SessionId(orphan.session)) {
                    live.handles.forget(HandleId(orphan.handle));
                }
            }
        }
        let handles = orphans.len();
        if let Some(master) = &mut self.master {
            master.fail_over.orphans = handles as u64;
        }
        self.reach(Stage::ClosedOrphans { handles });
    }
}
