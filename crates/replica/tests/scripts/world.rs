//! A replica in a world made of arguments: its clock moves when a script says so, its disk is a list.

use std::collections::BTreeMap;
use std::time::Duration;
use wombat_proto::limits::CACHE_LEASE;
use wombat_proto::wire::{self, Request, Response, request::Call, response::Result as Answer};
use wombat_proto::{CellName, Durable, Error, Instant, Members, Record, ReplicaId};
use wombat_replica::{Config, ConnectionId, Effects, Input, Replica, StepTime};

pub(crate) const LEASE: Duration = Duration::from_secs(12);

/// A client's session: what it must remember to speak.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    pub(crate) connection: u64,
    pub(crate) session: u64,
    pub(crate) secret: (u64, u64),
    pub(crate) epoch: u64,
    pub(crate) number: u64,
    /// The lease that it was granted last when it was attached.
    pub(crate) lease_ms: u32,
}

pub(crate) struct World {
    pub(crate) replica: Replica,
    pub(crate) now: Duration,
    records: Vec<Record>,
    /// How many records were handed out since the last start, and how many are said to be durable.
    appended: u64,
    persisted: u64,
    starts: u32,
    /// While set, the disk is busy: nothing becomes durable.
    pub(crate) hold_disk: bool,
    /// After so many more records the disk is busy for good.
    pub(crate) records_left: Option<u64>,
    pub(crate) replies: BTreeMap<u64, Vec<Response>>,
    pub(crate) hung_up: Vec<u64>,
    /// The steps of fail-overs, in words.
    pub(crate) stages: Vec<String>,
    /// The session lease that the replica is configured with, when it starts.
    pub(crate) lease: Duration,
    /// The cache lease, likewise.
    pub(crate) cache_lease: Duration,
    next_connection: u64,
}

impl World {
    pub(crate) fn new() -> World {
        World::with_lease(LEASE)
    }

    /// The same with another session lease.
    pub(crate) fn with_lease(lease: Duration) -> World {
        World::with_leases(lease, CACHE_LEASE)
    }

    /// The same with another cache lease, too.
    pub(crate) fn with_leases(lease: Duration, cache_lease: Duration) -> World {
        let records = Vec::new();
        let mut world = World {
            replica: start(1, &records, Duration::from_secs(100), (lease, cache_lease)),
            now: Duration::from_secs(100),
            records,
            appended: 0,
            persisted: 0,
            starts: 1,
            hold_disk: false,
            records_left: None,
            replies: BTreeMap::new(),
            hung_up: Vec::new(),
            stages: Vec::new(),
            lease,
            cache_lease,
            next_connection: 1,
        };
        world.step(Input::Tick);
        world
    }

    /// Kills the replica and starts it again from what was durable.
    pub(crate) fn restart(&mut self) {
        let lost = (self.appended - self.persisted) as usize;
        self.records.truncate(self.records.len() - lost);
        self.starts += 1;
        (self.appended, self.persisted) = (0, 0);
        self.replies.clear();
        self.stages.clear();
        self.replica = start(self.starts, &self.records, self.now, (self.lease, self.cache_lease));
        self.step(Input::Tick);
    }

    pub(crate) fn step(&mut self, input: Input) {
        let mut effects = Effects::default();
        self.replica.step(self.moment(), input, &mut effects);
        self.carry_out(effects);
        self.flush();
    }

    /// Lets the disk catch up, unless it is held.
    pub(crate) fn flush(&mut self) {
        while !self.hold_disk && self.persisted < self.appended && self.records_left != Some(0) {
            let some = (self.appended - self.persisted).min(self.records_left.unwrap_or(u64::MAX));
            self.records_left = self.records_left.map(|left| left - some);
            self.persisted += some;
            let mut effects = Effects::default();
            let through = self.persisted;
            self.replica.step(self.moment(), Input::Persisted { through }, &mut effects);
            self.carry_out(effects);
        }
        self.replica.state().check();
    }

    fn carry_out(&mut self, effects: Effects) {
        self.appended += effects.persist.len() as u64;
        self.records.extend(effects.persist);
        for (connection, response) in effects.replies {
            self.replies.entry(connection.0).or_default().push(response);
        }
        self.stages.extend(effects.stages.iter().map(|(_, stage)| format!("{}: {stage}", stage.number())));
        self.hung_up.extend(effects.hang_up.iter().map(|connection| connection.0));
    }

    /// Lets time pass, with timers running when they are due.
    pub(crate) fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            let due = self.replica.next_deadline().map_or(end, |at| Duration::from_nanos(at.as_nanos()));
            // Steps are never far apart: a replica that is not stepped for long takes itself for stalled.
            self.now = due.clamp(self.now, end).min(self.now + Duration::from_millis(500));
            self.step(Input::Tick);
        }
    }

    /// Time passes and the replica does not run: it was stopped, or the machine slept.
    pub(crate) fn stall(&mut self, duration: Duration) {
        self.now += duration;
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::from_nanos(self.now.as_nanos() as u64)
    }

    /// The same as a duration.
    pub(crate) fn elapsed(&self) -> Duration {
        self.now
    }

    /// All that was handed to the disk, and not lost.
    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    /// What the disk is busy with becomes durable, and the replica dies before it hears of it.
    pub(crate) fn persist_unheard(&mut self) {
        self.persisted = self.appended;
    }

    fn moment(&self) -> StepTime {
        StepTime { now: self.now(), wall_ms: 1_700_000_000_000 }
    }

    /// A new connection that has said Hello.
    pub(crate) fn connect(&mut self) -> u64 {
        let connection = self.next_connection;
        self.next_connection += 1;
        let hello = wire::Hello { version: 1, ..wire::Hello::default() };
        self.send_raw(connection, Request { number: 1, ..request(Call::Hello(hello)) });
        assert!(matches!(self.take(connection).result, Some(Answer::Welcome(_))));
        connection
    }

    /// A new session on a connection of its own.
    pub(crate) fn client(&mut self) -> Client {
        let connection = self.connect();
        self.client_on(connection, false)
    }

    /// A new session, of a client that caches or does not.
    pub(crate) fn client_on(&mut self, connection: u64, caches: bool) -> Client {
        self.client_with(connection, wire::CreateSession { caches, ..Default::default() })
    }

    /// A new session that is created so.
    pub(crate) fn client_with(&mut self, connection: u64, create: wire::CreateSession) -> Client {
        let create = Call::CreateSession(wire::CreateSession { client: "script".into(), ..create });
        self.send_raw(connection, Request { number: 2, ..request(create) });
        let Some(Answer::SessionOpened(opened)) = self.take(connection).result else { panic!("no session") };
        Client {
            connection,
            session: opened.session,
            secret: (opened.secret_high, opened.secret_low),
            epoch: opened.epoch,
            number: 0,
            lease_ms: opened.lease_ms,
        }
    }

    /// Shows the session's secret on a new connection.
    pub(crate) fn resume(&mut self, client: &mut Client) -> Result<(), Error> {
        self.try_resume(client).expect("an answer at once")
    }

    /// The same, of a replica that may hang.
    pub(crate) fn try_resume(&mut self, client: &mut Client) -> Option<Result<(), Error>> {
        client.connection = self.connect();
        let (secret_high, secret_low) = client.secret;
        let resume = Call::ResumeSession(wire::ResumeSession { secret_high, secret_low });
        self.send_raw(client.connection, Request { session: client.session, ..request(resume) });
        Some(match self.replies.entry(client.connection).or_default().pop()?.result {
            Some(Answer::SessionOpened(opened)) => {
                (client.epoch, client.lease_ms) = (opened.epoch, opened.lease_ms);
                Ok(())
            }
            Some(Answer::Error(error)) => Err(error.into()),
            other => panic!("{other:?}"),
        })
    }

    pub(crate) fn send_raw(&mut self, connection: u64, request: Request) {
        self.step(Input::Request { connection: ConnectionId(connection), request });
    }

    /// Sends a call without waiting for its answer. Returns its number.
    pub(crate) fn send(&mut self, client: &mut Client, call: Call) -> u64 {
        client.number += 1;
        self.send_again(client, client.number, call);
        client.number
    }

    /// Sends a call with a number of the script's choosing.
    pub(crate) fn send_again(&mut self, client: &Client, number: u64, call: Call) {
        let Client { connection, session, epoch, .. } = *client;
        self.send_raw(connection, Request { session, number, epoch, acknowledged: 0, call: Some(call) });
    }

    /// Sends a call and takes its answer.
    #[track_caller]
    pub(crate) fn call(&mut self, client: &mut Client, call: Call) -> Result<Answer, Error> {
        let number = self.send(client, call);
        self.answer(client, number).expect("an answer at once")
    }

    /// Takes the answer to a number, if it has come.
    pub(crate) fn answer(&mut self, client: &Client, number: u64) -> Option<Result<Answer, Error>> {
        self.response(client, number).map(|(result, _)| result)
    }

    /// The same, and whether it may be cached.
    pub(crate) fn response(
        &mut self,
        client: &Client,
        number: u64,
    ) -> Option<(Result<Answer, Error>, Option<wire::Cachable>)> {
        let replies = self.replies.entry(client.connection).or_default();
        let at = replies.iter().position(|r| r.number == number && r.session == client.session)?;
        let Response { result, cachable, .. } = replies.remove(at);
        let result = match result.expect("a response has a result") {
            Answer::Error(error) => Err(error.into()),
            answer => Ok(answer),
        };
        Some((result, cachable))
    }

    #[track_caller]
    pub(crate) fn take(&mut self, connection: u64) -> Response {
        self.replies.entry(connection).or_default().pop().expect("an answer at once")
    }

    /// Opens a file for reading and writing, making it if need be.
    #[track_caller]
    pub(crate) fn open(&mut self, client: &mut Client, path: &str) -> wire::Handle {
        self.open_with(client, wire::Open { path: path.into(), ..may_create() })
    }

    /// Opens a file, and lets a copy of the Open stand right behind it in the log. Whatever follows waits behind
    /// the copy until the disk may go on.
    #[track_caller]
    pub(crate) fn open_before_a_copy(&mut self, client: &mut Client, path: &str) -> wire::Handle {
        let open = wire::Open { path: path.into(), ..may_create() };
        self.records_left = Some(0);
        let number = self.send(client, Call::Open(open.clone()));
        self.send_again(client, number, Call::Open(open));
        self.records_left = Some(1);
        self.flush();
        match self.answer(client, number) {
            Some(Ok(Answer::Opened(opened))) => opened.handle.expect("an open has a handle"),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn open_with(&mut self, client: &mut Client, open: wire::Open) -> wire::Handle {
        match self.call(client, Call::Open(open)) {
            Ok(Answer::Opened(opened)) => opened.handle.expect("an open has a handle"),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn read(&mut self, client: &mut Client, handle: wire::Handle) -> Result<String, Error> {
        let get = Call::GetContents(wire::GetContents { handle: Some(handle) });
        match self.call(client, get)? {
            Answer::Contents(contents) => Ok(String::from_utf8_lossy(&contents.contents).into_owned()),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn write(
        &mut self,
        client: &mut Client,
        handle: wire::Handle,
        text: &str,
    ) -> Result<Answer, Error> {
        self.call(client, set(handle, text))
    }
}

pub(crate) fn set(handle: wire::Handle, text: &str) -> Call {
    let contents = text.to_owned().into();
    Call::SetContents(wire::SetContents { handle: Some(handle), contents, if_generation: 0 })
}

pub(crate) fn may_create() -> wire::Open {
    wire::Open {
        mode: 3,
        create: wire::open::Create::May.into(),
        node: Some(wire::NewNode::default()),
        ..wire::Open::default()
    }
}

pub(crate) fn acquire(handle: wire::Handle) -> Call {
    Call::Acquire(wire::Acquire { handle: Some(handle), ..wire::Acquire::default() })
}

pub(crate) fn request(call: Call) -> Request {
    Request { call: Some(call), ..Request::default() }
}

fn start(
    starts: u32,
    records: &[Record],
    now: Duration,
    (lease, cache_lease): (Duration, Duration),
) -> Replica {
    let mut kept = Durable::default();
    records.iter().cloned().for_each(|record| kept.take(record));
    let recovered = kept.recover(starts, false, None);
    let config = Config {
        cell: CellName::parse("test").unwrap(),
        replica: ReplicaId(1),
        address: "127.0.0.1:1".into(),
        founders: Members::founding(["127.0.0.1:1".into()]),
        master_lease: Duration::from_secs(2),
        max_master_lease: Duration::from_secs(8),
        seed: 1,
        lease,
        cache_lease,
        version: "test".into(),
        fresh_key: [7; 32],
        activity: true,
    };
    let moment = StepTime { now: Instant::from_nanos(now.as_nanos() as u64), wall_ms: 0 };
    Replica::new(config, recovered, moment).unwrap()
}
