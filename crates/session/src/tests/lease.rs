//! The client's view of its lease: safe, jeopardy, expired.

use super::*;

#[test]
fn the_view_counts_from_sending_and_with_the_slower_clock() {
    let mut script = Script::up();
    // SessionOpened counts from when CreateSession was sent.
    assert_eq!(script.session.safe_until(), script.now + shortened(LEASE));
    let sent = script.now;
    script.pass(Duration::from_secs(7));
    script.keep_alive(3, Duration::from_secs(6), 1, (1, Vec::new()));
    assert_eq!(script.session.safe_until(), sent + shortened(LEASE + Duration::from_secs(6)));
}

#[test]
fn jeopardy_then_safe_when_a_master_is_found_in_time() {
    let mut script = Script::up();
    script.disconnected();
    script.pass(LEASE);
    assert_eq!(script.events(), [SessionEvent::Jeopardy]);
    // Calls wait.
    let number = script.submit(get());
    assert!(script.sent().is_empty());
    script.pass(GRACE - Duration::from_secs(5));
    script.connects();
    script.reconnect(2);
    let epoch = wombat_proto::Epoch(2);
    assert_eq!(script.events(), [SessionEvent::FailedOver { epoch }, SessionEvent::Safe]);
    let again = script.requests();
    assert!(again.iter().any(|request| request.number == number && request.epoch == 2));
}

#[test]
fn expired_when_grace_has_passed_and_every_call_fails() {
    let mut script = Script::up();
    let (change, read) = (script.submit(set()), script.submit(get()));
    script.disconnected();
    let unsent = script.submit(set());
    script.pass(LEASE + GRACE);
    assert!(script.events().contains(&SessionEvent::Expired));
    let expected = [
        (change, Err(Error::Unknown)), // It was sent: it may have taken effect.
        (read, Err(Error::SessionExpired)),
        (unsent, Err(Error::SessionExpired)),
    ];
    assert_eq!(script.done(), expected);
    let late = script.submit(get());
    assert_eq!(script.done(), [(late, Err(Error::SessionExpired))], "I14");
    assert_eq!(script.session.safe_until(), Instant::default());
}

#[test]
fn a_session_that_the_master_does_not_know_is_lost_at_once() {
    let mut script = Script::up();
    script.disconnected();
    script.tick();
    script.connects();
    script.greet();
    script.sent();
    script.receive(0, Err(Error::SessionExpired));
    assert!(script.events().contains(&SessionEvent::Expired));
}

#[test]
fn a_lost_session_stays_lost_whatever_the_connection_still_brings() {
    let mut script = Script::up();
    let read = script.submit(get());
    script.requests();
    // One batch of frames: the refusal of a call, then that of the pending KeepAlive.
    script.receive(read, Err(Error::SessionExpired));
    script.receive(3, Err(Error::SessionExpired));
    assert_eq!(script.events(), [SessionEvent::Expired], "told once");
    assert!(script.requests().is_empty());
    let mut script = Script::up();
    let read = script.submit(get());
    script.requests();
    script.receive(read, Err(Error::SessionExpired));
    script.keep_alive(3, Duration::ZERO, 1, (1, [wire::Event::default()].into()));
    assert_eq!(script.events(), [SessionEvent::Expired]);
    assert!(script.requests().is_empty() && script.effects.node_events.is_empty());
}

#[test]
fn a_session_that_is_lost_while_a_connection_is_made_is_not_kept_alive_on_it() {
    let mut script = Script::up();
    script.disconnected();
    script.pass(LEASE + GRACE - Duration::from_secs(1));
    assert!(!script.connects().is_empty());
    script.pass(Duration::from_secs(1));
    assert!(script.events().contains(&SessionEvent::Expired));
    script.connected();
    assert!(script.hangs_up(), "nobody has a use for the connection");
    let welcome = wire::Welcome { cell: "test".into(), epoch: 1, ..wire::Welcome::default() };
    script.receive(0, Ok(Answer::Welcome(welcome)));
    script.open_session(2);
    assert!(script.requests().is_empty(), "its locks must be free to end at the master");
    assert!(script.events().is_empty());
}

#[test]
fn no_lock_is_sure_from_when_the_end_of_the_session_is_asked_for() {
    let mut script = Script::up();
    let end = script.submit(Call::EndSession(wire::EndSession {}));
    assert!(!script.requests().is_empty());
    assert_eq!(script.session.safe_until(), Instant::default());
    script.receive(end, done());
    assert_eq!(script.done(), [(end, done())]);
    assert!(script.session.is_expired());
    assert_eq!(script.events(), [SessionEvent::Expired]);
    let late = script.submit(get());
    assert_eq!(script.done(), [(late, Err(Error::SessionExpired))]);
}
