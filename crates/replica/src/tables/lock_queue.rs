//! The queues of the waiters for locks, and the running lock-delays (P§2.4). First come, first served: a shared
//! request never overtakes a waiting exclusive one. Each question costs the logarithm of what is kept, however
//! many sessions hold a lock or wait for it.

use super::timers::Timer;
use crate::request::RequestContext;
use alloc::collections::BTreeSet;
use alloc::collections::btree_map::{BTreeMap, Entry};
use core::time::Duration;
use wombat_proto::{HandleId, Instance, Instant, LockMode, SessionId, Slot};
use wombat_state::Node;

/// The queues of all locks, and the running lock-delays.
#[derive(Default)]
pub(crate) struct LockQueue {
    queues: BTreeMap<Instance, Queue>,
    /// The same waiters by session, for when one ends. A handle waits at most once.
    by_session: BTreeSet<(SessionId, Instance, HandleId)>,
    /// When each running lock-delay passes; one that is not here has passed. One log entry may begin several
    /// delays, so the node is part of the name.
    delays: BTreeMap<(Instance, Slot), Instant>,
    releases: BTreeMap<Instance, PendingReleases>,
    /// How many waiters have ever come.
    arrivals: u64,
}

/// A place in a queue: since when its waiter waits, and the count of its arrival.
type Turn = (Instant, u64);

/// The waiters for one lock. A waiter is in exactly one of the two maps.
#[derive(Default)]
struct Queue {
    /// The waiters whose grants are on their way into the log.
    granting: BTreeMap<Turn, Waiter>,
    /// How many of these want the lock exclusively.
    granting_exclusive: usize,
    /// The others, in the order of their turns.
    waiting: BTreeMap<Turn, Waiter>,
    /// Those of the others that take the lock at once or not at all.
    tries: BTreeSet<Turn>,
    turns: BTreeMap<(SessionId, HandleId), Turn>,
}

/// The handles of one lock whose releases are on their way into the log. The next grant follows a release there
/// at once: whether the lock is free by then is checked when the grant is applied.
#[derive(Default)]
struct PendingReleases {
    handles: BTreeMap<(SessionId, HandleId), PendingRelease>,
    /// How many of these handles hold the lock now.
    holding: usize,
}

struct PendingRelease {
    /// How many releases of the handle are on their way.
    count: u32,
    /// Whether the handle holds the lock now.
    holds: bool,
}

/// An Acquire that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiter {
    pub(crate) request: RequestContext,
    pub(crate) handle: HandleId,
    pub(crate) mode: LockMode,
    pub(crate) lock_delay_ms: u32,
    /// Whether the file is emptied when its grant ends.
    pub(crate) clears_contents: bool,
    /// Since when it waits. An Acquire that waited at an earlier master has waited since before this one served.
    pub(crate) since: Instant,
    /// When it gives up; never, if `None`.
    pub(crate) deadline: Option<Instant>,
    /// Whether it takes the lock at once or not at all.
    pub(crate) only_try: bool,
    /// Whether its grant is on its way into the log. From then on only the log decides.
    pub(crate) proposed: bool,
}

impl Waiter {
    /// The timer that makes it give up.
    pub(crate) fn timer(&self, instance: Instance) -> Timer {
        Timer::Acquire(instance, self.request.session, self.handle, self.request.number)
    }

    fn key(&self) -> (SessionId, HandleId) {
        (self.request.session, self.handle)
    }
}

impl Queue {
    fn len(&self) -> usize {
        self.turns.len()
    }

    fn put(&mut self, turn: Turn, waiter: Waiter) {
        self.turns.insert(waiter.key(), turn);
        if waiter.proposed {
            self.granting_exclusive += usize::from(waiter.mode == LockMode::Exclusive);
            self.granting.insert(turn, waiter);
        } else {
            if waiter.only_try {
                self.tries.insert(turn);
            }
            self.waiting.insert(turn, waiter);
        }
    }

    fn take(&mut self, key: (SessionId, HandleId)) -> Option<(Turn, Waiter)> {
        let turn = self.turns.remove(&key)?;
        let waiter = match self.waiting.remove(&turn) {
            Some(waiter) => {
                self.tries.remove(&turn);
                waiter
            }
            None => {
                let waiter = self.granting.remove(&turn).expect("a waiter waits or is being granted");
                self.granting_exclusive -= usize::from(waiter.mode == LockMode::Exclusive);
                waiter
            }
        };
        Some((turn, waiter))
    }

    fn get(&self, key: (SessionId, HandleId)) -> Option<&Waiter> {
        let turn = self.turns.get(&key)?;
        self.waiting.get(turn).or_else(|| self.granting.get(turn))
    }

    /// The waiters whose grants are on their way, then the others in the order of their turns.
    fn iter(&self) -> impl Iterator<Item = &Waiter> {
        self.granting.values().chain(self.waiting.values())
    }
}

impl LockQueue {
    /// How many Acquires wait, in all.
    pub(crate) fn waiting(&self) -> usize {
        self.by_session.len()
    }

    /// How many Acquires wait for one lock.
    pub(crate) fn waiting_for(&self, instance: Instance) -> usize {
        self.queues.get(&instance).map_or(0, Queue::len)
    }

    /// The waiters for one lock, in the order of their turns.
    pub(crate) fn queue(&self, instance: Instance) -> impl Iterator<Item = &Waiter> {
        self.queues.get(&instance).into_iter().flat_map(Queue::iter)
    }

    /// The waiters for one lock that only try, and whose grant is not on its way.
    pub(crate) fn tries(&self, instance: Instance) -> impl Iterator<Item = &Waiter> {
        let queue = self.queues.get(&instance).into_iter();
        queue.flat_map(|queue| queue.tries.iter().filter_map(|turn| queue.waiting.get(turn)))
    }

    /// Whether a lock has a waiter whose grant is not on its way.
    pub(crate) fn is_waited_for(&self, instance: Instance) -> bool {
        self.queues.get(&instance).is_some_and(|queue| !queue.waiting.is_empty())
    }

    /// The locks from an instance on that have waiters.
    pub(crate) fn waited_for(&self, first: Instance) -> impl Iterator<Item = Instance> {
        self.queues.range(first..).map(|(instance, _)| *instance)
    }

    /// The waiter of a handle.
    pub(crate) fn waiter(&self, instance: Instance, session: SessionId, handle: HandleId) -> Option<&Waiter> {
        self.queues.get(&instance)?.get((session, handle))
    }

    /// The locks that a session waits for, and by which handles.
    pub(crate) fn waits_of(&self, session: SessionId) -> impl Iterator<Item = (Instance, HandleId)> {
        let from = (session, Instance(0), HandleId(0));
        let to = (session, Instance(u64::MAX), HandleId(u64::MAX));
        self.by_session.range(from..=to).map(|(_, instance, handle)| (*instance, *handle))
    }

    pub(crate) fn push(&mut self, instance: Instance, waiter: Waiter) {
        self.by_session.insert((waiter.request.session, instance, waiter.handle));
        self.arrivals += 1;
        self.queues.entry(instance).or_default().put((waiter.since, self.arrivals), waiter);
    }

    pub(crate) fn remove(
        &mut self,
        instance: Instance,
        session: SessionId,
        handle: HandleId,
    ) -> Option<Waiter> {
        self.by_session.remove(&(session, instance, handle));
        let queue = self.queues.get_mut(&instance)?;
        let (_, waiter) = queue.take((session, handle))?;
        if queue.len() == 0 {
            self.queues.remove(&instance);
        }
        Some(waiter)
    }

    /// Changes a waiter, which keeps its turn.
    pub(crate) fn update(
        &mut self,
        instance: Instance,
        key: (SessionId, HandleId),
        change: impl FnOnce(&mut Waiter),
    ) -> Option<Waiter> {
        let queue = self.queues.get_mut(&instance)?;
        let (turn, mut waiter) = queue.take(key)?;
        change(&mut waiter);
        queue.put(turn, waiter);
        Some(waiter)
    }

    /// Lets a lock-delay run until `until`.
    pub(crate) fn start_delay(&mut self, instance: Instance, since: Slot, until: Instant) {
        self.delays.insert((instance, since), until);
    }

    /// A lock-delay has passed, unless it was made longer by another holder that ended with the first.
    pub(crate) fn end_delay(&mut self, instance: Instance, since: Slot, now: Instant) {
        if self.delays.get(&(instance, since)).is_some_and(|until| *until <= now) {
            self.delays.remove(&(instance, since));
        }
    }

    /// How much of a delay is left; `None` if it has passed.
    pub(crate) fn delay_left(&self, instance: Instance, since: Slot, now: Instant) -> Option<Duration> {
        Some(self.delays.get(&(instance, since))?.since(now))
    }

    /// The locks from an instance on whose delay runs.
    pub(crate) fn delayed(&self, first: Instance) -> impl Iterator<Item = Instance> {
        self.delays.range((first, Slot(0))..).map(|((instance, _), _)| *instance)
    }

    /// Whether a grant in `mode` must wait for the lock's delay, and how long.
    pub(crate) fn delay_against(&self, node: &Node, mode: LockMode, now: Instant) -> Option<Duration> {
        self.delay_left(node.instance, node.lock.delay_against(mode)?.since, now)
    }

    /// A release of a handle is on its way into the log. `holds`: whether the handle holds the lock now.
    pub(crate) fn release_proposed(&mut self, instance: Instance, key: (SessionId, HandleId), holds: bool) {
        let releases = self.releases.entry(instance).or_default();
        let release = releases.handles.entry(key).or_insert_with(|| {
            releases.holding += usize::from(holds);
            PendingRelease { count: 0, holds }
        });
        release.count += 1;
    }

    /// A handle has come to hold a lock, or holds it no more.
    pub(crate) fn holder_changed(&mut self, instance: Instance, key: (SessionId, HandleId), holds: bool) {
        let Some(releases) = self.releases.get_mut(&instance) else { return };
        let Some(release) = releases.handles.get_mut(&key) else { return };
        releases.holding -= usize::from(release.holds);
        releases.holding += usize::from(holds);
        release.holds = holds;
    }

    /// The log has decided about a release of a handle.
    pub(crate) fn release_decided(&mut self, instance: Instance, key: (SessionId, HandleId)) {
        let Some(releases) = self.releases.get_mut(&instance) else { return };
        let Entry::Occupied(mut release) = releases.handles.entry(key) else { return };
        release.get_mut().count -= 1;
        if release.get().count == 0 {
            releases.holding -= usize::from(release.remove().holds);
        }
        if releases.handles.is_empty() {
            self.releases.remove(&instance);
        }
    }

    /// The waiter whose turn it is, if one can hold the lock now beside the waiters whose grants are on their way. The
    /// releases that are on their way count as done; the log may still decide otherwise.
    pub(crate) fn next(&self, node: &Node, now: Instant) -> Option<Waiter> {
        let queue = self.queues.get(&node.instance)?;
        let (_, next) = queue.waiting.first_key_value()?;
        let releases = self.releases.get(&node.instance).map_or(0, |releases| releases.holding);
        let room = node.lock.room_after(releases, next.mode, node.permits) > queue.granting.len();
        let may_hold = room && queue.granting_exclusive == 0;
        (may_hold && self.delay_against(node, next.mode, now).is_none()).then_some(*next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::ConnectionId;
    use bytes::Bytes;
    use wombat_proto::Generation;
    use wombat_state::{Body, Lock};

    const LOCK: Instance = Instance(7);
    const HANDLE: HandleId = HandleId(1);

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn waiter(session: u64, mode: LockMode, since: u64) -> Waiter {
        Waiter {
            request: RequestContext {
                connection: ConnectionId(session),
                session: SessionId(session),
                number: 1,
                acknowledged: 0,
            },
            handle: HANDLE,
            mode,
            lock_delay_ms: 0,
            clears_contents: false,
            since: at(since),
            deadline: None,
            only_try: false,
            proposed: false,
        }
    }

    fn free_node() -> Node {
        let body = Body::File { contents: Bytes::new(), generation: Generation(1), checksum: 0 };
        Node {
            instance: LOCK,
            place: None,
            body,
            ephemeral: false,
            permits: 0,
            acls: Default::default(),
            acl_generation: Generation(1),
            lock: Lock::default(),
            openers: Default::default(),
            created_wall_ms: 0,
            modified_wall_ms: 0,
            modified_slot: Slot(0),
        }
    }

    /// Whose turn it is, and notes that the grant is proposed.
    fn grant(queue: &mut LockQueue, node: &Node) -> Option<u64> {
        let next = queue.next(node, at(100))?;
        queue.update(LOCK, (next.request.session, HANDLE), |waiter| waiter.proposed = true);
        Some(next.request.session.0)
    }

    #[test]
    fn shared_request_never_overtakes_an_exclusive_one() {
        let mut queue = LockQueue::default();
        queue.push(LOCK, waiter(1, LockMode::Shared, 1));
        queue.push(LOCK, waiter(2, LockMode::Exclusive, 2));
        queue.push(LOCK, waiter(3, LockMode::Shared, 3));
        let node = free_node();
        assert_eq!(grant(&mut queue, &node), Some(1));
        assert_eq!(grant(&mut queue, &node), None, "2 waits for 1, and 3 for 2");
        queue.remove(LOCK, SessionId(1), HANDLE);
        assert_eq!(grant(&mut queue, &node), Some(2));
        assert_eq!(grant(&mut queue, &node), None);
    }

    #[test]
    fn waiter_of_an_earlier_master_comes_first() {
        let mut queue = LockQueue::default();
        queue.push(LOCK, waiter(1, LockMode::Exclusive, 20));
        queue.push(LOCK, waiter(2, LockMode::Exclusive, 10));
        assert_eq!(grant(&mut queue, &free_node()), Some(2));
    }

    #[test]
    fn updated_waiter_keeps_its_turn() {
        let mut queue = LockQueue::default();
        queue.push(LOCK, waiter(1, LockMode::Exclusive, 1));
        queue.push(LOCK, waiter(2, LockMode::Exclusive, 2));
        queue.update(LOCK, (SessionId(1), HANDLE), |waiter| waiter.request.connection = ConnectionId(9));
        assert_eq!(grant(&mut queue, &free_node()), Some(1));
    }

    #[test]
    fn session_that_waits_nowhere_is_in_no_index() {
        let mut queue = LockQueue::default();
        queue.push(LOCK, waiter(1, LockMode::Exclusive, 1));
        assert_eq!(queue.waits_of(SessionId(1)).count(), 1);
        assert!(queue.remove(LOCK, SessionId(1), HANDLE).is_some());
        assert_eq!(
            (queue.waits_of(SessionId(1)).count(), queue.waiting(), queue.waiting_for(LOCK)),
            (0, 0, 0)
        );
        assert!(queue.remove(LOCK, SessionId(1), HANDLE).is_none());
    }

    #[test]
    fn delay_ends_at_its_latest_end() {
        let mut queue = LockQueue::default();
        queue.start_delay(LOCK, Slot(3), at(10));
        queue.start_delay(LOCK, Slot(3), at(20));
        queue.end_delay(LOCK, Slot(3), at(10));
        assert_eq!(queue.delay_left(LOCK, Slot(3), at(10)), Some(Duration::from_secs(10)));
        queue.end_delay(LOCK, Slot(3), at(20));
        assert_eq!(queue.delay_left(LOCK, Slot(3), at(20)), None);
    }
}
