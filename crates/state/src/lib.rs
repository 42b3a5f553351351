//! The replicated state of a cell, and the one way to change it: [`State::apply`].
//!
//! Every replica applies the same commands in the same order and so holds the same state (SPEC I19).
//! Nothing here reads a clock, draws a random number or iterates in an order of chance: what apply needs to
//! know of the world stands in the command. Whatever need not survive a fail-over (queues, leases, plain
//! handles) is not here but in the master's memory, in the `replica` crate.
#![no_std]

extern crate alloc;

mod apply;
mod change;
mod check;
mod cow_map;
mod lock;
mod node;
mod outcome;
mod session;
mod snapshot;
mod state;
mod tree;

pub use apply::Applied;
pub use change::Change;
pub use cow_map::CowMap;
pub use lock::{Delay, Holder, Lock};
pub use node::{Body, Node};
pub use outcome::Outcome;
pub use session::{Fence, Session};
pub use snapshot::SnapshotError;
pub use state::{KEY_BYTES, State};
pub use tree::Tree;
