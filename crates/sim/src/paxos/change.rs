//! A change of the members that the operator makes.

use wombat_proto::ReplicaId;

/// No more machines than so many in a run.
pub(super) const MAX_HOSTS: usize = 12;

/// What a new member comes for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Joins {
    AsVoter,
    ToLearn,
}

/// A change of the members that is under way.
#[derive(Debug)]
pub(super) struct Change {
    /// A voter that is to go.
    pub(super) leaves: Option<ReplicaId>,
    /// One that is to come.
    pub(super) joins: Option<(ReplicaId, Joins)>,
}
