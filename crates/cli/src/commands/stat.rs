//! `wombat stat`.

use super::reader::Reader;
use super::show::{show_stat, stat_object};
use crate::exit::Failure;
use crate::output;
use crate::settings::Settings;
use clap::Args as ClapArgs;

#[derive(ClapArgs)]
#[command(
    after_help = "Examples:\n  wombat stat /ls/local/greeting\n  wombat stat --json /ls/local/greeting"
)]
pub(crate) struct Stat {
    /// Read from any replica, also while there is no master, and print how old the answer may be
    #[arg(long)]
    pub(crate) stale: bool,
    /// The node
    pub(crate) path: String,
}

pub(crate) async fn run(settings: &Settings, stat: &Stat, json: bool) -> Result<(), Failure> {
    let mut reader = Reader::connect(settings, stat.stale).await?;
    let read = reader.stat(&stat.path).await?;
    let path = reader.resolve(&stat.path)?;
    if json {
        let mut object = stat_object(&path, &read.value);
        read.add_age(&mut object);
        output::line(object);
    } else {
        show_stat(&path, &read.value);
        read.tell_age();
    }
    Ok(())
}
