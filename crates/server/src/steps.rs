//! How long the steps of the replica take. One thread takes them all, so a long one delays every client, and one
//! that is longer than the master lease costs a fail-over.

use std::time::{Duration, Instant};
use wombat_proto::wire::request::Call;
use wombat_replica::Input;

/// A step that takes longer counts as slow. Steps are meant to take a few milliseconds, whatever the cell holds.
const SLOW: Duration = Duration::from_millis(20);

/// What the steps since the server started took, in time that passed: on a machine that is busy with other things a
/// step takes longer than its work does.
#[derive(Default)]
pub(crate) struct StepTimes {
    longest: Duration,
    longest_name: &'static str,
    slow: u64,
}

impl StepTimes {
    /// Notes a step that began at `began`. Returns how long it took, if it was slow.
    pub(crate) fn note(&mut self, name: &'static str, began: Instant) -> Option<Duration> {
        let took = began.elapsed();
        if took > self.longest {
            (self.longest, self.longest_name) = (took, name);
        }
        let is_slow = took > SLOW;
        self.slow += u64::from(is_slow);
        is_slow.then_some(took)
    }

    /// The longest step in microseconds, and what it was.
    pub(crate) fn longest(&self) -> (u64, &'static str) {
        (u64::try_from(self.longest.as_micros()).unwrap_or(u64::MAX), self.longest_name)
    }

    /// How many steps were slow.
    pub(crate) fn slow(&self) -> u64 {
        self.slow
    }
}

/// What an input is, for operators: the name of the request, or of what happened.
pub(crate) fn name(input: &Input) -> &'static str {
    match input {
        Input::Request { request, .. } => request.call.as_ref().map_or("empty request", call),
        Input::Disconnected { .. } => "client disconnected",
        Input::Persisted { .. } => "log written",
        Input::Peer { .. } => "message of another replica",
        Input::PeerLost { .. } => "replica disconnected",
        Input::Snapshotted { .. } => "snapshot written",
        Input::SnapshotArrived(_) => "snapshot received",
        Input::SnapshotFailed => "snapshot failed",
        Input::Transfer { .. } => "transfer of mastership",
        Input::RolledBack => "vote lost",
        Input::Tick | Input::Pulse { .. } => "timers",
    }
}

fn call(call: &Call) -> &'static str {
    match call {
        Call::Hello(_) => "Hello",
        Call::CreateSession(_) => "CreateSession",
        Call::ResumeSession(_) => "ResumeSession",
        Call::EndSession(_) => "EndSession",
        Call::KeepAlive(_) => "KeepAlive",
        Call::Open(_) => "Open",
        Call::Close(_) => "Close",
        Call::GetContents(_) => "GetContents",
        Call::GetStat(_) => "GetStat",
        Call::ReadDir(_) => "ReadDir",
        Call::SetContents(_) => "SetContents",
        Call::Delete(_) => "Delete",
        Call::Acquire(_) => "Acquire",
        Call::CancelAcquire(_) => "CancelAcquire",
        Call::Release(_) => "Release",
        Call::GetSequencer(_) => "GetSequencer",
        Call::SetSequencer(_) => "SetSequencer",
        Call::CheckSequencer(_) => "CheckSequencer",
        Call::BreakLock(_) => "BreakLock",
        Call::Multi(_) => "Multi",
        Call::GetStatus(_) => "GetStatus",
        Call::ListSessions(_) => "ListSessions",
        Call::ListLocks(_) => "ListLocks",
        Call::ListAudit(_) => "ListAudit",
        Call::ReadStale(_) => "ReadStale",
        Call::ReadPath(_) => "ReadPath",
        Call::Join(_) => "Join",
        Call::Transfer(_) => "Transfer",
    }
}
