//! `wombat status`: it asks replicas themselves, without a session, so that it works also when nobody is master.
//!
//! What this machine cannot reach is not what is not there. Each replica says whom it takes for the master, how old
//! its knowledge is, and which others it is connected to; only these reports say how the cell is.

mod object;
mod show;
pub(super) mod views;

use crate::exit::Failure;
use crate::output;
use crate::settings::Settings;
use views::{ask_all, master_of, no_master};
use wombat_client::{Error, KnownMaster};

pub(crate) async fn run(settings: &Settings, json: bool) -> Result<(), Failure> {
    let views = ask_all(settings).await;
    // Another cell is not asked a second time.
    for view in views.values() {
        if let Err(error @ Error::InvalidArgument { .. }) = view {
            return Err(error.clone().into());
        }
    }
    let master = master_of(&views);
    if views.values().any(Result::is_ok) {
        if json {
            output::line(object::object(&master, &views));
        } else {
            show::show(&master, &views);
        }
    }
    match master {
        KnownMaster::Unknown => Err(no_master(&views)),
        _ => Ok(()),
    }
}
