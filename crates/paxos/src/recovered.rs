//! What a replica's disk knew when it started.

use crate::configurations::Configurations;
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::{Accepted, Ballot, Slot};

/// What a replica's disk knew when it started.
#[derive(Clone, Default, Debug)]
pub struct Recovered {
    /// How often this replica has started, this time included.
    pub starts: u32,
    /// Whether the disk is a copy: what this replica has said since the copy was made is not on it.
    pub is_copy: bool,
    /// The highest ballot that it promised to take part in.
    pub promised: Ballot,
    /// The longest master lease that it may have granted; zero: none.
    pub lease_bound: Duration,
    /// Every slot up to here is chosen, as it is in `accepted`.
    pub chosen: Slot,
    /// The slot of its snapshot; every slot up to here is chosen and applied.
    pub snapshot: Slot,
    /// Who governs the slots after the snapshot; the founding members if there is none.
    pub configurations: Configurations,
    /// What it accepted above that, in slot order.
    pub accepted: Vec<Accepted>,
}
