//! `wombat admin`: looking after a cell.

use super::locks::named;
use super::status::views::{ANSWER_WITHIN, ask_all, master_of, no_master};
use crate::exit::{Failure, TIMEOUT};
use crate::output;
use crate::settings::Settings;
use clap::{Args as ClapArgs, Subcommand};
use serde_json::json;
use std::time::Duration;
use wombat_client::{KnownMaster, relay_transfer, transfer_mastership};

#[derive(Subcommand)]
pub(crate) enum Admin {
    /// Let another replica be master; clients barely notice
    Transfer(Transfer),
    /// Show what administrators did: which locks were broken, by whom, and why
    Audit,
}

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  wombat admin transfer\n  wombat admin transfer --to 3")]
pub(crate) struct Transfer {
    /// Which replica, as `wombat status` numbers them [default: the one with the least lag]
    #[arg(long, value_name = "REPLICA")]
    pub(crate) to: Option<u32>,
}

pub(crate) async fn transfer(settings: &Settings, args: &Transfer, json: bool) -> Result<(), Failure> {
    let to = args.to.unwrap_or(0);
    let views = ask_all(settings).await;
    let master = master_of(&views);
    match &master {
        KnownMaster::Reached(status) => transfer_mastership(&status.master, to, ANSWER_WITHIN).await?,
        KnownMaster::Named { by, .. } => {
            let at =
                views.iter().find(|(_, view)| view.as_ref().is_ok_and(|view| by.contains(&view.replica)));
            let (at, _) = at.expect("it was reached");
            relay_transfer(at, to, ANSWER_WITHIN).await?;
        }
        KnownMaster::Unknown => return Err(no_master(&views)),
    }
    let by = tokio::time::Instant::now() + settings.connect_timeout;
    while tokio::time::Instant::now() < by {
        let views = ask_all(settings).await;
        let now = master_of(&views);
        if now.epoch() > master.epoch() {
            let (address, epoch) = match &now {
                KnownMaster::Reached(now) => (now.master.as_str(), now.epoch),
                KnownMaster::Named { address, epoch, .. } => (*address, *epoch),
                KnownMaster::Unknown => continue,
            };
            let members = views.values().flatten().flat_map(|view| &view.members);
            let mut replicas = members.filter(|member| member.address == address);
            let replica = replicas.next().map(|member| member.replica);
            output::line(match (json, replica) {
                (true, _) => json!({ "replica": replica, "master": address, "epoch": epoch }).to_string(),
                (_, Some(replica)) => format!("replica {replica} at {address} is master, epoch {epoch}"),
                (_, None) => format!("the replica at {address} is master, epoch {epoch}"),
            });
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(Failure::new(TIMEOUT, "Timeout", "the master has let go, but no other has begun yet"))
}

/// What administrators did.
pub(crate) async fn audit(settings: &Settings, json: bool) -> Result<(), Failure> {
    for entry in settings.operator().await?.audit().await? {
        let time = output::time(entry.wall_ms);
        output::line(match json {
            true => json!({
                "slot": entry.slot, "time": time, "session": entry.session, "client": entry.client,
                "what": entry.what,
            })
            .to_string(),
            false => format!("{time}  {}: {}", named(&entry.client, entry.session), entry.what),
        });
    }
    Ok(())
}
