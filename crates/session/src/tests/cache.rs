//! The cache (P§2.7): what is kept of the answers, what takes it away, and when it may be used.

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
fn contents_answer_for_the_stat_and_not_the_other_way_about() {
    let mut script = Script::caching();
    script.ask(get_stat(NODE), of_epoch(1), Ok(Answer::Stat(stat(1))));
    assert_eq!(script.node(NODE), Some((None, 1)));
    script.keep_node(NODE, "a");
    assert_eq!(script.node(NODE), Some((Some("a".into()), 1)));
    script.ask(get_stat(NODE), of_epoch(1), Ok(Answer::Stat(stat(1))));
    assert_eq!(script.text(NODE).as_deref(), Some("a"), "it says nothing new");
    // Under no lease, the word of a change may still be on its way.
    script.pass(C);
    script.ask(get_stat(NODE), of_epoch(1), Ok(Answer::Stat(stat(2))));
    script.grant(Duration::ZERO, C);
    assert_eq!(script.node(NODE), Some((None, 2)));
}

#[test]
fn an_answer_is_kept_only_if_the_master_says_so() {
    let mut script = Script::caching();
    script.ask(get_contents(NODE), None, contents("a", 1));
    script.ask(open(PATH), None, Err(Error::not_found(PATH)));
    script.ask(read_dir(""), None, page(&["f"], false));
    assert_eq!((script.node(NODE), script.is_absent(PATH), script.names()), (None, false, None));
    script.ask(get_contents(NODE), of_epoch(1), Err(Error::IsDirectory));
    script.ask(open(PATH), of_name(DIRECTORY, "a/b"), Err(Error::not_found(PATH)));
    assert_eq!(script.session.cache_stats().entries, 0, "and it makes sense");
}

#[test]
fn only_a_whole_listing_is_used() {
    let mut script = Script::caching();
    script.ask(read_dir(""), of_epoch(1), page(&["a", "b"], true));
    assert_eq!(script.names(), None, "there are more");
    script.invalidate(1, &[listing(DIRECTORY)], C);
    script.ask(read_dir("b"), of_epoch(1), page(&["d"], false));
    assert_eq!(script.names(), None, "the first page is from before the invalidation");
    // Somebody gives up after two of three.
    script.ask(read_dir(""), of_epoch(1), page(&["a", "b"], true));
    script.ask(read_dir("b"), of_epoch(1), page(&["c"], true));
    script.ask(read_dir(""), of_epoch(1), page(&["a", "b"], true));
    script.ask(read_dir("b"), of_epoch(1), page(&["c"], false));
    assert_eq!(script.names().unwrap(), ["a", "b", "c"]);
    // Read once more, it stays until there is another.
    script.ask(read_dir(""), of_epoch(1), page(&["a", "b"], true));
    assert_eq!(script.names().unwrap(), ["a", "b", "c"]);
    script.invalidate(2, &[listing(DIRECTORY)], C);
    assert_eq!(script.names(), None);
    // A page that may not be kept.
    script.ask(read_dir(""), of_epoch(1), page(&["a", "b"], true));
    script.ask(read_dir("b"), None, page(&["c"], true));
    script.ask(read_dir("c"), of_epoch(1), page(&["d"], false));
    assert_eq!(script.names(), None, "the second is missing");
    // Two read it at once.
    let (one, two) = (script.submit(read_dir("")), script.submit(read_dir("")));
    script.receive_cachable(one, of_epoch(1), page(&["a", "b"], true));
    script.receive_cachable(two, of_epoch(1), page(&["a", "b"], true));
    let (one, two) = (script.submit(read_dir("b")), script.submit(read_dir("b")));
    script.receive_cachable(one, of_epoch(1), page(&["c"], true));
    script.receive_cachable(two, of_epoch(1), page(&["c"], true));
    script.ask(read_dir("c"), of_epoch(1), page(&[], false));
    assert_eq!(script.names().unwrap(), ["a", "b", "c"]);
    // An empty one is a listing as well.
    script.invalidate(3, &[listing(DIRECTORY)], C);
    script.ask(read_dir(""), of_epoch(1), page(&[], false));
    assert_eq!(script.names().unwrap(), [""; 0]);
}

#[test]
fn that_a_path_leads_nowhere_is_kept_until_its_name_is_made() {
    let mut script = Script::caching();
    let absent = |script: &mut Script, path: &str, directory, name| {
        script.ask(open(path), of_name(directory, name), Err(Error::not_found(path)));
        assert!(script.is_absent(path));
    };
    // Two paths fail at the same name, one at another.
    absent(&mut script, "/ls/test/d/f", DIRECTORY, "f");
    absent(&mut script, "/ls/test/d/f/deeper", DIRECTORY, "f");
    absent(&mut script, "/ls/test/d/g", DIRECTORY, "g");
    absent(&mut script, "/ls/test/e/f", DIRECTORY + 1, "f");
    let error =
        script.session.cached(script.now).unwrap().absence("/ls/test/d/f/deeper").unwrap().error.clone();
    assert_eq!(error, Error::not_found("/ls/test/d/f/deeper"), "as the cell said it");
    script.invalidate(1, &[absence(DIRECTORY, "f")], C);
    let there = ["/ls/test/d/f", "/ls/test/d/f/deeper", "/ls/test/d/g", "/ls/test/e/f"];
    assert_eq!(there.map(|path| script.is_absent(path)), [false, false, true, true]);
    script.invalidate(2, &[CacheKey::any_absence(Instance(DIRECTORY))], C);
    assert_eq!(there.map(|path| script.is_absent(path)), [false, false, false, true]);
    // A path that fails at another name than before belongs to that.
    absent(&mut script, "/ls/test/d/f/deeper", DIRECTORY, "f");
    absent(&mut script, "/ls/test/d/f/deeper", DIRECTORY + 2, "deeper");
    script.invalidate(3, &[absence(DIRECTORY, "f")], C);
    assert!(script.is_absent("/ls/test/d/f/deeper"));
    script.invalidate(4, &[absence(DIRECTORY + 2, "deeper")], C);
    assert!(!script.is_absent("/ls/test/d/f/deeper"));
    // What would make it, or is asked of a handle, does not ask whether it is there.
    let may =
        wire::Open { path: PATH.into(), create: wire::open::Create::May.into(), ..wire::Open::default() };
    let relative = wire::Open { directory: handle(DIRECTORY), path: "f".into(), ..wire::Open::default() };
    script.ask(Call::Open(may), of_name(DIRECTORY, "f"), Err(Error::not_found(PATH)));
    script.ask(Call::Open(relative), of_name(DIRECTORY, "f"), Err(Error::not_found("f")));
    assert!(!script.is_absent(PATH) && !script.is_absent("f"));
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
fn what_is_cached_stays_within_its_bound_and_what_is_used_stays_longer() {
    let small = "x".repeat(1000);
    let mut script = Script::caching_at_most(10_000);
    for instance in 1..=100 {
        script.keep_node(instance, &small);
        assert!(script.session.cache_stats().bytes <= 10_000);
        // Somebody reads the first all the time.
        script.session.cached(script.now).unwrap().node(Instance(1)).expect("it is used").mark.touch();
    }
    let stats = script.session.cache_stats();
    assert_eq!(stats.evictions + stats.entries as u64, 100);
    assert!(stats.entries >= 6, "{stats:?}");
    assert!(script.node(100).is_some() && script.node(90).is_none());
    // Readers hear of each that gives way.
    let told = script.told();
    let drops = told.iter().filter(|change| matches!(change, CacheChange::Drop(_))).count();
    assert_eq!(drops as u64, stats.evictions);
    // One that is too large takes nobody's place, not even that of what it follows.
    script.keep_node(100, &"x".repeat(10_000));
    assert_eq!((script.node(100), script.node(1).is_some()), (None, true));
    assert!(matches!(&script.told()[..], [CacheChange::Drop(Place::Node(Instance(100)))]));
    assert_eq!(script.session.cache_stats().entries, stats.entries - 1);
    // All are used: one gives way all the same.
    for instance in 1..=100 {
        if let Some(node) = script.session.cached(script.now).unwrap().node(Instance(instance)) {
            node.mark.touch();
        }
    }
    script.keep_node(200, &small);
    script.keep_node(201, &small);
    assert!(script.node(201).is_some());
}

#[test]
fn a_listing_that_is_not_whole_yet_weighs_as_well() {
    let mut script = Script::caching_at_most(10_000);
    let names: Vec<String> = (0..300).map(|i| alloc::format!("{i:0>20}")).collect();
    let mut after = String::new();
    for pages in names.chunks(10) {
        let page = page(&pages.iter().map(String::as_str).collect::<Vec<_>>(), true);
        script.ask(read_dir(&after), of_epoch(1), page);
        after = pages.last().unwrap().clone();
        let bytes = script.session.cache_stats().bytes;
        assert!(bytes <= 10_000 && (bytes >= 1000 || pages[0] != names[0]), "{bytes}");
    }
    script.ask(read_dir(&after), of_epoch(1), page(&["z"], false));
    assert_eq!(script.names(), None, "too large");
}

#[test]
fn the_master_is_told_whether_the_cache_is_read() {
    let mut script = Script::caching();
    let says = |script: &mut Script| {
        script.grant(Duration::ZERO, C);
        script.said_of_cache().1
    };
    assert!(!says(&mut script));
    script.keep_node(NODE, "a");
    assert!(says(&mut script), "a read had to go there");
    assert!(!says(&mut script));
    script.session.cached(script.now).unwrap().node(Instance(NODE)).unwrap().mark.touch();
    assert!(says(&mut script), "a reader used it");
    assert!(!says(&mut script));
    script.ask(get_contents(NODE), None, contents("a", 1));
    assert!(!says(&mut script), "this could not have been cached");
}

#[test]
fn a_cache_that_is_read_again_asks_for_its_lease_while_there_is_one() {
    let touch = |script: &Script| {
        script.session.cached(script.now).unwrap().node(Instance(NODE)).unwrap().mark.touch();
    };
    let mut script = Script::caching();
    script.keep_node(NODE, "a");
    script.grant(Duration::ZERO, C);
    assert!(script.said_of_cache().1);
    script.grant(Duration::ZERO, C);
    // The master holds this one for half of the session's lease: nobody reads.
    assert!(!script.said_of_cache().1);
    touch(&script);
    let half = script.session.cache_until() - C / 2;
    assert_eq!(script.session.next_deadline(), Some(half));
    script.now = half - Duration::from_nanos(1);
    script.tick();
    assert!(script.sent().is_empty());
    script.now = half;
    script.tick();
    assert_eq!(script.said_of_cache(), (0, true), "somebody does");
    script.tick();
    assert!(script.sent().is_empty(), "it has been said");
    assert!(script.session.next_deadline().unwrap() > script.session.cache_until());
    // Nobody reads until it is over: the first who does then has it asked for.
    script.grant(Duration::ZERO, C);
    script.grant(Duration::ZERO, C);
    assert!(!script.said_of_cache().1);
    script.now = script.session.cache_until();
    script.tick();
    assert!(script.sent().is_empty());
    script.keep_node(NODE, "a");
    script.requests();
    script.tick();
    assert_eq!(script.said_of_cache(), (0, true));
    // What was lost with its connection is said again.
    script.reconnect(1);
    assert_eq!(script.said_of_cache(), (0, true));
}

#[test]
fn a_session_that_reads_what_it_has_cached_is_not_idle() {
    let mut script = Script::caching();
    script.ask(open(PATH), of_name(DIRECTORY, "f"), Err(Error::not_found(PATH)));
    for _ in 0..200 {
        script.grant(Duration::ZERO, C);
        let sent = script.sent();
        assert!(matches!(&sent[..], [Call::KeepAlive(keep_alive)] if !keep_alive.idle), "{sent:?}");
        script.session.cached(script.now).unwrap().absence(PATH).unwrap().mark.touch();
        script.pass(Duration::from_secs(1));
    }
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
