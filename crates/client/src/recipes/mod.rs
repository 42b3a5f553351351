//! What people do with locks and small files, done once with its hard cases.

pub(crate) mod election;
