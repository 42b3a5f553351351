//! OmniPaxos: Sequence Paxos with a ballot leader election, from the crate `omnipaxos`.

use super::{Command, Decided};
use omnipaxos::messages::Message;
use omnipaxos::storage::{Entry, NoSnapshot};
use omnipaxos::util::LogEntry;
use omnipaxos::{ClusterConfig, OmniPaxos, ServerConfig};
use omnipaxos_storage::memory_storage::MemoryStorage;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A command that is shared, not copied, by all the logs and messages it is in.
#[derive(Clone, Debug)]
struct Shared(Arc<[u8]>);

impl Entry for Shared {
    type Snapshot = NoSnapshot;
}

type Replica = OmniPaxos<Shared, MemoryStorage<Shared>>;

/// Replicates `entries` commands of `size` bytes over `replicas` in-memory replicas in one thread, with at
/// most `window` commands proposed and not yet known decided at the leader, and returns the time from the
/// first proposal until every replica has decided all of them.
///
/// The leader gathers a window of commands into one batch; a batch that stays short at the end is flushed by
/// a tick. Followers accept whatever comes at once. The logs are never trimmed: trimming was measured to be
/// slower, part of which is that logs are otherwise freed only after the clock has stopped.
pub fn run(replicas: usize, window: usize, entries: usize, size: usize) -> Duration {
    let mut cell = Cell::new(replicas, window, size);
    cell.elect();
    let mut command = Command::of(size);
    let mut proposed = 0;
    let begun = Instant::now();
    while !cell.all_decided(entries) {
        let room = window - (proposed - cell.decided[LEADER].commands);
        let until = entries.min(proposed + room);
        let mut moved = proposed < until;
        for number in proposed..until {
            let command = Shared(command.numbered(number).into());
            cell.replicas[LEADER].append(command).expect("nothing is being reconfigured");
        }
        proposed = until;
        moved |= cell.deliver();
        cell.collect();
        if !moved {
            cell.tick();
        }
    }
    begun.elapsed()
}

/// The replica with the highest priority in the election.
const LEADER: usize = 0;
/// Messages between replicas, as many as fit without growing the buffers in most rounds.
const MESSAGES: usize = 64;

struct Cell {
    replicas: Vec<Replica>,
    decided: Vec<Decided>,
    messages: Vec<Message<Shared>>,
    size: usize,
}

impl Cell {
    fn new(replicas: usize, window: usize, size: usize) -> Self {
        let nodes: Vec<u64> = (1..=replicas as u64).collect();
        let replica = |(index, pid): (usize, &u64)| {
            let cluster =
                ClusterConfig { configuration_id: 1, nodes: nodes.clone(), ..ClusterConfig::default() };
            let server = ServerConfig {
                pid: *pid,
                election_tick_timeout: 10,
                resend_message_tick_timeout: 1000,
                buffer_size: MESSAGES,
                batch_size: if index == LEADER { window } else { 1 },
                flush_batch_tick_timeout: 1,
                leader_priority: u32::from(index == LEADER),
            };
            cluster.build_for_server(server, MemoryStorage::default()).expect("the configuration is valid")
        };
        Self {
            replicas: nodes.iter().enumerate().map(replica).collect(),
            decided: vec![Decided::default(); replicas],
            messages: Vec::with_capacity(MESSAGES),
            size,
        }
    }

    fn elect(&mut self) {
        let leader = Some((LEADER as u64 + 1, true));
        while self.replicas.iter().any(|replica| replica.get_current_leader() != leader) {
            self.tick();
            while self.deliver() {}
        }
    }

    fn tick(&mut self) {
        self.replicas.iter_mut().for_each(OmniPaxos::tick);
    }

    /// Hands each message to the replica that it is for, and tells whether there was any.
    fn deliver(&mut self) -> bool {
        let mut any = false;
        for from in 0..self.replicas.len() {
            self.replicas[from].take_outgoing_messages(&mut self.messages);
            any |= !self.messages.is_empty();
            for message in self.messages.drain(..) {
                let to = message.get_receiver() as usize - 1;
                self.replicas[to].handle_incoming(message);
            }
        }
        any
    }

    fn collect(&mut self) {
        for (replica, decided) in self.replicas.iter().zip(&mut self.decided) {
            for entry in replica.read_decided_suffix(decided.commands).into_iter().flatten() {
                match entry {
                    LogEntry::Decided(Shared(command)) => decided.take(&command, self.size),
                    other => panic!("only commands are proposed: {other:?}"),
                }
            }
        }
    }

    fn all_decided(&self, entries: usize) -> bool {
        self.decided.iter().all(|decided| decided.commands == entries)
    }
}
