//! `wombat get`.

use super::reader::Reader;
use super::show::contents_object;
use crate::exit::Failure;
use crate::output;
use crate::settings::Settings;
use clap::Args as ClapArgs;

#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  wombat get /ls/local/greeting
  wombat get /ls/local/config > config.toml    byte for byte
  wombat get --json /ls/local/greeting         with its generation
  wombat get --stale /ls/local/config          also while there is no master")]
pub(crate) struct Get {
    /// Read from any replica, also while there is no master, and print how old the answer may be
    #[arg(long)]
    pub(crate) stale: bool,
    /// The file, /ls/CELL/…
    pub(crate) path: String,
}

pub(crate) async fn run(settings: &Settings, get: &Get, json: bool) -> Result<(), Failure> {
    let mut reader = Reader::connect(settings, get.stale).await?;
    let read = reader.contents(&get.path).await?;
    let (contents, stat) = &read.value;
    if json {
        let mut object = contents_object(&reader.resolve(&get.path)?, contents, stat);
        read.add_age(&mut object);
        output::line(object);
    } else {
        output::bytes(contents);
        read.tell_age();
    }
    Ok(())
}
