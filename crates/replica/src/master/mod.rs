//! The master (P§2.2): its memory, and the work that joins two tables of it.
//!
//! | module | work |
//! |---|---|
//! | `admit` | a request: may it be answered now, and by which call |
//! | `read`, `open`, `write`, `lock`, `sessions`, `admin` | the calls |
//! | `propose` | a change: who has its keys cached, then the log |
//! | `committed` | a change that the log has decided |
//! | `grants` | the turns of waiting Acquires |
//! | `keep_alive`, `leases`, `expiry` | KeepAlives, lease lengths, sessions that end |
//! | `caching` | which answers may be cached, and who is sent invalidations |
//! | `publish` | events |
//! | `fail_over`, `revoke`, `members` | the nine steps, breaking locks, the replicas of the cell |

mod admin;
mod admit;
mod caching;
mod committed;
mod expiry;
mod fail_over;
mod grants;
mod keep_alive;
mod leases;
mod lock;
mod members;
mod memory;
mod open;
mod propose;
mod publish;
mod read;
mod revoke;
mod sessions;
mod steps;
mod write;

pub(crate) use leases::logged_lease;
pub(crate) use members::{member_statuses, transfer};
pub(crate) use memory::Master;
