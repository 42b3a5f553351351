//! How nodes are shown.

use crate::output;
use serde_json::{Value, json};
use wombat_client::{Entry, Path, Stat};

pub(crate) fn contents_object(path: &Path, contents: &[u8], stat: &Stat) -> Value {
    let mut object = stat_object(path, stat);
    output::add_contents(&mut object, contents);
    object
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
