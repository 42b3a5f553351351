//! Newtypes for every number that means something. None converts into another by accident.

use crate::limits::MAX_ROUND;
use core::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

id! {
    /// A position in the replicated log, from 1. Slot 0 stands for "before everything". Clients see slots as
    /// stamps: moved ahead by as much as keeps them growing over restores, see [`Epoch::first_stamp`].
    Slot(u64)
}
id! {
    /// A replica of the cell; never reused for another machine or disk.
    ReplicaId(u32)
}
id! {
    /// The round of the ballot under which a master serves (P§2.9 step 1). Never below the wall clock of the
    /// master when it was elected, in milliseconds since 1970, so that a restored cell repeats none. 0: not known.
    Epoch(u64)
}
id! {
    /// A session (P§2.8): the stamp of its creation. 0: no session.
    SessionId(u64)
}
id! {
    /// A node's instance number (P§2.3): the stamp of its creation, so it is greater than that of any
    /// earlier node of that name.
    Instance(u64)
}
id! {
    /// A handle within its session: the request number of the Open that made it.
    HandleId(u64)
}
id! {
    /// A content, lock or ACL generation (P§2.3). Starts at 1 for contents and ACLs, 0 for a lock never held.
    Generation(u64)
}
id! {
    /// A fencing token: the stamp of a lock's grant. Of two grants of one name the later has the greater token.
    Token(u64)
}

impl Slot {
    /// The slot that follows this one.
    #[must_use]
    pub const fn next(self) -> Slot {
        Slot(self.0 + 1)
    }
}

impl Epoch {
    /// No epoch: what a client says before it has met a master.
    pub const NONE: Epoch = Epoch(0);

    /// The least stamp that anything made in this epoch gets. A cell that chooses fewer than 2,048 entries a
    /// millisecond, on average over an epoch, never reaches the first stamp of a later epoch: so stamps of a
    /// later epoch are greater, also if the log in between was lost by a restore. Until the year 2109 stamps stay
    /// below 2^53, which every JSON reader represents exactly.
    pub const fn first_stamp(self) -> Slot {
        let round = if self.0 < MAX_ROUND { self.0 } else { MAX_ROUND };
        Slot(round << 11)
    }
}

impl Generation {
    /// The generation after this one.
    #[must_use]
    pub const fn next(self) -> Generation {
        Generation(self.0 + 1)
    }
}

/// A Paxos ballot. Ordered by round, then replica, then the replica's own restart count, so that no two
/// proposers ever share one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Ballot {
    /// Rises with each attempt to become master; the epoch of the master that it makes.
    pub round: u64,
    /// Who campaigns.
    pub replica: ReplicaId,
    /// How often that replica had started when it campaigned.
    pub incarnation: u32,
}

impl Ballot {
    /// Lower than every real ballot.
    pub const ZERO: Ballot = Ballot { round: 0, replica: ReplicaId(0), incarnation: 0 };

    /// The epoch of the master that this ballot makes.
    pub const fn epoch(self) -> Epoch {
        Epoch(self.round)
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.round, self.replica, self.incarnation)
    }
}
