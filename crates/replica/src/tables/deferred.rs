//! Requests that a master must not answer while its lease has lapsed or its fail-over goes on. They wait here, so
//! that their clients need not repeat them.

use crate::request::ConnectionId;
use alloc::collections::VecDeque;
use core::time::Duration;
use prost::Message;
use wombat_proto::limits::HELD_BYTES;
use wombat_proto::wire::{Request, request::Call};
use wombat_proto::{Error, Result};

/// Memory of a deferred request besides its bytes.
const DEFERRED_OVERHEAD: usize = 256;

/// Most requests that are released in one step: each may be answered with the contents of a file.
const MAX_RELEASED_AT_ONCE: usize = 256;

/// What a request waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Gate {
    /// The master's lease.
    Lease,
    /// The end of the fail-over (SPEC I10).
    FailOver,
}

/// The deferred requests, in the order in which they came.
#[derive(Default)]
pub(crate) struct Deferred {
    for_lease: VecDeque<(ConnectionId, Request)>,
    for_fail_over: VecDeque<(ConnectionId, Request)>,
    bytes: usize,
    /// Some that need not wait any more are left for the next tick. Until then others queue behind them.
    backlogged: bool,
}

impl Deferred {
    /// Time has passed: more may be released.
    pub(crate) fn tick(&mut self) {
        self.backlogged = false;
    }

    /// Whether released requests are left for the next tick.
    pub(crate) fn is_backlogged(&self) -> bool {
        self.backlogged
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.for_lease.is_empty() && self.for_fail_over.is_empty()
    }

    /// Defers a request, if there is room.
    pub(crate) fn push(&mut self, gate: Gate, connection: ConnectionId, request: Request) -> Result<()> {
        let bytes = weight(&request);
        if self.bytes + bytes > HELD_BYTES {
            return Err(Error::Overloaded { retry_after: Duration::from_millis(200) });
        }
        self.bytes += bytes;
        match gate {
            Gate::Lease => self.for_lease.push_back((connection, request)),
            Gate::FailOver => self.for_fail_over.push_back((connection, request)),
        }
        Ok(())
    }

    /// Takes what need not wait any more, while the lease holds: so many that a step stays short. The rest is left
    /// for the next tick.
    pub(crate) fn release(&mut self, fail_over_is_over: bool) -> VecDeque<(ConnectionId, Request)> {
        let mut released = VecDeque::new();
        if self.backlogged {
            return released;
        }
        // Requests that wait for the fail-over have waited for longer: the others are released whenever the lease holds.
        let queues = [fail_over_is_over.then_some(&mut self.for_fail_over), Some(&mut self.for_lease)];
        for queue in queues.into_iter().flatten() {
            let count = queue.len().min(MAX_RELEASED_AT_ONCE - released.len());
            released.extend(queue.drain(..count));
            self.backlogged |= !queue.is_empty();
        }
        self.bytes -= released.iter().map(|(_, request)| weight(request)).sum::<usize>();
        released
    }
}

/// Roughly the memory of a request. The parts of a Multi take much more than their bytes.
fn weight(request: &Request) -> usize {
    let parts = match &request.call {
        Some(Call::Multi(multi)) => multi.steps_size(),
        _ => 0,
    };
    request.encoded_len() + DEFERRED_OVERHEAD + parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use wombat_proto::wire::SetContents;

    fn request(number: u64, bytes: usize) -> Request {
        let set = SetContents { contents: vec![0; bytes].into(), ..SetContents::default() };
        Request { number, call: Some(Call::SetContents(set)), ..Request::default() }
    }

    fn numbers(released: VecDeque<(ConnectionId, Request)>) -> Vec<u64> {
        released.iter().map(|(_, request)| request.number).collect()
    }

    #[test]
    fn requests_are_released_in_order_when_their_gate_opens() {
        let mut deferred = Deferred::default();
        for (number, gate) in [(1, Gate::Lease), (2, Gate::FailOver), (3, Gate::Lease)] {
            assert_eq!(deferred.push(gate, ConnectionId(1), request(number, 0)), Ok(()));
        }
        assert_eq!(numbers(deferred.release(false)), [1, 3]);
        assert_eq!(numbers(deferred.release(true)), [2]);
        assert!(deferred.is_empty() && deferred.bytes == 0);
    }

    #[test]
    fn many_requests_are_released_over_several_ticks() {
        let mut deferred = Deferred::default();
        for number in 0..600 {
            let gate = if number < 100 { Gate::FailOver } else { Gate::Lease };
            assert_eq!(deferred.push(gate, ConnectionId(1), request(number, 0)), Ok(()));
        }
        let mut released = numbers(deferred.release(true));
        assert_eq!(released.len(), MAX_RELEASED_AT_ONCE);
        assert!(
            deferred.is_backlogged() && deferred.release(true).is_empty(),
            "the rest waits for the next tick"
        );
        while deferred.is_backlogged() {
            deferred.tick();
            released.extend(numbers(deferred.release(true)));
        }
        assert_eq!(released, (0..600).collect::<Vec<_>>());
        assert!(deferred.is_empty() && deferred.bytes == 0);
    }

    #[test]
    fn too_many_bytes_are_refused_until_some_are_released() {
        let mut deferred = Deferred::default();
        let half = || request(1, HELD_BYTES / 2);
        assert_eq!(deferred.push(Gate::Lease, ConnectionId(1), half()), Ok(()));
        assert!(deferred.push(Gate::Lease, ConnectionId(1), half()).is_err());
        deferred.release(false);
        assert_eq!(deferred.push(Gate::Lease, ConnectionId(1), half()), Ok(()));
    }
}
