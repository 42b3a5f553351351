//! The cache (P§2.7): what is read without asking, and what takes that away.

use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use wombat_client::{Consistency, Gate, Reading};
use wombat_proto::{CacheKey, Epoch, Generation, Instance, Name, Sequencer};

/// What [`Peer::open`] opens.
const NODE: Instance = Instance(7);

/// What a master says of an answer that may be kept.
pub(super) fn cachable() -> Option<wire::Cachable> {
    Some(wire::Cachable { epoch: 1, ..Default::default() })
}

pub(super) fn contents(text: &str, generation: u64) -> Answer {
    let stat = Some(wire::Stat { content_generation: generation, ..Default::default() });
    Answer::Contents(wire::Contents { contents: text.to_owned().into(), stat })
}

impl Peer {
    /// Answers the KeepAlive that waits with invalidations, of which the first has the number `first`, a cache lease
    /// as long as the session's, and perhaps an event of the same number.
    pub(super) async fn kept_alive(&mut self, first: u64, keys: &[CacheKey], event: Option<wire::Event>) {
        let keep_alive = self.keep_alive.take().unwrap();
        let kept = wire::KeptAlive {
            lease_ms: 60_000,
            cache_lease_ms: 60_000,
            epoch: 1,
            first_event: first,
            events: event.into_iter().collect(),
            first_invalidation: first,
            invalidations: keys.iter().map(wire::Invalidation::from).collect(),
            ..Default::default()
        };
        self.answer(&keep_alive, Answer::KeptAlive(kept)).await;
    }

    /// Invalidates, and waits until that is acknowledged.
    pub(super) async fn invalidate(&mut self, number: u64, key: CacheKey) {
        self.kept_alive(number, &[key], None).await;
        let acknowledged = self.next_keep_alive().await.invalidations_acknowledged;
        assert_eq!(acknowledged, number);
    }

    /// The next KeepAlive, which comes before any other call.
    async fn next_keep_alive(&mut self) -> wire::KeepAlive {
        let request = self.request().await;
        let Some(Call::KeepAlive(keep_alive)) = request.call.clone() else { panic!("{request:?}") };
        self.keep_alive = Some(request);
        keep_alive
    }

    /// Answers the GetContents that comes next with contents that may be kept.
    pub(super) async fn read(&mut self, text: &str, generation: u64) {
        let (request, call) = self.call().await;
        assert!(matches!(call, Call::GetContents(_)), "{call:?}");
        self.answer_cachable(&request, cachable(), contents(text, generation)).await;
    }

    /// Says that there is no `name` in a directory, to the Open that comes next.
    pub(super) async fn absent(&mut self, directory: u64, name: &str) {
        let (request, call) = self.call().await;
        let Call::Open(open) = call else { panic!("{call:?}") };
        let error = Error::not_found(&open.path);
        let cachable = Some(wire::Cachable { epoch: 1, directory, name: name.into() });
        self.answer_cachable(&request, cachable, Answer::Error((&error).into())).await;
    }
}

/// A session with a cache lease.
pub(super) async fn leased() -> (TcpListener, Peer, Cell) {
    let (listener, mut peer, cell) = connected().await;
    settle(&cell, &mut peer).await;
    peer.kept_alive(1, &[], None).await;
    settle(&cell, &mut peer).await;
    (listener, peer, cell)
}

/// Reads a node, which is cached then.
pub(super) async fn read(node: &Node, peer: &mut Peer, text: &str) {
    let (read, ()) = tokio::join!(node.contents(), peer.read(text, 1));
    assert_eq!(read.unwrap().0, text);
}

/// The answer of something that has to ask nobody.
pub(super) fn at_once<T>(future: impl Future<Output = T>) -> T {
    match poll_once(pin!(future).as_mut()) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("it asks the cell"),
    }
}

/// Whether something has to ask; it is not answered.
pub(super) fn asks<T>(future: impl Future<Output = T>) -> bool {
    poll_once(pin!(future).as_mut()).is_pending()
}

#[test]
fn what_was_read_is_read_again_without_asking() {
    run(async {
        let (_listener, mut peer, cell) = leased().await;
        let node = open(&cell, &mut peer).await;
        assert!(node.peek().is_none());
        read(&node, &mut peer, "a").await;
        let (text, stat) = at_once(node.contents()).unwrap();
        assert_eq!((&text[..], stat.content_generation), (&b"a"[..], Generation(1)));
        assert_eq!(at_once(node.stat()).unwrap(), stat);
        let reading = at_once(node.read()).unwrap();
        assert_eq!((&reading[..], reading.stat()), (&b"a"[..], stat));
        assert_eq!(node.peek().unwrap().bytes(), "a");
        // Another handle on it, for another use.
        let (other, ()) = tokio::join!(cell.open("/ls/local/f", OpenOptions::new()), peer.open());
        let other = other.unwrap();
        assert_eq!(&at_once(other.read()).unwrap()[..], b"a");
        // Whoever wants to hear it from the master does.
        let at = node.at(Consistency::Master);
        let (fresh, ()) = tokio::join!(at.read(), peer.read("b", 2));
        assert_eq!(&fresh.unwrap()[..], b"b");
        assert!(asks(at.stat()) && asks(at.list()));
        let stats = cell.cache_stats();
        assert_eq!((stats.hits, stats.misses, stats.entries, stats.is_live), (5, 3, 1, true));
    });
}

#[test]
fn a_reading_goes_from_thread_to_thread_and_lasts_as_long_as_it_is_held() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    run(async {
        let (_listener, mut peer, cell) = leased().await;
        let node = open(&cell, &mut peer).await;
        read(&node, &mut peer, "a").await;
        let reading: Reading = is_send(is_send(node.read()).await).unwrap();
        peer.invalidate(1, CacheKey::node(NODE)).await;
        assert!(node.peek().is_none());
        let text = std::thread::spawn(move || reading.to_vec()).join().unwrap();
        assert_eq!(text, b"a");
    });
}

#[test]
fn a_directory_is_listed_again_without_asking_when_all_of_it_was_read() {
    run(async {
        let (_listener, mut peer, cell) = leased().await;
        let node = open(&cell, &mut peer).await;
        let page = |names: &[&str], more| {
            let entry = |name: &&str| wire::Entry { name: (*name).into(), stat: Some(Default::default()) };
            Answer::Entries(wire::Entries { entries: names.iter().map(entry).collect(), more })
        };
        let (list, ()) = tokio::join!(node.list(), async {
            for (names, more) in [(["a", "b"], true), (["c", "d"], false)] {
                let (request, call) = peer.call().await;
                assert!(matches!(call, Call::ReadDir(_)), "{call:?}");
                peer.answer_cachable(&request, cachable(), page(&names, more)).await;
            }
        });
        assert_eq!(at_once(node.list()).unwrap(), list.unwrap());
        assert_eq!(at_once(node.list()).unwrap().len(), 4);
        peer.invalidate(1, CacheKey::listing(NODE)).await;
        assert!(asks(node.list()));
    });
}

#[test]
fn a_cache_that_is_not_wanted_is_not_there() {
    run(async {
        for (config, caches) in [
            (Config::new as fn(Vec<String>) -> Config, true),
            (|endpoints: Vec<String>| Config::new(endpoints).no_cache(), false),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let (cell, mut peer) =
                tokio::join!(Cell::connect_with(config(vec![address])), Peer::accept_as(&listener, caches));
            let cell = cell.unwrap();
            settle(&cell, &mut peer).await;
            peer.kept_alive(1, &[], None).await;
            let node = open(&cell, &mut peer).await;
            read(&node, &mut peer, "a").await;
            assert_eq!(node.peek().is_some(), caches);
            let stats = cell.cache_stats();
            assert_eq!((stats.is_live, stats.entries == 1, stats.misses == 2), (caches, caches, caches));
        }
    });
}

impl Peer {
    /// Accepts a client that says that it caches, or that it does not.
    async fn accept_as(listener: &TcpListener, caches: bool) -> Peer {
        let mut peer = Peer::accept(listener).await;
        let Call::CreateSession(create) = peer.attach().await else { panic!("it has no session yet") };
        assert_eq!(create.caches, caches);
        peer
    }
}

#[test]
fn nothing_is_used_without_a_lease() {
    run(async {
        let (_listener, mut peer, cell) = connected().await;
        let node = open(&cell, &mut peer).await;
        read(&node, &mut peer, "a").await;
        assert!(node.peek().is_none() && !cell.cache_stats().is_live);
        // It asks for one, now that it has a use for it.
        assert!(!peer.keep_alive_says().await.reads_cache);
        assert!(peer.next_keep_alive().await.reads_cache);
        peer.kept_alive(1, &[], None).await;
        settle(&cell, &mut peer).await;
        assert_eq!(&node.peek().unwrap()[..], b"a");
        // And one that has ended is none.
        let (_listener, mut peer, cell) = connected().await;
        let node = open(&cell, &mut peer).await;
        settle(&cell, &mut peer).await;
        let keep_alive = peer.keep_alive.take().unwrap();
        let kept = wire::KeptAlive { lease_ms: 60_000, cache_lease_ms: 1, epoch: 1, ..Default::default() };
        peer.answer(&keep_alive, Answer::KeptAlive(kept)).await;
        read(&node, &mut peer, "a").await;
        while cell.cache_stats().is_live {}
        assert!(node.peek().is_none());
        assert_eq!(cell.cache_stats().entries, 1, "it waits for the next");
    });
}

impl Peer {
    /// What the KeepAlive that waits says.
    async fn keep_alive_says(&mut self) -> wire::KeepAlive {
        match self.keep_alive.clone().and_then(|request| request.call) {
            Some(Call::KeepAlive(keep_alive)) => keep_alive,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_is_invalidated_is_gone_before_that_is_acknowledged() {
    run(async {
        let (_listener, mut peer, cell) = leased().await;
        let node = open(&cell, &mut peer).await;
        read(&node, &mut peer, "a").await;
        peer.invalidate(1, CacheKey::node(NODE)).await;
        assert!(node.peek().is_none());
        assert_eq!(cell.cache_stats().invalidations, 1);
        read(&node, &mut peer, "b").await;
        assert_eq!(&node.peek().unwrap()[..], b"b");
    });
}

#[test]
fn no_thread_reads_what_was_acknowledged_to_be_gone_or_told_to_have_changed() {
    const ROUNDS: u64 = 400;
    let (seen, gone) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    // Whoever begins to read when a round is known to be gone sees a later one, or nothing.
    let look = |node: &Node, gone: u64| {
        let Some(reading) = node.peek() else { return 0 };
        let round = reading.stat().content_generation.0;
        assert_eq!(&reading[..], round.to_string().as_bytes(), "whole");
        assert!(round > gone, "round {round} is known to be gone");
        round
    };
    run(async {
        let (_listener, mut peer, cell) = leased().await;
        let options = OpenOptions::new().events(&[EventKind::ContentsModified]);
        let (node, ()) = tokio::join!(cell.open("/ls/local/f", options), peer.open());
        let node = Arc::new(node.unwrap());
        let read_on = {
            let (node, seen, gone) = (node.clone(), seen.clone(), gone.clone());
            std::thread::spawn(move || {
                while gone.load(Ordering::SeqCst) < ROUNDS {
                    seen.fetch_max(look(&node, gone.load(Ordering::SeqCst)), Ordering::SeqCst);
                    std::thread::yield_now();
                }
            })
        };
        let listen = {
            let (node, mut events) = (node.clone(), node.events());
            std::thread::spawn(move || {
                loop {
                    match poll_once(pin!(events.recv()).as_mut()) {
                        Poll::Ready(Some(event)) if event.slot.0 == ROUNDS => return,
                        Poll::Ready(Some(event)) => {
                            look(&node, event.slot.0);
                        }
                        Poll::Ready(None) => panic!("there is more to come"),
                        Poll::Pending => std::thread::yield_now(),
                    }
                }
            })
        };
        for round in 1..=ROUNDS {
            let text = round.to_string();
            tokio::join!(node.contents(), peer.read(&text, round)).0.unwrap();
            while seen.load(Ordering::SeqCst) < round {
                tokio::task::yield_now().await;
            }
            while peer.keep_alive.is_none() {
                peer.next_keep_alive().await;
            }
            let kind = EventKind::ContentsModified.into();
            let event = wire::Event { kind, handle: peer.opened, slot: round, ..Default::default() };
            peer.kept_alive(round, &[CacheKey::node(NODE)], Some(event)).await;
            while peer.next_keep_alive().await.invalidations_acknowledged < round {}
            gone.store(round, Ordering::SeqCst);
            look(&node, round);
        }
        listen.join().unwrap();
        read_on.join().unwrap();
    });
}

#[test]
fn a_read_after_an_event_sees_what_it_tells_of() {
    run(async {
        let (_listener, mut peer, cell) = leased().await;
        let options = OpenOptions::new().events(&[EventKind::ContentsModified]);
        let (node, ()) = tokio::join!(cell.open("/ls/local/f", options), peer.open());
        let node = node.unwrap();
        let mut events = node.events();
        read(&node, &mut peer, "a").await;
        // The word of the change and the word that it has been made may come together, when the lease had ended.
        let opened = peer.opened;
        let kind = EventKind::ContentsModified.into();
        let event = wire::Event { kind, handle: opened, slot: 9, ..Default::default() };
        peer.kept_alive(1, &[CacheKey::node(NODE)], Some(event)).await;
        assert_eq!(events.recv().await.unwrap().kind, EventKind::ContentsModified);
        let (text, ()) = tokio::join!(node.contents(), peer.read("b", 2));
        assert_eq!(text.unwrap().0, "b");
    });
}

#[test]
fn an_own_write_takes_the_own_copy_with_it() {
    run(async {
        let (_listener, mut peer, cell) = leased().await;
        let node = open(&cell, &mut peer).await;
        read(&node, &mut peer, "a").await;
        let mut set = Box::pin(node.set("b"));
        assert!(poll_once(set.as_mut()).is_pending());
        let (request, call) = peer.call().await;
        assert!(matches!(call, Call::SetContents(_)), "{call:?}");
        assert!(node.peek().is_none(), "nobody else tells of it");
        peer.answer(&request, Answer::Stat(wire::Stat::default())).await;
        set.await.unwrap();
        read(&node, &mut peer, "b").await;
    });
}

#[test]
fn another_master_s_entries_are_not_used_under_the_lease_of_the_one_before() {
    run(async {
        let (_listener, mut peer, cell) = leased().await;
        let node = open(&cell, &mut peer).await;
        read(&node, &mut peer, "a").await;
        let keep_alive = peer.keep_alive.take().unwrap();
        let kept = wire::KeptAlive { lease_ms: 60_000, epoch: 2, first_event: 1, ..Default::default() };
        peer.answer(&keep_alive, Answer::KeptAlive(kept)).await;
        settle(&cell, &mut peer).await;
        assert_eq!(cell.epoch(), Epoch(2));
        assert!(node.peek().is_none());
        let (read, ()) = tokio::join!(node.contents(), async {
            let (request, _) = peer.call().await;
            let cachable = Some(wire::Cachable { epoch: 2, ..Default::default() });
            peer.answer_cachable(&request, cachable, contents("b", 1)).await;
        });
        read.unwrap();
        assert_eq!(cell.cache_stats().entries, 1);
        assert!(node.peek().is_none() && !cell.cache_stats().is_live);
    });
}

#[test]
fn nothing_is_read_from_the_cache_of_a_lost_session() {
    run(async {
        let (_listener, mut peer, cell) = leased().await;
        let node = open(&cell, &mut peer).await;
        read(&node, &mut peer, "a").await;
        let keep_alive = peer.keep_alive.take().unwrap();
        peer.refuse(&keep_alive, Error::SessionExpired).await;
        assert_eq!(cell.status().await.err(), Some(Error::SessionExpired));
        assert_eq!(node.contents().await.err(), Some(Error::SessionExpired));
    });
}

#[test]
fn a_handle_that_is_poisoned_or_tied_to_a_sequencer_asks_the_cell() {
    run(async {
        let (_listener, mut peer, cell) = leased().await;
        let (poisoned, tied) = (open(&cell, &mut peer).await, open(&cell, &mut peer).await);
        read(&poisoned, &mut peer, "a").await;
        assert!(poisoned.peek().is_some() && tied.peek().is_some());
        poisoned.poison();
        assert_eq!(poisoned.read().await.err(), Some(Error::Cancelled));
        assert_eq!(poisoned.stat().await.err(), Some(Error::Cancelled));
        let Answer::Granted(granted) = granted() else { unreachable!() };
        let sequencer: Sequencer = granted.sequencer.parse().unwrap();
        let (done, ()) = tokio::join!(tied.set_sequencer(&sequencer), async {
            let (request, _) = peer.call().await;
            peer.answer(&request, super::done()).await;
        });
        done.unwrap();
        assert!(tied.peek().is_none() && asks(tied.contents()) && asks(tied.stat()) && asks(tied.list()));
    });
}

#[test]
fn that_a_name_is_not_there_is_told_again_without_asking() {
    run(async {
        let (_listener, mut peer, cell) = leased().await;
        let path = "/ls/local/d/f";
        let (opened, ()) = tokio::join!(cell.open(path, OpenOptions::new()), peer.absent(3, "f"));
        let absent = opened.err().unwrap();
        assert_eq!(absent, Error::not_found("/ls/fake/d/f"));
        assert_eq!(at_once(cell.open(path, OpenOptions::new())).err(), Some(absent.clone()));
        assert_eq!(at_once(cell.open("/ls/fake/d/f", OpenOptions::new().write())).err(), Some(absent));
        // So a gate that is open costs nothing.
        at_once(Gate::new(&cell, path).pass()).unwrap();
        // Whoever would make it has to ask, and whoever wants to hear it from the master.
        for create in [Create::May, Create::Must] {
            assert!(asks(cell.open(path, OpenOptions::new().create(create))));
        }
        assert!(asks(cell.open(path, OpenOptions::new().at(Consistency::Master))));
        // Or asks for something that the cell refuses before it looks.
        assert!(asks(cell.open(path, OpenOptions::new().lock_delay(limits::LOCK_DELAY * 2))));
        assert!(asks(cell.open("/ls/local/d/g", OpenOptions::new())));
        settle_past_the_end(&cell, &mut peer).await;
        peer.invalidate(1, CacheKey::absence(Instance(3), Name::parse("f").unwrap())).await;
        assert!(asks(cell.open(path, OpenOptions::new())));
    });
}
