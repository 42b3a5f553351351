//! What a cell of `wombat dev` is to be.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// A cell of one or several replicas, and what runs with it.
pub(super) struct Plan {
    pub(super) cell: String,
    pub(super) replicas: u32,
    /// Where the data is kept, if it is.
    pub(super) dir: Option<PathBuf>,
    pub(super) listen: Option<String>,
    pub(super) session_lease: Duration,
    /// Empty: it stays until it is interrupted.
    pub(super) command: Vec<OsString>,
}
