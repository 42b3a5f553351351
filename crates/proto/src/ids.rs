//! Newtypes for every number that means something. None converts into another by accident.

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
    /// A position in the replicated log: `incarnation · 2^48 + n`, n from 1. Slot 0 stands for "before
    /// everything". Slots only grow, also over restores, because a restored cell is a new incarnation.
    Slot(u64)
}
id! {
    /// How often this cell was restored from a backup. The high 16 bits of every slot.
    Incarnation(u16)
}
id! {
    /// A replica of the cell; never reused for another machine or disk.
    ReplicaId(u32)
}
id! {
    /// The round of the ballot under which a master serves (P§2.9 step 1). 0: not known.
    Epoch(u64)
}
id! {
    /// A session (P§2.8): the slot of its creation. 0: no session.
    SessionId(u64)
}
id! {
    /// A node's instance number (P§2.3): the slot of its creation, so it is greater than that of any
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
    /// A fencing token: the slot of a lock's grant. Of two grants of one name the later has the greater token.
    Token(u64)
}

impl Slot {
    /// Slots of one incarnation take the low 48 bits.
    pub const INCARNATION_SHIFT: u32 = 48;

    /// The slot before the first one of `incarnation`.
    pub const fn start_of(incarnation: Incarnation) -> Slot {
        Slot((incarnation.0 as u64) << Self::INCARNATION_SHIFT)
    }

    /// The incarnation that this slot belongs to.
    pub const fn incarnation(self) -> Incarnation {
        Incarnation((self.0 >> Self::INCARNATION_SHIFT) as u16)
    }

    /// The slot that follows this one.
    #[must_use]
    pub const fn next(self) -> Slot {
        Slot(self.0 + 1)
    }
}

impl Epoch {
    /// No epoch: what a client says before it has met a master.
    pub const NONE: Epoch = Epoch(0);
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
