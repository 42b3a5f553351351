//! Models of the agreement, walked by a model checker (`stateright`): every order of events within bounds.
//!
//! What is walked is the code that ships. Each model says its bounds, and how many states lie within them;
//! `WOMBAT_MODEL=large` walks wider ones. `cargo test -p wombat-paxos --test model -- --nocapture` prints
//! the numbers.

mod agreement;
mod lease;
mod replacement;
mod walk;
mod world;
