//! The questions of operators: which sessions there are, and who holds which lock.

use super::Master;
use crate::context::{Cx, View};
use crate::pages::{fill_page, page};
use crate::request::Answer;
use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::{Error, Instance, LockMode, Path, Result, SessionId, Slot, wire};
use wombat_state::{Lock, Node};

/// Most holders that one lock's entry lists.
const MAX_HOLDERS_LISTED: usize = 256;
/// Most waiters that one lock's entry lists.
const MAX_WAITERS_LISTED: usize = 64;
/// How many locks one call looks at: an operator's question must not keep the master from its work.
const MAX_LOCKS_CHECKED: usize = 1000;

/// Milliseconds, rounded up: after so long, something is over.
fn millis_up(duration: Duration) -> u64 {
    duration.as_micros().div_ceil(1000) as u64
}

impl Master {
    /// How many Acquires wait.
    pub(crate) fn waiting(&self) -> usize {
        self.locks.waiting()
    }

    /// The progress of the fail-over.
    pub(crate) fn fail_over_status(&self, view: View<'_>) -> wire::FailOver {
        self.fail_over.report(view.now)
    }

    pub(super) fn list_sessions(&self, cx: &Cx<'_>, list: &wire::ListSessions) -> Answer {
        let most = page(list.limit);
        let mut rest = cx.state.sessions_after(SessionId(list.after)).peekable();
        let mut sessions = Vec::new();
        while sessions.len() < most
            && let Some((id, session)) = rest.next()
        {
            sessions.push(wire::SessionInfo {
                session: id.0,
                client: session.client.clone(),
                created_wall_ms: session.created_wall_ms,
                lease_left_ms: millis_up(self.lives_within(cx.view(), id)),
                handles: self.sessions.get(id).map_or(0, |live| live.handles.len() as u64),
                locks: session.lock_count() as u64,
                ephemerals: session.ephemeral_count() as u64,
            });
        }
        let more = rest.peek().is_some();
        Answer::Sessions(wire::Sessions { sessions, more })
    }

    pub(super) fn list_locks(&self, cx: &Cx<'_>, list: &wire::ListLocks) -> Result<Answer> {
        let tree = cx.state.tree();
        let top = if list.path.is_empty() { None } else { Some(known(cx, &list.path)?.1.instance) };
        let first = Instance(list.after.saturating_add(1));
        // The usual question is for one lock's file.
        let file = top.filter(|top| tree.get(*top).is_some_and(|node| !node.is_directory()));
        let checked = match file {
            Some(file) => BTreeSet::from_iter((first <= file).then_some(file)),
            None => self.locks_in_use(cx, first, MAX_LOCKS_CHECKED),
        };
        let is_below = |node: &Node| top.is_none_or(|top| tree.is_at_or_below(node, top));
        let (checked_through, whole) = (checked.last().copied(), checked.len() < MAX_LOCKS_CHECKED);
        let infos = checked.into_iter().filter_map(|instance| {
            let node = tree.get(instance).filter(|node| is_below(node))?;
            let path = cx.state.path_of(node).filter(|_| self.is_in_use(cx, instance))?.to_string();
            Some(self.lock_info(cx, path, instance))
        });
        let (locks, full) = fill_page(list.limit, infos);
        let last = match locks.last() {
            Some(last) if full => last.instance,
            _ => checked_through.map_or(list.after, |instance| instance.0),
        };
        Ok(Answer::Locks(wire::Locks { locks, more: full || !whole, last }))
    }

    pub(super) fn list_audit(cx: &Cx<'_>, list: &wire::ListAudit) -> Answer {
        let (entries, more) = fill_page(list.limit, cx.state.audit_after(Slot(list.after)).cloned());
        Answer::Audit(wire::Audit { entries, more })
    }

    /// Whether a lock is held, waited for, or in a lock-delay.
    fn is_in_use(&self, cx: &Cx<'_>, instance: Instance) -> bool {
        let Some(lock) = cx.state.tree().get(instance).map(|node| &node.lock) else { return false };
        let delay = lock.delay().and_then(|it| self.locks.delay_left(instance, it.since, cx.now()));
        lock.is_held() || delay.is_some() || self.locks.waiting_for(instance) > 0
    }

    /// The first locks, from a node on, that are held, waited for, or in a lock-delay: at most so many.
    fn locks_in_use(&self, cx: &Cx<'_>, first: Instance, most: usize) -> BTreeSet<Instance> {
        let mut in_use: BTreeSet<Instance> = cx.state.tree().held_from(first).take(most).collect();
        in_use.extend(self.locks.waited_for(first).take(most));
        in_use.extend(self.locks.delayed(first).take(most));
        while in_use.len() > most {
            in_use.pop_last();
        }
        in_use
    }

    fn lock_info(&self, cx: &Cx<'_>, path: String, instance: Instance) -> wire::LockInfo {
        let (now, view) = (cx.now(), cx.view());
        let client = |id| cx.state.session(id).map_or_else(String::new, |session| session.client.clone());
        let default = Lock::default();
        let node = cx.state.tree().get(instance);
        let lock = node.map_or(&default, |node: &Node| &node.lock);
        let holders = lock.holders().take(MAX_HOLDERS_LISTED).map(|((id, _), holder)| wire::Holder {
            session: id.0,
            client: client(id),
            lease_left_ms: millis_up(self.lives_within(view, id)),
            shared: holder.mode == LockMode::Shared,
            token: holder.token.0,
            since_wall_ms: holder.since_wall_ms,
            lock_delay_ms: holder.lock_delay.as_millis() as u32,
        });
        let delay = lock.delay().and_then(|delay| self.locks.delay_left(instance, delay.since, now));
        let free = lock.holders().map(|((id, _), holder)| self.lives_within(view, id) + holder.lock_delay);
        let free_within = free.chain(delay).max();
        let waiters = self.locks.queue(instance).take(MAX_WAITERS_LISTED).map(|waiter| wire::WaiterInfo {
            session: waiter.request.session.0,
            client: client(waiter.request.session),
            shared: waiter.mode == LockMode::Shared,
            waited_ms: now.since(waiter.since).as_millis() as u64,
            gives_up_in_ms: waiter.deadline.map_or(0, |at| (at.since(now).as_millis() as u64).max(1)),
        });
        wire::LockInfo {
            path,
            generation: lock.generation().0,
            holders: holders.collect(),
            waiting: self.locks.waiting_for(instance) as u64,
            delay_left_ms: delay.map_or(0, millis_up),
            waiters: waiters.collect(),
            permits: node.map_or(0, |node| node.permits),
            free_within_ms: free_within.map_or(0, millis_up),
            breaking: self.revocations.is_breaking(instance),
            holding: lock.holder_count() as u64,
            instance: instance.0,
        }
    }
}

/// A path of this cell that leads to a node, as text, and that node.
fn known<'a>(cx: &Cx<'a>, path: &str) -> Result<(String, &'a Node)> {
    let name = cx.config.parse_path(path)?;
    let node = cx.state.tree().find(&name).ok_or_else(|| Error::not_found(path))?;
    Ok((Path::new(cx.config.cell.clone(), name).to_string(), node))
}
