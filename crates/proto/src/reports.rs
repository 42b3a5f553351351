//! What the reports of several replicas say together of the cell's master. An observer may be cut off from some
//! replicas: one that it does not reach proves nothing, so that only reports count.

use crate::wire::Status;
use alloc::vec::Vec;
use core::cmp::Reverse;

/// The cell's master, as far as reports name it.
#[derive(Debug)]
pub enum KnownMaster<'a> {
    /// The report of the master itself.
    Reached(&'a Status),
    /// The master did not report, but these replicas have granted it their leases.
    Named {
        /// Where it is reached.
        address: &'a str,
        /// Its epoch, as far as these replicas have applied the log.
        epoch: u64,
        /// The replicas that name it.
        by: Vec<u32>,
    },
    /// No report names one.
    Unknown,
}

impl<'a> KnownMaster<'a> {
    /// Of two masters the later one counts.
    pub fn of(reports: impl Iterator<Item = &'a Status> + Clone) -> KnownMaster<'a> {
        let own = reports.clone().filter(|report| report.standing == "master");
        let own = own.max_by_key(|report| report.epoch);
        let named = reports.clone().filter(|report| report.standing != "master" && !report.master.is_empty());
        let named = named.max_by_key(|report| (report.epoch, Reverse(report.age_ms)));
        match (own, named) {
            (Some(own), named) if named.is_none_or(|named| named.epoch <= own.epoch) => {
                KnownMaster::Reached(own)
            }
            (_, Some(Status { master: address, epoch, .. })) => {
                let by = reports.filter(|report| report.master == *address && report.epoch == *epoch);
                KnownMaster::Named { address, epoch: *epoch, by: by.map(|report| report.replica).collect() }
            }
            _ => KnownMaster::Unknown,
        }
    }

    /// The epoch of the master; 0: none is known.
    pub fn epoch(&self) -> u64 {
        match self {
            KnownMaster::Reached(status) => status.epoch,
            KnownMaster::Named { epoch, .. } => *epoch,
            KnownMaster::Unknown => 0,
        }
    }
}
