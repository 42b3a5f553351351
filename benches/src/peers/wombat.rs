//! Wombat's own core: Multi-Paxos, from the crate `wombat-paxos`.

use super::{Command, Decided};
use bytes::Bytes;
use std::time::{Duration, Instant};
use wombat_paxos::{Config, Configurations, Effects, Message, Paxos};
use wombat_proto::{Members, Recovered, ReplicaId, Slot, Value};

/// Replicates `entries` commands of `size` bytes over `replicas` in-memory replicas in one thread, with at
/// most `window` commands proposed and not yet known chosen at the leader, and returns the time from the
/// first proposal until every replica was handed all of them as chosen.
///
/// What the leader may propose in a round goes out together, and followers learn from the next Accept what is
/// chosen, or from a heartbeat if nothing else moves. Records count as durable as soon as they are handed
/// out, and are dropped then: each replica has the values in the log that it keeps in memory. Logs are
/// trimmed as they grow, as if a snapshot were there, which was measured to be faster than to keep them.
pub fn run(replicas: usize, window: usize, entries: usize, size: usize) -> Duration {
    let mut cell = Cell::new(replicas, window, size);
    cell.elect();
    let mut command = Command::of(size);
    let mut proposed = 0;
    let begun = Instant::now();
    while !cell.all_decided(entries) {
        let moved = cell.round(|leader, before| {
            let decided = (leader.chosen().0 - before.0) as usize;
            let until = entries.min(decided + window);
            for number in proposed..until {
                let command = Bytes::copy_from_slice(command.numbered(number));
                leader.propose(command).expect("a leader takes what its window has room for");
            }
            proposed = proposed.max(until);
        });
        if !moved {
            cell.tick();
        }
    }
    begun.elapsed()
}

/// The replica that is elected: the only one that is told the time before there is a leader.
const LEADER: usize = 0;
/// α, with room for the greatest window.
const WINDOW: u64 = 2048;
/// How many slots are trimmed from a log at once.
const TRIMMED: u64 = 256;
/// How long a round takes, as far as the replicas know.
const ROUND: Duration = Duration::from_nanos(100);

struct Cell {
    replicas: Vec<Replica>,
    /// Messages on their way.
    messages: Vec<(ReplicaId, Message)>,
    now: wombat_proto::Instant,
    /// The last slot that was chosen before the first command.
    before: Slot,
    size: usize,
}

struct Replica {
    id: ReplicaId,
    paxos: Paxos,
    effects: Effects,
    /// How many of its records are durable.
    durable: u64,
    trimmed: Slot,
    decided: Decided,
}

impl Cell {
    fn new(replicas: usize, window: usize, size: usize) -> Self {
        let members = Members::founding((1..=replicas).map(|id| format!("replica-{id}:1")));
        let now = wombat_proto::Instant::default();
        let replica = |member: &wombat_proto::Member| {
            let weight = Value::Command(vec![0; size].into()).weight();
            let config = Config {
                window: WINDOW,
                // How far a follower can be behind, so what a leader has to keep of its log.
                log_bytes_kept: (window + 64) * weight,
                ..Config::new(member.id, u64::from(member.id.0))
            };
            let configurations = Configurations::founding(members.clone());
            let recovered = Recovered { starts: 1, ..Recovered::default() };
            Replica {
                id: member.id,
                paxos: Paxos::new(config, configurations, recovered, now),
                effects: Effects::default(),
                durable: 0,
                trimmed: Slot(0),
                decided: Decided::default(),
            }
        };
        Self {
            replicas: members.voters.iter().map(replica).collect(),
            messages: Vec::new(),
            now,
            before: Slot(0),
            size,
        }
    }

    fn elect(&mut self) {
        while self.replicas[LEADER].paxos.leads().is_none() {
            if !self.round(|_, _| ()) {
                self.tick();
            }
        }
        while self.round(|_, _| ()) {}
        self.before = self.replicas[LEADER].paxos.chosen();
    }

    /// Time passes until the leader has something to do: to send a heartbeat.
    fn tick(&mut self) {
        let leader = &mut self.replicas[LEADER].paxos;
        self.now = leader.next_deadline().map_or(self.now, |due| due.max(self.now));
        leader.tick(self.now);
    }

    /// Lets each replica do what is necessary and hands its messages to those that they are for, and tells
    /// whether there was anything. The leader may propose first, so that what has been chosen and what is
    /// proposed are handled together.
    fn round(&mut self, propose: impl FnOnce(&mut Paxos, Slot)) -> bool {
        self.now = self.now + ROUND;
        propose(&mut self.replicas[LEADER].paxos, self.before);
        let mut any = false;
        for from in 0..self.replicas.len() {
            let replica = &mut self.replicas[from];
            any |= replica.carry_out(self.now, self.size);
            std::mem::swap(&mut replica.effects.send, &mut self.messages);
            let from = replica.id;
            any |= !self.messages.is_empty();
            for (to, message) in self.messages.drain(..) {
                self.replicas[to.0 as usize - 1].paxos.receive(self.now, from, message);
            }
        }
        any
    }

    fn all_decided(&self, entries: usize) -> bool {
        self.replicas.iter().all(|replica| replica.decided.commands == entries)
    }
}

impl Replica {
    /// Does all that is to be done but for sending, and tells whether there was anything.
    fn carry_out(&mut self, now: wombat_proto::Instant, size: usize) -> bool {
        let mut any = false;
        loop {
            self.paxos.flush(&mut self.effects);
            let Effects { persist, chosen, .. } = &mut self.effects;
            any |= !(persist.is_empty() && chosen.is_empty());
            for batch in chosen.drain(..) {
                for value in &*batch.values {
                    // A leader begins with a value of its own.
                    if let Value::Command(command) = value {
                        self.decided.take(command, size);
                    }
                }
            }
            if persist.is_empty() {
                break;
            }
            self.durable += persist.drain(..).map(|records| records.count()).sum::<u64>();
            self.paxos.persisted(now, self.durable);
        }
        if self.paxos.chosen().0 > self.trimmed.0 + TRIMMED {
            self.trimmed = self.paxos.chosen();
            self.paxos.snapshotted(self.trimmed);
        }
        any
    }
}
