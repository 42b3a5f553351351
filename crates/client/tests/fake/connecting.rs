//! How a client finds its server, and what it says when there is none.

use super::*;

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
