//! `wombat tree`.

use super::reader::Reader;
use super::show::shown_name;
use crate::exit::Failure;
use crate::output;
use crate::settings::Settings;
use crate::time_limit::TimeLimit;
use clap::Args as ClapArgs;
use serde_json::{Value, json};
use wombat_client::Entry;

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  wombat tree\n  wombat tree /ls/local/services")]
pub(crate) struct Tree {
    /// Where to begin
    #[arg(default_value = "/ls/local")]
    pub(crate) path: String,
}

/// A directory's children that are still to be shown.
struct Level {
    path: String,
    /// What stands before its lines.
    indent: String,
    rest: std::vec::IntoIter<Entry>,
}

pub(crate) async fn run(
    settings: &Settings,
    tree: &Tree,
    json: bool,
    limit: &TimeLimit,
) -> Result<(), Failure> {
    let mut reader = Reader::connect(settings, false).await?;
    let stat = reader.stat(&tree.path).await?.value;
    let path = reader.resolve(&tree.path)?.to_string();
    let mut all = Vec::new();
    if json {
        all.push(json!({ "path": path, "stat": output::stat(&stat) }));
    } else {
        output::line(output::name(&path));
    }
    if stat.directory {
        let mut levels = vec![level(&mut reader, path, String::new()).await?];
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
                levels.push(level(&mut reader, child, indent).await?);
                limit.restart();
            }
        }
    }
    if json {
        output::line(Value::from(all));
    }
    Ok(())
}

async fn level(reader: &mut Reader<'_>, path: String, indent: String) -> Result<Level, Failure> {
    let rest = match reader.list(&path).await {
        Ok(read) => read.value,
        // It was deleted while we looked.
        Err(failure) if failure.is_not_found() => Vec::new(),
        Err(failure) => return Err(failure),
    };
    Ok(Level { path, indent, rest: rest.into_iter() })
}
