//! What a replica keeps on its disk: an identity, a log with group commit, and snapshots that shorten it.
//!
//! The log alone can tell a *torn tail* (writes that a crash caught before they were synced: dropped, nobody
//! was told of them) from *rot* (damage to what had been synced: refused, naming file and offset). How it
//! tells is in [`record`]; the order of operations that makes every crash recoverable is in [`Store`].
//!
//! A failed write or sync ends the store: what the kernel's cache holds after that cannot be trusted.

mod condemned;
mod disk;
mod error;
mod fingerprint;
mod founding;
mod identity;
mod log;
mod nonce;
mod real;
pub mod record;
mod segment;
mod simulated;
mod snapshot;
mod store;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a script that cannot go on has failed")]
mod tests;
mod whole_file;

pub use disk::{Disk, DiskFile};
pub use error::StorageError;
pub use founding::founding_nonce;
pub use identity::{Identity, Origin};

pub use real::RealDisk;
pub use simulated::SimulatedDisk;
pub use snapshot::{SnapshotReader, SnapshotWriter};
pub use store::{Options, Store};
