//! What an observer concludes from the reports of the replicas that it reaches.

use super::Oracle;
use super::view::View;
use crate::cell::machine::address;
use crate::cell::tally::Tally;
use std::time::Duration;
use wombat_proto::KnownMaster;
use wombat_proto::wire::Status;

impl Oracle {
    /// A quorum of reports does not deny a master that serves. A replica that has restarted since it granted its lease
    /// does not know any more to which master.
    pub(in crate::cell) fn check_reports(
        &self,
        view: &View<'_>,
        reports: &[Status],
        longest_lease: Duration,
        tally: &mut Tally,
    ) {
        let voters = view.machines.len();
        let is_quorum = reports.len() > voters / 2;
        let master = view.machines.values().find(|machine| machine.serves(view.now));
        let known = KnownMaster::of(reports.iter());
        tally.count(match &known {
            KnownMaster::Reached(_) => "observers that reached a master",
            KnownMaster::Named { .. } => "observers that others named a master",
            KnownMaster::Unknown if is_quorum => "observers that found no master",
            KnownMaster::Unknown => "observers that know too little",
        });
        let Some(master) = master.filter(|_| is_quorum) else { return };
        let restarted = reports.iter().any(|report| {
            let machine = view.machines.values().find(|machine| machine.id.0 == report.replica);
            machine.is_none_or(|machine| machine.started + longest_lease > view.now)
        });
        let denied = matches!(known, KnownMaster::Unknown) && !restarted;
        assert!(!denied, "a quorum reports that there is no master, and {} serves: {reports:?}", master.id);
    }

    /// When all is healed, the report of each replica names the master, whatever others an observer reaches.
    pub(in crate::cell) fn check_last_reports(&self, view: &View<'_>) {
        let Some(master) = view.machines.values().find(|machine| machine.serves(view.now)) else { return };
        for machine in view.machines.values() {
            let Some(running) = &machine.running else { continue };
            let report = running.replica.report();
            let named = match KnownMaster::of([&report].into_iter()) {
                KnownMaster::Reached(own) => address(wombat_proto::ReplicaId(own.replica)),
                KnownMaster::Named { address, .. } => address.to_owned(),
                KnownMaster::Unknown => "no master".to_owned(),
            };
            assert_eq!(named, address(master.id), "the report of replica {}", machine.id);
        }
    }
}
