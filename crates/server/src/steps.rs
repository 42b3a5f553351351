//! How long the steps of the replica take. One thread takes them all, so a long one delays every client, and one
//! that is longer than the master lease costs a fail-over.

use nix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};
use wombat_proto::wire::request::Call;
use wombat_replica::Input;

/// A step that takes longer counts as slow. Steps are meant to take a few milliseconds, whatever the cell holds.
const SLOW: Duration = Duration::from_millis(20);

/// How long a reading of the processor's clock is good for: it costs more than the wall clock does.
const READING: Duration = Duration::from_millis(1);

/// How long the steps since the server started took. What counts is the processor time of the thread, up to 1 ms more
/// than it was, so that a step does not seem slow on a machine that is busy with something else.
pub(crate) struct StepTimes {
    /// A reading of both clocks, not later than the beginning of the present step.
    read_at: Instant,
    processor: Duration,
    longest: Duration,
    longest_name: &'static str,
    slow: u64,
}

impl StepTimes {
    pub(crate) fn new() -> StepTimes {
        let (read_at, processor) = (Instant::now(), processor_time());
        StepTimes { read_at, processor, longest: Duration::ZERO, longest_name: "", slow: 0 }
    }

    /// A step begins now. Returns that instant.
    pub(crate) fn begin(&mut self) -> Instant {
        let now = Instant::now();
        if now.duration_since(self.read_at) > READING {
            (self.read_at, self.processor) = (now, processor_time());
        }
        now
    }

    /// The step that began then has ended. Returns how long it took, if it was slow.
    pub(crate) fn end(&mut self, name: &'static str, began: Instant) -> Option<Duration> {
        let mut took = began.elapsed();
        if took > self.longest || took > SLOW {
            took = took.min(processor_time().saturating_sub(self.processor));
        }
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

/// How long this thread has run on a processor.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
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
        Input::Tick | Input::PartialTick { .. } => "timers",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_counts_by_its_processor_time() {
        let mut times = StepTimes::new();
        let began = times.begin();
        // The thread waits: other threads have the processor.
        std::thread::sleep(2 * SLOW);
        assert_eq!(times.end("waits", began), None);
        let began = times.begin();
        while processor_time().saturating_sub(times.processor) <= SLOW {}
        assert!(times.end("works", began).is_some());
        assert_eq!((times.longest().1, times.slow()), ("works", 1));
    }
}
