//! `wombat serve`: a replica as a service.

use crate::config_file::{ConfigFile, parse_duration};
use crate::duration;
use crate::exit::Failure;
use crate::global::Global;
use crate::output;
use crate::supervise::Signals;
use clap::Args as ClapArgs;
use std::path::PathBuf;
use std::time::Duration;
use tracing::info;
use tracing_subscriber::EnvFilter;
use wombat_client::CellName;
use wombat_server::{Config, Server};

#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  wombat serve --config /etc/wombat/server.toml
  wombat serve --cell main --dir /var/lib/wombat --listen 0.0.0.0:7480
  wombat serve --cell main --dir /var/lib/wombat --listen 0.0.0.0:7480 --advertise a:7480 \
      --peers a:7480,b:7480,c:7480,d:7480,e:7480

A cell is founded when all its peers have met: start each with the same list. A replica whose
data is lost is started again with an empty directory: it joins the cell again, in its
old place. The file's keys: cell, dir, listen, advertise, metrics, peers (a list), session_lease,
master_lease, max_master_lease, cache_lease (durations as text) and connections_per_address. The
keys of clients in the same file are left to them. Flags and the environment go before the file.
Stops cleanly on SIGTERM.")]
pub(crate) struct Serve {
    /// The data directory
    #[arg(long, env = "WOMBAT_DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Where to listen [default: 127.0.0.1:7480]
    #[arg(long, value_name = "HOST:PORT", env = "WOMBAT_LISTEN")]
    pub(crate) listen: Option<String>,
    /// Where the other replicas and the clients reach it [default: where it listens]
    #[arg(long, value_name = "HOST:PORT", env = "WOMBAT_ADVERTISE")]
    pub(crate) advertise: Option<String>,
    /// All founders of the cell, this one among them [default: it is alone]
    #[arg(long, value_name = "HOST:PORT,…", env = "WOMBAT_PEERS", value_delimiter = ',')]
    pub(crate) peers: Vec<String>,
    /// Join a cell that exists as a learner: a further replica without a vote; --peers names some of its replicas
    #[arg(long)]
    pub(crate) join: bool,
    /// The session lease [default: 12s]
    #[arg(long, value_name = "DURATION", env = "WOMBAT_SESSION_LEASE", value_parser = duration::parse)]
    pub(crate) session_lease: Option<Duration>,
    /// The cache lease: how long a client that does not answer delays a change of what it has cached [default: 2s]
    #[arg(long, value_name = "DURATION", env = "WOMBAT_CACHE_LEASE", value_parser = duration::parse)]
    pub(crate) cache_lease: Option<Duration>,
    /// The master lease: how long the others wait for a master that is gone [default: 300ms]
    #[arg(long, value_name = "DURATION", env = "WOMBAT_MASTER_LEASE", value_parser = duration::parse)]
    pub(crate) master_lease: Option<Duration>,
    /// The longest master lease that a master asks for by itself, when round trips are too long for the usual one
    /// [default: 3s]
    #[arg(long, value_name = "DURATION", env = "WOMBAT_MAX_MASTER_LEASE", value_parser = duration::parse)]
    pub(crate) max_master_lease: Option<Duration>,
    /// Where to export metrics, at http://HOST:PORT/metrics, without authentication [default: nowhere]
    #[arg(long, value_name = "HOST:PORT", env = "WOMBAT_METRICS")]
    pub(crate) metrics: Option<String>,
    /// How many clients may connect from one address [default: 8192, and any number from this machine]
    #[arg(long, value_name = "N", env = "WOMBAT_CONNECTIONS_PER_ADDRESS")]
    pub(crate) connections_per_address: Option<usize>,
    /// What to log, as in RUST_LOG
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", default_value = "info")]
    pub(crate) log: String,
}

pub(crate) async fn run(global: &Global, serve: Serve) -> Result<u8, Failure> {
    let queues = output::queue_lines()?;
    let mut config = config(global, &serve)?;
    config.log_lines_dropped = queues.err.dropped();
    let filter = EnvFilter::try_new(&serve.log)
        .map_err(|error| Failure::usage(format!("the log filter {:?}: {error}", serve.log)))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || queues.err.clone())
        .with_ansi(false)
        .init();
    let mut signals = Signals::listen()?;
    let stop = async {
        // Not in the line that is logged: at `--log warn` nothing in it would be waited for.
        let signal = signals.next().await;
        info!("stopping on {signal} before it served");
    };
    let Some(server) = Server::start_unless(config, stop).await? else { return Ok(0) };
    output::notice(format_args!("ready: wombat serves at {}", server.address()));
    tokio::select! {
        signal = signals.next() => info!("stopping on {signal}"),
        error = server.failed() => return Err(error.into()),
    }
    server.stop()?;
    Ok(0)
}

/// What the flags, the environment and the file say, in this order.
fn config(global: &Global, serve: &Serve) -> Result<Config, Failure> {
    let file = global.config.as_deref().map(ConfigFile::read).transpose()?.unwrap_or_default();
    let needed = |what: &str| Failure::usage(format!("say {what}, by flag or in the file of --config"));
    let cell = global.cell.clone().or(file.cell).ok_or_else(|| needed("which --cell this replica is of"))?;
    let dir = serve.dir.clone().or(file.dir).ok_or_else(|| needed("in which --dir its data lives"))?;
    let mut config = Config::new(CellName::parse(&cell)?, dir);
    config.advertise = serve.advertise.clone().or(file.advertise);
    config.peers = if serve.peers.is_empty() { file.peers } else { serve.peers.clone() };
    config.join = serve.join;
    config.connections_per_address = serve.connections_per_address.or(file.connections_per_address);
    config.metrics = serve.metrics.clone().or(file.metrics);
    if let Some(listen) = serve.listen.clone().or(file.listen) {
        config.listen = listen;
    }
    for (lease, said, from_file) in [
        (&mut config.session_lease, serve.session_lease, &file.session_lease),
        (&mut config.cache_lease, serve.cache_lease, &file.cache_lease),
        (&mut config.master_lease, serve.master_lease, &file.master_lease),
        (&mut config.max_master_lease, serve.max_master_lease, &file.max_master_lease),
    ] {
        let from_file = from_file.as_deref().map(parse_duration).transpose()?;
        *lease = said.or(from_file).unwrap_or(*lease);
    }
    Ok(config)
}
