//! What a session's task and its handles share.

use crate::events::{NodeEvent, Subscriptions};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use wombat_proto::wire::request::Call;
use wombat_proto::{Epoch, Error, HandleId, Instant, Result};
use wombat_session::{Answer, SessionEvent};

/// What a handle asks of its session's task. Nothing is sent without a caller who waits, or an object that
/// is dropped, so what queues up is bounded by them.
pub(crate) enum Order {
    /// Do a call and tell its outcome. A caller who is gone is noticed when it comes.
    Call {
        call: Call,
        /// By which the caller may take an Acquire back before it is answered; 0 for other calls.
        ticket: u64,
        reply: oneshot::Sender<Result<Answer>>,
    },
    /// Do a call that nobody waits for.
    Forget(Call),
    /// Take back the Acquire with that ticket.
    CancelAcquire { ticket: u64 },
    /// End the session, then the task.
    End(oneshot::Sender<()>),
}

/// What every handle of a session holds. When the last is gone the task ends, so the task holds only the
/// [`View`] in it.
pub(crate) struct Shared {
    pub(crate) orders: mpsc::UnboundedSender<Order>,
    tickets: AtomicU64,
    pub(crate) view: Arc<View>,
}

/// How the session is, as its task last saw it.
pub(crate) struct View {
    /// The end of the client's view of its lease, in nanoseconds; 0 once the session is lost.
    safe_until: AtomicU64,
    epoch: AtomicU64,
    pub(crate) session_events: broadcast::Sender<SessionEvent>,
    pub(crate) subscriptions: Mutex<Subscriptions>,
    /// Changes whenever the session's safety does, for those who wait for its end.
    pub(crate) lease_changed: watch::Sender<()>,
}

impl View {
    pub(crate) fn new() -> View {
        View {
            safe_until: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            session_events: broadcast::Sender::new(64),
            subscriptions: Mutex::new(Subscriptions::default()),
            lease_changed: watch::Sender::new(()),
        }
    }

    pub(crate) fn safe_until(&self) -> Instant {
        Instant::from_nanos(self.safe_until.load(Ordering::Acquire))
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    /// Notes how the session is. Only its task calls this.
    pub(crate) fn note(&self, safe_until: Instant, epoch: Epoch) {
        self.epoch.store(epoch.0, Ordering::Release);
        let before = self.safe_until.swap(safe_until.as_nanos(), Ordering::AcqRel);
        if before != safe_until.as_nanos() {
            self.lease_changed.send_replace(());
        }
    }

    /// Passes an event on to the handle that it is for; [`HandleId`] 0 is for all.
    pub(crate) fn publish(&self, handle: HandleId, event: &NodeEvent) {
        let subscriptions = self.subscriptions.lock().expect("nobody panics with it");
        subscriptions.publish(handle, event);
    }
}

impl Shared {
    pub(crate) fn new(orders: mpsc::UnboundedSender<Order>) -> Shared {
        Shared { orders, tickets: AtomicU64::new(1), view: Arc::new(View::new()) }
    }

    /// Does a call and waits for its outcome.
    pub(crate) async fn call(&self, call: Call) -> Result<Answer> {
        let (reply, answer) = oneshot::channel();
        let order = Order::Call { call, ticket: 0, reply };
        self.orders.send(order).map_err(|_| Error::SessionExpired)?;
        answer.await.map_err(|_| Error::SessionExpired)?
    }

    /// Does an Acquire. If the caller gives up waiting, it is taken back.
    pub(crate) async fn acquire(&self, call: Call) -> Result<Answer> {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        let order = Order::Call { call, ticket, reply };
        self.orders.send(order).map_err(|_| Error::SessionExpired)?;
        let mut taken_back = TakeBack { shared: self, ticket };
        let outcome = answer.await.map_err(|_| Error::SessionExpired)?;
        taken_back.ticket = 0;
        outcome
    }

    /// Does a call that nobody waits for.
    pub(crate) fn forget(&self, call: Call) {
        let _the_session_is_gone_anyway = self.orders.send(Order::Forget(call));
    }
}

/// Takes an Acquire back when the future that waits for it is dropped.
struct TakeBack<'a> {
    shared: &'a Shared,
    /// 0 once it is answered.
    ticket: u64,
}

impl Drop for TakeBack<'_> {
    fn drop(&mut self) {
        if self.ticket != 0 {
            let _gone_anyway = self.shared.orders.send(Order::CancelAcquire { ticket: self.ticket });
        }
    }
}
