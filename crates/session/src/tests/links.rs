//! Links that are refused, silent, or break.

use super::*;

#[test]
fn a_refusal_that_will_not_change_is_told_and_not_repeated() {
    let mut script = Script::new();
    let waits = script.submit(get());
    script.connected();
    let refusal = Error::invalid("this is the cell other");
    script.receive(0, Err(refusal.clone()));
    assert_eq!(script.done(), [(waits, Err(refusal))]);
    assert!(script.session.next_deadline().is_none());
}

#[test]
fn a_replica_that_is_not_the_master_tells_where_it_is() {
    let mut script = Script::new();
    script.connected();
    let elsewhere = wire::Welcome { master: "host:1".into(), ..wire::Welcome::default() };
    script.receive(0, Ok(Answer::Welcome(elsewhere)));
    assert_eq!(script.connects(), ["host:1"], "at once");
    assert!(!script.hangs_up(), "it is asked again if that one does not answer");
}

#[test]
fn a_silent_link_is_replaced_in_jeopardy() {
    let mut script = Script::up();
    let number = script.submit(set());
    script.requests();
    script.pass(LEASE);
    assert_eq!(script.events(), [SessionEvent::Jeopardy]);
    script.requests();
    assert_eq!(script.connects(), ["a:1"]);
    script.greet();
    assert!(matches!(script.sent()[..], [Call::ResumeSession(_)]));
    assert!(!script.hangs_up(), "the other has not proved better yet");
    script.open_session(1);
    assert!(script.hangs_up());
    assert_eq!(script.events(), [SessionEvent::Safe]);
    assert!(script.requests().iter().any(|request| request.number == number));
}

#[test]
fn a_server_that_does_not_answer_a_greeting_is_given_up() {
    let mut script = Script::new();
    script.connected();
    script.tick();
    script.requests();
    let silence = script.session.next_deadline().expect("silence has an end");
    script.now = silence;
    script.tick();
    assert!(script.hangs_up());
    script.pass(Duration::from_secs(1));
    assert!(!script.connects().is_empty());
    script.greet();
    assert!(matches!(script.sent()[..], [Call::CreateSession(_)]));
    script.tick();
    script.now = script.session.next_deadline().expect("silence has an end");
    script.tick();
    assert!(script.hangs_up());
}

#[test]
fn a_connection_that_breaks_as_soon_as_it_speaks_for_the_session_is_not_tried_in_a_storm() {
    let mut script = Script::up();
    let (mut waits, mut keep_alive) = (Vec::new(), 0);
    for _ in 0..12 {
        script.disconnected();
        let retry = script.session.next_deadline().expect("it tries again");
        waits.push(retry.since(script.now));
        script.now = retry;
        script.tick();
        assert!(!script.connects().is_empty());
        script.greet();
        script.requests();
        script.open_session(1);
        keep_alive = script.requests()[0].number;
    }
    assert!(waits[11] >= Duration::from_millis(400), "{waits:?}");
    // One that has served for a while starts anew.
    script.keep_alive(keep_alive, Duration::ZERO, 1, (1, Vec::new()));
    script.disconnected();
    let retry = script.session.next_deadline().expect("it tries again");
    assert!(retry.since(script.now) <= Duration::from_millis(10));
}

#[test]
fn a_session_looks_for_its_own_cell_only() {
    let mut script = Script::up();
    script.disconnected();
    script.tick();
    script.connects();
    script.connected();
    let [Call::Hello(hello)] = &script.sent()[..] else { panic!("no Hello") };
    assert_eq!(hello.cell, "test");
    // A replica of another cell, among the endpoints, is no reason to give up.
    script.receive(0, Err(Error::invalid("this is the cell other")));
    assert!(script.hangs_up() && script.events().is_empty());
    assert!(script.session.next_deadline().is_some());
}

#[test]
fn who_is_sent_away_tries_again_at_once_but_not_for_ever() {
    let mut script = Script::up();
    script.keep_alive(3, Duration::ZERO, 1, (1, Vec::new()));
    let pending = script.requests()[0].number;
    script.receive(pending, Err(Error::NotMaster { hint: Some("next:1".into()) }));
    script.tick();
    assert_eq!(script.connects(), ["next:1"], "no time passes");
    script.disconnected();
    script.tick();
    assert_eq!(script.connects(), ["a:1"], "it may serve again");
    script.disconnected();
    script.tick();
    assert_eq!(script.connects(), ["next:1"]);
    script.disconnected();
    script.tick();
    assert!(script.connects().is_empty(), "the second attempt waits a little");
}
