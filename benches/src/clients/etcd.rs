//! etcd's gRPC. Every client that locks has a lease of its own.

use super::grpc::{Grpc, Stream};
use super::{Later, Locker, Pool, Service, Watcher, Writer};
use crate::Result;
use messages::{
    Compare, DeleteRange, KeyValue, LeaseGrant, LeaseGranted, LeaseRevoke, Lock, Locked, Put, RangeRequest,
    RangeResponse, RequestOp, Txn, TxnDone, Unlock, WatchRequest, WatchResponse,
};
use std::rc::Rc;

const WATCHED: &[u8] = b"watched";
/// Longer than any measure takes; with its library's 60 s, a client would renew it every 20 s.
const LEASE_SECONDS: i64 = 600;

/// Members, one or more of which clients connect to.
pub struct Etcd {
    members: Vec<String>,
    connections: Pool<Grpc>,
}

impl Etcd {
    /// Clients connect to these members in turn, and so many share each connection.
    pub fn new(members: &[String], clients_each: usize) -> Etcd {
        Etcd { members: members.into(), connections: Pool::new(clients_each) }
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
        "etcd"
    }

    /// Whoever creates a key under a lease has the lock: the cheapest way where nobody else asks.
    fn alone(&self, number: usize) -> Later<'_, Box<dyn Locker>> {
        Box::pin(async move {
            let leased = self.leased(number).await?;
            Ok(Box::new(Alone { leased, key: format!("alone-{number}").into_bytes() }) as Box<dyn Locker>)
        })
    }

    /// The queue of its concurrency library, which its members also run themselves.
    fn contender(&self, number: usize) -> Later<'_, Box<dyn Locker>> {
        Box::pin(async move {
            let leased = self.leased(number).await?;
            if std::env::var_os("ETCD_QUEUE").is_none() {
                return Ok(Box::new(Contender { leased, key: Vec::new() }) as Box<dyn Locker>);
            }
            let watch = leased.connection.stream("/etcdserverpb.Watch/Watch");
            let key = format!("{}{:016x}", "contended/", leased.lease).into_bytes();
            Ok(Box::new(Queuing { leased, watch, key }) as Box<dyn Locker>)
        })
    }

    fn watcher(&self, number: usize) -> Later<'_, Box<dyn Watcher>> {
        Box::pin(async move {
            let connection = self.connection(number).await?;
            let mut stream: Stream<WatchResponse> = connection.stream("/etcdserverpb.Watch/Watch");
            connection.say(&stream, &WatchRequest::create(WATCHED, 0));
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
        RequestOp { range: None, put: Some(put) }
    }
}

struct Alone {
    leased: Leased,
    key: Vec<u8>,
}

impl Locker for Alone {
    fn acquire(&mut self) -> Later<'_, ()> {
        Box::pin(async {
            let txn = Txn {
                compare: vec![Compare::absent(&self.key)],
                success: vec![self.leased.put(&self.key)],
                failure: Vec::new(),
            };
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

/// The same queue, on the client's side.
struct Queuing {
    leased: Leased,
    watch: Stream<WatchResponse>,
    key: Vec<u8>,
}

impl Queuing {
    /// The key before its own, with the revision as of which it was there.
    async fn before(&self, revision: i64) -> Result<Option<(Vec<u8>, i64)>> {
        let range = RangeRequest::last_before(b"contended/", b"contended0", revision);
        let range: RangeResponse =
            self.leased.connection.call("/etcdserverpb.KV/Range", &range).answer().await?;
        let now = range.header.map_or(0, |header| header.revision);
        Ok(range.kvs.into_iter().next().map(|KeyValue { key, .. }| (key, now)))
    }

    /// Waits until a key is deleted.
    async fn gone(&mut self, key: &[u8], since: i64) -> Result<()> {
        self.leased.connection.say(&self.watch, &WatchRequest::create(key, since + 1));
        loop {
            let response = self.watch.next().await?;
            if response.events.iter().any(|event| event.kind == messages::DELETED) {
                self.leased.connection.say(&self.watch, &WatchRequest::cancel(response.watch_id));
                return Ok(());
            }
        }
    }
}

impl Locker for Queuing {
    fn acquire(&mut self) -> Later<'_, ()> {
        Box::pin(async {
            let first = RangeRequest::first(b"contended/", b"contended0");
            let first = RequestOp { range: Some(first), put: None };
            let txn = Txn {
                compare: vec![Compare::absent(&self.key)],
                success: vec![self.leased.put(&self.key), first],
                failure: Vec::new(),
            };
            let done = self.leased.txn(&txn).await?;
            let revision = done.header.as_ref().map_or(0, |header| header.revision);
            if !done.succeeded {
                return Err("it is held".into());
            }
            if done.first_of_range(1).is_some_and(|first| first.key == self.key) {
                return Ok(());
            }
            while let Some((key, since)) = self.before(revision).await? {
                self.gone(&key, since).await?;
            }
            Ok(())
        })
    }

    fn release(&mut self) -> Later<'_, ()> {
        Box::pin(self.leased.delete(&self.key))
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

/// What clients need of `rpc.proto` and `v3lock.proto`.
mod messages {
    use prost::Message;

    /// The kind of an event.
    pub(super) const DELETED: i32 = 1;
    const CREATE_REVISION: i32 = 1;
    const DESCENDING: i32 = 2;
    const BY_CREATION: i32 = 2;

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
    pub(super) struct Header {
        #[prost(int64, tag = "3")]
        pub(super) revision: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct KeyValue {
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
    pub(super) struct DeleteRange {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) key: Vec<u8>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct RangeRequest {
        #[prost(bytes = "vec", tag = "1")]
        key: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        end: Vec<u8>,
        #[prost(int64, tag = "3")]
        limit: i64,
        #[prost(int32, tag = "5")]
        order: i32,
        #[prost(int32, tag = "6")]
        by: i32,
        #[prost(int64, tag = "13")]
        created_at_most: i64,
    }

    impl RangeRequest {
        /// The key that was created first.
        pub(super) fn first(key: &[u8], end: &[u8]) -> RangeRequest {
            RangeRequest {
                key: key.into(),
                end: end.into(),
                limit: 1,
                order: 1,
                by: BY_CREATION,
                created_at_most: 0,
            }
        }

        /// The last key that was created before that revision.
        pub(super) fn last_before(key: &[u8], end: &[u8], revision: i64) -> RangeRequest {
            RangeRequest { order: DESCENDING, created_at_most: revision - 1, ..RangeRequest::first(key, end) }
        }
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct RangeResponse {
        #[prost(message, optional, tag = "1")]
        pub(super) header: Option<Header>,
        #[prost(message, repeated, tag = "2")]
        pub(super) kvs: Vec<KeyValue>,
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

    /// Either of them.
    #[derive(Clone, PartialEq, Message)]
    pub(super) struct RequestOp {
        #[prost(message, optional, tag = "1")]
        pub(super) range: Option<RangeRequest>,
        #[prost(message, optional, tag = "2")]
        pub(super) put: Option<Put>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct ResponseOp {
        #[prost(message, optional, tag = "1")]
        pub(super) range: Option<RangeResponse>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Txn {
        #[prost(message, repeated, tag = "1")]
        pub(super) compare: Vec<Compare>,
        #[prost(message, repeated, tag = "2")]
        pub(super) success: Vec<RequestOp>,
        #[prost(message, repeated, tag = "3")]
        pub(super) failure: Vec<RequestOp>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct TxnDone {
        #[prost(message, optional, tag = "1")]
        pub(super) header: Option<Header>,
        #[prost(bool, tag = "2")]
        pub(super) succeeded: bool,
        #[prost(message, repeated, tag = "3")]
        responses: Vec<ResponseOp>,
    }

    impl TxnDone {
        /// The first that the range has found which was the step of that number.
        pub(super) fn first_of_range(&self, step: usize) -> Option<&KeyValue> {
            self.responses.get(step)?.range.as_ref()?.kvs.first()
        }
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct WatchCreate {
        #[prost(bytes = "vec", tag = "1")]
        key: Vec<u8>,
        #[prost(int64, tag = "3")]
        start_revision: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct WatchCancel {
        #[prost(int64, tag = "1")]
        watch_id: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct WatchRequest {
        #[prost(message, optional, tag = "1")]
        create: Option<WatchCreate>,
        #[prost(message, optional, tag = "2")]
        cancel: Option<WatchCancel>,
    }

    impl WatchRequest {
        /// 0: from now on.
        pub(super) fn create(key: &[u8], start_revision: i64) -> WatchRequest {
            WatchRequest { create: Some(WatchCreate { key: key.into(), start_revision }), cancel: None }
        }

        pub(super) fn cancel(watch_id: i64) -> WatchRequest {
            WatchRequest { create: None, cancel: Some(WatchCancel { watch_id }) }
        }
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct WatchResponse {
        #[prost(int64, tag = "2")]
        pub(super) watch_id: i64,
        #[prost(bool, tag = "3")]
        pub(super) created: bool,
        #[prost(message, repeated, tag = "11")]
        pub(super) events: Vec<Event>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Event {
        #[prost(int32, tag = "1")]
        pub(super) kind: i32,
    }
}
