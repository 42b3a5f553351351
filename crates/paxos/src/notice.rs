//! What an operator should know of the agreement.

use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;
use wombat_proto::ReplicaId;

/// What an operator should know, in words for a log.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Notice {
    /// This replica was master and has stepped down because none of its proposals was chosen.
    MadeWay {
        /// The replica that it has asked to take over, if one could.
        heir: Option<ReplicaId>,
        /// For how long nothing was chosen.
        stalled_for: Duration,
    },
    /// A proposal of this master has not been chosen for long.
    NothingChosen {
        /// For how long.
        oldest: Duration,
        /// The voters that do not even have it; the others wait for their disks.
        unreached: Vec<ReplicaId>,
    },
    /// The round trip to a quorum is too long for the master lease, so this master asks for a longer one.
    LeaseLengthened {
        /// The round trip.
        round_trip: Duration,
        /// The lease from now on.
        lease: Duration,
        /// The longest one that it may ask for.
        longest: Duration,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::MadeWay { heir, stalled_for } => {
                write!(
                    f,
                    "this replica steps down as master: none of its proposals was chosen for {} ms, though the \
                     others grant its lease. Look for lost large packets (MTU) on its way to the others, and \
                     at its disk",
                    stalled_for.as_millis()
                )?;
                match heir {
                    Some(heir) => write!(f, "; replica {heir} is asked to take over"),
                    None => Ok(()),
                }
            }
            Notice::NothingChosen { oldest, unreached } => {
                write!(f, "a proposal has not been chosen for {} ms", oldest.as_millis())?;
                if unreached.is_empty() {
                    return f.write_str(": too many replicas wait for their disks");
                }
                let unreached: Vec<_> = unreached.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    ": it does not arrive at replicas {}. Look for lost large packets (MTU) on the way from here",
                    unreached.join(", ")
                )
            }
            Notice::LeaseLengthened { round_trip, lease, longest } => {
                let (round_trip, lease, longest) =
                    (round_trip.as_millis(), lease.as_millis(), longest.as_millis());
                write!(
                    f,
                    "the round trip to a quorum of replicas takes {round_trip} ms, too long for the master \
                     lease: it is {lease} ms from now on. Set --master-lease {lease}ms at all replicas"
                )?;
                match lease < 2 * round_trip {
                    true => write!(
                        f,
                        "; it cannot be longer than --max-master-lease, {longest} ms, which is too short: set \
                         it to three round trips or more"
                    ),
                    false => Ok(()),
                }
            }
        }
    }
}
