//! The client's cache on real servers (P§2.7), as an application sees it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{connect, open, run, serve, signal, wait_for};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use wombat_client::{Cell, Config, Consistency, Create, Error, EventKind, LockMode, OpenOptions};

/// Reads until an answer comes from the cache: its lease begins with the next KeepAlive.
async fn warm<T>(cell: &Cell, mut read: impl AsyncFnMut() -> T) -> T {
    let hits = cell.cache_stats().hits;
    loop {
        let value = read().await;
        if cell.cache_stats().hits > hits {
            return value;
        }
        tokio::task::yield_now().await;
    }
}

#[test]
fn what_was_read_once_is_read_without_the_cell_and_never_out_of_date() {
    let (_dir, serve) = serve("12s");
    run(async {
        let (reader, writer) = (connect(&serve).await, connect(&serve).await);
        let (read, write) = (open(&reader, "/ls/local/f").await, open(&writer, "/ls/local/f").await);
        for round in 0..20 {
            let text = round.to_string();
            write.set(text.clone()).await.unwrap();
            // From when the write is done there is nobody who reads anything older.
            assert_eq!(read.contents().await.unwrap().0, text);
            let cached = warm(&reader, async || read.contents().await.unwrap()).await;
            assert_eq!(cached.0, text);
            assert_eq!(read.at(Consistency::Master).contents().await.unwrap(), cached);
        }
        assert!(reader.cache_stats().invalidations >= 19, "{:?}", reader.cache_stats());
    });
}

/// What an HTTP client gets: the head and the body.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn metrics_and_status_tell_how_much_was_read_from_caches() {
    let (_dir, serve) = serve("12s");
    run(async {
        let cell = connect(&serve).await;
        let node = open(&cell, "/ls/local/f").await;
        warm(&cell, async || node.contents().await.unwrap()).await;
        // The first that a session says is counted from: it may be about the time of an earlier master.
        let hits = || {
            let text = get(&serve.metrics, "/metrics");
            assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
            assert!(text.contains("application/openmetrics-text"), "{text}");
            assert!(text.contains("\nwombat_master 1\n") && text.ends_with("# EOF\n"), "{text}");
            assert!(text.contains("\nwombat_cache_entries 1\n"), "{text}");
            let line = text.lines().find_map(|line| line.strip_prefix("wombat_cache_hits_total "));
            line.unwrap_or_else(|| panic!("{text}")).parse::<u64>().unwrap()
        };
        while hits() < 500 {
            for _ in 0..100 {
                assert!(node.peek().is_some() || !cell.cache_stats().is_live);
            }
            tokio::task::yield_now().await;
        }
        let status = serve.ok(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert!(status.to_string().contains("\"hits\":"), "{status}");
        assert!(serve.ok(&["status"]).contains(" reads so far, lease 2s"), "{}", serve.ok(&["status"]));
    });
    assert!(get(&serve.metrics, "/").starts_with("HTTP/1.1 404"));
}

#[test]
fn the_cache_is_of_no_use_while_the_cell_is_silent_for_longer_than_its_lease() {
    let (_dir, serve) = serve("12s");
    run(async {
        let reader = connect(&serve).await;
        let read = open(&reader, "/ls/local/f").await;
        warm(&reader, async || read.contents().await.unwrap()).await;
        assert!(read.peek().is_some());
        signal(serve.pid(), "STOP");
        wait_for("the cache lease to end", || read.peek().is_none().then_some(()));
        assert!(!reader.cache_stats().is_live);
        let waits = read.contents();
        signal(serve.pid(), "CONT");
        waits.await.unwrap();
        warm(&reader, async || read.contents().await.unwrap()).await;
    });
}

/// Reads a file in a loop, on a runtime of its own, until it is to stop. Returns when the file is cached.
fn poll_forever(address: String) -> (Arc<AtomicBool>, std::thread::JoinHandle<()>) {
    let (stop, (warmed, warm_now)) = (Arc::new(AtomicBool::new(false)), std::sync::mpsc::channel());
    let stopped = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        run(async {
            let cell = Cell::connect([address]).await.unwrap();
            let node = cell.open("/ls/local/f", OpenOptions::new()).await.unwrap();
            warm(&cell, async || node.contents().await.unwrap()).await;
            warmed.send(()).unwrap();
            while !stopped.load(Ordering::Relaxed) {
                node.read().await.unwrap();
            }
        });
    });
    warm_now.recv().unwrap();
    (stop, thread)
}

#[test]
fn a_reader_that_polls_its_cache_keeps_no_write_waiting() {
    let (_dir, serve) = serve("12s");
    run(async {
        let writer = connect(&serve).await;
        let write = open(&writer, "/ls/local/f").await;
        let (stop, reader) = poll_forever(serve.address.clone());
        for round in 0..20 {
            write.set(round.to_string()).await.unwrap();
        }
        let cache = writer.status().await.unwrap().cache.unwrap();
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        assert!(cache.invalidations > 0, "{cache:?}");
        assert_eq!(cache.lapsed, 0, "a change waited for the end of a cache lease: {cache:?}");
    });
}

/// Step 6 of a fail-over would last as long as a cache lease: 2 s.
#[test]
fn a_client_that_died_without_using_its_cache_delays_no_fail_over() {
    let (_dir, mut serve) = serve("12s");
    let mut holder = serve.wombat(&["lock", "/ls/local/l"]).stdout(Stdio::null()).spawn().unwrap();
    wait_for("the lock", || serve.ok(&["locks"]).contains("/ls/local/l").then_some(()));
    holder.kill().unwrap();
    holder.wait().unwrap();
    serve.kill();
    serve.restart();
    let fail_over = run(async {
        let cell = connect(&serve).await;
        let node = cell.open("/ls/local/l", OpenOptions::new()).await.unwrap();
        node.contents().await.unwrap();
        cell.status().await.unwrap().fail_over.unwrap()
    });
    assert!((1..2_000).contains(&fail_over.served_after_ms), "{fail_over:?}");
}

#[test]
fn absence_and_listings_are_cached_and_end_with_what_comes() {
    let (_dir, serve) = serve("12s");
    run(async {
        let (reader, writer) = (connect(&serve).await, connect(&serve).await);
        let missing = async || reader.open("/ls/local/d/x", OpenOptions::new()).await.err();
        let directory = OpenOptions::new().create(Create::May).directory();
        writer.open("/ls/local/d", directory.clone()).await.unwrap();
        let listed = reader.open("/ls/local/d", directory).await.unwrap();
        assert_eq!(warm(&reader, missing).await, Some(Error::not_found("/ls/local/d/x")));
        assert_eq!(warm(&reader, async || listed.list().await.unwrap()).await, []);
        open(&writer, "/ls/local/d/x").await;
        assert!(missing().await.is_none());
        assert_eq!(listed.list().await.unwrap().len(), 1);
    });
}

#[test]
fn who_hears_of_a_change_reads_what_has_changed() {
    let (_dir, serve) = serve("12s");
    run(async {
        let (reader, writer) = (connect(&serve).await, connect(&serve).await);
        let write = open(&writer, "/ls/local/f").await;
        let events = OpenOptions::new().events(&[EventKind::ContentsModified]);
        let read = reader.open("/ls/local/f", events).await.unwrap();
        let mut changes = read.events();
        for round in 1..50 {
            read.contents().await.unwrap();
            write.set(round.to_string()).await.unwrap();
            changes.recv().await.unwrap();
            assert_eq!(read.contents().await.unwrap().0, round.to_string());
        }
    });
}

#[test]
fn a_sequencer_is_checked_in_the_cache_and_stale_from_when_another_has_the_lock() {
    let (_dir, serve) = serve("12s");
    run(async {
        let (one, two, service) = (connect(&serve).await, connect(&serve).await, connect(&serve).await);
        let (first, second) = (open(&one, "/ls/local/l").await, open(&two, "/ls/local/l").await);
        let mut guard = first.acquire(LockMode::Exclusive).await.unwrap();
        let mut turns = [&second, &first].into_iter().cycle();
        for _ in 0..10 {
            let sequencer = guard.sequencer().clone();
            let check = async || service.check_sequencer_cached(&sequencer).await;
            assert_eq!(warm(&service, check).await, Ok(()));
            guard.release().await.unwrap();
            guard = turns.next().unwrap().acquire(LockMode::Exclusive).await.unwrap();
            assert_eq!(service.check_sequencer_cached(&sequencer).await, Err(Error::SequencerStale));
        }
    });
}

#[test]
fn without_a_cache_every_read_asks_and_nobody_waits_for_it() {
    let (_dir, serve) = serve("12s");
    run(async {
        let config = Config::new([serve.address.clone()]).no_cache();
        let cell = Cell::connect_with(config).await.unwrap();
        let node = open(&cell, "/ls/local/f").await;
        for _ in 0..10 {
            node.contents().await.unwrap();
        }
        let stats = cell.cache_stats();
        assert_eq!((stats.hits, stats.entries), (0, 0));
        let status = cell.status().await.unwrap();
        assert_eq!(status.cache.unwrap().entries, 0);
    });
}

#[test]
#[ignore = "takes half a minute: so long is a handle kept that nobody needs"]
fn a_kept_handle_that_nobody_needs_is_closed() {
    let (_dir, serve) = serve("12s");
    run(async {
        let (cell, other) = (connect(&serve).await, connect(&serve).await);
        let node = open(&cell, "/ls/local/f").await;
        warm(&cell, async || node.contents().await.unwrap()).await;
        node.close().await.unwrap();
        let handles = async || {
            let sessions = other.sessions().await.unwrap();
            sessions.iter().find(|info| info.session == cell.session().0).unwrap().handles
        };
        assert_eq!((cell.cache_stats().kept_handles, handles().await), (1, 1));
        while handles().await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(cell.cache_stats().kept_handles, 0);
    });
}
