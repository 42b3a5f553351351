//! Scripts: what the agreement does, step by step, and what once went wrong with it.

mod hostile;
mod mistakes;
mod ways;
mod world;
