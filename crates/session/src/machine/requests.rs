//! The calls of the application: sent, sent again, and answered.

use super::Session;
use crate::api::{Answer, Effects};
use crate::calls::Kind;
use wombat_proto::wire::{self, Request, request::Call};
use wombat_proto::{Error, Result};

impl Session {
    /// A call was answered.
    pub(super) fn answered(
        &mut self,
        number: u64,
        result: Result<Answer>,
        cachable: Option<&wire::Cachable>,
        effects: &mut Effects,
    ) {
        let Some(pending) = self.calls.get_mut(number).filter(|pending| pending.sent) else { return };
        match result {
            Err(Error::StaleEpoch { current }) if current >= self.epoch => {
                self.note_epoch(current, effects);
                return self.send_all(effects);
            }
            Err(Error::NotMaster { hint }) => return self.leave(hint, effects),
            Err(Error::StaleEpoch { .. }) => return self.leave(None, effects),
            Err(Error::Overloaded { retry_after }) => {
                pending.not_before = Some(self.now + retry_after + self.search.jitter(retry_after));
                return;
            }
            Err(Error::SessionExpired | Error::SessionUnknown) if pending.kind != Kind::Sessionless => {
                return self.expire(effects);
            }
            _ => {}
        }
        let Some((pending, released)) = self.calls.answered(number) else { return };
        if let Some(up) = &mut self.up {
            up.answered();
            self.search.endpoints.served(self.now, &up.endpoint);
        }
        self.cache.answered(number, (&pending.call, &result), cachable, self.epoch, &mut effects.cache);
        // Whatever has become of it, an Acquire that was taken back is over: sent again to a new master, which
        // knows nothing of that, it would take a lock for nobody.
        for acquire in self.calls.end_acquires(&pending.call) {
            effects.done.push((acquire, Err(Error::Cancelled)));
        }
        if let Ok(Answer::Opened(opened)) = &result {
            self.handles.opened(opened);
        }
        let ended = matches!(pending.call, Call::EndSession(_)) && result.is_ok();
        effects.done.push((number, result));
        if ended {
            return self.expire(effects);
        }
        for next in released {
            self.send(next, effects);
        }
    }

    /// Sends a call, if there is a connection that speaks for a session that is safe; else it waits.
    pub(super) fn send(&mut self, number: u64, effects: &mut Effects) {
        let Some(kind) = self.calls.get_mut(number).map(|pending| pending.kind) else { return };
        if kind == Kind::Acquire && self.calls.is_taken_back(number) {
            return;
        }
        let up = self.up.is_some() && self.closing_idle.is_none();
        if !self.calls.admit(number, kind) || !up || !self.lease.is_safe() {
            return;
        }
        let Some(pending) = self.calls.get_mut(number) else { return };
        let again = core::mem::replace(&mut pending.sent, true);
        self.cache.sends(number, &pending.call, &mut effects.cache);
        let mut call = pending.call.clone();
        // At a new master it keeps its turn, and its time runs on.
        if let Call::Acquire(acquire) = &mut call
            && again
        {
            acquire.waited_ms = self.now.since(pending.since).as_millis() as u64;
        }
        self.transmit(number, call, kind, effects);
        self.up.iter_mut().for_each(|up| up.sent(self.now));
    }

    pub(super) fn send_all(&mut self, effects: &mut Effects) {
        for number in self.calls.to_send_again() {
            self.send(number, effects);
        }
    }

    /// Hands a request out, on the session's link.
    pub(super) fn transmit(&self, number: u64, call: Call, kind: Kind, effects: &mut Effects) {
        let Some(up) = &self.up else { return };
        let session = match kind {
            Kind::Sessionless => 0,
            _ => self.identity.map_or(0, |identity| identity.id.0),
        };
        let acknowledged = match kind {
            Kind::Change => self.calls.acknowledged(),
            _ => 0,
        };
        let request = Request { session, number, epoch: self.epoch.0, acknowledged, call: Some(call) };
        effects.send.push((up.link, request));
    }
}
