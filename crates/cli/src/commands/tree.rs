//! `wombat tree`.

use super::files::shown_name;
use crate::exit::Failure;
use crate::output;
use crate::time_limit::TimeLimit;
use serde_json::{Value, json};
use wombat_client::{Cell, Entry, OpenOptions};

/// A directory's children that are still to be shown.
struct Level {
    path: String,
    /// What stands before its lines.
    indent: String,
    rest: std::vec::IntoIter<Entry>,
}

pub(crate) async fn run(cell: &Cell, path: &str, json: bool, limit: &TimeLimit) -> Result<(), Failure> {
    let node = cell.open(path, OpenOptions::new()).await.map_err(|error| Failure::from(error).about(path))?;
    let mut all = Vec::new();
    if json {
        all.push(json!({ "path": node.path().to_string(), "stat": output::stat(node.opened_stat()) }));
    } else {
        output::line(output::name(&node.path().to_string()));
    }
    if node.opened_stat().directory {
        let path = node.path().to_string();
        let mut levels = vec![level(cell, path, String::new()).await?];
        while let Some(top) = levels.last_mut() {
            let Some(entry) = top.rest.next() else {
                levels.pop();
                continue;
            };
            let child = format!("{}/{}", top.path, entry.name);
            let last = top.rest.len() == 0;
            if json {
                all.push(json!({ "path": child, "stat": output::stat(&entry.stat) }));
            } else {
                let branch = if last { "└── " } else { "├── " };
                output::line(format!("{}{branch}{}", top.indent, shown_name(&entry.name, &entry.stat)));
            }
            if entry.stat.directory {
                let indent = format!("{}{}", top.indent, if last { "    " } else { "│   " });
                levels.push(level(cell, child, indent).await?);
                limit.restart();
            }
        }
    }
    if json {
        output::line(Value::from(all));
    }
    Ok(())
}

async fn level(cell: &Cell, path: String, indent: String) -> Result<Level, Failure> {
    let rest = match cell.open(&path, OpenOptions::new()).await {
        Ok(node) => node.list().await?,
        // It was deleted while we looked.
        Err(wombat_client::Error::NotFound { .. }) => Vec::new(),
        Err(error) => return Err(Failure::from(error).about(&path)),
    };
    Ok(Level { path, indent, rest: rest.into_iter() })
}
