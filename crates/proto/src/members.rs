//! Who the replicas of a cell are.

use crate::limits::{ADDRESS_BYTES, CELL_REPLICAS};
use crate::wire::log;
use crate::{Error, ReplicaId, Result};
use alloc::string::String;
use alloc::vec::Vec;

/// A replica of a cell.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Member {
    /// Its id; never given to another disk.
    pub id: ReplicaId,
    /// Where it listens, `host:port`.
    pub address: String,
}

/// The replicas of a cell.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub struct Members {
    /// Those whose quorum decides, by id.
    pub voters: Vec<Member>,
    /// Those that only learn what was decided, by id.
    pub learners: Vec<Member>,
    /// The id that the next new member gets; greater than any ever given.
    pub next_id: u32,
}

impl Members {
    /// The members of a new cell: one voter for each address, with ids from 1.
    pub fn founding(addresses: impl IntoIterator<Item = String>) -> Members {
        let voters: Vec<Member> =
            (1..).zip(addresses).map(|(id, address)| Member { id: ReplicaId(id), address }).collect();
        let next_id = voters.len() as u32 + 1;
        Members { voters, learners: Vec::new(), next_id }
    }

    /// All of them, voters first.
    pub fn all(&self) -> impl Iterator<Item = &Member> {
        self.voters.iter().chain(&self.learners)
    }

    /// Whether a replica votes.
    pub fn is_voter(&self, id: ReplicaId) -> bool {
        self.voters.iter().any(|member| member.id == id)
    }

    /// A member by its id.
    pub fn get(&self, id: ReplicaId) -> Option<&Member> {
        self.all().find(|member| member.id == id)
    }

    /// How many voters make a quorum: more than half.
    pub fn quorum(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// Whether `ids` holds a quorum.
    pub fn is_quorum(&self, holds: impl Fn(ReplicaId) -> bool) -> bool {
        self.voters.iter().filter(|member| holds(member.id)).count() >= self.quorum()
    }

    /// Refuses members that no cell can have.
    ///
    /// Errors: [`Error::InvalidArgument`].
    pub fn check(&self) -> Result<()> {
        let all: Vec<&Member> = self.all().collect();
        if self.voters.is_empty() || all.len() > CELL_REPLICAS {
            return Err(Error::invalid(alloc::format!("a cell has 1 to {CELL_REPLICAS} replicas")));
        }
        let sorted = |members: &[Member]| members.is_sorted_by(|a, b| a.id < b.id);
        if !sorted(&self.voters) || !sorted(&self.learners) {
            return Err(Error::invalid("the members of a cell are listed by id"));
        }
        for (place, member) in all.iter().enumerate() {
            if member.id == ReplicaId(0) || member.id.0 >= self.next_id {
                return Err(Error::invalid(alloc::format!("a cell has no member {}", member.id)));
            }
            if member.address.is_empty() || member.address.len() > ADDRESS_BYTES {
                return Err(Error::invalid(alloc::format!("member {} has no usable address", member.id)));
            }
            if all[..place].iter().any(|other| other.id == member.id) {
                return Err(Error::invalid(alloc::format!("member {} is listed twice", member.id)));
            }
        }
        Ok(())
    }
}

impl From<&Members> for log::Members {
    fn from(members: &Members) -> log::Members {
        let list = |members: &[Member]| {
            let one = |member: &Member| log::Member { id: member.id.0, address: member.address.clone() };
            members.iter().map(one).collect()
        };
        log::Members {
            voters: list(&members.voters),
            learners: list(&members.learners),
            next_id: members.next_id,
        }
    }
}

impl TryFrom<log::Members> for Members {
    type Error = Error;

    fn try_from(members: log::Members) -> Result<Members> {
        let list = |members: Vec<log::Member>| {
            members.into_iter().map(|one| Member { id: ReplicaId(one.id), address: one.address }).collect()
        };
        let members = Members {
            voters: list(members.voters),
            learners: list(members.learners),
            next_id: members.next_id,
        };
        members.check()?;
        Ok(members)
    }
}
