//! A master whose proposals are not chosen makes way for another.
//!
//! Heartbeats can do well while values do not: large packets are lost on the way out of the master, its link
//! carries a few bytes and no more, or its disk hangs so long that it may take no more proposals. Then it would
//! keep its lease, and the cell would not change any more. What counts is that nothing at all is chosen: under
//! overload something always is. If too many voters have the values and only wait for their disks, no other
//! master could do better, and the master stays: it still answers reads and KeepAlives.

use crate::config::MOST_DOUBLINGS;
use crate::leader::{Leadership, Peer};
use crate::{Message, Notice, Paxos, Role, planted};
use core::time::Duration;
use wombat_proto::ReplicaId;

impl Paxos {
    /// Whether too much waits for its own disk, though others choose without it: it takes no proposals then.
    pub(crate) fn is_disk_stalled(&self, leadership: &Leadership) -> bool {
        leadership.own.len() as u64 >= 4 * self.config.window
    }

    /// A proposal is about to be made.
    pub(crate) fn note_proposal(&mut self) {
        let Role::Leading(leadership) = &self.role else { return };
        let is_first = leadership.open.is_empty() && leadership.gathered.is_empty();
        if is_first {
            self.restart_stall_clock();
        }
    }

    /// A slot has been chosen. That ends a series of stalls only if the last one was a whole patience ago: small
    /// values, such as the first one of a new master, are chosen at once where large ones are lost.
    pub(crate) fn note_progress(&mut self) {
        let chosen = self.chosen;
        if self.now >= self.stalls_count_until {
            self.stalls = 0;
        }
        let Role::Leading(leadership) = &mut self.role else { return };
        while leadership.open.pop_front_if(|(last, _)| *last <= chosen).is_some() {}
        self.restart_stall_clock();
    }

    fn restart_stall_clock(&mut self) {
        let Role::Leading(leadership) = &self.role else { return };
        let (now, stalled) = (self.now, self.is_disk_stalled(leadership));
        if let Role::Leading(leadership) = &mut self.role
            && !stalled
        {
            leadership.progress_at = now;
        }
    }

    /// For how long it has been held up, with nothing chosen meanwhile.
    fn stalled_for(&self, leadership: &Leadership) -> Duration {
        let held_up = !leadership.open.is_empty() || self.is_disk_stalled(leadership) || self.lacks_reports();
        if held_up { self.now.since(leadership.progress_at) } else { Duration::ZERO }
    }

    /// Whether nothing has been chosen for so long that another should try.
    pub(crate) fn should_make_way(&self, leadership: &Leadership) -> bool {
        leadership.transfer.is_none()
            && self.stalled_for(leadership) >= self.stall_patience()
            && self.others_may_choose(leadership)
            && !planted!(self, StallIgnored)
    }

    /// How long a master may be stalled before it makes way.
    fn stall_patience(&self) -> Duration {
        self.config.stall * (1 << self.stalls)
    }

    /// So many masters in a row have made way, the last one just now.
    pub(crate) fn count_stalls(&mut self, stalls: u32) {
        self.stalls = stalls.min(MOST_DOUBLINGS);
        self.stalls_count_until = self.now + self.stall_patience();
    }

    /// Whether those that answer, and do not just wait for their disks, are a quorum.
    fn others_may_choose(&self, leadership: &Leadership) -> bool {
        let may_accept = |id| leadership.peer(id).is_some_and(|peer| self.may_accept(leadership, peer));
        self.governing().all(|members| members.is_quorum(may_accept))
    }

    /// Whether a voter might accept the next slot at once if a master reached it.
    fn may_accept(&self, leadership: &Leadership, peer: &Peer) -> bool {
        let slot = self.chosen.next();
        let (answers, has_it) = if peer.id == self.config.replica {
            (true, self.log.last() >= slot || self.is_disk_stalled(leadership))
        } else {
            (self.now.since(peer.heard) < self.config.patience, peer.received >= slot)
        };
        answers && (peer.matched >= slot || !has_it)
    }

    /// Steps down in favour of the voter that has got furthest, and does not campaign for a while.
    pub(crate) fn make_way(&mut self) {
        let Role::Leading(leadership) = &self.role else { return };
        let stalled_for = self.stalled_for(leadership);
        let votes = |id| self.governing().all(|members| members.is_voter(id));
        let others = leadership.peers.iter().filter(|peer| peer.id != self.config.replica);
        let able = others.filter(|peer| votes(peer.id) && self.may_accept(leadership, peer));
        let heir: Option<ReplicaId> =
            able.max_by_key(|peer| (peer.matched, peer.received, peer.heard)).map(|peer| peer.id);
        self.out.notices.push(Notice::MadeWay { heir, stalled_for });
        self.count_stalls(self.stalls + 1);
        let (ballot, stalls) = (self.promised, self.stalls);
        self.step_down();
        self.election_at = self.election_at + self.config.stall;
        if let Some(heir) = heir {
            self.successor = Some(heir);
            self.send(heir, Message::TakeOver { ballot, stalls });
        }
    }
}
