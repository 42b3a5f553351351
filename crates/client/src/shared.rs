//! What a session's task and its handles share.

use crate::cache::Store;
use crate::events::{NodeEvent, Subscriptions};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use wombat_proto::wire::{self, request::Call};
use wombat_proto::{Epoch, Error, HandleId, Instant, Result, SessionId, Token};
use wombat_session::{Answer, Revoked, SessionEvent};

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

/// What an answer that nobody waits for any more leaves behind.
#[derive(Clone, Copy)]
pub(crate) enum Undo {
    Nothing,
    /// An open handle.
    Close,
    /// A lock of this handle.
    Release(wire::Handle),
}

impl Undo {
    /// What the answer to a call may leave behind.
    pub(crate) fn of(call: &Call) -> Undo {
        match call {
            Call::Open(_) => Undo::Close,
            Call::Acquire(acquire) => acquire.handle.map_or(Undo::Nothing, Undo::Release),
            _ => Undo::Nothing,
        }
    }

    /// The call that undoes it, now that the answer is known.
    pub(crate) fn call(self, result: Result<Answer>) -> Option<Call> {
        match (result, self) {
            (Ok(Answer::Opened(opened)), Undo::Close) => {
                Some(Call::Close(wire::Close { handle: opened.handle }))
            }
            (Ok(Answer::Granted(_)), Undo::Release(handle)) => {
                Some(Call::Release(wire::Release { handle: Some(handle) }))
            }
            _ => None,
        }
    }
}

/// What every handle of a session holds. When the last is gone the task ends, so the task holds only the
/// [`View`] and the [`Store`] in it.
pub(crate) struct Shared {
    pub(crate) orders: mpsc::UnboundedSender<Order>,
    tickets: AtomicU64,
    pub(crate) view: Arc<View>,
    pub(crate) store: Arc<Store>,
}

/// How the session is, as its task last saw it.
pub(crate) struct View {
    /// The end of the client's view of its lease, in nanoseconds; 0 once the session is lost.
    safe_until: AtomicU64,
    session: AtomicU64,
    epoch: AtomicU64,
    /// Where the life of the session is told; `None` once all was told.
    session_events: Mutex<Option<broadcast::Sender<SessionEvent>>>,
    pub(crate) subscriptions: Mutex<Subscriptions>,
    /// Of each handle, the last grant that somebody breaks, and until when it is surely held.
    revoked: Mutex<BTreeMap<HandleId, (Token, Instant)>>,
    /// Changes whenever the session's safety does, for those who wait for its end.
    pub(crate) lease_changed: watch::Sender<()>,
}

impl View {
    pub(crate) fn new() -> View {
        View {
            safe_until: AtomicU64::new(0),
            session: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            session_events: Mutex::new(Some(broadcast::Sender::new(64))),
            subscriptions: Mutex::new(Subscriptions::default()),
            revoked: Mutex::new(BTreeMap::new()),
            lease_changed: watch::Sender::new(()),
        }
    }

    pub(crate) fn safe_until(&self) -> Instant {
        Instant::from_nanos(self.safe_until.load(Ordering::Acquire))
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    pub(crate) fn session(&self) -> SessionId {
        SessionId(self.session.load(Ordering::Acquire))
    }

    /// Notes how the session is. Only its task calls this.
    pub(crate) fn note(&self, session: Option<SessionId>, safe_until: Instant, epoch: Epoch) {
        if let Some(id) = session {
            self.session.store(id.0, Ordering::Release);
        }
        self.epoch.store(epoch.0, Ordering::Release);
        let before = self.safe_until.swap(safe_until.as_nanos(), Ordering::AcqRel);
        if before != safe_until.as_nanos() {
            self.lease_changed.send_replace(());
        }
    }

    /// Somebody breaks a lock: it is sure for a little while only.
    pub(crate) fn revoke(&self, revoked: Revoked) {
        let mut all = self.revoked.lock().expect("nobody panics with it");
        let last = all.entry(revoked.handle).or_insert((revoked.token, revoked.until));
        // Told a second time, by another master, it is no surer than it was.
        if last.0 < revoked.token {
            *last = (revoked.token, revoked.until);
        }
        drop(all);
        self.lease_changed.send_replace(());
    }

    /// Until when a grant is sure, if somebody breaks it.
    pub(crate) fn revoked_at(&self, handle: HandleId, token: Token) -> Option<Instant> {
        let all = self.revoked.lock().expect("nobody panics with it");
        all.get(&handle).filter(|(last, _)| token <= *last).map(|(_, until)| *until)
    }

    /// Forgets a handle that is gone.
    pub(crate) fn forget_handle(&self, handle: HandleId) {
        self.subscriptions.lock().expect("nobody panics with it").remove(handle);
        self.revoked.lock().expect("nobody panics with it").remove(&handle);
    }

    /// Listens to the life of the session.
    pub(crate) fn listen(&self) -> broadcast::Receiver<SessionEvent> {
        let sender = self.session_events.lock().expect("nobody panics with it");
        // Of a session that is over there is nothing to hear: the sender is dropped here.
        sender.as_ref().map_or_else(|| broadcast::channel(1).1, broadcast::Sender::subscribe)
    }

    /// Tells of the life of the session.
    pub(crate) fn tell(&self, event: SessionEvent) {
        if let Some(sender) = &*self.session_events.lock().expect("nobody panics with it") {
            let _nobody_listens = sender.send(event);
        }
    }

    /// The session is over and all was told: every stream ends.
    pub(crate) fn close(&self) {
        *self.session_events.lock().expect("nobody panics with it") = None;
        self.subscriptions.lock().expect("nobody panics with it").close();
    }

    /// Passes an event on to the handle that it is for; [`HandleId`] 0 is for all.
    pub(crate) fn publish(&self, handle: HandleId, event: &NodeEvent) {
        let subscriptions = self.subscriptions.lock().expect("nobody panics with it");
        subscriptions.publish(handle, event);
    }
}

impl Shared {
    pub(crate) fn new(orders: mpsc::UnboundedSender<Order>, store: Arc<Store>) -> Shared {
        Shared { orders, tickets: AtomicU64::new(1), view: Arc::new(View::new()), store }
    }

    /// Does a call and waits for its outcome. If the caller gives up waiting, an Acquire is taken back.
    pub(crate) async fn call(&self, call: Call) -> Result<Answer> {
        let ticket = if matches!(call, Call::Acquire(_)) { self.ticket() } else { 0 };
        let undo = Undo::of(&call);
        let (reply, answer) = oneshot::channel();
        let order = Order::Call { call, ticket, reply };
        self.orders.send(order).map_err(|_| Error::SessionExpired)?;
        let mut asked = Asked { shared: self, answer, ticket, undo, answered: false };
        let outcome = (&mut asked.answer).await;
        asked.answered = true;
        outcome.map_err(|_| Error::SessionExpired)?
    }

    /// A number that nothing else of this session has.
    pub(crate) fn ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::Relaxed)
    }

    /// Closes the handles that are kept and that nobody uses. Returns whether there were any.
    pub(crate) fn close_kept(&self) -> bool {
        let kept = self.store.clear_out(true);
        kept.iter().for_each(|handle| self.forget(handle.close()));
        !kept.is_empty()
    }

    /// Does a call that nobody waits for.
    pub(crate) fn forget(&self, call: Call) {
        let _the_session_is_gone_anyway = self.orders.send(Order::Forget(call));
    }
}

/// A call that is waited for. If the future that waits is dropped, nothing of it is left behind.
struct Asked<'a> {
    shared: &'a Shared,
    answer: oneshot::Receiver<Result<Answer>>,
    /// That of an Acquire, or 0.
    ticket: u64,
    undo: Undo,
    answered: bool,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        // From here on the task finds out by itself that nobody waits. An answer that it gave before lies here,
        // unread.
        self.answer.close();
        match self.answer.try_recv() {
            Ok(unread) => {
                if let Some(call) = self.undo.call(unread) {
                    self.shared.forget(call);
                }
            }
            Err(_) if self.ticket != 0 => {
                let _gone_anyway = self.shared.orders.send(Order::CancelAcquire { ticket: self.ticket });
            }
            Err(_) => {}
        }
    }
}
