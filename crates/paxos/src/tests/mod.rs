//! Scripts: what the agreement does, step by step, and what once went wrong with it.

mod catch_up;
mod freshness;
mod hostile;
mod lease;
mod members;
mod mistakes;
mod partitions;
mod phase2;
mod restored;
mod round_trips;
mod stall;
mod transfer;
mod world;
