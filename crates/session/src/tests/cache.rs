//! The cache (P§2.7): what is kept of the answers, what takes it away, and when it may be used.

mod contents;
mod reads;

use super::*;
use crate::{CacheChange, Place};
use wombat_proto::{CacheKey, Instance, Name};

/// The cache lease C.
const C: Duration = Duration::from_secs(2);
/// The node and the directory of most scripts.
const NODE: u64 = 7;
const DIRECTORY: u64 = 8;
const PATH: &str = "/ls/test/d/f";

fn handle(instance: u64) -> Option<wire::Handle> {
    Some(wire::Handle { id: instance, instance, ..wire::Handle::default() })
}

fn node(instance: u64) -> CacheKey {
    CacheKey::node(Instance(instance))
}

fn listing(instance: u64) -> CacheKey {
    CacheKey::listing(Instance(instance))
}

fn absence(directory: u64, name: &str) -> CacheKey {
    CacheKey::absence(Instance(directory), Name::parse(name).unwrap())
}

fn stat(generation: u64) -> wire::Stat {
    wire::Stat { content_generation: generation, ..wire::Stat::default() }
}

fn contents(text: &str, generation: u64) -> Result<Answer> {
    let contents = text.as_bytes().to_vec().into();
    Ok(Answer::Contents(wire::Contents { contents, stat: Some(stat(generation)) }))
}

fn page(names: &[&str], more: bool) -> Result<Answer> {
    let entry = |name: &&str| wire::Entry { name: (*name).into(), stat: Some(stat(1)) };
    Ok(Answer::Entries(wire::Entries { entries: names.iter().map(entry).collect(), more }))
}

fn get_contents(instance: u64) -> Call {
    Call::GetContents(wire::GetContents { handle: handle(instance) })
}

fn get_stat(instance: u64) -> Call {
    Call::GetStat(wire::GetStat { handle: handle(instance) })
}

fn read_dir(after: &str) -> Call {
    Call::ReadDir(wire::ReadDir { handle: handle(DIRECTORY), after: after.into(), limit: 0 })
}

fn open(path: &str) -> Call {
    Call::Open(wire::Open { path: path.into(), ..wire::Open::default() })
}

fn write(instance: u64) -> Call {
    Call::SetContents(wire::SetContents { handle: handle(instance), ..wire::SetContents::default() })
}

fn delete(instance: u64) -> Call {
    Call::Delete(wire::Delete { handle: handle(instance) })
}

/// What a master of that epoch says of an answer that may be kept.
fn of_epoch(epoch: u64) -> Option<wire::Cachable> {
    Some(wire::Cachable { epoch, ..wire::Cachable::default() })
}

fn of_name(directory: u64, name: &str) -> Option<wire::Cachable> {
    Some(wire::Cachable { epoch: 1, directory, name: name.into() })
}

impl Script {
    /// A session with a cache, and a cache lease that begins now.
    fn caching() -> Script {
        Script::caching_at_most(1 << 20)
    }

    fn caching_at_most(bytes: usize) -> Script {
        let mut script = Script::with_cache(bytes).come_up();
        script.grant(Duration::ZERO, C);
        script.requests();
        script
    }

    /// Answers the pending KeepAlive with a cache lease and nothing else.
    fn grant(&mut self, held: Duration, lease: Duration) {
        self.kept_alive(held, 1, 1, Vec::new(), lease);
    }

    /// Answers it with invalidations, of which the first has the number `first`, and a cache lease.
    fn invalidate(&mut self, first: u64, keys: &[CacheKey], lease: Duration) {
        self.kept_alive(Duration::ZERO, 1, first, keys.iter().map(wire::Invalidation::from).collect(), lease);
    }

    fn kept_alive(
        &mut self,
        held: Duration,
        epoch: u64,
        first_invalidation: u64,
        invalidations: Vec<wire::Invalidation>,
        lease: Duration,
    ) {
        let kept = wire::KeptAlive {
            lease_ms: LEASE.as_millis() as u32,
            held_us: held.as_micros() as u64,
            epoch,
            first_event: 1,
            first_invalidation,
            invalidations,
            cache_lease_ms: lease.as_millis() as u32,
            ..wire::KeptAlive::default()
        };
        self.requests();
        self.receive(self.pending, Ok(Answer::KeptAlive(kept)));
    }

    /// Asks something and has it answered at once; the answer may be kept.
    fn ask(&mut self, call: Call, cachable: Option<wire::Cachable>, answer: Result<Answer>) {
        let number = self.submit(call);
        self.requests();
        self.receive_cachable(number, cachable, answer);
        self.done();
    }

    /// A node with these contents is cached.
    fn keep_node(&mut self, instance: u64, text: &str) {
        self.ask(get_contents(instance), of_epoch(1), contents(text, 1));
    }

    /// What a reader may use of a node now: its contents, if they are there, and its generation.
    fn node(&self, instance: u64) -> Option<(Option<String>, u64)> {
        let node = self.session.cached(self.now)?.node(Instance(instance))?;
        let text = node.contents.as_ref().map(|text| String::from_utf8(text.to_vec()).unwrap());
        Some((text, node.stat.content_generation))
    }

    fn text(&self, instance: u64) -> Option<String> {
        self.node(instance)?.0
    }

    /// What a reader may use of the directory now.
    fn names(&self) -> Option<Vec<String>> {
        let listing = self.session.cached(self.now)?.listing(Instance(DIRECTORY))?;
        Some(listing.entries.iter().map(|entry| entry.name.clone()).collect())
    }

    /// Whether a reader knows that this leads nowhere.
    fn is_absent(&self, path: &str) -> bool {
        self.session.cached(self.now).is_some_and(|cached| cached.absence(path).is_some())
    }

    /// What readers were told, in order.
    fn told(&mut self) -> Vec<CacheChange> {
        core::mem::take(&mut self.effects.cache)
    }

    /// What the last KeepAlive said of the cache: which invalidations it acknowledges, and that it is read.
    fn said_of_cache(&mut self) -> (u64, bool) {
        let keep_alive = |call| match call {
            Call::KeepAlive(keep_alive) => Some(keep_alive),
            _ => None,
        };
        let last = self.sent().into_iter().filter_map(keep_alive).next_back().expect("a KeepAlive");
        (last.invalidations_acknowledged, last.reads_cache)
    }
}

#[test]
fn what_was_read_may_be_used_until_the_cache_lease_ends_and_no_longer() {
    let mut script = Script::with_cache(1 << 20).come_up();
    script.keep_node(NODE, "a");
    assert_eq!(script.node(NODE), None, "the master has promised nothing yet");
    // It counts from when the KeepAlive was sent, with the slower clock, like the session's lease.
    let sent = script.now;
    script.now = script.now + Duration::from_secs(7);
    script.grant(Duration::from_secs(6), C);
    let until = sent + shortened(Duration::from_secs(6) + C);
    assert_eq!(script.session.cache_until(), until);
    script.now = until - Duration::from_nanos(1);
    assert_eq!(script.text(NODE).as_deref(), Some("a"));
    script.now = until;
    assert_eq!(script.text(NODE), None);
    // A shorter one does not move it back, nor one that is said to outlast the session's own.
    let mut script = Script::caching();
    let until = script.session.cache_until();
    script.grant(Duration::ZERO, C / 2);
    assert_eq!(script.session.cache_until(), until);
    script.grant(Duration::ZERO, LEASE * 2);
    assert_eq!(script.session.cache_until(), script.session.safe_until());
}

#[test]
fn an_invalidation_is_obeyed_before_it_is_acknowledged() {
    let mut script = Script::caching();
    script.keep_node(NODE, "a");
    script.keep_node(NODE + 10, "other");
    script.told();
    script.invalidate(1, &[node(NODE)], C);
    assert!(matches!(&script.told()[..], [CacheChange::Drop(Place::Node(Instance(NODE)))]));
    assert_eq!((script.node(NODE), script.text(NODE + 10).as_deref()), (None, Some("other")));
    assert_eq!(script.said_of_cache().0, 1);
    // Told again, because the acknowledgement was lost: what was read since is newer than that.
    script.keep_node(NODE, "b");
    script.invalidate(1, &[node(NODE), node(NODE + 10)], C);
    assert_eq!((script.text(NODE).as_deref(), script.node(NODE + 10)), (Some("b"), None));
    assert_eq!(script.said_of_cache().0, 2);
}

#[test]
fn a_lease_that_comes_without_all_invalidations_is_none() {
    let mut script = Script::caching();
    script.keep_node(NODE, "a");
    script.keep_node(NODE + 10, "b");
    let until = script.session.cache_until();
    script.pass(C);
    script.invalidate(1, &[node(NODE + 10)], Duration::ZERO);
    assert_eq!(script.session.cache_until(), until);
    assert_eq!(script.node(NODE), None, "its invalidation may be among those that did not fit");
    script.invalidate(2, &[node(NODE)], C);
    assert!(script.session.cached(script.now).is_some());
    assert_eq!((script.node(NODE), script.node(NODE + 10)), (None, None));
}

#[test]
fn what_is_there_when_the_lease_ends_may_be_used_again_under_the_next() {
    let mut script = Script::caching();
    script.keep_node(NODE, "a");
    script.pass(C * 3);
    assert_eq!(script.node(NODE), None);
    script.grant(Duration::ZERO, C);
    assert_eq!(script.text(NODE).as_deref(), Some("a"), "the master would have told of a change");
}

#[test]
fn an_answer_that_an_invalidation_has_overtaken_is_not_kept() {
    let mut script = Script::caching();
    let overtaken = [get_contents(NODE), get_stat(NODE), read_dir(""), open(PATH), get_contents(NODE + 10)];
    let [contents_of, stat_of, listing_of, open_of, other] = overtaken.map(|call| script.submit(call));
    script.invalidate(1, &[node(NODE), listing(DIRECTORY), absence(DIRECTORY, "f")], C);
    script.receive_cachable(contents_of, of_epoch(1), contents("old", 1));
    script.receive_cachable(stat_of, of_epoch(1), Ok(Answer::Stat(stat(1))));
    script.receive_cachable(listing_of, of_epoch(1), page(&["f"], false));
    script.receive_cachable(open_of, of_name(DIRECTORY, "f"), Err(Error::not_found(PATH)));
    script.receive_cachable(other, of_epoch(1), contents("other", 1));
    assert_eq!(script.done().len(), 5, "they are answers all the same");
    assert_eq!((script.node(NODE), script.names(), script.is_absent(PATH)), (None, None, false));
    assert_eq!(script.text(NODE + 10).as_deref(), Some("other"), "and this one is as new as it looks");
    // A read that begins after it is, too.
    script.keep_node(NODE, "new");
    assert_eq!(script.text(NODE).as_deref(), Some("new"));
    // Everything overtakes everything.
    let number = script.submit(get_contents(NODE));
    script.kept_alive(Duration::ZERO, 1, 4, [wire::Invalidation::of_everything()].into(), C);
    script.receive_cachable(number, of_epoch(1), contents("old", 1));
    assert_eq!(script.node(NODE), None);
}

#[test]
fn an_answer_of_another_epoch_is_not_kept() {
    let mut script = Script::caching();
    let numbers = [get_contents(NODE), get_contents(NODE)].map(|call| script.submit(call));
    script.receive_cachable(numbers[0], of_epoch(2), contents("of a master that is not known here", 1));
    assert_eq!(script.node(NODE), None);
    // Whatever way the word of a new epoch takes past the answer.
    script.kept_alive(Duration::ZERO, 2, 1, Vec::new(), C);
    script.receive_cachable(numbers[1], of_epoch(1), contents("of the earlier one", 1));
    assert!(script.session.cached(script.now).is_some());
    assert_eq!(script.node(NODE), None);
}

#[test]
fn a_new_epoch_drops_everything_and_counts_invalidations_anew() {
    let mut script = Script::caching();
    script.keep_node(NODE, "a");
    script.invalidate(1, &[node(NODE + 10), node(NODE + 11)], C);
    assert_eq!(script.said_of_cache().0, 2);
    script.told();
    script.reconnect(2);
    assert!(matches!(script.told()[..], [CacheChange::Clear(_)]));
    assert_eq!((script.session.cache_until(), script.said_of_cache().0), (Instant::default(), 0));
    // Not even the next lease makes it good again.
    script.kept_alive(Duration::ZERO, 2, 1, [(&node(NODE + 12)).into()].into(), C);
    assert_eq!((script.node(NODE), script.said_of_cache().0), (None, 1));
    // On another connection to the same master nothing is lost.
    let mut script = Script::caching();
    script.keep_node(NODE, "a");
    script.reconnect(1);
    assert_eq!(script.text(NODE).as_deref(), Some("a"));
}

#[test]
fn what_an_earlier_master_says_of_the_cache_means_nothing() {
    let mut script = Script::caching();
    script.reconnect(2);
    script.ask(get_contents(NODE), of_epoch(2), contents("a", 1));
    script.kept_alive(Duration::ZERO, 1, 1, [(&node(NODE + 10)).into()].into(), C);
    assert_eq!((script.session.cache_until(), script.said_of_cache().0), (Instant::default(), 0));
}

#[test]
fn jeopardy_drops_everything() {
    let mut script = Script::caching();
    script.keep_node(NODE, "a");
    script.told();
    script.disconnected();
    script.pass(LEASE);
    assert_eq!(script.events(), [SessionEvent::Jeopardy]);
    assert!(matches!(script.told()[..], [CacheChange::Clear(_)]));
    script.connects();
    script.reconnect(1);
    assert_eq!(script.events(), [SessionEvent::Safe]);
    script.grant(Duration::ZERO, C);
    assert_eq!(script.node(NODE), None);
}

#[test]
fn nothing_is_cached_from_when_the_session_is_lost_or_its_end_is_asked_for() {
    let mut script = Script::caching();
    script.keep_node(NODE, "a");
    let read = script.submit(get_contents(NODE + 10));
    script.submit(Call::EndSession(wire::EndSession {}));
    assert_eq!(script.session.cache_until(), Instant::default());
    script.receive_cachable(read, of_epoch(1), contents("b", 1));
    script.grant(Duration::ZERO, C);
    assert!(script.session.cached(script.now).is_none());
    assert_eq!(script.session.cache_stats().entries, 0);
    let mut script = Script::caching();
    script.keep_node(NODE, "a");
    script.told();
    script.receive(script.pending, Err(Error::SessionExpired));
    assert!(matches!(script.told()[..], [CacheChange::Clear(_)]));
    assert!(script.session.cached(script.now).is_none());
}

#[test]
fn a_session_that_ended_for_being_idle_leaves_nothing_to_the_next() {
    let mut script = Script::caching();
    script.keep_node(NODE, "a");
    let sent = script.keep(Duration::from_secs(62));
    let [end] = &sent[..] else { panic!("{sent:?}") };
    assert!(matches!(script.told()[..], [CacheChange::Keep(..), CacheChange::Clear(_)]));
    script.receive(end.number, done());
    script.submit(get());
    script.tick();
    assert!(!script.connects().is_empty());
    script.greet();
    script.sent();
    script.open_session(1);
    script.grant(Duration::ZERO, C);
    assert_eq!(script.node(NODE), None);
    script.keep_node(NODE, "b");
    assert_eq!(script.text(NODE).as_deref(), Some("b"), "which has a cache of its own");
}

#[test]
fn an_own_change_drops_the_own_copy_each_time_it_is_sent() {
    for change in [write(NODE), delete(NODE)] {
        let mut script = Script::caching();
        script.keep_node(NODE, "a");
        script.keep_node(NODE + 10, "other");
        // Both before it and behind it, reads may be answered with what was there before.
        let before = script.submit(get_contents(NODE));
        script.told();
        let number = script.submit(change);
        assert!(matches!(&script.told()[..], [CacheChange::Drop(Place::Node(Instance(NODE)))]));
        assert_eq!((script.node(NODE), script.text(NODE + 10).as_deref()), (None, Some("other")));
        let behind = script.submit(get_stat(NODE));
        script.receive_cachable(behind, of_epoch(1), Ok(Answer::Stat(stat(1))));
        script.receive(number, Ok(Answer::Stat(stat(2))));
        script.receive_cachable(before, of_epoch(1), contents("a", 1));
        assert_eq!(script.node(NODE), None, "nobody would have told of it");
        script.keep_node(NODE, "b");
        assert_eq!(script.text(NODE).as_deref(), Some("b"));
    }
    // One that waits for its turn takes the copy with it when it goes.
    let mut script = Script::caching();
    let bound = wombat_proto::limits::UNACKNOWLEDGED_OUTCOMES;
    let changes: Vec<u64> = (0..bound).map(|_| script.submit(write(NODE + 10))).collect();
    let waits = script.submit(write(NODE));
    script.keep_node(NODE, "a");
    assert_eq!(script.text(NODE).as_deref(), Some("a"));
    script.requests();
    script.receive(changes[0], Ok(Answer::Stat(stat(2))));
    assert_eq!(script.requests()[0].number, waits);
    assert_eq!(script.node(NODE), None);
}

#[test]
fn an_invalidation_that_is_missing_may_have_been_of_anything() {
    for everything in [false, true] {
        let mut script = Script::caching();
        script.keep_node(NODE, "a");
        let number = script.submit(get_contents(NODE + 10));
        match everything {
            false => script.invalidate(2, &[node(NODE + 11)], Duration::ZERO),
            true => {
                let everything = [wire::Invalidation::of_everything()].into();
                script.kept_alive(Duration::ZERO, 1, 1, everything, Duration::ZERO);
            }
        }
        script.receive_cachable(number, of_epoch(1), contents("b", 1));
        assert!(script.session.cached(script.now).is_some(), "the lease that it had is good");
        assert_eq!((script.node(NODE), script.node(NODE + 10)), (None, None));
        assert_eq!(script.said_of_cache().0, if everything { 1 } else { 2 });
    }
    let mut script = Script::caching();
    script.invalidate(u64::MAX, &[node(1), node(2)], C);
}

#[test]
fn without_a_cache_nothing_is_kept_and_nothing_said_of_it() {
    let mut script = Script::up();
    script.keep_node(NODE, "a");
    script.invalidate(1, &[node(NODE)], C);
    assert_eq!(script.said_of_cache(), (1, false));
    assert_eq!(script.session.cache_until(), Instant::default());
    assert!(script.told().is_empty());
}
