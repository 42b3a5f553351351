//! Locks as SPEC §4 states them, in the plainest way: a list of holders, a list of waiters, and the entries on
//! their way into the log. Whatever happens, everyone's turn is looked at again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wombat_proto::LockMode::{self, Exclusive};
use wombat_proto::{Instance, Instant};

/// A handle: its session and its id.
pub(crate) type Who = (u64, u64);
/// A request: its session and its number.
pub(crate) type Asked = (u64, u64);

/// What a request is told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Said {
    Granted(LockMode),
    Done,
    Error(&'static str),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Holder {
    pub(crate) who: Who,
    pub(crate) mode: LockMode,
    pub(crate) lock_delay: Duration,
    pub(crate) acquire: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiter {
    pub(crate) holder: Holder,
    pub(crate) since: Instant,
    pub(crate) deadline: Option<Instant>,
    /// Whether its grant is an entry already.
    granting: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Delay {
    /// The end of sessions that began it: what an entry names that is let past it.
    begun_by: u64,
    pub(crate) mode: LockMode,
    pub(crate) length: Duration,
    pub(crate) until: Instant,
}

#[derive(Debug)]
pub(crate) struct Lock {
    pub(crate) permits: usize,
    pub(crate) generation: u64,
    pub(crate) holders: Vec<Holder>,
    pub(crate) queue: Vec<Waiter>,
    pub(crate) delay: Option<Delay>,
}

/// Something on its way into the log, and what it was proposed on.
#[derive(Clone, Debug)]
enum Entry {
    Grant(Instance, Waiter),
    Release(Instance, Who, Asked),
    Close(Instance, Who, Asked),
    Delete(Instance, Who, Asked, Vec<u64>),
    End { sessions: Vec<u64>, asked: Option<Asked>, over: Vec<u64> },
}

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) now: Instant,
    pub(crate) locks: BTreeMap<Instance, Lock>,
    entries: Vec<Entry>,
    /// What was said since this was looked at last.
    pub(crate) said: Vec<(Asked, Said)>,
    /// What the changes in the log were told: a retry is told the same.
    answers: BTreeMap<Asked, Said>,
    pub(crate) ended: BTreeSet<u64>,
    applied: u64,
    /// Since when the present master serves.
    pub(crate) master_since: Instant,
}

fn conflict(a: LockMode, b: LockMode) -> bool {
    a == Exclusive || b == Exclusive
}

impl Lock {
    fn delay_against(&self, mode: LockMode, now: Instant) -> Option<Delay> {
        self.delay.filter(|delay| conflict(delay.mode, mode) && now < delay.until)
    }

    /// Whether one more can hold it beside those who do, but are not about to give it back, and those who are
    /// about to hold it.
    fn admits(&self, mode: LockMode, leaving: &[(Instance, Who)], instance: Instance, now: Instant) -> bool {
        let granting = self.queue.iter().filter(|waiter| waiter.granting).map(|waiter| waiter.holder.mode);
        let staying = self.holders.iter().filter(|holder| !leaving.contains(&(instance, holder.who)));
        let others: Vec<LockMode> = staying.map(|holder| holder.mode).chain(granting).collect();
        others.iter().all(|other| !conflict(*other, mode))
            && (mode == Exclusive || others.len() < self.permits)
            && self.delay_against(mode, now).is_none()
    }
}

impl Model {
    pub(crate) fn new(now: Instant) -> Model {
        Model { now, master_since: now, ..Model::default() }
    }

    pub(crate) fn create(&mut self, instance: Instance, permits: u32) {
        let permits = if permits == 0 { usize::MAX } else { permits as usize };
        let lock = Lock { permits, generation: 0, holders: vec![], queue: vec![], delay: None };
        self.locks.insert(instance, lock);
    }

    /// Time has passed: whose patience is over is told, then whose turn has come has it.
    pub(crate) fn pass(&mut self, now: Instant) {
        self.now = now;
        for lock in self.locks.values_mut() {
            let over = |waiter: &mut Waiter| !waiter.granting && waiter.deadline.is_some_and(|at| at <= now);
            for waiter in lock.queue.extract_if(.., over) {
                self.said.push(((waiter.holder.who.0, waiter.holder.acquire), Said::Error("Timeout")));
            }
        }
        self.turns();
    }

    /// The first of each queue has its turn if it can hold the lock by the time that the log takes it in; nobody
    /// overtakes it.
    fn turns(&mut self) {
        let now = self.now;
        let leaving = self.entries.iter().filter_map(|entry| match entry {
            Entry::Release(instance, who, _) | Entry::Close(instance, who, _) => Some((*instance, *who)),
            Entry::Grant(..) | Entry::Delete(..) | Entry::End { .. } => None,
        });
        let leaving: Vec<_> = leaving.collect();
        for (instance, lock) in &mut self.locks {
            while let Some(next) = lock.queue.iter().position(|waiter| !waiter.granting)
                && lock.admits(lock.queue[next].holder.mode, &leaving, *instance, now)
            {
                lock.queue[next].granting = true;
                self.entries.push(Entry::Grant(*instance, lock.queue[next]));
            }
        }
    }

    // ---- What is asked ----

    pub(crate) fn acquire(
        &mut self,
        instance: Instance,
        holder: Holder,
        since: Instant,
        timeout: Option<Duration>,
        only_try: bool,
    ) {
        let asked = (holder.who.0, holder.acquire);
        let Some(lock) = self.locks.get_mut(&instance) else {
            return self.said.push((asked, Said::Error("StaleHandle")));
        };
        if lock.holders.contains(&holder) {
            return self.said.push((asked, Said::Granted(holder.mode)));
        }
        if lock.queue.iter().any(|waiter| waiter.holder == holder) {
            return; // It waits already.
        }
        let waiter =
            Waiter { holder, since, deadline: timeout.map(|timeout| since + timeout), granting: false };
        let ahead = |other: &Waiter| other.granting || other.since <= since;
        let place = lock.queue.iter().rposition(ahead).map_or(0, |last| last + 1);
        lock.queue.insert(place, waiter);
        self.turns();
        let now = self.now;
        let Some(lock) = self.locks.get_mut(&instance) else { return };
        let waits = lock.queue.iter().position(|waiter| waiter.holder == holder && !waiter.granting);
        if let (true, Some(place)) = (only_try, waits) {
            lock.queue.remove(place);
            let delayed = lock.delay_against(holder.mode, now).is_some();
            self.said.push((asked, Said::Error(if delayed { "LockDelayed" } else { "LockHeld" })));
        }
    }

    pub(crate) fn cancel(&mut self, instance: Instance, who: Who, acquire: u64, asked: Asked) {
        let Some(lock) = self.locks.get_mut(&instance) else {
            return self.say(asked, Said::Done);
        };
        let waits = lock.queue.iter().position(|waiter| waiter.holder.who == who && !waiter.granting);
        if let Some(place) = waits {
            lock.queue.remove(place);
            self.said.push(((who.0, acquire), Said::Error("Cancelled")));
            self.turns();
            return self.say(asked, Said::Done);
        }
        let holds = lock.holders.iter().any(|holder| holder.who == who && holder.acquire == acquire);
        let granting = lock.queue.iter().any(|waiter| waiter.holder.who == who);
        if !self.answers.contains_key(&asked) && (holds || granting) {
            self.entries.push(Entry::Release(instance, who, asked));
            return self.turns();
        }
        self.say(asked, Said::Done);
    }

    pub(crate) fn release(&mut self, instance: Instance, who: Who, asked: Asked) {
        self.change(asked, Entry::Release(instance, who, asked));
    }

    pub(crate) fn close(&mut self, instance: Instance, who: Who, asked: Asked) {
        let Some(lock) = self.locks.get_mut(&instance) else { return self.say(asked, Said::Done) };
        if let Some(place) = lock.queue.iter().position(|waiter| waiter.holder.who == who && !waiter.granting)
        {
            let waiter = lock.queue.remove(place);
            self.said.push(((who.0, waiter.holder.acquire), Said::Error("Cancelled")));
            self.turns();
        }
        let Some(lock) = self.locks.get(&instance) else { return };
        let holds = lock.holders.iter().any(|holder| holder.who == who);
        let granting = lock.queue.iter().any(|waiter| waiter.holder.who == who);
        match holds || granting {
            true => self.change(asked, Entry::Close(instance, who, asked)),
            false => self.say(asked, Said::Done),
        }
    }

    pub(crate) fn delete(&mut self, instance: Instance, who: Who, asked: Asked) {
        if !self.locks.contains_key(&instance) && !self.answers.contains_key(&asked) {
            return self.said.push((asked, Said::Error("StaleHandle")));
        }
        let over = self.delays_over(&[instance]);
        self.change(asked, Entry::Delete(instance, who, asked, over));
    }

    /// The end of sessions, asked for by one of them or because their leases are over.
    pub(crate) fn end(&mut self, sessions: Vec<u64>, asked: Option<Asked>) {
        let held = self
            .locks
            .iter()
            .filter(|(_, lock)| lock.holders.iter().any(|holder| sessions.contains(&holder.who.0)));
        let held: Vec<Instance> = held.map(|(instance, _)| *instance).collect();
        let over = self.delays_over(&held);
        self.entries.push(Entry::End { sessions, asked, over });
    }

    /// The delays of some locks that have passed: of those that began together, all or none.
    fn delays_over(&self, instances: &[Instance]) -> Vec<u64> {
        let delays = instances.iter().filter_map(|instance| self.locks.get(instance)?.delay);
        let (running, over): (Vec<Delay>, Vec<Delay>) = delays.partition(|delay| self.now < delay.until);
        let over = over.iter().map(|delay| delay.begun_by);
        over.filter(|name| running.iter().all(|other| other.begun_by != *name)).collect()
    }

    /// Whether a change is an entry that the log has not taken in yet.
    pub(crate) fn is_on_its_way(&self, asked: Asked) -> bool {
        self.entries.iter().any(|entry| match entry {
            Entry::Grant(..) => false,
            Entry::Release(_, _, by) | Entry::Close(_, _, by) | Entry::Delete(_, _, by, _) => *by == asked,
            Entry::End { asked: by, .. } => *by == Some(asked),
        })
    }

    fn change(&mut self, asked: Asked, entry: Entry) {
        match self.answers.get(&asked) {
            Some(said) => self.said.push((asked, *said)),
            None => {
                self.entries.push(entry);
                self.turns();
            }
        }
    }

    /// An answer that the log knows nothing of.
    fn say(&mut self, asked: Asked, said: Said) {
        self.said.push((asked, said));
    }

    // ---- What the log does ----

    /// The log takes in what is on its way, and what follows from it.
    pub(crate) fn flush(&mut self) {
        while !self.entries.is_empty() {
            let entry = self.entries.remove(0);
            self.apply(entry);
            self.turns();
        }
    }

    /// The master is gone, and what was on its way with it or not. The next one knows the log, and no queue.
    pub(crate) fn fail_over(&mut self, survives: bool) {
        for entry in std::mem::take(&mut self.entries) {
            if survives {
                self.apply(entry);
            }
        }
        self.said.clear();
        self.master_since = self.now;
        for lock in self.locks.values_mut() {
            lock.queue.clear();
            if let Some(delay) = &mut lock.delay {
                delay.until = self.now + delay.length;
            }
        }
    }

    fn answer(&mut self, asked: Asked, said: Said) {
        self.answers.insert(asked, said);
        self.said.push((asked, said));
    }

    fn apply(&mut self, entry: Entry) {
        self.applied += 1;
        match entry {
            Entry::Grant(instance, waiter) => self.grant(instance, waiter.holder),
            Entry::Release(_, who, asked) | Entry::Close(_, who, asked) | Entry::Delete(_, who, asked, _)
                if self.ended.contains(&who.0) =>
            {
                self.said.push((asked, Said::Error("SessionExpired")));
            }
            Entry::Release(instance, who, asked) => {
                let said = match self.locks.get_mut(&instance) {
                    None => Said::Error("StaleHandle"),
                    Some(lock) if lock.holders.iter().any(|holder| holder.who == who) => {
                        lock.holders.retain(|holder| holder.who != who);
                        Said::Done
                    }
                    Some(_) => Said::Error("NotHeld"),
                };
                self.answer(asked, said);
            }
            Entry::Close(instance, who, asked) => {
                if let Some(lock) = self.locks.get_mut(&instance) {
                    lock.holders.retain(|holder| holder.who != who);
                }
                self.answer(asked, Said::Done);
            }
            Entry::Delete(instance, who, asked, over) => {
                let said = self.remove(instance, who, &over);
                self.answer(asked, said);
            }
            Entry::End { sessions, asked, over } => {
                for session in sessions {
                    self.end_one(session, asked.is_some(), &over);
                }
                self.said.extend(asked.map(|asked| (asked, Said::Done)));
            }
        }
    }

    /// Nobody is granted anything whose session or node is gone.
    fn grant(&mut self, instance: Instance, holder: Holder) {
        let Some(lock) = self.locks.get_mut(&instance).filter(|_| !self.ended.contains(&holder.who.0)) else {
            return;
        };
        let compatible = lock.holders.iter().all(|other| !conflict(other.mode, holder.mode));
        assert!(compatible && lock.holders.len() < lock.permits, "the model grants what cannot be held");
        lock.delay = lock.delay.filter(|delay| !conflict(delay.mode, holder.mode));
        lock.generation += u64::from(lock.holders.is_empty());
        lock.holders.push(holder);
        lock.queue.retain(|waiter| waiter.holder != holder);
        self.said.push(((holder.who.0, holder.acquire), Said::Granted(holder.mode)));
    }

    fn remove(&mut self, instance: Instance, who: Who, over: &[u64]) -> Said {
        let Some(lock) = self.locks.get(&instance) else { return Said::Error("StaleHandle") };
        if lock.holders.iter().any(|holder| holder.who != who) {
            return Said::Error("LockHeld");
        }
        if lock.delay.is_some_and(|delay| !over.contains(&delay.begun_by)) {
            return Said::Error("LockDelayed");
        }
        for waiter in self.locks.remove(&instance).map(|lock| lock.queue).unwrap_or_default() {
            self.said.push(((waiter.holder.who.0, waiter.holder.acquire), Said::Error("StaleHandle")));
        }
        Said::Done
    }

    /// A lock that was not given back is delayed, from now on for the longest that anyone asked for.
    fn end_one(&mut self, session: u64, asked: bool, over: &[u64]) {
        if !self.ended.insert(session) {
            return;
        }
        for lock in self.locks.values_mut() {
            lock.holders.sort_unstable();
            for holder in lock.holders.extract_if(.., |holder| holder.who.0 == session) {
                if !asked && !holder.lock_delay.is_zero() {
                    let earlier = lock.delay.filter(|delay| !over.contains(&delay.begun_by));
                    let length = holder.lock_delay.max(earlier.map_or(Duration::ZERO, |delay| delay.length));
                    let (begun_by, mode, until) = (self.applied, holder.mode, self.now + length);
                    lock.delay = Some(Delay { begun_by, mode, length, until });
                }
            }
            for waiter in lock.queue.extract_if(.., |waiter| waiter.holder.who.0 == session) {
                self.said.push(((session, waiter.holder.acquire), Said::Error("SessionExpired")));
            }
        }
    }
}
