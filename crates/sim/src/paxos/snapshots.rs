//! Snapshots of the simulated state: written, sent in chunks, and installed.

use super::event::Event;
use super::host::{Applied, Snapshot};
use super::world::World;
use wombat_paxos::{Configurations, Message, ReceivedChunk, WantedChunk};
use wombat_proto::ReplicaId;

impl World {
    pub(super) fn begin_snapshot(&mut self, id: ReplicaId) {
        self.write_snapshot(id);
        self.settle(id);
    }

    pub(super) fn write_snapshot(&mut self, id: ReplicaId) {
        let chunks = 1 + self.random.below(4) as u32;
        let host = self.host(id);
        let most = if host.slow { 3000 } else { 50 };
        let Some(running) = host.running.as_mut().filter(|running| !running.writing) else { return };
        running.writing = true;
        let configurations = running.paxos.configurations().clone();
        let snapshot = Snapshot { applied: running.applied, configurations, chunks };
        let (wait, life) = (self.random.millis(0, most), self.life(id));
        self.after(wait, Event::Written(id, life, snapshot));
    }

    pub(super) fn written(&mut self, id: ReplicaId, snapshot: Snapshot) {
        let host = self.host(id);
        let slot = snapshot.applied.slot;
        host.disk.put_snapshot(snapshot);
        let Some(running) = &mut host.running else { return };
        running.writing = false;
        running.paxos.snapshotted(slot);
        self.settle(id);
    }

    pub(super) fn send_chunk(&mut self, id: ReplicaId, wanted: &WantedChunk) {
        let Some(snapshot) = &self.host(id).disk.snapshot else { return };
        let slot = snapshot.applied.slot;
        let message = if slot == wanted.snapshot && wanted.index < snapshot.chunks {
            Message::Chunk {
                snapshot: slot,
                index: wanted.index,
                last: wanted.index + 1 == snapshot.chunks,
                bytes: [snapshot.applied.hash, snapshot.configurations.round()]
                    .map(u64::to_be_bytes)
                    .concat()
                    .into(),
            }
        } else {
            Message::Truncated { snapshot: slot }
        };
        self.carry(id, wanted.to, message);
    }

    pub(super) fn receive_chunk(&mut self, id: ReplicaId, received: ReceivedChunk) {
        let ReceivedChunk { snapshot, index, last, bytes } = received;
        let Some(running) = &mut self.host(id).running else { return };
        let follows = index == 0 || running.incoming == Some((snapshot, index));
        assert!(follows, "chunk {index} of the snapshot of {snapshot} comes out of order");
        running.incoming = (!last).then_some((snapshot, index + 1));
        if !last {
            return;
        }
        let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let hash = number(0);
        // What the chunks would say: whoever took a snapshot of that slot knew the same members.
        let members = self.oracle.configurations_after(snapshot).entries().to_vec();
        let configurations = Configurations::restore(members, number(8)).expect("they were in order");
        let arrived =
            Snapshot { applied: Applied { slot: snapshot, hash }, configurations, chunks: index + 1 };
        let (wait, life) = (self.random.millis(0, 50), self.life(id));
        self.after(wait, Event::Installed(id, life, arrived));
    }

    pub(super) fn install(&mut self, id: ReplicaId, snapshot: Snapshot) {
        let now = self.now();
        let host = self.host(id);
        let reading = host.now(now);
        host.disk.put_snapshot(snapshot.clone());
        let Some(running) = &mut host.running else { return };
        if running.paxos.installed(reading, snapshot.applied.slot, snapshot.configurations) {
            let (old, new) = (running.applied.slot, snapshot.applied.slot);
            assert!(new > old, "I19: the snapshot of {new} was put over the state after {old}");
            running.applied = snapshot.applied;
            self.oracle.applied(snapshot.applied);
        }
        self.settle(id);
    }
}
