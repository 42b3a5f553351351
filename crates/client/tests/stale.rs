//! Stale reads against replicas that a script plays: one that is not there, one that goes, one that says nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use bytes::BytesMut;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use wombat_client::{Error, ReplicaId, Slot, StaleReader, Staleness};
use wombat_proto::frame;
use wombat_proto::wire::stale_read::Answer as Page;
use wombat_proto::wire::{self, ReadStale, Request, Response, request::Call, response::Result as Answer};

/// Long enough for anything that answers at all.
const WITHIN: Duration = Duration::from_secs(60);

/// What a replica does on one connection, read by read, before it hangs up.
type Script = Vec<Result<wire::StaleRead, Error>>;

/// A replica that plays a script on each connection, one after another. In the end it tells what it was asked.
async fn replica(scripts: Vec<Script>) -> (String, JoinHandle<Vec<ReadStale>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let plays = tokio::spawn(async move {
        let mut asked = Vec::new();
        for script in scripts {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut inward = BytesMut::new();
            let welcome = wire::Welcome { cell: "fake".into(), ..wire::Welcome::default() };
            let mut answers = vec![Answer::Welcome(welcome)];
            answers.extend(script.into_iter().map(|read| match read {
                Ok(read) => Answer::StaleRead(read),
                Err(error) => Answer::Error((&error).into()),
            }));
            for answer in answers {
                let request: Request = loop {
                    match frame::read(&mut inward).unwrap() {
                        Some(request) => break request,
                        None => assert!(stream.read_buf(&mut inward).await.unwrap() > 0, "it hung up"),
                    }
                };
                match request.call.unwrap() {
                    Call::Hello(_) => {}
                    Call::ReadStale(read) => asked.push(read),
                    other => panic!("{other:?}"),
                }
                let (number, result) = (request.number, Some(answer));
                let mut out = BytesMut::new();
                frame::write(&Response { number, result, ..Response::default() }, &mut out);
                let _it_may_have_given_up = stream.write_all(&out).await;
            }
        }
        asked
    });
    (address, plays)
}

/// An answer as of a slot, by the replica of that number, so many milliseconds old.
fn read(page: Page, applied_slot: u64, age_ms: Option<u64>) -> Result<wire::StaleRead, Error> {
    Ok(wire::StaleRead {
        answer: Some(page),
        applied_slot,
        age_ms: age_ms.unwrap_or(0),
        age_unknown: age_ms.is_none(),
        replica: 2,
    })
}

fn contents(text: &'static str) -> Page {
    Page::Contents(wire::Contents { contents: text.into(), stat: Some(wire::Stat::default()) })
}

fn entries(names: &[&str], more: bool) -> Page {
    let entry = |name: &&str| wire::Entry { name: (*name).into(), stat: None };
    Page::Entries(wire::Entries { entries: names.iter().map(entry).collect(), more })
}

/// An address at which nobody listens.
async fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string()
}

#[tokio::test]
async fn who_is_not_there_is_passed_over_and_the_next_answers_with_its_age() {
    let (address, plays) = replica(vec![vec![
        read(contents("one"), 31, Some(70)),
        read(contents("two"), 32, None),
        read(Page::Stat(wire::Stat { length: 3, ..wire::Stat::default() }), 33, Some(0)),
    ]])
    .await;
    let mut reader = StaleReader::connect([nobody().await, address], "", WITHIN).await.unwrap();
    let one = reader.contents("/ls/local/f").await.unwrap();
    assert_eq!(&one.value.0[..], b"one");
    assert_eq!((one.staleness.applied, one.staleness.replica), (Slot(31), ReplicaId(2)));
    assert!(one.staleness.age > Some(Duration::from_millis(70)), "with the time that the answer took");
    let two = reader.contents("/ls/fake/f").await.unwrap();
    assert_eq!(two.staleness, Staleness { applied: Slot(32), age: None, replica: ReplicaId(2) });
    assert_eq!(reader.stat("/ls/local/f").await.unwrap().value.length, 3);
    let paths: Vec<_> = plays.await.unwrap().into_iter().map(|read| read.path).collect();
    assert_eq!(paths, ["/ls/fake/f"; 3], "`local` is the cell that answers");
}

#[tokio::test]
async fn a_listing_is_as_old_as_its_first_page_and_begins_anew_at_another_replica() {
    let (first, first_plays) = replica(vec![vec![read(entries(&["a", "b"], true), 5, Some(1))]]).await;
    let (second, second_plays) = replica(vec![vec![
        read(entries(&["a", "c"], true), 7, Some(40)),
        read(entries(&["d"], false), 9, None),
    ]])
    .await;
    let mut reader = StaleReader::connect([first, second], "fake", WITHIN).await.unwrap();
    let listed = reader.list("/ls/fake").await.unwrap();
    let names: Vec<_> = listed.value.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["a", "c", "d"]);
    assert_eq!(listed.staleness.applied, Slot(7));
    assert!(listed.staleness.age > Some(Duration::from_millis(40)));
    let after = |asked: Vec<ReadStale>| asked.into_iter().map(|read| read.after).collect::<Vec<_>>();
    assert_eq!(after(first_plays.await.unwrap()), [""]);
    assert_eq!(after(second_plays.await.unwrap()), ["", "c"]);
}

#[tokio::test]
async fn what_a_replica_refuses_is_refused_unless_it_is_in_no_cell() {
    let (outside, _) = replica(vec![vec![Err(Error::NoQuorum)]]).await;
    let missing = || Error::not_found("/ls/fake/none");
    let (inside, plays) = replica(vec![vec![Err(missing()), Err(Error::IsDirectory)]]).await;
    let (never, _) = replica(vec![vec![]]).await;
    let mut reader = StaleReader::connect([outside, inside, never], "", WITHIN).await.unwrap();
    assert_eq!(reader.stat("/ls/fake/none").await.err(), Some(missing()));
    assert_eq!(reader.contents("/ls/fake").await.err(), Some(Error::IsDirectory), "the same one is asked");
    assert_eq!(plays.await.unwrap().len(), 2);
}

#[tokio::test]
async fn nobody_is_asked_for_ever() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mute = silent.local_addr().unwrap().to_string();
    let soon = Duration::from_millis(50);
    let none = StaleReader::connect([mute.clone(), nobody().await], "", soon).await.err();
    let Some(Error::Unreachable { what }) = none else { panic!("{none:?}") };
    assert!(what.contains(&format!("{mute}: no answer within 50ms")) && what.contains("refused"), "{what}");
    // One that hangs up, and again, and is gone.
    let (address, _) = replica(vec![vec![read(contents("one"), 1, None)], vec![]]).await;
    let mut reader = StaleReader::connect([address], "", WITHIN).await.unwrap();
    assert!(reader.contents("/ls/fake/f").await.is_ok());
    let gone = reader.contents("/ls/fake/f").await.err();
    assert!(matches!(gone, Some(Error::Unreachable { .. })), "{gone:?}");
    assert!(StaleReader::connect(Vec::<String>::new(), "", WITHIN).await.is_err());
}

#[tokio::test]
async fn a_read_that_is_given_up_leaves_nothing_behind() {
    let (address, plays) =
        replica(vec![vec![read(contents("one"), 1, None)], vec![read(contents("two"), 2, None)]]).await;
    let mut reader = StaleReader::connect([address], "", WITHIN).await.unwrap();
    {
        let mut given_up = std::pin::pin!(reader.contents("/ls/fake/first"));
        std::future::poll_fn(|context| {
            assert!(given_up.as_mut().poll(context).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
    }
    assert_eq!(&reader.contents("/ls/fake/second").await.unwrap().value.0[..], b"two");
    let paths: Vec<_> = plays.await.unwrap().into_iter().map(|read| read.path).collect();
    assert_eq!(paths, ["/ls/fake/first", "/ls/fake/second"]);
}
