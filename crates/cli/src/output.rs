//! What people and programs get to read.

use crate::line_queue::LineQueue;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use wombat_client::Stat;

/// How long a process that ends waits at most until its last lines are written.
const EXIT_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Standard output and standard error of a process that serves: neither may block a thread of it.
pub(crate) struct Queues {
    pub(crate) out: LineQueue,
    pub(crate) err: LineQueue,
}

static QUEUES: OnceLock<Queues> = OnceLock::new();

/// From now on no line blocks the thread that prints it, a panic's message included.
pub(crate) fn queue_lines() -> std::io::Result<&'static Queues> {
    let queue = |fd: &dyn AsFd| LineQueue::start(File::from(fd.as_fd().try_clone_to_owned()?));
    let queues = Queues { out: queue(&std::io::stdout())?, err: queue(&std::io::stderr())? };
    let queues = QUEUES.get_or_init(|| queues);
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        queues.err.push(format!("thread {:?} {panic}\n", thread.name().unwrap_or("?")).as_bytes());
        let backtrace = std::backtrace::Backtrace::capture();
        if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
            queues.err.push(format!("{backtrace}\n").as_bytes());
        }
        queues.err.flush(EXIT_FLUSH_TIMEOUT);
    }));
    Ok(queues)
}

/// Writes what is queued before the process ends, as far as that can be done soon.
pub(crate) fn flush() {
    if let Some(queues) = QUEUES.get() {
        queues.out.flush(EXIT_FLUSH_TIMEOUT);
        queues.err.flush(EXIT_FLUSH_TIMEOUT);
    }
}

/// Prints a line, and ends quietly when nobody reads any more (`wombat … | head`). Names, values and clients'
/// descriptions are anyone's words: what would steer the terminal is shown, not obeyed.
pub(crate) fn line(text: impl std::fmt::Display) {
    if let Some(queues) = QUEUES.get() {
        return queues.out.push(format!("{}\n", harmless(&text.to_string())).as_bytes());
    }
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{}", harmless(&text.to_string())).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Prints a line on standard error, as harmless.
pub(crate) fn notice(text: impl std::fmt::Display) {
    if let Some(queues) = QUEUES.get() {
        return queues.err.push(format!("{}\n", harmless(&text.to_string())).as_bytes());
    }
    eprintln!("{}", harmless(&text.to_string()));
}

/// The text with escapes for its control characters, and for those that turn the order of others around. JSON
/// stays JSON: in a string of it, too, the escape means the character.
fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => escape(character, &mut shown),
            _ if character.is_control() => escape(character, &mut shown),
            _ => shown.push(character),
        }
    }
    shown
}

fn escape(character: char, into: &mut String) {
    into.push_str(&format!("\\u{:04x}", u32::from(character)));
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
        assert_eq!(harmless("a\u{1b}[2Jé\t\u{202e}b"), "a\\u001b[2Jé\\t\\u202eb");
        for text in ["\u{1b}[2J", "\u{7f}", "\u{9b}2J", "\u{202e}", "\n"] {
            let shown = harmless(&json!(text).to_string());
            assert!(!shown.contains(|c: char| c.is_control() || c == '\u{202e}'), "{shown}");
            assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), text, "JSON stays JSON");
        }
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
