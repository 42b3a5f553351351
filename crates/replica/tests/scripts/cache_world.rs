//! What scripts about caches share: sessions that cache, and the calls that they make.

use crate::world::{Client, World, may_create};
use std::time::Duration;
use wombat_proto::Error;
use wombat_proto::wire::{self, invalidation::What, request::Call, response::Result as Answer};

pub(crate) const MILLISECOND: Duration = Duration::from_millis(1);

/// A session that caches, whose KeepAlive is always pending.
pub(crate) struct Reader {
    pub(crate) client: Client,
    pub(crate) keep_alive: u64,
    /// The last invalidation that it has heard of, and what all of them said.
    pub(crate) heard: u64,
    pub(crate) dropped: Vec<wire::Invalidation>,
    /// The cache lease that it was granted last.
    pub(crate) lease: Duration,
}

pub(crate) fn what(what: What, instance: u64, name: &str) -> wire::Invalidation {
    wire::Invalidation { what: what.into(), instance, name: name.into() }
}

pub(crate) fn node(handle: wire::Handle) -> wire::Invalidation {
    what(What::Node, handle.instance, "")
}

pub(crate) fn listing(handle: wire::Handle) -> wire::Invalidation {
    what(What::Listing, handle.instance, "")
}

pub(crate) fn get_stat(handle: wire::Handle) -> Call {
    Call::GetStat(wire::GetStat { handle: Some(handle) })
}

pub(crate) fn delete(handle: wire::Handle) -> Call {
    Call::Delete(wire::Delete { handle: Some(handle) })
}

pub(crate) fn release(handle: wire::Handle) -> Call {
    Call::Release(wire::Release { handle: Some(handle) })
}

pub(crate) fn directory(path: &str) -> wire::Open {
    let node = wire::NewNode { directory: true, ..wire::NewNode::default() };
    wire::Open { path: path.into(), node: Some(node), ..may_create() }
}

pub(crate) fn ephemeral(path: &str) -> wire::Open {
    let node = wire::NewNode { ephemeral: true, ..wire::NewNode::default() };
    wire::Open { path: path.into(), node: Some(node), ..may_create() }
}

pub(crate) fn existing(path: &str) -> Call {
    Call::Open(wire::Open { path: path.into(), mode: 1, ..wire::Open::default() })
}

pub(crate) fn multi(change: wire::change::Change) -> Call {
    let changes = vec![wire::Change { change: Some(change) }];
    Call::Multi(wire::Multi { changes, ..wire::Multi::default() })
}

impl World {
    pub(crate) fn reader(&mut self) -> Reader {
        let connection = self.connect();
        let client = self.client_on(connection, true);
        let (dropped, lease) = (Vec::new(), Duration::ZERO);
        let mut reader = Reader { client, keep_alive: 0, heard: 0, dropped, lease };
        self.keeps_alive(&mut reader);
        reader
    }

    /// Sends the next KeepAlive: all that it has heard of is dropped.
    pub(crate) fn keeps_alive(&mut self, reader: &mut Reader) {
        let keep_alive = wire::KeepAlive {
            events_acknowledged: 1,
            invalidations_acknowledged: reader.heard,
            reads_cache: true,
            ..wire::KeepAlive::default()
        };
        reader.keep_alive = self.send(&mut reader.client, Call::KeepAlive(keep_alive));
    }

    /// Takes the answer to its KeepAlive, if there is one. The next one is not sent yet.
    pub(crate) fn hears(&mut self, reader: &mut Reader) -> bool {
        let Some(answer) = self.answer(&reader.client, reader.keep_alive) else { return false };
        let Ok(Answer::KeptAlive(kept)) = answer else { panic!("{answer:?}") };
        for (number, invalidation) in (kept.first_invalidation..).zip(kept.invalidations) {
            if number > reader.heard {
                reader.heard = number;
                reader.dropped.push(invalidation);
            }
        }
        reader.lease = Duration::from_millis(kept.cache_lease_ms.into());
        true
    }

    /// Hears and acknowledges for as long as there is something to hear. Returns what it had to drop.
    pub(crate) fn obeys(&mut self, reader: &mut Reader) -> Vec<wire::Invalidation> {
        while self.hears(reader) {
            self.keeps_alive(reader);
        }
        std::mem::take(&mut reader.dropped)
    }

    /// Does a call, and says whether its answer may be cached.
    #[track_caller]
    pub(crate) fn ask(
        &mut self,
        client: &mut Client,
        call: Call,
    ) -> (Result<Answer, Error>, Option<wire::Cachable>) {
        let number = self.send(client, call);
        self.response(client, number).expect("an answer at once")
    }

    /// Whether a session may cache the node of a handle, now that it reads it.
    #[track_caller]
    pub(crate) fn may_cache(&mut self, client: &mut Client, handle: wire::Handle) -> bool {
        let (answer, cachable) = self.ask(client, get_stat(handle));
        assert!(answer.is_ok(), "{answer:?}");
        cachable.is_some()
    }

    /// A reader that has a node cached, with a cache lease that has just begun.
    #[track_caller]
    pub(crate) fn caching(&mut self, path: &str) -> (Reader, wire::Handle) {
        let mut reader = self.reader();
        let handle = self.open(&mut reader.client, path);
        assert!(self.may_cache(&mut reader.client, handle));
        assert_eq!(self.obeys(&mut reader), []);
        assert_eq!(reader.lease, self.cache_lease);
        (reader, handle)
    }

    /// A reader that has a directory's stat cached.
    #[track_caller]
    pub(crate) fn caching_directory(&mut self, path: &str) -> (Reader, wire::Handle) {
        let mut reader = self.reader();
        let open = Call::Open(wire::Open { path: path.into(), mode: 1, ..Default::default() });
        let Ok(Answer::Opened(opened)) = self.call(&mut reader.client, open) else { panic!("not opened") };
        let handle = opened.handle.unwrap();
        assert!(self.may_cache(&mut reader.client, handle));
        assert_eq!(self.obeys(&mut reader), []);
        (reader, handle)
    }

    /// A reader that has a directory's listing cached.
    #[track_caller]
    pub(crate) fn listing(&mut self, path: &str) -> (Reader, wire::Handle) {
        let mut reader = self.reader();
        let handle = self.open_with(&mut reader.client, directory(path));
        assert!(self.lists(&mut reader, handle));
        assert_eq!(self.obeys(&mut reader), []);
        (reader, handle)
    }

    #[track_caller]
    pub(crate) fn lists(&mut self, reader: &mut Reader, handle: wire::Handle) -> bool {
        let read = wire::ReadDir { handle: Some(handle), ..wire::ReadDir::default() };
        let (answer, cachable) = self.ask(&mut reader.client, Call::ReadDir(read));
        assert!(matches!(answer, Ok(Answer::Entries(_))));
        cachable.is_some()
    }

    /// Checks that a call waits until the readers have dropped just these.
    #[track_caller]
    pub(crate) fn waits_for(
        &mut self,
        client: &mut Client,
        call: Call,
        readers: &mut [(&mut Reader, &[wire::Invalidation])],
    ) {
        let number = self.send(client, call);
        for (reader, expected) in readers {
            assert!(self.answer(client, number).is_none(), "it does not wait");
            let mut dropped = self.obeys(reader);
            dropped.sort_by_key(|one| (one.what, one.instance));
            let mut expected = expected.to_vec();
            expected.sort_by_key(|one| (one.what, one.instance));
            assert_eq!(dropped, expected);
        }
        let answer = self.answer(client, number).expect("nothing stands against it any more");
        assert!(answer.is_ok(), "{answer:?}");
    }

    pub(crate) fn cache_status(&mut self) -> wire::CacheStatus {
        let connection = self.connect();
        let call = Call::GetStatus(wire::GetStatus {});
        self.send_raw(connection, wire::Request { number: 9, call: Some(call), ..Default::default() });
        let Some(Answer::Status(status)) = self.take(connection).result else { panic!("no status") };
        status.cache.expect("a master says it")
    }
}
