//! Scripts for replicas: what is said to it, what it answers, what time does to it. No script waits.

#![allow(clippy::unwrap_used, reason = "a script that cannot go on has failed")]

mod breaks;
mod cache;
mod cache_limits;
mod cache_locks;
mod cache_property;
mod cache_world;
mod fail_over;
mod keep_alives;
mod latest_end;
mod lock_delays;
mod lock_model;
mod lock_property;
mod lock_queue;
mod lock_steps;
mod names;
mod restarts;
mod sessions;
mod several;
mod stale;
mod world;
