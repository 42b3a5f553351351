//! Breaking a lock that a live session holds (SPEC §4). Its holder is told first, and the lock is taken only
//! when nobody there believes in it any more, or the session has ended: until then nobody else can have it.

use crate::master::Master;
use crate::proposals::Origin;
use crate::{Answer, Asker, Replica};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use core::time::Duration;
use wombat_proto::limits::{BREAKS, REASON_BYTES, REVOCATIONS};
use wombat_proto::wire::{self, log, log::command::Op};
use wombat_proto::{Error, HandleId, Instance, Instant, Result, SessionId, Token};
use wombat_state::Lock;

/// Holders, and whether each has heard that its lock is being broken.
type Holders = BTreeMap<(SessionId, HandleId, Token), bool>;

/// Most of them that the audit names.
const HOLDERS_NAMED: usize = 16;

/// A lock that is being broken.
struct Break {
    asker: Asker,
    acknowledged: u64,
    instance: Instance,
    /// What the audit will say.
    what: String,
    /// Whose grants are to be taken.
    tokens: Vec<Token>,
    /// The holders that may still believe in them, and whether they have heard of it.
    awaited: Holders,
    /// The leases of those grow no longer than until then.
    until: Instant,
}

/// Of one session. A lock may have tens of thousands of holders, and each of them is asked for alone.
fn all_of(session: SessionId) -> RangeInclusive<(SessionId, HandleId, Token)> {
    (session, HandleId(0), Token(0))..=(session, HandleId(u64::MAX), Token(u64::MAX))
}

/// All locks that are being broken.
#[derive(Default)]
pub(crate) struct Breaks(Vec<Break>);

impl Breaks {
    /// Whether somebody breaks this lock.
    pub(crate) fn is_breaking(&self, instance: Instance) -> bool {
        self.0.iter().any(|one| one.instance == instance)
    }

    /// Until when the lease of a session may last that has not obeyed yet.
    pub(crate) fn lease_bound(&self, session: SessionId) -> Option<Instant> {
        let awaits = |one: &&Break| one.awaited.range(all_of(session)).next().is_some();
        self.0.iter().filter(awaits).map(|one| one.until).min()
    }

    /// What a session has to be told.
    pub(crate) fn revocations(&self, session: SessionId) -> Vec<wire::Revocation> {
        let awaited = self.0.iter().flat_map(|one| one.awaited.range(all_of(session)));
        awaited
            .take(REVOCATIONS)
            .map(|((_, handle, token), _)| wire::Revocation { handle: handle.0, token: token.0 })
            .collect()
    }

    /// What a session says of what it was told. Returns whether there is something that it has not heard of.
    pub(crate) fn answered(&mut self, session: SessionId, keep_alive: &wire::KeepAlive) -> bool {
        let obeyed: BTreeSet<u64> = keep_alive.revocations_obeyed.iter().copied().collect();
        let heard: BTreeSet<u64> = keep_alive.revocations_heard.iter().copied().collect();
        for one in &mut self.0 {
            let has_obeyed = |(.., token): &(_, _, Token), _: &mut bool| obeyed.contains(&token.0);
            one.awaited.extract_if(all_of(session), has_obeyed).for_each(drop);
            for ((.., token), has_heard) in one.awaited.range_mut(all_of(session)) {
                *has_heard = heard.contains(&token.0);
            }
        }
        let awaited = self.0.iter().flat_map(|one| one.awaited.range(all_of(session)));
        awaited.take(REVOCATIONS).any(|(_, heard)| !heard)
    }
}

impl Master {
    /// Whether others wait for this session to acknowledge something: until it does, it gets no longer lease.
    pub(crate) fn is_awaited(&self, session: SessionId) -> bool {
        self.fail_over.awaits(session) || self.breaks.lease_bound(session).is_some()
    }
}

impl Replica {
    /// Begins to break a lock: tells its holders.
    pub(crate) fn break_lock(
        &mut self,
        asker: Asker,
        acknowledged: u64,
        call: wire::BreakLock,
    ) -> Result<Option<Answer>> {
        if let Some(result) = self.answered_before(asker) {
            return result.map(Some);
        }
        // A copy that comes when all have obeyed does not ask them anew.
        if self.is_under_way(asker) {
            return Ok(None);
        }
        if call.reason.len() > REASON_BYTES {
            return Err(Error::TooLarge {
                what: alloc::format!("a reason of more than {REASON_BYTES} bytes"),
            });
        }
        let path = self.parse(&call.path)?;
        let node = self.state.tree().find(&path).ok_or_else(|| Error::not_found(&call.path))?;
        let instance = node.instance;
        let holders = node.lock.holders().map(|((session, handle), holder)| (session, handle, holder.token));
        let awaited: Holders = holders
            .filter(|(.., token)| [0, token.0].contains(&call.token))
            .map(|key| (key, false))
            .collect();
        let until = self.moment.now + self.lease();
        let master = self.serving()?;
        let again = |one: &&mut Break| (one.asker.session, one.asker.number) == (asker.session, asker.number);
        if let Some(one) = master.breaks.0.iter_mut().find(again) {
            one.asker = asker; // It comes again, on another connection.
            return Ok(None);
        }
        if awaited.is_empty() {
            return Err(Error::NotHeld);
        }
        if master.breaks.0.len() >= BREAKS {
            return Err(Error::Overloaded { retry_after: Duration::from_secs(1) });
        }
        awaited.keys().for_each(|(session, ..)| master.notify(*session));
        let tokens = awaited.keys().map(|(.., token)| *token).collect();
        let what = self.audit_of(&call, &awaited);
        let one = Break { asker, acknowledged, instance, what, tokens, awaited, until };
        self.serving()?.breaks.0.push(one);
        Ok(None)
    }

    /// What the audit says of a break: whose lock it was, and why.
    fn audit_of(&self, call: &wire::BreakLock, holders: &Holders) -> String {
        let mut what = alloc::format!("broke the lock of {}", call.path);
        for (index, (id, _, token)) in holders.keys().take(HOLDERS_NAMED).enumerate() {
            let client = self.state.session(*id).map_or("", |session| &session.client);
            what += if index == 0 { ", held by " } else { ", and by " };
            what += &alloc::format!("{client} (session {id}, token {token})");
        }
        if holders.len() > HOLDERS_NAMED {
            what += &alloc::format!(", and by {} more", holders.len() - HOLDERS_NAMED);
        }
        if !call.reason.is_empty() {
            what += &alloc::format!(": {}", call.reason);
        }
        what
    }

    /// A session is not asked any more for the locks that it has given back.
    pub(crate) fn forget_given_back(&mut self, session: SessionId) {
        let Some(master) = &mut self.master else { return };
        for one in &mut master.breaks.0 {
            let lock = self.state.tree().get(one.instance).map(|node| &node.lock);
            one.awaited.extract_if(all_of(session), |key, _| !is_held(lock, key)).for_each(drop);
        }
    }

    /// Takes the locks whose holders have obeyed, given them back, or ended. Returns whether there were any.
    pub(crate) fn finish_breaks(&mut self) -> bool {
        let Some(master) = &mut self.master else { return false };
        for one in &mut master.breaks.0 {
            // After every step, and so no further than to the first who still holds it.
            let lock = self.state.tree().get(one.instance).map(|node| &node.lock);
            while let Some(first) = one.awaited.first_entry().filter(|first| !is_held(lock, first.key())) {
                first.remove();
            }
        }
        let ready = master.breaks.0.extract_if(.., |one| one.awaited.is_empty()).collect::<Vec<_>>();
        let any = !ready.is_empty();
        for Break { asker, acknowledged, instance, what, tokens, .. } in ready {
            let tokens = tokens.into_iter().map(|token| token.0).collect();
            let op = Op::BreakLock(log::BreakLock { instance: instance.0, tokens, what });
            if let Err(error) = self.propose(Origin::Plain(asker), acknowledged, op) {
                self.reply(asker, Err(error));
            }
        }
        any
    }
}

/// Whether somebody still has the lock by that very grant.
fn is_held(lock: Option<&Lock>, (session, handle, token): &(SessionId, HandleId, Token)) -> bool {
    let holder = lock.and_then(|lock| lock.holder(*session, *handle));
    holder.is_some_and(|holder| holder.token == *token)
}
