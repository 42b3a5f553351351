//! What must hold of a cell, and the records by which that is judged. They come from what clients and replicas say to
//! each other and from the log; what a replica believes is only compared with them.
//!
//! | file | what it judges |
//! |---|---|
//! | `history.rs`, `locks.rs`, `events.rs` | the log, command by command; its locks; what handles hear of its changes |
//! | `replies.rs` | what replicas answer, and whether they may |
//! | `answers.rs`, `beliefs.rs` | what clients were answered; what they believe to have |
//! | `cache.rs` | what clients may have cached |
//! | `stale.rs` | reads at any replica |
//! | `reports.rs` | what an observer concludes from reports |
//! | `search.rs` | how soon clients find the master |
//! | `ending.rs` | the end of a run |

pub(super) mod answers;
mod beliefs;
pub(super) mod cache;
mod ending;
mod events;
pub(super) mod history;
mod locks;
mod replies;
mod reports;
pub(super) mod search;
pub(super) mod stale;
pub(super) mod view;

use answers::Answers;
use cache::Caches;
use history::History;
use search::SearchBound;

/// All records of a run.
#[derive(Default)]
pub(super) struct Oracle {
    pub(super) answers: Answers,
    pub(super) history: History,
    pub(super) caches: Caches,
    /// In a run about the search for the master: what must hold of it.
    pub(super) search: Option<SearchBound>,
}
