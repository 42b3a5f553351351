//! The commands, one a file, each with its arguments.

pub(crate) mod admin;
pub(crate) mod break_lock;
pub(crate) mod completions;
pub(crate) mod dev;
pub(crate) mod elect;
pub(crate) mod get;
mod holding;
pub(crate) mod lock;
pub(crate) mod locks;
pub(crate) mod ls;
pub(crate) mod mkdir;
pub(crate) mod multi;
mod parents;
pub(crate) mod put;
mod reader;
pub(crate) mod rm;
pub(crate) mod semaphore;
pub(crate) mod sequencer;
pub(crate) mod serve;
pub(crate) mod sessions;
mod show;
pub(crate) mod stat;
pub(crate) mod status;
pub(crate) mod tree;
pub(crate) mod watch;
