//! The calls of the application: when each is sent, and sent again.

use super::*;

#[test]
fn what_was_not_answered_is_sent_again_with_its_number() {
    let mut script = Script::up();
    let (change, read) = (script.submit(set()), script.submit(get()));
    script.requests();
    script.receive(read, done());
    script.reconnect(1);
    let again = script.requests();
    let numbers: Vec<u64> = again.iter().map(|request| request.number).collect();
    assert!(numbers.contains(&change) && !numbers.contains(&read));
}

#[test]
fn a_new_epoch_is_learned_from_a_refusal_and_the_call_sent_again() {
    let mut script = Script::up();
    let number = script.submit(set());
    script.requests();
    script.receive(number, Err(Error::StaleEpoch { current: wombat_proto::Epoch(3) }));
    let again = script.requests();
    assert_eq!((again[0].number, again[0].epoch), (number, 3));
    assert!(script.done().is_empty());
}

#[test]
fn acknowledged_is_what_was_answered_without_a_gap_and_acquires_do_not_hold_it_up() {
    let mut script = Script::up();
    let acquire = script.submit(Call::Acquire(wire::Acquire::default()));
    let (first, second) = (script.submit(set()), script.submit(set()));
    script.requests();
    script.receive(second, done());
    let third = script.submit(set());
    assert_eq!(script.requests()[0].acknowledged, first - 1);
    script.receive(first, done());
    let fourth = script.submit(set());
    assert_eq!(script.requests()[0].acknowledged, third - 1);
    assert!(acquire < first && fourth > third);
}

#[test]
fn changes_beyond_what_the_cell_keeps_wait_for_their_turn() {
    let mut script = Script::up();
    let bound = wombat_proto::limits::UNACKNOWLEDGED_OUTCOMES;
    let numbers: Vec<u64> = (0..bound + 2).map(|_| script.submit(set())).collect();
    assert_eq!(script.requests().len(), bound);
    // A later one is answered first: the cell still keeps everything after the first.
    script.receive(numbers[5], done());
    assert!(script.requests().is_empty());
    script.receive(numbers[0], done());
    let sent: Vec<u64> = script.requests().iter().map(|request| request.number).collect();
    assert_eq!(sent, [numbers[bound]]);
}

#[test]
fn an_overloaded_master_is_asked_again_later() {
    let mut script = Script::up();
    let number = script.submit(set());
    script.requests();
    script.receive(number, Err(Error::Overloaded { retry_after: Duration::from_millis(20) }));
    assert!(script.done().is_empty());
    script.pass(Duration::from_millis(19));
    assert!(script.requests().is_empty());
    script.pass(Duration::from_millis(21));
    assert_eq!(script.requests()[0].number, number);
}

#[test]
fn what_an_overloaded_master_put_off_is_asked_of_the_next_at_once() {
    let mut script = Script::up();
    let number = script.submit(set());
    script.requests();
    script.receive(number, Err(Error::Overloaded { retry_after: Duration::from_secs(60) }));
    script.reconnect(2);
    assert!(script.requests().iter().any(|request| request.number == number));
}

#[test]
fn an_answer_to_a_call_that_was_not_sent_yet_means_nothing() {
    let mut script = Script::up();
    let bound = wombat_proto::limits::UNACKNOWLEDGED_OUTCOMES;
    let numbers: Vec<u64> = (0..bound + 1).map(|_| script.submit(set())).collect();
    script.requests();
    script.receive(numbers[bound], done());
    assert!(script.done().is_empty());
    for number in &numbers[..bound] {
        script.receive(*number, done());
    }
    assert_eq!(script.requests()[0].number, numbers[bound], "it is sent when there is room");
}

#[test]
fn an_acquire_that_was_taken_back_is_not_sent_again() {
    let mut script = Script::up();
    let acquire = script.submit(Call::Acquire(wire::Acquire::default()));
    script.receive(acquire, Err(Error::Overloaded { retry_after: Duration::from_millis(20) }));
    let cancel = script.submit(Call::CancelAcquire(wire::CancelAcquire { handle: None, acquire }));
    script.requests();
    script.receive(cancel, done());
    assert_eq!(script.done(), [(acquire, Err(Error::Cancelled)), (cancel, done())]);
    // A new master knows nothing of the cancellation: it would grant the lock to nobody.
    script.reconnect(2);
    script.pass(Duration::from_secs(1));
    let again = script.requests();
    assert!(again.iter().all(|request| request.number != acquire), "{again:?}");
}

#[test]
fn an_acquire_that_is_being_taken_back_is_not_sent_again_either() {
    // Found by the simulator: the next master knew that the cancellation had been applied, and answered it, but
    // not that the Acquire had been sent before it, and took the lock for nobody. The same with a Close.
    let handle = Some(wire::Handle { id: 7, ..wire::Handle::default() });
    for closes in [false, true] {
        let mut script = Script::up();
        let acquire = script.submit(Call::Acquire(wire::Acquire { handle, ..wire::Acquire::default() }));
        let end = script.submit(match closes {
            false => Call::CancelAcquire(wire::CancelAcquire { handle, acquire }),
            true => Call::Close(wire::Close { handle }),
        });
        assert_eq!(script.requests().len(), 2);
        script.reconnect(2);
        let again: Vec<u64> = script.requests().iter().map(|request| request.number).collect();
        assert!(again.contains(&end) && !again.contains(&acquire), "{again:?}");
        script.receive(end, done());
        assert_eq!(script.done(), [(acquire, Err(Error::Cancelled)), (end, done())]);
    }
}

#[test]
fn an_acquire_does_not_overtake_a_release_that_waits_for_its_turn() {
    let mut script = Script::up();
    let bound = wombat_proto::limits::UNACKNOWLEDGED_OUTCOMES;
    let numbers: Vec<u64> = (0..bound).map(|_| script.submit(set())).collect();
    script.requests();
    let release = script.submit(Call::Release(wire::Release::default()));
    let acquire = script.submit(Call::Acquire(wire::Acquire::default()));
    assert!(script.requests().is_empty());
    script.reconnect(1);
    assert!(script.requests().iter().all(|request| request.number != acquire));
    script.receive(numbers[0], done());
    let sent: Vec<u64> = script.requests().iter().map(|request| request.number).collect();
    assert_eq!(sent, [release, acquire]);
    // Without changes that wait, it waits for nothing.
    let another = script.submit(Call::Acquire(wire::Acquire::default()));
    assert_eq!(script.requests()[0].number, another);
}

#[test]
fn an_acquire_that_is_sent_again_says_for_how_long_it_has_waited() {
    let mut script = Script::up();
    let number = script.submit(Call::Acquire(wire::Acquire::default()));
    let waited = |script: &mut Script| {
        let requests = script.requests();
        let found = requests.iter().find(|request| request.number == number).cloned();
        match found.and_then(|request| request.call) {
            Some(Call::Acquire(acquire)) => acquire.waited_ms,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(waited(&mut script), 0);
    script.pass(Duration::from_secs(3));
    script.requests();
    script.reconnect(2);
    assert_eq!(waited(&mut script), 4000, "a second of it to reconnect");
}
