//! The short commands on files and directories: get, ls, mkdir, rm, stat.

use crate::args::{Ls, Mkdir, Rm};
use crate::exit::Failure;
use crate::output;
use crate::time_limit::TimeLimit;
use serde_json::{Value, json};
use wombat_client::{Cell, Create, Entry, Error, OpenOptions, Path, Stat};

pub(crate) async fn get(cell: &Cell, path: &str, json: bool) -> Result<(), Failure> {
    let about = |error: Error| Failure::from(error).about(path);
    let node = cell.open(path, OpenOptions::new()).await.map_err(about)?;
    let (contents, stat) = node.contents().await.map_err(about)?;
    match json {
        true => output::line(contents_object(node.path(), &contents, &stat)),
        false => output::bytes(&contents),
    }
    Ok(())
}

pub(crate) fn contents_object(path: &Path, contents: &[u8], stat: &Stat) -> Value {
    let mut object = stat_object(path, stat);
    output::add_contents(&mut object, contents);
    object
}

pub(crate) async fn ls(cell: &Cell, ls: &Ls, json: bool) -> Result<(), Failure> {
    let about = |error: Error| Failure::from(error).about(&ls.path);
    let node = cell.open(&ls.path, OpenOptions::new()).await.map_err(about)?;
    let entries = node.list().await.map_err(about)?;
    match json {
        true => output::line(entries_array(&entries)),
        false => show_entries(&entries, ls.long),
    }
    Ok(())
}

pub(crate) fn entries_array(entries: &[Entry]) -> Value {
    let entry = |entry: &Entry| json!({ "name": entry.name, "stat": output::stat(&entry.stat) });
    Value::from(entries.iter().map(entry).collect::<Vec<_>>())
}

pub(crate) fn show_entries(entries: &[Entry], long: bool) {
    if long {
        let row = |entry: &Entry| {
            let stat = &entry.stat;
            let size = if stat.directory { stat.children } else { stat.length };
            vec![
                kind(stat).into(),
                size.to_string(),
                stat.content_generation.to_string(),
                output::time(stat.modified_wall_ms),
                shown_name(&entry.name, stat),
            ]
        };
        let rows: Vec<_> = entries.iter().map(row).collect();
        output::table(&["KIND", "SIZE", "GENERATION", "MODIFIED", "NAME"], &rows);
    } else {
        for entry in entries {
            output::line(shown_name(&entry.name, &entry.stat));
        }
    }
}

/// A name with what shows its kind at a glance.
pub(crate) fn shown_name(name: &str, stat: &Stat) -> String {
    let name = output::name(name);
    if stat.directory { format!("{name}/") } else { name }
}

fn kind(stat: &Stat) -> &'static str {
    match (stat.directory, stat.ephemeral) {
        (true, true) => "ephemeral directory",
        (true, false) => "directory",
        (false, true) => "ephemeral",
        (false, false) => "file",
    }
}

pub(crate) async fn mkdir(cell: &Cell, mkdir: &Mkdir, json: bool) -> Result<(), Failure> {
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

/// Makes the directories above a path, where they do not exist.
pub(crate) async fn make_parents(cell: &Cell, path: &str) -> Result<(), Failure> {
    match cell.resolve(path)?.node.split_last() {
        Some((directory, _)) => make_directories(cell, &directory).await,
        None => Ok(()),
    }
}

/// Makes a directory and those above it, where they do not exist.
pub(crate) async fn make_directories(
    cell: &Cell,
    directory: &wombat_client::NodePath,
) -> Result<(), Failure> {
    for depth in 1..=directory.names().len() {
        let above = directory.names()[..depth].iter().cloned().collect();
        let path = Path::new(cell.name().clone(), above).to_string();
        let options = OpenOptions::new().create(Create::May).directory();
        cell.open(&path, options).await.map_err(|error| Failure::from(error).about(&path))?;
    }
    Ok(())
}

pub(crate) async fn rm(cell: &Cell, rm: &Rm, json: bool, limit: &TimeLimit) -> Result<(), Failure> {
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

pub(crate) async fn stat(cell: &Cell, path: &str, json: bool) -> Result<(), Failure> {
    let node = cell.open(path, OpenOptions::new()).await.map_err(|error| Failure::from(error).about(path))?;
    match json {
        true => output::line(stat_object(node.path(), node.opened_stat())),
        false => show_stat(node.path(), node.opened_stat()),
    }
    Ok(())
}

pub(crate) fn stat_object(path: &Path, stat: &Stat) -> Value {
    json!({ "path": path.to_string(), "stat": output::stat(stat) })
}

pub(crate) fn show_stat(path: &Path, stat: &Stat) {
    let mut rows = vec![
        ("path", output::name(&path.to_string())),
        ("kind", kind(stat).to_owned()),
        ("instance", stat.instance.to_string()),
    ];
    if stat.directory {
        rows.push(("children", stat.children.to_string()));
    } else {
        rows.push(("length", stat.length.to_string()));
        rows.push(("checksum", format!("{:016x}", stat.checksum)));
        rows.push(("content generation", stat.content_generation.to_string()));
    }
    rows.push(("lock generation", stat.lock_generation.to_string()));
    rows.push(("acl generation", stat.acl_generation.to_string()));
    if stat.permits > 0 {
        rows.push(("permits", stat.permits.to_string()));
    }
    rows.push(("created", output::time(stat.created_wall_ms)));
    rows.push(("modified", output::time(stat.modified_wall_ms)));
    for (name, value) in rows {
        output::line(format!("{name:20}{value}"));
    }
}
