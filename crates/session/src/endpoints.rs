//! Where the replicas of the cell are reached, what came of the last attempt at each, and which is tried next.

use crate::backoff::Backoff;
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::time::Duration;
use wombat_proto::limits::CELL_REPLICAS;
use wombat_proto::{Error, Instant};

/// Most addresses that are remembered beside the configured ones: replicas name them, and names stand for them.
const OTHERS: usize = 2 * CELL_REPLICAS;
/// How long a name that stands for several addresses is not resolved again.
const RESOLVED_FOR: Duration = Duration::from_secs(5);
/// How long an endpoint that failed is tried last, also when a replica names it as the master: that one may not
/// have noticed yet.
const FAILED_FOR: Duration = Duration::from_secs(5);

/// One endpoint, `host:port`.
#[derive(Clone, Debug)]
struct Endpoint {
    address: String,
    /// Whether the configuration names it. Others may be forgotten.
    configured: bool,
    /// Attempts that failed since a master served there.
    failures: u32,
    /// It is not tried before that.
    not_before: Instant,
    /// When it failed or was given up last; `None` since it answered. The one that failed last is tried last.
    failed_at: Option<Instant>,
    /// When it answered last. The one that answered last is tried first.
    answered_at: Option<Instant>,
    /// What came of the last attempt, for people.
    outcome: Option<Outcome>,
    /// Why it refuses this client for good: it is of another cell, or speaks another version of the protocol.
    refusal: Option<Error>,
    /// The addresses that are tried in its place, if it is a name that stands for several.
    stands_for: Vec<String>,
}

/// What came of an attempt at an endpoint, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// A replica answered this.
    Answered(String),
    /// Nothing answered, for this reason.
    Failed(String),
}

/// All known endpoints: the configured ones in their order, then the others.
#[derive(Clone, Debug)]
pub(crate) struct Endpoints(Vec<Endpoint>);

impl Endpoints {
    pub(crate) fn new(configured: &[String]) -> Endpoints {
        let mut endpoints = Endpoints(Vec::new());
        for address in configured {
            endpoints.add(address, true);
        }
        endpoints
    }

    fn add(&mut self, address: &str, configured: bool) {
        if self.0.iter().any(|endpoint| endpoint.address == address) {
            return;
        }
        let others = self.0.iter().filter(|endpoint| !endpoint.configured).count();
        if !configured && others >= OTHERS {
            // The one that has not answered for the longest time goes.
            let oldest = self.0.iter().enumerate().filter(|(_, endpoint)| !endpoint.configured);
            let oldest = oldest.min_by_key(|(_, endpoint)| endpoint.answered_at).map(|(place, _)| place);
            oldest.map(|place| self.0.remove(place));
        }
        self.0.push(Endpoint {
            address: address.to_owned(),
            configured,
            failures: 0,
            not_before: Instant::default(),
            failed_at: None,
            answered_at: None,
            outcome: None,
            refusal: None,
            stands_for: Vec::new(),
        });
    }

    fn get_mut(&mut self, address: &str) -> Option<&mut Endpoint> {
        self.0.iter_mut().find(|endpoint| endpoint.address == address)
    }

    /// How many the configuration names.
    pub(crate) fn configured(&self) -> usize {
        self.0.iter().filter(|endpoint| endpoint.configured).count()
    }

    /// A replica names the master's address. Returns whether it may be tried before all others.
    pub(crate) fn learn(&mut self, now: Instant, address: &str) -> bool {
        self.add(address, false);
        self.get_mut(address).is_some_and(|endpoint| {
            endpoint.not_before <= now && endpoint.failed_at.is_none_or(|at| at + FAILED_FOR <= now)
        })
    }

    /// A name stands for these addresses, which are tried in its place.
    pub(crate) fn resolved(&mut self, now: Instant, name: &str, addresses: &[String]) {
        for address in addresses {
            self.add(address, false);
        }
        if let Some(endpoint) = self.get_mut(name) {
            endpoint.not_before = now + RESOLVED_FOR;
            endpoint.outcome = None;
            endpoint.stands_for = addresses.to_vec();
        }
    }

    /// The endpoint to try next, of those that are not `busy` and may be tried now: those that have not failed
    /// since they answered, the last that answered first; then the others, the last that failed last.
    pub(crate) fn next(&self, now: Instant, busy: impl Fn(&str) -> bool) -> Option<String> {
        let free = |endpoint: &&Endpoint| endpoint.not_before <= now && !busy(&endpoint.address);
        let rank = |endpoint: &&Endpoint| (endpoint.failed_at, Reverse(endpoint.answered_at));
        self.0.iter().filter(free).min_by_key(rank).map(|endpoint| endpoint.address.clone())
    }

    /// When the first of those that are not `busy` may be tried.
    pub(crate) fn next_at(&self, busy: impl Fn(&str) -> bool) -> Option<Instant> {
        let free = self.0.iter().filter(|endpoint| !busy(&endpoint.address));
        free.map(|endpoint| endpoint.not_before).min()
    }

    /// A replica answered there.
    pub(crate) fn answered(&mut self, now: Instant, address: &str, answer: String) {
        if let Some(endpoint) = self.get_mut(address) {
            endpoint.outcome = Some(Outcome::Answered(answer));
            (endpoint.answered_at, endpoint.failed_at, endpoint.refusal) = (Some(now), None, None);
        }
    }

    /// The master served there.
    pub(crate) fn served(&mut self, now: Instant, address: &str) {
        if let Some(endpoint) = self.get_mut(address) {
            (endpoint.failures, endpoint.failed_at) = (0, None);
            (endpoint.answered_at, endpoint.refusal) = (Some(now), None);
        }
    }

    /// Nothing answers there yet, but the link to it is not given up: others are tried first.
    pub(crate) fn suspect(&mut self, now: Instant, address: &str) {
        if let Some(endpoint) = self.get_mut(address) {
            endpoint.failed_at = Some(now);
        }
    }

    /// An attempt failed, or a link was lost.
    pub(crate) fn failed(
        &mut self,
        now: Instant,
        address: &str,
        outcome: Option<Outcome>,
        backoff: &mut Backoff,
    ) {
        if let Some(endpoint) = self.get_mut(address) {
            endpoint.failures += 1;
            endpoint.failed_at = Some(now);
            endpoint.not_before = now + backoff.after(endpoint.failures);
            if outcome.is_some() {
                endpoint.outcome = outcome;
            }
        }
    }

    /// A replica there does not want this client as it is.
    pub(crate) fn refused(&mut self, address: &str, error: Error) {
        if let Some(endpoint) = self.get_mut(address) {
            endpoint.refusal = Some(error);
        }
    }

    /// A replica there is too busy.
    pub(crate) fn overloaded(&mut self, address: &str, until: Instant) {
        if let Some(endpoint) = self.get_mut(address) {
            endpoint.not_before = endpoint.not_before.max(until);
        }
    }

    /// Why no endpoint will ever take this client, if all refuse it. A name refuses it if its addresses do.
    pub(crate) fn refusal(&self) -> Option<Error> {
        let is_known = |address: &String| self.0.iter().any(|endpoint| endpoint.address == *address);
        let is_replaced =
            |name: &Endpoint| !name.stands_for.is_empty() && name.stands_for.iter().all(is_known);
        let all = self.0.iter().all(|endpoint| endpoint.refusal.is_some() || is_replaced(endpoint));
        self.0.iter().find_map(|endpoint| endpoint.refusal.clone()).filter(|_| all)
    }

    /// What came of the last attempt at each.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = (&str, Option<&Outcome>)> {
        self.0.iter().map(|endpoint| (&*endpoint.address, endpoint.outcome.as_ref()))
    }
}
