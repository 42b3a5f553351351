//! Very many sessions over not so many connections, each with its KeepAlive always pending, as a client of the
//! wire protocol keeps them.

use crate::Result;
use bytes::BytesMut;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use wombat_client::replica_status;
use wombat_proto::wire::{self, Request, Response, error::Code, request::Call, response};
use wombat_proto::{Instant, Rho, clock, frame};

/// How many sessions each connection creates at once.
const CREATED_AT_ONCE: usize = 64;
/// How much is read at once.
const READ_BYTES: usize = 64 * 1024;
/// How often the cell is asked for its master while there is none.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// How long a replica may take to say whether it is the master.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// What has happened to the sessions so far.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    /// Sessions that were created.
    pub created: usize,
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
}

/// The sessions, and who speaks for them.
pub struct Load {
    endpoints: Vec<String>,
    sessions: RefCell<HashMap<u64, Session>>,
    tally: Cell<Tally>,
    epoch: Cell<u64>,
    /// Where the master is.
    master: watch::Sender<String>,
    /// A connection is gone.
    lost: Notify,
}

/// A session as its client sees it.
struct Session {
    secret: (u64, u64),
    epoch: u64,
    /// The number of its last request, and when that was sent.
    number: u64,
    sent: Instant,
    /// The end of its view of its lease (SPEC §3).
    until: Instant,
    last_event: u64,
    /// The epoch in which its last KeepAlive was answered.
    safe_in: u64,
}

impl Load {
    /// Keeps `sessions` sessions over `connections` connections, from now on, on this thread's local tasks.
    pub fn start(endpoints: &[String], sessions: usize, connections: usize) -> Rc<Load> {
        let tally =
            Tally { created: 0, kept_alive: 0, late: 0, least_left: Duration::MAX, expired: 0, safe: 0 };
        let load = Rc::new(Load {
            endpoints: endpoints.into(),
            sessions: RefCell::default(),
            tally: Cell::new(tally),
            epoch: Cell::new(0),
            master: watch::Sender::default(),
            lost: Notify::new(),
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
        self.sessions.borrow().values().filter(|session| session.until <= now).count()
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
        loop {
            if masters.changed().await.is_err() {
                return;
            }
            let master = masters.borrow_and_update().clone();
            if let Err(_gone) = self.speak(&master, &mut own, share).await {
                self.lost.notify_one();
            }
        }
    }

    /// Resumes the sessions that there are, creates those that there shall be, and keeps them alive until the
    /// connection breaks.
    async fn speak(&self, master: &str, own: &mut Vec<u64>, share: usize) -> Result<()> {
        let mut stream = TcpStream::connect(master).await?;
        stream.set_nodelay(true)?;
        let (mut inward, mut outward) = (BytesMut::new(), BytesMut::new());
        let hello = wire::Hello { version: wire::VERSION, ..wire::Hello::default() };
        write(0, 1, 0, Call::Hello(hello), &mut outward);
        // Greeted and sessions' requests go together: a replica that is no master refuses them all.
        own.iter().for_each(|id| self.resume(*id, &mut outward));
        let (mut number, mut creating) = (1, HashMap::new());
        loop {
            while own.len() + creating.len() < share && creating.len() < CREATED_AT_ONCE {
                number += 1;
                creating.insert(number, clock::now());
                let create = wire::CreateSession { client: format!("load {number}"), caches: false };
                write(0, number, 0, Call::CreateSession(create), &mut outward);
            }
            stream.write_all_buf(&mut outward).await?;
            inward.reserve(READ_BYTES);
            if stream.read_buf(&mut inward).await? == 0 {
                return Err("closed".into());
            }
            while let Some(response) = frame::read::<Response>(&mut inward)? {
                match response.session {
                    0 => {
                        let sent = creating.remove(&response.number);
                        own.extend(self.created(response.result, sent, &mut outward)?);
                    }
                    id => self.answered(id, response, &mut outward)?,
                }
            }
        }
    }

    fn resume(&self, id: u64, outward: &mut BytesMut) {
        let mut sessions = self.sessions.borrow_mut();
        let Some(session) = sessions.get_mut(&id) else { return };
        let (secret_high, secret_low) = session.secret;
        let resume = wire::ResumeSession { secret_high, secret_low };
        session.ask(id, Call::ResumeSession(resume), outward);
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
                let mut session = Session {
                    secret: (opened.secret_high, opened.secret_low),
                    epoch: opened.epoch,
                    number: 0,
                    sent,
                    until: Instant::default(),
                    last_event: 0,
                    safe_in: 0,
                };
                session.extend(Duration::ZERO, opened.lease_ms);
                session.keep_alive(opened.session, outward);
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
    fn answered(&self, id: u64, response: Response, outward: &mut BytesMut) -> Result<()> {
        let mut sessions = self.sessions.borrow_mut();
        let Some(session) = sessions.get_mut(&id).filter(|session| session.number == response.number) else {
            return Ok(()); // Of a request that was given up with its connection.
        };
        let left = session.until.since(clock::now());
        match response.result {
            Some(response::Result::SessionOpened(opened)) => {
                session.meet_epoch(opened.epoch);
                session.extend(Duration::ZERO, opened.lease_ms);
            }
            Some(response::Result::KeptAlive(kept)) => {
                session.meet_epoch(kept.epoch);
                session.extend(Duration::from_micros(kept.held_us), kept.lease_ms);
                session.last_event = session.last_event.max(kept.first_event + kept.events.len() as u64 - 1);
                let safe = session.safe_in != kept.epoch && kept.epoch == self.epoch.get();
                session.safe_in = kept.epoch;
                self.note(|tally| {
                    tally.kept_alive += 1;
                    tally.safe += usize::from(safe);
                });
            }
            Some(response::Result::Error(error)) => match error.code() {
                Code::StaleEpoch => session.meet_epoch(error.number),
                Code::SessionExpired | Code::SessionUnknown => {
                    sessions.remove(&id);
                    self.note(|tally| tally.expired += 1);
                    return Ok(());
                }
                code => return Err(format!("{code:?}").into()),
            },
            result => return Err(format!("{result:?}").into()),
        }
        self.note(|tally| {
            tally.late += usize::from(left.is_zero());
            tally.least_left = tally.least_left.min(left);
        });
        session.keep_alive(id, outward);
        Ok(())
    }
}

impl Session {
    fn ask(&mut self, id: u64, call: Call, outward: &mut BytesMut) {
        self.number += 1;
        self.sent = clock::now();
        write(id, self.number, self.epoch, call, outward);
    }

    fn keep_alive(&mut self, id: u64, outward: &mut BytesMut) {
        let keep_alive = wire::KeepAlive { events_acknowledged: self.last_event, ..Default::default() };
        self.ask(id, Call::KeepAlive(keep_alive), outward);
    }

    fn extend(&mut self, held: Duration, lease_ms: u32) {
        let lease = Duration::from_millis(lease_ms.into());
        self.until = self.until.max(self.sent + Rho::default().shorten(held + lease));
    }

    /// Events count from one again in a new epoch.
    fn meet_epoch(&mut self, epoch: u64) {
        if epoch > self.epoch {
            (self.epoch, self.last_event) = (epoch, 0);
        }
    }
}

fn write(session: u64, number: u64, epoch: u64, call: Call, outward: &mut BytesMut) {
    let request = Request { session, number, epoch, acknowledged: 0, call: Some(call) };
    frame::write(&request, outward);
}
