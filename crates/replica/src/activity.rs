//! Descriptions of applied changes, for people who watch a cell.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use wombat_proto::wire::log::{self, command::Op};
use wombat_proto::{Instance, SessionId};
use wombat_state::{Applied, Change, Outcome, State};

/// What the command that was applied last did; nothing if it did nothing.
pub(crate) fn describe(state: &State, command: &log::Command, applied: &Applied) -> Vec<String> {
    let path = |instance: Instance| {
        let path = state.tree().get(instance).and_then(|node| state.path_of(node));
        path.map_or_else(|| format!("node {instance}"), |path| path.to_string())
    };
    let session = SessionId(command.session);
    let mut lines = Vec::new();
    match (&command.op, &applied.result) {
        (Some(Op::FoundCell(found)), Ok(_)) => lines.push(format!("cell {} founded", found.cell)),
        (Some(Op::BeginEpoch(_)), Ok(_)) => lines.push(format!("master of epoch {} begins", command.epoch)),
        (Some(Op::CreateSession(create)), Ok(Outcome::Session(id))) => {
            lines.push(format!("session {id} begins: {}", create.client));
        }
        (Some(Op::EndSessions(end)), Ok(_)) => {
            let how = if end.asked { "ends" } else { "expires" };
            lines.extend(end.sessions.iter().map(|id| format!("session {id} {how}")));
        }
        (Some(Op::Release(release)), Ok(_)) => {
            lines.push(format!("{} unlocked by session {session}", path(Instance(release.instance))));
        }
        (Some(Op::Grant(grant)), Ok(Outcome::Granted { token, .. })) if token.0 == state.stamp().0 => {
            let mode = if grant.shared { "shared" } else { "exclusive" };
            let node = path(Instance(grant.instance));
            lines.push(format!("{node} locked {mode} by session {session}, token {token}"));
        }
        _ => {}
    }
    for change in &applied.changes {
        match change {
            Change::ContentsModified { instance } => {
                let stat = state.tree().get(*instance).map(|node| node.stat()).unwrap_or_default();
                let (generation, length) = (stat.content_generation, stat.length);
                lines.push(format!("{} written: generation {generation}, {length} bytes", path(*instance)));
            }
            Change::ChildAdded { parent, name } => lines.push(format!("{}/{name} created", path(*parent))),
            Change::ChildRemoved { parent, name } => lines.push(format!("{}/{name} deleted", path(*parent))),
            Change::LockDelayed { instance, length, .. } => {
                lines.push(format!("{} in lock-delay for {} ms", path(*instance), length.as_millis()));
            }
            _ => {}
        }
    }
    lines
}
