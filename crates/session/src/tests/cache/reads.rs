//! The master learns whether the cache is read, and grants its lease accordingly.

use super::*;

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
