//! The task behind a [`crate::Cell`]: it owns the session machine and the sockets, and batches what goes
//! through both.

use crate::cache::{LOOK_EVERY, Publisher, Store};
use crate::config::Config;
use crate::events::NodeEvent;
use crate::links::{LinkEvent, Links};
use crate::shared::{Order, Undo, View};
use crate::time;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tracing::debug;
use wombat_proto::wire::{self, request::Call};
use wombat_proto::{CellName, Error, Instant, Result, clock};
use wombat_session::{Answer, Effects, LinkId, Session};

/// How many orders are taken before what they led to is sent.
const BATCH: usize = 256;

/// Who waits for a call.
struct Waiter {
    reply: Option<oneshot::Sender<Result<Answer>>>,
    ticket: u64,
    /// What to undo if the caller is gone when the answer comes.
    undo: Undo,
}

pub(crate) struct Task {
    session: Session,
    view: Arc<View>,
    store: Arc<Store>,
    publisher: Publisher,
    /// When to look for kept handles that nobody has used for a while.
    look_at: Instant,
    links: Links,
    waiters: BTreeMap<u64, Waiter>,
    effects: Effects,
    /// Told with the session's first success, or with why there is none.
    ready: Option<oneshot::Sender<Result<CellName>>>,
    /// The pending ends of the session, and who waits for them.
    ending: BTreeMap<u64, oneshot::Sender<()>>,
    /// Says that the task is on another runtime from now on.
    moved: Arc<Notify>,
    /// All handles are gone: the session is being ended, and then the task.
    abandoned: bool,
}

/// What the task waits for.
enum Wake {
    Orders(Vec<Order>),
    /// All handles are gone.
    Abandoned,
    /// The task is on another runtime.
    Moved,
    /// Something happened to a connection.
    Link(LinkId, LinkEvent),
    Time,
}

impl Task {
    pub(crate) fn new(
        config: &Config,
        view: Arc<View>,
        store: Arc<Store>,
        ready: oneshot::Sender<Result<CellName>>,
        moved: Arc<Notify>,
    ) -> Task {
        let mut seed = [0; 8];
        let _zero_will_do = getrandom::fill(&mut seed);
        let cell = config.cell.clone().filter(|name| name != wombat_proto::CellName::LOCAL);
        let machine = wombat_session::Config {
            endpoints: config.endpoints.clone(),
            cell: cell.unwrap_or_default(),
            client: config.client.clone(),
            sequencers: config.sequencers.iter().map(ToString::to_string).collect(),
            cache_bytes: config.cache_bytes,
            grace: config.grace,
            rho: wombat_proto::Rho::default(),
            seed: u64::from_ne_bytes(seed),
        };
        Task {
            session: Session::new(machine, clock::now()),
            view,
            publisher: Publisher::new(Arc::clone(&store)),
            store,
            look_at: clock::now() + LOOK_EVERY,
            links: Links::default(),
            waiters: BTreeMap::new(),
            effects: Effects::default(),
            ready: Some(ready),
            ending: BTreeMap::new(),
            moved,
            abandoned: false,
        }
    }

    /// Runs until the session has ended. When nobody has a use for it any more, this ends it.
    pub(crate) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>, give_up: Duration) {
        let give_up_at = clock::now() + give_up;
        self.session.tick(clock::now(), &mut self.effects);
        loop {
            self.settle();
            if self.ready.is_some() && clock::now() >= give_up_at {
                return self.report(Err(Error::unreachable(self.session.describe_search())));
            }
            if self.abandoned && self.session.is_expired() {
                return;
            }
            match self.wait(&mut orders).await {
                Wake::Orders(batch) => {
                    if self.take(batch) {
                        return;
                    }
                }
                Wake::Abandoned => {
                    self.abandoned = true;
                    if self.take(vec![Order::End(oneshot::channel().0)]) {
                        return;
                    }
                }
                Wake::Moved => {
                    for link in self.links.move_here() {
                        self.link_event(link, LinkEvent::Lost("it was moved to another runtime".into()));
                    }
                }
                Wake::Time => {}
                Wake::Link(link, event) => self.link_event(link, event),
            }
            self.tend_kept_handles();
            self.session.tick(clock::now(), &mut self.effects);
        }
    }

    /// Waits for the next thing to happen.
    async fn wait(&mut self, orders: &mut mpsc::UnboundedReceiver<Order>) -> Wake {
        let deadline = self.session.next_deadline();
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            () = self.moved.notified() => Wake::Moved,
            (link, event) = self.links.next() => Wake::Link(link, event),
            count = orders.recv_many(&mut batch, BATCH), if !self.abandoned => match count {
                0 => Wake::Abandoned,
                _ => Wake::Orders(batch),
            },
            () = time::nap_until(deadline) => Wake::Time,
        }
    }

    /// Tells the session what happened to a connection.
    fn link_event(&mut self, link: LinkId, event: LinkEvent) {
        let now = clock::now();
        match event {
            LinkEvent::Connected => self.session.connected(now, link, &mut self.effects),
            LinkEvent::Resolved(addresses) => self.session.resolved(now, link, &addresses),
            LinkEvent::Sent => {}
            LinkEvent::Received => {
                while let Some(received) = self.links.receive(link) {
                    match received {
                        Ok(response) => self.session.received(now, link, response, &mut self.effects),
                        Err(problem) => return self.link_event(link, LinkEvent::Lost(problem)),
                    }
                }
            }
            LinkEvent::Lost(problem) => {
                debug!("the connection is gone: {problem}");
                self.links.close(link);
                self.session.disconnected(now, link, &problem, &mut self.effects);
            }
        }
    }

    /// Closes the kept handles that nobody has used for a while.
    fn tend_kept_handles(&mut self) {
        let now = clock::now();
        if now >= self.look_at {
            self.look_at = now + LOOK_EVERY;
            for handle in self.store.clear_out(false) {
                self.session.submit(handle.close(), &mut self.effects);
            }
        }
    }

    /// Takes orders. Returns whether the task is at its end.
    fn take(&mut self, batch: Vec<Order>) -> bool {
        for order in batch {
            match order {
                Order::Call { call, ticket, reply } => {
                    let undo = Undo::of(&call);
                    let number = self.session.submit(call, &mut self.effects);
                    self.waiters.insert(number, Waiter { reply: Some(reply), ticket, undo });
                }
                Order::Forget(call) => {
                    self.session.submit(call, &mut self.effects);
                }
                Order::CancelAcquire { ticket } => self.cancel(ticket),
                Order::End(told) => {
                    if self.session.is_expired() || self.session.id().is_none() {
                        let _nobody_waits = told.send(());
                        return true;
                    }
                    let end = Call::EndSession(wire::EndSession {});
                    let number = self.session.submit(end, &mut self.effects);
                    self.ending.insert(number, told);
                }
            }
        }
        false
    }

    /// Takes back an Acquire whose caller is gone.
    fn cancel(&mut self, ticket: u64) {
        let found = self.waiters.iter_mut().find(|(_, waiter)| waiter.ticket == ticket);
        let Some((number, waiter)) = found else { return };
        if let Undo::Release(handle) = waiter.undo {
            waiter.undo = Undo::Nothing;
            waiter.reply = None;
            let cancel = wire::CancelAcquire { handle: Some(handle), acquire: *number };
            self.session.submit(Call::CancelAcquire(cancel), &mut self.effects);
        }
    }

    /// Carries out what the session wants.
    fn settle(&mut self) {
        // Before anybody is told of anything, and before a KeepAlive says that what was to go is gone.
        self.publisher.publish(&self.session, &mut self.effects.cache);
        let mut done: VecDeque<_> = std::mem::take(&mut self.effects.done).into();
        while let Some((number, result)) = done.pop_front() {
            self.finish(number, result);
            done.extend(self.effects.done.drain(..));
        }
        for (link, endpoint) in self.effects.connect.drain(..) {
            self.links.connect(link, endpoint);
        }
        for (link, mut request) in self.effects.send.drain(..) {
            if let Some(Call::KeepAlive(keep_alive)) = &mut request.call {
                keep_alive.cached_reads = self.publisher.hits();
            }
            self.links.send(link, &request);
        }
        for link in self.effects.disconnect.drain(..) {
            self.links.close(link);
        }
        self.view.note(self.session.id(), self.session.safe_until(), self.session.epoch());
        if self.session.id().is_some() {
            self.report(CellName::parse(self.session.cell()));
        } else if let Some(refusal) = self.session.refusal() {
            self.report(Err(refusal.clone()));
        }
        for revoked in self.effects.revoked.drain(..) {
            self.view.revoke(revoked);
        }
        for event in self.effects.session_events.drain(..) {
            self.view.tell(event);
        }
        for event in self.effects.node_events.drain(..) {
            self.view.publish(event.handle, &NodeEvent::from(&event));
        }
        if self.session.is_expired() {
            self.view.close();
        }
    }

    /// Tells a caller the outcome of its call, or undoes it if the caller is gone.
    fn finish(&mut self, number: u64, result: Result<Answer>) {
        if let Some(told) = self.ending.remove(&number) {
            let _nobody_waits = told.send(());
            return;
        }
        let Some(waiter) = self.waiters.remove(&number) else { return };
        let unheard = match waiter.reply {
            Some(reply) => reply.send(result).err(),
            None => Some(result),
        };
        if let Some(call) = unheard.and_then(|result| waiter.undo.call(result)) {
            self.session.submit(call, &mut self.effects);
        }
    }

    /// Tells whoever waits for the first connection how it went.
    fn report(&mut self, result: Result<CellName>) {
        let Some(ready) = self.ready.take() else { return };
        let _nobody_waits = ready.send(result);
    }
}
