//! `wombat rm`.

use crate::exit::Failure;
use crate::output;
use crate::time_limit::TimeLimit;
use clap::Args as ClapArgs;
use serde_json::{Value, json};
use wombat_client::{Cell, Error, OpenOptions};

#[derive(ClapArgs)]
#[command(
    after_help = "Examples:\n  wombat rm /ls/local/greeting\n  wombat rm -r /ls/local/services\n  wombat rm -rf /ls/local/services      also if it does not exist"
)]
pub(crate) struct Rm {
    /// Delete everything below too
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// Do not mind what does not exist
    #[arg(short, long)]
    pub(crate) force: bool,
    /// What to delete
    #[arg(required = true)]
    pub(crate) paths: Vec<String>,
}

pub(crate) async fn run(cell: &Cell, rm: &Rm, json: bool, limit: &TimeLimit) -> Result<(), Failure> {
    // Refused before anything is deleted, not when all that stood below it is gone.
    for path in &rm.paths {
        if cell.resolve(path)?.node.names().is_empty() {
            let refusal = Error::invalid("the root of a cell cannot be deleted");
            return Err(Failure::from(refusal).about(path));
        }
    }
    let mut all = Vec::new();
    for path in &rm.paths {
        let deleted = match remove(cell, path, rm.recursive, limit).await {
            Err(failure) if rm.force && failure.is_not_found() => false,
            removed => removed.map(|()| true)?,
        };
        all.push(json!({ "path": cell.resolve(path)?.to_string(), "deleted": deleted }));
        limit.restart();
    }
    if json {
        output::line(Value::from(all));
    }
    Ok(())
}

async fn remove(cell: &Cell, path: &str, recursive: bool, limit: &TimeLimit) -> Result<(), Failure> {
    let about = |error: Error| Failure::from(error).about(path);
    if recursive {
        remove_below(cell, path, limit).await?;
    }
    let node = cell.open(path, OpenOptions::new().write()).await.map_err(about)?;
    node.delete().await.map_err(about)
}

/// Deletes everything below a node, the deepest first.
async fn remove_below(cell: &Cell, top: &str, limit: &TimeLimit) -> Result<(), Failure> {
    let mut directories = vec![top.to_owned()];
    let mut emptied = Vec::new();
    while let Some(path) = directories.pop() {
        let about = |error: Error| Failure::from(error).about(&path);
        let node = cell.open(&path, OpenOptions::new()).await.map_err(about)?;
        if !node.opened_stat().directory {
            continue;
        }
        for entry in node.list().await.map_err(about)? {
            let child = format!("{path}/{}", entry.name);
            if entry.stat.directory {
                directories.push(child);
            } else {
                let child_about = |error: Error| Failure::from(error).about(&child);
                let node = cell.open(&child, OpenOptions::new().write()).await.map_err(child_about)?;
                node.delete().await.map_err(child_about)?;
            }
            limit.restart();
        }
        emptied.push(path.clone());
    }
    // Found from the top down, so emptied from the bottom up.
    for path in emptied.iter().skip(1).rev() {
        let about = |error: Error| Failure::from(error).about(path);
        let node = cell.open(path, OpenOptions::new().write()).await.map_err(about)?;
        node.delete().await.map_err(about)?;
        limit.restart();
    }
    Ok(())
}
