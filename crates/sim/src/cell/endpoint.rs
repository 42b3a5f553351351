//! What the endpoints of clients lead to.

use super::machine::address;
use wombat_proto::ReplicaId;

/// What an endpoint leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Endpoint {
    Replica(ReplicaId),
    /// Nothing: packets are dropped.
    Dropped,
    /// Something that takes the connection and never answers.
    Mute,
    /// Nothing that listens.
    Refusing,
    /// A replica of another cell.
    Foreign,
    /// A replica that takes long to answer, and knows no master.
    Slow,
}

impl Endpoint {
    pub(super) const BAD: [Endpoint; 5] =
        [Endpoint::Dropped, Endpoint::Mute, Endpoint::Refusing, Endpoint::Foreign, Endpoint::Slow];

    /// Its address. Several that lead nowhere have different numbers.
    pub(super) fn address(self, number: usize) -> String {
        match self {
            Endpoint::Replica(id) => address(id),
            bad => format!("{}-{number}", format!("{bad:?}").to_lowercase()),
        }
    }

    /// What is at an address of a cell of so many replicas.
    pub(super) fn of(at: &str, replicas: usize) -> Endpoint {
        let replica = (1..=replicas as u32).map(ReplicaId).find(|id| address(*id) == at);
        let bad = || Endpoint::BAD.into_iter().find(|bad| at.starts_with(&format!("{bad:?}").to_lowercase()));
        replica.map(Endpoint::Replica).or_else(bad).expect("an endpoint of the run")
    }
}

/// The client's end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Line {
    /// To a replica.
    Connection(u64),
    /// To something else.
    Other(Endpoint),
}
