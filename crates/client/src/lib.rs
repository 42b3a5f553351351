//! The Wombat client: open small files by name, take their locks, and hear of what changes.
//!
//! ```no_run
//! use wombat_client::{Cell, Create, LockMode, OpenOptions};
//!
//! # async fn example() -> wombat_client::Result<()> {
//! let cell = Cell::connect(["127.0.0.1:7480"]).await?;
//! let node = cell.open("/ls/local/primary", OpenOptions::new().write().create(Create::May)).await?;
//! let guard = node.acquire(LockMode::Exclusive).await?;
//! node.set("host-a:4242").await?;
//! println!("primary, token {}", guard.token()); // Pass guard.sequencer() to the services you talk to.
//! guard.release().await
//! # }
//! ```
//!
//! On locks and small files stand the recipes: [`Election`], [`Semaphore`], [`Barrier`], [`Gate`],
//! [`Membership`], [`hold`]; and on every guard [`LockGuard::run`] and [`LockGuard::wanted`]. docs/RECIPES.md
//! says when to take which.
//!
//! A [`Cell`] is one session (P§2.8). It lives through broken connections and fail-overs; while the cell
//! cannot be reached calls wait, and only when the grace period has passed do they fail, all of them.
//! Dropping the future of a call gives it up: a lock that it would have taken is not left behind.
//!
//! The session runs on the runtime on which [`Cell::connect`] was called. If the application blocks that runtime for
//! half a second, or drops it, the session moves to a thread that all sessions of the process share, and stays there.
//! So an application keeps its session whatever it does with its runtimes, and others do not wait for its cache; but
//! from then on a call that asks the cell changes threads twice, which costs 10 to 20 µs.
//!
//! What was read is cached, and always true: nothing changes in the cell before whoever has it cached has dropped
//! it, or has been silent for as long as its cache lease lasts (P§2.7). A read that the cache answers takes part in
//! the cooperative scheduling of tokio, as one that waits does. [`Node::read`] is the cheapest way to it,
//! [`Consistency`] the way past it, [`Config::no_cache`] the way without.

mod answer;
mod at;
mod cache;
mod cell;
mod config;
mod consistency;
mod direct;
mod events;
mod handle;
mod links;
mod listings;
mod lock;
mod multi;
mod node;
mod operator;
mod options;
mod placement;
mod race;
mod recipes;
mod shared;
mod stale;
mod stat;
mod task;
mod time;

pub use at::At;
pub use cache::{CacheStats, Reading};
pub use cell::Cell;
pub use config::Config;
pub use consistency::Consistency;
pub use direct::{relay_transfer, replica_status, transfer_mastership};
pub use events::{NodeEvent, NodeEvents, SessionEvents};
pub use lock::{LockGuard, Lost};
pub use multi::{Changed, Multi};
pub use node::Node;
pub use operator::Operator;
pub use options::{Create, OpenOptions};
pub use recipes::barrier::{Barrier, Inside};
pub use recipes::election::{Election, Leader, LeaderChanges, Leadership};
pub use recipes::gate::Gate;
pub use recipes::hold::hold;
pub use recipes::kept::{KeptGuard, KeptLock};
pub use recipes::membership::{Member, Membership, MembershipChange, MembershipChanges};
pub use recipes::semaphore::Semaphore;
pub use stale::{Stale, StaleReader, Staleness};
pub use stat::{Entry, Stat};
pub use time::now;
pub use wombat_proto::wire::event::Kind as EventKind;
pub use wombat_proto::wire::{
    AuditEntry, CacheStatus, FailOver, HeldUpBy, Holder, LockInfo, MemberStatus, SessionInfo, Status,
    WaiterInfo,
};
pub use wombat_proto::{
    CellName, Class, Epoch, Error, Generation, Instance, Instant, KnownMaster, LockMode, NodePath, Path,
    ReplicaId, Result, Sequencer, SessionId, Slot, Token, limits,
};
pub use wombat_session::SessionEvent;
