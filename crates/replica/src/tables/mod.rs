//! The master's memory, as tables. Each table owns its data and returns decisions. No table knows the master, the
//! log or another replica; only `master/` joins two of them.

pub(crate) mod cache_keys;
pub(crate) mod connections;
pub(crate) mod deferred;
pub(crate) mod digests;
pub(crate) mod fail_over;
pub(crate) mod handles;
pub(crate) mod invalidations;
pub(crate) mod leases;
pub(crate) mod lock_queue;
pub(crate) mod outbox;
pub(crate) mod pending_hellos;
pub(crate) mod proposals;
pub(crate) mod revocations;
pub(crate) mod session_cache;
pub(crate) mod sessions;
pub(crate) mod signer;
pub(crate) mod subscriptions;
pub(crate) mod timers;
pub(crate) mod waiting_changes;
