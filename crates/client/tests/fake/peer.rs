//! A server that a script plays, and the clients that it has.

use bytes::BytesMut;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wombat_client::{Cell, Error, LockGuard, LockMode, Node, OpenOptions};
use wombat_proto::frame;
use wombat_proto::wire::{self, Request, Response, request::Call, response::Result as Answer};

/// One connection, seen from the server.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    pub(crate) inward: BytesMut,
    /// The KeepAlive that waits.
    pub(crate) keep_alive: Option<Request>,
    /// The handle that was opened last.
    pub(crate) opened: u64,
}

impl Peer {
    pub(crate) async fn accept(listener: &TcpListener) -> Peer {
        let stream = listener.accept().await.unwrap().0;
        stream.set_nodelay(true).unwrap();
        Peer { stream, inward: BytesMut::new(), keep_alive: None, opened: 0 }
    }

    /// The next request of any kind.
    pub(crate) async fn request(&mut self) -> Request {
        loop {
            if let Some(request) = frame::read(&mut self.inward).unwrap() {
                return request;
            }
            assert!(self.stream.read_buf(&mut self.inward).await.unwrap() > 0, "the client hung up");
        }
    }

    /// The next request that is no KeepAlive, and no probe of a client that has waited for long on a busy machine.
    pub(crate) async fn call(&mut self) -> (Request, Call) {
        loop {
            let request = self.request().await;
            match request.call.clone().unwrap() {
                Call::Hello(_) => self.welcome(&request).await,
                Call::KeepAlive(_) => self.keep_alive = Some(request),
                call => return (request, call),
            }
        }
    }

    pub(crate) async fn answer(&mut self, request: &Request, answer: Answer) {
        self.answer_cachable(request, None, answer).await;
    }

    pub(crate) async fn answer_cachable(
        &mut self,
        request: &Request,
        cachable: Option<wire::Cachable>,
        answer: Answer,
    ) {
        let mut out = BytesMut::new();
        let Request { session, number, .. } = *request;
        frame::write(&Response { session, number, cachable, result: Some(answer) }, &mut out);
        self.stream.write_all(&out).await.unwrap();
    }

    pub(crate) async fn refuse(&mut self, request: &Request, error: Error) {
        self.answer(request, Answer::Error((&error).into())).await;
    }

    /// Says that this is the master.
    pub(crate) async fn welcome(&mut self, hello: &Request) {
        let welcome = wire::Welcome { cell: "fake".into(), epoch: 1, ..wire::Welcome::default() };
        self.answer(hello, Answer::Welcome(welcome)).await;
    }

    /// Greets a client and opens its session, or opens it again. Returns how it asked for that.
    pub(crate) async fn attach(&mut self) -> Call {
        let hello = self.request().await;
        assert!(matches!(hello.call, Some(Call::Hello(_))), "{hello:?}");
        self.welcome(&hello).await;
        let (attach, call) = self.call().await;
        assert!(matches!(call, Call::CreateSession(_) | Call::ResumeSession(_)), "{call:?}");
        let opened =
            wire::SessionOpened { session: 5, lease_ms: 60_000, epoch: 1, ..wire::SessionOpened::default() };
        self.answer(&attach, Answer::SessionOpened(opened)).await;
        call
    }

    /// Answers the Open that comes next.
    pub(crate) async fn open(&mut self) {
        let (request, call) = self.call().await;
        let Call::Open(open) = call else { panic!("no Open: {call:?}") };
        let (id, mode, events) = (request.number, open.mode, open.events);
        self.opened = id;
        let lock_delay_ms = open.lock_delay_ms;
        let handle = wire::Handle { id, instance: 7, mode, events, lock_delay_ms, ..Default::default() };
        let opened = wire::Opened {
            handle: Some(handle),
            created: false,
            stat: Some(wire::Stat::default()),
            name: "f".into(),
        };
        self.answer(&request, Answer::Opened(opened)).await;
    }

    /// Answers the Acquire that comes next.
    pub(crate) async fn grant(&mut self) {
        let (request, call) = self.call().await;
        assert!(matches!(call, Call::Acquire(_)), "{call:?}");
        self.answer(&request, granted()).await;
    }

    /// Answers the GetStatus that comes next; whatever was sent before has arrived by then, in both directions.
    pub(crate) async fn status(&mut self) {
        let (request, call) = self.call().await;
        assert!(matches!(call, Call::GetStatus(_)), "{call:?}");
        self.answer(&request, Answer::Status(wire::Status::default())).await;
    }
}

pub(crate) fn write(out: &mut BytesMut, request: &Request, answer: Answer) {
    let Request { session, number, .. } = *request;
    frame::write(&Response { session, number, cachable: None, result: Some(answer) }, out);
}

pub(crate) fn granted() -> Answer {
    let sequencer = wombat_proto::Sequencer {
        path: wombat_proto::Path::parse("/ls/fake/f").unwrap(),
        instance: wombat_proto::Instance(7),
        mode: LockMode::Exclusive,
        generation: wombat_proto::Generation(1),
        token: wombat_proto::Token(9),
    };
    Answer::Granted(wire::Granted { sequencer: sequencer.to_string() })
}

pub(crate) fn done() -> Answer {
    Answer::Done(wire::Done {})
}

pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(120), future).await.expect("in two minutes")
    })
}

/// Looks at a future once.
pub(crate) fn poll_once<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

pub(crate) async fn connected() -> (TcpListener, Peer, Cell) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (cell, peer) = tokio::join!(Cell::connect([address]), async {
        let mut peer = Peer::accept(&listener).await;
        peer.attach().await;
        peer
    });
    (listener, peer, cell.unwrap())
}

/// Lets whatever is under way arrive.
pub(crate) async fn settle(cell: &Cell, peer: &mut Peer) {
    let (status, ()) = tokio::join!(cell.status(), peer.status());
    status.unwrap();
}

pub(crate) async fn open(cell: &Cell, peer: &mut Peer) -> Node {
    let (node, ()) = tokio::join!(cell.open("/ls/local/f", OpenOptions::new().write()), peer.open());
    node.unwrap()
}

pub(crate) async fn acquire(node: &Node, peer: &mut Peer) -> LockGuard {
    let (guard, ()) = tokio::join!(node.acquire(LockMode::Exclusive), peer.grant());
    guard.unwrap()
}
