//! The KeepAlive: what it says, and what its answer brings.

use super::Session;
use crate::api::{Answer, Effects, NodeEvent, SessionEvent};
use crate::calls::Kind;
use crate::liveness::allowance;
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::limits::keep_alive_hold;
use wombat_proto::wire::{self, event, request::Call};
use wombat_proto::{Epoch, Error, HandleId, Instant, Result, Slot};

impl Session {
    /// Sends a KeepAlive, which takes the place of one that is pending.
    pub(super) fn send_keep_alive(&mut self, effects: &mut Effects) {
        let number = self.calls.number();
        self.keep_alive = Some((number, self.now));
        let reads_cache = self.cache.ask();
        if reads_cache {
            self.idle_since = None;
        }
        let idle = self.is_idle() && !core::mem::take(&mut self.called) && !reads_cache;
        let keep_alive = wire::KeepAlive {
            events_acknowledged: self.last_event,
            idle,
            revocations_heard: self.revocations.heard(),
            revocations_obeyed: self.revocations.obeyed(),
            invalidations_acknowledged: self.cache.acknowledged(),
            reads_cache,
            ..wire::KeepAlive::default()
        };
        self.transmit(number, Call::KeepAlive(keep_alive), Kind::Read, effects);
    }

    /// The pending KeepAlive was answered.
    pub(super) fn kept_alive(&mut self, result: Result<Answer>, effects: &mut Effects) {
        let Some((_, sent)) = self.keep_alive.take() else { return };
        match result {
            Ok(Answer::KeptAlive(kept)) => {
                // Not before an answer: a connection that breaks as soon as it is made is not tried in a storm.
                if let Some(up) = &mut self.up {
                    up.answered();
                    self.search.endpoints.served(self.now, &up.endpoint);
                }
                self.note_epoch(Epoch(kept.epoch), effects);
                let held = Duration::from_micros(kept.held_us);
                if Epoch(kept.epoch) == self.epoch {
                    // First what must be dropped, then for how long the rest may be used.
                    let (first, all) = (kept.first_invalidation, &kept.invalidations);
                    self.cache.invalidate(first, all, &mut effects.cache);
                    let lease = Duration::from_millis(kept.cache_lease_ms.min(kept.lease_ms).into());
                    self.cache.extend(lease, self.lease.end_of(sent, held, lease));
                }
                self.extend(sent, held, kept.lease_ms, effects);
                self.take_events(kept.first_event, kept.events, effects);
                effects.revoked.extend(self.revocations.told(
                    self.now,
                    self.lease.granted(),
                    &kept.revocations,
                ));
                self.send_keep_alive(effects);
                if self.lease.is_safe() && effects.session_events.contains(&SessionEvent::Safe) {
                    self.send_all(effects);
                }
            }
            Err(Error::StaleEpoch { current }) if current >= self.epoch => {
                self.note_epoch(current, effects);
                self.send_keep_alive(effects);
                self.send_all(effects);
            }
            // It has ended, as it was asked to.
            Err(Error::SessionExpired) if self.closing_idle.is_some() => {
                self.end_idle(effects);
            }
            Err(Error::SessionExpired | Error::SessionUnknown) => self.expire(effects),
            Err(Error::NotMaster { hint }) => self.leave(hint, effects),
            _ => self.leave(None, effects),
        }
    }

    /// Passes on the events that are new: those that were not acknowledged come again.
    fn take_events(&mut self, first: u64, events: Vec<wire::Event>, effects: &mut Effects) {
        for (offset, event) in (0..).zip(events) {
            let number = first.saturating_add(offset);
            if number <= self.last_event {
                continue;
            }
            self.last_event = number;
            let kind = event.kind();
            if kind == event::Kind::FailedOver {
                continue; // The epoch has said so already.
            }
            let child = (!event.child.is_empty()).then_some(event.child);
            let (handle, slot) = (HandleId(event.handle), Slot(event.slot));
            effects.node_events.push(NodeEvent { handle, kind, child, slot });
        }
    }

    /// The master has granted a lease when it answered a request that was sent at `sent` and held for `held`.
    pub(super) fn extend(&mut self, sent: Instant, held: Duration, lease_ms: u32, effects: &mut Effects) {
        let lease = Duration::from_millis(lease_ms.into());
        if self.lease.extend(self.now, sent, held, lease) {
            effects.session_events.push(SessionEvent::Safe);
        }
    }

    /// When the pending KeepAlive is late.
    pub(super) fn keep_alive_late_at(&self) -> Option<Instant> {
        let (_, sent) = self.keep_alive?;
        let lease = self.lease.granted();
        Some(sent + keep_alive_hold(lease) + allowance(lease))
    }
}
