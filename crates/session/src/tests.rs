//! Scripts: what is said to a session, what it answers, what time does to it. None of them waits.

mod cache;
mod search;

use crate::{Answer, Config, Effects, LinkId, Session, SessionEvent};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::wire::{self, Request, Response, event::Kind, request::Call};
use wombat_proto::{Error, Instant, Result, Rho};

const LEASE: Duration = Duration::from_secs(12);
const GRACE: Duration = Duration::from_secs(45);

struct Script {
    session: Session,
    now: Instant,
    effects: Effects,
    /// The connection that was asked for last.
    link: LinkId,
    /// The number of the KeepAlive that was sent last.
    pending: u64,
    /// Whether it has a cache.
    caches: bool,
}

impl Script {
    /// A session that asks for a connection.
    fn new() -> Script {
        Script::with_cache(0)
    }

    /// One with a cache of so many bytes.
    fn with_cache(cache_bytes: usize) -> Script {
        let mut script = Script::with_endpoints(&["a:1"], cache_bytes);
        script.tick();
        assert_eq!(script.connects(), ["a:1"]);
        script
    }

    /// One that has asked for nothing yet.
    fn with_endpoints(endpoints: &[&str], cache_bytes: usize) -> Script {
        let config = Config {
            endpoints: endpoints.iter().map(ToString::to_string).collect(),
            cell: String::new(),
            client: "script".into(),
            sequencers: Vec::new(),
            cache_bytes,
            grace: GRACE,
            rho: Rho(10),
            seed: 1,
        };
        let now = Instant::from_nanos(1_000_000_000_000);
        Script {
            session: Session::new(config, now),
            now,
            effects: Effects::default(),
            link: LinkId(0),
            pending: 0,
            caches: cache_bytes > 0,
        }
    }

    /// The addresses of the connections that are asked for.
    fn connects(&mut self) -> Vec<String> {
        let connects = core::mem::take(&mut self.effects.connect);
        self.link = connects.last().map_or(self.link, |(link, _)| *link);
        connects.into_iter().map(|(_, address)| address).collect()
    }

    /// Whether the session gives connections up.
    fn hangs_up(&mut self) -> bool {
        !core::mem::take(&mut self.effects.disconnect).is_empty()
    }

    /// The connection was made.
    fn connected(&mut self) {
        self.session.connected(self.now, self.link, &mut self.effects);
    }

    /// The connection broke, or could not be made.
    fn disconnected(&mut self) {
        self.session.disconnected(self.now, self.link, "connection reset", &mut self.effects);
    }

    /// A session that is up, its first KeepAlive pending.
    fn up() -> Script {
        Script::new().come_up()
    }

    fn come_up(mut self) -> Script {
        self.greet();
        let caches = self.caches;
        assert!(matches!(&self.sent()[..], [Call::CreateSession(create)] if create.caches == caches));
        self.open_session(1);
        assert!(matches!(self.sent()[..], [Call::KeepAlive(_)]));
        self
    }

    fn greet(&mut self) {
        self.connected();
        assert!(matches!(self.sent()[..], [Call::Hello(_)]));
        let welcome = wire::Welcome { cell: "test".into(), epoch: 1, ..wire::Welcome::default() };
        self.receive(0, Ok(Answer::Welcome(welcome)));
    }

    fn open_session(&mut self, epoch: u64) {
        let opened = wire::SessionOpened {
            session: 5,
            lease_ms: LEASE.as_millis() as u32,
            epoch,
            ..wire::SessionOpened::default()
        };
        self.receive(0, Ok(Answer::SessionOpened(opened)));
    }

    /// Loses the connection and makes another, to a master of that epoch.
    fn reconnect(&mut self, epoch: u64) {
        self.disconnected();
        self.pass(Duration::from_secs(1));
        assert!(!self.connects().is_empty());
        self.greet();
        assert!(matches!(self.sent()[..], [Call::ResumeSession(_)]));
        self.open_session(epoch);
    }

    fn receive(&mut self, number: u64, result: Result<Answer>) {
        self.receive_cachable(number, None, result);
    }

    fn receive_cachable(&mut self, number: u64, cachable: Option<wire::Cachable>, result: Result<Answer>) {
        let result = Some(result.unwrap_or_else(|error| Answer::Error((&error).into())));
        let response = Response { session: 5, number, cachable, result };
        self.session.received(self.now, self.link, response, &mut self.effects);
    }

    fn submit(&mut self, call: Call) -> u64 {
        self.session.submit(call, &mut self.effects)
    }

    fn tick(&mut self) {
        self.session.tick(self.now, &mut self.effects);
        let deadline = self.session.next_deadline();
        assert!(deadline.is_none_or(|at| at > self.now), "it would be ticked without end");
    }

    fn pass(&mut self, duration: Duration) {
        self.now = self.now + duration;
        self.tick();
    }

    fn requests(&mut self) -> Vec<Request> {
        let requests = core::mem::take(&mut self.effects.send);
        let requests: Vec<Request> = requests.into_iter().map(|(_, request)| request).collect();
        let keep_alive = |request: &&Request| matches!(request.call, Some(Call::KeepAlive(_)));
        self.pending = requests.iter().rfind(keep_alive).map_or(self.pending, |request| request.number);
        requests
    }

    fn sent(&mut self) -> Vec<Call> {
        self.requests().into_iter().filter_map(|request| request.call).collect()
    }

    fn events(&mut self) -> Vec<SessionEvent> {
        core::mem::take(&mut self.effects.session_events)
    }

    fn done(&mut self) -> Vec<(u64, Result<Answer>)> {
        core::mem::take(&mut self.effects.done)
    }

    /// Answers the pending KeepAlive, which the master held for `held`.
    fn keep_alive(&mut self, number: u64, held: Duration, epoch: u64, events: (u64, Vec<wire::Event>)) {
        let kept = wire::KeptAlive {
            lease_ms: LEASE.as_millis() as u32,
            held_us: held.as_micros() as u64,
            epoch,
            first_event: events.0,
            events: events.1,
            ..wire::KeptAlive::default()
        };
        self.receive(number, Ok(Answer::KeptAlive(kept)));
    }
}

fn set() -> Call {
    Call::SetContents(wire::SetContents::default())
}

fn get() -> Call {
    Call::GetStat(wire::GetStat::default())
}

fn done() -> Result<Answer> {
    Ok(Answer::Done(wire::Done {}))
}

fn shortened(duration: Duration) -> Duration {
    Rho(10).shorten(duration)
}

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

fn opened(id: u64, ephemeral: bool, events: u32) -> Result<Answer> {
    let handle = Some(wire::Handle { id, events, ..wire::Handle::default() });
    let stat = Some(wire::Stat { ephemeral, ..wire::Stat::default() });
    Ok(Answer::Opened(wire::Opened { handle, stat, ..wire::Opened::default() }))
}

impl Script {
    /// A handle that is open.
    fn open(&mut self, ephemeral: bool, events: u32) -> wire::Handle {
        let number = self.submit(Call::Open(wire::Open::default()));
        self.receive(number, opened(number, ephemeral, events));
        self.requests();
        self.done();
        wire::Handle { id: number, events, ..wire::Handle::default() }
    }

    /// Lets time pass while the master answers every KeepAlive in time. Returns what else was sent.
    fn keep(&mut self, duration: Duration) -> Vec<Request> {
        let end = self.now + duration;
        let mut others = Vec::new();
        self.tick();
        while self.now < end {
            others.extend(self.requests());
            self.keep_alive(self.pending, Duration::ZERO, 1, (1, Vec::new()));
            self.pass(Duration::from_secs(1));
        }
        others.extend(self.requests());
        others.retain(|request| !matches!(request.call, Some(Call::KeepAlive(_))));
        others
    }
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

#[test]
fn what_an_overloaded_master_put_off_is_asked_of_the_next_at_once() {
    let mut script = Script::up();
    let number = script.submit(set());
    script.requests();
    script.receive(number, Err(Error::Overloaded { retry_after: Duration::from_secs(60) }));
    script.reconnect(2);
    assert!(script.requests().iter().any(|request| request.number == number));
}

/// Answers the pending KeepAlive with what the cell wants back.
fn revoke(script: &mut Script, revocations: &[(u64, u64)]) {
    let revocations =
        revocations.iter().map(|(handle, token)| wire::Revocation { handle: *handle, token: *token });
    let kept = wire::KeptAlive {
        lease_ms: LEASE.as_millis() as u32,
        epoch: 1,
        first_event: 1,
        revocations: revocations.collect(),
        ..wire::KeptAlive::default()
    };
    script.receive(script.pending, Ok(Answer::KeptAlive(kept)));
}

/// What the KeepAlive that was just sent says of revocations: heard and obeyed.
fn said(script: &mut Script) -> (Vec<u64>, Vec<u64>) {
    match script.sent().pop() {
        Some(Call::KeepAlive(keep_alive)) => (keep_alive.revocations_heard, keep_alive.revocations_obeyed),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lock_that_is_broken_is_given_up_after_a_notice() {
    let mut script = Script::up();
    revoke(&mut script, &[(7, 70)]);
    let revoked = script.effects.revoked.pop().unwrap();
    assert_eq!((revoked.handle.0, revoked.token.0), (7, 70));
    assert_eq!(said(&mut script), ([70].into(), [].into()), "it is heard at once");
    let notice = revoked.until.since(script.now);
    assert_eq!(notice, LEASE / 3);
    assert_eq!(script.session.next_deadline(), Some(revoked.until));
    script.pass(notice - Duration::from_millis(1));
    assert!(script.sent().is_empty(), "until then somebody may work under it");
    script.pass(Duration::from_millis(1));
    assert_eq!(said(&mut script), ([70].into(), [70].into()), "and obeyed without waiting for the next turn");
    // Told again it is not new; told no more it is forgotten.
    revoke(&mut script, &[(7, 70)]);
    assert!(script.effects.revoked.is_empty());
    assert_eq!(said(&mut script), ([70].into(), [70].into()));
    revoke(&mut script, &[]);
    assert_eq!(said(&mut script), ([].into(), [].into()));
}

#[test]
fn a_notice_that_ends_without_a_connection_is_told_with_the_next() {
    let mut script = Script::up();
    revoke(&mut script, &[(7, 70)]);
    script.requests();
    script.disconnected();
    script.pass(LEASE / 3);
    script.connects();
    script.greet();
    script.sent();
    script.open_session(1);
    assert_eq!(said(&mut script), ([70].into(), [70].into()));
}
