//! Rounds of invalidations, and the changes that wait for them. Changes of the same thing share a round; what was
//! said to many is acknowledged by each.

use super::{Cache, Told};
use crate::master::Master;
use crate::proposals::Origin;
use crate::timers::Timer;
use crate::{Asker, Replica, next_in_turn};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::limits::{WAITING_BYTES, WAITING_CHANGES};
use wombat_proto::wire::log::{self, command::Op};
use wombat_proto::{CacheKey, Error, HandleId, Instance, Instant, Result, SessionId, Token};

/// Most sessions that are told in one step: a crowd that has the same file cached must not keep the heartbeats
/// waiting. Nor must it in many steps between two ticks, so the rest waits for the next tick.
const TOLD_AT_ONCE: usize = 1024;

/// Most entries that are forgotten in one step, for the same reason: sessions that have much cached may end together.
const FORGOTTEN_AT_ONCE: usize = 4096;

/// Names a change that waits; they rise.
pub(super) type Ticket = u64;

/// Sessions are told to drop something.
#[derive(Default)]
pub(super) struct Round {
    /// They have still to be told.
    pub(super) untold: BTreeSet<SessionId>,
    /// They were told, and may use it until then.
    pub(super) awaited: BTreeSet<(Instant, SessionId)>,
    /// The changes that wait for its end.
    waited_for_by: BTreeSet<Ticket>,
}

impl Round {
    pub(super) fn is_waited_for_by_none(&self) -> bool {
        self.waited_for_by.is_empty()
    }
}

/// Something that somebody wants to change.
pub(crate) struct Change {
    pub(crate) origin: Origin,
    pub(crate) acknowledged: u64,
    pub(crate) op: Op,
}

/// What waits.
enum What {
    Change(Change),
    /// The next grant of a lock. Whose turn it is is seen when it comes.
    Turn(Instance),
}

/// Something that waits for rounds, or for what its session has asked for before.
pub(super) struct Waiting {
    what: What,
    /// What it touches, which stays closed meanwhile.
    keys: Vec<CacheKey>,
    rounds: BTreeSet<CacheKey>,
    /// Whose change it is; of the break of a lock: whose lock it is.
    sessions: Vec<SessionId>,
    /// Whether a lock may go with it: it comes after all that its sessions have asked for before, which they may
    /// have asked for under the lock.
    gives_up: bool,
    pub(super) since: Instant,
}

impl Cache {
    /// Whether a request waits here for what it asks for.
    pub(crate) fn is_waiting(&self, session: SessionId, number: u64) -> bool {
        self.by_request.contains_key(&(session, number))
    }

    /// A request that waits has come again, perhaps on another connection. Returns whether it was here.
    fn comes_again(&mut self, asker: Asker) -> bool {
        let ticket = self.by_request.get(&(asker.session, asker.number));
        let waiting = ticket.and_then(|ticket| self.waiting.get_mut(ticket));
        match waiting.map(|waiting| &mut waiting.what) {
            Some(What::Change(change)) => {
                change.origin.comes_again(asker);
                true
            }
            _ => false,
        }
    }

    /// Whether a session has something that waits.
    pub(crate) fn has_waiting(&self, session: SessionId) -> bool {
        self.waits_before(session, Ticket::MAX)
    }

    /// Whether a session has something that waits, and came before `ticket`.
    fn waits_before(&self, session: SessionId, ticket: Ticket) -> bool {
        self.by_session.range((session, 0)..(session, ticket)).next().is_some()
    }

    fn next_ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        self.last_ticket
    }

    fn enqueue(&mut self, ticket: Ticket, waiting: Waiting) {
        self.close(&waiting.keys);
        for key in &waiting.rounds {
            self.rounds.get_mut(key).expect("it was begun").waited_for_by.insert(ticket);
        }
        self.by_session.extend(waiting.sessions.iter().map(|session| (*session, ticket)));
        match &waiting.what {
            What::Turn(instance) => drop(self.turns.insert(*instance)),
            What::Change(change) => {
                self.bytes += change.op.encoded_len();
                if let Some(asker) = change.origin.asker() {
                    self.by_request.insert((asker.session, asker.number), ticket);
                }
            }
        }
        self.waiting.insert(ticket, waiting);
    }

    fn dequeue(&mut self, ticket: Ticket) -> Option<What> {
        let waiting = self.waiting.remove(&ticket)?;
        self.open(&waiting.keys);
        for session in &waiting.sessions {
            self.by_session.remove(&(*session, ticket));
        }
        match &waiting.what {
            What::Turn(instance) => drop(self.turns.remove(instance)),
            What::Change(change) => {
                self.bytes -= change.op.encoded_len();
                if let Some(asker) = change.origin.asker() {
                    self.by_request.remove(&(asker.session, asker.number));
                }
            }
        }
        for session in waiting.sessions {
            // What comes after all that its session has asked for before can go on only if it is the first now.
            let first = self.by_session.range((session, 0)..=(session, Ticket::MAX)).next();
            if let Some((_, first)) = first.copied() {
                self.look_at(first);
            }
        }
        Some(waiting.what)
    }

    /// Notes a change that nothing stands against any more.
    fn look_at(&mut self, ticket: Ticket) {
        if self.is_ready(ticket) {
            self.ready.insert(ticket);
        }
    }

    fn is_ready(&self, ticket: Ticket) -> bool {
        self.waiting.get(&ticket).is_some_and(|waiting| {
            let behind = waiting.gives_up && waiting.sessions.iter().any(|id| self.waits_before(*id, ticket));
            waiting.rounds.is_empty() && !behind
        })
    }

    /// Ends a round in which nobody is waited for any more.
    pub(super) fn settle(&mut self, key: &CacheKey) {
        let done = self.rounds.get(key).is_some_and(|r| r.untold.is_empty() && r.awaited.is_empty());
        if !done {
            return;
        }
        self.to_tell.remove(key);
        let round = self.rounds.remove(key).expect("it was just seen");
        for ticket in round.waited_for_by {
            if let Some(waiting) = self.waiting.get_mut(&ticket) {
                waiting.rounds.remove(key);
            }
            self.look_at(ticket);
        }
    }

    /// A session is not waited for any more in the rounds of which it was told this.
    pub(super) fn settle_told(&mut self, session: SessionId, told: impl Iterator<Item = Told>) {
        for Told { key, awaited } in told {
            if let (Some(until), Some(round)) = (awaited, self.rounds.get_mut(&key)) {
                round.awaited.remove(&(until, session));
                self.settle(&key);
            }
        }
    }

    /// Waits no longer for those whose cache lease has ended. More may be told.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.crowd_waits = false;
        while self.due.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, key)) = self.due.pop_first() else { return };
            let Some(round) = self.rounds.get_mut(&key) else { continue };
            while round.awaited.first().is_some_and(|(until, _)| *until <= now) {
                round.awaited.pop_first();
                self.lapsed += 1;
            }
            if let Some((until, _)) = round.awaited.first() {
                self.due.insert((*until, key.clone()));
            }
            self.settle(&key);
        }
    }
}

impl Replica {
    /// Begins a round for each of these that somebody may have cached, but for the one who has dropped his own
    /// copy of one. Returns the rounds that are not over.
    pub(super) fn start_rounds(
        &mut self,
        keys: &[CacheKey],
        dropped: Option<(SessionId, CacheKey)>,
    ) -> BTreeSet<CacheKey> {
        let mut all = BTreeSet::new();
        let Some(master) = &mut self.master else { return all };
        let cache = &mut master.cache;
        if let Some((session, key)) = dropped
            && let Some(own) = master.sessions.get_mut(&session).and_then(|live| live.cache.as_mut())
            && own.keys.remove(&key)
        {
            cache.remove_holder(&key, session);
        }
        for key in keys {
            let held = cache.holders.range(key.covered()).map(|(held, _)| held.clone());
            for held in held.collect::<Vec<_>>() {
                let holders = cache.holders.remove(&held).unwrap_or_default();
                cache.entries -= holders.len();
                cache.rounds_begun += 1;
                let round = cache.rounds.entry(held.clone()).or_default();
                if round.untold.is_empty() {
                    round.untold = holders;
                } else {
                    round.untold.extend(holders);
                }
                cache.to_tell.insert(held);
            }
            all.extend(cache.rounds.range(key.covered()).map(|(key, _)| key.clone()));
        }
        all
    }

    /// Tells the holders of what is to change, a crowd of them by and by, and forgets those that are gone.
    pub(crate) fn tell_holders(&mut self) {
        let now = self.moment.now;
        let Some(master) = &mut self.master else { return };
        master.cache.forget_some(FORGOTTEN_AT_ONCE);
        if master.cache.crowd_waits {
            return;
        }
        let mut left = TOLD_AT_ONCE;
        while left > 0
            && let Some(key) = next_in_turn(&master.cache.to_tell, master.cache.last_told.as_ref()).cloned()
        {
            master.cache.last_told = Some(key.clone());
            let round = master.cache.rounds.get_mut(&key).expect("it goes on while some have to be told");
            while left > 0
                && let Some(session) = round.untold.pop_first()
            {
                left -= 1;
                let Some(live) = master.sessions.get_mut(&session) else { continue };
                let Some(cache) = &mut live.cache else { continue };
                master.cache.invalidations += 1;
                round.awaited.extend(cache.tell(key.clone(), now).map(|until| (until, session)));
                master.to_notify.add(session, live);
            }
            if round.untold.is_empty() {
                master.cache.to_tell.remove(&key);
                if let Some((until, _)) = round.awaited.first() {
                    master.cache.due.insert((*until, key.clone()));
                }
                master.cache.settle(&key);
            }
        }
        master.cache.crowd_waits = !master.cache.to_tell.is_empty();
    }

    /// A session says what it has dropped.
    pub(crate) fn hear_of_dropped(&mut self, session: SessionId, number: u64) {
        let now = self.moment.now;
        let Some(master) = &mut self.master else { return };
        let Some(live) = master.sessions.get_mut(&session) else { return };
        let gone = live.cache.as_mut().map(|cache| cache.acknowledge(number, now));
        master.cache.settle_told(session, gone.into_iter().flatten());
    }

    /// Proposes a change, once nobody has cached any more what it touches. Until then it waits.
    pub(crate) fn propose(&mut self, origin: Origin, acknowledged: u64, op: Op) -> Result<()> {
        self.propose_in_turn(Change { origin, acknowledged, op }, None)
    }

    /// The same of one that may have waited already: it keeps its place.
    fn propose_in_turn(&mut self, change: Change, waited: Option<(Ticket, Instant)>) -> Result<()> {
        let asker = change.origin.asker();
        let Some(master) = self.master.as_mut().filter(|master| !master.caches_nothing()) else {
            return self.enter(change, Vec::new());
        };
        if asker.is_some_and(|asker| master.cache.comes_again(asker)) {
            return Ok(());
        }
        let session = asker.map_or(SessionId(0), |asker| asker.session);
        if let Op::EndSessions(log::EndSessions { asked: true, .. }) = &change.op {
            // They have dropped everything, or have not used it for long.
            for session in ended_by(&change.op) {
                master.forget_cache(session);
            }
        }
        let keys = self.touched(session, &change.op);
        let rounds = self.start_rounds(&keys, dropped_by_writer(session, &change.op));
        let gives_up = self.gives_up(session, &change.op);
        let sessions = match &change.op {
            Op::BreakLock(broken) => self.holders_of(broken),
            _ => asker.map(|asker| asker.session).into_iter().collect(),
        };
        let Some(master) = &mut self.master else { return Ok(()) };
        let cache = &mut master.cache;
        let behind = waited.is_none()
            && gives_up
            && sessions.iter().any(|session| cache.waits_before(*session, Ticket::MAX));
        if rounds.is_empty() && !behind {
            return self.enter(change, keys);
        }
        if cache.waiting.len() >= WAITING_CHANGES || cache.bytes >= WAITING_BYTES {
            return Err(Error::Overloaded { retry_after: Duration::from_millis(100) });
        }
        let (ticket, since) = waited.unwrap_or_else(|| (cache.next_ticket(), self.moment.now));
        cache
            .enqueue(ticket, Waiting { what: What::Change(change), keys, rounds, sessions, gives_up, since });
        Ok(())
    }

    /// Proposes a grant, if nobody has cached what it touches. Returns whether it did; if not, whose turn it is
    /// then is seen when nobody has.
    pub(crate) fn propose_grant(&mut self, origin: Origin, instance: Instance, op: Op) -> Result<bool> {
        let grant = Change { origin, acknowledged: 0, op };
        if self.master.as_ref().is_none_or(Master::caches_nothing) {
            return self.enter(grant, Vec::new()).map(|()| true);
        }
        if self.turn_waits(instance) {
            return Ok(false);
        }
        let keys = self.touched(SessionId(0), &grant.op);
        let rounds = self.start_rounds(&keys, None);
        if rounds.is_empty() {
            return self.enter(grant, keys).map(|()| true);
        }
        let (what, since) = (What::Turn(instance), self.moment.now);
        if let Some(master) = &mut self.master {
            let (ticket, sessions) = (master.cache.next_ticket(), Vec::new());
            master.cache.enqueue(ticket, Waiting { what, keys, rounds, sessions, gives_up: false, since });
        }
        Ok(false)
    }

    /// Whether the next grant of a lock waits for those who have its node cached.
    pub(crate) fn turn_waits(&self, instance: Instance) -> bool {
        self.master.as_ref().is_some_and(|master| master.cache.turns.contains(&instance))
    }

    /// Proposes the changes that nothing stands against any more. Returns whether there were any.
    pub(crate) fn finish_rounds(&mut self) -> bool {
        let mut any = false;
        while let Some(master) = &mut self.master
            && let Some(ticket) = master.cache.ready.pop_first()
        {
            any = true;
            // What went before it may have had to wait again.
            if !master.cache.is_ready(ticket) {
                continue;
            }
            let waited = master.cache.waiting.get(&ticket).map(|waiting| (ticket, waiting.since));
            match master.cache.dequeue(ticket) {
                Some(What::Turn(instance)) => self.take_turns(instance),
                Some(What::Change(change)) => {
                    // Nobody can have cached it again: it was closed. But its names may lead elsewhere by now.
                    let (origin, ended) = (change.origin, ended_by(&change.op));
                    if let Err(error) = self.propose_in_turn(change, waited) {
                        self.refuse(origin, &ended, error);
                    }
                }
                None => {}
            }
        }
        any
    }

    /// A change that had to wait cannot be proposed: that of whoever asked for it, or the cell's own, which ends
    /// sessions or closes orphans.
    fn refuse(&mut self, origin: Origin, ended: &[SessionId], error: Error) {
        match origin.asker() {
            Some(asker) => self.reply(asker, Err(error)),
            None if ended.is_empty() => {
                self.set_timer(self.moment.now + Duration::from_secs(1), Timer::Orphans);
            }
            None => self.end_later(ended),
        }
    }

    /// Whether a lock may go with a change that a session asks for.
    fn gives_up(&self, session: SessionId, op: &Op) -> bool {
        match op {
            Op::Release(_) | Op::Close(_) | Op::BreakLock(_) => true,
            Op::Delete(delete) => {
                let node = self.state.tree().get(Instance(delete.instance));
                node.is_some_and(|node| node.lock.holder(session, HandleId(delete.handle)).is_some())
            }
            _ => false,
        }
    }

    /// Whose lock is broken.
    fn holders_of(&self, broken: &log::BreakLock) -> Vec<SessionId> {
        let lock = self.state.tree().get(Instance(broken.instance)).map(|node| &node.lock);
        let tokens = broken.tokens.iter().map(|token| Token(*token));
        let of_tokens =
            lock.into_iter().flat_map(|lock| tokens.clone().filter_map(|token| lock.holder_of_token(token)));
        let sessions: BTreeSet<SessionId> = of_tokens.map(|((session, _), _)| session).collect();
        sessions.into_iter().collect()
    }
}

/// The sessions that a command ends.
fn ended_by(op: &Op) -> Vec<SessionId> {
    match op {
        Op::EndSessions(end) => end.sessions.iter().map(|id| SessionId(*id)).collect(),
        _ => Vec::new(),
    }
}

/// The copy that a writer has dropped himself, as he sent the change.
fn dropped_by_writer(writer: SessionId, op: &Op) -> Option<(SessionId, CacheKey)> {
    match op {
        Op::SetContents(log::SetContents { instance, .. }) | Op::Delete(log::Delete { instance, .. }) => {
            Some((writer, CacheKey::node(Instance(*instance))))
        }
        _ => None,
    }
}
