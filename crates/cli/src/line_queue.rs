//! Lines on their way to a file descriptor that may block or fail.
//!
//! A pipe that nobody drains, a paused terminal or a full disk must not stop the thread that serves
//! (etcd-io/etcd#22326, hashicorp/consul#2404). The queue takes a line without waiting, and a thread of its own
//! writes it. Lines that do not fit, or cannot be written, are dropped and counted; the next line that can be
//! written is followed by their number.

use nix::sys::signal::{SigSet, Signal};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most bytes that wait to be written.
const MAX_QUEUED_BYTES: usize = 4 * 1024 * 1024;

/// What a queued line takes beside its bytes.
const LINE_OVERHEAD: usize = 64;

/// How long the writer waits before it tries a non-blocking descriptor again.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// A queue of lines and the thread that writes them. Clones share the queue.
#[derive(Clone)]
pub(crate) struct LineQueue {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// The state has changed: there is a line to write, or the writer has finished one.
    changed: Condvar,
    /// How many lines were ever dropped.
    dropped: Arc<AtomicU64>,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Whether the writer is writing a line that it has taken out.
    writing: bool,
}

impl LineQueue {
    /// A queue whose lines go to `out`, which should not buffer.
    pub(crate) fn start(out: impl Write + Send + 'static) -> io::Result<LineQueue> {
        let shared =
            Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), dropped: Arc::default() });
        let writer = Arc::clone(&shared);
        std::thread::Builder::new().name("wombat-output".into()).spawn(move || writer.write_lines(out))?;
        Ok(LineQueue { shared })
    }

    /// Queues a line, its line feed included, or drops it. Never waits for the descriptor.
    pub(crate) fn push(&self, line: &[u8]) {
        let mut state = self.shared.lock();
        let bytes = line.len() + LINE_OVERHEAD;
        if state.bytes + bytes > MAX_QUEUED_BYTES {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.bytes += bytes;
        state.lines.push_back(line.to_vec());
        self.shared.changed.notify_all();
    }

    /// Waits until everything that was queued is written or dropped, but no longer than `timeout`.
    pub(crate) fn flush(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.lock();
        while state.writing || !state.lines.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How many lines were ever dropped.
    pub(crate) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.shared.dropped)
    }
}

/// Each write is one line, as `tracing_subscriber` writes events.
impl Write for LineQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of the writer's thread: as long as the process.
    fn write_lines(&self, mut out: impl Write) {
        // A terminal with `tostop` would stop the whole process for a line from the background.
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGTTOU);
        let _best_effort = blocked.thread_block();
        let mut reported = 0;
        // Whether the descriptor took a part of a line and not the rest.
        let mut torn = false;
        loop {
            let line = self.next_line();
            let start = if torn { &b"\n"[..] } else { b"" };
            match write_all(&mut out, &[start, &line].concat()) {
                Ok(()) => torn = false,
                Err(written) => {
                    torn |= written > 0;
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
            }
            let dropped = self.dropped.load(Ordering::Relaxed);
            if dropped > reported {
                let report = format!("{} log lines were dropped\n", dropped - reported);
                if write_all(&mut out, report.as_bytes()).is_ok() {
                    reported = dropped;
                }
            }
        }
    }

    /// Takes the next line out, once there is one.
    fn next_line(&self) -> Vec<u8> {
        let mut state = self.lock();
        state.writing = false;
        self.changed.notify_all();
        loop {
            if let Some(line) = state.lines.pop_front() {
                state.bytes -= line.len() + LINE_OVERHEAD;
                state.writing = true;
                return line;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Writes all bytes; of a failure, says how many were written before it.
fn write_all(out: &mut impl Write, bytes: &[u8]) -> Result<(), usize> {
    let mut written = 0;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => return Err(written),
            Ok(length) => written += length,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Another process may have made the descriptor non-blocking: the flag belongs to all who share it.
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(RETRY_INTERVAL),
            Err(_) => return Err(written),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// A long time, for what should happen at once.
    const SOON: Duration = Duration::from_secs(60);

    /// What a descriptor does with the next write.
    enum Next {
        Takes,
        Fails,
        TakesHalf,
    }

    /// A descriptor that blocks until the test says what the next write does.
    struct Scripted {
        script: Receiver<Next>,
        written: Sender<String>,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let length = match self.script.recv() {
                Ok(Next::Takes) => bytes.len(),
                Ok(Next::TakesHalf) => bytes.len() / 2,
                Ok(Next::Fails) => return Err(ErrorKind::StorageFull.into()),
                Err(_) => loop {
                    std::thread::park(); // Nobody drains it any more.
                },
            };
            let _the_test_has_ended = self.written.send(String::from_utf8_lossy(&bytes[..length]).into());
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn scripted() -> (LineQueue, Sender<Next>, Receiver<String>) {
        let ((next, script), (written, lines)) = (channel(), channel());
        (LineQueue::start(Scripted { script, written }).unwrap(), next, lines)
    }

    #[test]
    fn lines_that_do_not_fit_are_counted_and_reported() {
        let (queue, next, lines) = scripted();
        let line = [b'x'; 1024 - LINE_OVERHEAD];
        let fit = MAX_QUEUED_BYTES / 1024;
        // The writer may have taken one line out, or not yet.
        (0..fit + 3).for_each(|_| queue.push(&line));
        let dropped = queue.dropped().load(Ordering::Relaxed);
        assert!((2..=3).contains(&dropped), "{dropped} were dropped");
        next.send(Next::Takes).unwrap();
        assert_eq!(lines.recv_timeout(SOON).unwrap().len(), line.len());
        next.send(Next::Takes).unwrap();
        assert_eq!(lines.recv_timeout(SOON).unwrap(), format!("{dropped} log lines were dropped\n"));
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_reported() {
        let (queue, next, lines) = scripted();
        for line in ["one\n", "two\n", "three\n", "four\n"] {
            queue.push(line.as_bytes());
        }
        for step in [Next::Takes, Next::Fails, Next::TakesHalf, Next::Fails, Next::Takes, Next::Takes] {
            next.send(step).unwrap();
        }
        let written: Vec<String> = (0..4).map(|_| lines.recv_timeout(SOON).unwrap()).collect();
        assert_eq!(written, ["one\n", "thr", "\nfour\n", "2 log lines were dropped\n"]);
        queue.flush(SOON);
        assert_eq!(queue.dropped().load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_flush_ends_though_nothing_is_taken() {
        let (queue, next, _lines) = scripted();
        drop(next);
        queue.push(b"last words\n");
        queue.flush(Duration::from_millis(20));
    }
}
