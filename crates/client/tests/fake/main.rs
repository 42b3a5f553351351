//! The library against a server that a script plays: it answers when, and what, a real one seldom does.
//!
//! Nothing here waits for time to pass: an order that follows another one shows that the first was carried out.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cache;
mod connecting;
mod kept;
mod locks;
mod peer;
mod placement;

use bytes::BytesMut;
use peer::*;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wombat_client::{
    Cell, Config, Create, Election, Error, EventKind, LockMode, Node, OpenOptions, Result, SessionEvent,
};
use wombat_proto::limits;
use wombat_proto::wire::{self, Request, request::Call, response::Result as Answer};

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
