//! ZooKeeper's protocol. Every client is a session, and so a connection, of its own.

use super::link::{Link, Protocol};
use super::{Later, Locker, Reader, Service, Watcher, Writer};
use crate::Result;
use crate::systems::zookeeper::{
    CLOSE, CREATE, NODE_EXISTS, SESSION_TIMEOUT_MS, SET_DATA, put_bytes, put_create,
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::cell::Cell;
use tokio::sync::mpsc::UnboundedReceiver;

const DELETE: i32 = 2;
const GET_DATA: i32 = 4;
const GET_CHILDREN: i32 = 8;
const EPHEMERAL: i32 = 1;
const EPHEMERAL_SEQUENTIAL: i32 = 3;
const NO_NODE: i32 = -101;
/// The key of the answer to a connection's first words, which have no number.
const CONNECTED: i32 = 0;
/// The number of what a watch has seen.
const SEEN: i32 = -1;
/// Of a number, a transaction and an error, before every answer.
const HEAD_BYTES: usize = 16;

const QUEUE: &str = "/contended";
const WATCHED: &str = "/watched";

/// Servers, one or more of which clients connect to.
pub struct ZooKeeper {
    servers: Vec<String>,
}

impl ZooKeeper {
    /// Clients connect to these servers in turn.
    pub fn new(servers: &[String]) -> ZooKeeper {
        ZooKeeper { servers: servers.into() }
    }

    async fn session(&self, number: usize) -> Result<Session> {
        Session::open(&self.servers[number % self.servers.len()]).await
    }
}

impl Service for ZooKeeper {
    fn name(&self) -> &'static str {
        "zookeeper"
    }

    /// Whoever creates an ephemeral node has the lock: the cheapest way where nobody else asks.
    fn alone(&self, number: usize) -> Later<'_, Box<dyn Locker>> {
        Box::pin(async move {
            let session = self.session(number).await?;
            Ok(Box::new(Alone { session, path: format!("/alone-{number}") }) as Box<dyn Locker>)
        })
    }

    /// The queue of its recipes, and of Curator.
    fn contender(&self, number: usize) -> Later<'_, Box<dyn Locker>> {
        Box::pin(async move {
            let session = self.session(number).await?;
            session.make(QUEUE).await?;
            Ok(Box::new(Contender { session, own: String::new() }) as Box<dyn Locker>)
        })
    }

    fn watcher(&self, number: usize) -> Later<'_, Box<dyn Watcher>> {
        Box::pin(async move {
            Ok(Box::new(Watching { session: self.session(number).await? }) as Box<dyn Watcher>)
        })
    }

    fn writer(&self) -> Later<'_, Box<dyn Writer>> {
        Box::pin(async {
            let session = self.session(0).await?;
            session.make(WATCHED).await?;
            Ok(Box::new(Writing { session }) as Box<dyn Writer>)
        })
    }

    fn reader(&self, number: usize) -> Later<'_, Box<dyn Reader>> {
        Box::pin(
            async move { Ok(Box::new(Reading { session: self.session(number).await? }) as Box<dyn Reader>) },
        )
    }
}

/// A session. Those that live longer than its timeout would also send pings.
struct Session {
    link: Link<Jute>,
    number: Cell<i32>,
    seen: UnboundedReceiver<(i32, Bytes)>,
}

impl Session {
    async fn open(server: &str) -> Result<Session> {
        let link = Link::open(server, Jute { connected: false }).await?;
        let seen = link.listen(SEEN);
        let mut connect = BytesMut::new();
        connect.put_i32(0);
        connect.put_i64(0);
        connect.put_i32(SESSION_TIMEOUT_MS);
        connect.put_i64(0);
        put_bytes(&mut connect, &[0; 16]);
        connect.put_u8(0);
        link.ask(CONNECTED, |outward| put_bytes(outward, &connect)).await?;
        Ok(Session { link, number: Cell::new(0), seen })
    }

    /// Returns the error, 0 for none, and the rest of the answer.
    async fn ask(&self, kind: i32, body: &[u8]) -> Result<(i32, Bytes)> {
        self.number.set(self.number.get() + 1);
        let number = self.number.get();
        let asked = self.link.ask(number, |outward| {
            outward.put_i32(8 + body.len() as i32);
            outward.put_i32(number);
            outward.put_i32(kind);
            outward.put_slice(body);
        });
        Ok(asked.await?)
    }

    async fn ask_well(&self, kind: i32, body: &[u8]) -> Result<Bytes> {
        match self.ask(kind, body).await? {
            (0, answer) => Ok(answer),
            (error, _) => Err(format!("zookeeper's error {error}").into()),
        }
    }

    /// Makes a node that stays, if it is not there.
    async fn make(&self, path: &str) -> Result<()> {
        match self.ask(CREATE, &create(path, 0)).await? {
            (0 | NODE_EXISTS, _) => Ok(()),
            (error, _) => Err(format!("zookeeper's error {error}").into()),
        }
    }

    async fn delete(&self, path: &str) -> Result<()> {
        let mut delete = BytesMut::new();
        put_bytes(&mut delete, path.as_bytes());
        delete.put_i32(-1);
        self.ask_well(DELETE, &delete).await.map(drop)
    }

    /// Watches a node's contents and end. Returns whether it is there.
    async fn watch(&self, path: &str) -> Result<bool> {
        match self.ask(GET_DATA, &read(path, true)).await? {
            (0, _) => Ok(true),
            (NO_NODE, _) => Ok(false),
            (error, _) => Err(format!("zookeeper's error {error}").into()),
        }
    }

    async fn next_seen(&mut self) -> Result<()> {
        self.seen.recv().await.map(drop).ok_or_else(|| "the connection is gone".into())
    }

    async fn close(self) -> Result<()> {
        self.ask_well(CLOSE, &[]).await.map(drop)
    }
}

fn create(path: &str, flags: i32) -> BytesMut {
    let mut create = BytesMut::new();
    put_create(&mut create, path, flags);
    create
}

fn read(path: &str, watch: bool) -> BytesMut {
    let mut read = BytesMut::new();
    put_bytes(&mut read, path.as_bytes());
    read.put_u8(watch.into());
    read
}

/// Its frames.
struct Jute {
    connected: bool,
}

impl Protocol for Jute {
    type Key = i32;
    /// An error, 0 for none, and what follows it.
    type Answer = (i32, Bytes);

    fn read(
        &mut self,
        inward: &mut BytesMut,
        _outward: &mut BytesMut,
    ) -> Result<Option<(i32, (i32, Bytes))>> {
        let Some(length) = inward.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if inward.len() < 4 + length {
            return Ok(None);
        }
        inward.advance(4);
        let mut body = inward.split_to(length).freeze();
        if !std::mem::replace(&mut self.connected, true) {
            return Ok(Some((CONNECTED, (0, body))));
        }
        if body.len() < HEAD_BYTES {
            return Err("a short answer".into());
        }
        let (number, _transaction, error) = (body.get_i32(), body.get_i64(), body.get_i32());
        Ok(Some((number, (error, body))))
    }
}

struct Alone {
    session: Session,
    path: String,
}

impl Locker for Alone {
    fn acquire(&mut self) -> Later<'_, ()> {
        Box::pin(async { self.session.ask_well(CREATE, &create(&self.path, EPHEMERAL)).await.map(drop) })
    }

    fn release(&mut self) -> Later<'_, ()> {
        Box::pin(self.session.delete(&self.path))
    }

    fn close(self: Box<Self>) -> Later<'static, ()> {
        Box::pin(self.session.close())
    }
}

struct Contender {
    session: Session,
    /// Its node in the queue.
    own: String,
}

impl Contender {
    /// The node before its own; `None` if it is the first.
    async fn before(&self) -> Result<Option<String>> {
        let mut children = self.session.ask_well(GET_CHILDREN, &read(QUEUE, false)).await?;
        let count = children.get_i32();
        let names: Vec<String> = (0..count).map(|_| take_text(&mut children)).collect();
        let paths = names.into_iter().map(|name| format!("{QUEUE}/{name}"));
        Ok(paths.filter(|path| *path < self.own).max())
    }
}

impl Locker for Contender {
    fn acquire(&mut self) -> Later<'_, ()> {
        Box::pin(async {
            let own = create(&format!("{QUEUE}/lock-"), EPHEMERAL_SEQUENTIAL);
            self.own = take_text(&mut self.session.ask_well(CREATE, &own).await?);
            while let Some(before) = self.before().await? {
                if self.session.watch(&before).await? {
                    self.session.next_seen().await?;
                }
            }
            Ok(())
        })
    }

    fn release(&mut self) -> Later<'_, ()> {
        Box::pin(self.session.delete(&self.own))
    }

    fn close(self: Box<Self>) -> Later<'static, ()> {
        Box::pin(self.session.close())
    }
}

struct Watching {
    session: Session,
}

impl Watcher for Watching {
    /// A watch tells once.
    fn arm(&mut self) -> Later<'_, ()> {
        Box::pin(async { self.session.watch(WATCHED).await.map(drop) })
    }

    fn told(&mut self) -> Later<'_, ()> {
        Box::pin(self.session.next_seen())
    }

    fn close(self: Box<Self>) -> Later<'static, ()> {
        Box::pin(self.session.close())
    }
}

struct Writing {
    session: Session,
}

impl Writer for Writing {
    fn write(&mut self) -> Later<'_, ()> {
        Box::pin(async {
            let mut set = BytesMut::new();
            put_bytes(&mut set, WATCHED.as_bytes());
            put_bytes(&mut set, b"value");
            set.put_i32(-1);
            self.session.ask_well(SET_DATA, &set).await.map(drop)
        })
    }
}

struct Reading {
    session: Session,
}

impl Reader for Reading {
    /// What the server knows that it is connected to.
    fn read(&mut self) -> Later<'_, ()> {
        Box::pin(async { self.session.ask_well(GET_DATA, &read(WATCHED, false)).await.map(drop) })
    }

    fn close(self: Box<Self>) -> Later<'static, ()> {
        Box::pin(self.session.close())
    }
}

fn take_text(from: &mut Bytes) -> String {
    let length = from.get_i32() as usize;
    String::from_utf8_lossy(&from.split_to(length)).into_owned()
}
