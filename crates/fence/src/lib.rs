//! For the services that are called under a lock: is the caller's sequencer still good? (P§2.4)
//!
//! A holder passes its sequencer along with every request, and the service refuses one that is stale. Chubby's
//! services ask their session's cache, or compare with the newest sequencer that they have seen; a [`Fence`]
//! is the second, and [`Fence::check_and_ask`] adds the first.
//!
//! ```
//! use wombat_fence::Fence;
//!
//! # fn example(header: &str) -> Result<(), Box<dyn std::error::Error>> {
//! // The service says which lock guards it. Never take the caller's word for that.
//! let fence = Fence::of_cell("foo")?.lock("primary")?;
//! let sequencer = fence.check_text(header)?; // Refused: stale, damaged, or of some other lock.
//! println!("a request under token {}", sequencer.token);
//! # Ok(())
//! # }
//! ```
//!
//! # What it can know
//!
//! It asks nobody, so it knows what it has seen. A sequencer is *stale* once one of a later tenure of the same
//! lock was admitted; until then the old holder passes, and no harm is in that as long as the new holder has
//! neither read nor written here. So a holder sends its sequencer with its reads, too: its first request closes
//! the door behind it.
//!
//! A *tenure* is the time from when a lock goes from free to held until it is free again: one instance, one
//! lock generation. An exclusive lock has one holder in it, and the token alone
//! decides. Shared holders, and those of a semaphore, come and go within one tenure, each with a token of its
//! own; a smaller token does not make any of them stale. One that has lost its share passes for as long as no
//! later tenure is seen: offline nobody can tell it from those who still hold. Where that matters, ask the
//! cell.
//!
//! # What it cannot
//!
//! - *Forgery.* A sequencer carries a checksum, not a signature. Fences are for holders who are honest and
//!   late; a caller who would lie can say any token, and with a huge one shut the others out. Who must not be
//!   trusted so far is asked about at the cell, which knows its holders, before anything is remembered:
//!   [`Fence::check_and_ask`].
//! - *What happens after the check.* A request that was let in may itself stand still before it writes, while
//!   a newer one passes it. Only a token that is compared in the write itself, in the same transaction, rules
//!   that out; with a database do that, and keep the fence for the door.
//! - *Other servers' memory.* Each fence knows what came to it. Copies of a service compare tokens where their
//!   data are, or ask the cell.
//! - *A restart.* A fence in memory forgets. [`Fence::keeping`] makes every newer token durable before it is
//!   admitted and [`Fence::restore`] brings them back; or [`Fence::refuse_before`] begins with a floor.

mod fence;
#[cfg(feature = "tower")]
mod layer;
mod memory;
mod refused;
#[cfg(test)]
mod tests;

pub use fence::Fence;
#[cfg(feature = "tower")]
pub use layer::{FenceLayer, Fenced, HEADER};
pub use refused::Refused;
pub use wombat_proto::{LockMode, Sequencer, Token};
