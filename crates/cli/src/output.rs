//! Everything that the tool prints.
//!
//! Lines for standard output are collected here, and [`flush`] writes them on a thread of its own, so that a reader
//! that pauses never stops the session's KeepAlives. Commands that go on flush after each event; for all others
//! `commands::run` flushes once, when the session has ended and nothing is held any more.

use crate::exit::Failure;
use crate::line_queue::LineQueue;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use wombat_client::Stat;

/// How long a process that ends waits at most until its last lines are written.
const EXIT_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Standard output and standard error of a process that serves: neither may block a thread of it.
pub(crate) struct Queues {
    pub(crate) out: &'static LineQueue,
    pub(crate) err: &'static LineQueue,
}

/// Standard output of a process that serves.
static OUT: OnceLock<LineQueue> = OnceLock::new();
/// Standard error of any process, once there is something to say: nothing depends on whether it can be written.
static ERR: OnceLock<LineQueue> = OnceLock::new();
/// What other processes have printed and not written yet.
static PENDING: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// From now on no line blocks the thread that prints it, a panic's message included.
pub(crate) fn queue_lines() -> std::io::Result<Queues> {
    let out = start_queue(&OUT, &std::io::stdout())?;
    let err = start_queue(&ERR, &std::io::stderr())?;
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        err.push(format!("thread {:?} {panic}\n", thread.name().unwrap_or("?")).as_bytes());
        let backtrace = std::backtrace::Backtrace::capture();
        if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
            err.push(format!("{backtrace}\n").as_bytes());
        }
        err.flush(EXIT_FLUSH_TIMEOUT);
    }));
    Ok(Queues { out, err })
}

fn start_queue(queue: &'static OnceLock<LineQueue>, fd: &impl AsFd) -> std::io::Result<&'static LineQueue> {
    match queue.get() {
        Some(queue) => Ok(queue),
        None => {
            let started = LineQueue::start(File::from(fd.as_fd().try_clone_to_owned()?))?;
            Ok(queue.get_or_init(|| started))
        }
    }
}

/// Writes what is queued before the process ends, as far as that can be done soon.
pub(crate) fn finish() {
    for queue in [OUT.get(), ERR.get()].into_iter().flatten() {
        queue.flush(EXIT_FLUSH_TIMEOUT);
    }
}

/// Prints a line. Names, values and descriptions of clients are foreign text: characters that would control the
/// terminal are escaped.
pub(crate) fn line(text: impl std::fmt::Display) {
    bytes(format!("{}\n", harmless(&text.to_string())).as_bytes());
}

/// Prints bytes as they are.
pub(crate) fn bytes(bytes: &[u8]) {
    match OUT.get() {
        Some(queue) => queue.push(bytes),
        None => PENDING.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes),
    }
}

/// Prints a line on standard error, escaped as for [`line`].
pub(crate) fn notice(text: impl std::fmt::Display) {
    error_text(&format!("{}\n", harmless(&text.to_string())));
}

/// Prints on standard error why the command failed.
pub(crate) fn failure(failure: &Failure, json: bool) {
    match json {
        true => failure.object().into_iter().for_each(notice),
        false => failure.lines().into_iter().for_each(notice),
    }
}

/// Prints text of this program's own on standard error.
pub(crate) fn error_text(text: &str) {
    if let Ok(queue) = start_queue(&ERR, &std::io::stderr()) {
        queue.push(text.as_bytes());
    }
}

/// Writes what was printed. The runtime goes on meanwhile, for as long as the reader takes.
pub(crate) async fn flush() -> Result<(), Failure> {
    match tokio::task::spawn_blocking(flush_blocking).await {
        Ok(written) => written,
        Err(error) => Err(Failure::from(std::io::Error::other(error))),
    }
}

/// Writes what was printed. Resolves only if that fails.
pub(crate) async fn flush_failed() -> Failure {
    match flush().await {
        Ok(()) => std::future::pending().await,
        Err(failure) => failure,
    }
}

/// The same as [`flush`] where no runtime has to go on.
pub(crate) fn flush_blocking() -> Result<(), Failure> {
    let pending = std::mem::take(&mut *PENDING.lock().unwrap_or_else(PoisonError::into_inner));
    match pending.is_empty() {
        true => Ok(()),
        false => write_all(&pending).map_err(Failure::output),
    }
}

/// Resolves when the pipe or socket on standard output has lost its reader; of a file or terminal, never.
pub(crate) async fn reader_gone() {
    let gone = || -> std::io::Result<()> {
        let stdout = stdout()?;
        let mut errors_only = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
        Ok(poll(&mut errors_only, PollTimeout::NONE).map(drop)?)
    };
    if !matches!(tokio::task::spawn_blocking(gone).await, Ok(Ok(()))) {
        std::future::pending().await
    }
}

/// Writes to standard output, also to one that another process has made non-blocking.
fn write_all(mut bytes: &[u8]) -> std::io::Result<()> {
    let mut out = File::from(stdout()?);
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(out.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn stdout() -> std::io::Result<OwnedFd> {
    match STDOUT_WAS_CLOSED.load(Ordering::Relaxed) {
        true => Err(nix::errno::Errno::EBADF.into()),
        false => std::io::stdout().as_fd().try_clone_to_owned(),
    }
}

/// Whether the process was started without a standard output.
static STDOUT_WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Before `main` the standard library opens /dev/null where a standard descriptor is closed. The output would vanish
/// with success, so the descriptor is looked at before that.
// SAFETY: the loader calls each function of `.init_array` once, while there is one thread; this one only asks the
// kernel about a descriptor and stores to a static.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK_AT_STDOUT: extern "C" fn() = {
    extern "C" fn look() {
        // SAFETY: F_GETFD takes no argument and changes nothing.
        let closed = unsafe { nix::libc::fcntl(nix::libc::STDOUT_FILENO, nix::libc::F_GETFD) } == -1;
        STDOUT_WAS_CLOSED.store(closed, Ordering::Relaxed);
    }
    look
};

/// A name or path for people. Its backslashes are doubled, so that what [`line`] makes of a control character in it
/// reads like nothing else.
pub(crate) fn name(name: &str) -> String {
    harmless(&name.replace('\\', "\\\\"))
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

/// Adds contents to a JSON object.
pub(crate) fn add_contents(object: &mut Value, contents: &[u8]) {
    add_text(object, "contents", contents);
}

/// Adds bytes to a JSON object under a key: as text if they are, else in base64 under `KEY_base64`.
pub(crate) fn add_text(object: &mut Value, key: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object[key] = text.into(),
        Err(_) => object[format!("{key}_base64")] = STANDARD.encode(bytes).into(),
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
