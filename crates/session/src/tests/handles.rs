//! Handles and their events.

use super::*;

#[test]
fn events_come_once_and_count_anew_with_each_master() {
    let mut script = Script::up();
    let event = || wire::Event { kind: Kind::ContentsModified.into(), handle: 1, ..wire::Event::default() };
    script.keep_alive(3, Duration::ZERO, 1, (1, [event(), event()].into()));
    assert_eq!(script.effects.node_events.len(), 2);
    let next = script.requests();
    let acknowledged = |request: &Request| match &request.call {
        Some(Call::KeepAlive(keep_alive)) => keep_alive.events_acknowledged,
        _ => panic!("no KeepAlive"),
    };
    assert_eq!(acknowledged(&next[0]), 2);
    // The acknowledgement was lost: they come again with a third.
    script.keep_alive(next[0].number, Duration::ZERO, 1, (1, [event(), event(), event()].into()));
    assert_eq!(script.effects.node_events.len(), 3);
    script.effects.node_events.clear();
    script.requests();
    script.reconnect(2);
    assert_eq!(script.effects.node_events[0].kind, Kind::FailedOver);
    let again = script.requests();
    assert_eq!(acknowledged(&again[0]), 0);
}

#[test]
fn event_numbers_beyond_all_bounds_are_no_reason_to_panic() {
    let mut script = Script::up();
    script.keep_alive(
        3,
        Duration::ZERO,
        1,
        (u64::MAX, [wire::Event::default(), wire::Event::default()].into()),
    );
    script.tick();
}

#[test]
fn handles_that_keep_something_alive_or_listen_are_presented_to_the_next_master() {
    let mut script = Script::up();
    let plain = script.open(false, 0);
    let ephemeral = script.open(true, 0);
    let listens = script.open(false, 2);
    let closed = script.open(true, 0);
    script.submit(Call::Close(wire::Close { handle: Some(closed) }));
    script.requests();
    script.reconnect(2);
    let presented: Vec<u64> = script
        .sent()
        .into_iter()
        .filter_map(|call| match call {
            Call::GetStat(get) => get.handle.map(|handle| handle.id),
            _ => None,
        })
        .collect();
    assert_eq!(presented, [ephemeral.id, listens.id], "not {}", plain.id);
    // On another connection to the same master there is no need.
    let mut script = Script::up();
    script.open(true, 0);
    script.reconnect(1);
    assert!(!script.sent().iter().any(|call| matches!(call, Call::GetStat(_))));
}
