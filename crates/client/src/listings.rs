//! Lists for operators, asked for page by page: sessions, locks, what administrators did.

use crate::answer::unexpected;
use crate::shared::Shared;
use wombat_proto::Result;
use wombat_proto::wire::{self, request::Call, response::Result as Answer};

/// A way to ask the master.
pub(crate) trait Ask {
    fn ask_master(&mut self, call: Call) -> impl Future<Output = Result<Answer>> + Send;
}

impl Ask for &Shared {
    async fn ask_master(&mut self, call: Call) -> Result<Answer> {
        self.call(call).await
    }
}

pub(crate) async fn sessions(mut master: impl Ask) -> Result<Vec<wire::SessionInfo>> {
    let mut all: Vec<wire::SessionInfo> = Vec::new();
    loop {
        let after = all.last().map_or(0, |info| info.session);
        let list = Call::ListSessions(wire::ListSessions { after, limit: 0 });
        let Answer::Sessions(page) = master.ask_master(list).await? else { return Err(unexpected()) };
        let more = page.more && !page.sessions.is_empty();
        all.extend(page.sessions);
        if !more {
            return Ok(all);
        }
    }
}

/// Those of a path and of all below it; empty: of the cell.
pub(crate) async fn locks(mut master: impl Ask, path: String) -> Result<Vec<wire::LockInfo>> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let list = wire::ListLocks { path: path.clone(), after, limit: 0 };
        let Answer::Locks(page) = master.ask_master(Call::ListLocks(list)).await? else {
            return Err(unexpected());
        };
        all.extend(page.locks);
        if !page.more || page.last <= after {
            break;
        }
        after = page.last;
    }
    all.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    Ok(all)
}

pub(crate) async fn audit(mut master: impl Ask) -> Result<Vec<wire::AuditEntry>> {
    let mut all: Vec<wire::AuditEntry> = Vec::new();
    loop {
        let after = all.last().map_or(0, |entry| entry.slot);
        let list = Call::ListAudit(wire::ListAudit { after, limit: 0 });
        let Answer::Audit(page) = master.ask_master(list).await? else { return Err(unexpected()) };
        let more = page.more && !page.entries.is_empty();
        all.extend(page.entries);
        if !more {
            return Ok(all);
        }
    }
}
