//! What people and programs get to read.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use wombat_client::Stat;

/// Prints a line, and ends quietly when nobody reads any more (`wombat … | head`). Names, values and clients'
/// descriptions are anyone's words: what would steer the terminal is shown, not obeyed.
pub(crate) fn line(text: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    let text: String = text.to_string().chars().flat_map(harmless).collect();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// A character, or its escape if it is a control character.
fn harmless(character: char) -> impl Iterator<Item = char> {
    let escape = character.is_control().then(|| character.escape_default());
    let plain = (!character.is_control()).then_some(character);
    escape.into_iter().flatten().chain(plain)
}

/// Writes bytes as they are.
pub(crate) fn bytes(bytes: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Prints rows in columns as wide as they need to be.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let show = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        line(padded.collect::<Vec<_>>().join("  ").trim_end());
    };
    show(head.to_vec());
    for row in rows {
        show(row.iter().map(String::as_str).collect());
    }
}

/// Wall time for people, in UTC.
pub(crate) fn time(wall_ms: u64) -> String {
    humantime::format_rfc3339_seconds(wall(wall_ms)).to_string()
}

/// How long ago, roughly.
pub(crate) fn ago(wall_ms: u64) -> String {
    span(SystemTime::now().duration_since(wall(wall_ms)).unwrap_or_default())
}

/// A duration in its largest unit.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn wall(wall_ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(wall_ms)
}

/// A node's metadata as JSON.
pub(crate) fn stat(stat: &Stat) -> Value {
    json!({
        "instance": stat.instance.0,
        "content_generation": stat.content_generation.0,
        "lock_generation": stat.lock_generation.0,
        "acl_generation": stat.acl_generation.0,
        "checksum": format!("{:016x}", stat.checksum),
        "length": stat.length,
        "children": stat.children,
        "directory": stat.directory,
        "ephemeral": stat.ephemeral,
        "permits": stat.permits,
        "created": time(stat.created_wall_ms),
        "modified": time(stat.modified_wall_ms),
        "modified_slot": stat.modified_slot.0,
    })
}

/// Adds contents to a JSON object: as text if they are, else in base64.
pub(crate) fn add_contents(object: &mut Value, contents: &[u8]) {
    match std::str::from_utf8(contents) {
        Ok(text) => object["contents"] = text.into(),
        Err(_) => object["contents_base64"] = STANDARD.encode(contents).into(),
    }
}

/// Contents on one line, shortened.
pub(crate) fn preview(contents: &[u8]) -> String {
    match std::str::from_utf8(contents) {
        Ok(text) if text.len() <= 80 && !text.contains(char::is_control) => text.into(),
        Ok(text) => {
            let shown: String = text.chars().take(60).map(|c| if c.is_control() { ' ' } else { c }).collect();
            format!("{shown}… ({} bytes)", contents.len())
        }
        Err(_) => format!("({} bytes)", contents.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        assert_eq!(span(Duration::from_millis(250)), "250ms");
        assert_eq!(span(Duration::from_secs(61)), "61s");
        assert_eq!(span(Duration::from_secs(7200)), "2h");
        assert_eq!(span(Duration::from_secs(400_000)), "4d");
    }

    #[test]
    fn nobody_steers_the_terminal() {
        let text: String = "a\u{1b}[2Jé".chars().flat_map(harmless).collect();
        assert_eq!(text, "a\\u{1b}[2Jé");
    }

    #[test]
    fn contents_that_are_no_text_go_out_in_base64() {
        let mut object = json!({});
        add_contents(&mut object, &[0xff, 0]);
        assert_eq!(object["contents_base64"], "/wA=");
        add_contents(&mut object, "é".as_bytes());
        assert_eq!(object["contents"], "é");
        assert_eq!(preview(b"a\nb"), "a b… (3 bytes)");
    }
}
