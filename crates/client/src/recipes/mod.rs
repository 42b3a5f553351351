//! What people do with locks and small files, done once with its hard cases: docs/RECIPES.md says which to take.

pub(crate) mod barrier;
pub(crate) mod election;
pub(crate) mod gate;
pub(crate) mod hold;
pub(crate) mod kept;
pub(crate) mod membership;
pub(crate) mod semaphore;
