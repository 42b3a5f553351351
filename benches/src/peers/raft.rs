//! Raft, from the crate `raft` that TiKV is built on.

use super::{Command, Decided};
use raft::eraftpb::{Entry, Message, MessageType};
use raft::storage::MemStorage;
use raft::{Config, RawNode, StateRole};
use std::time::{Duration, Instant};

/// Replicates `entries` commands of `size` bytes over `replicas` in-memory replicas in one thread, with at
/// most `window` commands proposed and not yet known decided at the leader, and returns the time from the
/// first proposal until every replica has decided and applied all of them.
///
/// The commands of a window are proposed with one message, appends to a follower that still wait are joined,
/// and followers learn from the next append what is committed, or from a heartbeat if nothing else moves.
/// Logs are compacted as they grow, which was measured to be faster than to keep them.
pub fn run(replicas: usize, window: usize, entries: usize, size: usize) -> Duration {
    let mut cell = Cell::new(replicas, window, size);
    cell.elect();
    let mut command = Command::of(size);
    let mut proposed = 0;
    let begun = Instant::now();
    while !cell.all_decided(entries) {
        let moved = cell.round(|leader, before| {
            let decided = (leader.raft.raft_log.committed - before) as usize;
            let until = entries.min(decided + window);
            if proposed < until {
                propose(leader, (proposed..until).map(|number| command.numbered(number).to_vec()));
                proposed = until;
            }
        });
        if !moved {
            cell.tick();
        }
    }
    begun.elapsed()
}

/// The replica that campaigns.
const LEADER: usize = 0;
/// How many entries are dropped from a log at once.
const COMPACTED: u64 = 4096;

struct Cell {
    replicas: Vec<Replica>,
    messages: Vec<Vec<Message>>,
    /// The entries that were committed before the first command.
    before: u64,
    /// How far a follower can be behind, so what a leader has to keep of its log.
    kept: u64,
    size: usize,
}

struct Replica {
    node: RawNode<MemStorage>,
    decided: Decided,
}

impl Cell {
    fn new(replicas: usize, window: usize, size: usize) -> Self {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let voters: Vec<u64> = (1..=replicas as u64).collect();
        let replica = |id: &u64| {
            let config = Config {
                id: *id,
                election_tick: 10,
                heartbeat_tick: 1,
                max_size_per_msg: u64::MAX,
                skip_bcast_commit: true,
                batch_append: true,
                ..Config::default()
            };
            let storage = MemStorage::new_with_conf_state((voters.clone(), Vec::new()));
            let node = RawNode::new(&config, storage, &logger).expect("the configuration is valid");
            Replica { node, decided: Decided::default() }
        };
        let messages = vec![Vec::new(); replicas];
        Self {
            replicas: voters.iter().map(replica).collect(),
            messages,
            before: 0,
            kept: window as u64 + 1024,
            size,
        }
    }

    fn elect(&mut self) {
        self.replicas[LEADER].node.campaign().expect("a voter may campaign");
        let ready = |replica: &Replica| {
            let leader = replica.node.raft.leader_id == LEADER as u64 + 1;
            leader && replica.node.raft.raft_log.applied > 0
        };
        while !self.replicas.iter().all(ready) {
            if !self.round(|_, _| ()) {
                self.tick();
            }
        }
        while self.round(|_, _| ()) {}
        self.before = self.replicas[LEADER].node.raft.raft_log.committed;
        assert_eq!(self.replicas[LEADER].node.raft.state, StateRole::Leader, "the one that campaigned won");
    }

    fn tick(&mut self) {
        for replica in &mut self.replicas {
            replica.node.tick();
        }
    }

    /// Lets each replica take its messages and do what they made necessary, and tells whether any had to.
    /// The leader may propose in between, so that what is decided and what is proposed are handled together.
    fn round(&mut self, propose: impl FnOnce(&mut RawNode<MemStorage>, u64)) -> bool {
        let mut propose = Some(propose);
        let mut any = false;
        for index in 0..self.replicas.len() {
            let replica = &mut self.replicas[index];
            for message in self.messages[index].drain(..) {
                replica.node.step(message).expect("a replica takes what another one sends");
            }
            if index == LEADER
                && let Some(propose) = propose.take()
            {
                propose(&mut replica.node, self.before);
            }
            if replica.node.has_ready() {
                any = true;
                replica.handle_ready(&mut self.messages, self.size, self.kept);
            }
        }
        any
    }

    fn all_decided(&self, entries: usize) -> bool {
        self.replicas.iter().all(|replica| replica.decided.commands == entries)
    }
}

fn propose(leader: &mut RawNode<MemStorage>, commands: impl Iterator<Item = Vec<u8>>) {
    let entry = |command: Vec<u8>| Entry { data: command.into(), ..Entry::default() };
    let entries: Vec<Entry> = commands.map(entry).collect();
    let mut proposal = Message { from: leader.raft.id, ..Message::default() };
    proposal.set_msg_type(MessageType::MsgPropose);
    proposal.set_entries(entries.into());
    leader.step(proposal).expect("the leader takes proposals");
}

impl Replica {
    fn handle_ready(&mut self, messages: &mut [Vec<Message>], size: usize, kept: u64) {
        let mut ready = self.node.ready();
        send(ready.take_messages(), messages);
        {
            let mut storage = self.node.store().wl();
            storage.append(ready.entries()).expect("entries follow one another");
            if let Some(state) = ready.hs() {
                storage.set_hardstate(state.clone());
            }
        }
        send(ready.take_persisted_messages(), messages);
        self.apply(ready.committed_entries(), size);
        let mut light = self.node.advance(ready);
        if let Some(commit) = light.commit_index() {
            self.node.store().wl().mut_hard_state().commit = commit;
        }
        send(light.take_messages(), messages);
        self.apply(light.committed_entries(), size);
        self.node.advance_apply();
        self.compact(kept);
    }

    /// Drops what is applied from the log, but for the last `kept` entries, once that is worth the while.
    fn compact(&mut self, kept: u64) {
        let log = &self.node.raft.raft_log;
        let until = log.applied.saturating_sub(kept);
        if until > log.first_index() + COMPACTED {
            self.node.store().wl().compact(until).expect("applied entries can be dropped");
        }
    }

    fn apply(&mut self, entries: &[Entry], size: usize) {
        // A leader begins with an entry of its own, which is empty.
        for entry in entries.iter().filter(|entry| !entry.data.is_empty()) {
            self.decided.take(&entry.data, size);
        }
    }
}

fn send(outgoing: Vec<Message>, messages: &mut [Vec<Message>]) {
    for message in outgoing {
        messages[message.to as usize - 1].push(message);
    }
}
