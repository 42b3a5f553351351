//! What a session needs of the application's runtime: nothing that lasts.

use super::cache::{leased, read};
use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use wombat_proto::CacheKey;

/// How long something may take that happens at once, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A server on a thread of its own, which goes on with `script` once a client has opened its session. Returns the
/// server's address.
fn server<F: Future<Output = ()>>(
    script: impl FnOnce(TcpListener, Peer) -> F + Send + 'static,
) -> (String, JoinHandle<()>) {
    let (told, address) = channel();
    let thread = std::thread::spawn(move || {
        run(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            told.send(listener.local_addr().unwrap().to_string()).unwrap();
            let mut peer = Peer::accept(&listener).await;
            peer.attach().await;
            script(listener, peer).await;
        });
    });
    (address.recv().unwrap(), thread)
}

/// Blocks this thread, and with it the runtime on it.
#[track_caller]
fn block(until: &Receiver<()>) {
    until.recv_timeout(PATIENCE).expect("it happens although the runtime is blocked");
}

/// Does something that the cache answers again and again. Another task has its turn meanwhile.
async fn gives_way<T>(what: &str, act: impl AsyncFn() -> T) {
    let other_ran = Arc::new(AtomicBool::new(false));
    let other = Arc::clone(&other_ran);
    tokio::spawn(async move { other.store(true, Ordering::Relaxed) });
    let mut count = 0;
    while !other_ran.load(Ordering::Relaxed) {
        act().await;
        count += 1;
        assert!(count < 100_000, "{what}: it never gives way");
    }
}

#[test]
fn cached_reads_in_a_loop_give_way_to_other_tasks() {
    run(async {
        let (_listener, mut peer, cell) = leased().await;
        let node = open(&cell, &mut peer).await;
        read(&node, &mut peer, "a").await;
        let absent = || cell.open("/ls/local/d/x", OpenOptions::new());
        drop(tokio::join!(absent(), peer.absent(3, "x")));
        let (kept, ()) = tokio::join!(cell.open("/ls/local/f", OpenOptions::new()), peer.open());
        kept.unwrap().close().await.unwrap();
        let misses = cell.cache_stats().misses;
        gives_way("read", || node.read()).await;
        gives_way("contents", || node.contents()).await;
        gives_way("stat", || node.stat()).await;
        gives_way("absence", absent).await;
        gives_way("kept handle", || cell.open("/ls/local/f", OpenOptions::new())).await;
        assert_eq!(cell.cache_stats().misses, misses, "it asked the cell, and so it waited");
    });
}

#[test]
fn a_blocked_runtime_does_not_keep_its_session_from_answering() {
    let (acknowledged, wait) = channel();
    let (address, server) = server(async move |_listener, mut peer: Peer| {
        peer.open().await;
        peer.kept_alive(1, &[], None).await;
        peer.read("a", 1).await;
        peer.invalidate(1, CacheKey::node(wombat_proto::Instance(7))).await;
        acknowledged.send(()).unwrap();
        peer.read("b", 2).await;
    });
    runtime().block_on(async {
        let cell = Cell::connect([address]).await.unwrap();
        let node = cell.open("/ls/local/f", OpenOptions::new()).await.unwrap();
        assert_eq!(&node.read().await.unwrap()[..], b"a");
        block(&wait);
        assert_eq!(&node.read().await.unwrap()[..], b"b");
    });
    server.join().unwrap();
}

#[test]
fn a_session_whose_runtime_is_blocked_connects_again() {
    let (attached, wait) = channel();
    let (address, server) = server(async move |listener, peer: Peer| {
        drop(peer);
        // A connection that is being made when the task moves is given up and made again.
        let mut peer = loop {
            let peer = Peer::accept(&listener).await;
            if peer.stream.peek(&mut [0]).await.is_ok_and(|bytes| bytes > 0) {
                break peer;
            }
        };
        assert!(matches!(peer.attach().await, Call::ResumeSession(_)));
        attached.send(()).unwrap();
        peer.status().await;
    });
    runtime().block_on(async {
        let cell = Cell::connect([address]).await.unwrap();
        block(&wait);
        cell.status().await.unwrap();
    });
    server.join().unwrap();
}

#[test]
fn a_session_survives_the_runtime_that_it_began_on() {
    let (address, server) = server(async move |_listener, mut peer: Peer| {
        for _ in 0..3 {
            peer.status().await;
        }
    });
    let first = runtime();
    let cell = first.block_on(Cell::connect([address])).unwrap();
    first.block_on(cell.status()).unwrap();
    drop(first);
    runtime().block_on(cell.status()).unwrap();
    runtime().block_on(cell.status()).unwrap();
    server.join().unwrap();
}

/// The next EndSession, after KeepAlives and whatever else is given back.
async fn end_session(peer: &mut Peer) -> Request {
    loop {
        let (request, call) = peer.call().await;
        match call {
            Call::EndSession(_) => return request,
            _ => peer.answer(&request, done()).await,
        }
    }
}

#[test]
fn a_cell_that_is_dropped_ends_its_session_over_broken_connections() {
    run(async {
        let (listener, mut peer, cell) = connected().await;
        let node = open(&cell, &mut peer).await;
        drop((cell, node));
        let _lost_with_the_connection = end_session(&mut peer).await;
        drop(peer);
        let mut peer = Peer::accept(&listener).await;
        assert!(matches!(peer.attach().await, Call::ResumeSession(_)));
        let request = end_session(&mut peer).await;
        peer.answer(&request, done()).await;
        // Nobody needs the connection any more.
        let closed = async { while peer.stream.read_buf(&mut peer.inward).await.unwrap() > 0 {} };
        closed.await;
    });
}

#[test]
fn a_cell_that_is_dropped_with_its_runtime_ends_its_session() {
    for blocked in [false, true] {
        let (ended, wait) = channel();
        let (address, server) = server(async move |_listener, mut peer: Peer| {
            peer.open().await;
            let request = end_session(&mut peer).await;
            peer.answer(&request, done()).await;
            ended.send(()).unwrap();
        });
        let runtime = runtime();
        runtime.block_on(async {
            let cell = Cell::connect([address]).await.unwrap();
            drop(cell.open("/ls/local/f", OpenOptions::new()).await.unwrap());
            drop(cell);
            if blocked {
                block(&wait);
            }
        });
        drop(runtime);
        if !blocked {
            block(&wait);
        }
        server.join().unwrap();
    }
}
