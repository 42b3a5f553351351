//! The search for the master: several endpoints at once, each a little after the one before, as RFC 8305 does for
//! the addresses of a name. What races is the whole way to an answer: a host that takes the connection and says
//! nothing is as silent as one that does not.
//!
//! A candidate goes through these states:
//!
//! ```text
//!   connecting ──▶ greeting ──Welcome of the master──▶ attaching ──▶ the session's link
//!                   ▲    │
//!          ask again└────┴──Welcome of a follower──▶ standby
//! ```
//!
//! The link of a follower stays while the search goes on: it is asked again who the master is. When the search has
//! lasted for a while, and the master that the follower names does not answer, it is asked to pass the link on to it.

use crate::backoff::Backoff;
use crate::endpoints::{Endpoints, Outcome};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::{Error, Instant};

/// A silent minority of the configured endpoints costs so much in all before the others are tried.
const SILENT_MINORITY: Duration = Duration::from_millis(250);
/// How long after an attempt the next one begins, at least.
const SHORTEST_STAGGER: Duration = Duration::from_millis(30);
/// The master gets so long to open the session before the search goes on.
const ATTACH_PATIENCE: Duration = Duration::from_millis(500);
/// How long a connection may take, and the answer to a Hello. The replica may use half of it to wait for a master.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How soon a follower is asked again, at first and at last.
const ASK_AGAIN: [Duration; 2] = [Duration::from_millis(150), Duration::from_secs(1)];
/// How long the search lasts before a follower is asked for a relay: a new master takes no longer to be known.
pub(crate) const RELAY_AFTER: Duration = Duration::from_secs(1);
/// Most candidates at one time.
const CANDIDATES: usize = 8;

/// Names a connection that the shell makes or has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

/// What the search wants of its surroundings.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Step {
    Connect(LinkId, String),
    /// Send Hello; with a wish to be passed on to the master.
    Greet(LinkId, bool),
    Close(LinkId),
}

/// A link that may lead to the master.
#[derive(Clone, Debug)]
struct Candidate {
    link: LinkId,
    endpoint: String,
    state: State,
    /// How often a replica has answered on it.
    answers: u32,
    /// The master that a follower has named.
    master: Option<String>,
    /// Whether a follower was asked for a relay, and has not answered.
    asks_for_relay: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// The shell makes the connection.
    Connecting { since: Instant },
    /// Hello was sent.
    Greeting { since: Instant },
    /// A follower, to be asked again.
    Standby { ask_at: Instant },
    /// The request that attaches the session was sent, to the master of that epoch.
    Attaching { sent: Instant, epoch: u64, relayed: bool },
}

/// How long after an attempt the next one begins, of so many endpoints.
pub fn stagger(endpoints: usize) -> Duration {
    let minority = (endpoints.saturating_sub(1) / 2).max(1);
    (SILENT_MINORITY / minority as u32).max(SHORTEST_STAGGER)
}

/// The candidates, and the endpoints that they are drawn from.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    pub(crate) endpoints: Endpoints,
    candidates: Vec<Candidate>,
    /// When the next candidate may start; `None`: there is no search.
    next_start: Option<Instant>,
    /// When the search began.
    begun: Instant,
    /// The number of the last link.
    last_link: u64,
    backoff: Backoff,
}

impl Search {
    pub(crate) fn new(configured: &[String], seed: u64) -> Search {
        Search {
            endpoints: Endpoints::new(configured),
            candidates: Vec::new(),
            next_start: None,
            begun: Instant::default(),
            last_link: 0,
            backoff: Backoff::new(seed),
        }
    }

    /// Begins, unless it has begun.
    pub(crate) fn begin(&mut self, now: Instant) {
        if self.next_start.is_none() {
            (self.next_start, self.begun) = (Some(now), now);
        }
    }

    /// Begins because nothing answers at this endpoint, which is tried last.
    pub(crate) fn begin_suspecting(&mut self, now: Instant, endpoint: &str) {
        if self.next_start.is_none() {
            self.endpoints.suspect(now, endpoint);
            self.begin(now);
        }
    }

    /// Ends, and gives up all candidates.
    pub(crate) fn end(&mut self, steps: &mut Vec<Step>) {
        self.next_start = None;
        steps.extend(self.candidates.drain(..).map(|candidate| Step::Close(candidate.link)));
    }

    /// Ends unless the session is being attached: then nobody else is asked, but that goes on.
    pub(crate) fn end_unless_attaching(&mut self, steps: &mut Vec<Step>) {
        if self.next_start.is_some() && !self.is_attaching() {
            self.end(steps);
        }
    }

    pub(crate) fn is_candidate(&self, link: LinkId) -> bool {
        self.candidates.iter().any(|candidate| candidate.link == link)
    }

    fn is_attaching(&self) -> bool {
        self.candidates.iter().any(|one| matches!(one.state, State::Attaching { .. }))
    }

    /// When the attaching request was sent on this link, if one was.
    pub(crate) fn attaching_since(&self, link: LinkId) -> Option<Instant> {
        self.candidates.iter().find(|one| one.link == link).and_then(|one| match one.state {
            State::Attaching { sent, .. } => Some(sent),
            _ => None,
        })
    }

    /// Between half of `whole` and all of it.
    pub(crate) fn jitter(&mut self, whole: Duration) -> Duration {
        self.backoff.jitter(whole)
    }

    /// When [`Search::tick`] is due.
    pub(crate) fn next_deadline(&self, attach_within: Duration) -> Option<Instant> {
        let start = self.next_start.filter(|_| self.candidates.len() < CANDIDATES).and_then(|start| {
            let endpoint = self.endpoints.next_at(|address| self.is_tried(address))?;
            Some(start.max(endpoint))
        });
        let of_candidates = self.candidates.iter().map(|candidate| match candidate.state {
            State::Connecting { since } | State::Greeting { since } => since + ANSWER_WITHIN,
            State::Standby { ask_at } => ask_at,
            State::Attaching { sent, .. } => sent + attach_within,
        });
        of_candidates.chain(start).min()
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Instant, attach_within: Duration, steps: &mut Vec<Step>) {
        let late = |candidate: &Candidate| match candidate.state {
            State::Connecting { since } | State::Greeting { since } if since + ANSWER_WITHIN <= now => {
                Some(Outcome::Failed(no_answer_within(ANSWER_WITHIN)))
            }
            State::Attaching { sent, .. } if sent + attach_within <= now => {
                let within = Seconds(attach_within);
                Some(Outcome::Answered(format!("it is the master, but it opened no session within {within}")))
            }
            _ => None,
        };
        let late: Vec<_> =
            self.candidates.iter().filter_map(|candidate| Some((candidate.link, late(candidate)?))).collect();
        for (link, outcome) in late {
            self.give_up(now, link, Some(outcome), steps);
        }
        for place in 0..self.candidates.len() {
            if matches!(self.candidates[place].state, State::Standby { ask_at } if ask_at <= now) {
                let relay = self.wants_relay(now, &self.candidates[place]);
                let candidate = &mut self.candidates[place];
                (candidate.state, candidate.asks_for_relay) = (State::Greeting { since: now }, relay);
                steps.push(Step::Greet(candidate.link, relay));
            }
        }
        self.start_next(now, steps);
    }

    /// Whether a follower is to be asked for a relay: the master that it names has had its time to answer this client,
    /// and no other follower is being asked.
    fn wants_relay(&self, now: Instant, follower: &Candidate) -> bool {
        let answers =
            |master: &String| self.candidates.iter().any(|one| one.endpoint == *master && one.answers > 0);
        self.begun + RELAY_AFTER <= now
            && follower.master.as_ref().is_some_and(|master| !answers(master))
            && !self.candidates.iter().any(|candidate| candidate.asks_for_relay)
    }

    /// Starts the next candidate, if it is time.
    fn start_next(&mut self, now: Instant, steps: &mut Vec<Step>) {
        if self.next_start.is_none_or(|start| start > now) || self.candidates.len() >= CANDIDATES {
            return;
        }
        if let Some(endpoint) = self.endpoints.next(now, |address| self.is_tried(address)) {
            self.start(now, endpoint, steps);
        }
    }

    fn start(&mut self, now: Instant, endpoint: String, steps: &mut Vec<Step>) {
        self.last_link += 1;
        let link = LinkId(self.last_link);
        steps.push(Step::Connect(link, endpoint.clone()));
        self.candidates.push(Candidate {
            link,
            endpoint,
            state: State::Connecting { since: now },
            answers: 0,
            master: None,
            asks_for_relay: false,
        });
        self.next_start = Some(now + stagger(self.endpoints.configured()));
    }

    fn is_tried(&self, address: &str) -> bool {
        self.candidates.iter().any(|candidate| candidate.endpoint == address)
    }

    fn get_mut(&mut self, link: LinkId) -> Option<&mut Candidate> {
        self.candidates.iter_mut().find(|candidate| candidate.link == link)
    }

    /// The shell has the connection of a candidate.
    pub(crate) fn connected(&mut self, now: Instant, link: LinkId, steps: &mut Vec<Step>) {
        match self.get_mut(link) {
            Some(candidate) => {
                candidate.state = State::Greeting { since: now };
                steps.push(Step::Greet(link, false));
            }
            None => steps.push(Step::Close(link)), // It was given up meanwhile.
        }
    }

    /// The endpoint of a candidate is a name that stands for several addresses: they take its place.
    pub(crate) fn resolved(&mut self, now: Instant, link: LinkId, addresses: &[String]) {
        if let Some(place) = self.candidates.iter().position(|candidate| candidate.link == link) {
            let name = self.candidates.remove(place).endpoint;
            self.endpoints.resolved(now, &name, addresses);
            self.next_start = self.next_start.map(|_| now);
        }
    }

    /// A candidate failed, or is given up: the next one starts at once.
    pub(crate) fn give_up(
        &mut self,
        now: Instant,
        link: LinkId,
        outcome: Option<Outcome>,
        steps: &mut Vec<Step>,
    ) {
        let Some(place) = self.candidates.iter().position(|candidate| candidate.link == link) else { return };
        let candidate = self.candidates.remove(place);
        steps.push(Step::Close(link));
        self.lost(now, &candidate.endpoint, outcome);
    }

    /// A link to an endpoint was lost.
    pub(crate) fn lost(&mut self, now: Instant, endpoint: &str, outcome: Option<Outcome>) {
        self.endpoints.failed(now, endpoint, outcome, &mut self.backoff);
        self.next_start = self.next_start.map(|_| now);
    }

    /// A candidate is a follower: it is asked again later, and the master that it names is tried at once.
    pub(crate) fn follows(
        &mut self,
        now: Instant,
        link: LinkId,
        master: Option<String>,
        steps: &mut Vec<Step>,
    ) {
        let answer = match &master {
            Some(master) => format!("the master is {master}"),
            None => "no master known".into(),
        };
        self.stand_by(now, link, answer);
        self.get_mut(link).into_iter().for_each(|candidate| candidate.master.clone_from(&master));
        self.try_master(now, master, steps);
    }

    fn stand_by(&mut self, now: Instant, link: LinkId, answer: String) {
        let Search { candidates, endpoints, backoff, .. } = self;
        let Some(candidate) = candidates.iter_mut().find(|candidate| candidate.link == link) else { return };
        let [first, longest] = ASK_AGAIN;
        let wait = first.saturating_mul(1 << candidate.answers.min(8)).min(longest);
        candidate.answers += 1;
        candidate.asks_for_relay = false;
        candidate.state = State::Standby { ask_at: now + backoff.jitter(wait) };
        endpoints.answered(now, &candidate.endpoint, answer);
    }

    /// Starts with the master's address that a replica has named, or else with the next endpoint.
    pub(crate) fn try_master(&mut self, now: Instant, master: Option<String>, steps: &mut Vec<Step>) {
        if self.next_start.is_none() {
            return;
        }
        match master {
            Some(master) if !self.is_tried(&master) && self.endpoints.learn(now, &master) => {
                self.start(now, master, steps);
            }
            _ => {
                self.next_start = Some(now);
                self.start_next(now, steps);
            }
        }
    }

    /// A candidate says that it is the master of that epoch. Returns whether to attach the session to it: not
    /// while that goes on at the master of an epoch that is as late.
    pub(crate) fn attach(
        &mut self,
        now: Instant,
        link: LinkId,
        (epoch, relayed): (u64, bool),
        steps: &mut Vec<Step>,
    ) -> bool {
        let attaching = self.candidates.iter().find_map(|candidate| match candidate.state {
            State::Attaching { epoch, .. } => Some((candidate.link, epoch)),
            _ => None,
        });
        match attaching {
            Some((_, other)) if other >= epoch => {
                self.stand_by(now, link, "it is the master".into());
                return false;
            }
            // A session that this one has opened meanwhile holds nothing, and ends with its lease.
            Some((other, _)) => {
                let outcome = Outcome::Answered("a later master was found".into());
                self.give_up(now, other, Some(outcome), steps);
            }
            None => {}
        }
        let Some(candidate) = self.get_mut(link) else { return false };
        candidate.state = State::Attaching { sent: now, epoch, relayed };
        candidate.answers += 1;
        let endpoint = candidate.endpoint.clone();
        self.endpoints.answered(now, &endpoint, "it is the master".into());
        self.next_start = Some(now + ATTACH_PATIENCE);
        true
    }

    /// The session is attached to a candidate, which is none any more. Returns its endpoint, and whether a follower
    /// relays the link. The search is over.
    pub(crate) fn attached(&mut self, link: LinkId, steps: &mut Vec<Step>) -> Option<(String, bool)> {
        let place = self.candidates.iter().position(|candidate| candidate.link == link)?;
        let Candidate { endpoint, state, .. } = self.candidates.remove(place);
        self.end(steps);
        Some((endpoint, matches!(state, State::Attaching { relayed: true, .. })))
    }

    /// A candidate refuses this client; `Err` if all endpoints do, so that it is in vain to go on.
    pub(crate) fn refused(
        &mut self,
        now: Instant,
        link: LinkId,
        error: &Error,
        steps: &mut Vec<Step>,
    ) -> Result<(), Error> {
        let Some(candidate) = self.get_mut(link) else { return Ok(()) };
        let endpoint = candidate.endpoint.clone();
        self.give_up(now, link, Some(Outcome::Answered(format!("{error}"))), steps);
        match error {
            Error::Overloaded { retry_after } => {
                let wait = *retry_after + self.jitter(*retry_after);
                self.endpoints.overloaded(&endpoint, now + wait);
            }
            Error::InvalidArgument { .. } => self.endpoints.refused(&endpoint, error.clone()),
            _ => {}
        }
        self.endpoints.refusal().map_or(Ok(()), Err)
    }

    /// What came of the search so far, endpoint by endpoint, for people.
    pub(crate) fn describe(&self, now: Instant) -> String {
        let mut parts = Vec::new();
        for (address, outcome) in self.endpoints.outcomes() {
            let candidate = self.candidates.iter().find(|candidate| candidate.endpoint == address);
            let waits =
                candidate.filter(|candidate| candidate.answers == 0).and_then(|one| match one.state {
                    State::Connecting { since } | State::Greeting { since } => Some(now.since(since)),
                    _ => None,
                });
            match (outcome, waits) {
                (Some(Outcome::Answered(answer)), _) => parts.push(format!("{address} answered: {answer}")),
                (Some(Outcome::Failed(why)), _) => parts.push(format!("{address}: {why}")),
                (None, Some(waits)) => parts.push(format!("{address}: {}", no_answer_within(waits))),
                (None, None) => {}
            }
        }
        parts.join("; ")
    }
}

/// A duration in seconds, for people.
struct Seconds(Duration);

impl core::fmt::Display for Seconds {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0.subsec_millis() {
            0 => write!(f, "{} s", self.0.as_secs()),
            millis => write!(f, "{}.{} s", self.0.as_secs(), millis / 100),
        }
    }
}

fn no_answer_within(duration: Duration) -> String {
    format!("no answer within {}", Seconds(duration))
}
