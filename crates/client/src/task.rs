//! The task behind a [`crate::Cell`]: it owns the session machine and the socket, and batches what goes
//! through both.

use crate::cache::{LOOK_EVERY, Publisher, Store};
use crate::convert::node_event;
use crate::handle::close;
use crate::shared::{Order, Undo, View};
use crate::{Config, time};
use bytes::BytesMut;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tracing::debug;
use wombat_proto::wire::{self, Response, request::Call};
use wombat_proto::{CellName, Error, Instant, Result, clock, frame};
use wombat_session::{Answer, Effects, Session};

/// How long one attempt to connect may take.
const ATTEMPT: Duration = Duration::from_secs(2);
/// How much is read at once.
const READ_BYTES: usize = 64 * 1024;
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
    endpoints: Endpoints,
    waiters: BTreeMap<u64, Waiter>,
    effects: Effects,
    /// Frames to send.
    out: BytesMut,
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
    Read(std::io::Result<usize>),
    Written(std::io::Result<usize>),
    Connected(std::result::Result<TcpStream, String>),
    Time,
}

/// The list of addresses to try, in turn.
struct Endpoints {
    all: Vec<String>,
    next: usize,
    /// What was wrong with each, for whoever waits for the first connection.
    problems: BTreeMap<String, String>,
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
            endpoints: Endpoints { all: config.endpoints.clone(), next: 0, problems: BTreeMap::new() },
            waiters: BTreeMap::new(),
            effects: Effects::default(),
            out: BytesMut::new(),
            ready: Some(ready),
            ending: BTreeMap::new(),
            moved,
            abandoned: false,
        }
    }

    /// Runs until the session has ended. When nobody has a use for it any more, this ends it.
    pub(crate) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>, give_up: Duration) {
        let give_up_at = clock::now() + give_up;
        let mut stream: Option<TcpStream> = None;
        let mut attempt: Option<tokio::task::JoinHandle<std::result::Result<TcpStream, String>>> = None;
        let mut inward = BytesMut::new();
        self.session.tick(clock::now(), &mut self.effects);
        loop {
            if self.settle() {
                stream = None;
                inward.clear();
                self.out.clear();
            }
            if let Some(hint) = self.effects.connect.take() {
                attempt = Some(tokio::spawn(connect(self.endpoints.next(hint))));
            }
            if self.ready.is_some() && clock::now() >= give_up_at {
                return self.report(Err(Error::NoQuorum));
            }
            if self.abandoned && self.session.is_expired() {
                return;
            }
            match self.wait(&mut orders, &mut stream, &mut attempt, &mut inward).await {
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
                    if attempt.take().is_some() {
                        self.session.disconnected(clock::now());
                    }
                    if let Some(connected) = stream.take() {
                        stream = connected.into_std().and_then(TcpStream::from_std).ok();
                        if stream.is_none() {
                            self.disconnected(&mut inward);
                        }
                    }
                }
                Wake::Written(Ok(_)) | Wake::Time => {}
                Wake::Read(Ok(length)) if length > 0 && self.receive(&mut inward) => {}
                Wake::Read(_) | Wake::Written(Err(_)) => {
                    stream = None;
                    self.disconnected(&mut inward);
                }
                Wake::Connected(result) => {
                    attempt = None;
                    match result {
                        Ok(connected) => {
                            stream = Some(connected);
                            self.session.connected(&mut self.effects);
                        }
                        Err(problem) => {
                            debug!("{problem}");
                            self.endpoints.note(problem);
                            self.session.disconnected(clock::now());
                        }
                    }
                }
            }
            self.tend_kept_handles();
            self.session.tick(clock::now(), &mut self.effects);
        }
    }

    /// The connection is gone, and so is what was on its way.
    fn disconnected(&mut self, inward: &mut BytesMut) {
        debug!("the connection is gone");
        *inward = BytesMut::new();
        self.out.clear();
        // What was read before the end may have led to requests that nobody can get any more.
        self.effects.send.clear();
        self.session.disconnected(clock::now());
    }

    /// Waits for the next thing to happen.
    async fn wait(
        &mut self,
        orders: &mut mpsc::UnboundedReceiver<Order>,
        stream: &mut Option<TcpStream>,
        attempt: &mut Option<tokio::task::JoinHandle<std::result::Result<TcpStream, String>>>,
        inward: &mut BytesMut,
    ) -> Wake {
        let deadline = self.session.next_deadline();
        let mut batch = Vec::new();
        let (mut reader, mut writer) = match stream {
            Some(stream) => {
                let (reader, writer) = stream.split();
                (Some(reader), Some(writer))
            }
            None => (None, None),
        };
        let sending = writer.is_some() && !self.out.is_empty();
        tokio::select! {
            biased;
            () = self.moved.notified() => Wake::Moved,
            written = async { writer.as_mut().expect("checked").write_buf(&mut self.out).await }, if sending => {
                Wake::Written(written)
            }
            read = async {
                inward.reserve(READ_BYTES);
                reader.as_mut().expect("checked").read_buf(inward).await
            }, if reader.is_some() => Wake::Read(read),
            count = orders.recv_many(&mut batch, BATCH), if !self.abandoned => match count {
                0 => Wake::Abandoned,
                _ => Wake::Orders(batch),
            },
            joined = async { attempt.as_mut().expect("checked").await }, if attempt.is_some() => {
                Wake::Connected(joined.unwrap_or_else(|error| Err(error.to_string())))
            }
            () = time::nap_until(deadline) => Wake::Time,
        }
    }

    /// Closes the kept handles that nobody has used for a while.
    fn tend_kept_handles(&mut self) {
        let now = clock::now();
        if now >= self.look_at {
            self.look_at = now + LOOK_EVERY;
            for handle in self.store.clear_out(false) {
                self.session.submit(close(&handle), &mut self.effects);
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

    /// Reads the frames that have arrived. Returns whether they make sense.
    fn receive(&mut self, inward: &mut BytesMut) -> bool {
        let now = clock::now();
        loop {
            match frame::read::<Response>(inward) {
                Ok(Some(response)) => self.session.received(now, response, &mut self.effects),
                Ok(None) => return true,
                Err(error) => {
                    debug!("closing the connection: {error}");
                    return false;
                }
            }
        }
    }

    /// Carries out what the session wants but connecting. Returns whether to give up the connection.
    fn settle(&mut self) -> bool {
        // Before anybody is told of anything, and before a KeepAlive says that what was to go is gone.
        self.publisher.publish(&self.session, &mut self.effects.cache);
        let mut done: VecDeque<_> = std::mem::take(&mut self.effects.done).into();
        while let Some((number, result)) = done.pop_front() {
            self.finish(number, result);
            done.extend(self.effects.done.drain(..));
        }
        for mut request in self.effects.send.drain(..) {
            if let Some(Call::KeepAlive(keep_alive)) = &mut request.call {
                keep_alive.cached_reads = self.publisher.hits();
            }
            frame::write(&request, &mut self.out);
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
            self.view.publish(event.handle, &node_event(&event));
        }
        if self.session.is_expired() {
            self.view.close();
        }
        std::mem::take(&mut self.effects.disconnect)
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
        let result = match result {
            Err(Error::NoQuorum) => Err(Error::not_found(self.endpoints.describe())),
            other => other,
        };
        let _nobody_waits = ready.send(result);
    }
}

impl Endpoints {
    /// The next address: the one hinted at, or the next of the list.
    fn next(&mut self, hint: Option<String>) -> String {
        hint.unwrap_or_else(|| {
            let endpoint = self.all[self.next % self.all.len()].clone();
            self.next += 1;
            endpoint
        })
    }

    fn note(&mut self, problem: String) {
        let (endpoint, why) = problem.split_once(": ").unwrap_or((&problem, ""));
        self.problems.insert(endpoint.into(), why.into());
    }

    fn describe(&self) -> String {
        let problems: Vec<String> = self.problems.iter().map(|(at, why)| format!("{at} ({why})")).collect();
        match problems.is_empty() {
            true => format!("a master at {}", self.all.join(", ")),
            false => format!("a cell at {}", problems.join(", ")),
        }
    }
}

/// Connects to `endpoint`, whose name is resolved anew each time.
async fn connect(endpoint: String) -> std::result::Result<TcpStream, String> {
    let attempt = tokio::time::timeout(ATTEMPT, TcpStream::connect(&endpoint)).await;
    let stream = match attempt {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(format!("{endpoint}: {error}")),
        Err(_) => return Err(format!("{endpoint}: no answer within {} s", ATTEMPT.as_secs())),
    };
    stream.set_nodelay(true).map_err(|error| format!("{endpoint}: {error}"))?;
    Ok(stream)
}
