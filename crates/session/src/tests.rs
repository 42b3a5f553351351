//! Scripts: inputs of a session, and what it does. None of them waits.

mod cache;
mod calls;
mod handles;
mod idle;
mod lease;
mod links;
mod revocations;
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
