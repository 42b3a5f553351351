//! What the application of a client does next.

use super::{
    COMMON, Client, DIRECTORY, Doing, FENCED, FILE, FLOOD_WRITES, LOCKS, OWN, PERMITS, PLACES, SEMAPHORE,
};
use crate::cell::oracle::answers::Answers;
use crate::cell::oracle::history::History;
use crate::random::Random;
use std::time::Duration;
use wombat_proto::wire::{self, Handle, change, event::Kind, guard, request::Call};
use wombat_proto::{Instance, LockMode, Sequencer};

impl Client {
    pub(super) fn choose(
        &mut self,
        real: Duration,
        oracle: &Answers,
        history: &History,
        random: &mut Random,
    ) -> Option<(Call, Doing)> {
        if self.flood > 0 {
            self.flood -= 1;
            return Some(flood(random));
        }
        if random.chance(60)
            && let Some(check) = check_some_sequencer(oracle, history, random)
        {
            return Some(check);
        }
        if random.chance(15) {
            let path = lock_path(random.below(LOCKS as u64) as usize);
            let call = wire::BreakLock { path, ..wire::BreakLock::default() };
            return Some((Call::BreakLock(call), Doing::Breaking));
        }
        if random.chance(self.nesting) {
            return Some(self.nest(self.nest_vanishes, random));
        }
        // The file is what most of them have in common.
        let place = if random.chance(150) { FILE } else { random.below(PLACES as u64) as usize };
        if self.busy[place] {
            return self.cancel(random);
        }
        let Some(handle) = self.handles[place] else {
            self.busy[place] = true;
            return Some((self.open(place, random), Doing::Opening(place)));
        };
        if random.chance(if matches!(place, OWN | COMMON) { 400 } else { 60 }) {
            return Some(self.close(place, handle));
        }
        match place {
            FILE => Some(self.use_file(handle, oracle, random)),
            OWN | COMMON => None,
            FENCED if self.tied.is_none() => self.tie(handle, oracle, history, random),
            FENCED => self.fenced_write(random),
            DIRECTORY => {
                let list = wire::ReadDir { handle: Some(handle), ..wire::ReadDir::default() };
                Some((Call::ReadDir(list), Doing::Listing))
            }
            lock => self.use_lock(lock, handle, real, history, random),
        }
    }

    fn open(&self, place: usize, random: &mut Random) -> Call {
        let (path, ephemeral) = match place {
            FILE | FENCED => (FILE_PATH.into(), false),
            OWN => (format!("/ls/sim/own-{}", self.name), true),
            COMMON => ("/ls/sim/common".into(), true),
            DIRECTORY => ("/ls/sim".into(), false),
            lock => (lock_path(lock), false),
        };
        if place == DIRECTORY {
            return Call::Open(wire::Open {
                path,
                mode: 1,
                events: self.events(place),
                ..wire::Open::default()
            });
        }
        let delays = place < LOCKS && random.chance(700);
        let permits = if place == SEMAPHORE { PERMITS } else { 0 };
        Call::Open(wire::Open {
            path,
            mode: 3,
            events: self.events(place),
            lock_delay_ms: if delays { self.lock_delay_ms } else { 0 },
            create: wire::open::Create::May.into(),
            node: Some(wire::NewNode { ephemeral, permits, ..wire::NewNode::default() }),
            ..wire::Open::default()
        })
    }

    /// What it wants to hear of.
    fn events(&self, place: usize) -> u32 {
        let all = match place {
            FILE | FENCED | OWN | COMMON => [Kind::ContentsModified, Kind::HandleInvalid].as_slice(),
            DIRECTORY => &[Kind::ChildAdded, Kind::ChildRemoved, Kind::ChildModified],
            _ => &[Kind::LockAcquired, Kind::HandleInvalid],
        };
        let conflicts = if place < LOCKS && self.keeps { Kind::LockConflict.bit() } else { 0 };
        all.iter().filter(|_| self.listens).fold(conflicts, |bits, kind| bits | kind.bit())
    }

    fn close(&mut self, place: usize, handle: Handle) -> (Call, Doing) {
        self.handles[place] = None;
        if place < LOCKS {
            self.holds[place] = None;
        }
        if place == FENCED {
            self.tied = None;
        }
        self.closed = Some(handle);
        (Call::Close(wire::Close { handle: Some(handle) }), Doing::Closing)
    }

    fn use_file(&mut self, handle: Handle, oracle: &Answers, random: &mut Random) -> (Call, Doing) {
        let (file, handle) = (Instance(handle.instance), Some(handle));
        let text = random.next().to_string();
        let known = oracle.told(file);
        let set = |if_generation| {
            Call::SetContents(wire::SetContents { handle, contents: text.clone().into(), if_generation })
        };
        match random.below(10) {
            0..3 => (set(0), Doing::Writing(text)),
            3 => (set(known), Doing::Swapping(text)),
            4 => (Call::GetStat(wire::GetStat { handle }), Doing::Reading(known)),
            5 if self.closed.is_some() => {
                (Call::GetStat(wire::GetStat { handle: self.closed }), Doing::ReadingClosed)
            }
            _ => (Call::GetContents(wire::GetContents { handle }), Doing::Reading(known)),
        }
    }

    fn use_lock(
        &mut self,
        lock: usize,
        handle: Handle,
        real: Duration,
        history: &History,
        random: &mut Random,
    ) -> Option<(Call, Doing)> {
        let held = self.holds[lock].clone();
        if random.chance(40) && held.as_ref().is_none_or(|held| held.mode == LockMode::Exclusive) {
            // From the moment at which it asks to delete it, it believes in its lock no longer.
            (self.holds[lock], self.busy[lock]) = (None, true);
            let delete = wire::Delete { handle: Some(handle) };
            return Some((Call::Delete(delete), Doing::Deleting(lock)));
        }
        let Some(held) = held else {
            let waits = self.calls.values().any(|doing| matches!(doing, Doing::Acquiring(..)));
            return (!waits).then(|| self.acquire(lock, handle, random));
        };
        match random.below(6) {
            0..3 if self.keeps => None,
            0..3 => {
                self.holds[lock] = None;
                self.busy[lock] = true;
                let release = wire::Release { handle: Some(handle) };
                Some((Call::Release(release), Doing::Releasing(lock)))
            }
            3 => Some(check_sequencer(&held, history)),
            _ if self.is_live(real) && self.handles[FILE].is_some() => {
                let text = random.next().to_string();
                let guard = wire::Guard { guard: Some(guard::Guard::LockHeld(lock_path(lock))) };
                let multi = wire::Multi { guards: vec![guard], changes: vec![set(&text)] };
                self.busy[lock] = true;
                Some((Call::Multi(multi), Doing::Guarded(lock, text)))
            }
            _ => None,
        }
    }

    fn acquire(&mut self, lock: usize, handle: Handle, random: &mut Random) -> (Call, Doing) {
        (self.busy[lock], self.wanted[lock]) = (true, false);
        // Whoever holds a later lock does not wait for an earlier one for ever: two such clients would.
        let later = (lock + 1..LOCKS).any(|other| self.holds[other].is_some());
        let shared = random.chance(if lock == SEMAPHORE { 850 } else { 300 });
        let r#try = random.chance(150);
        let hurries = !r#try && (later || random.chance(300));
        let timeout_ms = if hurries { 1 + random.below(6000) } else { 0 };
        let mode = if shared { LockMode::Shared } else { LockMode::Exclusive };
        let clears_contents = !shared && random.chance(500);
        let acquire = wire::Acquire {
            handle: Some(handle),
            shared,
            r#try,
            timeout_ms,
            clears_contents,
            ..wire::Acquire::default()
        };
        (Call::Acquire(acquire), Doing::Acquiring(lock, mode))
    }

    /// Ties its handle to a sequencer: of its own, or of whoever else was granted a lock lately.
    fn tie(
        &mut self,
        handle: Handle,
        oracle: &Answers,
        history: &History,
        random: &mut Random,
    ) -> Option<(Call, Doing)> {
        let own = self.holds.iter().flatten().next().filter(|_| random.chance(700));
        let sequencer = own.or_else(|| oracle.some_sequencer(random))?;
        let over = history.is_freed(sequencer.token);
        let set = wire::SetSequencer { handle: Some(handle), sequencer: sequencer.to_string() };
        let doing = Doing::Tying(sequencer.token, over);
        self.busy[FENCED] = true;
        Some((Call::SetSequencer(set), doing))
    }

    /// Writes through the handle that is tied to a sequencer.
    pub(super) fn fenced_write(&mut self, random: &mut Random) -> Option<(Call, Doing)> {
        let (token, handle) = (self.tied?, self.handles[FENCED]?);
        let text = random.next().to_string();
        let contents = text.clone().into();
        let set = wire::SetContents { handle: Some(handle), contents, if_generation: 0 };
        Some((Call::SetContents(set), Doing::Fenced(token, text)))
    }

    /// Takes an Acquire back, or closes the handle that it waits on, perhaps.
    fn cancel(&mut self, random: &mut Random) -> Option<(Call, Doing)> {
        let acquires = self.calls.iter().find_map(|(number, doing)| match doing {
            Doing::Acquiring(lock, _) => Some((*number, *lock)),
            _ => None,
        });
        let cancelling = self.calls.values().any(|doing| matches!(doing, Doing::Cancelling(..)));
        let (number, lock) = acquires.filter(|_| !cancelling && random.chance(100))?;
        if random.chance(300) {
            let handle = self.handles[lock]?;
            let (call, _) = self.close(lock, handle);
            return Some((call, Doing::Cancelling(lock, number)));
        }
        let cancel = wire::CancelAcquire { handle: self.handles[lock], acquire: number };
        Some((Call::CancelAcquire(cancel), Doing::Cancelling(lock, number)))
    }

    pub(super) fn is_cancelling(&self, acquire: u64) -> bool {
        self.calls.values().any(|doing| matches!(doing, Doing::Cancelling(_, one) if *one == acquire))
    }
}

const FILE_PATH: &str = "/ls/sim/file";

fn check_some_sequencer(oracle: &Answers, history: &History, random: &mut Random) -> Option<(Call, Doing)> {
    Some(check_sequencer(oracle.some_sequencer(random)?, history))
}

fn check_sequencer(sequencer: &Sequencer, history: &History) -> (Call, Doing) {
    let over = history.is_freed(sequencer.token);
    let check = wire::CheckSequencer { sequencer: sequencer.to_string() };
    (Call::CheckSequencer(check), Doing::Checking(sequencer.token, over))
}

/// More events for those who listen than a session keeps.
fn flood(random: &mut Random) -> (Call, Doing) {
    let text = random.next().to_string();
    let multi = wire::Multi { guards: Vec::new(), changes: vec![set(&text); FLOOD_WRITES] };
    (Call::Multi(multi), Doing::Flooding(text))
}

fn set(text: &str) -> wire::Change {
    let set = wire::SetNode { path: FILE_PATH.into(), contents: text.to_owned().into() };
    wire::Change { change: Some(change::Change::Set(set)) }
}

fn lock_path(lock: usize) -> String {
    format!("/ls/sim/lock-{lock}")
}
