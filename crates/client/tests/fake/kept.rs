//! Handles that are kept open for the next who opens their nodes (P§2.7: "only the first Open").

use super::cache::{asks, at_once, leased, read};
use super::*;
use wombat_client::Consistency;
use wombat_proto::{CacheKey, Generation, Instance, Sequencer};

const PATH: &str = "/ls/local/f";

fn reading() -> OpenOptions {
    OpenOptions::new()
}

/// Opens the node in this way, which asks the cell.
async fn open_as(cell: &Cell, peer: &mut Peer, options: OpenOptions) -> Node {
    let (node, ()) = tokio::join!(cell.open(PATH, options), peer.open());
    node.unwrap()
}

/// A session that has the node cached, and a handle on it that was opened in this way and is not needed any more.
async fn kept(options: OpenOptions) -> (TcpListener, Peer, Cell) {
    let (listener, mut peer, cell) = leased().await;
    let node = open_as(&cell, &mut peer, options).await;
    read(&node, &mut peer, "a").await;
    drop(node);
    settle(&cell, &mut peer).await; // No Close has come.
    assert_eq!(cell.cache_stats().kept_handles, 1);
    (listener, peer, cell)
}

/// The handle that comes to be closed, before anything else does.
async fn closed(cell: &Cell, peer: &mut Peer) -> u64 {
    let mut status = Box::pin(cell.status());
    assert!(poll_once(status.as_mut()).is_pending());
    let (request, call) = peer.call().await;
    let Call::Close(close) = call else { panic!("{call:?}") };
    peer.answer(&request, done()).await;
    peer.status().await;
    status.await.unwrap();
    close.handle.unwrap().id
}

#[test]
fn a_handle_that_is_being_closed_is_not_kept_though_its_node_comes_into_the_cache() {
    run(async {
        let (_listener, mut peer, cell) = leased().await;
        let closing = open_as(&cell, &mut peer, reading()).await;
        let (other, ()) = tokio::join!(cell.open(PATH, reading()), peer.open());
        let other = other.unwrap();
        let closed = {
            let mut close = Box::pin(closing.close());
            assert!(poll_once(close.as_mut()).is_pending());
            let (request, call) = peer.call().await;
            assert!(matches!(call, Call::Close(_)), "{call:?}");
            read(&other, &mut peer, "a").await;
            peer.answer(&request, done()).await;
            close.await
        };
        closed.unwrap();
        assert_eq!(cell.cache_stats().kept_handles, 0, "the cell does not know it any more");
        drop(other);
        assert_eq!(cell.cache_stats().kept_handles, 1);
    });
}

#[test]
fn only_the_first_open_goes_to_the_cell() {
    run(async {
        for options in [reading(), reading().write(), reading().lock_delay(Duration::from_secs(5))] {
            let (_listener, mut peer, cell) = kept(options.clone()).await;
            for _ in 0..3 {
                let node = at_once(cell.open(PATH, options.clone())).unwrap();
                assert!(!node.created());
                assert_eq!((node.instance(), node.path().to_string().as_str()), (Instance(7), "/ls/fake/f"));
                assert_eq!(node.opened_stat().content_generation, Generation(1), "as it is cached");
                assert_eq!(&at_once(node.read()).unwrap()[..], b"a");
                at_once(node.close()).unwrap();
            }
            settle(&cell, &mut peer).await;
        }
    });
}

#[test]
fn a_handle_has_one_user_at_a_time() {
    run(async {
        let (_listener, mut peer, cell) = kept(reading().write()).await;
        let first = at_once(cell.open(PATH, reading().write())).unwrap();
        let second = open_as(&cell, &mut peer, reading().write()).await;
        drop((first, second));
        // Now there are two.
        let first = at_once(cell.open(PATH, reading().write())).unwrap();
        let second = at_once(cell.open(PATH, reading().write())).unwrap();
        assert_eq!(cell.cache_stats().kept_handles, 2);
        // Each is its user's own: what poisons one does nothing to the other.
        first.poison();
        assert_eq!(first.stat().await.err(), Some(Error::Cancelled));
        at_once(second.stat()).unwrap();
    });
}

#[test]
fn a_handle_is_for_those_who_would_have_opened_the_same() {
    run(async {
        let (_listener, _peer, cell) = kept(reading().write().lock_delay(Duration::from_secs(1))).await;
        let same = || reading().write().lock_delay(Duration::from_secs(1));
        for other in [
            reading().lock_delay(Duration::from_secs(1)),
            reading().write(),
            same().events(&[EventKind::ContentsModified]),
            same().create(Create::Must),
            same().create(Create::May).directory(),
            same().create(Create::May).ephemeral(),
            same().sequential(),
            same().at(Consistency::Master),
        ] {
            assert!(asks(cell.open(PATH, other.clone())), "{other:?}");
        }
        let too_large = vec![0; limits::CONTENTS_BYTES + 1];
        let refused = at_once(cell.open(PATH, same().create(Create::May).contents(too_large)));
        assert!(matches!(refused, Err(Error::TooLarge { .. })));
        assert!(asks(cell.open("/ls/local/g", same())));
        assert!(!at_once(cell.open(PATH, same().create(Create::May).contents("b"))).unwrap().created());
        at_once(cell.open(PATH, same())).unwrap();
    });
}

#[test]
fn a_handle_is_used_while_the_cache_knows_that_its_node_is_there() {
    run(async {
        let (_listener, mut peer, cell) = kept(reading()).await;
        peer.invalidate(1, CacheKey::node(Instance(7))).await;
        assert!(asks(cell.open(PATH, reading())));
    });
}

#[test]
fn a_handle_that_is_more_than_a_way_to_read_and_write_is_closed() {
    run(async {
        let Answer::Granted(granted) = granted() else { unreachable!() };
        let sequencer: Sequencer = granted.sequencer.parse().unwrap();
        for spoil in 0..6 {
            let (_listener, mut peer, cell) = leased().await;
            let options = match spoil {
                0 => reading().write().events(&[EventKind::ContentsModified]),
                _ => reading().write(),
            };
            let node = open_as(&cell, &mut peer, options).await;
            read(&node, &mut peer, "a").await;
            let opened = peer.opened;
            match spoil {
                0 => {}
                1 => {
                    let guard = acquire(&node, &mut peer).await;
                    tokio::join!(guard.release(), peer.refuse_next(Error::NotHeld)).0.unwrap_err();
                }
                2 => {
                    let refused = tokio::join!(node.try_acquire(LockMode::Shared), async {
                        peer.refuse_next(Error::LockHeld).await;
                    });
                    refused.0.unwrap_err();
                }
                3 => {
                    let refused = tokio::join!(node.set_sequencer(&sequencer), async {
                        peer.refuse_next(Error::SequencerStale).await;
                    });
                    refused.0.unwrap_err();
                }
                4 => {
                    tokio::join!(node.delete(), peer.refuse_next(Error::NotEmpty)).0.unwrap_err();
                    // What a refusal leaves cached is another matter.
                    let (again, ()) = tokio::join!(node.contents(), peer.read("a", 1));
                    again.unwrap();
                }
                _ => node.poison(),
            }
            drop(node);
            assert_eq!(closed(&cell, &mut peer).await, opened, "{spoil}");
            assert_eq!(cell.cache_stats().kept_handles, 0);
        }
    });
}

impl Peer {
    /// Refuses the next call.
    async fn refuse_next(&mut self, error: Error) {
        let (request, _) = self.call().await;
        self.refuse(&request, error).await;
    }
}

#[test]
fn a_kept_handle_that_is_spoilt_by_its_next_user_is_closed() {
    run(async {
        let (_listener, mut peer, cell) = kept(reading().write()).await;
        let opened = peer.opened;
        let node = at_once(cell.open(PATH, reading().write())).unwrap();
        let guard = acquire(&node, &mut peer).await;
        drop(node);
        // The guard still has it.
        let mut again = Box::pin(cell.open(PATH, reading().write()));
        assert!(poll_once(again.as_mut()).is_pending());
        peer.open().await;
        again.await.unwrap();
        drop(guard);
        let (_, call) = peer.call().await;
        assert!(matches!(call, Call::Release(_)), "{call:?}");
        let (_, call) = peer.call().await;
        assert!(matches!(call, Call::Close(close) if close.handle.unwrap().id == opened));
        assert_eq!(cell.cache_stats().kept_handles, 1, "the other one");
    });
}

#[test]
fn a_handle_on_something_temporary_or_that_nobody_has_read_is_closed() {
    run(async {
        let (_listener, mut peer, cell) = leased().await;
        let node = open_as(&cell, &mut peer, reading()).await;
        let opened = peer.opened;
        drop(node);
        assert_eq!(closed(&cell, &mut peer).await, opened, "nothing says that its node is there");
        // Whoever has an ephemeral node open keeps it there.
        let (node, id) = tokio::join!(cell.open(PATH, reading()), async {
            let (request, _) = peer.call().await;
            let id = request.number;
            let handle = Some(wire::Handle { id, instance: 7, mode: 1, ..Default::default() });
            let stat = Some(wire::Stat { ephemeral: true, ..Default::default() });
            let opened = wire::Opened { handle, created: true, stat, name: "f".into() };
            peer.answer(&request, Answer::Opened(opened)).await;
            id
        });
        let node = node.unwrap();
        read(&node, &mut peer, "a").await;
        drop(node);
        assert_eq!(closed(&cell, &mut peer).await, id);
    });
}

#[test]
fn kept_handles_make_room_when_the_cell_gives_no_more() {
    run(async {
        let (_listener, mut peer, cell) = kept(reading()).await;
        let kept = peer.opened;
        let full = || Error::QuotaExceeded { what: "open handles of one session".into() };
        let (node, ()) = tokio::join!(cell.open("/ls/local/g", reading()), async {
            peer.refuse_next(full()).await;
            let (request, call) = peer.call().await;
            assert!(matches!(call, Call::Close(close) if close.handle.unwrap().id == kept));
            peer.answer(&request, done()).await;
            peer.open().await;
        });
        let _used = node.unwrap();
        // With none to close, it is what it is.
        let (refused, ()) = tokio::join!(cell.open("/ls/local/h", reading().write()), async {
            let (request, call) = peer.call().await;
            assert!(matches!(call, Call::Open(_)), "{call:?}");
            peer.refuse(&request, full()).await;
        });
        assert_eq!(refused.err(), Some(full()));
    });
}

#[test]
fn what_is_kept_does_not_outlive_its_session() {
    run(async {
        let (_listener, mut peer, cell) = kept(reading()).await;
        let keep_alive = peer.keep_alive.take().unwrap();
        peer.refuse(&keep_alive, Error::SessionExpired).await;
        assert_eq!(cell.status().await.err(), Some(Error::SessionExpired));
        assert_eq!(cell.open(PATH, reading()).await.err(), Some(Error::SessionExpired));
    });
}
