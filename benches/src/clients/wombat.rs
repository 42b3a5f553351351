//! Wombat's own protocol. Every client is a session with a KeepAlive always pending.

use super::link::{Link, Protocol};
use super::{Later, Locker, Pool, Reader, Service, Watcher, Writer};
use crate::Result;
use crate::replicas::CELL;
use bytes::{Bytes, BytesMut};
use std::cell::Cell;
use std::rc::Rc;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use wombat_proto::frame;
use wombat_proto::wire::event::Kind;
use wombat_proto::wire::{self, Handle, Request, Response, mode, request::Call, response::Result as Answer};

/// A cell, by its master.
pub struct Wombat {
    master: String,
    connections: Pool<Connection>,
}

impl Wombat {
    /// So many clients share each connection.
    pub fn new(master: &str, clients_each: usize) -> Wombat {
        Wombat { master: master.into(), connections: Pool::new(clients_each) }
    }

    async fn session(&self) -> Result<Session> {
        Session::open(self.connections.next(Connection::open(&self.master)).await?).await
    }

    /// A session with an open file.
    async fn client(&self, path: &str, events: u32) -> Result<Box<Client>> {
        let session = self.session().await?;
        let handle = session.open_file(path, events).await?;
        Ok(Box::new(Client { session, handle, told: 0 }))
    }

    /// What its watchers, writers and readers have open.
    pub fn watched() -> String {
        path(WATCHED)
    }
}

impl Service for Wombat {
    fn name(&self) -> &'static str {
        "wombat"
    }

    fn alone(&self, number: usize) -> Later<'_, Box<dyn Locker>> {
        Box::pin(async move { Ok(self.client(&format!("alone-{number}"), 0).await? as Box<dyn Locker>) })
    }

    fn contender(&self, _number: usize) -> Later<'_, Box<dyn Locker>> {
        Box::pin(async { Ok(self.client("contended", 0).await? as Box<dyn Locker>) })
    }

    fn watcher(&self, _number: usize) -> Later<'_, Box<dyn Watcher>> {
        let events = Kind::ContentsModified.bit();
        Box::pin(async move { Ok(self.client(WATCHED, events).await? as Box<dyn Watcher>) })
    }

    fn writer(&self) -> Later<'_, Box<dyn Writer>> {
        Box::pin(async { Ok(self.client(WATCHED, 0).await? as Box<dyn Writer>) })
    }

    fn reader(&self, _number: usize) -> Later<'_, Box<dyn Reader>> {
        Box::pin(async { Ok(self.client(WATCHED, 0).await? as Box<dyn Reader>) })
    }
}

const WATCHED: &str = "watched";

fn path(name: &str) -> String {
    format!("/ls/{CELL}/{name}")
}

/// A connection that may speak for many sessions.
pub(crate) struct Connection {
    link: Link<Frames>,
    /// The number of the last request that belongs to no session.
    number: Cell<u64>,
}

impl Connection {
    pub(crate) async fn open(master: &str) -> Result<Connection> {
        let connection = Connection { link: Link::open(master, Frames).await?, number: Cell::new(0) };
        let hello = wire::Hello { version: wire::VERSION, ..wire::Hello::default() };
        match connection.ask(Call::Hello(hello)).await? {
            Answer::Welcome(welcome) if welcome.epoch > 0 => Ok(connection),
            other => Err(format!("{other:?}").into()),
        }
    }

    /// Asks what belongs to no session.
    pub(crate) async fn ask(&self, call: Call) -> Result<Answer> {
        let number = next(&self.number);
        let request = Request { number, call: Some(call), ..Request::default() };
        let asked = self.link.ask((0, number), |outward| frame::write(&request, outward));
        asked.await?.ok_or_else(|| "no answer".into())
    }
}

/// Frames of answers.
struct Frames;

impl Protocol for Frames {
    /// The session and the number of the request.
    type Key = (u64, u64);
    type Answer = Option<Answer>;

    fn read(
        &mut self,
        inward: &mut BytesMut,
        _outward: &mut BytesMut,
    ) -> Result<Option<((u64, u64), Option<Answer>)>> {
        let response = frame::read::<Response>(inward)?;
        Ok(response.map(|response| ((response.session, response.number), response.result)))
    }
}

/// A session, kept alive until this is dropped.
struct Session {
    asker: Rc<Asker>,
    /// How many events it has been told.
    events: watch::Receiver<u64>,
    keeping_alive: AbortHandle,
}

/// Who asks for a session.
struct Asker {
    connection: Rc<Connection>,
    session: u64,
    epoch: u64,
    number: Cell<u64>,
    /// The last change that was answered; a client has one under way at most.
    acknowledged: Cell<u64>,
}

impl Session {
    async fn open(connection: Rc<Connection>) -> Result<Session> {
        let create = wire::CreateSession { client: "bench".into(), caches: false, ..Default::default() };
        let opened = match connection.ask(Call::CreateSession(create)).await? {
            Answer::SessionOpened(opened) => opened,
            other => return Err(format!("{other:?}").into()),
        };
        let asker = Rc::new(Asker {
            connection,
            session: opened.session,
            epoch: opened.epoch,
            number: Cell::new(0),
            acknowledged: Cell::new(0),
        });
        let (told, events) = watch::channel(0);
        let keeping_alive = tokio::task::spawn_local(Rc::clone(&asker).keep_alive(told)).abort_handle();
        Ok(Session { asker, events, keeping_alive })
    }

    /// Opens a file that is made if it is not there.
    async fn open_file(&self, name: &str, events: u32) -> Result<Handle> {
        let open = wire::Open {
            path: path(name),
            mode: mode::ALL,
            events,
            create: wire::open::Create::May.into(),
            node: Some(wire::NewNode::default()),
            ..wire::Open::default()
        };
        match self.asker.change(Call::Open(open)).await? {
            Answer::Opened(opened) => Ok(opened.handle.ok_or("no handle")?),
            other => Err(format!("{other:?}").into()),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.keeping_alive.abort();
    }
}

impl Asker {
    async fn ask(&self, call: Call) -> Result<Answer> {
        self.ask_as(next(&self.number), call).await
    }

    /// Asks for what takes effect once.
    async fn change(&self, call: Call) -> Result<Answer> {
        let number = next(&self.number);
        let answer = self.ask_as(number, call).await?;
        self.acknowledged.set(number);
        Ok(answer)
    }

    async fn ask_as(&self, number: u64, call: Call) -> Result<Answer> {
        let (session, epoch, acknowledged) = (self.session, self.epoch, self.acknowledged.get());
        let request = Request { session, number, epoch, acknowledged, call: Some(call) };
        let asked = self.connection.link.ask((session, number), |outward| frame::write(&request, outward));
        asked.await?.ok_or_else(|| "no answer".into())
    }

    /// Keeps the session alive, and tells how many events it has had.
    async fn keep_alive(self: Rc<Self>, told: watch::Sender<u64>) {
        let mut events_acknowledged = 0;
        loop {
            let keep_alive = wire::KeepAlive { events_acknowledged, ..wire::KeepAlive::default() };
            let Ok(Answer::KeptAlive(kept)) = self.ask(Call::KeepAlive(keep_alive)).await else { return };
            events_acknowledged = events_acknowledged.max(kept.first_event + kept.events.len() as u64 - 1);
            told.send_if_modified(|last| std::mem::replace(last, events_acknowledged) < events_acknowledged);
            // A client hears of an event before it acknowledges it. Here thousands are on one thread, which must
            // not let one of them acknowledge before the next has heard.
            tokio::task::yield_now().await;
        }
    }
}

/// A session with one open file.
struct Client {
    session: Session,
    handle: Handle,
    /// How many events it has taken notice of.
    told: u64,
}

impl Client {
    fn handle(&self) -> Option<Handle> {
        Some(self.handle)
    }

    async fn end(self) -> Result<()> {
        match self.session.asker.change(Call::EndSession(wire::EndSession {})).await? {
            Answer::Done(_) => Ok(()),
            other => Err(format!("{other:?}").into()),
        }
    }
}

impl Locker for Client {
    fn acquire(&mut self) -> Later<'_, ()> {
        Box::pin(async {
            let acquire = wire::Acquire { handle: self.handle(), ..wire::Acquire::default() };
            match self.session.asker.ask(Call::Acquire(acquire)).await? {
                Answer::Granted(_) => Ok(()),
                other => Err(format!("{other:?}").into()),
            }
        })
    }

    fn release(&mut self) -> Later<'_, ()> {
        Box::pin(async {
            let release = wire::Release { handle: self.handle() };
            match self.session.asker.change(Call::Release(release)).await? {
                Answer::Done(_) => Ok(()),
                other => Err(format!("{other:?}").into()),
            }
        })
    }

    fn close(self: Box<Self>) -> Later<'static, ()> {
        Box::pin(self.end())
    }
}

impl Watcher for Client {
    /// It is subscribed.
    fn arm(&mut self) -> Later<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn told(&mut self) -> Later<'_, ()> {
        Box::pin(async {
            let told = self.told;
            self.told = *self.session.events.wait_for(|events| *events > told).await?;
            Ok(())
        })
    }

    fn close(self: Box<Self>) -> Later<'static, ()> {
        Box::pin(self.end())
    }
}

impl Writer for Client {
    fn write(&mut self) -> Later<'_, ()> {
        Box::pin(async {
            let set = wire::SetContents {
                handle: self.handle(),
                contents: Bytes::from_static(b"value"),
                ..wire::SetContents::default()
            };
            match self.session.asker.change(Call::SetContents(set)).await? {
                Answer::Stat(_) => Ok(()),
                other => Err(format!("{other:?}").into()),
            }
        })
    }
}

impl Reader for Client {
    fn read(&mut self) -> Later<'_, ()> {
        Box::pin(async {
            let get = wire::GetContents { handle: self.handle() };
            match self.session.asker.ask(Call::GetContents(get)).await? {
                Answer::Contents(_) => Ok(()),
                other => Err(format!("{other:?}").into()),
            }
        })
    }

    fn close(self: Box<Self>) -> Later<'static, ()> {
        Box::pin(self.end())
    }
}

fn next(number: &Cell<u64>) -> u64 {
    number.set(number.get() + 1);
    number.get()
}
