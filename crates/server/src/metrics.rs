//! What monitoring asks for: `GET /metrics`, in the text format of OpenMetrics.

use crate::ServerError;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{AbortHandle, spawn_local};
use tracing::{debug, info, warn};
use wombat_proto::wire::{CacheStatus, Status};

/// How many may ask at once.
const SCRAPERS: usize = 8;
/// How long one may take to say what it wants.
const ASKS_WITHIN: Duration = Duration::from_secs(5);
/// How long nobody is heard after somebody could not be.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Those who ask for the metrics.
pub(crate) struct Scrapes {
    asked: mpsc::Receiver<Asked>,
    listening: Option<AbortHandle>,
}

/// Somebody asks.
pub(crate) struct Asked(oneshot::Sender<String>);

impl Asked {
    /// Tells how the replica is.
    pub(crate) fn answer(self, status: &Status) {
        let _it_waits_no_more = self.0.send(text(status));
    }
}

impl Scrapes {
    /// Listens there, on this thread's local tasks.
    pub(crate) async fn listen(address: Option<&str>) -> Result<Scrapes, ServerError> {
        let (ask, asked) = mpsc::channel(SCRAPERS);
        let Some(address) = address else { return Ok(Scrapes { asked, listening: None }) };
        let failed = |source| ServerError::Listen { address: address.into(), source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        info!("metrics at http://{}/metrics", listener.local_addr().map_err(failed)?);
        let listening = spawn_local(serve(listener, ask)).abort_handle();
        Ok(Scrapes { asked, listening: Some(listening) })
    }

    /// The next who asks.
    pub(crate) async fn next(&mut self) -> Asked {
        match self.asked.recv().await {
            Some(asked) => asked,
            None => pending().await,
        }
    }
}

impl Drop for Scrapes {
    fn drop(&mut self) {
        if let Some(listening) = &self.listening {
            listening.abort();
        }
    }
}

async fn serve(listener: TcpListener, ask: mpsc::Sender<Asked>) {
    let places = Arc::new(Semaphore::new(SCRAPERS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!("cannot accept a connection for metrics: {error}");
                tokio::time::sleep(AGAIN_AFTER).await;
                continue;
            }
        };
        // The others wait in the listener's queue.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let ask = ask.clone();
        spawn_local(async move {
            let _place = place;
            let answer = service_fn(async |request| Ok::<_, Infallible>(respond(&request, &ask).await));
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(ASKS_WITHIN).keep_alive(false);
            if let Err(error) = http.serve_connection(TokioIo::new(stream), answer).await {
                debug!("a connection for metrics: {error}");
            }
        });
    }
}

async fn respond(request: &Request<Incoming>, ask: &mpsc::Sender<Asked>) -> Response<String> {
    let (status, kind, body) = if request.method() != Method::GET || request.uri().path() != "/metrics" {
        (StatusCode::NOT_FOUND, "text/plain", "there is only GET /metrics here\n".into())
    } else {
        let (tell, told) = oneshot::channel();
        let _nobody_tells = ask.send(Asked(tell)).await;
        match told.await {
            Ok(text) => (StatusCode::OK, TEXT, text),
            Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", "the replica stops\n".into()),
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

/// The metrics of a replica, anew for each who asks: the replica counts, not they.
fn text(status: &Status) -> String {
    let mut all = Registry::with_prefix("wombat");
    let mut gauge = |name, help, value| register_gauge(&mut all, name, help, value);
    gauge("master", "Whether this replica is the master", u64::from(status.standing == "master"));
    gauge("epoch", "The epoch of the last master that is known", status.epoch);
    gauge("applied_slot", "The last slot of the log that is applied", status.applied_slot);
    gauge("log_bytes", "The log behind the last snapshot", status.log_bytes);
    gauge("nodes", "Files and directories", status.nodes);
    gauge("sessions", "Sessions", status.sessions);
    gauge("connections", "Connections of clients", status.connections);
    gauge("connections_max", "Most connections of clients that there may be", status.max_connections);
    gauge("connections_relayed", "Clients that are passed on to the master", status.relayed);
    gauge("locks_held", "Locks that are held, each holder counted", status.locks_held);
    gauge("locks_waiting", "Requests for locks that wait", status.waiting);
    gauge("master_lease_milliseconds", "What is left of the master lease", status.master_lease_ms);
    let help = "For how long the oldest proposal of this master has not been chosen";
    gauge("oldest_proposal_milliseconds", help, status.oldest_proposal_ms);
    gauge(
        "master_lease_length_milliseconds",
        "The master lease that is asked for",
        status.master_lease_length_ms,
    );
    gauge("quorum_round_trip_microseconds", "The round trip to the nearest quorum", status.round_trip_us);
    gauge("warnings", "Warnings that wombat status shows", status.warnings.len() as u64);
    gauge("longest_step_microseconds", "The longest step of the thread that serves", status.longest_step_us);
    register_counter(&mut all, "slow_steps", "Steps that took longer than 20 ms", status.slow_steps);
    let help = "Lines of the server's log that could not be written";
    register_counter(&mut all, "log_lines_dropped", help, status.log_lines_dropped);
    if let Some(cache) = &status.cache {
        caches(cache, &mut all);
    }
    let mut text = String::new();
    encode(&mut text, &all).expect("a string takes everything");
    text
}

/// What sessions have cached (P§2.7); of a master only.
fn caches(cache: &CacheStatus, all: &mut Registry) {
    let mut gauge = |name, help, value| register_gauge(all, name, help, value);
    gauge("cache_entries", "What sessions may have cached, added up", cache.entries);
    gauge("cache_sessions", "Sessions that read their caches", cache.sessions);
    gauge("cache_lease_milliseconds", "The cache lease that is granted", cache.lease_ms.into());
    gauge("cache_changes_waiting", "Changes that wait until nobody has the old cached", cache.waiting);
    gauge("cache_longest_wait_milliseconds", "How long the first of them has waited", cache.longest_ms);
    let mut counter = |name, help, value| register_counter(all, name, help, value);
    counter("cache_hits", "Reads answered from caches, as far as clients said so", cache.hits);
    counter("cache_rounds", "Rounds of invalidations", cache.rounds);
    counter("cache_invalidations", "Invalidations that sessions were told", cache.invalidations);
    counter("cache_lapses", "Invalidations that a cache lease ended before", cache.lapsed);
    let held_up = Family::<Vec<(String, String)>, Gauge>::default();
    for by in &cache.held_up_by {
        let labels =
            [("session", by.session.to_string()), ("client", by.client.clone()), ("path", by.path.clone())];
        let labels = labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        held_up.get_or_create(&labels).set(signed(by.left_ms));
    }
    let help = "For how long at most a session still holds up changes; the first of them only";
    all.register("cache_held_up_by_milliseconds", help, held_up);
}

fn register_gauge(all: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge = Gauge::<i64>::default();
    gauge.set(signed(value));
    all.register(name, help, gauge);
}

fn register_counter(all: &mut Registry, name: &str, help: &str, value: u64) {
    let counter = Counter::<u64>::default();
    counter.inc_by(value);
    all.register(name, help, counter);
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
