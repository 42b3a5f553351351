//! `wombat serve`: a replica as a service.

use crate::args::{Global, Serve};
use crate::exit::Failure;
use crate::output;
use crate::settings::{parse_duration, read_toml};
use crate::supervise::Signals;
use serde::Deserialize;
use std::path::PathBuf;
use tracing::info;
use tracing_subscriber::EnvFilter;
use wombat_client::CellName;
use wombat_server::{Config, Server};

/// The server's configuration file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    cell: Option<String>,
    dir: Option<PathBuf>,
    listen: Option<String>,
    advertise: Option<String>,
    #[serde(default)]
    peers: Vec<String>,
    master_lease: Option<String>,
    max_master_lease: Option<String>,
    session_lease: Option<String>,
    cache_lease: Option<String>,
    metrics: Option<String>,
    connections_per_address: Option<usize>,
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
    let file: File = serve.config.as_deref().map(read_toml).transpose()?.unwrap_or_default();
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
