//! `wombat ls`.

use super::reader::Reader;
use super::show::{entries_array, show_entries};
use crate::exit::Failure;
use crate::output;
use crate::settings::Settings;
use clap::Args as ClapArgs;
use serde_json::json;

#[derive(ClapArgs)]
#[command(
    after_help = "Examples:\n  wombat ls\n  wombat ls -l /ls/local/services\n  wombat ls --stale /ls/local/services"
)]
pub(crate) struct Ls {
    /// Read from any replica, also while there is no master, and print how old the answer may be
    #[arg(long)]
    pub(crate) stale: bool,
    /// Show kinds, sizes, generations and times
    #[arg(short)]
    pub(crate) long: bool,
    /// The directory
    #[arg(default_value = "/ls/local")]
    pub(crate) path: String,
}

pub(crate) async fn run(settings: &Settings, ls: &Ls, json: bool) -> Result<(), Failure> {
    let mut reader = Reader::connect(settings, ls.stale).await?;
    let read = reader.list(&ls.path).await?;
    if json {
        let path = reader.resolve(&ls.path)?.to_string();
        let mut object = json!({ "path": path, "entries": entries_array(&read.value) });
        read.add_age(&mut object);
        output::line(object);
    } else {
        show_entries(&read.value, ls.long);
        read.tell_age();
    }
    Ok(())
}
