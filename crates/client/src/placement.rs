//! Where the task of a session runs.
//!
//! It begins on the application's runtime, where no call has to change threads twice. An application may block that
//! runtime, or drop it while it still has the session. Then the task moves to a thread that all sessions of the
//! process share, and stays there: the application keeps its session (decisions/0018).

use crate::shared::Shared;
use nix::sys::signal::SigSet;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio::sync::Notify;
use wombat_proto::{Error, Result, clock};

/// How often the thread looks whether the runtimes of the application give each task its turns. A task that was
/// woken at one look and has had no turn by the next one moves.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// How long the end of a runtime waits for the end of a session of which the application has nothing left, so that
/// the session ends although the process exits next.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(250);

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Starts the task of a session on the runtime of the caller.
///
/// The task is given a signal that it has moved: whatever belongs to the runtime that it was on is of no more use
/// to it then, such as timers, sockets and tasks.
///
/// Errors: [`Error::QuotaExceeded`] if the process can have no more threads.
pub(crate) fn start<F>(task: impl FnOnce(Arc<Notify>) -> F, shared: &Arc<Shared>) -> Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let thread = SessionThread::get()?;
    let moved = Arc::new(Notify::new());
    let task: Task = Box::pin(task(Arc::clone(&moved)));
    let resident = Resident { task, waker: Waker::noop().clone() };
    let placement = Arc::new(Placement {
        resident: Mutex::new(Some(resident)),
        turns: AtomicU64::new(0),
        moved,
        shared: Arc::downgrade(shared),
    });
    thread.watch(&placement);
    tokio::spawn(OnRuntime(placement));
    Ok(())
}

/// The place of one task.
struct Placement {
    /// The task, while it is on the application's runtime.
    resident: Mutex<Option<Resident>>,
    /// How often it has had its turn there.
    turns: AtomicU64,
    moved: Arc<Notify>,
    /// What the application has of the session.
    shared: Weak<Shared>,
}

struct Resident {
    task: Task,
    /// Wakes the task on the application's runtime.
    waker: Waker,
}

impl Placement {
    /// Takes the task from the application's runtime. A lock that fails means that the task is gone, or has its turn
    /// at this moment.
    fn take<E>(&self, lock: std::result::Result<MutexGuard<'_, Option<Resident>>, E>) -> Option<Task> {
        let resident = lock.ok()?.take()?;
        self.moved.notify_one();
        Some(resident.task)
    }

    /// Sees to it that the task gets a turn if its runtime gives any.
    fn wake(&self) {
        let waker = self.resident.try_lock().ok().and_then(|place| Some(place.as_ref()?.waker.clone()));
        // Without the lock: to wake a task of a runtime that is gone may drop it.
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// What the application's runtime has of a task.
struct OnRuntime(Arc<Placement>);

impl Future for OnRuntime {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let placement = &self.0;
        let mut place = placement.resident.lock().expect("a task that panicked is not polled again");
        let Some(resident) = &mut *place else { return Poll::Ready(()) };
        placement.turns.fetch_add(1, Ordering::Relaxed);
        resident.waker.clone_from(context.waker());
        let polled = resident.task.as_mut().poll(context);
        if polled.is_ready() {
            *place = None;
        }
        polled
    }
}

impl Drop for OnRuntime {
    /// The runtime ends, unless the task has ended or moved before.
    fn drop(&mut self) {
        let Some(task) = self.0.take(self.0.resident.lock()) else { return };
        let Ok(thread) = SessionThread::get() else { return };
        let ended = thread.adopt(task);
        if self.0.shared.strong_count() == 0 {
            let _in_time_or_not = ended.recv_timeout(GOODBYE_TIMEOUT);
        }
    }
}

/// The thread that the sessions of this process have in common.
struct SessionThread {
    runtime: Handle,
    watched: Mutex<Vec<Watched>>,
    /// There is something to watch.
    wanted: Notify,
}

/// A task whose turns are counted.
struct Watched {
    placement: Weak<Placement>,
    /// How many turns it had had when it was woken last; `None`: it was not.
    woken_after: Option<u64>,
}

impl SessionThread {
    /// The thread, which is started for the first session.
    fn get() -> Result<&'static SessionThread> {
        static THREAD: OnceLock<std::io::Result<SessionThread>> = OnceLock::new();
        THREAD.get_or_init(SessionThread::start).as_ref().map_err(|error| Error::QuotaExceeded {
            what: format!("threads: the one for sessions cannot be started: {error}"),
        })
    }

    fn start() -> std::io::Result<SessionThread> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let thread = SessionThread {
            runtime: runtime.handle().clone(),
            watched: Mutex::default(),
            wanted: Notify::new(),
        };
        let run = move || {
            // Signals are the business of the application's threads.
            let _best_effort = SigSet::all().thread_block();
            // It is there as soon as this thread has been started.
            if let Ok(thread) = SessionThread::get() {
                runtime.block_on(thread.look_after_all());
            }
        };
        std::thread::Builder::new().name("wombat-session".into()).spawn(run)?;
        Ok(thread)
    }

    fn watch(&self, placement: &Arc<Placement>) {
        let watched = Watched { placement: Arc::downgrade(placement), woken_after: None };
        self.watched.lock().expect("nobody panics with it").push(watched);
        self.wanted.notify_one();
    }

    /// Goes on with a task. What is returned has an end when the task has.
    fn adopt(&self, task: Task) -> Receiver<()> {
        let (running, ended) = channel();
        self.runtime.spawn(async move {
            task.await;
            drop(running);
        });
        ended
    }

    async fn look_after_all(&self) {
        loop {
            if self.watched.lock().expect("nobody panics with it").is_empty() {
                self.wanted.notified().await;
            }
            let due = clock::now() + LOOK_INTERVAL;
            tokio::time::sleep(LOOK_INTERVAL).await;
            self.look(clock::now() < due + LOOK_INTERVAL);
        }
    }

    /// Takes over what had no turn since the last look. If this look is not on `time`, this thread had none either:
    /// the whole process or the machine stood still.
    fn look(&self, on_time: bool) {
        let mut watched = self.watched.lock().expect("nobody panics with it");
        watched.retain_mut(|one| {
            let Some(placement) = one.placement.upgrade() else { return false };
            let turns = placement.turns.load(Ordering::Relaxed);
            if on_time
                && one.woken_after == Some(turns)
                && let Some(task) = placement.take(placement.resident.try_lock())
            {
                self.adopt(task);
                return false;
            }
            one.woken_after = Some(turns);
            placement.wake();
            true
        });
    }
}
