//! Wombat's vocabulary: what every other crate speaks and none of them owns.
//!
//! Ids and time are newtypes, so that a session can never be passed where a slot is meant; limits stand
//! in one file; names are parsed once, here; the wire messages come from `wombat.proto`. Nothing in this
//! crate has a clock (but for the optional feature [`clock`]), a socket or a file.
//!
//! What only replicas need is behind the feature `log`: records, commands, snapshots, members, and the messages
//! between replicas. A client is compiled without it.
#![no_std]

extern crate alloc;
#[cfg(any(test, feature = "clock"))]
extern crate std;

mod cached;
#[cfg(feature = "clock")]
pub mod clock;
mod error;
pub mod frame;
mod ids;
pub mod limits;
#[cfg(feature = "log")]
mod log;
#[cfg(feature = "log")]
mod members;
mod name;
mod random;
mod reports;
mod sequencer;
mod time;
pub mod wire;

pub use cached::{CacheKey, Facet};
pub use error::{Class, Error, Result};
pub use ids::{Ballot, Epoch, Generation, HandleId, Instance, ReplicaId, SessionId, Slot, Token};
#[cfg(feature = "log")]
pub use log::{Accepted, Durable, Record, Recovered, Value};
#[cfg(feature = "log")]
pub use members::{Member, Members};
pub use name::{CellName, Name, NodePath, Path};
pub use random::SplitMix64;
pub use reports::KnownMaster;
pub use sequencer::{LockMode, Sequencer};
pub use time::{Instant, Rho};
