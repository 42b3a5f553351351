//! The library against a server that a script plays: it answers when, and what, a real one seldom does.
//!
//! Nothing here waits for time to pass: an order that follows another one shows that the first was carried out.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cache;
mod kept;
mod placement;

use bytes::BytesMut;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wombat_client::{
    Cell, Config, Create, Election, Error, EventKind, LockGuard, LockMode, Node, OpenOptions, Result,
    SessionEvent,
};
use wombat_proto::wire::{self, Request, Response, request::Call, response::Result as Answer};
use wombat_proto::{frame, limits};

/// One connection, seen from the server.
struct Peer {
    stream: TcpStream,
    inward: BytesMut,
    /// The KeepAlive that waits.
    keep_alive: Option<Request>,
    /// The handle that was opened last.
    opened: u64,
}

impl Peer {
    async fn accept(listener: &TcpListener) -> Peer {
        let stream = listener.accept().await.unwrap().0;
        stream.set_nodelay(true).unwrap();
        Peer { stream, inward: BytesMut::new(), keep_alive: None, opened: 0 }
    }

    /// The next request of any kind.
    async fn request(&mut self) -> Request {
        loop {
            if let Some(request) = frame::read(&mut self.inward).unwrap() {
                return request;
            }
            assert!(self.stream.read_buf(&mut self.inward).await.unwrap() > 0, "the client hung up");
        }
    }

    /// The next request that is no KeepAlive, and no probe of a client that has waited for long on a busy machine.
    async fn call(&mut self) -> (Request, Call) {
        loop {
            let request = self.request().await;
            match request.call.clone().unwrap() {
                Call::Hello(_) => self.welcome(&request).await,
                Call::KeepAlive(_) => self.keep_alive = Some(request),
                call => return (request, call),
            }
        }
    }

    async fn answer(&mut self, request: &Request, answer: Answer) {
        self.answer_cachable(request, None, answer).await;
    }

    async fn answer_cachable(&mut self, request: &Request, cachable: Option<wire::Cachable>, answer: Answer) {
        let mut out = BytesMut::new();
        let Request { session, number, .. } = *request;
        frame::write(&Response { session, number, cachable, result: Some(answer) }, &mut out);
        self.stream.write_all(&out).await.unwrap();
    }

    async fn refuse(&mut self, request: &Request, error: Error) {
        self.answer(request, Answer::Error((&error).into())).await;
    }

    /// Says that this is the master.
    async fn welcome(&mut self, hello: &Request) {
        let welcome = wire::Welcome { cell: "fake".into(), epoch: 1, ..wire::Welcome::default() };
        self.answer(hello, Answer::Welcome(welcome)).await;
    }

    /// Greets a client and opens its session, or opens it again. Returns how it asked for that.
    async fn attach(&mut self) -> Call {
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
    async fn open(&mut self) {
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
    async fn grant(&mut self) {
        let (request, call) = self.call().await;
        assert!(matches!(call, Call::Acquire(_)), "{call:?}");
        self.answer(&request, granted()).await;
    }

    /// Answers the GetStatus that comes next; whatever was sent before has arrived by then, in both directions.
    async fn status(&mut self) {
        let (request, call) = self.call().await;
        assert!(matches!(call, Call::GetStatus(_)), "{call:?}");
        self.answer(&request, Answer::Status(wire::Status::default())).await;
    }
}

fn write(out: &mut BytesMut, request: &Request, answer: Answer) {
    let Request { session, number, .. } = *request;
    frame::write(&Response { session, number, cachable: None, result: Some(answer) }, out);
}

fn granted() -> Answer {
    let sequencer = wombat_proto::Sequencer {
        path: wombat_proto::Path::parse("/ls/fake/f").unwrap(),
        instance: wombat_proto::Instance(7),
        mode: LockMode::Exclusive,
        generation: wombat_proto::Generation(1),
        token: wombat_proto::Token(9),
    };
    Answer::Granted(wire::Granted { sequencer: sequencer.to_string() })
}

fn done() -> Answer {
    Answer::Done(wire::Done {})
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(120), future).await.expect("in two minutes")
    })
}

/// Looks at a future once.
fn poll_once<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

async fn connected() -> (TcpListener, Peer, Cell) {
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
async fn settle(cell: &Cell, peer: &mut Peer) {
    let (status, ()) = tokio::join!(cell.status(), peer.status());
    status.unwrap();
}

async fn open(cell: &Cell, peer: &mut Peer) -> Node {
    let (node, ()) = tokio::join!(cell.open("/ls/local/f", OpenOptions::new().write()), peer.open());
    node.unwrap()
}

async fn acquire(node: &Node, peer: &mut Peer) -> LockGuard {
    let (guard, ()) = tokio::join!(node.acquire(LockMode::Exclusive), peer.grant());
    guard.unwrap()
}

#[test]
fn a_lock_that_was_granted_to_a_caller_who_left_is_given_back() {
    run(async {
        let (_listener, mut peer, cell) = connected().await;
        let node = open(&cell, &mut peer).await;
        {
            let mut acquire = pin!(node.acquire(LockMode::Exclusive));
            assert!(poll_once(acquire.as_mut()).is_pending());
            peer.grant().await;
            // The answer is there, and its caller leaves without having looked.
            settle(&cell, &mut peer).await;
        }
        let (status, call) = tokio::join!(cell.status(), async {
            let (request, call) = peer.call().await;
            peer.answer(&request, done()).await;
            if !matches!(call, Call::GetStatus(_)) {
                peer.status().await;
            }
            call
        });
        drop(status);
        assert!(matches!(call, Call::Release(_) | Call::CancelAcquire(_)), "{call:?}");
    });
}

#[test]
fn a_handle_that_was_opened_for_a_caller_who_left_is_closed() {
    run(async {
        let (_listener, mut peer, cell) = connected().await;
        {
            let mut opening = pin!(cell.open("/ls/local/f", OpenOptions::new()));
            assert!(poll_once(opening.as_mut()).is_pending());
            peer.open().await;
            settle(&cell, &mut peer).await;
        }
        let (status, call) = tokio::join!(cell.status(), async {
            let (request, call) = peer.call().await;
            peer.answer(&request, done()).await;
            if !matches!(call, Call::GetStatus(_)) {
                peer.status().await;
            }
            call
        });
        drop(status);
        assert!(matches!(call, Call::Close(_)), "{call:?}");
    });
}

#[test]
fn a_grant_that_cannot_be_read_leaves_no_lock_behind() {
    for answer in [Answer::Granted(wire::Granted { sequencer: "of another time".into() }), done()] {
        run(async {
            let (_listener, mut peer, cell) = connected().await;
            let node = open(&cell, &mut peer).await;
            let (guard, ()) = tokio::join!(node.acquire(LockMode::Exclusive), async {
                let (request, _) = peer.call().await;
                peer.answer(&request, answer).await;
            });
            assert!(guard.is_err());
            let mut status = pin!(cell.status());
            assert!(poll_once(status.as_mut()).is_pending());
            let (_, call) = peer.call().await;
            assert!(matches!(call, Call::Release(_)), "{call:?}");
        });
    }
}

#[test]
fn a_guard_is_not_safe_while_one_of_two_deletions_is_under_way() {
    run(async {
        let (_listener, mut peer, cell) = connected().await;
        let node = open(&cell, &mut peer).await;
        let guard = acquire(&node, &mut peer).await;
        assert!(guard.is_safe());
        let (mut first, mut second) = (Box::pin(node.delete()), Box::pin(node.delete()));
        assert!(poll_once(first.as_mut()).is_pending() && poll_once(second.as_mut()).is_pending());
        let (one, _) = peer.call().await;
        let (other, _) = peer.call().await;
        peer.refuse(&one, Error::NotEmpty).await;
        assert_eq!(first.await, Err(Error::NotEmpty));
        assert!(!guard.is_safe(), "the second may have deleted the node by now");
        peer.refuse(&other, Error::NotEmpty).await;
        assert_eq!(second.await, Err(Error::NotEmpty));
        assert!(guard.is_safe());
    });
}

#[test]
fn no_guard_is_safe_once_its_session_is_being_ended_and_both_who_end_it_wait() {
    run(async {
        let (_listener, mut peer, cell) = connected().await;
        let node = open(&cell, &mut peer).await;
        let guard = acquire(&node, &mut peer).await;
        let mut life = cell.session_events();
        let (mut first, mut second) = (Box::pin(cell.clone().close()), Box::pin(cell.clone().close()));
        assert!(poll_once(first.as_mut()).is_pending() && poll_once(second.as_mut()).is_pending());
        let (one, call) = peer.call().await;
        assert!(matches!(call, Call::EndSession(_)), "{call:?}");
        assert!(!guard.is_safe(), "its lock may be somebody else's by now");
        settle_past_the_end(&cell, &mut peer).await;
        assert!(poll_once(first.as_mut()).is_pending(), "it has not ended yet");
        peer.answer(&one, done()).await;
        first.await.unwrap();
        second.await.unwrap();
        guard.lost().await;
        assert_eq!(life.recv().await, Some(SessionEvent::Expired));
        assert_eq!(node.stat().await.err(), Some(Error::SessionExpired));
    });
}

/// As [`settle`], where other calls may stand before the status. They are not answered.
async fn settle_past_the_end(cell: &Cell, peer: &mut Peer) {
    let (status, ()) = tokio::join!(cell.status(), async {
        loop {
            let (request, call) = peer.call().await;
            if matches!(call, Call::GetStatus(_)) {
                return peer.answer(&request, Answer::Status(wire::Status::default())).await;
            }
        }
    });
    status.unwrap();
}

#[test]
fn the_streams_of_a_lost_session_end() {
    run(async {
        let (_listener, mut peer, cell) = connected().await;
        let mut life = cell.session_events();
        let options = || OpenOptions::new().events(&[EventKind::ContentsModified]);
        let (node, ()) = tokio::join!(cell.open("/ls/local/f", options()), peer.open());
        let mut events = node.as_ref().unwrap().events();
        // A node that was opened, and its caller did not look before the session was lost.
        let mut late = Box::pin(cell.open("/ls/local/f", options()));
        assert!(poll_once(late.as_mut()).is_pending());
        peer.open().await;
        let (read, ()) = tokio::join!(node.as_ref().unwrap().stat(), async {
            let (request, _) = peer.call().await;
            peer.refuse(&request, Error::SessionExpired).await;
        });
        assert_eq!(read.err(), Some(Error::SessionExpired));
        assert_eq!(life.recv().await, Some(SessionEvent::Expired));
        assert_eq!(life.recv().await, None);
        assert_eq!(cell.session_events().recv().await, None);
        assert_eq!(events.recv().await, None);
        let late: Result<Node> = late.await;
        assert_eq!(late.unwrap().events().recv().await, None);
    });
}

#[test]
fn a_new_connection_begins_with_hello_whatever_the_last_one_left() {
    run(async {
        let (listener, mut peer, cell) = connected().await;
        settle(&cell, &mut peer).await;
        // One batch: an answer that leads to a request, then nonsense.
        let keep_alive = peer.keep_alive.take().unwrap();
        let mut out = BytesMut::new();
        let kept = wire::KeptAlive { lease_ms: 60_000, epoch: 1, first_event: 1, ..Default::default() };
        write(&mut out, &keep_alive, Answer::KeptAlive(kept));
        out.extend_from_slice(&[0xff; 8]);
        peer.stream.write_all(&out).await.unwrap();
        let mut peer = Peer::accept(&listener).await;
        let first = peer.request().await.call.unwrap();
        assert!(matches!(first, Call::Hello(_)), "{first:?}");
    });
}

#[test]
fn a_leader_is_told_with_its_own_token() {
    run(async {
        let (_listener, mut peer, cell) = connected().await;
        let election = Election::new(&cell, "/ls/local/f");
        let (leader, ()) = tokio::join!(election.leader(), async {
            peer.open().await;
            // Between the two looks at it, another one has come to lead.
            for (token, value) in [(10, "anna"), (20, "bert")] {
                let (request, call) = peer.call().await;
                let answer = match call {
                    Call::GetContents(_) => {
                        let stat = wire::Stat { modified_slot: token + 1, ..wire::Stat::default() };
                        Answer::Contents(wire::Contents { contents: value.into(), stat: Some(stat) })
                    }
                    Call::ListLocks(_) => {
                        let holders = vec![wire::Holder { token, ..wire::Holder::default() }];
                        let lock =
                            wire::LockInfo { path: "/ls/fake/f".into(), holders, ..Default::default() };
                        Answer::Locks(wire::Locks { locks: vec![lock], ..Default::default() })
                    }
                    call => panic!("{call:?}"),
                };
                peer.answer(&request, answer).await;
            }
        });
        let leader = leader.unwrap().map(|leader| (leader.value, leader.token.0));
        let possible = [None, Some(("anna".into(), 10)), Some(("bert".into(), 20))];
        assert!(possible.contains(&leader), "{leader:?}");
    });
}

#[test]
fn a_wait_of_more_milliseconds_than_can_be_said_is_not_a_short_one() {
    run(async {
        let (_listener, mut peer, cell) = connected().await;
        let node = open(&cell, &mut peer).await;
        // 2^64 ms and a bit.
        let ages = Duration::from_secs(u64::MAX / 1000 + 1);
        let mut acquire = pin!(node.acquire_within(LockMode::Exclusive, ages));
        assert!(poll_once(acquire.as_mut()).is_pending());
        let (_, call) = peer.call().await;
        let Call::Acquire(acquire) = call else { panic!("{call:?}") };
        assert_eq!(acquire.timeout_ms, u64::MAX);
    });
}

/// An address that takes connections and never answers.
async fn mute() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// An address at which nothing listens.
async fn refusing() -> String {
    mute().await.1
}

#[test]
fn a_client_passes_silent_endpoints_by_in_every_order() {
    run(async {
        let ((_first, first), (_second, second)) = (mute().await, mute().await);
        for place in 0..5 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut endpoints = vec![first.clone(), second.clone(), refusing().await, refusing().await];
            endpoints.insert(place, listener.local_addr().unwrap().to_string());
            let begun = std::time::Instant::now();
            let (cell, _peer) = tokio::join!(Cell::connect(endpoints), async {
                let mut peer = Peer::accept(&listener).await;
                peer.attach().await;
                peer
            });
            cell.unwrap();
            // An answer of a silent endpoint is waited for two seconds and more.
            assert!(begun.elapsed() < Duration::from_millis(1500), "{place}: {:?}", begun.elapsed());
        }
    });
}

#[test]
fn a_name_of_several_addresses_is_searched_like_a_list() {
    run(async {
        // `localhost` is ::1 and 127.0.0.1 on most machines: whichever of them answers.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let name = format!("localhost:{}", listener.local_addr().unwrap().port());
        let (cell, _peer) = tokio::join!(Cell::connect([name]), async {
            let mut peer = Peer::accept(&listener).await;
            peer.attach().await;
            peer
        });
        cell.unwrap();
    });
}

#[test]
fn an_unreachable_cell_says_what_became_of_each_endpoint() {
    run(async {
        let ((_listener, mute), refusing) = (mute().await, refusing().await);
        let follower = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = follower.local_addr().unwrap().to_string();
        let mut config = Config::new([mute.clone(), refusing.clone(), at.clone()]);
        config.connect_timeout = Duration::from_millis(1500);
        let connect = Cell::connect_with(config);
        let follow = async {
            let mut peer = Peer::accept(&follower).await;
            loop {
                let hello = peer.request().await;
                let welcome = wire::Welcome { cell: "fake".into(), ..wire::Welcome::default() };
                peer.answer(&hello, Answer::Welcome(welcome)).await;
            }
        };
        let failed = tokio::select! {
            biased;
            failed = connect => failed.err(),
            () = follow => unreachable!("it answers for ever"),
        };
        let Some(Error::Unreachable { what }) = failed else { panic!("{failed:?}") };
        assert!(what.contains(&format!("{mute}: no answer within 1.")), "{what}");
        assert!(what.contains(&format!("{refusing}: connection refused")), "{what}");
        assert!(what.contains(&format!("{at} answered: no master known")), "{what}");
    });
}

#[test]
fn a_description_that_is_too_long_is_refused_at_once() {
    run(async {
        let mut config = Config::new(["127.0.0.1:1"]);
        config.client = "x".repeat(limits::CLIENT_DESCRIPTION_BYTES + 1);
        let refused = Cell::connect_with(config).await.err();
        assert!(matches!(refused, Some(Error::TooLarge { .. })), "{refused:?}");
    });
}

#[test]
fn an_acquire_that_is_given_up_before_its_answer_is_taken_back() {
    run(async {
        let (_listener, mut peer, cell) = connected().await;
        let node = open(&cell, &mut peer).await;
        let number = {
            let mut acquire = pin!(node.acquire(LockMode::Exclusive));
            assert!(poll_once(acquire.as_mut()).is_pending());
            peer.call().await.0.number
        };
        let (_, call) = peer.call().await;
        let Call::CancelAcquire(cancel) = call else { panic!("{call:?}") };
        assert_eq!(cancel.acquire, number);
    });
}

#[test]
fn nothing_is_made_of_an_answer_that_comes_twice() {
    run(async {
        let (_listener, mut peer, cell) = connected().await;
        let options = OpenOptions::new().write().create(Create::May);
        let (node, ()) = tokio::join!(cell.open("/ls/local/f", options), async {
            let (request, _) = peer.call().await;
            let handle = wire::Handle { id: request.number, ..Default::default() };
            let opened = wire::Opened {
                handle: Some(handle),
                created: true,
                stat: Some(Default::default()),
                name: "f".into(),
            };
            peer.answer(&request, Answer::Opened(opened.clone())).await;
            peer.answer(&request, Answer::Opened(opened)).await;
        });
        settle(&cell, &mut peer).await;
        assert!(node.unwrap().created());
    });
}

#[test]
fn poison_ends_what_is_outstanding_and_lets_nothing_more_out() {
    run(async {
        let (_listener, mut peer, cell) = connected().await;
        let node = open(&cell, &mut peer).await;
        let (mut read, mut write) = (Box::pin(node.stat()), Box::pin(node.set("x")));
        let mut wait = Box::pin(node.acquire(LockMode::Exclusive));
        assert!(poll_once(read.as_mut()).is_pending() && poll_once(write.as_mut()).is_pending());
        assert!(poll_once(wait.as_mut()).is_pending());
        let (_read, _) = peer.call().await;
        let (written, _) = peer.call().await;
        let (acquire, call) = peer.call().await;
        assert!(matches!(call, Call::Acquire(_)), "{call:?}");
        node.poison();
        assert_eq!(read.await.err(), Some(Error::Cancelled));
        assert_eq!(write.await.err(), Some(Error::Unknown), "it may take effect");
        assert_eq!(wait.await.err(), Some(Error::Cancelled));
        let (_, call) = peer.call().await;
        let Call::CancelAcquire(cancel) = call else { panic!("{call:?}") };
        assert_eq!(cancel.acquire, acquire.number);
        peer.answer(&written, done()).await;
        // Nothing more is sent for this handle until it is closed.
        assert_eq!(node.stat().await.err(), Some(Error::Cancelled));
        assert_eq!(node.delete().await.err(), Some(Error::Cancelled));
        assert_eq!(node.try_acquire(LockMode::Shared).await.err(), Some(Error::Cancelled));
        settle(&cell, &mut peer).await;
        let (closed, call) = tokio::join!(node.close(), async {
            let (request, call) = peer.call().await;
            peer.answer(&request, done()).await;
            call
        });
        closed.unwrap();
        assert!(matches!(call, Call::Close(_)), "{call:?}");
    });
}

#[test]
fn a_lock_that_was_granted_just_as_its_handle_was_poisoned_is_given_back() {
    run(async {
        let (_listener, mut peer, cell) = connected().await;
        let node = open(&cell, &mut peer).await;
        let mut wait = Box::pin(node.acquire(LockMode::Exclusive));
        assert!(poll_once(wait.as_mut()).is_pending());
        peer.grant().await;
        settle(&cell, &mut peer).await;
        node.poison();
        assert_eq!(wait.await.err(), Some(Error::Cancelled));
        let (_, call) = peer.call().await;
        assert!(matches!(call, Call::Release(_)), "{call:?}");
    });
}

#[test]
fn a_guard_outlives_the_poison() {
    run(async {
        let (_listener, mut peer, cell) = connected().await;
        let node = open(&cell, &mut peer).await;
        let guard = acquire(&node, &mut peer).await;
        node.poison();
        assert!(guard.is_safe());
        let (released, call) = tokio::join!(guard.release(), async {
            let (request, call) = peer.call().await;
            peer.answer(&request, done()).await;
            call
        });
        released.unwrap();
        assert!(matches!(call, Call::Release(_)), "{call:?}");
    });
}

/// Answers the KeepAlive that waits with an event of that handle's, number `number`.
async fn tell(peer: &mut Peer, number: u64, kind: EventKind, handle: u64, slot: u64) {
    let keep_alive = peer.keep_alive.take().unwrap();
    let event = wire::Event { kind: kind.into(), handle, slot, ..Default::default() };
    let events = vec![event];
    let kept =
        wire::KeptAlive { lease_ms: 60_000, epoch: 1, first_event: number, events, ..Default::default() };
    peer.answer(&keep_alive, Answer::KeptAlive(kept)).await;
}

/// Answers the look at a lock for which so many wait.
async fn look(peer: &mut Peer, waiting: u64) {
    let (request, call) = peer.call().await;
    assert!(matches!(call, Call::GetStat(_)), "first the master has to know the handle: {call:?}");
    peer.answer(&request, Answer::Stat(wire::Stat::default())).await;
    let (request, call) = peer.call().await;
    assert!(matches!(call, Call::ListLocks(_)), "{call:?}");
    let lock = wire::LockInfo { path: "/ls/fake/f".into(), waiting, ..Default::default() };
    peer.answer(&request, Answer::Locks(wire::Locks { locks: vec![lock], ..Default::default() })).await;
}

#[test]
fn a_guard_is_wanted_by_those_who_came_after_the_grant_whenever_that_is_told() {
    run(async {
        let (_listener, mut peer, cell) = connected().await;
        let options = OpenOptions::new().write().gives_way();
        let (node, opened) = tokio::join!(cell.open("/ls/local/f", options), async {
            let (request, call) = peer.call().await;
            let Call::Open(open) = call else { panic!("{call:?}") };
            let (id, events) = (request.number, open.events);
            let handle =
                Some(wire::Handle { id, instance: 7, mode: open.mode, events, ..Default::default() });
            let opened =
                wire::Opened { handle, created: false, stat: Some(wire::Stat::default()), name: "f".into() };
            peer.answer(&request, Answer::Opened(opened)).await;
            id
        });
        let node = node.unwrap();
        settle(&cell, &mut peer).await;
        // The token that the peer grants is 9. A late word about an earlier grant of this handle:
        tell(&mut peer, 1, EventKind::LockConflict, opened, 8).await;
        let guard = acquire(&node, &mut peer).await;
        settle(&cell, &mut peer).await;
        assert!(poll_once(pin!(guard.wanted()).as_mut()).is_pending());
        // A gap, and nobody waits: it asks once.
        tell(&mut peer, 2, EventKind::Gap, 0, 9).await;
        settle(&cell, &mut peer).await;
        let looks = async {
            look(&mut peer, 0).await;
            settle(&cell, &mut peer).await;
            settle(&cell, &mut peer).await;
        };
        tokio::select! {
            biased;
            wanted = guard.wanted() => panic!("{wanted:?}"),
            () = looks => {}
        }
        // A gap, and somebody waits.
        tell(&mut peer, 3, EventKind::Gap, 0, 9).await;
        settle(&cell, &mut peer).await;
        tokio::join!(guard.wanted(), look(&mut peer, 1)).0.unwrap();
        // Told while nobody asks.
        tell(&mut peer, 4, EventKind::LockConflict, opened, 9).await;
        settle(&cell, &mut peer).await;
        guard.wanted().await.unwrap();
        guard.wanted().await.unwrap();
    });
}

#[test]
fn a_guard_whose_handle_does_not_give_way_says_so_when_it_is_asked_who_waits() {
    run(async {
        let (_listener, mut peer, cell) = connected().await;
        let node = open(&cell, &mut peer).await;
        let guard = acquire(&node, &mut peer).await;
        assert!(matches!(guard.wanted().await, Err(Error::InvalidArgument { .. })));
    });
}

#[test]
fn what_happened_in_a_new_file_of_an_election_before_it_was_opened_is_told() {
    run(async {
        let (_listener, mut peer, cell) = connected().await;
        let election = Election::new(&cell, "/ls/local/f");
        let (changes, ()) = tokio::join!(election.observe(), peer.open());
        let mut changes = changes.unwrap();
        // The file was deleted, and made again by a leader who has written already. No event will come.
        let (leader, ()) = tokio::join!(changes.next(), async {
            let (request, call) = peer.call().await;
            assert!(matches!(call, Call::GetContents(_)), "{call:?}");
            peer.refuse(&request, Error::StaleHandle).await;
            peer.open().await;
            for _ in 0..3 {
                let (request, call) = peer.call().await;
                let answer = match call {
                    Call::Close(_) => done(), // Of the old file.
                    Call::GetContents(_) => {
                        let stat = Some(wire::Stat { modified_slot: 11, ..wire::Stat::default() });
                        Answer::Contents(wire::Contents { contents: "anna".into(), stat })
                    }
                    Call::ListLocks(_) => {
                        let holders = vec![wire::Holder { token: 10, ..wire::Holder::default() }];
                        let lock =
                            wire::LockInfo { path: "/ls/fake/f".into(), holders, ..Default::default() };
                        Answer::Locks(wire::Locks { locks: vec![lock], ..Default::default() })
                    }
                    call => panic!("{call:?}"),
                };
                peer.answer(&request, answer).await;
            }
        });
        assert_eq!(leader.unwrap().unwrap().unwrap().value, "anna");
    });
}
