//! What every replica answers, master or not: Hello, and which replica is master (P§2.2).

use crate::context::{Cx, View};
use crate::request::{Answer, Reply, RequestContext};
use crate::tables::pending_hellos::PendingHellos;
use alloc::string::{String, ToString};
use core::time::Duration;
use wombat_proto::wire;
use wombat_proto::{CellName, Epoch, Error, Result};

/// Accepts a connection, if its client speaks this version of the protocol and looks for this cell.
pub(crate) fn hello(
    cx: &mut Cx<'_>,
    hellos: &mut PendingHellos,
    epoch: Option<Epoch>,
    request: RequestContext,
    hello: &wire::Hello,
) -> Result<Reply> {
    let refusal = if hello.version != wire::VERSION {
        Some(alloc::format!(
            "this server speaks version {} of the protocol, not {}",
            wire::VERSION,
            hello.version
        ))
    } else if !hello.cell.is_empty() && hello.cell != cx.config.cell.as_str() {
        Some(alloc::format!("this is the cell {}, not {:?}", cx.config.cell, shorten(&hello.cell)))
    } else {
        None
    };
    if let Some(refusal) = refusal {
        cx.hang_up(request.connection);
        return Err(Error::invalid(refusal));
    }
    cx.connections.greet(request.connection);
    let wait = Duration::from_millis(hello.wait_ms.into());
    if !knows_master(cx.view()) && hellos.push(request, wait, cx.now()) {
        return Ok(Reply::Later);
    }
    Ok(Reply::Now(Answer::Welcome(welcome(cx.view(), epoch))))
}

/// Which replica this is, and which is master. `epoch`: that of this replica, if it is master.
fn welcome(view: View<'_>, epoch: Option<Epoch>) -> wire::Welcome {
    let config = view.config;
    wire::Welcome {
        cell: config.cell.to_string(),
        replica: config.replica.0,
        epoch: epoch.map_or(0, |epoch| epoch.0),
        master: view.master_address(),
        server: config.version.clone(),
        relayed_by: 0,
    }
}

fn knows_master(view: View<'_>) -> bool {
    view.is_master || !view.master_address().is_empty()
}

/// Answers the waiting Hellos, once a master is known or they have waited for long enough.
pub(crate) fn answer_hellos(cx: &mut Cx<'_>, hellos: &mut PendingHellos, epoch: Option<Epoch>) {
    let Some(due) = hellos.next_due() else { return };
    let now = cx.now();
    let known = knows_master(cx.view());
    if !known && due > now {
        return;
    }
    while let Some(request) = hellos.pop(now, known) {
        let welcome = Answer::Welcome(welcome(cx.view(), epoch));
        cx.respond(request.connection, request, Ok(welcome), None);
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(2 * CellName::LOCAL.len().max(32)).collect()
}
