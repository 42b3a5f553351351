//! Very many sessions over not so many connections, each with its KeepAlive always pending, as a client of the
//! wire protocol keeps them; if they cache, each has one file cached.

mod cache;
mod session;

pub use cache::CachedFile;

use crate::{PATIENCE, Result};
use bytes::BytesMut;
use session::{Session, write};
use std::cell::{Cell as Shared, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore, watch};
use wombat_client::replica_status;
use wombat_proto::wire::{self, Response, error::Code, request::Call, response};
use wombat_proto::{Instant, clock, frame};

/// How many sessions each connection creates, or ends, at once.
const CREATED_AT_ONCE: usize = 64;
/// How many connections are made at once: no more than a listener's queue holds, or the kernel drops what they say
/// first, and they say it again seconds later.
const CONNECTING_AT_ONCE: usize = 256;
/// How much is read at once.
const READ_BYTES: usize = 64 * 1024;
/// How often the cell is asked for its master while there is none.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// How long a replica may take to say whether it is the master.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// How often sessions look at their file that are to have it cached.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What sessions there are to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many.
    pub sessions: usize,
    /// How many connections they share.
    pub connections: usize,
    /// What each keeps in its cache, if they have caches.
    pub cached: Option<CachedFile>,
}

/// What has happened to the sessions so far.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    /// Sessions that were created.
    pub created: usize,
    /// Sessions that have ended because they were told to.
    pub ended: usize,
    /// KeepAlives that were answered.
    pub kept_alive: u64,
    /// How often a session's own view of its lease had ended when it was extended.
    pub late: usize,
    /// The least that was left of a view when it was extended.
    pub least_left: Duration,
    /// Sessions that the cell has ended.
    pub expired: usize,
    /// Sessions whose KeepAlive was answered in the present epoch.
    pub safe: usize,
    /// The longest cache lease that was granted.
    pub cache_lease: Duration,
    /// Sessions that have their file cached, whether they may use it or not.
    pub cached: usize,
    /// The newest generation of the file that one has read, how many have, and when the last of them did.
    pub newest: u64,
    /// See `newest`.
    pub have_newest: usize,
    /// See `newest`.
    pub newest_read: Instant,
}

/// The sessions, and who speaks for them.
pub struct Load {
    endpoints: Vec<String>,
    plan: Plan,
    sessions: RefCell<HashMap<u64, Session>>,
    tally: Shared<Tally>,
    epoch: Shared<u64>,
    /// Where the master is.
    master: watch::Sender<String>,
    connecting: Semaphore,
    /// A connection is gone.
    lost: Notify,
    orders: watch::Sender<Orders>,
}

/// What all sessions are to do.
#[derive(Clone, Copy, Default)]
struct Orders {
    /// To stand still, as after SIGSTOP.
    stopped: bool,
    /// How often to look at the file, and read it at the master if it is not cached.
    reads: u64,
    /// To end.
    ended: bool,
}

impl Load {
    /// Keeps these sessions from now on, on this thread's local tasks.
    pub fn start(endpoints: &[String], plan: Plan) -> Rc<Load> {
        let tally = Tally {
            created: 0,
            ended: 0,
            kept_alive: 0,
            late: 0,
            least_left: Duration::MAX,
            expired: 0,
            safe: 0,
            cache_lease: Duration::ZERO,
            cached: 0,
            newest: 0,
            have_newest: 0,
            newest_read: Instant::default(),
        };
        let Plan { sessions, connections, .. } = plan;
        let load = Rc::new(Load {
            endpoints: endpoints.into(),
            plan,
            sessions: RefCell::default(),
            tally: Shared::new(tally),
            epoch: Shared::new(0),
            master: watch::Sender::default(),
            connecting: Semaphore::new(CONNECTING_AT_ONCE),
            lost: Notify::new(),
            orders: watch::Sender::default(),
        });
        tokio::task::spawn_local(Rc::clone(&load).look_for_master());
        for number in 0..connections {
            let share = sessions / connections + usize::from(number < sessions % connections);
            tokio::task::spawn_local(Rc::clone(&load).keep_connected(share));
        }
        load
    }

    /// What has happened so far.
    pub fn tally(&self) -> Tally {
        self.tally.get()
    }

    /// The epoch of the master that speaks for the sessions.
    pub fn epoch(&self) -> u64 {
        self.epoch.get()
    }

    /// From now on the least that is left of a view is measured anew.
    pub fn forget_least_left(&self) {
        self.note(|tally| tally.least_left = Duration::MAX);
    }

    /// How many sessions' views have ended without their having been extended yet.
    pub fn overdue(&self) -> usize {
        let now = clock::now();
        self.sessions.borrow().values().filter(|session| session.until() <= now).count()
    }

    /// How many would see something older than that generation if they looked at their file now.
    pub fn older_than(&self, generation: u64) -> usize {
        self.looks().filter(|seen| *seen < generation).count()
    }

    /// How many would find their file in their cache if they looked at it now.
    pub fn usable(&self) -> usize {
        self.looks().count()
    }

    fn looks(&self) -> impl Iterator<Item = u64> {
        let now = clock::now();
        let sessions = self.sessions.borrow();
        let caches = sessions.values().filter_map(|session| session.cache.as_ref());
        caches.filter_map(|cache| cache.look(now)).collect::<Vec<_>>().into_iter()
    }

    /// Lets all look at their file time and again, until each has it cached and may use it.
    pub async fn cached(&self) -> Result<()> {
        let until = clock::now() + PATIENCE;
        while self.tally().cached < self.plan.sessions || self.usable() < self.plan.sessions {
            if clock::now() > until {
                return Err("waited in vain until all have it cached".into());
            }
            self.orders.send_modify(|orders| orders.reads += 1);
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Nobody hears or says anything any more, as after SIGSTOP.
    pub fn stop(&self) {
        self.orders.send_modify(|orders| orders.stopped = true);
    }

    /// All go on, as after SIGCONT.
    pub fn go_on(&self) {
        self.orders.send_modify(|orders| orders.stopped = false);
    }

    /// Ends all sessions.
    pub fn end(&self) {
        self.orders.send_modify(|orders| orders.ended = true);
    }

    fn note(&self, change: impl FnOnce(&mut Tally)) {
        let mut tally = self.tally.get();
        change(&mut tally);
        self.tally.set(tally);
    }

    /// Looks for the master at first, and whenever a connection is gone.
    async fn look_for_master(self: Rc<Self>) {
        loop {
            let master = self.ask_for_master().await;
            self.master.send_replace(master);
            self.lost.notified().await;
        }
    }

    async fn ask_for_master(&self) -> String {
        loop {
            for endpoint in &self.endpoints {
                let status = replica_status(endpoint, "", ANSWER_WITHIN).await;
                if let Some(status) = status.ok().filter(|status| status.standing == "master") {
                    return status.master;
                }
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// One connection's life, with its share of the sessions.
    async fn keep_connected(self: Rc<Self>, share: usize) {
        let mut masters = self.master.subscribe();
        let mut own = Vec::with_capacity(share);
        while !self.orders.borrow().ended {
            if masters.changed().await.is_err() {
                return;
            }
            let master = masters.borrow_and_update().clone();
            if let Err(_gone) = self.speak(&master, &mut own, share).await {
                self.lost.notify_one();
            }
        }
    }

    /// Resumes the sessions that there are, creates those that there shall be, and keeps them alive until they
    /// end or the connection breaks.
    async fn speak(&self, master: &str, own: &mut Vec<u64>, share: usize) -> Result<()> {
        let mut connecting = Some(self.connecting.acquire().await?);
        let mut stream = TcpStream::connect(master).await?;
        stream.set_nodelay(true)?;
        let (mut inward, mut outward) = (BytesMut::new(), BytesMut::new());
        let hello = wire::Hello { version: wire::VERSION, ..wire::Hello::default() };
        write(0, 1, 0, Call::Hello(hello), &mut outward);
        // Greeted and sessions' requests go together: a replica that is no master refuses them all.
        for id in own.iter() {
            self.with(*id, |session| session.resume(&mut outward));
        }
        let (mut number, mut creating, mut ending) = (1, HashMap::new(), HashSet::new());
        let mut watched = self.orders.subscribe();
        let mut reads = watched.borrow().reads;
        loop {
            let orders = *watched.wait_for(|orders| !orders.stopped).await?;
            if std::mem::replace(&mut reads, orders.reads) < orders.reads {
                for id in own.iter() {
                    self.with(*id, |session| session.read(&mut outward));
                }
            }
            while orders.ended
                && ending.len() < CREATED_AT_ONCE
                && let Some(id) = own.pop()
            {
                if self.with(id, |session| session.end(&mut outward)) {
                    ending.insert(id);
                }
            }
            if orders.ended && ending.is_empty() && creating.is_empty() {
                return Ok(());
            }
            while !orders.ended && own.len() + creating.len() < share && creating.len() < CREATED_AT_ONCE {
                number += 1;
                creating.insert(number, clock::now());
                let client = format!("load {number}");
                let create =
                    wire::CreateSession { client, caches: self.plan.cached.is_some(), ..Default::default() };
                write(0, number, 0, Call::CreateSession(create), &mut outward);
            }
            stream.write_all_buf(&mut outward).await?;
            inward.reserve(READ_BYTES);
            tokio::select! {
                read = stream.read_buf(&mut inward) => if read? == 0 {
                    return Err("closed".into());
                },
                ordered = watched.changed() => ordered?,
            }
            if watched.borrow().stopped {
                continue; // What has come lies there until it goes on.
            }
            connecting.take();
            while let Some(response) = frame::read::<Response>(&mut inward)? {
                match response.session {
                    0 => {
                        let sent = creating.remove(&response.number);
                        own.extend(self.created(response.result, sent, &mut outward)?);
                    }
                    id => match self.answered(id, response, &mut outward)? {
                        Outcome::Lives => {}
                        Outcome::Ended => drop(ending.remove(&id)),
                        Outcome::Stays => own.extend(ending.take(&id)),
                    },
                }
            }
        }
    }

    /// Lets a session act, if it lives. Returns whether it does.
    fn with(&self, id: u64, act: impl FnOnce(&mut Session)) -> bool {
        self.sessions.borrow_mut().get_mut(&id).map(act).is_some()
    }

    /// Takes the answer to Hello or CreateSession. Returns the session if there is a new one.
    fn created(
        &self,
        result: Option<response::Result>,
        sent: Option<Instant>,
        outward: &mut BytesMut,
    ) -> Result<Option<u64>> {
        match (result, sent) {
            (Some(response::Result::Welcome(welcome)), _) if welcome.epoch > 0 => {
                if welcome.epoch > self.epoch.replace(welcome.epoch) {
                    self.note(|tally| tally.safe = 0);
                }
                Ok(None)
            }
            (Some(response::Result::SessionOpened(opened)), Some(sent)) => {
                let mut session = Session::new(&opened, sent, self.plan.cached.clone());
                session.keep_alive(outward);
                session.fill_cache(outward);
                self.sessions.borrow_mut().insert(opened.session, session);
                self.note(|tally| tally.created += 1);
                Ok(Some(opened.session))
            }
            // It is asked for again.
            (Some(response::Result::Error(error)), Some(_)) if error.code() == Code::Overloaded => Ok(None),
            (result, _) => Err(format!("{result:?}").into()),
        }
    }

    /// Takes the answer to a session's request.
    fn answered(&self, id: u64, response: Response, outward: &mut BytesMut) -> Result<Outcome> {
        let mut sessions = self.sessions.borrow_mut();
        let Some(session) = sessions.get_mut(&id) else { return Ok(Outcome::Lives) };
        let before = session.entry().is_some();
        let outcome = if session.is_pending(response.number) {
            self.kept_alive(session, response.result, outward)?
        } else if session.cache.as_ref().is_some_and(|cache| cache.has_asked(response.number)) {
            self.has_read(session, response)?
        } else {
            return Ok(Outcome::Lives); // Of a request that was given up with its connection.
        };
        if outcome == Outcome::Lives {
            session.fill_cache(outward);
        }
        let after = session.entry().is_some() && outcome != Outcome::Ended;
        self.note(|tally| tally.cached = tally.cached + usize::from(after) - usize::from(before));
        if outcome == Outcome::Ended {
            sessions.remove(&id);
        }
        Ok(outcome)
    }

    /// Takes the answer to a session's KeepAlive, or to what stands in its place.
    fn kept_alive(
        &self,
        session: &mut Session,
        result: Option<response::Result>,
        outward: &mut BytesMut,
    ) -> Result<Outcome> {
        let left = session.until().since(clock::now());
        match result {
            Some(response::Result::SessionOpened(opened)) => session.resumed(&opened),
            Some(response::Result::KeptAlive(kept)) => {
                session.kept_alive(&kept);
                let safe = session.safe_in != kept.epoch && kept.epoch == self.epoch.get();
                session.safe_in = kept.epoch;
                let cache_lease = Duration::from_millis(kept.cache_lease_ms.into());
                self.note(|tally| {
                    tally.kept_alive += 1;
                    tally.safe += usize::from(safe);
                    tally.cache_lease = tally.cache_lease.max(cache_lease);
                });
            }
            Some(response::Result::Done(_)) => {
                self.note(|tally| tally.ended += 1);
                return Ok(Outcome::Ended);
            }
            Some(response::Result::Error(error)) => match error.code() {
                Code::StaleEpoch => session.meet_epoch(error.number),
                Code::SessionExpired | Code::SessionUnknown => {
                    self.note(|tally| tally.expired += 1);
                    return Ok(Outcome::Ended);
                }
                Code::Overloaded => return Ok(Outcome::Stays),
                code => return Err(format!("{code:?}").into()),
            },
            result => return Err(format!("{result:?}").into()),
        }
        self.note(|tally| {
            tally.late += usize::from(left.is_zero());
            tally.least_left = tally.least_left.min(left);
        });
        session.keep_alive(outward);
        Ok(Outcome::Lives)
    }

    /// Takes the answer to what a session's cache asked for.
    fn has_read(&self, session: &mut Session, response: Response) -> Result<Outcome> {
        let epoch = session.epoch();
        let Some(cache) = &mut session.cache else { return Ok(Outcome::Lives) };
        match response.result {
            Some(response::Result::Opened(opened)) => cache.opened(opened.handle.ok_or("no handle")?),
            Some(response::Result::Contents(contents)) => {
                let generation = contents.stat.ok_or("no stat")?.content_generation;
                cache.read(generation, response.cachable, epoch);
                if generation > session.has_read {
                    session.has_read = generation;
                    self.note(|tally| tally.has_read(generation));
                }
            }
            Some(response::Result::Error(error)) => match error.code() {
                // It hears of the fail-over, and reads then.
                Code::StaleEpoch | Code::SessionExpired => cache.refused(),
                code => return Err(format!("{code:?}").into()),
            },
            result => return Err(format!("{result:?}").into()),
        }
        Ok(Outcome::Lives)
    }
}

/// What becomes of a session.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Lives,
    Ended,
    /// It cannot end yet.
    Stays,
}

impl Tally {
    /// One has read that generation for the first time.
    fn has_read(&mut self, generation: u64) {
        if generation > self.newest {
            (self.newest, self.have_newest) = (generation, 0);
        }
        if generation == self.newest {
            self.have_newest += 1;
            self.newest_read = clock::now();
        }
    }
}
