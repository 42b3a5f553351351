//! The options that every command takes.

use crate::duration;
use clap::Args as ClapArgs;
use std::path::PathBuf;
use std::time::Duration;

/// What every command takes.
#[derive(ClapArgs, Clone)]
pub(crate) struct Global {
    /// Where the cell's replicas listen [default: 127.0.0.1:7480]
    #[arg(
        long,
        global = true,
        help_heading = "Everywhere",
        value_name = "HOST:PORT,…",
        env = "WOMBAT_ENDPOINTS",
        value_delimiter = ','
    )]
    pub(crate) endpoints: Vec<String>,
    /// The name of the cell [default: that of the cell that answers]
    #[arg(long, global = true, help_heading = "Everywhere", value_name = "NAME", env = "WOMBAT_CELL")]
    pub(crate) cell: Option<String>,
    /// The configuration file; clients and servers take the keys that they know [default, not of serve:
    /// ~/.config/wombat/config.toml]
    #[arg(long, global = true, help_heading = "Everywhere", value_name = "FILE", env = "WOMBAT_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON, errors too
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(crate) json: bool,
    /// How long the command may take in all [default: 30s]; lock, semaphore, elect and watch say what it means there
    #[arg(
        long,
        global = true,
        help_heading = "Everywhere",
        value_name = "DURATION",
        env = "WOMBAT_TIMEOUT",
        value_parser = duration::parse
    )]
    pub(crate) timeout: Option<Duration>,
    /// How long to look for the cell [default: 10s]
    #[arg(
        long,
        global = true,
        help_heading = "Everywhere",
        value_name = "DURATION",
        env = "WOMBAT_CONNECT_TIMEOUT",
        value_parser = duration::parse
    )]
    pub(crate) connect_timeout: Option<Duration>,
    /// Make changes only while the lock of this sequencer is held. Commands that `wombat lock` starts have it set
    #[arg(
        long = "sequencer",
        global = true,
        help_heading = "Everywhere",
        value_name = "SEQ",
        env = "WOMBAT_SEQUENCER"
    )]
    pub(crate) fence: Option<String>,
    /// Make changes even if the lock of WOMBAT_SEQUENCER is no longer held
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(crate) no_sequencer: bool,
    /// Ask the cell at every read. Commands that end by themselves do so anyway
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(crate) no_cache: bool,
}
