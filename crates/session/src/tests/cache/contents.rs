//! What is cached of nodes, directories and paths, and how much of it.

use super::*;

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
