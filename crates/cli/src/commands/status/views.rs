//! What the replicas of a cell say of themselves and of each other.

use crate::exit::{Failure, UNREACHABLE};
use crate::settings::Settings;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::task::JoinSet;
use wombat_client::{CellName, Error, KnownMaster, MemberStatus, Status, replica_status};

/// How long one replica may take to answer.
pub(in super::super) const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// What replicas say, by their addresses.
pub(in super::super) type Views = BTreeMap<String, Result<Status, Error>>;

/// The cell's master, by what all views say together.
pub(in super::super) fn master_of(views: &Views) -> KnownMaster<'_> {
    KnownMaster::of(views.values().flatten())
}

/// Asks the endpoints, and every replica that they name.
pub(in super::super) async fn ask_all(settings: &Settings) -> Views {
    let cell = settings.cell.clone().filter(|cell| cell != CellName::LOCAL).unwrap_or_default();
    let (mut views, mut asked, mut asking) = (Views::new(), BTreeSet::new(), JoinSet::new());
    let mut to_ask = settings.endpoints.clone();
    loop {
        // One that is named is asked at once: silent ones are all waited for at the same time.
        for at in to_ask.drain(..).filter(|at| asked.insert(at.clone())) {
            let cell = cell.clone();
            asking.spawn(async move { (replica_status(&at, &cell, ANSWER_WITHIN).await, at) });
        }
        let Some(answer) = asking.join_next().await else { return views };
        let Ok((view, at)) = answer else { continue };
        if let Ok(status) = &view {
            let members = status.members.iter().map(|member| member.address.clone());
            to_ask.extend(members.chain(Some(status.master.clone()).filter(|at| !at.is_empty())));
        }
        views.insert(at, view);
    }
}

/// No replica that was reached knows of a master. Others may.
pub(in super::super) fn no_master(views: &Views) -> Failure {
    let reached: Vec<&Status> = views.values().flatten().collect();
    let outside = outside(views);
    if reached.is_empty() {
        let failure = Failure::from(unreached(views));
        return match outside.is_empty() {
            false => {
                failure.hint("a replica that is in no cell yet answers no client: start all the founders that its --peers name")
            }
            true => failure,
        };
    }
    let at = |wanted: &dyn Fn(&Status) -> bool| -> Vec<&str> {
        let views = views.iter().filter(|(_, view)| view.as_ref().is_ok_and(wanted));
        views.map(|(at, _)| at.as_str()).collect()
    };
    let copies = at(&is_copy);
    let members = reached.iter().map(|view| &view.members).max_by_key(|members| members.len());
    let voters: BTreeSet<&str> = members
        .into_iter()
        .flatten()
        .filter(|member| member.voter)
        .map(|member| member.address.as_str())
        .collect();
    // A voter that runs outside of the cell has lost its data: to start it would change nothing.
    let down: Vec<&str> = voters
        .iter()
        .copied()
        .filter(|at| !outside.contains(at) && views.get(*at).is_none_or(Result::is_err))
        .collect();
    let (reached, voters) = (reached.len(), voters.len());
    let quorum = voters / 2 + 1;
    let text = match reached >= quorum {
        true => format!("the cell has no master: {reached} of its {voters} voters answer, and know of none"),
        false => format!(
            "no master is known here: {reached} of the cell's {voters} voters answer, and know of none"
        ),
    };
    let start = match down.is_empty() {
        true => String::new(),
        false => format!("; start those that are down: {}", down.join(", ")),
    };
    let hint = match reached >= quorum {
        _ if !copies.is_empty() => format!(
            "the data directory of {} is a copy, and may lack what the cell has acknowledged since: it does not vote \
             before {quorum} others have elected a master, or every voter is there{start}",
            copies.join(" and of ")
        ),
        true => "one should be elected within seconds; look again".to_owned(),
        false if outside.is_empty() => format!(
            "those that cannot be reached from here may have one: ask from another machine; if they are down, start \
             them: it takes {quorum} to elect one"
        ),
        false if reached + down.len() >= quorum => format!(
            "it takes {quorum} to elect one{start}; {} runs, but without the cell's data: it waits until there is a \
             master to learn from",
            outside.join(", ")
        ),
        false => format!(
            "it takes {quorum} voters with their data to elect one, and {} runs without: put its data directory \
             back, or restore the cell from copies of its data directories (docs/OPERATING.md)",
            outside.join(", ")
        ),
    };
    Failure::new(UNREACHABLE, "NoQuorum", text).hint(hint)
}

/// What was wrong with each endpoint.
fn unreached(views: &Views) -> Error {
    let wrong = views.iter().filter_map(|(at, view)| match view {
        Ok(_) => None,
        Err(Error::Unreachable { what }) => Some(what.clone()),
        Err(error) => Some(format!("{at} answered: {error}")),
    });
    Error::unreachable(wrong.collect::<Vec<_>>().join("; "))
}

/// Whether a replica has no vote because its data directory is a copy.
fn is_copy(view: &Status) -> bool {
    view.standing == "copy"
}

/// Who is there, and in no cell yet: whoever closes without an answer.
fn outside(views: &Views) -> Vec<&str> {
    let is_outside = |error: &Error| matches!(error, Error::Unreachable { what } if what.contains("closed without an answer"));
    views.iter().filter(|(_, view)| view.as_ref().is_err_and(is_outside)).map(|(at, _)| at.as_str()).collect()
}

/// Why a replica could not be asked, without its address.
pub(super) fn why(at: &str, error: &Error) -> String {
    let text = error.to_string();
    match text.split_once(at) {
        Some((_, why)) => why.trim_matches([' ', '(', ')', ':']).to_owned(),
        None => text,
    }
}

/// A replica whose place another has taken at the same address is not there any more.
pub(super) fn is_reached(member: &MemberStatus, views: &Views) -> bool {
    let view = views.get(&member.address).and_then(|view| view.as_ref().ok());
    view.is_some_and(|view| view.replica == member.replica)
}

/// Whether a replica's data directory is a copy, as it says.
pub(super) fn has_copy(member: &MemberStatus, views: &Views) -> bool {
    views.get(&member.address).and_then(|view| view.as_ref().ok()).is_some_and(is_copy)
}

/// By how many slots a replica is behind the master.
pub(super) fn lag(status: &Status, member: &MemberStatus) -> u64 {
    status.chosen_slot.saturating_sub(member.accepted_slot.max(member.chosen_slot))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the voters a, b and c without a master: those that answer, those that run without their data, and those
    /// that cannot be reached. The hint names them.
    #[track_caller]
    fn check(answer: &[&str], without_data: &[&str], says: &[&str], says_not: &[&str]) {
        let voter =
            |at: &&str| MemberStatus { address: (*at).into(), voter: true, ..MemberStatus::default() };
        let members: Vec<MemberStatus> = ["a", "b", "c"].iter().map(voter).collect();
        let mut views = Views::new();
        for at in ["a", "b", "c"] {
            let view = match (answer.contains(&at), without_data.contains(&at)) {
                (true, _) => Ok(Status { members: members.clone(), ..Status::default() }),
                (_, true) => Err(Error::unreachable(format!("{at}: closed without an answer"))),
                _ => Err(Error::unreachable(format!("{at}: connection refused"))),
            };
            views.insert(at.into(), view);
        }
        let said = no_master(&views).lines().join("\n");
        assert!(says.iter().all(|part| said.contains(part)), "{said}");
        assert!(says_not.iter().all(|part| !said.contains(part)), "{said}");
    }

    #[test]
    fn hint_says_to_start_only_what_is_down() {
        check(&["a", "b"], &[], &["one should be elected"], &["start"]);
        check(&["a"], &[], &["if they are down, start them"], &[]);
        check(&["a"], &["b"], &["start those that are down: c", "b runs, but without"], &[]);
        check(&["a"], &["b", "c"], &["b, c runs without", "put its data directory back"], &["are down"]);
    }
}
