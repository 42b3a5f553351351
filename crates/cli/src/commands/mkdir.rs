//! `wombat mkdir`.

use super::parents::make_directories;
use crate::exit::Failure;
use crate::output;
use clap::Args as ClapArgs;
use serde_json::{Value, json};
use wombat_client::{Cell, Create, Error, OpenOptions};

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  wombat mkdir /ls/local/services\n  wombat mkdir -p /ls/local/a/b/c")]
pub(crate) struct Mkdir {
    /// Make the directories above too, and do not mind if it exists
    #[arg(short, long)]
    pub(crate) parents: bool,
    /// The directories
    #[arg(required = true)]
    pub(crate) paths: Vec<String>,
}

pub(crate) async fn run(cell: &Cell, mkdir: &Mkdir, json: bool) -> Result<(), Failure> {
    for path in &mkdir.paths {
        let about = |error: Error| Failure::from(error).about(path);
        if mkdir.parents {
            make_directories(cell, &cell.resolve(path)?.node).await?;
        } else {
            let options = OpenOptions::new().create(Create::Must).directory();
            cell.open(path, options).await.map_err(about)?;
        }
    }
    if json {
        let object = |path: &String| Ok(json!({ "path": cell.resolve(path)?.to_string() }));
        output::line(Value::from(mkdir.paths.iter().map(object).collect::<Result<Vec<_>, Failure>>()?));
    }
    Ok(())
}
