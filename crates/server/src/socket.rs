//! What the kernel is asked to do for a client's connection.

use nix::sys::socket::{setsockopt, sockopt};
use std::time::Duration;
use tokio::net::TcpStream;

/// After so long without a word from the other side the kernel probes it.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;

/// A machine that is gone acknowledges nothing. The kernel alone would try for a quarter of an hour.
const DEAD_AFTER: Duration =
    Duration::from_secs(KEEPALIVE_IDLE.as_secs() + KEEPALIVE_INTERVAL.as_secs() * KEEPALIVE_PROBES as u64);

/// Sends without delay, and ends the connection when the other machine is gone.
pub(crate) fn prepare(stream: &TcpStream) {
    let _best_effort = stream.set_nodelay(true);
    let _best_effort = setsockopt(stream, sockopt::KeepAlive, &true);
    let _best_effort = setsockopt(stream, sockopt::TcpKeepIdle, &(KEEPALIVE_IDLE.as_secs() as u32));
    let _best_effort = setsockopt(stream, sockopt::TcpKeepInterval, &(KEEPALIVE_INTERVAL.as_secs() as u32));
    let _best_effort = setsockopt(stream, sockopt::TcpKeepCount, &KEEPALIVE_PROBES);
    let _best_effort = setsockopt(stream, sockopt::TcpUserTimeout, &(DEAD_AFTER.as_millis() as u32));
}
