//! etcd's gRPC. Every client that locks has a lease of its own.

use super::grpc::{Grpc, Stream};
use super::{Later, Locker, Pool, Reader, Service, Watcher, Writer};
use crate::Result;
use messages::{
    Compare, DeleteRange, LeaseGrant, LeaseGranted, LeaseRevoke, Lock, Locked, Put, Range, RangeDone,
    RequestOp, Txn, TxnDone, Unlock, WatchCreate, WatchRequest, WatchResponse,
};
use std::rc::Rc;

const WATCHED: &[u8] = b"watched";
/// Longer than any measure takes; with its library's 60 s, a client would renew it every 20 s.
const LEASE_SECONDS: i64 = 600;

/// Members, one or more of which clients connect to.
pub struct Etcd {
    members: Vec<String>,
    connections: Pool<Grpc>,
    /// Whether a member answers reads from what it knows, without asking whether that is still so.
    serializable: bool,
}

impl Etcd {
    /// Clients connect to these members in turn, and so many share each connection.
    pub fn new(members: &[String], clients_each: usize) -> Etcd {
        Etcd { members: members.into(), connections: Pool::new(clients_each), serializable: false }
    }

    /// The same with reads of what each member knows, which may be out of date.
    pub fn serializable(members: &[String], clients_each: usize) -> Etcd {
        Etcd { serializable: true, ..Etcd::new(members, clients_each) }
    }

    async fn connection(&self, number: usize) -> Result<Rc<Grpc>> {
        self.connections.next(Grpc::open(&self.members[number % self.members.len()])).await
    }

    async fn leased(&self, number: usize) -> Result<Leased> {
        let connection = self.connection(number).await?;
        let grant = LeaseGrant { ttl: LEASE_SECONDS };
        let granted: LeaseGranted =
            connection.call("/etcdserverpb.Lease/LeaseGrant", &grant).answer().await?;
        Ok(Leased { connection, lease: granted.id })
    }
}

impl Service for Etcd {
    fn name(&self) -> &'static str {
        if self.serializable { "etcd, serializable" } else { "etcd" }
    }

    /// Whoever creates a key under a lease has the lock: the cheapest way where nobody else asks.
    fn alone(&self, number: usize) -> Later<'_, Box<dyn Locker>> {
        Box::pin(async move {
            let leased = self.leased(number).await?;
            Ok(Box::new(Alone { leased, key: format!("alone-{number}").into_bytes() }) as Box<dyn Locker>)
        })
    }

    /// The queue of its concurrency library as its members run it themselves, which is faster than from here.
    fn contender(&self, number: usize) -> Later<'_, Box<dyn Locker>> {
        Box::pin(async move {
            let leased = self.leased(number).await?;
            Ok(Box::new(Contender { leased, key: Vec::new() }) as Box<dyn Locker>)
        })
    }

    fn watcher(&self, number: usize) -> Later<'_, Box<dyn Watcher>> {
        Box::pin(async move {
            let connection = self.connection(number).await?;
            let mut stream: Stream<WatchResponse> = connection.stream("/etcdserverpb.Watch/Watch");
            let watch = WatchRequest { create: Some(WatchCreate { key: WATCHED.into() }) };
            connection.say(&stream, &watch);
            match stream.next().await? {
                response if response.created => {
                    Ok(Box::new(Watching { _connection: connection, stream }) as Box<dyn Watcher>)
                }
                _ => Err("no watch".into()),
            }
        })
    }

    fn writer(&self) -> Later<'_, Box<dyn Writer>> {
        Box::pin(async { Ok(Box::new(Writing(self.connection(0).await?)) as Box<dyn Writer>) })
    }

    fn reader(&self, number: usize) -> Later<'_, Box<dyn Reader>> {
        Box::pin(async move {
            let range = Range { key: WATCHED.into(), serializable: self.serializable };
            let connection = self.connection(number).await?;
            Ok(Box::new(Reading { connection, range }) as Box<dyn Reader>)
        })
    }
}

/// A connection with a lease.
struct Leased {
    connection: Rc<Grpc>,
    lease: i64,
}

impl Leased {
    async fn txn(&self, txn: &Txn) -> Result<TxnDone> {
        self.connection.call("/etcdserverpb.KV/Txn", txn).answer().await
    }

    async fn delete(&self, key: &[u8]) -> Result<()> {
        let delete = DeleteRange { key: key.into() };
        self.connection.call::<()>("/etcdserverpb.KV/DeleteRange", &delete).answer().await
    }

    async fn revoke(self) -> Result<()> {
        let revoke = LeaseRevoke { id: self.lease };
        self.connection.call::<()>("/etcdserverpb.Lease/LeaseRevoke", &revoke).answer().await
    }

    fn put(&self, key: &[u8]) -> RequestOp {
        let put = Put { key: key.into(), value: Vec::new(), lease: self.lease };
        RequestOp { put: Some(put) }
    }
}

struct Alone {
    leased: Leased,
    key: Vec<u8>,
}

impl Locker for Alone {
    fn acquire(&mut self) -> Later<'_, ()> {
        Box::pin(async {
            let txn =
                Txn { compare: vec![Compare::absent(&self.key)], success: vec![self.leased.put(&self.key)] };
            if self.leased.txn(&txn).await?.succeeded { Ok(()) } else { Err("it is held".into()) }
        })
    }

    fn release(&mut self) -> Later<'_, ()> {
        Box::pin(self.leased.delete(&self.key))
    }

    fn close(self: Box<Self>) -> Later<'static, ()> {
        Box::pin(self.leased.revoke())
    }
}

struct Contender {
    leased: Leased,
    key: Vec<u8>,
}

impl Locker for Contender {
    fn acquire(&mut self) -> Later<'_, ()> {
        Box::pin(async {
            let lock = Lock { name: b"contended".into(), lease: self.leased.lease };
            let locked: Locked = self.leased.connection.call("/v3lockpb.Lock/Lock", &lock).answer().await?;
            self.key = locked.key;
            Ok(())
        })
    }

    fn release(&mut self) -> Later<'_, ()> {
        Box::pin(async {
            let unlock = Unlock { key: std::mem::take(&mut self.key) };
            self.leased.connection.call::<()>("/v3lockpb.Lock/Unlock", &unlock).answer().await
        })
    }

    fn close(self: Box<Self>) -> Later<'static, ()> {
        Box::pin(self.leased.revoke())
    }
}

struct Watching {
    _connection: Rc<Grpc>,
    stream: Stream<WatchResponse>,
}

impl Watcher for Watching {
    /// A watch goes on.
    fn arm(&mut self) -> Later<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn told(&mut self) -> Later<'_, ()> {
        Box::pin(async { self.stream.next().await.map(drop) })
    }

    fn close(self: Box<Self>) -> Later<'static, ()> {
        Box::pin(async { Ok(()) })
    }
}

struct Writing(Rc<Grpc>);

impl Writer for Writing {
    fn write(&mut self) -> Later<'_, ()> {
        Box::pin(async {
            let put = Put { key: WATCHED.into(), value: b"value".into(), lease: 0 };
            self.0.call::<()>("/etcdserverpb.KV/Put", &put).answer().await
        })
    }
}

struct Reading {
    connection: Rc<Grpc>,
    range: Range,
}

impl Reader for Reading {
    fn read(&mut self) -> Later<'_, ()> {
        Box::pin(async {
            let done: RangeDone =
                self.connection.call("/etcdserverpb.KV/Range", &self.range).answer().await?;
            if done.pairs.len() == 1 { Ok(()) } else { Err("there is no such key".into()) }
        })
    }

    fn close(self: Box<Self>) -> Later<'static, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// What clients need of `rpc.proto` and `v3lock.proto`.
mod messages {
    use prost::Message;

    const CREATE_REVISION: i32 = 1;

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct LeaseGrant {
        #[prost(int64, tag = "1")]
        pub(super) ttl: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct LeaseGranted {
        #[prost(int64, tag = "2")]
        pub(super) id: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct LeaseRevoke {
        #[prost(int64, tag = "1")]
        pub(super) id: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Lock {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) name: Vec<u8>,
        #[prost(int64, tag = "2")]
        pub(super) lease: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Locked {
        #[prost(bytes = "vec", tag = "2")]
        pub(super) key: Vec<u8>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Unlock {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) key: Vec<u8>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Put {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) key: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) value: Vec<u8>,
        #[prost(int64, tag = "3")]
        pub(super) lease: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Range {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) key: Vec<u8>,
        #[prost(bool, tag = "7")]
        pub(super) serializable: bool,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct RangeDone {
        #[prost(message, repeated, tag = "2")]
        pub(super) pairs: Vec<KeyValue>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct KeyValue {
        #[prost(bytes = "vec", tag = "5")]
        pub(super) value: Vec<u8>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct DeleteRange {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) key: Vec<u8>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Compare {
        #[prost(int32, tag = "1")]
        result: i32,
        #[prost(int32, tag = "2")]
        target: i32,
        #[prost(bytes = "vec", tag = "3")]
        key: Vec<u8>,
        #[prost(int64, optional, tag = "5")]
        create_revision: Option<i64>,
    }

    impl Compare {
        /// That there is no such key.
        pub(super) fn absent(key: &[u8]) -> Compare {
            Compare { result: 0, target: CREATE_REVISION, key: key.into(), create_revision: Some(0) }
        }
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct RequestOp {
        #[prost(message, optional, tag = "2")]
        pub(super) put: Option<Put>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Txn {
        #[prost(message, repeated, tag = "1")]
        pub(super) compare: Vec<Compare>,
        #[prost(message, repeated, tag = "2")]
        pub(super) success: Vec<RequestOp>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct TxnDone {
        #[prost(bool, tag = "2")]
        pub(super) succeeded: bool,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct WatchCreate {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) key: Vec<u8>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct WatchRequest {
        #[prost(message, optional, tag = "1")]
        pub(super) create: Option<WatchCreate>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct WatchResponse {
        #[prost(bool, tag = "3")]
        pub(super) created: bool,
    }
}
