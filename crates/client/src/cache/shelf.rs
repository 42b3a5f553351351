//! Handles that are kept open when nobody needs them any more, for the next who opens their nodes (P§2.7: only the
//! first Open goes to the cell).

use super::paths::{AtPath, Paths};
use super::slot::Slot;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use wombat_proto::Path;
use wombat_proto::limits::{IDLE_END, KEPT_HANDLES};
use wombat_proto::wire::{self, request::Call};

/// How often the handles are looked through: one that was not used between two looks is closed. So an idle
/// session still ends.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(IDLE_END.as_secs() / 4);

/// A handle of the cell, which has one user at a time.
pub(crate) struct WireHandle {
    pub(crate) token: wire::Handle,
    pub(crate) path: Path,
    /// The same.
    text: String,
    pub(crate) slot: Arc<Slot>,
    /// Whether the cell holds nothing by it but the handle itself: it hears of nothing and keeps nothing alive.
    plain: bool,
    /// Whether more was done with it than to read and write: it has held a lock perhaps, or is tied to one.
    spoiled: AtomicBool,
    /// Whether it is on the shelf, also while somebody uses it.
    shelved: AtomicBool,
    /// Whether somebody uses it.
    taken: AtomicBool,
    /// Whether somebody has since the shelf was last looked through.
    touched: AtomicBool,
}

impl AtPath for WireHandle {
    fn path(&self) -> &str {
        &self.text
    }
}

impl WireHandle {
    /// One that was just opened, for whoever did.
    pub(crate) fn new(token: wire::Handle, path: Path, ephemeral: bool, slot: Arc<Slot>) -> WireHandle {
        WireHandle {
            text: path.to_string(),
            token,
            path,
            slot,
            plain: token.events == 0 && !ephemeral,
            spoiled: AtomicBool::new(false),
            shelved: AtomicBool::new(false),
            taken: AtomicBool::new(true),
            touched: AtomicBool::new(true),
        }
    }

    /// The call that closes it for good.
    pub(crate) fn close(&self) -> Call {
        Call::Close(wire::Close { handle: Some(self.token) })
    }

    /// Nobody else may use it after this.
    pub(crate) fn spoil(&self) {
        self.spoiled.store(true, Ordering::Release);
    }

    /// Whether it may be kept, and is of use: what is cached of its node says that it is still there.
    pub(crate) fn is_to_keep(&self) -> bool {
        let of_use = || self.shelved.load(Ordering::Relaxed) || self.slot.node.load().is_some();
        self.plain && !self.spoiled.load(Ordering::Acquire) && of_use()
    }

    fn take(&self) -> bool {
        self.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn give_back(&self) {
        self.taken.store(false, Ordering::Release);
    }
}

/// The handles that are kept.
pub(crate) struct Shelf {
    handles: Paths<WireHandle>,
    /// The same, the oldest first.
    order: Mutex<VecDeque<Arc<WireHandle>>>,
}

impl Shelf {
    pub(crate) fn new() -> Shelf {
        Shelf { handles: Paths::new(KEPT_HANDLES / 4), order: Mutex::default() }
    }

    /// A handle for whoever opens this path in this way, if there is one of which `usable` makes anything. Takes no
    /// lock.
    pub(crate) fn take<T>(
        &self,
        path: &str,
        mode: u32,
        lock_delay_ms: u32,
        usable: impl Fn(&WireHandle) -> Option<T>,
    ) -> Option<(Arc<WireHandle>, T)> {
        self.handles.find(path, |handle| {
            let fits = (handle.token.mode, handle.token.lock_delay_ms) == (mode, lock_delay_ms);
            if !fits || !handle.take() {
                return None;
            }
            let used = usable(handle);
            if used.is_none() {
                handle.give_back();
            }
            used.map(|used| (Arc::clone(handle), used))
        })
    }

    /// Takes back a handle that nobody uses any more. Returns the one that must be closed for that: it itself, the
    /// oldest, or none.
    pub(crate) fn put(&self, handle: &Arc<WireHandle>) -> Option<Arc<WireHandle>> {
        let keep = handle.is_to_keep();
        if keep && handle.shelved.load(Ordering::Relaxed) {
            handle.touched.store(true, Ordering::Relaxed);
            handle.give_back();
            return None;
        }
        let mut order = self.order.lock().expect("nobody panics with it");
        if !keep {
            self.remove(&mut order, handle);
            return Some(Arc::clone(handle));
        }
        let full = order.len() >= KEPT_HANDLES;
        let oldest = full.then(|| order.iter().find(|oldest| oldest.take()).map(Arc::clone));
        let gives_way = match oldest {
            None => None,
            Some(None) => return Some(Arc::clone(handle)), // All are used.
            Some(Some(oldest)) => {
                self.remove(&mut order, &oldest);
                Some(oldest)
            }
        };
        handle.shelved.store(true, Ordering::Relaxed);
        order.push_back(Arc::clone(handle));
        self.handles.insert(Arc::clone(handle), |_| false);
        handle.give_back();
        gives_way
    }

    /// Removes the handles that nobody uses, and `all`, or nobody has for a while: they have to be closed.
    pub(crate) fn clear_out(&self, all: bool) -> Vec<Arc<WireHandle>> {
        let mut order = self.order.lock().expect("nobody panics with it");
        let unused = |handle: &&Arc<WireHandle>| {
            let touched = handle.touched.swap(false, Ordering::Relaxed);
            (all || !touched) && handle.take()
        };
        let gone: Vec<Arc<WireHandle>> = order.iter().filter(unused).map(Arc::clone).collect();
        for handle in &gone {
            self.remove(&mut order, handle);
        }
        gone
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.order.lock().expect("nobody panics with it").len()
    }

    /// Removes one that nobody else can take any more.
    fn remove(&self, order: &mut VecDeque<Arc<WireHandle>>, handle: &Arc<WireHandle>) {
        if handle.shelved.swap(false, Ordering::Relaxed) {
            order.retain(|other| !Arc::ptr_eq(other, handle));
            self.handles.remove(&handle.text, |other| std::ptr::eq(other, &**handle));
        }
    }
}
