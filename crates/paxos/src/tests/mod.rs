//! Scripts: what the agreement does, step by step, and what once went wrong with it.

mod freshness;
mod hostile;
mod lease;
mod mistakes;
mod restored;
mod stall;
mod ways;
mod world;
