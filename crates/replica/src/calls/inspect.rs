//! What people and operators ask: status, who is there, who holds what.

use super::{fill_page, page};
use crate::{Answer, Replica, Standing};
use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::wire;
use wombat_proto::{Error, Instance, LockMode, Path, Result, SessionId, Slot};
use wombat_state::{Lock, Node};

/// Most holders that one lock's entry lists.
const HOLDERS_LISTED: usize = 256;
/// Most waiters, likewise.
const WAITERS_LISTED: usize = 64;
/// How many locks one call looks at: an operator's question must not keep the master from its work.
const LOOKED_AT: usize = 1000;

/// Of something that is over at the latest then.
fn millis_up(duration: Duration) -> u64 {
    duration.as_micros().div_ceil(1000) as u64
}

impl Replica {
    /// How this replica is, but for what only the shell knows.
    pub fn report(&self) -> wire::Status {
        let tree = self.state.tree();
        let standing = self.paxos.status();
        let age = self.age_at(self.moment.now);
        wire::Status {
            members: self.member_statuses(&standing),
            ballot: standing.ballot.to_string(),
            chosen_slot: self.state.stamp_of(standing.chosen).0,
            master_lease_ms: standing.lease_left.as_millis() as u64,
            oldest_proposal_ms: standing.oldest_proposal.map_or(0, |age| age.as_millis() as u64),
            master_lease_length_ms: standing.lease.as_millis() as u64,
            round_trip_us: standing.round_trip.map_or(0, |it| it.as_micros() as u64),
            warnings: standing.warnings().map(|warning| warning.to_string()).collect(),
            standing: match standing.standing {
                Standing::Leading if self.is_master() => "master",
                Standing::Leading | Standing::Campaigning => "campaigning",
                Standing::Following => "voter",
                Standing::Learning => "learner",
                Standing::Restored => "copy",
            }
            .into(),
            members_changing: !standing.members_in_force,
            cell: self.config.cell.to_string(),
            replica: self.config.replica.0,
            epoch: self.state.epoch().0,
            master: self.master_address(),
            applied_slot: self.state.stamp().0,
            nodes: tree.len() as u64,
            sessions: self.state.session_count() as u64,
            locks_held: tree.locks_held() as u64,
            waiting: self.master.as_ref().map_or(0, |master| master.locks.waiting()) as u64,
            connections: self.connections.len() as u64,
            uptime_ms: self.moment.now.since(self.started).as_millis() as u64,
            lease_ms: self.lease().as_millis() as u32,
            cache: self.cache_status(),
            fail_over: self.master.as_ref().map(|master| master.fail_over.report(self.moment.now)),
            server: self.config.version.clone(),
            age_ms: age.map_or(0, |age| age.as_millis() as u64),
            age_unknown: age.is_none(),
            ..wire::Status::default()
        }
    }

    pub(super) fn list_sessions(&mut self, list: &wire::ListSessions) -> Result<Answer> {
        let most = page(list.limit);
        let Some(master) = &self.master else { return Err(Error::NotMaster { hint: None }) };
        let mut rest = self.state.sessions_after(SessionId(list.after)).peekable();
        let mut sessions = Vec::new();
        while sessions.len() < most
            && let Some((id, session)) = rest.next()
        {
            let live = master.sessions.get(&id);
            sessions.push(wire::SessionInfo {
                session: id.0,
                client: session.client.clone(),
                created_wall_ms: session.created_wall_ms,
                lease_left_ms: millis_up(self.lives_within(id)),
                handles: live.map_or(0, |live| live.handles.len() as u64),
                locks: session.lock_count() as u64,
                ephemerals: session.ephemeral_count() as u64,
            });
        }
        let more = rest.peek().is_some();
        Ok(Answer::Sessions(wire::Sessions { sessions, more }))
    }

    pub(super) fn list_locks(&mut self, list: &wire::ListLocks) -> Result<Answer> {
        let top = if list.path.is_empty() { None } else { Some(self.known(&list.path)?.1.instance) };
        let first = Instance(list.after.saturating_add(1));
        // The usual question is for one lock's file.
        let file = top.filter(|top| self.state.tree().get(*top).is_some_and(|node| !node.is_directory()));
        let looked_at = match file {
            Some(file) => BTreeSet::from_iter((first <= file).then_some(file)),
            None => self.locks_in_use(first, LOOKED_AT),
        };
        let is_below = |node: &Node| top.is_none_or(|top| self.state.tree().is_at_or_below(node, top));
        let (looked_through, whole) = (looked_at.last().copied(), looked_at.len() < LOOKED_AT);
        let infos = looked_at.into_iter().filter_map(|instance| {
            let node = self.state.tree().get(instance).filter(|node| is_below(node))?;
            let path = self.state.path_of(node).filter(|_| self.is_in_use(instance))?.to_string();
            Some(self.lock_info(path, instance))
        });
        let (locks, full) = fill_page(list.limit, infos);
        let last = match locks.last() {
            Some(last) if full => last.instance,
            _ => looked_through.map_or(list.after, |instance| instance.0),
        };
        Ok(Answer::Locks(wire::Locks { locks, more: full || !whole, last }))
    }

    pub(super) fn list_audit(&self, list: &wire::ListAudit) -> Answer {
        let (entries, more) = fill_page(list.limit, self.state.audit_after(Slot(list.after)).cloned());
        Answer::Audit(wire::Audit { entries, more })
    }

    /// A path of this cell that leads to a node, as text, and that node.
    fn known(&self, path: &str) -> Result<(String, &Node)> {
        let name = self.parse(path)?;
        let node = self.state.tree().find(&name).ok_or_else(|| Error::not_found(path))?;
        Ok((Path::new(self.config.cell.clone(), name).to_string(), node))
    }

    /// Whether a lock is held, waited for, or in a lock-delay.
    fn is_in_use(&self, instance: Instance) -> bool {
        let Some(lock) = self.state.tree().get(instance).map(|node| &node.lock) else { return false };
        let waits = self.master.as_ref().is_some_and(|master| {
            let delay = lock.delay();
            let left = delay.and_then(|it| master.locks.delay_left(instance, it.since, self.moment.now));
            left.is_some() || master.locks.waiting_for(instance) > 0
        });
        lock.is_held() || waits
    }

    /// The first locks, from a node on, that are held, waited for, or in a lock-delay: at most so many.
    fn locks_in_use(&self, first: Instance, most: usize) -> BTreeSet<Instance> {
        let mut in_use: BTreeSet<Instance> = self.state.tree().held_from(first).take(most).collect();
        if let Some(master) = &self.master {
            in_use.extend(master.locks.waited_for(first).take(most));
            in_use.extend(master.locks.delayed(first).take(most));
        }
        while in_use.len() > most {
            in_use.pop_last();
        }
        in_use
    }

    fn lock_info(&self, path: String, instance: Instance) -> wire::LockInfo {
        let (now, master) = (self.moment.now, self.master.as_ref());
        let client = |id| self.state.session(id).map_or_else(String::new, |session| session.client.clone());
        let default = Lock::default();
        let node = self.state.tree().get(instance);
        let lock = node.map_or(&default, |node: &Node| &node.lock);
        let holders = lock.holders().take(HOLDERS_LISTED).map(|((id, _), holder)| wire::Holder {
            session: id.0,
            client: client(id),
            lease_left_ms: millis_up(self.lives_within(id)),
            shared: holder.mode == LockMode::Shared,
            token: holder.token.0,
            since_wall_ms: holder.since_wall_ms,
            lock_delay_ms: holder.lock_delay.as_millis() as u32,
        });
        let locks = master.map(|master| &master.locks);
        let delay = lock.delay().and_then(|delay| locks?.delay_left(instance, delay.since, now));
        let free_within = lock.holders().map(|((id, _), holder)| self.lives_within(id) + holder.lock_delay);
        let free_within = free_within.chain(delay).max();
        let waiters = locks.into_iter().flat_map(|locks| locks.queue(instance)).take(WAITERS_LISTED);
        let waiters = waiters.map(|waiter| wire::WaiterInfo {
            session: waiter.asker.session.0,
            client: client(waiter.asker.session),
            shared: waiter.mode == LockMode::Shared,
            waited_ms: now.since(waiter.since).as_millis() as u64,
            gives_up_in_ms: waiter.deadline.map_or(0, |at| (at.since(now).as_millis() as u64).max(1)),
        });
        wire::LockInfo {
            path,
            generation: lock.generation().0,
            holders: holders.collect(),
            waiting: locks.map_or(0, |locks| locks.waiting_for(instance)) as u64,
            delay_left_ms: delay.map_or(0, millis_up),
            waiters: waiters.collect(),
            permits: node.map_or(0, |node| node.permits),
            free_within_ms: free_within.map_or(0, millis_up),
            breaking: master.is_some_and(|master| master.breaks.is_breaking(instance)),
            holding: lock.holder_count() as u64,
            instance: instance.0,
        }
    }
}
