//! The client's brain, sans-IO: it decides what to send and when, what an answer means, how long the session
//! is surely alive, and when it is lost (P§2.8). Its shell owns the socket, the clock and the waiting callers.
//!
//! The life of a session seen from its client:
//!
//! ```text
//!   new ──opened──▶ safe ──lease view ends──▶ jeopardy ──grace passes──▶ expired
//!                    ▲                            │
//!                    └──────a KeepAlive succeeds──┘
//! ```
//!
//! What it has cached is coherent (P§2.7): [`Session::cached`] says what a reader may use at a moment.
#![no_std]

extern crate alloc;

mod api;
mod backoff;
mod cache;
mod calls;
mod endpoints;
mod handles;
mod lease;
mod liveness;
mod machine;
mod revocations;
mod search;
#[cfg(test)]
mod tests;

pub use api::{Answer, Config, Effects, NodeEvent, SessionEvent};
pub use cache::{
    CacheChange, CacheStats, Cached, CachedAbsence, CachedListing, CachedNode, Entries, Mark, Place,
};
pub use calls::Kind;
pub use machine::Session;
pub use revocations::Revoked;
pub use search::{LinkId, stagger};
