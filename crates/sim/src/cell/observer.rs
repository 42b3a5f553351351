//! An observer, such as `wombat status`, that is cut off from some replicas: it concludes from the reports of others.

use super::event::Event;
use super::oracle::view::View;
use super::world::World;
use std::time::Duration;
use wombat_proto::ReplicaId;
use wombat_proto::wire::{self, Request, Status, request::Call, response::Result as Answer};
use wombat_replica::{ConnectionId, Input};

impl World {
    /// The observer asks those replicas that it reaches now.
    pub(super) fn observe(&mut self) {
        let pause = self.random.duration(Duration::from_millis(1), self.swarm.stale_reads);
        self.after(pause, Event::Observe);
        let (now, share) = (self.now(), 1 + self.random.below(1000));
        let awake = self.machines.values().filter(|one| one.running.is_some() && one.stopped_until <= now);
        let awake: Vec<ReplicaId> = awake.map(|machine| machine.id).collect();
        let mut reports = Vec::new();
        for id in awake {
            if self.random.chance(share) {
                reports.extend(self.report_of(id));
            }
        }
        let World { schedule, machines, clients, oracle, swarm, tally, .. } = self;
        let view = View { now: schedule.now(), machines, clients };
        oracle.check_reports(&view, &reports, swarm.terms.max_master_lease(), tally);
    }

    /// What a replica reports, unless it dies meanwhile.
    fn report_of(&mut self, id: ReplicaId) -> Option<Status> {
        let connection = ConnectionId(u64::MAX - self.schedule.number());
        let hello = wire::Hello { version: wire::VERSION, ..wire::Hello::default() };
        let mut report = None;
        for (number, call) in [(1, Call::Hello(hello)), (2, Call::GetStatus(wire::GetStatus {}))] {
            let request = Request { number, call: Some(call), ..Request::default() };
            report = self.ask(id, connection, Input::Request { connection, request });
        }
        self.ask(id, connection, Input::Disconnected { connection });
        match report {
            Some((_, Answer::Status(status))) => Some(status),
            Some((_, other)) => panic!("{id} answers GetStatus with {other:?}"),
            None => None,
        }
    }
}
