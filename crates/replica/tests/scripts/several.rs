//! Three replicas of one cell, pumped by hand: what they say arrives at once, what they write is durable at
//! once.

use crate::world::request;
use bytes::{Bytes, BytesMut};
use prost::Message;
use std::collections::VecDeque;
use std::time::Duration;
use wombat_proto::wire::{self, log, request::Call, response::Result as Answer};
use wombat_proto::{CellName, Instant, Members, ReplicaId, Slot};
use wombat_replica::{Config, ConnectionId, Effects, Input, PeerMessage, Recovered, Replica, StepTime};

pub(crate) struct Cell {
    pub(crate) replicas: Vec<Replica>,
    pub(crate) now: Duration,
    persisted: Vec<u64>,
    messages: VecDeque<(u32, u32, PeerMessage)>,
    pub(crate) replies: Vec<wire::Response>,
    hung_up: usize,
    diverged: Vec<(u32, Slot)>,
    /// Nothing goes to or from it.
    pub(crate) cut_off: Option<u32>,
}

fn config(id: u32) -> Config {
    Config {
        cell: CellName::parse("test").unwrap(),
        replica: ReplicaId(id),
        address: format!("host-{id}"),
        founders: Members::founding((1..=3).map(|id| format!("host-{id}"))),
        master_lease: Duration::from_secs(2),
        max_master_lease: Duration::from_secs(8),
        seed: u64::from(id),
        lease: Duration::from_secs(12),
        cache_lease: Duration::from_secs(2),
        version: "test".into(),
        fresh_key: [id as u8; 32],
        activity: false,
    }
}

impl Cell {
    pub(crate) fn new() -> Cell {
        let mut cell = Cell::unfounded();
        cell.pass(Duration::from_secs(10));
        cell
    }

    /// Three that have not said anything to each other.
    pub(crate) fn unfounded() -> Cell {
        let start = |id| {
            let recovered = Recovered { starts: 1, ..Recovered::default() };
            Replica::new(config(id), recovered, moment(Duration::from_secs(100))).unwrap()
        };
        Cell {
            replicas: (1..=3).map(start).collect(),
            now: Duration::from_secs(100),
            persisted: vec![0; 3],
            messages: VecDeque::new(),
            replies: Vec::new(),
            hung_up: 0,
            diverged: Vec::new(),
            cut_off: None,
        }
    }

    /// Lets time pass, in steps in which everyone ticks and everything arrives.
    pub(crate) fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        while self.now < until {
            self.now += Duration::from_millis(50);
            (1..=3).for_each(|id| self.step(id, Input::Tick));
            while let Some((from, to, message)) = self.messages.pop_front() {
                if self.cut_off != Some(from) && self.cut_off != Some(to) {
                    self.step(to, Input::Peer { from: ReplicaId(from), message });
                }
            }
        }
    }

    pub(crate) fn step(&mut self, id: u32, input: Input) {
        let place = id as usize - 1;
        let mut input = Some(input);
        while let Some(next) = input.take() {
            let mut effects = Effects::default();
            self.replicas[place].step(moment(self.now), next, &mut effects);
            self.replicas[place].state().check();
            self.messages.extend(effects.send.into_iter().map(|(to, message)| (id, to.0, message)));
            self.replies.extend(effects.replies.into_iter().map(|(_, response)| response));
            self.hung_up += effects.hang_up.len();
            self.diverged.extend(effects.diverged.map(|slot| (id, slot)));
            if !effects.persist.is_empty() {
                self.persisted[place] += effects.persist.len() as u64;
                input = Some(Input::Persisted { through: self.persisted[place] });
            }
        }
    }

    pub(crate) fn master(&self) -> u32 {
        let masters: Vec<u32> = (1..=3).filter(|id| self.replicas[*id as usize - 1].is_master()).collect();
        assert_eq!(masters.len(), 1, "one master");
        masters[0]
    }

    /// Says something on a connection of its own, and returns the last answer.
    pub(crate) fn ask(&mut self, id: u32, calls: Vec<Call>) -> Answer {
        self.replies.clear();
        let connection = ConnectionId(1);
        for (number, call) in (1..).zip(calls) {
            let request = wire::Request { number, ..request(call) };
            self.step(id, Input::Request { connection, request });
            self.pass(Duration::from_millis(100));
        }
        self.replies.pop().and_then(|response| response.result).expect("an answer")
    }

    /// Puts in the place of a replica one that starts from its snapshot, in which a byte has changed.
    fn corrupt(&mut self, id: u32) {
        self.start_from_snapshot(id, flip_a_created_time);
    }

    /// A replica starts again from a snapshot of all that it knew, as it is then.
    pub(crate) fn start_from_snapshot(&mut self, id: u32, change: fn(Bytes) -> Bytes) {
        let snapshot = self.replicas[id as usize - 1].snapshot().expect("the cell is founded");
        let chunks = snapshot.chunks().map(change).collect();
        let slot = snapshot.slot();
        let recovered =
            Recovered { starts: 2, chosen: slot, snapshot: Some((slot, chunks)), ..Recovered::default() };
        self.replicas[id as usize - 1] = Replica::new(config(id), recovered, moment(self.now)).unwrap();
        self.persisted[id as usize - 1] = 0;
    }
}

fn moment(now: Duration) -> StepTime {
    StepTime { now: Instant::from_nanos(now.as_nanos() as u64), wall_ms: 0 }
}

fn flip_a_created_time(mut chunk: Bytes) -> Bytes {
    let whole = chunk.clone();
    let mut out = BytesMut::new();
    while !chunk.is_empty() {
        let Ok(mut record) = log::SnapshotRecord::decode_length_delimited(&mut chunk) else { return whole };
        if let Some(log::snapshot_record::Record::Node(node)) = &mut record.record {
            node.created_wall_ms ^= 1;
        }
        record.encode_length_delimited(&mut out).unwrap();
    }
    out.freeze()
}

pub(crate) fn hello() -> Call {
    Call::Hello(wire::Hello { version: wire::VERSION, cell: String::new(), ..wire::Hello::default() })
}

#[test]
fn three_elect_one_and_the_others_say_where_it_is() {
    let mut cell = Cell::new();
    let master = cell.master();
    let other = master % 3 + 1;
    let create = Call::CreateSession(wire::CreateSession::default());
    let Answer::Error(error) = cell.ask(other, vec![hello(), create.clone()]) else { panic!("an error") };
    assert_eq!(error.text, format!("host-{master}"), "the hint says where the master is");
    assert!(matches!(cell.ask(master, vec![hello(), create]), Answer::SessionOpened(_)));
    let applied: Vec<_> = cell.replicas.iter().map(|replica| replica.state().session_count()).collect();
    cell.pass(Duration::from_secs(1));
    assert!(applied.contains(&1));
    assert!(cell.replicas.iter().all(|replica| replica.state().session_count() == 1));
}

#[test]
fn a_master_that_is_cut_off_drops_its_memory_and_its_clients() {
    let mut cell = Cell::new();
    let old = cell.master();
    let create = Call::CreateSession(wire::CreateSession::default());
    assert!(matches!(cell.ask(old, vec![hello(), create]), Answer::SessionOpened(_)));
    cell.cut_off = Some(old);
    cell.pass(Duration::from_secs(10));
    assert_ne!(cell.master(), old);
    assert_eq!(cell.hung_up, 1, "its client has to look for the next");
    cell.cut_off = None;
    cell.pass(Duration::from_secs(10));
    assert_ne!(cell.master(), old);
    let digests: Vec<_> = cell.replicas.iter().map(|replica| replica.state().digest()).collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "I19");
}

#[test]
fn what_a_client_sent_before_it_heard_that_its_master_is_none_is_not_answered() {
    let mut cell = Cell::new();
    let old = cell.master();
    let create = Call::CreateSession(wire::CreateSession::default());
    let Answer::SessionOpened(opened) = cell.ask(old, vec![hello(), create]) else { panic!("none") };
    cell.cut_off = Some(old);
    cell.pass(Duration::from_secs(10));
    assert_eq!(cell.hung_up, 1);
    cell.replies.clear();
    let keep_alive = request(Call::KeepAlive(wire::KeepAlive::default()));
    let (session, epoch) = (opened.session, opened.epoch);
    let request = wire::Request { session, epoch, number: 3, ..keep_alive };
    cell.step(old, Input::Request { connection: ConnectionId(1), request });
    assert!(cell.replies.is_empty(), "it asks the next: {:?}", cell.replies);
}

#[test]
fn a_master_that_slept_past_its_lease_tells_nothing_of_its_state_not_even_a_refusal() {
    let open = |path: &str, mode| wire::Open { path: path.into(), mode, ..wire::Open::default() };
    let none = Call::Open(open("/ls/test/none", 1));
    // A session that it has never heard of, though others may have by now.
    let unknown = Call::ResumeSession(wire::ResumeSession::default());
    let locks = Call::ListLocks(wire::ListLocks::default());
    let sessions = Call::ListSessions(wire::ListSessions::default());
    let stale = "wsq1.x.17.12.2.04efdc51./ls/test/lock".to_owned();
    let check = Call::CheckSequencer(wire::CheckSequencer { sequencer: stale });
    for (call, of_session) in
        [(none, true), (unknown, true), (locks, false), (sessions, false), (check, false)]
    {
        let mut cell = Cell::new();
        let master = cell.master();
        let create = Call::CreateSession(wire::CreateSession::default());
        let Answer::SessionOpened(opened) = cell.ask(master, vec![hello(), create]) else { panic!("none") };
        let ask = |cell: &mut Cell, number| {
            let session = if of_session { opened.session } else { 0 };
            let request = wire::Request { session, number, epoch: opened.epoch, ..request(call.clone()) };
            cell.replies.clear();
            cell.step(master, Input::Request { connection: ConnectionId(1), request });
            cell.replies.len()
        };
        assert_eq!(ask(&mut cell, 3), 1, "{call:?}: it knows as long as it is master");
        cell.now += Duration::from_secs(5);
        assert_eq!(ask(&mut cell, 4), 0, "{call:?}: somebody else may be master now, and know better");
        // Nobody is: it is granted its lease again, and knows.
        cell.pass(Duration::from_millis(100));
        assert_eq!((cell.replies.len(), cell.hung_up), (1, 0), "{call:?}");
    }
}

#[test]
fn replicas_that_agree_go_on_and_one_that_differs_is_told_to_stop() {
    let mut cell = Cell::new();
    cell.pass(Duration::from_secs(60));
    assert!(cell.diverged.is_empty());
    for whose in ["another's", "the master's own"] {
        let mut cell = Cell::new();
        let master = cell.master();
        let wrong = if whose == "another's" { master % 3 + 1 } else { master };
        cell.corrupt(wrong);
        cell.pass(Duration::from_secs(60));
        let create = Call::CreateSession(wire::CreateSession::default());
        let master = cell.master();
        assert!(matches!(cell.ask(master, vec![hello(), create]), Answer::SessionOpened(_)));
        cell.pass(Duration::from_secs(60));
        let stopped: Vec<u32> = cell.diverged.iter().map(|(id, _)| *id).collect();
        assert!(stopped.contains(&wrong) && stopped.iter().all(|id| *id == wrong), "{whose}: {stopped:?}");
    }
}

#[test]
fn a_hello_waits_for_a_master_and_not_for_longer_than_its_client_wants() {
    let waits =
        |wait_ms| Call::Hello(wire::Hello { version: wire::VERSION, wait_ms, ..wire::Hello::default() });
    let mut cell = Cell::new();
    let old = cell.master();
    let other = old % 3 + 1;
    cell.cut_off = Some(old);
    cell.step(other, Input::PeerLost { peer: ReplicaId(old) });
    cell.replies.clear();
    for (connection, wait_ms) in [(7, 0), (8, 300), (9, 60_000)] {
        let request = request(waits(wait_ms));
        cell.step(other, Input::Request { connection: ConnectionId(connection), request });
    }
    let welcomed = |cell: &Cell| {
        let welcome = |reply: &wire::Response| match &reply.result {
            Some(Answer::Welcome(welcome)) => welcome.master.clone(),
            other => panic!("{other:?}"),
        };
        cell.replies.iter().map(welcome).collect::<Vec<_>>()
    };
    assert_eq!(welcomed(&cell), [""], "whoever does not wait is answered");
    cell.pass(Duration::from_millis(300));
    assert_eq!(welcomed(&cell), ["", ""]);
    cell.pass(Duration::from_secs(10));
    let new = (1..=3).find(|id| *id != old && cell.replicas[*id as usize - 1].is_master()).unwrap();
    assert_eq!(welcomed(&cell), ["", "", &format!("host-{new}")], "as soon as one is known");
}

#[test]
fn a_master_that_hands_over_tells_its_clients_who_is_next() {
    let mut cell = Cell::new();
    let old = cell.master();
    let next = old % 3 + 1;
    let create = Call::CreateSession(wire::CreateSession::default());
    let Answer::SessionOpened(opened) = cell.ask(old, vec![hello(), create]) else { panic!("no session") };
    let parked = request(Call::KeepAlive(wire::KeepAlive::default()));
    let request = wire::Request { session: opened.session, epoch: opened.epoch, number: 3, ..parked };
    cell.step(old, Input::Request { connection: ConnectionId(1), request });
    cell.replies.clear();
    cell.step(old, Input::Transfer { to: ReplicaId(next) });
    let answer = cell.replies.pop().and_then(|response| response.result);
    let Some(Answer::Error(error)) = answer else { panic!("{answer:?}") };
    assert_eq!(error.text, format!("host-{next}"));
    assert_eq!(cell.hung_up, 1);
    cell.pass(Duration::from_millis(100));
    assert!(cell.replicas[next as usize - 1].is_master());
}

impl Cell {
    /// Sends a request of a session on the connection that [`Cell::ask`] uses.
    pub(crate) fn send(&mut self, id: u32, session: u64, number: u64, call: Call) {
        let epoch = self.replicas[id as usize - 1].state().epoch().0;
        let request = wire::Request { session, epoch, number, ..request(call) };
        self.step(id, Input::Request { connection: ConnectionId(1), request });
    }
}

fn resume(opened: &wire::SessionOpened) -> Call {
    let (secret_high, secret_low) = (opened.secret_high, opened.secret_low);
    Call::ResumeSession(wire::ResumeSession { secret_high, secret_low })
}

#[test]
fn a_session_whose_master_cannot_answer_for_a_moment_does_not_end_for_that() {
    let mut cell = Cell::new();
    let master = cell.master();
    let create = Call::CreateSession(wire::CreateSession::default());
    let Answer::SessionOpened(opened) = cell.ask(master, vec![hello(), create]) else { panic!("none") };
    cell.pass(Duration::from_secs(9));
    cell.cut_off = Some(master);
    cell.pass(Duration::from_millis(2400));
    // Its client has given up the connection, and is there again before the session's lease ends.
    cell.step(master, Input::Disconnected { connection: ConnectionId(1) });
    cell.send(master, 0, 1, hello());
    cell.send(master, opened.session, 2, resume(&opened));
    cell.pass(Duration::from_secs(2));
    cell.cut_off = None;
    cell.replies.clear();
    cell.pass(Duration::from_secs(5));
    assert_eq!((cell.master(), cell.hung_up), (master, 0), "the master has its lease again");
    let answers: Vec<_> = cell.replies.iter().filter_map(|reply| reply.result.clone()).collect();
    assert!(matches!(answers[..], [Answer::SessionOpened(_)]), "{answers:?}");
    assert_eq!(cell.replicas[master as usize - 1].state().session_count(), 1, "I6");
}

#[test]
fn what_waited_for_the_fail_over_comes_before_what_waited_for_the_lease() {
    let mut cell = Cell::new();
    let old = cell.master();
    let create = Call::CreateSession(wire::CreateSession { caches: true, ..Default::default() });
    let Answer::SessionOpened(opened) = cell.ask(old, vec![hello(), create]) else { panic!("none") };
    let session = opened.session;
    let open = wire::Open { path: "/ls/test/file".into(), ..crate::world::may_create() };
    cell.send(old, session, 3, Call::Open(open));
    cell.replies.clear();
    cell.pass(Duration::from_millis(100));
    let Some(Answer::Opened(opening)) = cell.replies.pop().and_then(|reply| reply.result) else { panic!() };
    let handle = opening.handle.unwrap();
    let new = old % 3 + 1;
    cell.step(old, Input::Transfer { to: ReplicaId(new) });
    cell.pass(Duration::from_millis(500));
    assert_eq!(cell.master(), new);
    cell.send(new, 0, 1, hello());
    cell.send(new, session, 4, resume(&opened));
    cell.send(new, session, 5, crate::world::set(handle, "first"));
    cell.now += Duration::from_secs(3);
    cell.send(new, session, 6, crate::world::set(handle, "second"));
    let acknowledges = wire::KeepAlive { events_acknowledged: 1, ..wire::KeepAlive::default() };
    cell.send(new, session, 7, Call::KeepAlive(acknowledges));
    cell.replies.clear();
    cell.pass(Duration::from_secs(1));
    let get = Call::GetContents(wire::GetContents { handle: Some(handle) });
    cell.send(new, session, 8, get);
    let contents = cell.replies.iter().find_map(|reply| match &reply.result {
        Some(Answer::Contents(contents)) => Some(contents.contents.clone()),
        _ => None,
    });
    assert_eq!(contents.as_deref(), Some(&b"second"[..]), "{:?}", cell.replies);
}
