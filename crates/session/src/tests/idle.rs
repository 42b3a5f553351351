//! A session that is idle for long ends, and the next call begins another.

use super::*;

#[test]
fn a_session_that_is_idle_for_a_minute_ends_and_the_next_call_begins_another() {
    let mut script = Script::up();
    let handle = script.open(false, 0);
    assert!(script.keep(Duration::from_secs(300)).is_empty(), "it has a handle");
    let close = script.submit(Call::Close(wire::Close { handle: Some(handle) }));
    script.receive(close, done());
    script.requests();
    assert!(script.keep(Duration::from_secs(59)).is_empty(), "not yet");
    let sent = script.keep(Duration::from_secs(1));
    let [end] = &sent[..] else { panic!("{sent:?}") };
    assert!(matches!(end.call, Some(Call::EndSession(_))));
    // What is asked for meanwhile is a matter of the next session.
    let call = script.submit(get());
    assert!(script.requests().is_empty());
    script.receive(end.number, done());
    assert!(script.hangs_up() && script.events().is_empty(), "nothing is lost, nobody is told");
    assert_eq!((script.session.id(), script.session.is_expired()), (None, false));
    script.tick();
    assert_eq!(script.connects(), ["a:1"]);
    script.connected();
    let sent = script.sent();
    assert!(
        matches!(&sent[..], [Call::Hello(hello)] if hello.cell == "test"),
        "with the same cell: {sent:?}"
    );
    let welcome = wire::Welcome { cell: "test".into(), epoch: 1, ..wire::Welcome::default() };
    script.receive(0, Ok(Answer::Welcome(welcome)));
    assert!(matches!(script.sent()[..], [Call::CreateSession(_)]));
    script.open_session(1);
    assert!(script.requests().iter().any(|request| request.number == call));
}

#[test]
fn a_session_says_that_it_is_idle_only_if_it_made_no_call_since_it_said_something() {
    let mut script = Script::up();
    let mut says = |calls: usize| {
        for _ in 0..calls {
            // The cell cannot tell whose calls these are.
            let number = script.submit(Call::CheckSequencer(wire::CheckSequencer::default()));
            script.requests();
            script.receive(number, done());
        }
        script.keep_alive(script.pending, Duration::ZERO, 1, (1, Vec::new()));
        match script.sent().pop() {
            Some(Call::KeepAlive(keep_alive)) => keep_alive.idle,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!([0, 1, 0, 2, 0].map(&mut says), [true, false, true, false, true]);
}

#[test]
fn a_session_at_rest_asks_for_nothing_until_it_is_asked() {
    let mut script = Script::up();
    assert_eq!(script.keep(Duration::from_secs(60)).len(), 1);
    script.disconnected(); // Whether its end was heard or not.
    assert_eq!((script.session.id(), script.session.next_deadline()), (None, None));
    script.pass(Duration::from_secs(1000));
    assert!(script.connects().is_empty() && script.events().is_empty());
    script.submit(get());
    script.tick();
    assert_eq!(script.connects(), ["a:1"]);
}

#[test]
fn a_call_that_wakes_a_session_at_rest_does_not_wait_for_ever() {
    let mut script = Script::up();
    assert_eq!(script.keep(Duration::from_secs(60)).len(), 1);
    script.disconnected();
    let number = script.submit(get());
    script.tick();
    let due = script.now + GRACE;
    while script.now < due {
        assert!(script.done().is_empty());
        if !script.connects().is_empty() {
            script.disconnected(); // Nobody is there.
        }
        script.now = script.session.next_deadline().expect("it waits for something").max(script.now);
        script.tick();
    }
    assert_eq!(script.done(), [(number, Err(Error::unreachable("a:1: connection reset")))]);
    assert!(!script.session.is_expired(), "there may be somebody tomorrow");
}
